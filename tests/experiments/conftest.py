"""What the tests of experiments on the toys' task vectors share."""

import dataclasses
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from configs import PRESETS
from experiments import protocol
from linearize.evaluate import kept
from linearize.evaluate.view import VIEWS
from linearize.models.heads import apply_head
from linearize.study import Store, Study
from linearize.task_vector import TaskVector


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A debug run's study of seed 0, and what its task vectors give, directly."""

    run_dir: Path
    study: Study

    def taus(self, regime):
        folder = self.run_dir / "seed_0" / regime
        return [TaskVector.load(folder / t / "task_vector.safetensors") for t in self.study.names]

    def head(self, task):
        return self.study.objectives[task].readout

    def logits(self, f, tau, task, split="test"):
        features = f(tau.apply_to(self.study.model.params), self.study.split(task, split).inputs)
        return np.asarray(apply_head(self.head(task), features))

    def accuracy(self, f, tau, task, split="test"):
        labels = self.study.split(task, split).labels
        return (self.logits(f, tau, task, split).argmax(-1) == labels).mean()

    def kept(self, **changes):
        """The study whose tangent view keeps its terms, as the analyses take it."""
        return self.study.but(views={**VIEWS, "tangent": kept.KeptTangent}, **changes)


OPTIMIZED = ("test_bench",)
"""Files whose programs are what is measured."""


@pytest.fixture(scope="module", autouse=True)
def compiled_as_debug_runs(request: pytest.FixtureRequest) -> None:
    """So that what those have compiled serves here too."""
    if request.path.stem not in OPTIMIZED:
        request.getfixturevalue("quick_compilation")


@pytest.fixture(scope="session")
def trained(debug_run) -> Callable[[str], Trained]:
    """``trained(experiment)``, of its ``debug`` preset's run."""

    @cache
    def of(experiment):
        run_dir, config = debug_run(experiment), PRESETS[experiment]["debug"]()
        store = Store.of(run_dir / "seed_0")
        return Trained(run_dir, protocol.study(config, protocol.load_tasks(config), 0, store))

    return of


@pytest.fixture(scope="module")
def finished(debug_run, request) -> Path:
    """The directory of the ``debug`` run of the experiment that the file is named for."""
    return debug_run(request.path.stem.removeprefix("test_"))


@pytest.fixture
def results(finished):
    return json.loads((finished / "results.json").read_text())


@pytest.fixture(scope="module")
def small(trained, request) -> Trained:
    """What that run trained."""
    return trained(request.path.stem.removeprefix("test_"))

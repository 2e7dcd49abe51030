"""Learning rate on its smallest preset, against direct computation."""

import dataclasses

import numpy as np
import pytest

from configs.learning_rate import PRESETS
from experiments import protocol
from experiments.learning_rate import run as learning_rate
from linearize import comparison
from linearize.config import ConfigError
from linearize.models.heads import apply_head
from linearize.study import Store, Study
from linearize.task_vector import TaskVector
from linearize.train import NonFiniteLossError

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
NAMES = DEBUG.setting.data.tasks


@pytest.mark.slow
def test_a_rates_accuracy_is_that_of_its_vectors(finished, results):
    study = protocol.study(DEBUG.setting, protocol.load_tasks(DEBUG.setting), 0, Store())
    lr = DEBUG.nonlinear[1]
    hits, norms = [], []
    for task in NAMES:
        folder = finished / "seed_0" / f"{lr:g}" / "nonlinear" / task
        tau, test = TaskVector.load(folder / "task_vector.safetensors"), study.split(task, "test")
        features = study.model.f(tau.apply_to(study.model.params), test.inputs)
        logits = apply_head(study.objectives[task].readout, features)
        hits.append((np.asarray(logits).argmax(-1) == test.labels).mean())
        norms.append(float(tau.norm()))
    found = results["nonlinear"]
    close(found["single"][0][1], np.mean(hits), atol=1e-6)
    close(found["norm"][0][1], np.mean(norms), rtol=1e-5)
    assert found["norm"][0][0] < found["norm"][0][1]


def test_a_rate_at_which_training_diverges_is_left_empty(monkeypatch, tmp_path):
    def diverge(*_, **__):
        raise NonFiniteLossError(3, np.nan, 1e3, np.inf, TaskVector({}), "")

    monkeypatch.setattr(Study, "vectors", diverge)
    monkeypatch.setattr(protocol, "make_head", lambda *_: None)
    tasks = dict.fromkeys(NAMES)
    found = learning_rate.at_rate(DEBUG, tasks, 0, "linear", 1e3, Store.of(tmp_path))
    assert found == dict.fromkeys(comparison.SUMMARY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nonlinear": (1e-3,)}, "two positive rates"),
        ({"linear": (1e-3, 1e-4)}, "ascending"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)

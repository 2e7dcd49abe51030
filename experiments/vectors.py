"""Task vectors of a finished run of ``compare``, and their affine terms, for the analyses.

The terms f0 and Jτ of a data set cost 1 + 2T passes, and every analysis of the same vectors asks
for the same ones: they are kept in the cache directory, by the identity of f and the content of
weights, vectors and images.
"""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Protocol, TypeVar

import jax
import numpy as np

from experiments import protocol
from experiments.protocol import TRAINED, Evaluator, Regime, Setting
from experiments.records import Record, kept
from linearize import assets, evaluate, identity, io, tree
from linearize import config as configuration
from linearize.config import AnalysisConfig, CompareConfig, ConfigError
from linearize.data import Task
from linearize.evaluate import AffineOutputs
from linearize.task_vector import TaskVector

log = logging.getLogger(__name__)

SETTING = ("model", "data", "head", "nonlinear", "linear", "epochs", "trainable", "batch_size")
"""What the run that the vectors are taken from decides."""

_BATCH = 100
"""Examples a pass of 1 + 2T passes' work holds at most."""


class Borrows(Protocol):
    """A configuration that may name the run whose task vectors it uses."""

    @property
    def vectors(self) -> str | None:
        """That run's directory."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds wanted."""


C = TypeVar("C", bound=Borrows)


def resolve(config: C) -> C:
    """The configuration, in the setting of the run that its task vectors are taken from.

    Raises:
        ConfigError: that run has no readable configuration, or lacks a seed.
    """
    if config.vectors is None:
        return config
    theirs = configuration.load_config(CompareConfig, Path(config.vectors) / "config.json")
    if not set(config.seeds) <= set(theirs.seeds):
        raise ConfigError(
            f"seeds={config.seeds}: {config.vectors} has task vectors of seeds {theirs.seeds} only"
        )
    given = {name: getattr(theirs, name) for name in SETTING}
    return dataclasses.replace(config, **given)  # type: ignore[type-var]


def load_vectors(
    config: Borrows, setting: Setting, regime: Regime, run_dir: Path
) -> Mapping[str, TaskVector]:
    """Each task's vector: of the run that the configuration names, or trained here.

    Raises:
        ConfigError: the named run lacks one.
    """
    trained = TRAINED[regime]
    if config.vectors is None:
        return protocol.task_vectors(setting, trained, run_dir)
    folder = Path(config.vectors) / f"seed_{setting.seed}" / trained
    try:
        return {t: TaskVector.load(folder / t / "task_vector.safetensors") for t in setting.names}
    except FileNotFoundError as error:
        raise ConfigError(f"vectors={config.vectors!r}: {error}; finish that run first") from error


class KeptEvaluator(Evaluator):
    """An evaluator whose affine terms are read from the cache directory where they are there."""

    def terms(self, task: str, split: str) -> AffineOutputs:
        """f0 and Jτ of every task vector on one split, computed once for all runs."""
        if (task, split) not in self._terms:
            images = self.setting.split(task, split).inputs
            path = terms_path(self._decided_by, images)
            found = read_terms(path)
            if found is None:
                log.info("seed %d: %s terms on %s, %s", self.setting.seed, self.regime, task, split)
                found = self._pass(images)
                io.save_tree(path, {"f0": found.f0, "jvps": found.jvps})
            self._terms[task, split] = found
        return self._terms[task, split]

    def _pass(self, images: np.ndarray) -> AffineOutputs:
        setting, most = self.setting, min(self.setting.config.batch_size, _BATCH)
        even = -(-len(images) // -(-len(images) // most))  # no example is spent on padding
        return evaluate.affine_outputs(
            setting.f, setting.params0, list(self.taus.values()), images, batch_size=even
        )

    @cached_property
    def _decided_by(self) -> tuple[str, ...]:
        whole, setting = (self.setting.params0, *self.taus.values()), self.setting
        images = setting.split(setting.names[0], "test").inputs
        example = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)
        f = identity.of(setting.f, setting.params0, example, derivative=True)
        return f, *(tree.fingerprint(parameters) for parameters in whole)


def terms_path(decided_by: Sequence[str], images: np.ndarray) -> Path:
    """Where terms are kept; the name says everything that decides them.

    Args:
        decided_by: the identity of f, the fingerprints of θ0 and of the task vectors.
        images: (N, ...).
    """
    digest = hashlib.sha256("\n".join((*decided_by, str(images.shape))).encode())
    digest.update(np.ascontiguousarray(images).tobytes())
    return assets.cache_dir() / "terms" / f"{digest.hexdigest()[:32]}.safetensors"


def read_terms(path: Path) -> AffineOutputs | None:
    """Terms that were kept; None where there are none, or the file is damaged."""
    try:
        arrays, _ = io.load_tree(path)
        return AffineOutputs(arrays["f0"], arrays["jvps"])
    except FileNotFoundError:
        return None
    except (io.CorruptFileError, KeyError) as error:
        log.warning("computed again: %s", error)
        return None


def evaluator(setting: Setting, regime: Regime, taus: Mapping[str, TaskVector]) -> Evaluator:
    """An evaluator of one regime, its affine terms kept."""
    return KeptEvaluator(setting, regime, taus)


def by_regime(
    measure: Callable[[Evaluator], Record],
    run_dir: Path,
    config: AnalysisConfig,
    tasks: Mapping[str, Task],
    seed: int,
) -> Record:
    """What one seed's evaluators measure, by regime; each regime is kept as a file."""
    setting = prepare(config, tasks, seed)

    def found(regime: Regime) -> Record:
        return measure(evaluator(setting, regime, load_vectors(config, setting, regime, run_dir)))

    return {
        regime: kept(run_dir / "parts" / f"{regime}.json", partial(found, regime))
        for regime in config.regimes
    }


def prepare(config: AnalysisConfig, tasks: Mapping[str, Task], seed: int) -> Setting:
    """One seed's setting, with as many validation and test examples as the analysis looks at."""
    setting = protocol.prepare(config.compare(), tasks, seed)
    return first(setting, config.validation, config.test)


def first(setting: Setting, validation: int | None, test: int | None) -> Setting:
    """The same setting with at most so many validation and test examples of each task.

    Splits of packaged tasks and of the papers' begin with one example of each class and go on with
    the classes in proportion (:func:`linearize.data.split.stratified_order`), however sorted the
    data lie on disk; so does what this takes.
    """
    tasks = {
        name: dataclasses.replace(
            task,
            validation=task.validation.take(slice(validation)),
            test=task.test.take(slice(test)),
        )
        for name, task in setting.tasks.items()
    }
    return dataclasses.replace(setting, tasks=tasks)

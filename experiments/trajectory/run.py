"""Task vectors along training: their cosine to the final one, and what they merge to.

    python -m experiments.trajectory packaged

For each seed, regime and kept step: the cosine of every task's vector so far with its final one,
its share of the final norm, single-task accuracy, and accuracy after addition with the α that
validation data choose (*Editing Models with Task Arithmetic*, appendix).
"""

import dataclasses
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np

from experiments import claims, protocol, running, vectors
from experiments.claims import Claim
from experiments.trajectory.config import TrajectoryConfig
from experiments.trajectory.results import Results
from linearize import comparison
from linearize.comparison import Plan
from linearize.config.compare import CompareConfig
from linearize.data import Task
from linearize.methods import METHODS
from linearize.report import schema
from linearize.study import FineTuning, Method, Store, Study, stack
from linearize.study.store import Record

REGIMES = ("nonlinear", "posthoc", "linear")


def run(config: TrajectoryConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        tasks, store = protocol.load_tasks(config.setting), Store.of(run_dir)
        parts = sum(len(steps(config, regime)) for regime in REGIMES)
        measured = store.every_seed(config.seeds, parts, partial(measure, config, tasks))
        model = protocol.describe_model(config.setting.model, config.seeds[0])
        found = running.about("trajectory", preset, config, model) | measured
        found |= {
            "tasks": config.setting.data.tasks,
            "along": {regime: steps(config, regime) for regime in REGIMES},
        }
        return running.finish(run_dir, claims.judged(schema.read(Results, found), CLAIMS))


def keeping(config: TrajectoryConfig) -> CompareConfig:
    """The setting, whose vectors are kept after each step that is measured."""
    nonlinear, linear = (
        dataclasses.replace(recipe, save_vectors_at=config.steps)
        for recipe in (config.setting.nonlinear, config.setting.linear)
    )
    return dataclasses.replace(config.setting, nonlinear=nonlinear, linear=linear)


def fine_tunings(config: TrajectoryConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed, regime and task."""
    tasks = cache(partial(protocol.load_tasks, config.setting))
    methods = [METHODS[name] for name in REGIMES]
    names = config.setting.data.tasks
    return protocol.fine_tunings(keeping(config), Store.of(run_dir), methods, names, tasks)


def measure(config: TrajectoryConfig, tasks: Mapping[str, Task], seed: int, store: Store) -> Record:
    """One seed: every regime's measures, lists over steps."""
    whole = keeping(config)
    study, plan = protocol.study(whole, tasks, seed, store), protocol.plan(whole)
    record: Record = {}
    for regime in REGIMES:
        study.vectors(METHODS[regime])
        record[regime] = stack(
            [
                store.kept(f"{regime}_{step}", partial(at_step, study, plan, METHODS[regime], kept))
                for step, kept in zip(steps(config, regime), (*config.steps, None), strict=True)
            ]
        )
    return record


def steps(config: TrajectoryConfig, regime: str) -> tuple[int, ...]:
    """The steps that a regime is measured at."""
    recipe = config.setting.recipes[METHODS[regime].trainer.name]
    return (*config.steps, recipe.steps)


def at_step(study: Study, plan: Plan, method: Method, step: int | None) -> Record:
    """One regime after some steps, or after all, where None."""
    final, taus = study.vectors(method), vectors.after(study, method, step)
    cosines = [float(taus[task].cosine(final[task])) for task in study.names]
    found = comparison.summary(study, study.view(method, taus), plan)
    return {"cosine": float(np.mean(cosines))} | found


def _halfway(results: Results, regime: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    """A measure at the last kept step in the first half, and at the end, (S,) each.

    Raises:
        KeyError: no step of the first half was kept.
    """
    along, values = results.along[regime], getattr(results.regimes[regime], what)
    early = np.flatnonzero(along <= along[-1] / 2)
    if not early.size:
        raise KeyError("steps")
    return values[:, early[-1]], values[:, -1]


def _early(regime: str, words: str) -> tuple[Claim[Results], ...]:
    def less(results: Results) -> np.ndarray:
        half, end = _halfway(results, regime, "addition")
        return half - end + 0.01

    return (
        Claim(
            f"In half of the steps vectors are near their final direction, {words}: cosine above "
            "0.9 (TA, appendix)",
            lambda r: _halfway(r, regime, "cosine")[0] - 0.9,
            "cosine to the final vector minus 0.9, mean of tasks",
        ),
        Claim(
            f"They merge within one point as well as the final ones, {words} (TA, appendix)",
            less,
            "accuracy after addition, after half of the steps minus at the end, plus 0.01",
        ),
    )


CLAIMS: tuple[Claim[Results], ...] = (
    *_early("nonlinear", "non-linear"),
    *_early("linear", "linear"),
)

"""Effect of the learning rate on single-task and on merged accuracy.

    python -m experiments.learning_rate packaged

For each seed, regime and learning rate: every task fine-tuned, single-task test accuracy, and the
accuracy of all vectors added with the α that validation data choose (*Editing Models with Task
Arithmetic*, appendix).
"""

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from configs import LEARNING_RATE
from experiments import claims, protocol, running
from experiments.compare import addition, singles
from experiments.protocol import TRAINED, Evaluator, Regime
from experiments.records import Record, about, kept, recorded, stack
from experiments.tune import with_value
from linearize.config import LearningRateConfig
from linearize.data import Task
from linearize.train import NonFiniteLossError

log = logging.getLogger(__name__)

REGIMES: tuple[Regime, ...] = ("nonlinear", "posthoc", "linear")


def run(config: LearningRateConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        tasks = protocol.load_tasks(config.setting)
        measured = running.every_seed(measure, run_dir, config, tasks)
        results = describe(config, preset) | measured
        results["claims"] = claims.judge(results, CLAIMS)
        return running.finish(run_dir, results)


@recorded(lambda config: sum(len(rates(config, regime)) for regime in REGIMES))
def measure(
    run_dir: Path, config: LearningRateConfig, tasks: Mapping[str, Task], seed: int
) -> Record:
    """One seed: every regime's measures, lists over learning rates."""
    record: Record = {}
    for regime in REGIMES:
        rows = [
            kept(
                run_dir / "parts" / f"{regime}_{lr:g}.json",
                partial(at_rate, config, tasks, seed, regime, lr, run_dir / f"{lr:g}"),
            )
            for lr in rates(config, regime)
        ]
        record[regime] = stack(rows)
    return record


def rates(config: LearningRateConfig, regime: Regime) -> tuple[float, ...]:
    """The learning rates of a regime's vectors."""
    return config.linear if regime == "linear" else config.nonlinear


def at_rate(
    config: LearningRateConfig,
    tasks: Mapping[str, Task],
    seed: int,
    regime: Regime,
    lr: float,
    folder: Path,
) -> Record:
    """One regime at one learning rate; nothing where fine-tuning diverges."""
    trained = TRAINED[regime]
    whole = with_value(config.setting, trained, lr)
    setting = protocol.prepare(whole, tasks, seed)
    try:
        return summary(Evaluator(setting, regime, protocol.task_vectors(setting, trained, folder)))
    except NonFiniteLossError as error:
        log.warning("seed %d: %s at %g diverged: %s", seed, regime, lr, error)
        return dict.fromkeys(MEASURES)


MEASURES = ("single", "addition", "normalized", "alpha", "norm")


def summary(evaluator: Evaluator) -> Record:
    """Means over tasks: single-task accuracy, accuracy after addition, α, norm of the vectors."""
    single = singles(evaluator)
    added = addition(evaluator, single)
    norms = [float(tau.norm()) for tau in evaluator.taus.values()]
    values = (single, added["accuracy"], added["normalized"], added["alpha"], norms)
    return {name: float(np.mean(v)) for name, v in zip(MEASURES, values, strict=True)}


def describe(config: LearningRateConfig, preset: str) -> Record:
    """What was run, on what, by which versions."""
    return about("learning_rate", preset, config) | {
        "model": protocol.describe_model(config.setting.model, config.seeds[0]),
        "tasks": list(config.setting.data.tasks),
        "along": {regime: list(rates(config, regime)) for regime in REGIMES},
    }


def _ends(results: Any, regime: str, what: str) -> np.ndarray:
    """A measure at the lowest rate minus that at the highest, (S,)."""
    values = np.asarray(results[regime][what], float)
    return values[:, 0] - values[:, -1]


def _hurt(regime: Regime, words: str) -> claims.Claim:
    return (
        f"High learning rates hurt merging more than single tasks, {words} (TA, appendix)",
        lambda r: _ends(r, regime, "addition") - _ends(r, regime, "single"),
        "loss of accuracy from the lowest to the highest rate, after addition minus single-task",
    )


CLAIMS: tuple[claims.Claim, ...] = (
    _hurt("nonlinear", "non-linear"),
    _hurt("posthoc", "post-hoc"),
    _hurt("linear", "linear"),
)


if __name__ == "__main__":
    running.launch("learning_rate", LEARNING_RATE, run)

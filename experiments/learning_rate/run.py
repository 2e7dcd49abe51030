"""Effect of the learning rate on single-task and on merged accuracy.

    python -m experiments.learning_rate packaged

For each seed, regime and learning rate: every task fine-tuned, single-task test accuracy, and the
accuracy of all vectors added with the α that validation data choose (*Editing Models with Task
Arithmetic*, appendix).
"""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import numpy as np

from experiments import claims, protocol, running
from experiments.claims import Claim
from experiments.learning_rate.config import LearningRateConfig
from experiments.learning_rate.results import Results
from linearize import comparison
from linearize.data import Task
from linearize.methods import METHODS
from linearize.report import schema
from linearize.study import FineTuning, Store, Study, stack
from linearize.study import fine_tunings as every_seed
from linearize.study.store import Record
from linearize.train import NonFiniteLossError

log = logging.getLogger(__name__)

REGIMES = ("nonlinear", "posthoc", "linear")


def run(config: LearningRateConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        tasks, store = protocol.load_tasks(config.setting), Store.of(run_dir)
        parts = sum(len(rates(config, regime)) for regime in REGIMES)
        measured = store.every_seed(config.seeds, parts, partial(measure, config, tasks))
        model = protocol.describe_model(config.setting.model, config.seeds[0])
        found = running.about("learning_rate", preset, config, model) | measured
        found |= {
            "tasks": config.setting.data.tasks,
            "along": {regime: rates(config, regime) for regime in REGIMES},
        }
        return running.finish(run_dir, claims.judged(schema.read(Results, found), CLAIMS))


def fine_tunings(config: LearningRateConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every rate, seed and task; one that diverges is finished."""
    tasks = cache(partial(protocol.load_tasks, config.setting))
    trainers = dict.fromkeys(METHODS[regime].trainer.name for regime in REGIMES)

    def of(regime: str, lr: float, seed: int, store: Store) -> Study:
        return at(config, tasks(), regime, lr, seed, store)

    return [
        dataclasses.replace(each, train=partial(_to_the_end, each.train))
        for regime in trainers
        for lr in rates(config, regime)
        for each in every_seed(
            Store.of(run_dir),
            config.seeds,
            [METHODS[regime]],
            config.setting.data.tasks,
            partial(of, regime, lr),
            within=f"{lr:g}",
        )
    ]


def _to_the_end(train: Callable[[], object]) -> None:
    with contextlib.suppress(NonFiniteLossError):
        train()


def measure(
    config: LearningRateConfig, tasks: Mapping[str, Task], seed: int, store: Store
) -> Record:
    """One seed: every regime's measures, lists over learning rates."""
    return {
        regime: stack(
            [
                store.kept(
                    f"{regime}_{lr:g}", partial(at_rate, config, tasks, seed, regime, lr, store)
                )
                for lr in rates(config, regime)
            ]
        )
        for regime in REGIMES
    }


def rates(config: LearningRateConfig, regime: str) -> tuple[float, ...]:
    """The learning rates of a regime's vectors."""
    return getattr(config, METHODS[regime].trainer.name)


def at(
    config: LearningRateConfig,
    tasks: Mapping[str, Task],
    regime: str,
    lr: float,
    seed: int,
    store: Store,
) -> Study:
    """The study of one learning rate."""
    whole = protocol.with_value(config.setting, METHODS[regime].trainer.name, lr)
    return protocol.study(whole, tasks, seed, store)


def at_rate(
    config: LearningRateConfig,
    tasks: Mapping[str, Task],
    seed: int,
    regime: str,
    lr: float,
    store: Store,
) -> Record:
    """One regime at one learning rate; nothing where fine-tuning diverges."""
    method = METHODS[regime]
    study = at(config, tasks, regime, lr, seed, store.under(f"{lr:g}"))
    plan = protocol.plan(config.setting)
    try:
        return comparison.summary(study, study.view(method), plan)
    except NonFiniteLossError as error:
        log.warning("seed %d: %s at %g diverged: %s", seed, regime, lr, error)
        return dict.fromkeys(comparison.SUMMARY)


def _lost(results: Results, regime: str, what: str) -> np.ndarray:
    """A measure at the lowest rate minus that at the highest, (S,)."""
    values = getattr(results.regimes[regime], what)
    return values[:, 0] - values[:, -1]


def _hurt(regime: str, words: str) -> Claim[Results]:
    return Claim(
        f"High learning rates hurt merging more than single tasks, {words} (TA, appendix)",
        lambda r: _lost(r, regime, "addition") - _lost(r, regime, "single"),
        "loss of accuracy from the lowest to the highest rate, after addition minus single-task",
    )


CLAIMS: tuple[Claim[Results], ...] = (
    _hurt("nonlinear", "non-linear"),
    _hurt("posthoc", "post-hoc"),
    _hurt("linear", "linear"),
)

"""Task analogies on images: sub-populations, and classes that were never trained on.

    python -m experiments.analogies packaged

"A is to B as C is to D": τ_D ≈ τ_C + (τ_B − τ_A) (*Editing Models with Task Arithmetic*, §5). A
sub-population is half of the classes in one style. The target D is the second half in the target
style; A and B are the first half in the source and in the target style, C is the second in the
source style. The head is made of the source style's examples alone, so that no labelled example
of the target is used but for the choice of α, on validation data; α = 1 uses none at all. Then how
far labelled examples of the target help, from θ0 and from the edited model; and single classes
("kings and queens") in :mod:`experiments.kings`.
"""

import itertools
import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jax.tree_util import Partial

from configs import ANALOGIES
from experiments import claims, kings, populations, protocol, running
from experiments.protocol import Evaluator, Regime, Setting
from experiments.records import Record, about, kept, recorded
from linearize import edit, evaluate, io, train
from linearize.config import AnalogiesConfig
from linearize.data import Task
from linearize.models.heads import apply_head
from linearize.task_vector import TaskVector
from linearize.types import Params

log = logging.getLogger(__name__)

METHODS: Mapping[str, Mapping[str, float]] = {
    "pretrained": {},
    "same classes": {"c": 1},
    "same style": {"b": 1},
    "sum": {"c": 1, "b": 1},
    "analogy": {"c": 1, "b": 1, "a": -1},
    "target": {"d": 1},
}
"""Weights of the four vectors; the last is fine-tuned on the target itself."""


def run(config: AnalogiesConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        tasks = protocol.load_tasks(config.setting)
        measured = running.every_seed(measure, run_dir, config, tasks)
        results = describe(config, tasks, preset) | measured
        results["claims"] = claims.judge(results, CLAIMS)
        return running.finish(run_dir, results)


def parts(config: AnalogiesConfig) -> int:
    """How many parts a seed has: each half of each two styles, each quadruple of classes."""
    return 2 * math.perm(len(config.setting.data.tasks), 2) + len(config.quadruples)


@recorded(parts)
def measure(run_dir: Path, config: AnalogiesConfig, tasks: Mapping[str, Task], seed: int) -> Record:
    """One seed: every analogy, by its source and target style and the target's half."""
    record: Record = {"subpopulations": {}, "kings": {}}
    for source, target in itertools.permutations(config.setting.data.tasks, 2):
        folder = run_dir / f"{source}_to_{target}"
        four = {
            f"{style}_{half}": populations.of(tasks[style], config.halves[half])
            for style in (source, target)
            for half in (0, 1)
        }
        setting = populations.prepare(config.setting, seed, tasks[source], four)
        for half in (0, 1):
            roles = {
                "a": f"{source}_{1 - half}",
                "b": f"{target}_{1 - half}",
                "c": f"{source}_{half}",
                "d": f"{target}_{half}",
            }
            record["subpopulations"][f"{target}_{half} from {source}"] = kept(
                folder / f"half_{half}.json", partial(analogy, config, setting, roles, folder)
            )
    source, target = config.setting.data.tasks[:2]
    for pair in config.quadruples:
        name = "{} and {}".format(*(tasks[source].classes[c] for c in pair))
        folder = run_dir / "kings" / "{}_{}".format(*pair)
        record["kings"][name] = kept(
            folder / "measured.json",
            partial(kings.king, config, (tasks[source], tasks[target]), pair, seed, folder),
        )
    return record


def analogy(
    config: AnalogiesConfig, setting: Setting, roles: Mapping[str, str], folder: Path
) -> Record:
    """One target: accuracy of every method in every regime, and the learning curve."""
    record: Record = {"regimes": {}}
    for regime in config.regimes:
        vectors = {
            role: protocol.fine_tune(setting, regime, name, folder / regime / name)
            for role, name in roles.items()
        }
        evaluator = Evaluator(setting, regime, vectors)
        record["regimes"][regime] = {
            name: scaled(evaluator, weights, roles["d"]) for name, weights in METHODS.items()
        }
        if regime == "nonlinear" and config.examples:
            found = record["regimes"][regime]["analogy"]["alpha"]
            tau = edit.analogy(*(vectors[role] for role in "abc"))
            record["curve"] = curves(config, setting, roles["d"], found * tau, folder)
    return io.to_json(record)


def scaled(evaluator: Evaluator, weights: Mapping[str, float], target: str) -> dict[str, float]:
    """Test accuracy on the target, at the α that its validation examples choose and at α = 1.

    The vector trained on the target itself is not scaled.
    """
    grid = protocol.alphas(evaluator.setting.config)
    if set(weights) <= {"d"}:
        alpha = 1.0
    else:
        columns = {role: weight * grid for role, weight in weights.items()}
        table = evaluator(columns, target, "validation")
        alpha = edit.search_scale(table[:, None], np.ones(1), grid).alpha
    at = {
        name: evaluator.at({r: a * w for r, w in weights.items()}, target, "test")
        for name, a in (("accuracy", alpha), ("at one", 1.0))
    }
    return {"alpha": float(alpha), **at}


def curves(
    config: AnalogiesConfig, setting: Setting, target: str, tau: TaskVector, folder: Path
) -> Record:
    """Test accuracy by number of the target's labelled examples, from θ0 and from θ0 + τ."""
    starts = {"pretrained": setting.params0, "edited": tau.apply_to(setting.params0)}
    return {
        name: [
            learned(config, setting, target, start, count, folder / "curve" / f"{name}_{count}")
            for count in (0, *config.examples)
        ]
        for name, start in starts.items()
    }


def learned(
    config: AnalogiesConfig,
    setting: Setting,
    target: str,
    start: Params,
    count: int,
    folder: Path,
) -> float:
    """Test accuracy after fine-tuning on the target's first training examples."""
    head, test = setting.padded[target], setting.split(target, "test")
    if count:
        rows = setting.split(target, "train").take(slice(count))
        log.info("seed %d: %d examples of %s", setting.seed, len(rows), target)
        start = train.fine_tune(
            setting.f,
            start,
            protocol.for_training(setting.config.data, rows.arrays()),
            regime="nonlinear",
            readout=Partial(apply_head, head),
            config=replace(config.curve, seed=setting.seed),
            trainable=setting.config.trainable,
            run_dir=folder / target,
        ).tau.apply_to(start)
    logits = apply_head(head, evaluate.outputs(setting.f, start, test.inputs))
    return float((np.asarray(evaluate.predicted(logits)) == test.labels).mean())


def describe(config: AnalogiesConfig, tasks: Mapping[str, Task], preset: str) -> Record:
    """What was run, on what, by which versions."""
    styles = config.setting.data.tasks
    return about("analogies", preset, config) | {
        "model": protocol.describe_model(config.setting.model, config.seeds[0]),
        "tasks": list(styles),
        "classes": list(tasks[styles[0]].classes),
        "halves": [list(half) for half in config.halves],
        "examples": [0, *config.examples],
        "regimes": list(config.regimes),
        "methods": list(METHODS),
        "king_methods": list(kings.METHODS),
    }


def _gain(results: Any, regime: Regime, method: str, over: str, what: str) -> np.ndarray:
    """Mean over targets of one method's accuracy minus another's, (S,)."""
    targets = results["subpopulations"].values()
    gains = [
        np.subtract(t["regimes"][regime][method][what], t["regimes"][regime][over][what])
        for t in targets
    ]
    return np.mean(gains, 0)


def _ahead(results: Any) -> np.ndarray:
    """How far the edited start lies above θ0, mean over numbers of examples and targets, (S,)."""
    curves = [t["curve"] for t in results["subpopulations"].values()]
    gains = [np.subtract(c["edited"], c["pretrained"])[:, 1:].mean(-1) for c in curves]
    return np.mean(gains, 0)


def _king(results: Any, regime: Regime, what: str) -> np.ndarray:
    rows = [k[regime] for k in results["kings"].values()]
    if not rows:
        raise KeyError("kings")
    gains = [np.subtract(k["analogy"][what], k["pretrained"][what]) for k in rows]
    return np.mean(gains, 0)


WORDS: Mapping[Regime, str] = {"nonlinear": "non-linear", "linear": "linear"}

CLAIMS: tuple[claims.Claim, ...] = (
    *(
        (
            f"The analogy improves zero-shot accuracy on the target, {words} (TA, sec. 5)",
            lambda r, regime=regime: _gain(r, regime, "analogy", "pretrained", "accuracy"),
            "analogy minus pre-trained, mean of targets",
        )
        for regime, words in WORDS.items()
    ),
    *(
        (
            f"It is better than the vector of the same classes in the other style alone, {words}",
            lambda r, regime=regime: _gain(r, regime, "analogy", "same classes", "accuracy"),
            "analogy minus same classes, mean of targets",
        )
        for regime, words in WORDS.items()
    ),
    (
        "With labelled examples of the target, the edited model stays ahead (TA, sec. 5)",
        _ahead,
        "edited minus pre-trained start, mean of numbers of examples and targets",
    ),
    *(
        (
            f"A class never trained on is learned from three related ones, {words} (TA, sec. 5)",
            lambda r, regime=regime: _king(r, regime, "target"),
            "accuracy on the class, analogy minus pre-trained, mean of quadruples",
        )
        for regime, words in WORDS.items()
    ),
)


if __name__ == "__main__":
    running.launch("analogies", ANALOGIES, run)

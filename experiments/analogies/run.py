"""Task analogies on images: sub-populations, and classes that were never trained on.

    python -m experiments.analogies packaged

"A is to B as C is to D": τ_D ≈ τ_C + (τ_B − τ_A) (*Editing Models with Task Arithmetic*, §5). A
sub-population is half of the classes in one style. The target D is the second half in the target
style; A and B are the first half in the source and in the target style, C is the second in the
source style. The head is made of the source style's examples alone, so that no labelled example
of the target is used but for the choice of α, on validation data; α = 1 uses none at all. Then how
far labelled examples of the target help, from θ0 and from the edited model; and single classes
("kings and queens") in :mod:`experiments.analogies.kings`.
"""

import itertools
import logging
import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from experiments import claims, protocol, running
from experiments.analogies import kings, populations
from experiments.analogies.claims import CLAIMS
from experiments.analogies.config import AnalogiesConfig
from experiments.analogies.results import Results
from linearize import edit, evaluate
from linearize.data import Task
from linearize.evaluate.view import View
from linearize.methods import METHODS, NONLINEAR, fine_tuning
from linearize.report import schema
from linearize.study import Store, Study
from linearize.study.store import Record
from linearize.task_vector import TaskVector
from linearize.types import Params

log = logging.getLogger(__name__)

WEIGHTS: Mapping[str, Mapping[str, float]] = {
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
        every = partial(measure, config, tasks)
        measured = Store.of(run_dir).every_seed(config.seeds, parts(config), every)
        model = protocol.describe_model(config.setting.model, config.seeds[0])
        found = running.about("analogies", preset, config, model) | measured
        styles = config.setting.data.tasks
        found |= {
            "tasks": styles,
            "classes": tasks[styles[0]].classes,
            "halves": config.halves,
            "examples": (0, *config.examples),
            "regimes": config.regimes,
            "methods": tuple(WEIGHTS),
            "king_methods": tuple(kings.WEIGHTS),
        }
        results = claims.judged(schema.read(Results, found), CLAIMS)
        return running.finish(run_dir, results)


def parts(config: AnalogiesConfig) -> int:
    """How many parts a seed has: each half of each two styles, each quadruple of classes."""
    return 2 * math.perm(len(config.setting.data.tasks), 2) + len(config.quadruples)


def measure(config: AnalogiesConfig, tasks: Mapping[str, Task], seed: int, store: Store) -> Record:
    """One seed: every analogy, by its source and target style and the target's half."""
    record: Record = {"subpopulations": {}, "kings": {}}
    styles = config.setting.data.tasks
    for source, target in itertools.permutations(styles, 2):
        folder = f"{source}_to_{target}"
        study = between(config, tasks, (source, target), seed, store.under(folder))
        for half in (0, 1):
            told = partial(analogy, config, study, roles(source, target, half))
            record["subpopulations"][f"{target}_{half} from {source}"] = store.kept(
                f"{folder}/half_{half}", told, folder=""
            )
    for pair in config.quadruples:
        two = [tasks[name] for name in styles[:2]]
        name = "{} and {}".format(*(two[0].classes[c] for c in pair))
        folder = "kings/{}_{}".format(*pair)
        told = partial(kings.king, config, two, pair, seed, store.under(folder))
        record["kings"][name] = store.kept(f"{folder}/measured", told, folder="")
    return record


def between(
    config: AnalogiesConfig,
    tasks: Mapping[str, Task],
    styles: tuple[str, str],
    seed: int,
    store: Store,
) -> Study:
    """The study of both halves of two styles, under a head that knows the first style alone."""
    four = {
        f"{style}_{half}": populations.of(tasks[style], config.halves[half])
        for style in styles
        for half in (0, 1)
    }
    heads = dict.fromkeys(four, populations.head(config.setting, seed, tasks[styles[0]]))
    return protocol.study(config.setting, four, seed, store, heads=heads)


def roles(source: str, target: str, half: int) -> dict[str, str]:
    """Which populations "A is to B as C is to D" is about, where D is a half of the target."""
    return {
        "a": f"{source}_{1 - half}",
        "b": f"{target}_{1 - half}",
        "c": f"{source}_{half}",
        "d": f"{target}_{half}",
    }


def analogy(config: AnalogiesConfig, study: Study, roles: Mapping[str, str]) -> Record:
    """One target: accuracy of every method in every regime, and the learning curve."""
    record: Record = {"regimes": {}}
    grid = config.setting.edit.alphas
    for regime in config.regimes:
        trained = study.vectors(METHODS[regime])
        vectors = {role: trained[name] for role, name in roles.items()}
        view = study.view(METHODS[regime], vectors)
        record["regimes"][regime] = {
            name: scaled(study, view, weights, grid, roles["d"])
            for name, weights in WEIGHTS.items()
        }
        if regime == NONLINEAR.name and config.examples:
            found = record["regimes"][regime]["analogy"]["alpha"]
            tau = edit.analogy(*(vectors[role] for role in "abc"))
            record["curve"] = curves(config, study, roles["d"], found * tau)
    return record


def scaled(
    study: Study, view: View, weights: Mapping[str, float], grid: np.ndarray, target: str
) -> dict[str, float]:
    """Test accuracy on the target, at the α that its validation examples choose and at α = 1.

    The vector trained on the target itself is not scaled.
    """
    alpha = 1.0
    if not set(weights) <= {"d"}:
        points = {role: weight * grid for role, weight in weights.items()}
        table = study.measure(view, points, target, "validation")
        alpha = edit.search_scale(table[:, None], np.ones(1), grid).alpha
    at = {
        name: study.at(view, {r: a * w for r, w in weights.items()}, target, "test")
        for name, a in (("accuracy", alpha), ("at one", 1.0))
    }
    return {"alpha": float(alpha), **at}


def curves(config: AnalogiesConfig, study: Study, target: str, tau: TaskVector) -> Record:
    """Test accuracy by number of the target's labelled examples, from θ0 and from θ0 + τ."""
    starts = {"pretrained": study.model.params, "edited": tau.apply_to(study.model.params)}
    return {
        name: [
            learned(config, study, target, start, count, f"{name}_{count}")
            for count in (0, *config.examples)
        ]
        for name, start in starts.items()
    }


def learned(
    config: AnalogiesConfig, study: Study, target: str, start: Params, count: int, name: str
) -> float:
    """Test accuracy after fine-tuning on the target's first training examples."""
    objective, test = study.alike[target], study.split(target, "test")
    if count:
        rows = study.split(target, "train").take(slice(count))
        log.info("seed %d: %d examples of %s", study.seed, len(rows), target)
        start = fine_tuning.run(
            study,
            rows.arrays(),
            config.curve,
            ("curve", name, target),
            {"task": target},
            start=start,
            regime="nonlinear",
            **objective.training(),
        ).tau.apply_to(start)
    outputs = evaluate.outputs(study.model.f, start, test.inputs, study.batch_size)
    return objective.measure(outputs, test.targets)[objective.primary.name]

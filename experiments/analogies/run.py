"""Task analogies on images: sub-populations, and classes that were never trained on.

    python -m experiments.analogies packaged

"A is to B as C is to D": τ_D ≈ τ_C + (τ_B − τ_A) (*Editing Models with Task Arithmetic*, §5). A
sub-population is half of the classes in one style. The target D is the second half in the target
style; A and B are the first half in the source and in the target style, C is the second in the
source style. The head is made of the source style's examples alone, so that no labelled example
of the target is used but for the choice of α, on validation data; α = 1 uses none at all. How far
labelled examples of the target help is in :mod:`experiments.analogies.curve`, single classes
("kings and queens") are in :mod:`experiments.analogies.kings`.
"""

import itertools
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from experiments import claims, protocol, running
from experiments.analogies import curve, kings, populations
from experiments.analogies.claims import CLAIMS
from experiments.analogies.config import AnalogiesConfig
from experiments.analogies.results import Results
from experiments.on_target import OF_TWO
from experiments.scaling import chosen
from linearize import edit
from linearize.config import ConfigError
from linearize.config.files import require
from linearize.data import Task
from linearize.methods import METHODS, NONLINEAR
from linearize.report import schema
from linearize.study import Store, Study
from linearize.study.store import Record

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
        check_classes(config, tasks)
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
            "methods": methods(config),
            "king_methods": tuple(kings.WEIGHTS),
        }
        results = claims.judged(schema.read(Results, found), CLAIMS)
        return running.finish(run_dir, results)


def check_classes(config: AnalogiesConfig, tasks: Mapping[str, Task]) -> None:
    """The styles have as many classes, those of the quadruples among them.

    Raises:
        ConfigError: they have not.
    """
    counts = {style: len(tasks[style].classes) for style in config.setting.data.tasks}
    few = min(counts.values())
    told = ", ".join(f"{style} {count}" for style, count in counts.items())
    require(
        len(set(counts.values())) == 1, "setting.data.tasks", config.setting.data.tasks,
        f"styles are data sets of the same classes, and these have {told}; name others",
    )  # fmt: skip
    for pair in config.quadruples:
        require(max(pair) < few, "quadruples", pair, f"the styles have the classes 0 to {few - 1}")


def methods(config: AnalogiesConfig) -> tuple[str, ...]:
    """Those that are measured; that of two coefficients after that of one."""
    return tuple(
        name
        for each in WEIGHTS
        for name in ((each, OF_TWO) if each == "analogy" and config.of_two else (each,))
    )


def parts(config: AnalogiesConfig) -> int:
    """How many parts a seed has: each half of each two styles, each quadruple of classes."""
    return 2 * len(directions(config)) + len(config.quadruples)


def directions(config: AnalogiesConfig) -> list[tuple[str, str]]:
    """Source and target style of the sub-populations; none where there are no halves."""
    if not any(config.halves):
        return []
    return list(itertools.permutations(config.setting.data.tasks, 2))


def measure(config: AnalogiesConfig, tasks: Mapping[str, Task], seed: int, store: Store) -> Record:
    """One seed: every analogy, by its source and target style and the target's half."""
    record: Record = {"subpopulations": {}, "kings": {}}
    styles = config.setting.data.tasks
    for source, target in directions(config):
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
    """The study of both halves of two styles, under a head that knows the first style alone.

    Raises:
        ConfigError: a half has fewer training examples than the learning curve takes.
    """
    four = {
        f"{style}_{half}": populations.of(tasks[style], config.halves[half])
        for style in styles
        for half in (0, 1)
    }
    for name, half in four.items():
        if len(half.train) < max(config.examples, default=0):
            raise ConfigError(
                f"examples={config.examples}: {name} has {len(half.train)} to train on; lower them"
            )
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
    """One target: accuracy of every method in every regime, and the learning curve.

    The vector trained on the target itself is not scaled.
    """
    record: Record = {"regimes": {}}

    def scales(weights: Mapping[str, float]) -> np.ndarray:
        return np.ones(1) if set(weights) <= {"d"} else config.setting.edit.alphas

    for regime in config.regimes:
        trained = study.vectors(METHODS[regime])
        vectors = {role: trained[name] for role, name in roles.items()}
        view = study.view(METHODS[regime], vectors)
        record["regimes"][regime] = {
            name: chosen(study, view, [weights], scales(weights), roles["d"])
            for name, weights in WEIGHTS.items()
        }
        if config.of_two:
            two = [{"c": 1.0}, {"b": 1.0, "a": -1.0}]
            found = chosen(study, view, two, config.pair, roles["d"])
            record["regimes"][regime][OF_TWO] = found
        if regime == NONLINEAR.name and config.examples:
            found = record["regimes"][regime]["analogy"]["alpha"]
            tau = edit.analogy(*(vectors[role] for role in "abc"))
            record["curve"] = curve.of(config, study, roles["d"], found * tau)
    return record

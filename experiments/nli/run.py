"""Addition of task vectors of language tasks: every subset, and one donor for each target.

    python -m experiments.nli packaged

For each seed and regime: the sum of every subset's vectors, at the α of the best mean of the
subset's tasks' metrics on validation examples, and at α = 1; and each target's own model with one
other vector added, donor and α chosen on the target's validation examples (*Editing Models with
Task Arithmetic*, §4.2). Each task is measured by its own metric: accuracy, the exact match of an
answer, Matthews correlation.
"""

import logging
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import numpy as np

from experiments import adding, claims, running
from experiments.claims import Claim
from experiments.nli.config import NliConfig
from experiments.nli.material import Material, load
from experiments.nli.results import Regime, Results
from linearize import comparison, io
from linearize.evaluate.view import VIEWS, View
from linearize.methods import METHODS
from linearize.report import schema
from linearize.report.node import Floats
from linearize.study import FineTuning, Method, Store, Study
from linearize.study import fine_tunings as every_seed
from linearize.study.store import Record

log = logging.getLogger(__name__)

_TIE = 1e-12


def run(config: NliConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    with running.claimed(run_dir, config):
        return measured(config, load(config), run_dir, preset)


def measured(config: NliConfig, material: Material, run_dir: Path, preset: str) -> Path:
    """The same of what is at hand."""
    parts = len(config.regimes) + 1
    found = Store.of(run_dir).every_seed(config.seeds, parts, partial(measure, config, material))
    described = {**comparison.describe_model(material.model), "name": material.name}
    passes = {regime: VIEWS[METHODS[regime].view].passes for regime in config.regimes}
    found |= running.about("nli", preset, config, described) | {
        "tasks": config.tasks,
        "metrics": found["metrics"][0],
        "classes": [list(material.tasks[task].classes) for task in config.tasks],
        "read": config.model.read,
        "tested": [len(material.tasks[task].test) for task in config.tasks],
        "subsets": {regime: config.subsets(each) for regime, each in passes.items()},
        "grids": {regime: config.alphas(each).tolist() for regime, each in passes.items()},
    }
    return running.finish(run_dir, claims.judged(schema.read(Results, found), CLAIMS))


def study(config: NliConfig, material: Material, seed: int, store: Store) -> Study:
    """One seed's study."""
    return Study(
        material.model,
        material.tasks,
        material.objectives,
        seed=seed,
        store=store,
        recipes={"nonlinear": config.nonlinear, "linear": config.linear},
        trainable=config.trainable,
        epochs=config.epochs,
        batch_size=config.batch_size,
    )


def fine_tunings(config: NliConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed and regime."""
    material = cache(partial(load, config))
    return every_seed(
        Store.of(run_dir),
        config.seeds,
        [METHODS[name] for name in config.regimes],
        config.tasks,
        lambda seed, place: study(config, material(), seed, place),
    )


def measure(config: NliConfig, material: Material, seed: int, store: Store) -> Record:
    """One seed's record."""
    there = study(config, material, seed, store)
    regimes: Record = {
        name: store.kept(name, partial(regime, config, material, there, METHODS[name]))
        for name in config.regimes
    }

    def pretrained() -> list[float]:
        view = there.view(METHODS[config.regimes[-1]])
        return [there.pretrained(view, task) for task in there.names]

    metrics = [there.objectives[task].primary.name for task in there.names]
    return {"metrics": metrics, "pretrained": store.kept("pretrained", pretrained), **regimes}


def regime(config: NliConfig, material: Material, study: Study, method: Method) -> Record:
    """Subsets and donors of one regime."""
    view = study.view(method)
    grid = config.alphas(view.passes)
    validation, single = (np.array(study.singles(view, s)) for s in ("validation", "test"))
    alphas, found = [], []
    for subset in config.subsets(view.passes):
        own = [study.names[t] for t in subset]
        if view.passes:  # the others take no time
            log.info("seed %d: %s", study.seed, ", ".join(own))
        along = adding.line(study, method, own)
        table = np.stack([along(grid, task, "validation") for task in own], -1)
        alpha = grid[first_best(table.mean(-1))]
        alphas.append(alpha)
        found.append(np.stack([along(np.array([alpha, 1.0]), task, "test") for task in own], -1))
    every = study.view(method, {**view.vectors, **material.donors}) if material.donors else view
    donors = {
        task: donated(study, every, task, grid, validation[t]) for t, task in enumerate(study.names)
    }
    at_best, at_one = np.stack([each.mean(-1) for each in found], -1)
    return io.to_json(
        {
            "single": single,
            "alpha": alphas,
            "own": at_best,
            "own_at_one": at_one,
            "whole": found[-1][0],
            "whole_at_one": found[-1][1],
            "donors": donors,
        }
    )


def first_best(values: np.ndarray) -> int:
    """The first of the largest values (A,): of equal coefficients the least is taken."""
    return int(np.flatnonzero(values >= values.max() - _TIE)[0])


def donated(study: Study, view: View, target: str, grid: np.ndarray, alone: float) -> Record:
    """A target's own model with α times one other vector; of equal ones the least α.

    Args:
        study: of the target.
        view: of all vectors.
        target: whose validation examples choose.
        grid: (A,) α that are tried.
        alone: the target's value on validation examples without a donor.
    """
    found: dict[str, dict[str, float]] = {}
    for name in view.vectors:
        if name == target:
            continue
        table = study.measure(view, {target: np.ones(len(grid)), name: grid}, target, "validation")
        gains = table - alone
        best = first_best(gains)
        at = {target: 1.0, name: float(grid[best])}
        value = study.at(view, at, target, "test")
        found[name] = {"alpha": at[name], "gain": float(gains[best]), "value": value}
    names = list(found)
    chosen = max(range(len(names)), key=lambda i: found[names[i]]["gain"])
    row = found[names[chosen]]
    if row["gain"] <= _TIE:  # none helps
        chosen, row = -1, {"alpha": 0.0, "value": study.at(view, {target: 1.0}, target, "test")}
    return {
        "alpha": row["alpha"],
        "chosen": chosen,
        "value": row["value"],
        "best": {name: each["value"] for name, each in found.items()},
    }


def _gains(regime: str, words: str) -> Claim[Results]:
    return Claim(
        f"One other task's vector improves a target's own model, {words} (TA, sec. 4.2)",
        lambda r: r.gain(regime),
        "metric of the target with the chosen donor minus without, mean of targets",
    )


def _fewer(regime: str, words: str) -> Claim[Results]:
    return Claim(
        f"Pairs keep more than all tasks together, {words} (TA, sec. 4.1)",
        lambda r: r.own(regime, 2) - r.own(regime, len(r.tasks)),
        "metric on the subset's tasks, pairs minus all",
    )


def _ahead(where: str, of: Callable[[Regime], Floats]) -> Claim[Results]:
    return Claim(
        f"All tasks added keep more in the linear regime than in the non-linear one, {where} "
        "(TAT, table 1)",
        lambda r: (of(r.regimes["linear"]) - of(r.regimes["nonlinear"])).mean(-1),
        "mean metric of all tasks, linear minus non-linear",
    )


CLAIMS: tuple[Claim[Results], ...] = (
    _gains("nonlinear", "non-linear"),
    _gains("linear", "linear"),
    _fewer("nonlinear", "non-linear"),
    _fewer("linear", "linear"),
    _ahead("at the α that validation data choose", lambda regime: regime.whole),
    _ahead("at α = 1", lambda regime: regime.whole_at_one),
)

"""Addition of every subset of the task vectors: normalized accuracy by number of tasks.

    python -m experiments.subsets packaged --vectors runs/compare/packaged8

For each seed, regime and subset: α chosen on the validation examples of the subset's tasks by mean
normalized accuracy, then the test accuracy of all tasks there; the same at one fixed α. In the
affine regimes all 2^T − 1 subsets are algebra on one pass's terms; in the non-linear one a sample
of them is measured, on a coarser grid (*Editing Models with Task Arithmetic*, §4.1).
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiments import claims, protocol, running, vectors
from experiments.running import about
from experiments.subsets.config import SubsetsConfig
from linearize import edit, io
from linearize.evaluate.view import VIEWS
from linearize.methods import METHODS
from linearize.study import Method, Store, Study
from linearize.study.store import Record

log = logging.getLogger(__name__)

Subset = tuple[int, ...]


def run(config: SubsetsConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from task vectors to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
    with running.claimed(run_dir, config):
        tasks, store = protocol.load_tasks(config.compare()), Store.of(run_dir)
        measured = vectors.by_regime(partial(additions, config), store, config, tasks)
        results = describe(config, preset) | measured
        results["claims"] = claims.judge(results, CLAIMS)
        return running.finish(run_dir, results)


def additions(config: SubsetsConfig, study: Study, method: Method) -> Record:
    """Each task's accuracy in each subset's model, and the subset's own mean at the fixed α."""
    subsets, grid = chosen(config, method)
    names, view = study.names, study.view(method)
    validation, single = (np.array(study.singles(view, s)) for s in ("validation", "test"))
    alphas, accuracy, fixed = [], [], []
    for subset in subsets:
        own = [names[t] for t in subset]
        if view.passes:  # the others take no time
            log.info("seed %d: %s", study.seed, ", ".join(own))
        along = line(study, method, own)
        table = np.stack([along(grid, task, "validation") for task in own], -1)
        alpha = edit.search_scale(table, validation[list(subset)], grid).alpha
        found = np.array([along(np.array([alpha]), task, "test")[0] for task in names])
        there = found[list(subset)]
        if alpha != config.fixed:
            there = np.array([along(np.array([config.fixed]), task, "test")[0] for task in own])
        alphas.append(alpha)
        accuracy.append(found)
        fixed.append((there / single[list(subset)]).mean())
    return io.to_json({"single": single, "alpha": alphas, "accuracy": accuracy, "fixed": fixed})


def chosen(config: SubsetsConfig, method: Method) -> tuple[Sequence[Subset], np.ndarray]:
    """The subsets and the coefficients that a regime is measured on."""
    if VIEWS[method.view].passes:
        return config.sampled(), np.array(config.grid)
    return config.subsets(), protocol.alphas(config.compare())


def line(
    study: Study, method: Method, subset: Sequence[str]
) -> Callable[[np.ndarray, str, str], np.ndarray]:
    """Accuracy along one subset's sum: ``(alphas (A,), task, split) -> (A,)``."""
    view = study.view(method)
    if view.passes:  # the sum is then made once
        view = study.view(method, {"sum": edit.add([view.vectors[name] for name in subset])})
        subset = ["sum"]
    return lambda alphas, task, split: study.measure(
        view, dict.fromkeys(subset, alphas), task, split
    )


def describe(config: SubsetsConfig, preset: str) -> Record:
    """What was run, on what, by which versions."""
    return about("subsets", preset, config) | {
        "model": protocol.describe_model(config.model, config.seeds[0]),
        "tasks": list(config.data.tasks),
        "fixed": config.fixed,
        "subsets": {
            regime: [list(subset) for subset in chosen(config, METHODS[regime])[0]]
            for regime in config.regimes
        },
        "grid": {regime: chosen(config, METHODS[regime])[1].tolist() for regime in config.regimes},
    }


def by_size(results: claims.Results, regime: str, size: int, own: bool) -> np.ndarray:
    """Mean normalized accuracy of a size's subsets, on their own tasks or on all, (S,)."""
    accuracy = np.asarray(results[regime]["accuracy"], float)
    normalized = accuracy / np.asarray(results[regime]["single"], float)[:, None]
    rows = [i for i, s in enumerate(results["subsets"][regime]) if len(s) == size]
    subsets = [results["subsets"][regime][i] for i in rows]
    values = [
        normalized[:, i, subset if own else slice(None)].mean(-1)
        for i, subset in zip(rows, subsets, strict=True)
    ]
    return np.mean(values, 0)


def _ahead(results: claims.Results, other: str) -> np.ndarray:
    sizes = range(2, len(results["tasks"]) + 1)
    gains = [by_size(results, "linear", k, True) - by_size(results, other, k, True) for k in sizes]
    return np.mean(gains, 0)


CLAIMS: tuple[claims.Claim, ...] = (
    *(
        (
            f"Pairs keep more of their accuracy than all tasks together, {words} (TA, sec. 4.1)",
            lambda r, regime=regime: (
                by_size(r, regime, 2, True) - by_size(r, regime, len(r["tasks"]), True)
            ),
            "normalized accuracy on the subset's tasks, pairs minus all",
        )
        for regime, words in (("nonlinear", "non-linear"), ("linear", "linear"))
    ),
    *(
        (
            f"More task vectors serve all tasks better, {words} (TA, sec. 4.1)",
            lambda r, regime=regime: (
                by_size(r, regime, len(r["tasks"]), False) - by_size(r, regime, 1, False)
            ),
            "normalized accuracy on all tasks, all vectors minus one",
        )
        for regime, words in (("nonlinear", "non-linear"), ("linear", "linear"))
    ),
    (
        "Linear keeps more than non-linear at every number of tasks (TAT, table 1)",
        lambda r: _ahead(r, "nonlinear"),
        "normalized accuracy on the subset's tasks, linear minus non-linear, mean of sizes",
    ),
    (
        "Linear keeps more than post-hoc at every number of tasks (TAT, table 1)",
        lambda r: _ahead(r, "posthoc"),
        "normalized accuracy on the subset's tasks, linear minus post-hoc, mean of sizes",
    ),
)

"""Addition of every subset of the task vectors: normalized accuracy by number of tasks.

    python -m experiments.subsets packaged --vectors runs/compare/packaged8

For each seed, regime and subset: α chosen on the validation examples of the subset's tasks by mean
normalized accuracy, then the test accuracy of all tasks there; the same at one fixed α. In the
affine regimes all 2^T − 1 subsets are algebra on one pass's terms; in the non-linear one a sample
of them is measured, on a coarser grid (*Editing Models with Task Arithmetic*, §4.1).
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from experiments import adding, claims, protocol, running, vectors
from experiments.adding import Subset
from experiments.claims import Claim
from experiments.subsets.config import SubsetsConfig
from experiments.subsets.results import ALL, OWN, Results
from linearize import edit, io
from linearize.evaluate.view import VIEWS
from linearize.methods import METHODS
from linearize.report import schema
from linearize.study import Method, Store, Study
from linearize.study.store import Record

log = logging.getLogger(__name__)


def run(config: SubsetsConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from task vectors to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
    vectors.check_lent(config)
    with running.claimed(run_dir, config):
        tasks, store = protocol.load_tasks(config), Store.of(run_dir)
        measured = vectors.by_regime(partial(additions, config), store, config, tasks)
        model = protocol.describe_model(config.model, config.seeds[0])
        along = {regime: chosen(config, METHODS[regime]) for regime in config.regimes}
        found = running.about("subsets", preset, config, model) | measured
        found |= {
            "tasks": config.data.tasks,
            "fixed": config.fixed,
            "subsets": {regime: subsets for regime, (subsets, _) in along.items()},
            "grid": {regime: grid.tolist() for regime, (_, grid) in along.items()},
        }
        return running.finish(run_dir, claims.judged(schema.read(Results, found), CLAIMS))


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
        along = adding.line(study, method, own)
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
    return config.subsets(), config.edit.alphas


def _fewer(regime: str, words: str) -> Claim[Results]:
    return Claim(
        f"Pairs keep more of their accuracy than all tasks together, {words} (TA, sec. 4.1)",
        lambda r: r.by_size(regime, 2, OWN) - r.by_size(regime, len(r.tasks), OWN),
        "normalized accuracy on the subset's tasks, pairs minus all",
    )


def _more(regime: str, words: str) -> Claim[Results]:
    return Claim(
        f"More task vectors serve all tasks better, {words} (TA, sec. 4.1)",
        lambda r: r.by_size(regime, len(r.tasks), ALL) - r.by_size(regime, 1, ALL),
        "normalized accuracy on all tasks, all vectors minus one",
    )


def _ahead(other: str, words: str) -> Claim[Results]:
    def gains(r: Results) -> np.ndarray:
        sizes = range(2, len(r.tasks) + 1)
        return np.mean([r.by_size("linear", k, OWN) - r.by_size(other, k, OWN) for k in sizes], 0)

    return Claim(
        f"Linear keeps more than {words}, averaged over numbers of tasks (TAT, table 1)",
        gains,
        f"normalized accuracy on the subset's tasks, linear minus {words}, mean of sizes",
    )


CLAIMS: tuple[Claim[Results], ...] = (
    _fewer("nonlinear", "non-linear"),
    _fewer("linear", "linear"),
    _more("nonlinear", "non-linear"),
    _more("linear", "linear"),
    _ahead("nonlinear", "non-linear"),
    _ahead("posthoc", "post-hoc"),
)

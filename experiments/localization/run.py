"""Eigenfunction localization: where the eigenfunctions that carry a task's target live, beside ξ.

    python -m experiments.localization packaged --vectors runs/compare/packaged8

For each seed, initialization and target task: the kernel at θ0 of the target's logits, on all
tasks' inputs; with each control task, the eigenfunctions on both tasks' inputs and their local
energies, weighed by the target's coefficients (*Task Arithmetic in the Tangent Space*, §5). The
target is the labels' one-hot rows minus their mean on the task's inputs, 0 on the control's. Then
the disentanglement error of every pair of tasks, and the rank correlation of the two.
"""

import dataclasses
import itertools
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from experiments import protocol, running, vectors
from experiments.localization import energies, relation
from experiments.localization.config import Initialization, LocalizationConfig
from experiments.localization.results import Results
from linearize.data import Task
from linearize.methods import METHODS
from linearize.report import schema
from linearize.study import FineTuning, Method, Store, Study
from linearize.study.maps import error_map
from linearize.study.store import Record

log = logging.getLogger(__name__)


def run(config: LocalizationConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
    vectors.check_lent(config)
    with running.claimed(run_dir, config):
        tasks = protocol.load_tasks(config)
        every = partial(measure, config, tasks)
        measured = Store.of(run_dir).every_seed(config.seeds, parts(config), every)
        model = protocol.describe_model(config.model, config.seeds[0])
        found = running.about("localization", preset, config, model) | measured
        found |= {
            "tasks": {at: config.tasks_at(at) for at in get_args(Initialization)},
            "pairs": config.map.pairs,
            "points": config.points,
            "output": config.output,
            "shares": config.shares,
            "vectors": config.vectors,
        }
        results = schema.read(Results, found)
        results = dataclasses.replace(results, relation=relation.relate(results))
        results = dataclasses.replace(results, claims=relation.judge(results))
        return running.finish(run_dir, results)


def parts(config: LocalizationConfig) -> int:
    """How many parts a seed has: the energies of each target task, ξ in each regime."""
    targets = sum(len(config.tasks_at(i)) for i in get_args(Initialization))
    return targets + len(config.regimes)


def fine_tunings(config: LocalizationConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed, regime and task, whose ξ is measured."""
    return vectors.fine_tunings(config, run_dir, study=protocol.study)


def measure(
    config: LocalizationConfig, tasks: Mapping[str, Task], seed: int, store: Store
) -> Record:
    """One seed: energies at each initialization, ξ in each regime; every part is kept as a file."""
    energy = {}
    for at in get_args(Initialization):
        if names := config.tasks_at(at):
            study = protocol.study(config.at(at), tasks, seed, store.under(at))
            rows = {
                t: store.kept(f"{at}/{t}", partial(energies.of, config, study, t, names), folder="")
                for t in names
            }
            energy[at] = {
                part: {target: row[part] for target, row in rows.items()}
                for part in ("control", "captured", "spectra")
            }
    study = protocol.study(config, tasks, seed, store).but(borrowed=vectors.borrowed(config, seed))
    xi = {
        r: store.kept(f"xi/{r}", partial(errors, config, study, METHODS[r]), folder="")
        for r in config.regimes
    }
    return {"energy": energy, "xi": xi}


def errors(config: LocalizationConfig, study: Study, method: Method) -> Record:
    """ξ of every ordered pair: changed predictions on the control when the target's τ is added.

    ``box`` is the mean over the search box, ``one`` the value at α = (1, 1); the paper's ξ of two
    tasks is the sum over both orders.
    """
    view, names, (low, high) = study.view(method), study.names, config.map.search_box
    grid = config.map.alphas
    box = (grid >= low - 1e-9) & (grid <= high + 1e-9)
    one = int(np.abs(grid - 1).argmin())
    found: Record = {"box": np.zeros((len(names),) * 2), "one": np.zeros((len(names),) * 2)}
    for i, j in itertools.combinations(range(len(names)), 2):
        log.info("seed %d: %s error of %s and %s", study.seed, method.name, names[i], names[j])
        on = error_map(study, view, (names[i], names[j]), grid, config.map.n_eval).per_task
        for target, control, error in ((j, i, on[0]), (i, j, on[1])):
            found["box"][target, control] = error[np.ix_(box, box)].mean()
            found["one"][target, control] = error[one, one]
    return found

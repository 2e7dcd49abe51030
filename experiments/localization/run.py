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
import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

import linearize as lz
from experiments import protocol, running, vectors
from experiments.localization import relation
from experiments.localization.config import Initialization, LocalizationConfig
from experiments.localization.results import Results
from linearize import evaluate, tree
from linearize.config import ConfigError
from linearize.data import Task
from linearize.methods import METHODS
from linearize.models.heads import headed
from linearize.ntk.archive import Archive
from linearize.report import schema
from linearize.study import Method, Store, Study
from linearize.study.maps import error_map
from linearize.study.store import Record

log = logging.getLogger(__name__)


def run(config: LocalizationConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
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


def measure(
    config: LocalizationConfig, tasks: Mapping[str, Task], seed: int, store: Store
) -> Record:
    """One seed: energies at each initialization, ξ in each regime; every part is kept as a file."""
    energy = {}
    for at in get_args(Initialization):
        if names := config.tasks_at(at):
            study = protocol.study(config.at(at), tasks, seed, store.under(at))
            rows = {
                t: store.kept(f"{at}/{t}", partial(localize, config, study, t, names), folder="")
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


def localize(config: LocalizationConfig, study: Study, target: str, names: Sequence[str]) -> Record:
    """One target with every control: its energy on the control by share of the eigenfunctions.

    Both tasks have as many points, so that an eigenfunction's energies on them sum to 2.
    """
    log.info("seed %d: kernel of %s at %s weights", study.seed, target, study.store.name)
    saved = target_kernel(config, study, target, names)
    n, regions = config.points, ["task"] * config.points + ["control"] * config.points
    rows = {name: np.arange(i * n, (i + 1) * n) for i, name in enumerate(names)}
    y = centred_target(saved.labels[rows[target]], saved.f0.shape[1])
    record: Record = {"control": {}, "captured": {}, "spectra": {}}
    for control in names:
        if control == target:
            continue
        both = np.concatenate([rows[target], rows[control]])
        found = lz.ntk.eigenfunctions(saved.kernel[np.ix_(both, both)])
        counts = [math.ceil(share * len(found.values)) for share in config.shares]
        at = [lz.ntk.localization(found, y, regions, k) for k in counts]
        record["control"][control] = [float(a.energy[0]) for a in at]  # regions are sorted
        record["captured"][control] = [a.captured for a in at]
        if {target, control} in map(set, config.map.pairs):
            whole = lz.ntk.localization(found, y, regions)
            parts = {"values": whole.values, "weights": whole.weights}
            record["spectra"][control] = parts | {"control": whole.local.energy[0]}
    return record


def centred_target(labels: np.ndarray, classes: int) -> np.ndarray:
    """One-hot rows minus their mean on the task's points, then 0 on as many of the control's."""
    y = np.eye(classes)[labels]
    return np.concatenate([y - y.mean(0), np.zeros_like(y)])


def target_kernel(
    config: LocalizationConfig, study: Study, target: str, names: Sequence[str]
) -> Archive:
    """The kernel of one target's logits on some test examples of each task, kept as a file."""
    path = study.store.path(f"{target}.safetensors")
    assert path is not None
    base = tree.fingerprint(study.model.params)
    if path.exists():
        return lz.ntk.archive.load(path, base)
    drawn = {name: points(config, study, name) for name in names}
    whole = {name: study.split(name, "test") for name in names}
    images = np.concatenate([whole[name].inputs[rows] for name, rows in drawn.items()])
    f, trained = headed(study.model.f), tree.select(study.model.params, config.trainable)
    at = {"backbone": study.model.params, "head": protocol.head(study.objectives[target])}
    kernel = lz.ntk.kernel(
        f,
        at,
        images,
        implementation="structured",  # what "auto" takes here, after long counting
        output=config.output,
        trainable=[f"^backbone/{re.escape(name)}$" for name in trained],
        memory=config.memory,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    lz.ntk.archive.save(
        path,
        kernel,
        evaluate.outputs(f, at, images, config.batch_size),
        np.concatenate([whole[name].labels[rows] for name, rows in drawn.items()]),
        np.array([f"{task}/{row}" for task, rows in drawn.items() for row in rows]),
        base,
        {"target": target, "tasks": list(names), "output": config.output, "seed": study.seed},
    )
    return lz.ntk.archive.load(path)


def points(config: LocalizationConfig, study: Study, task: str) -> np.ndarray:
    """Which test examples of a task the kernel is taken on: the seed's draw, in rising order."""
    rng = np.random.default_rng([study.seed, config.data.tasks.index(task)])
    count = len(study.split(task, "test"))
    if count < config.points:
        raise ConfigError(f"points={config.points}: {task} has {count} test examples; lower it")
    return np.sort(rng.choice(count, config.points, replace=False))


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

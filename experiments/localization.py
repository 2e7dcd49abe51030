"""Eigenfunction localization: where the eigenfunctions that carry a task's target live, beside ξ.

    python -m experiments.localization packaged --vectors runs/compare/packaged8

For each seed, initialization and target task: the kernel at θ0 of the target's logits, on all
tasks' inputs; with each control task, the eigenfunctions on both tasks' inputs and their local
energies, weighed by the target's coefficients (*Task Arithmetic in the Tangent Space*, §5). The
target is the labels' one-hot rows minus their mean on the task's inputs, 0 on the control's. Then
the disentanglement error of every pair of tasks, and the rank correlation of the two.
"""

import itertools
import logging
import math
import re
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import get_args

import numpy as np

import linearize as lz
from configs import LOCALIZATION
from experiments import protocol, relation, running, vectors
from experiments.protocol import Evaluator, Regime, Setting
from experiments.records import Record, about, kept, recorded
from linearize import evaluate, io, tree
from linearize.config import ConfigError, LocalizationConfig
from linearize.config.localization import Initialization
from linearize.data import Task
from linearize.models.heads import apply_head
from linearize.ntk.archive import Archive
from linearize.types import Apply, Array, Params

log = logging.getLogger(__name__)


def run(config: LocalizationConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from weights to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
    with running.claimed(run_dir, config):
        tasks = protocol.load_tasks(config.compare())
        measured = running.every_seed(measure, run_dir, config, tasks)
        results = describe(config, preset) | measured
        results["relation"] = relation.relate(results)
        results["claims"] = relation.judge(results)
        return running.finish(run_dir, results)


def parts(config: LocalizationConfig) -> int:
    """How many parts a seed has: the energies of each target task, ξ in each regime."""
    targets = sum(len(config.tasks_at(i)) for i in get_args(Initialization))
    return targets + len(config.regimes)


@recorded(parts)
def measure(
    run_dir: Path, config: LocalizationConfig, tasks: Mapping[str, Task], seed: int
) -> Record:
    """One seed: energies at each initialization, ξ in each regime; every part is kept as a file."""
    energy = {}
    for initialization in get_args(Initialization):
        if names := config.tasks_at(initialization):
            setting = protocol.prepare(config.compare(initialization), tasks, seed)
            folder = run_dir / initialization
            rows = {
                t: kept(folder / f"{t}.json", partial(localize, config, setting, t, names, folder))
                for t in names
            }
            energy[initialization] = {
                part: {target: row[part] for target, row in rows.items()}
                for part in ("control", "captured", "spectra")
            }
    setting = protocol.prepare(config.compare(), tasks, seed)
    xi = {
        regime: kept(
            run_dir / "xi" / f"{regime}.json", partial(errors, config, setting, regime, run_dir)
        )
        for regime in config.regimes
    }
    return {"energy": energy, "xi": xi}


def localize(
    config: LocalizationConfig,
    setting: Setting,
    target: str,
    names: Sequence[str],
    folder: Path,
) -> Record:
    """One target with every control: its energy on the control by share of the eigenfunctions.

    Both tasks have as many points, so that an eigenfunction's energies on them sum to 2.
    """
    log.info("seed %d: kernel of %s in %s", setting.seed, target, folder.name)
    saved = target_kernel(config, setting, target, names, folder / f"{target}.safetensors")
    n, regions = config.points, ["task"] * config.points + ["control"] * config.points
    rows = {name: np.arange(i * n, (i + 1) * n) for i, name in enumerate(names)}
    y = centred_target(saved.labels[rows[target]], saved.f0.shape[1])
    record: Record = {"control": {}, "captured": {}, "spectra": {}}
    for control in names:
        both = np.concatenate([rows[target], rows[control]])
        if control == target:
            continue
        found = lz.ntk.eigenfunctions(saved.kernel[np.ix_(both, both)])
        counts = [math.ceil(share * len(found.values)) for share in config.shares]
        at = [lz.ntk.localization(found, y, regions, k) for k in counts]
        record["control"][control] = [float(a.energy[0]) for a in at]  # regions are sorted
        record["captured"][control] = [a.captured for a in at]
        if {target, control} in map(set, config.map.pairs):
            whole = lz.ntk.localization(found, y, regions)
            parts = {"values": whole.values, "weights": whole.weights}
            record["spectra"][control] = parts | {"control": whole.local.energy[0]}
    return io.to_json(record)


def centred_target(labels: np.ndarray, classes: int) -> np.ndarray:
    """One-hot rows minus their mean on the task's points, then 0 on as many of the control's."""
    y = np.eye(classes)[labels]
    return np.concatenate([y - y.mean(0), np.zeros_like(y)])


def target_kernel(
    config: LocalizationConfig, setting: Setting, target: str, names: Sequence[str], path: Path
) -> Archive:
    """The kernel of one target's logits on some test examples of each task, kept as a file."""
    if path.exists():
        return lz.ntk.archive.load(path, tree.fingerprint(setting.params0))
    drawn = {name: points(config, setting, name) for name in names}
    images = np.concatenate([setting.split(t, "test").images[rows] for t, rows in drawn.items()])
    labels = np.concatenate([setting.split(t, "test").labels[rows] for t, rows in drawn.items()])
    f, head = headed(setting.f), setting.heads[target]
    trained = tree.select(setting.params0, config.trainable)
    at = {"model": setting.params0, "head": head}
    kernel = lz.ntk.kernel(
        f,
        at,
        images,
        implementation="structured",  # what "auto" takes here, after long counting
        output=config.output,
        trainable=[f"^model/{re.escape(name)}$" for name in trained],
        memory=config.memory,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    lz.ntk.archive.save(
        path,
        kernel,
        evaluate.outputs(f, at, images, config.batch_size),
        labels,
        np.array([f"{task}/{row}" for task, rows in drawn.items() for row in rows]),
        tree.fingerprint(setting.params0),
        {"target": target, "tasks": list(names), "output": config.output, "seed": setting.seed},
    )
    return lz.ntk.archive.load(path)


@cache
def headed(f: Apply) -> Apply:
    """Logits of a backbone and a head that are both arguments: compiled once for all heads."""

    def logits(params: Params, images: Array) -> Array:
        return apply_head(params["head"], f(params["model"], images))

    return logits


def points(config: LocalizationConfig, setting: Setting, task: str) -> np.ndarray:
    """Which test examples of a task the kernel is taken on: the seed's draw, in rising order."""
    rng = np.random.default_rng([setting.seed, config.data.tasks.index(task)])
    count = len(setting.split(task, "test"))
    if count < config.points:
        raise ConfigError(f"points={config.points}: {task} has {count} test examples; lower it")
    return np.sort(rng.choice(count, config.points, replace=False))


def errors(config: LocalizationConfig, setting: Setting, regime: Regime, run_dir: Path) -> Record:
    """ξ of every ordered pair: changed predictions on the control when the target's τ is added.

    ``box`` is the mean over the search box, ``one`` the value at α = (1, 1); the paper's ξ of two
    tasks is the sum over both orders.
    """
    evaluator = Evaluator(setting, regime, vectors.load_vectors(config, setting, regime, run_dir))
    names, low, high = setting.names, *config.map.search_box
    grid = np.linspace(config.map.low, config.map.high, config.map.points)
    box = (grid >= low - 1e-9) & (grid <= high + 1e-9)
    one = int(np.abs(grid - 1).argmin())
    found: Record = {"box": np.zeros((len(names),) * 2), "one": np.zeros((len(names),) * 2)}
    for i, j in itertools.combinations(range(len(names)), 2):
        log.info("seed %d: %s error of %s and %s", setting.seed, regime, names[i], names[j])
        on = evaluator.error_map((names[i], names[j])).per_task
        for target, control, error in ((j, i, on[0]), (i, j, on[1])):
            found["box"][target, control] = error[np.ix_(box, box)].mean()
            found["one"][target, control] = error[one, one]
    return io.to_json(found)


def describe(config: LocalizationConfig, preset: str) -> Record:
    """What was run, on what, by which versions."""
    return about("localization", preset, config) | {
        "model": protocol.describe_model(config.model, config.seeds[0]),
        "tasks": {i: list(config.tasks_at(i)) for i in get_args(Initialization)},
        "pairs": [list(pair) for pair in config.map.pairs],
        "points": config.points,
        "output": config.output,
        "shares": list(config.shares),
        "vectors": config.vectors,
    }


if __name__ == "__main__":
    running.launch("localization", LOCALIZATION, run)

"""Where the eigenfunctions that carry a target live: its own points, or a control's."""

import logging
import math
from collections.abc import Sequence
from functools import partial

import numpy as np

import linearize as lz
from experiments import protocol
from experiments.localization.config import LocalizationConfig
from linearize import evaluate, hosts, tree
from linearize.config import ConfigError
from linearize.models.heads import headed
from linearize.ntk.archive import Archive
from linearize.study import Study
from linearize.study.store import Record

log = logging.getLogger(__name__)


def of(config: LocalizationConfig, study: Study, target: str, names: Sequence[str]) -> Record:
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
    if hosts.told(path.exists):
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
        trainable=tree.exactly(f"backbone/{name}" for name in trained),
        memory=config.memory,
    )
    outputs = evaluate.outputs(f, at, images, config.batch_size)
    save = partial(
        lz.ntk.archive.save,
        path,
        kernel,
        outputs,
        np.concatenate([whole[name].labels[rows] for name, rows in drawn.items()]),
        np.array([f"{task}/{row}" for task, rows in drawn.items() for row in rows]),
        base,
        {"target": target, "tasks": list(names), "output": config.output, "seed": study.seed},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    hosts.told(lambda: save() and None)
    return lz.ntk.archive.load(path)


def points(config: LocalizationConfig, study: Study, task: str) -> np.ndarray:
    """Which test examples of a task the kernel is taken on: the seed's draw, in rising order."""
    rng = np.random.default_rng([study.seed, config.data.tasks.index(task)])
    count = len(study.split(task, "test"))
    if count < config.points:
        raise ConfigError(f"points={config.points}: {task} has {count} test examples; lower it")
    return np.sort(rng.choice(count, config.points, replace=False))

"""CLIP B/32's image encoder at random weights: its steps beside torch's, and how it is loaded."""

import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench import against_torch, measure, memory, torch_models
from experiments.bench.against_torch import Contest
from experiments.bench.measure import Row
from experiments.bench.workload import FULL, Size, train_step, workload
from linearize import models
from linearize.models.hf.export import export

CASE = "clip"
LOAD_CASE = "clip_load"
FORMS: tuple[dict[str, Any], ...] = (
    {"scan": True, "remat": "none"},
    {"scan": True, "remat": "dots"},
)
"""Of our model, the fastest of which is compared; presets scan their blocks."""
SMALLEST: dict[str, Any] = {"scan": True, "remat": "full"}
"""The form that holds least, for a sixth more operations."""

LOADS = 3
LOADED = {"blocks one by one": False, "scanned blocks": True}
"""Forms that are loaded: ``scan``."""


def clip_size(size: Size) -> Size:
    """The full B/32 at its own image size, or as many blocks as a tiny size has, at 64 pixels."""
    full: dict[str, Any] = {"image_size": 224, "blocks": 12, "batch": 32, "repeats": 3}
    small: dict[str, Any] = {"image_size": 64, "blocks": size.blocks, "batch": 2, "repeats": 2}
    chosen = full if size == FULL else small
    return dataclasses.replace(size, model=torch_models.CLIP, pretrained=False, **chosen)


def rows(size: Size) -> list[Row]:
    """Forward pass, ordinary and linearized step against torch's, in time and in memory."""
    size = clip_size(size)
    out, forms = _forms(size)
    linear = Contest(CASE, size, forms[0], "a linearized step", time=0.55, memory=0.5)
    ordinary = dataclasses.replace(
        linear, step="an ordinary step", regime="nonlinear", time=None, memory=None
    )
    ours = linear.workload()
    theirs = against_torch.torch_twin(linear, ours)
    out.append(against_torch.parity(linear, ours, theirs))
    out += against_torch.time_rows(linear, ours, theirs)
    del theirs  # its training state
    theirs = against_torch.torch_twin(ordinary, ours)
    out += [_forward(ordinary, ours, theirs), *against_torch.time_rows(ordinary, ours, theirs)]
    del theirs
    out += against_torch.memory_rows(linear, ours, [*forms, SMALLEST])
    return out + against_torch.memory_rows(ordinary, ours, forms[:1])


def _forms(size: Size) -> tuple[list[Row], list[dict[str, Any]]]:
    """The linearized step's times with and without ``remat``, and the forms, the fastest first."""
    first, second = FORMS
    times = measure.in_turns(
        train_step(workload(size, **first), "linear"),
        train_step(workload(size, **second), "linear"),
        size.repeats,
    )
    row = Row(
        CASE,
        f"time of a linearized step, remat={first['remat']!r} / remat={second['remat']!r}",
        times.ratio,
        "x",
        None,
        times.spread,
        f"{times.medians[0]:.3f} s / {times.medians[1]:.3f} s; scanned blocks; the faster of the "
        "two is compared with torch",
    )
    return [row], [first, second] if times.ratio <= 1 else [second, first]


def _forward(contest: Contest, ours: Any, theirs: Any) -> Row:
    run, params, size = jax.jit(ours.backbone.f), ours.backbone.params, contest.size
    images = np.asarray(ours.images)
    theirs.begin()
    times = measure.in_turns(
        lambda: run(params, ours.images), lambda: theirs.features(images), 3 * size.repeats
    )
    return Row(
        CASE,
        f"time of a forward pass, ours / torch, {contest.pixels}",
        times.ratio,
        "x",
        None,
        times.spread,
        f"{times.medians[0]:.3f} s / {times.medians[1]:.3f} s; "
        f"{torch_models.TWINS[size.model].about}, no_grad",
    )


def load_rows(size: Size) -> list[Row]:
    """Seconds and memory of loading what :func:`linearize.models.hf.export.export` wrote."""
    size = clip_size(size)
    out = []
    with tempfile.TemporaryDirectory() as folder:
        export(folder, workload(size).backbone)
        held = Path(folder, "model.safetensors").stat().st_size
        for form, scan in LOADED.items():
            request = {"folder": folder, "scan": scan}
            loads = [against_torch.in_process("clip", request) for _ in range(LOADS)]
            seconds = [load["seconds"] for load in loads]
            how = (
                f"models.load('clip', weights=FOLDER): model.safetensors of the image encoder "
                f"alone, {held / 1e6:.0f} MB of float32, just written; every check; "
                f"{LOADS} fresh processes, {form}"
            )
            out.append(
                Row(
                    LOAD_CASE,
                    f"seconds to load, {form}",
                    statistics.median(seconds),
                    "s",
                    ("<=", 2.0),
                    (min(seconds), max(seconds)),
                    f"median, least and most; {how}",
                )
            )
            if memory.available():
                peak = max(load["extra"] for load in loads)
                out.append(
                    Row(
                        LOAD_CASE,
                        f"resident peak / size of the file, {form}",
                        peak / held,
                        "x",
                        ("<=", 1.2),
                        note=f"{peak / 1e6:.0f} MB beyond what was resident before, the most of "
                        f"{LOADS} processes",
                    )
                )
    return out


def main(request: Mapping[str, Any]) -> dict[str, float]:
    """Load in a process that has started JAX and done nothing else."""
    jax.block_until_ready(jnp.ones(2) + 1)

    def load() -> tuple[Any, float]:
        start = time.perf_counter()
        backbone = models.load("clip", weights=request["folder"], scan=request["scan"])
        jax.block_until_ready(backbone.params)
        return backbone, time.perf_counter() - start

    if not memory.available():
        return {"seconds": load()[1]}
    (_, seconds), extra = memory.peak(load)
    return {"seconds": seconds, "extra": extra}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))

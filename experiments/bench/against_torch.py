"""The same linearized step in torch, beside ours: time in turns, memory in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.bench import measure, memory
from experiments.bench.measure import Row
from experiments.bench.problem import OPTIM, Problem, Size, displacement, problem, train_step
from experiments.bench.step import operations
from linearize import taylor, tree
from linearize.models import unstack, vit

CASE = "torch"
OURS: dict[str, Any] = {"scan": True, "remat": "dots"}
"""The form of our model that is compared: scanned blocks, matrix products kept."""

MEMORY_STEPS = 3


def rows(size: Size) -> list[Row]:
    """Parity, ratio of times, ratio of memories; at both image sizes."""
    sizes = {size.image_size: size.repeats, size.large_image_size: max(2, size.repeats // 3)}
    return [
        row
        for image_size, repeats in sizes.items()
        for row in _rows(dataclasses.replace(size, image_size=image_size, repeats=repeats))
    ]


def _rows(size: Size) -> list[Row]:
    from experiments.bench import torch_step

    ours = problem(size, **OURS)
    weights = torch_weights(ours.backbone.params, size)
    theirs = torch_step.Step(
        weights | head_arrays(ours), shape(size), float(ours.head.scale), OPTIM.lr
    )
    images, labels = np.asarray(ours.images), np.asarray(ours.labels)
    out = [_parity(ours, theirs, images, size)]
    theirs.begin()
    step = train_step(ours, "linear")
    times = measure.in_turns(step, lambda: theirs(images, labels), size.repeats)
    rate = torch_step.matmul_rate()
    least = operations(step) / rate
    tokens = (size.image_size // 14) ** 2 + 1
    out += [
        Row(
            CASE,
            f"time of a step, ours / torch, {size.image_size} px",
            times.ratio,
            "x",
            ("<=", 0.6),
            times.spread,
            f"{times.medians[0]:.3f} s / {times.medians[1]:.3f} s; {tokens} tokens, batch "
            f"{size.batch}; functional_call + torch.func.jvp, AdamW(fused), clipping, all cores; "
            "one process, in turns",
        ),
        Row(
            CASE,
            f"least that this ratio can be, {size.image_size} px",
            least / times.medians[1],
            "x",
            note=f"the step's matrix products at torch's own best rate, {rate / 1e9:.0f} GFLOP/s, "
            "and nothing else",
        ),
    ]
    return out + (_memory(ours, size) if memory.available() else [])


def _parity(ours: Problem, theirs: Any, images: np.ndarray, size: Size) -> Row:
    params0 = ours.backbone.params
    tau = displacement(params0, seed=0)
    theirs.begin(torch_weights(tau, size))
    expected = theirs.features(images)
    got = jax.jit(taylor.tangent(ours.backbone.f))(params0, tau, ours.images)
    error = float(np.abs(np.asarray(got) - expected).max() / np.abs(expected).max())
    return Row(
        CASE,
        f"largest difference of f_lin to torch's, {size.image_size} px",
        error,
        "",
        ("<=", 1e-4),
        None,
        "f0 + J tau at a random tau, relative to the largest feature; the same weights and images",
    )


def _memory(ours: Problem, size: Size) -> list[Row]:
    """Both steps in processes of their own, one after the other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "torch.npz")
        batch = {"images": np.asarray(ours.images), "labels": np.asarray(ours.labels)}
        weights = torch_weights(ours.backbone.params, size)
        arrays: dict[str, Any] = weights | head_arrays(ours) | batch
        np.savez(path, **arrays)
        request = {
            "weights": str(path),
            "shape": shape(size),
            "temperature": float(ours.head.scale),
            "learning_rate": OPTIM.lr,
            "threads": os.cpu_count() or 1,
            "steps": MEMORY_STEPS,
        }
        torch_side = _process("torch_step", request)
        jax_side = _process(
            "against_torch", {"size": dataclasses.asdict(size), "steps": MEMORY_STEPS}
        )
    mega = 1e6
    return [
        Row(
            CASE,
            f"memory of a step, ours / torch, {size.image_size} px",
            jax_side["extra"] / torch_side["extra"],
            "x",
            ("<=", 0.6),
            None,
            f"{jax_side['extra'] / mega:.0f} MB / {torch_side['extra'] / mega:.0f} MB: peak "
            "resident memory in steady state less that after import and weights, each in its own "
            "process; tau and two moments included",
        ),
        Row(
            CASE,
            f"whole resident peak, ours / torch, {size.image_size} px",
            jax_side["peak"] / torch_side["peak"],
            "x",
            note=f"{jax_side['peak'] / mega:.0f} MB / {torch_side['peak'] / mega:.0f} MB, "
            "framework and weights included",
        ),
    ]


def _process(module: str, request: Mapping[str, Any]) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.bench.{module}"],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    if done.returncode:
        raise RuntimeError(f"experiments.bench.{module} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def shape(size: Size) -> dict[str, int]:
    """Arguments of :class:`experiments.bench.torch_step.ViT` for the packaged ViT."""
    return {
        "image_size": size.image_size,
        "blocks": size.blocks,
        "width": 384,
        "heads": 6,
        "hidden": 1536,
        "patch": 14,
    }


def head_arrays(problem: Problem) -> dict[str, np.ndarray]:
    """The frozen head as the torch step wants it."""
    return {
        "head/center": np.asarray(problem.head.center),
        "head/kernel": np.asarray(problem.head.kernel),
    }


def torch_weights(params: Mapping[str, Any], size: Size) -> dict[str, np.ndarray]:
    """Parameters (or a displacement: the map is linear) by the torch model's names.

    Kernels are transposed, and the table of positions is resized to the image's grid.
    """
    out = {}
    for name, leaf in tree.flatten(unstack(params)).items():
        value = np.asarray(leaf)
        *path, last = name.split("/")
        if path and path[0].startswith("block_"):
            path = ["blocks", path[0].removeprefix("block_"), *path[1:]]
        if last == "positions":
            side = size.image_size // 14
            resize = vit.bicubic(value.shape[0], side) if side != value.shape[0] else np.eye(side)
            value = np.einsum("ai,bj,ijd->abd", resize, resize, value).reshape(side * side, -1)
        elif last == "kernel":
            last, value = "weight", value.T
        elif last == "scale":
            last = "weight"
        if path and path[-1] in ("scale_1", "scale_2"):
            last = path.pop()
        out[".".join([*path, last])] = np.ascontiguousarray(value, np.float32)
    return out


def main(request: Mapping[str, Any]) -> dict[str, float]:
    """Steady-state memory of our step, in a process that has done nothing else."""
    ours = problem(Size(**request["size"]), **OURS)

    def begin() -> Callable[[], object]:
        step = train_step(ours, "linear")
        return lambda: jax.block_until_ready(step())

    return memory.steady_peak(begin, request["steps"])


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))

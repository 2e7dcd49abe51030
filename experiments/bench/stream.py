"""A kernel of many examples, block by block to disk: memory is flat in their number.

The folder of a run that was killed is kept, and the next run goes on in it.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from jax.tree_util import Partial

from experiments.bench import memory
from experiments.bench.measure import Row
from experiments.bench.workload import FULL, TINY, Size, workload
from linearize import ntk, tree
from linearize.models.heads import apply_head
from linearize.types import Array, Params

CASE = "kernel_stream"
LAST, BUDGET = 2, 2 << 30
SIZES: dict[str, tuple[int, ...]] = {"full": (1000, 10_000), "tiny": (5,)}
"""Numbers of examples."""
_CHECKED = 24


def rows(size: Size) -> list[Row]:
    """Peak memory beyond imports and weights, and entries against a kernel in memory."""
    if not memory.available():
        return []
    out = []
    for n in SIZES[size.kernels]:
        answer = subprocess.run(
            [sys.executable, "-m", "experiments.bench.stream", size.kernels, str(n)],
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        ).stdout
        found: dict[str, Any] = json.loads(answer.splitlines()[-1])
        out += [
            Row(
                CASE,
                f"N = {n}: peak memory beyond the result",
                found["extra"] / 1e9,
                "GB",
                ("<=", 4.0),
                None,
                f"trace kernel of logits in {found['blocks']}, {found['parameters']} parameters, "
                f"C = {found['outputs']}; {found['result'] / 1e6:.0f} MB on disk; "
                f"memory={BUDGET >> 30} GiB of derivatives; {found['seconds']}; "
                "resident memory of its own process less that after imports and weights",
            ),
            Row(
                CASE,
                f"N = {n}: largest difference of sampled entries",
                found["difference"],
                "",
                ("<=", 1e-5),
                None,
                f"to a kernel of {found['checked']} of the examples in memory by 'jacobian', of "
                "the largest entry",
            ),
        ]
    return out


def main(kind: str, n: int) -> dict[str, Any]:
    """One kernel in this process, written to a temporary folder."""
    size = FULL if kind == "full" else TINY
    made = workload(size)
    readout = Partial(apply_head, made.head)

    def f(params: Params, images: Array) -> Array:
        return readout(made.backbone.f(params, images))

    side = made.backbone.image_size
    shape = (n, side, side, 3)
    images = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    params, last = made.backbone.params, made.backbone.last(min(LAST, size.blocks))
    folder = Path("runs/bench") / f"{CASE}_{kind}_{n}"
    resumed = folder.exists()

    def run() -> tuple[Any, float]:
        start = time.perf_counter()
        kernel = ntk.kernel(
            f,
            params,
            images,
            output="trace",
            trainable=last,
            memory=BUDGET,
            out=folder,
            progress=True,
        )
        return kernel, time.perf_counter() - start

    (kernel, seconds), extra = memory.peak(run)
    some = np.random.default_rng(2).choice(n, min(n, _CHECKED), replace=False)
    some.sort()
    stored = np.asarray(kernel[some, :][:, some])
    shutil.rmtree(folder)
    expected = ntk.kernel(
        f, params, images[some], output="trace", trainable=last, implementation="jacobian"
    )
    return {
        "extra": extra,
        "seconds": f"{seconds:.0f} s, compilation included"
        + (", since it was resumed" if resumed else ""),
        "result": 4 * n**2,
        "difference": float(np.abs(stored - expected).max() / np.abs(expected).max()),
        "checked": len(some),
        "blocks": " and ".join(pattern.strip("^/") for pattern in last),
        "parameters": sum(tree.flatten(params)[n].size for n in tree.select(params, last)),
        "outputs": made.head.kernel.shape[1],
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))

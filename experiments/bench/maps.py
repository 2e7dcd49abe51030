"""Disentanglement maps beside a pass per grid point, which is timed on some of the points.

The naive side does at each grid point what the definition says: of each of the two tasks' examples
the prediction under its own vector and under both, four passes, each through a compiled function.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from experiments.bench.measure import Row
from experiments.bench.workload import Size, Workload, displacement, workload
from linearize import taylor
from linearize.disentangle import ErrorMap, disentanglement_error
from linearize.models import heads
from linearize.types import Array

CASE = "maps"
PASSES_A_POINT = 4


@dataclass(frozen=True)
class Pair:
    """Two tasks: vectors that move the predictions, and examples."""

    workload: Workload
    taus: list[dict[str, Array]]
    inputs: list[np.ndarray]


def pair(size: Size) -> Pair:
    """Random examples, and random vectors of a twentieth of each tensor's spread."""
    made = workload(size)
    rng = np.random.default_rng(1)
    shape = (size.n_eval, size.image_size, size.image_size, 3)
    inputs = [rng.integers(0, 256, shape, dtype=np.uint8) for _ in range(2)]
    taus = [displacement(made.backbone.params, seed) for seed in range(2)]
    return Pair(made, taus, inputs)


def rows(size: Size) -> list[Row]:
    """Both sides of all three regimes."""
    two = pair(size)
    alphas = np.linspace(-1.0, 1.0, size.grid)
    points = _some(size.grid, size.naive_points)
    out = []
    for regime in ("linear", "posthoc", "nonlinear"):
        naive = _naive(two, regime)
        found = [naive(alphas[[i, j]]) for i, j in points]
        _map(two, alphas if regime != "nonlinear" else alphas[:2], regime, size)  # compiles
        before = [_seconds(partial(naive, alphas[[i, j]])) for i, j in points]
        repeats = 1 if regime == "nonlinear" else size.repeats
        maps, seconds = [], []
        for _ in range(repeats):
            start = time.perf_counter()
            maps.append(_map(two, alphas, regime, size))
            seconds.append(time.perf_counter() - start)
        after = [_seconds(partial(naive, alphas[[i, j]])) for i, j in points]
        out += _rows(regime, size, maps[-1], points, found, before + after, seconds)
    return out


def _rows(
    regime: str,
    size: Size,
    error_map: ErrorMap,
    points: Sequence[tuple[int, int]],
    found: Sequence[np.ndarray],
    naive: Sequence[float],
    ours: Sequence[float],
) -> list[Row]:
    n_points = size.grid**2
    one = statistics.median(naive)
    whole = statistics.median(ours)
    ratio = one * n_points / whole
    differing = sum(
        int(np.rint(np.abs(error_map.per_task[:, i, j] - at) * size.n_eval).sum())
        for (i, j), at in zip(points, found, strict=True)
    )
    bound = 2.0 if regime == "nonlinear" else 300.0
    passes = PASSES_A_POINT * n_points
    out = [
        Row(
            CASE,
            f"{regime}: a pass per point / ours, time",
            ratio,
            "x",
            (">=", bound),
            note=f"{one:.3f} s a point x {n_points} (timed at {len(points)} points, before and "
            f"after) / {whole:.3f} s; {size.n_eval} examples a task",
        ),
        Row(
            CASE,
            f"{regime}: examples that come out differently",
            differing,
            "",
            ("==", 0),
            note=f"of {2 * size.n_eval * len(points)} at the points compared",
        ),
    ]
    if regime == "nonlinear":
        out.append(
            Row(
                CASE,
                f"{regime}: a pass per point / ours, passes",
                passes / error_map.passes,
                "x",
                (">=", bound),
                note=f"{passes} / {error_map.passes} passes over one task's examples",
            )
        )
    return out


def _some(side: int, n: int) -> list[tuple[int, int]]:
    """Grid points without repetition: a spread of the grid's interior and borders."""
    flat = np.random.default_rng(2).permutation(side * side)[:n]
    return [(int(k) // side, int(k) % side) for k in flat]


def _map(two: Pair, alphas: np.ndarray, regime: str, size: Size) -> ErrorMap:
    return disentanglement_error(
        two.workload.backbone.f,
        two.workload.backbone.params,
        two.taus,
        two.inputs,
        alphas=alphas,
        regime=regime,
        readouts=two.workload.head,
        batch_size=size.n_eval,
    )


def _naive(two: Pair, regime: str) -> Callable[[np.ndarray], np.ndarray]:
    """``error(alphas (2,)) -> (2,)``, the tasks' errors, by the definition alone."""
    enter = taylor.displaced if regime == "nonlinear" else taylor.tangent
    model = enter(two.workload.backbone.f)

    @jax.jit
    def predict(params0: dict, tau: dict, head: heads.Head, images: Array) -> Array:
        return jnp.argmax(heads.apply_head(head, model(params0, tau, images)), -1)

    @jax.jit
    def combine(alphas: Array, taus: Sequence[dict]) -> dict:
        return jax.tree.map(lambda a, b: alphas[0] * a + alphas[1] * b, *taus)

    data = [jax.device_put(x) for x in two.inputs]
    fixed = (two.workload.backbone.params, two.workload.head)

    def error(point: np.ndarray) -> np.ndarray:
        alphas = point.astype(np.float32)
        both = combine(alphas, two.taus)
        out = []
        for t, images in enumerate(data):
            own = combine(np.where(np.arange(2) == t, alphas, 0).astype(np.float32), two.taus)
            a = predict(fixed[0], own, fixed[1], images)
            b = predict(fixed[0], both, fixed[1], images)
            out.append(jnp.mean(a != b))
        return np.asarray(jnp.stack(out), np.float64)

    return error


def _seconds(program: Callable[[], object]) -> float:
    start = time.perf_counter()
    program()
    return time.perf_counter() - start

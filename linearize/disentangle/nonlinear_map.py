"""Maps of the non-linear regime: one pass per distinct prediction, or fewer by interpolation."""

from collections.abc import Sequence

import jax
import numpy as np

from linearize.disentangle import chebyshev
from linearize.disentangle.affine_map import combined_distances
from linearize.disentangle.error_map import Preview
from linearize.disentangle.grid import CoefficientGrid, reduce
from linearize.disentangle.passes import Passes
from linearize.disentangle.second_way import check_passes
from linearize.evaluate import AffineOutputs, as_readout
from linearize.evaluate.batches import track
from linearize.evaluate.displace import in_turn
from linearize.types import Array

HELD_OUT = 16
"""Grid points at which a preview is compared with the truth."""

Singles = list[list[list[Array]]]
"""Encoded single-task predictions: by task, coefficient, batch."""


def nonlinear_sums(
    passes: Passes, grid: CoefficientGrid, progress: bool = False
) -> tuple[np.ndarray, int]:
    """(T, P) summed distances at a grid's points, and how many passes over a task's examples."""
    check_passes(passes, grid.points)
    singles = _singles(passes, grid)
    sums = _sums(passes, grid, singles, np.arange(len(grid.points)), progress)
    shared = sum(int(grid.alone(t).sum()) for t in range(len(grid.axes)))
    made = sum(grid.shape) + sums.size - shared
    return sums, made


def previewed_sums(
    passes: Passes, grid: CoefficientGrid, m: int, reduction: str, seed: int, progress: bool = False
) -> tuple[np.ndarray, int, Preview]:
    """As :func:`nonlinear_sums`, but joint logits are interpolated from m nodes a side.

    Tensor Chebyshev interpolation over the grid's bounding box. Single-task predictions are exact.
    The total is compared with the truth at :data:`HELD_OUT` grid points drawn with ``seed`` among
    those that are neither single-task points nor nodes.
    """
    tasks = range(len(grid.axes))
    check_passes(passes, grid.points)
    singles = _singles(passes, grid)
    nodes = CoefficientGrid(tuple(chebyshev.nodes(axis.min(), axis.max(), m) for axis in grid.axes))
    logits = _node_logits(passes, nodes, progress)
    to_axis = [chebyshev.weights(x, at) for x, at in zip(nodes.axes, grid.axes, strict=True)]
    rows = [to_axis[t][grid.index[:, t]][:, nodes.index[:, t]] for t in tasks]
    mix = np.prod(rows, axis=0).astype(np.float32)
    alone = np.stack([grid.alone(t) for t in tasks])
    sums = np.empty((len(tasks), len(grid.points)))
    for t in tasks:
        known = np.stack([_join(single, passes.batches[t].n) for single in singles[t]])
        basis = AffineOutputs(np.zeros_like(logits[t][0]), logits[t])
        which = grid.index[:, t]
        sums[t] = combined_distances(as_readout(None), passes.whole[t], basis, mix, known, which)
        own = _to_themselves(passes, t, singles[t])
        sums[t] = np.where(alone[t], own[which], sums[t])
    is_node = (mix == 1).any(1)
    candidates = np.flatnonzero(~alone.any(0) & ~is_node)
    drawn = np.random.default_rng(seed).permutation(candidates)[:HELD_OUT]
    off = sums[:, drawn] - _sums(passes, grid, singles, drawn)
    counts = np.array([each.total for each in passes.whole])
    gap = np.abs(reduce(off / counts[:, None], reduction))
    worst = (float(gap.mean()), float(gap.max())) if len(gap) else (0.0, 0.0)
    made = sum(grid.shape) + len(tasks) * (len(nodes.points) + len(drawn))
    return sums, made, Preview(m, len(drawn), *worst)


def _singles(passes: Passes, grid: CoefficientGrid) -> Singles:
    """Every single-task prediction, once.

    Raises:
        NonFiniteError: those at θ0 are not finite.
    """
    found: Singles = []
    for t in range(len(grid.axes)):
        row: list[list[Array]] = []
        for point in grid.single(t):
            row.append(passes.encoded(t, passes.params(point)))
            jax.block_until_ready(row[-2:][0])  # bounds the parameters that wait in the queue
        found.append(row)
        for at_zero in np.flatnonzero(grid.axes[t] == 0)[:1]:
            passes.check_finite(t, row[at_zero])
    return found


def _sums(
    passes: Passes,
    grid: CoefficientGrid,
    singles: Singles,
    which: np.ndarray,
    progress: bool = False,
) -> np.ndarray:
    """(T, len(which)) summed distances at some grid points, each point's prediction made once."""
    tasks, index, points = range(len(grid.axes)), grid.index, grid.points
    alone = [grid.alone(t) for t in tasks]

    def work(p: int) -> list[list[Array]]:
        params = passes.params(points[p])
        return [
            [] if alone[t][p] else passes.distances(t, params, singles[t][index[p, t]])
            for t in tasks
        ]

    sums = np.stack([_to_themselves(passes, t, singles[t])[index[which, t]] for t in tasks])
    for k, parts in enumerate(in_turn(work, track(which.tolist(), progress))):
        for t in tasks:
            if parts[t]:
                sums[t, k] = np.sum(parts[t], dtype=np.float64)
    return sums


def _to_themselves(passes: Passes, task: int, row: list[list[Array]]) -> np.ndarray:
    """(G,) summed distance of each single-task prediction to itself."""
    sums = jax.device_get([passes.to_themselves(task, single) for single in row])
    return np.asarray(sums, np.float64).sum(1)


def _node_logits(passes: Passes, nodes: CoefficientGrid, progress: bool) -> list[np.ndarray]:
    """Each task's logits (K, N, C) at all K nodes."""
    tasks = range(len(nodes.axes))

    def work(point: np.ndarray) -> list[list[Array]]:
        params = passes.params(point)
        return [passes.logits(t, params) for t in tasks]

    rows = list(in_turn(work, track(list(nodes.points), progress)))
    return [np.stack([_join(row[t], passes.batches[t].n) for row in rows]) for t in tasks]


def _join(parts: Sequence[Array], n: int) -> np.ndarray:
    """Batches as one array of n examples."""
    return np.concatenate([np.asarray(part) for part in parts])[:n]

"""Maps of the non-linear regime: one pass per distinct prediction, or fewer by interpolation.

What is kept of single-task predictions is bounded: where it is large, as a distribution over a
vocabulary is, a few batches are gone through at a time, or one at one coefficient after another.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import jax
import numpy as np

from linearize import hosts, shares
from linearize.disentangle import chebyshev
from linearize.disentangle.affine_map import combined_distances
from linearize.disentangle.error_map import Preview
from linearize.disentangle.grid import CoefficientGrid, reduce
from linearize.disentangle.passes import Passes, at_once
from linearize.disentangle.second_way import check_passes
from linearize.evaluate import AffineOutputs, as_readout
from linearize.evaluate.batches import fetched, track
from linearize.evaluate.grid import CHUNK_FLOATS
from linearize.types import Array

HELD_OUT = 16
"""Grid points at which a preview is compared with the truth."""

Singles = dict[int, list[Array]]
"""What is kept of single-task predictions: by coefficient, a batch each."""


class Turn(NamedTuple):
    """Single-task predictions that are held at one time."""

    passes: Passes
    rows: range
    """Coefficients, by number."""


def nonlinear_sums(
    tasks: Sequence[Passes], grid: CoefficientGrid, progress: bool = False
) -> tuple[np.ndarray, int]:
    """(T, P) summed distances at a grid's points, and how many passes over a task's examples."""
    for passes in tasks:
        check_passes(passes, grid.points)
    sums = _sums([turn for passes in tasks for turn in _turns(passes, grid)], grid, progress)
    shared = sum(int(grid.alone(t).sum()) for t in range(len(tasks)))
    return sums, sum(grid.shape) + sums.size - shared


def previewed_sums(
    tasks: Sequence[Passes],
    grid: CoefficientGrid,
    m: int,
    reduction: str,
    seed: int,
    progress: bool = False,
) -> tuple[np.ndarray, int, Preview]:
    """As :func:`nonlinear_sums`, but joint logits are interpolated from m nodes a side.

    Tensor Chebyshev interpolation over the grid's bounding box. Single-task predictions are exact.
    The total is compared with the truth at :data:`HELD_OUT` grid points drawn with ``seed`` among
    those that are neither single-task points nor nodes.
    """
    for passes in tasks:
        check_passes(passes, grid.points)
    nodes = CoefficientGrid(tuple(chebyshev.nodes(axis.min(), axis.max(), m) for axis in grid.axes))
    to_axis = [chebyshev.weights(x, at) for x, at in zip(nodes.axes, grid.axes, strict=True)]
    rows = [to_axis[t][grid.index[:, t]][:, nodes.index[:, t]] for t in range(len(tasks))]
    mix = np.prod(rows, axis=0).astype(np.float32)
    alone = np.stack([grid.alone(t) for t in range(len(tasks))])
    is_node = (mix == 1).any(1)
    candidates = np.flatnonzero(~alone.any(0) & ~is_node)
    drawn = np.random.default_rng(seed).permutation(candidates)[:HELD_OUT]
    sums = np.zeros((len(tasks), len(grid.points)))
    truth = np.zeros((len(tasks), len(drawn)))
    for t, passes in enumerate(tasks):
        for part in passes.parts(len(nodes.points)):
            turn = Turn(part, range(len(grid.axes[t])))
            singles = _singles(turn, grid)
            sums[t] += _interpolated(part, singles, grid, nodes, mix, progress)
            seen = partial(_of_drawn, turn, singles, grid, drawn)
            truth[t] += list(shares.each(seen, len(drawn)))
    counts = np.array([passes.whole.total for passes in tasks])
    gap = np.abs(reduce((sums[:, drawn] - truth) / counts[:, None], reduction))
    worst = (float(gap.mean()), float(gap.max())) if len(gap) else (0.0, 0.0)
    made = sum(grid.shape) + len(tasks) * (len(nodes.points) + len(drawn))
    return sums, made, Preview(m, len(drawn), *worst)


def _interpolated(
    passes: Passes,
    singles: Singles,
    grid: CoefficientGrid,
    nodes: CoefficientGrid,
    mix: np.ndarray,
    progress: bool,
) -> np.ndarray:
    """(P,) summed distances, of joint logits mixed (P, K) from those at the nodes."""
    logits = _node_logits(passes, nodes, progress)
    basis, which = AffineOutputs(np.zeros_like(logits[0]), logits), grid.index[:, passes.task]
    known = np.stack([_join(single, passes.batches.n) for single in singles.values()])
    sums = combined_distances(as_readout(None), passes.whole, basis, mix, known, which)
    return np.where(grid.alone(passes.task), _to_themselves(passes, singles)[which], sums)


def _turns(passes: Passes, grid: CoefficientGrid) -> Iterator[Turn]:
    """All batches at all coefficients, in as few turns as may be held; one each, to share them."""
    rows = range(len(grid.axes[passes.task]))
    for part in passes.parts(len(rows), kept=True):
        held = at_once(len(rows), len(part.batches.items) * part.numbers())
        step = 1 if hosts.several() else held
        yield from (Turn(part, rows[first : first + step]) for first in rows[::step])


def _singles(turn: Turn, grid: CoefficientGrid) -> Singles:
    """A turn's single-task predictions, each made once.

    Raises:
        NonFiniteError: those at θ0 are not finite.
    """
    passes, points = turn.passes, grid.single(turn.passes.task)

    def encoded(numbers: Sequence[int]) -> Iterator[list[Array]]:
        for i in (turn.rows[k] for k in numbers):
            found = passes.encoded(passes.params(points[i]))
            jax.block_until_ready(found[-1])  # bounds the parameters that wait in the queue
            if not points[i].any():
                passes.check_finite(found)
            yield found

    return dict(zip(turn.rows, shares.each(encoded, len(turn.rows)), strict=True))


def _sums(turns: Sequence[Turn], grid: CoefficientGrid, progress: bool = False) -> np.ndarray:
    """(T, P) summed distances at a grid's points, each point's prediction made once."""
    sums = np.zeros((len(grid.axes), len(grid.points)))
    whose = [np.flatnonzero(np.isin(grid.index[:, t.passes.task], t.rows)) for t in turns]

    def distances(numbers: Sequence[int]) -> Iterator[np.ndarray]:
        steps = iter(track(np.concatenate([whose[k] for k in numbers]).tolist(), progress))
        for k in numbers:
            found, turn, here = np.zeros(len(grid.points)), turns[k], whose[k]
            found[here] = list(_at(turn, _singles(turn, grid), grid, islice(steps, len(here))))
            yield found

    held = max(1, CHUNK_FLOATS // len(grid.points))
    for turn, found in zip(turns, shares.each(distances, len(turns), held), strict=True):
        sums[turn.passes.task] += found
    return sums


def _at(
    turn: Turn, singles: Singles, grid: CoefficientGrid, which: Iterable[int]
) -> Iterator[float]:
    """Summed distances to a turn's predictions, at grid points of its rows."""
    passes, index, points = turn.passes, grid.index[:, turn.passes.task], grid.points
    alone = grid.alone(passes.task)

    def work(p: int) -> list[Array]:
        single = singles[int(index[p])]
        if alone[p]:
            return passes.to_themselves(single)
        return passes.distances(passes.params(points[p]), single)

    for parts in fetched(map(work, which)):
        yield float(np.sum(parts, dtype=np.float64))


def _of_drawn(
    turn: Turn, singles: Singles, grid: CoefficientGrid, drawn: np.ndarray, numbers: Sequence[int]
) -> Iterator[float]:
    return _at(turn, singles, grid, drawn[list(numbers)])


def _to_themselves(passes: Passes, singles: Singles) -> np.ndarray:
    """(rows,) summed distance of each single-task prediction to itself."""
    sums = jax.device_get([passes.to_themselves(single) for single in singles.values()])
    return np.asarray(sums, np.float64).sum(1)


def _node_logits(passes: Passes, nodes: CoefficientGrid, progress: bool) -> np.ndarray:
    """Logits (K, N, C) at all K nodes."""

    def work(numbers: Sequence[int]) -> Iterator[list[Array]]:
        points = (nodes.points[k] for k in track(numbers, progress))
        return fetched(passes.logits(passes.params(point)) for point in points)

    rows = shares.each(work, len(nodes.points))
    return np.stack([_join(row, passes.batches.n) for row in rows])


def _join(parts: Sequence[Array], n: int) -> np.ndarray:
    """Batches as one array of n examples."""
    return np.concatenate([np.asarray(part) for part in parts])[:n]

"""Maps of affine outputs: every prediction is a fixed combination of arrays at hand."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linearize import shares, tree
from linearize.agreement import once
from linearize.compiled import jit
from linearize.disentangle.compared import Compared
from linearize.disentangle.grid import CoefficientGrid
from linearize.disentangle.second_way import check_cell, check_distance
from linearize.evaluate import AffineOutputs
from linearize.evaluate.grid import CHUNK_FLOATS, chunk, directly
from linearize.single import drawn
from linearize.types import Array


class Pieces(NamedTuple):
    """A task's examples, all at once or a batch after the other: outputs along all T vectors."""

    n: int
    of: Callable[[Sequence[int]], Iterable[tuple[AffineOutputs, Compared]]]
    """Those of these numbers."""

    @classmethod
    def whole(cls, affine: AffineOutputs, compared: Compared) -> "Pieces":
        """All at once."""
        return cls(1, lambda _: [(affine, compared)])


def affine_sums(tasks: Sequence[Pieces], grid: CoefficientGrid) -> np.ndarray:
    """(T, P) summed distances at the points of a grid.

    Raises:
        NonFiniteError: NaN or infinity in outputs; with the task.
    """
    sums = np.zeros((len(tasks), len(grid.points)))
    for t, pieces in enumerate(tasks):

        def work(
            numbers: Sequence[int], t: int = t, pieces: Pieces = pieces
        ) -> Iterator[np.ndarray]:
            return map(partial(_piece_sums, grid, t), pieces.of(numbers))  # holds one at a time

        try:
            for found in shares.each(work, pieces.n):
                sums[t] += found
        except tree.NonFiniteError as error:
            raise tree.NonFiniteError(f"task {t}: {error}") from error
    return sums


def _piece_sums(
    grid: CoefficientGrid, task: int, piece: tuple[AffineOutputs, Compared]
) -> np.ndarray:
    affine, compared = piece
    objective = compared.objective
    reduced = objective.reduced() if objective.distance.ranks_only else None
    if reduced is not None:
        scores, objective = reduced
        affine = affine.through(scores)
    read, objective = objective.opened()
    compared, index = compared._replace(objective=objective), grid.index[:, task]
    every, sums = grid.single(task), np.zeros(len(grid.points))
    step = _at_once(read, compared, affine, len(every))
    for first in range(0, len(every), step):
        points, here = every[first : first + step], (index >= first) & (index < first + step)
        singles = _encode_at(read, compared, affine, points, chunk(affine))
        if len(compared.real):
            check = partial(_check_singles, read, compared, affine, points, singles)
            once(check, "single predictions", arrays=(read, compared, affine, points))
        which = index[here] - first
        sums[here] = combined_distances(read, compared, affine, grid.points[here], singles, which)
    return sums


def _at_once(read: jax.tree_util.Partial, compared: Compared, affine: AffineOutputs, n: int) -> int:
    """How many of n coefficients' predictions are kept at a time; it divides n."""
    kept = jax.eval_shape(lambda given: compared.kept(read(given)), affine.f0)
    fits = max(1, CHUNK_FLOATS // max(kept.size, 1))
    return next(step for step in range(min(n, fits), 0, -1) if n % step == 0)


def combined_distances(
    read: jax.tree_util.Partial,
    compared: Compared,
    affine: AffineOutputs,
    weights: np.ndarray,
    singles: Array | np.ndarray,
    which: np.ndarray,
) -> np.ndarray:
    """Summed distance of the predictions at combinations of arrays to ``singles[which]``.

    Args:
        read: outputs to predictions.
        compared: how these are compared.
        affine: outputs of N examples.
        weights: (P, T) coefficients.
        singles: (G, N, ...) what is kept of other predictions.
        which: (P,) rows of ``singles``.

    Returns:
        (P,), float64.
    """
    size = chunk(affine, int(np.prod(singles.shape[2:])))
    sums = _distances(read, compared, affine, weights, singles, which, size)
    found, cell = np.asarray(sums, np.float64), drawn(len(weights))

    def check() -> None:
        single = np.asarray(singles[which[cell]])
        check_cell(found, compared, read, affine, weights[cell], single, cell)

    once(check, "map", arrays=(read, compared, affine, weights, singles))
    return found


def _check_singles(
    read: jax.tree_util.Partial,
    compared: Compared,
    affine: AffineOutputs,
    weights: np.ndarray,
    singles: Array,
) -> None:
    """What is kept of one prediction: as far from a second way's as that is from itself."""
    g, n = drawn(len(weights)), compared.real[drawn(len(compared.real))]
    one, kept = compared.take(np.array([n])), np.asarray(singles[g, n])[None]
    found = float(np.sum(one.apart(jnp.asarray(kept), jnp.asarray(kept))))
    logits = directly(read, affine.take(np.array([n])), weights[g])
    where = f"of example {n} at single point {g}"
    check_distance(found, one, kept, logits, "the prediction kept", where)


@partial(jit, static_argnames="size")
def _encode_at(
    read: jax.tree_util.Partial,
    compared: Compared,
    affine: AffineOutputs,
    weights: Array,
    size: int,
) -> Array:
    """What is kept (G, N, ...) of predictions at combinations (G, T)."""
    return jax.lax.map(lambda w: compared.kept(read(affine.at(w))), weights, batch_size=size)


@partial(jit, static_argnames="size")
def _distances(
    read: jax.tree_util.Partial,
    compared: Compared,
    affine: AffineOutputs,
    weights: Array,
    singles: Array,
    which: Array,
    size: int,
) -> Array:
    """(P,): summed distance of the predictions at ``weights`` (P, T) to ``singles[which]``."""

    def at(point: tuple[Array, Array]) -> Array:
        w, i = point
        return jnp.sum(compared.apart(singles[i], compared.kept(read(affine.at(w)))))

    return jax.lax.map(at, (weights, which), batch_size=size)

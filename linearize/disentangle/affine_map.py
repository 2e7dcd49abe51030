"""Maps of affine outputs: every prediction is a fixed combination of cached arrays."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linearize.agreement import once
from linearize.compiled import jit
from linearize.disentangle.grid import Grid
from linearize.disentangle.second_way import check_cell, check_distance
from linearize.evaluate import AffineOutputs, Readout, as_readout
from linearize.evaluate.grid import chunk, directly
from linearize.objectives.distances import Compare, Distance
from linearize.single import drawn
from linearize.types import Array


def affine_errors(
    terms: Sequence[AffineOutputs], grid: Grid, readouts: Sequence[Readout], distance: Distance
) -> np.ndarray:
    """(T, G_1, ..., G_T) mean distances, from each task's cached outputs along all T vectors."""
    errors = []
    for t, (affine, readout) in enumerate(zip(terms, readouts, strict=True)):
        scores = affine.scores(readout) if distance.ranks_only else None
        affine, readout = (affine, readout) if scores is None else (scores, None)
        encode = encoder(readout, distance)
        singles = _encode_at(encode, affine, grid.single(t), chunk(affine))
        once(
            partial(_check_singles, readout, distance, affine, grid.single(t), singles),
            "single predictions",
            arrays=(encode, affine, grid.single(t)),
        )
        which = grid.index[:, t]
        sums = combined_distances(readout, distance, affine, grid.points, singles, which)
        errors.append((sums / len(affine.f0)).reshape(grid.shape))
    return np.stack(errors)


def combined_distances(
    readout: Readout,
    distance: Distance,
    affine: AffineOutputs,
    weights: np.ndarray,
    singles: Array | np.ndarray,
    which: np.ndarray,
) -> np.ndarray:
    """Summed distance of the predictions at combinations of cached arrays to ``singles[which]``.

    Args:
        readout: features to logits.
        distance: what to measure.
        affine: cached arrays of N examples.
        weights: (P, T) coefficients.
        singles: (G, N, ...) encoded predictions.
        which: (P,) rows of ``singles``.

    Returns:
        (P,), float64.
    """
    size = chunk(affine, int(np.prod(singles.shape[2:])))
    encode = encoder(readout, distance)
    sums = _distances(encode, affine, weights, singles, which, distance.between, size)
    found = np.asarray(sums, np.float64)
    cell = drawn(len(weights))

    def check() -> None:
        logits = directly(as_readout(readout), affine, weights[cell])
        check_cell(found, distance, logits, singles, which, cell)

    once(check, "map", distance, arrays=(encode, affine, weights, singles))
    return found


def _check_singles(
    readout: Readout,
    distance: Distance,
    affine: AffineOutputs,
    weights: np.ndarray,
    singles: Array,
) -> None:
    """What is kept of one prediction: as far from a second way's as that is from itself."""
    g, n = drawn(len(weights)), drawn(len(affine.f0))
    kept = np.asarray(singles)[g, n][None]
    logits = directly(as_readout(readout), affine.take(np.array([n])), weights[g])
    found = float(np.sum(distance.between(jnp.asarray(kept), jnp.asarray(kept))))
    what = "the prediction kept"
    check_distance(found, distance, kept, logits, what, f"of example {n} at single point {g}")


def encoder(readout: Readout, distance: Distance) -> jax.tree_util.Partial:
    """Features to what the distance compares; a pytree, so that head arrays are arguments."""
    code = jax.tree_util.Partial(distance.kept)
    return jax.tree_util.Partial(_read_then_encode, code, as_readout(readout))


def _read_then_encode(
    code: jax.tree_util.Partial, readout: jax.tree_util.Partial, features: Array
) -> Array:
    return code(readout(features))


@partial(jit, static_argnames="size")
def _encode_at(
    encode: jax.tree_util.Partial, affine: AffineOutputs, weights: Array, size: int
) -> Array:
    """Encoded predictions (G, N, ...) at combinations (G, T)."""
    return jax.lax.map(lambda w: encode(affine.at(w)), weights, batch_size=size)


@partial(jit, static_argnames=("compare", "size"))
def _distances(
    encode: jax.tree_util.Partial,
    affine: AffineOutputs,
    weights: Array,
    singles: Array,
    which: Array,
    compare: Compare,
    size: int,
) -> Array:
    """(P,): summed distance of the predictions at ``weights`` (P, T) to ``singles[which]``."""

    def at(point: tuple[Array, Array]) -> Array:
        w, i = point
        return jnp.sum(compare(singles[i], encode(affine.at(w))))

    return jax.lax.map(at, (weights, which), batch_size=size)

"""Grids of coefficients by algebra on cached affine outputs: no model call.

Memory is bounded by working through the grid in chunks; one compilation per shapes.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize.agreement import agree, once
from linearize.compiled import jit
from linearize.evaluate.affine import AffineOutputs
from linearize.evaluate.metrics import predicted
from linearize.evaluate.readout import Readout, as_readout
from linearize.single import Sample, drawn, roundings, same_row, wide
from linearize.types import Array

CHUNK_FLOATS = 2**22
"""Numbers that a chunk of grid points may hold at once: 16 MiB in float32."""


def grid_logits(affine: AffineOutputs, alphas: ArrayLike, readout: Readout = None) -> np.ndarray:
    """Logits at each grid point.

    Args:
        affine: cached outputs of N examples along T task vectors.
        alphas: (G, T) coefficients.
        readout: features to logits, applied at each point.

    Returns:
        (G, N, C), float32. For large grids prefer :func:`grid_accuracy`, which holds no logits.

    Raises:
        ValueError: ``alphas`` is not (G, T) or not finite.
        NonFiniteError: NaN or infinity in ``affine``.
        DisagreementError: a sampled example has other logits at a sampled point.
    """
    points = check_points(alphas, len(affine.jvps))
    affine.check_finite("the cached outputs")
    read = as_readout(readout)
    found = np.asarray(_logits(read, affine, points, chunk(affine)))
    p, n = drawn(len(points)), drawn(len(affine.f0))

    def check() -> None:
        row = directly(read, affine.take(np.array([n])), points[p])
        what = f"the logits of example {n} at α = {points[p].tolist()}"
        same_row(found[p, n], row, what, "by direct evaluation")

    once(check, "grid of logits", arrays=(read, affine, points))
    return found


@partial(jit, static_argnames="size")
def _logits(
    readout: jax.tree_util.Partial, affine: AffineOutputs, points: Array, size: int
) -> Array:
    return jax.lax.map(lambda alpha: readout(affine.at(alpha)), points, batch_size=size)


def grid_accuracy(
    affine: AffineOutputs,
    alphas: ArrayLike,
    readout: Readout,
    labels: ArrayLike,
) -> np.ndarray:
    """Top-1 accuracy at each grid point.

    Where the readout's argmax is that of scores affine in the features (a head without bias or
    without normalisation), these are computed once, and a grid point costs N·C·T operations.

    Args:
        affine: cached outputs of N examples along T task vectors.
        alphas: (G, T) coefficients.
        readout: features to logits, applied at each point.
        labels: (N,) integers in [0, C).

    Returns:
        (G,), float64 in [0, 1]. A prediction that is not finite is wrong.

    Raises:
        ValueError: ``alphas`` is not (G, T) or not finite, or labels are out of range.
        NonFiniteError: NaN or infinity in ``affine``.
        DisagreementError: the accuracy at a sampled point is another.
    """
    points = check_points(alphas, len(affine.jvps))
    affine.check_finite("the cached outputs")
    scores = affine.scores(readout)
    if scores is not None:
        affine, readout = scores, None
    read = as_readout(readout)
    n = len(affine.f0)
    classes = jax.eval_shape(read, jax.ShapeDtypeStruct(affine.f0.shape, affine.f0.dtype)).shape[-1]
    labels = check_labels(labels, n, classes)
    hits = np.asarray(_hits(read, affine, points, labels, chunk(affine, classes)), np.float64)
    p = drawn(len(points))

    def check() -> None:
        rows = directly(read, affine, points[p])
        right, *near = (
            np.isfinite(z.max(-1)) & (z.argmax(-1) == labels)
            for z in (rows.row, *roundings(rows.row, rows))
        )
        agree(
            hits[p],
            float(right.sum()),
            scale=0.0,
            dtypes=rows.dtypes,
            terms=1,
            what=f"how many of {n} examples are of their label's class",
            entry=f"at α = {points[p].tolist()}",
            slack=float(np.any([right != other for other in near], axis=0).sum()),
        )

    once(check, "grid of accuracies", arrays=(read, affine, points))
    return hits / n


def directly(read: jax.tree_util.Partial, affine: AffineOutputs, alphas: np.ndarray) -> Sample:
    """Logits (N, ...) at one point, features by NumPy in float64, the readout uncompiled."""
    f0, jvps = wide(affine.f0), wide(affine.jvps)
    given = np.asarray(affine.f0).dtype
    with np.errstate(over="ignore", invalid="ignore"):
        steps = [a * dz for a, dz in zip(alphas, jvps, strict=True)]
        features = sum(steps, start=f0)
        scale = sum(map(np.abs, steps), start=np.abs(f0))
        logits = wide(read(jnp.asarray(features.astype(given))))
        large, left, size = (_lengths(x) for x in (scale, features, logits))
        # of terms that cancel, what is left carries the rounding of all
        size = size * np.maximum(1.0, large / np.where(left > 0, left, 1.0))
    dtypes = given, logits.dtype, np.dtype(np.float32)
    return Sample(logits, size.reshape(-1, *[1] * (logits.ndim - 1)), dtypes)


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows.reshape(len(rows), -1), axis=1)


@partial(jit, static_argnames="size")
def _hits(
    readout: jax.tree_util.Partial,
    affine: AffineOutputs,
    points: Array,
    labels: Array,
    size: int,
) -> Array:
    def at(alpha: Array) -> Array:
        return jnp.sum(predicted(readout(affine.at(alpha))) == labels)

    return jax.lax.map(at, points, batch_size=size)


def chunk(affine: AffineOutputs, classes: int = 1) -> int:
    """Grid points to hold at once."""
    per_point = max(affine.f0.size, len(affine.f0) * classes, 1)
    return max(1, CHUNK_FLOATS // per_point)


def check_points(alphas: ArrayLike, n_taus: int) -> np.ndarray:
    """Coefficients as (G, T) float32.

    Raises:
        ValueError: another shape, no point, or a number that is not finite.
    """
    with np.errstate(over="ignore"):
        points = np.asarray(alphas, np.float32)
    if points.ndim != 2 or points.shape[1] != n_taus or not len(points):
        raise ValueError(
            f"alphas has shape {points.shape}; expected (G, {n_taus}): one row per grid point, "
            "one coefficient per task vector"
        )
    if not np.isfinite(points).all():
        raise ValueError(f"alphas={alphas}; expected finite numbers, in float32 as well")
    return points


def check_labels(labels: ArrayLike, n: int, classes: int) -> np.ndarray:
    """Labels as (N,) int32.

    Raises:
        ValueError: another number than examples, no integers, or outside [0, classes).
    """
    y = np.asarray(labels)
    if y.shape != (n,) or not np.issubdtype(y.dtype, np.integer):
        raise ValueError(f"labels are {y.dtype}{y.shape}; expected ({n},) integers")
    if n and (y.min() < 0 or y.max() >= classes):
        raise ValueError(
            f"labels run from {y.min()} to {y.max()}; this readout has the classes 0 to "
            f"{classes - 1}"
        )
    return y.astype(np.int32)

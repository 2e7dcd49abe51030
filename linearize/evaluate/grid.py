"""Grids of coefficients by algebra on cached affine outputs: no model call.

Memory is bounded by working through the grid in chunks; one compilation per shapes.
"""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize.agreement import once
from linearize.compiled import jit
from linearize.evaluate.affine import AffineOutputs
from linearize.evaluate.statistics import check_statistics
from linearize.objectives import Classify, Objective, Targets
from linearize.objectives.readout import Readout, as_readout
from linearize.single import Sample, drawn, same_row, wide
from linearize.types import Array, Batch

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
    """Top-1 accuracy at each grid point, (G,): :func:`grid_values` of classification.

    Args and raises as there; ``readout`` takes features to logits (B, C), and ``labels`` are (N,)
    integers in [0, C). A prediction that is not finite is wrong.
    """
    return grid_values(affine, alphas, Classify(readout), {"labels": labels})["accuracy"]


def grid_values(
    affine: AffineOutputs, alphas: ArrayLike, objective: Objective, targets: Targets
) -> dict[str, np.ndarray]:
    """Each metric of an objective at each grid point.

    Where the objective can be :meth:`~linearize.objectives.Objective.reduced` (a head's argmax that
    is one of scores affine in the features), these are computed once, and a grid point costs N·C·T
    operations.

    Args:
        affine: cached outputs of N examples along T task vectors.
        alphas: (G, T) coefficients.
        objective: what is measured.
        targets: the examples' targets by role, (N, ...).

    Returns:
        By metric (G,), float64.

    Raises:
        ValueError: ``alphas`` is not (G, T) or not finite, or targets do not fit the outputs.
        NonFiniteError: NaN or infinity in ``affine``.
    """
    points = check_points(alphas, len(affine.jvps))
    affine.check_finite("the cached outputs")
    objective.check(jax.ShapeDtypeStruct(affine.f0.shape, affine.f0.dtype), targets)
    totals = affine_totals(
        affine, points, objective, {name: jnp.asarray(values) for name, values in targets.items()}
    )
    return objective.values(jax.device_get(totals))


def affine_totals(
    affine: AffineOutputs,
    points: np.ndarray,
    objective: Objective,
    targets: Targets,
    mask: Array | None = None,
) -> dict[str, Array]:
    """Statistics summed over N examples, (G, ...) on the device; of those with a true ``mask``.

    Raises:
        DisagreementError: those at a sampled point are others by a second way.
    """
    reduced = objective.reduced()
    if reduced is not None:
        scores, objective = reduced
        affine = affine.through(scores)
    found = _totals(objective, affine, points, targets, mask, chunk(affine))
    p = drawn(len(points))

    def check() -> None:
        read, rest = objective.opened()
        real = np.arange(len(affine.f0)) if mask is None else np.flatnonzero(np.asarray(mask))
        pieces = (
            (
                directly(read, affine.take(rows), points[p]),
                {name: np.asarray(each)[rows] for name, each in targets.items()},
            )
            for rows in blocks(real, affine)
        )
        here = {name: np.asarray(total[p]) for name, total in found.items()}
        what, entry = f"statistics of {len(real)} examples", f"at α = {points[p].tolist()}"
        check_statistics(here, rest, pieces, what, entry)

    once(check, "totals", arrays=(objective, affine, points, dict(targets), mask))
    return found


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


def blocks(rows: np.ndarray, affine: AffineOutputs) -> Iterator[np.ndarray]:
    """Examples in turns of as many as a chunk holds the outputs of."""
    size = max(1, CHUNK_FLOATS * len(affine.f0) // max(affine.f0.size, 1))
    return (rows[start : start + size] for start in range(0, len(rows), size))


def _lengths(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows.reshape(len(rows), -1), axis=1)


@partial(jit, static_argnames="size")
def _totals(
    objective: Objective,
    affine: AffineOutputs,
    points: Array,
    targets: Batch,
    mask: Array | None,
    size: int,
) -> dict[str, Array]:
    def at(alpha: Array) -> dict[str, Array]:
        return objective.total(affine.at(alpha), targets, mask)

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

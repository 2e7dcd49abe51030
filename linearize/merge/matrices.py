"""Leaves as matrices: what merges of singular vectors share.

A leaf is a matrix of all its axes but the last, the inputs, by the last, the outputs, as Flax has
it: a kernel (in, out); a convolution's (height, width, in, out) one of height·width·in rows; an
embedding (words, width) that of a one-hot input. Leaves of a scanned block have an axis of layers
before those, and each layer is a matrix of its own. Torch's weights are these matrices transposed,
but its embeddings, which are not. What has fewer than two rows or columns is no matrix.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.merge.leafwise import leafwise
from linearize.merge.merge import Shapes
from linearize.study import Study
from linearize.task_vector import TaskVector

SCANNED = r"(^|/)(blocks|layers|Scan[^/]*)/(?!\d)"
"""Leaves with an axis of layers before the others: ``blocks/kernel``, not ``layers/0/kernel``."""

Matrices = Callable[[str, np.ndarray, float], np.ndarray]
"""Of a leaf's name, T matrices (T, m, n) in float64 or complex128, and what is rounding in a
singular value of them, as a share of the largest: one matrix (m, n)."""

_MOST = 1e-4
"""Share of the largest singular value that counts as rounding at most, where the dtype is finer."""

Triples = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Left singular vectors, singular values, right singular vectors."""


def matrixwise(
    taus: Mapping[str, TaskVector],
    of: Matrices,
    *,
    matrices: tree.Pattern = None,
    scanned: tree.Pattern = SCANNED,
) -> TaskVector:
    """A vector whose matrices are made of those of T vectors; all else is their mean.

    Args:
        taus: T task vectors of the same leaves.
        of: what becomes of T matrices.
        matrices: pattern of the leaves that may be taken as matrices; of the others, too, the mean
            is taken.
        scanned: pattern of the leaves with an axis of layers before the others; ``()`` for none.

    Raises:
        ValueError: no vector, or what ``of`` raises.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector.
    """
    picked = tree.finder(matrices)

    def merged(name: str, leaves: np.ndarray) -> np.ndarray:
        layers = as_matrices(name, leaves, scanned)
        if layers is None or not picked(name):
            return leaves.mean(0)
        rounding = rounding_of(taus, name, layers.shape[-2:])
        return np.stack([of(name, each, rounding) for each in layers.swapaxes(0, 1)])

    return leafwise(taus, merged)


def as_matrices(
    name: str, leaves: np.ndarray, scanned: tree.Pattern = SCANNED
) -> np.ndarray | None:
    """Leaves (T, ...) as (T, layers, m, n), one layer where none is scanned; None if no matrices.

    >>> as_matrices("conv/kernel", np.zeros((2, 3, 3, 4, 5))).shape
    (2, 1, 36, 5)
    >>> as_matrices("blocks/bias", np.zeros((2, 12, 5))) is None
    True
    """
    T, *shape = leaves.shape
    layers = layers_of(name, tuple(shape), scanned)
    *inputs, columns = shape[layers is not None :] or [1]
    rows = math.prod(inputs)
    count = 1 if layers is None else layers
    return leaves.reshape(T, count, rows, columns) if min(rows, columns) > 1 else None


def layers_of(name: str, shape: tuple[int, ...], scanned: tree.Pattern = SCANNED) -> int | None:
    """How many layers a leaf's first axis is of; None where it has no such axis."""
    return shape[0] if shape and tree.finder(scanned)(name) else None


def share(merge: str, name: str, tasks: int, rows: int, columns: int) -> int:
    """How many singular triples of a matrix each task can have, ⌊r / T⌋.

    Raises:
        ValueError: none, in a matrix of fewer rows or columns than there are tasks.
    """
    if found := min(rows, columns) // tasks:
        return found
    raise ValueError(
        f"{merge}: {name} is a matrix of {rows} × {columns}, in which {tasks} tasks have no "
        "singular vector each; give matrices= a pattern that leaves it out, and it is averaged"
    )


def one_each(merge: str, study: Study, moving: Shapes) -> None:
    """Require a singular triple for each task in every matrix, as a row's ``needs``.

    Raises:
        ValueError: as :func:`share`.
    """
    for name, shape in moving.items():
        layers = as_matrices(name, np.broadcast_to(0.0, (1, *shape)), study.scanned)
        if layers is not None:
            share(merge, name, len(study.names), *layers.shape[-2:])


def rounding_of(taus: Mapping[str, TaskVector], name: str, shape: tuple[int, ...]) -> float:
    """What rounding to a leaf's dtype may make of a singular value of 0, over the largest one."""
    return rounding(
        [jnp.result_type(tau.delta[name], jnp.bfloat16) for tau in taus.values()], shape
    )


def rounding(kinds: Iterable[Any], shape: tuple[int, ...]) -> float:
    """The same of a matrix (m, n) whose numbers are of these dtypes.

    Where all entries are rounded alike, ε √max(m, n); where each is on its own, below ε. In half
    precision the former would be most of the matrix, so the latter is taken.
    """
    eps = max(float(jnp.finfo(kind).eps) for kind in kinds)
    return min(4 * math.sqrt(max(shape)) * eps, max(2 * eps, _MOST))


def svd(matrix: np.ndarray, rounding: float, largest: float = 0.0) -> Triples:
    """Singular vectors and values (m, k), (k,), (k, n) of what is more than rounding.

    The others' directions are anybody's choice: LAPACK's differ between machines.

    Args:
        matrix: (m, n).
        rounding: what counts as nothing, as a share of the largest singular value,
        largest: or of this, where it is larger: of a difference, the size of what it is of.
    """
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    kept = s > rounding * s.max(initial=largest)
    return u[:, kept], s[kept], vh[kept]


def leading(matrix: np.ndarray, count: int, rounding: float, largest: float = 0.0) -> Triples:
    """At most ``count`` leading triples of :func:`svd`, the left ones as rows (k, m) too."""
    u, s, vh = svd(matrix, rounding, largest)
    return u.T[:count], s[:count], vh[:count]


def side_by_side(triples: Iterable[Triples], rounding: float) -> Triples:
    """Whitened singular vectors (m, k) and (k, n) of several :func:`leading`, and their values."""
    u, s, vh = (np.concatenate(parts) for parts in zip(*triples, strict=True))
    return isometry(u.T, rounding), s, isometry(vh, rounding)


def isometry(matrix: np.ndarray, rounding: float) -> np.ndarray:
    """P Qᵀ of the SVD P Σ Qᵀ: the nearest matrix of orthonormal columns, or rows (whitening).

    Where the matrix lacks rank, that of its range, and zero beyond: a column twice shares one
    direction, and does not get another that is in nobody's vector.
    """
    u, _, vh = svd(matrix, rounding)
    return u @ vh


def isotropic(u: np.ndarray, s: np.ndarray, vh: np.ndarray) -> np.ndarray:
    """U Vᵀ times the mean of the singular values; zero where there is none."""
    return s.sum() / max(len(s), 1) * (u @ vh)

"""How a kernel lies in memory, and how it acts on a vector of outputs.

    "full"      (N1, N2, C1, C2)   every output of one example with every output of another
    "diagonal"  (N1, N2, C)        each output with itself: C kernels side by side
    "mean"      (N1, N2)           the mean over outputs, or any kernel that all outputs share
    "trace"     (N1, N2)           the plain sum over outputs: C times the mean

A full kernel is a matrix whose row n * C + c stands for output c of example n; vectors (N, C)
ravel the same way. A kernel (N, N) acts on C outputs as K ⊗ I_C, a diagonal one output by output.
"""

from collections.abc import Callable

import numpy as np
from jax.typing import ArrayLike

LAYOUTS = "(N1, N2), (N1, N2, C) or (N1, N2, C1, C2)"


def as_matrix(kernel: ArrayLike) -> np.ndarray:
    """A full kernel as the matrix (N1 * C1, N2 * C2); a kernel (N1, N2) as it is.

    Raises:
        ValueError: a kernel of another layout: a diagonal one is C matrices.

    >>> kernel = np.arange(16).reshape(2, 2, 2, 2)  # (n1, n2, c1, c2)
    >>> as_matrix(kernel)[0 * 2 + 1, 1 * 2 + 0] == kernel[0, 1, 1, 0]
    np.True_
    """
    array = np.asarray(kernel)
    if array.ndim == 2:
        return array
    if array.ndim != 4:
        hint = "; take its matrices kernel[:, :, c] one by one" if array.ndim == 3 else ""
        raise ValueError(
            f"kernel has shape {array.shape}; one matrix is made of a full kernel "
            f"(N1, N2, C1, C2) or of one (N1, N2){hint}"
        )
    n1, n2, c1, c2 = array.shape
    return array.transpose(0, 2, 1, 3).reshape(n1 * c1, n2 * c2)


def product(kernel: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """``v -> K v`` in any layout, (..., N2, C2) to (..., N1, C1); K is laid out for it once.

    Raises:
        ValueError: an array that is no kernel; on the call, a vector that does not fit it.

    >>> times = product(np.array([[2.0, 1.0]]))  # K ⊗ I
    >>> times(np.array([[1.0, 10.0], [0.0, 5.0]]))
    array([[ 2., 25.]])
    """
    if kernel.ndim not in (2, 3, 4):
        raise ValueError(f"kernel has shape {kernel.shape}; expected {LAYOUTS}")
    blocks, n2 = np.ascontiguousarray(to_blocks(kernel)), kernel.shape[1]
    outputs1 = kernel.shape[2] if kernel.ndim > 2 else None
    outputs2 = kernel.shape[-1] if kernel.ndim > 2 else None

    def times(vector: np.ndarray) -> np.ndarray:
        if vector.ndim < 2 or vector.shape[-2:] != (n2, outputs2 or vector.shape[-1]):
            raise ValueError(
                f"a vector of shape {vector.shape} does not fit a kernel of shape {kernel.shape}; "
                f"expected (..., {n2}, {outputs2 or 'C'})"
            )
        columns = blocks @ to_columns(vector, kernel.ndim)
        return from_columns(columns, kernel.ndim, outputs1 or vector.shape[-1])

    return times


def to_blocks(kernel: np.ndarray) -> np.ndarray:
    """The independent matrices that a kernel consists of, (B, M1, M2).

    Full: one of M = N * C. Diagonal: one of M = N for each output. Shared: one of M = N.

    >>> [to_blocks(np.zeros(s)).shape for s in ((5, 5, 3, 3), (5, 5, 3), (5, 5))]
    [(1, 15, 15), (3, 5, 5), (1, 5, 5)]
    """
    return np.moveaxis(kernel, -1, 0) if kernel.ndim == 3 else as_matrix(kernel)[None]


def to_columns(vector: np.ndarray, ndim: int) -> np.ndarray:
    """A vector (..., N, C) as the columns (..., B, M, R) that the blocks of a kernel act on.

    Args:
        vector: one entry for each example and output.
        ndim: number of the kernel's axes: 2, 3 or 4.

    >>> [to_columns(np.zeros((5, 3)), ndim).shape for ndim in (4, 3, 2)]
    [(1, 15, 1), (3, 5, 1), (1, 5, 3)]
    """
    if ndim == 2:
        return vector[..., None, :, :]
    if ndim == 3:
        return np.swapaxes(vector, -1, -2)[..., None]
    return vector.reshape(*vector.shape[:-2], 1, -1, 1)


def from_columns(columns: np.ndarray, ndim: int, outputs: int) -> np.ndarray:
    """The inverse of :func:`to_columns`: (..., B, M, R) to (..., N, C).

    >>> from_columns(to_columns(np.zeros((7, 5, 3)), 3), 3, outputs=3).shape
    (7, 5, 3)
    """
    if ndim == 2:
        return columns[..., 0, :, :]
    if ndim == 3:
        return np.swapaxes(columns[..., 0], -1, -2)
    return columns.reshape(*columns.shape[:-3], -1, outputs)

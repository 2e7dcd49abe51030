"""Spectra of dense kernels: leading eigenpairs, and how many directions a spectrum fills.

Where a kernel is too large to hold, :func:`linearize.ntk.matrix_free.lanczos` gives the same record
from products alone.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike

from linearize.fields import integer
from linearize.ntk.checks import NEGATIVE, square_kernel, widen
from linearize.ntk.layout import as_matrix


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Leading eigenpairs of a symmetric kernel, largest eigenvalue first."""

    values: np.ndarray
    """(k,), float64, descending."""
    vectors: np.ndarray
    """(N, k), or (N, C, k) for a full kernel: each of unit Euclidean norm, its largest entry
    positive. Within a repeated eigenvalue the basis is arbitrary."""
    residuals: np.ndarray
    """(k,): ‖K v − λ v‖; some eigenvalue of K lies within it of each λ."""


def eigenpairs(kernel: ArrayLike, k: int | None = None) -> Eigenpairs:
    """The k leading eigenpairs of a dense kernel, by LAPACK in float64.

    Args:
        kernel: (N, N), or "full" (N, N, C, C), symmetric.
        k: how many, 1 to N (N·C for a full kernel); all by default.

    Raises:
        ValueError: a kernel that is not square, symmetric and finite; ``k`` out of range.

    >>> eigenpairs([[2.0, 1.0], [1.0, 2.0]], k=1).values
    array([3.])
    """
    matrix = symmetric_matrix(kernel)
    shape = np.shape(kernel)[::2]
    size = len(matrix)
    k = size if k is None else integer("k", k)
    if not 1 <= k <= size:
        raise ValueError(f"k={k}; this kernel has {size} eigenvalues: choose 1 to {size}")
    values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(size - k, size - 1))
    return sorted_pairs(values, vectors, matrix @ vectors, shape)


def sorted_pairs(
    values: np.ndarray, vectors: np.ndarray, images: np.ndarray, shape: tuple[int, ...]
) -> Eigenpairs:
    """The record of eigenpairs in any order; ``images`` (M, k) are the products K v."""
    order = np.argsort(-values, kind="stable")
    values, vectors, images = values[order], vectors[:, order], images[:, order]
    residuals = np.linalg.norm(images - vectors * values, axis=0)
    peaks = np.take_along_axis(vectors, np.abs(vectors).argmax(0)[None], axis=0)
    vectors = vectors * np.where(peaks < 0, -1.0, 1.0)
    return Eigenpairs(values, vectors.reshape(*shape, len(values)), residuals)


def symmetric_matrix(kernel: ArrayLike) -> np.ndarray:
    """The kernel as a symmetric float64 matrix, (M, M) with M = N or N·C.

    Raises:
        ValueError: as :func:`linearize.ntk.checks.square_kernel`; a diagonal layout.

    >>> symmetric_matrix([[1, 2], [2, 3]])
    array([[1., 2.],
           [2., 3.]])
    """
    return as_matrix(square_kernel(kernel))


def participation_ratio(eigenvalues: ArrayLike) -> float:
    """(Σ λ)² / Σ λ²: k for k equal eigenvalues, 1 for a single one.

    Args:
        eigenvalues: (k,), of a positive semi-definite kernel; all of them, or the ratio is that of
            the part given.

    Raises:
        ValueError: no positive eigenvalue, or one that is negative beyond rounding.

    >>> participation_ratio([2.0, 2.0, 0.0])
    2.0
    """
    values = _nonnegative(eigenvalues)
    return float(values.sum() ** 2 / (values**2).sum())


def effective_rank(eigenvalues: ArrayLike) -> float:
    """The exponential of the entropy of the eigenvalues divided by their sum (Roy & Vetterli 2007).

    ``eigenvalues`` and errors as in :func:`participation_ratio`, which it is never below.

    >>> round(effective_rank([2.0, 2.0, 0.0]), 12)
    2.0
    """
    values = _nonnegative(eigenvalues)
    shares = values[values > 0] / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _nonnegative(eigenvalues: ArrayLike) -> np.ndarray:
    values = widen("eigenvalues", eigenvalues)
    if values.ndim != 1:
        raise ValueError(f"eigenvalues has shape {values.shape}; expected (k,)")
    top = values.max()
    if top <= 0 or values.min() < -NEGATIVE * top:
        raise ValueError(
            f"eigenvalues span {values.min():.3g} to {values.max():.3g}; expected those of a "
            "positive semi-definite kernel, one positive at least"
        )
    return np.maximum(values, 0) / top

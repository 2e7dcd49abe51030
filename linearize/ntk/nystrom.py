"""Nyström approximations of a positive semi-definite kernel, from columns or from products.

    K ≈ K_{·S} (K_SS)⁺ K_{S·} = U Λ Uᵀ

never above K in the order of quadratic forms, so that the trace of what is missing is an error in
the trace norm.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Literal

import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.typing import ArrayLike

from linearize.choices import one_of
from linearize.fields import integer
from linearize.ntk.checks import widen
from linearize.ntk.matvec import Product, flat_product
from linearize.ntk.spectrum import symmetric_matrix

Columns = Callable[[np.ndarray], ArrayLike]
"""``columns(index: (b,) int) -> (M, b)``: columns of the kernel's matrix."""


@dataclass(frozen=True, eq=False)
class Nystrom:
    """A low-rank approximation U Λ Uᵀ."""

    values: np.ndarray
    """(r,), float64, descending, ≥ 0; r is below the rank asked for where K's own rank is."""
    vectors: np.ndarray
    """(M, r) or (N, C, r), orthonormal."""
    pivots: np.ndarray | None
    """(r,): the columns used, in order; ``None`` for a random sketch."""
    error: float | None
    """tr(K − U Λ Uᵀ) / tr K, exact; ``None`` for a sketch, whose kernel's trace is unknown."""

    def product(self, v: ArrayLike) -> np.ndarray:
        """U Λ Uᵀ v, of ``v``'s shape."""
        flat, basis = np.asarray(v, np.float64).ravel(), self._basis
        return (basis @ (self.values * (basis.T @ flat))).reshape(np.shape(v))

    def precondition(self, v: ArrayLike, ridge: float) -> np.ndarray:
        """P⁻¹ v, with P⁻¹ = (λ_r + ridge) U (Λ + ridge)⁻¹ Uᵀ + I − U Uᵀ.

        (Frangella, Tropp & Udell 2023, eq. 1.3.)
        """
        flat, basis = np.asarray(v, np.float64).ravel(), self._basis
        scales = (self.values[-1] + ridge) / (self.values + ridge)
        return (flat + basis @ ((scales - 1) * (basis.T @ flat))).reshape(np.shape(v))

    @property
    def _basis(self) -> np.ndarray:
        return self.vectors.reshape(-1, len(self.values))


def nystrom(
    kernel: ArrayLike | Columns,
    rank: int,
    *,
    diagonal: ArrayLike | None = None,
    pivoting: Literal["random", "greedy", "uniform"] = "random",
    seed: int = 0,
) -> Nystrom:
    """The Nyström approximation from ``rank`` columns, by partial Cholesky factorisation.

    Args:
        kernel: (N, N), "full" (N, N, C, C), or a function that gives columns of the matrix; each
            is asked for once.
        rank: columns to use, 1 to M.
        diagonal: (M,) the matrix's diagonal; needed with a function, from which the error comes.
        pivoting: the next column is drawn in proportion to the diagonal still missing
            (``"random"``: randomly pivoted Cholesky, Chen et al. 2022), is its largest
            (``"greedy"``), or is any (``"uniform"``).
        seed: of the draw.

    Returns:
        The approximation; it stops short of ``rank`` where nothing is missing beyond rounding.

    Raises:
        ValueError: ``rank`` out of range; no diagonal with a function; a diagonal that does not
            belong to the columns; a kernel that is not positive semi-definite, not symmetric or
            zero.

    >>> kernel = np.outer([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]) + np.diag([0.0, 0.0, 1.0])
    >>> round(nystrom(kernel, 1, pivoting="greedy").error, 6)  # 0.1 + 0.4 of a trace of 15
    0.033333
    """
    one_of("pivoting", pivoting, ("random", "greedy", "uniform"))
    columns, diag, shape = _parts(kernel, diagonal)
    size = len(diag)
    if not 1 <= integer("rank", rank) <= size:
        raise ValueError(f"rank={rank}; this kernel has {size} columns: choose 1 to {size}")
    rng = np.random.default_rng(seed)
    precision = np.asarray(kernel if diagonal is None else diagonal).dtype
    eps = jnp.finfo(precision if jnp.issubdtype(precision, jnp.floating) else np.float64).eps
    floor = 10 * float(eps) * diag.max()
    missing = diag.copy()
    pivots: list[int] = []
    factor = np.zeros((size, rank))
    for j in range(rank):
        open_ = missing > floor
        if not open_.any():
            break
        weights = open_ if pivoting == "uniform" else np.where(open_, missing, 0.0)
        pivot = (
            int(missing.argmax())
            if pivoting == "greedy"
            else int(rng.choice(size, p=weights / weights.sum()))
        )
        column = _column(columns, pivot, diag) - factor[:, :j] @ factor[pivot, :j]
        factor[:, j] = column / np.sqrt(missing[pivot])
        factor[pivots, j] = 0
        missing -= factor[:, j] ** 2
        pivots.append(pivot)
        missing[pivots] = 0
        if missing.min() < -max(1e-6 * diag.max(), floor):
            raise ValueError(
                f"kernel is not positive semi-definite: {missing.min():.3g} is left of entry "
                f"{int(missing.argmin())} of its diagonal after {j + 1} columns"
            )
    left, singular, _ = scipy.linalg.svd(factor[:, : len(pivots)], full_matrices=False)
    error = float(np.maximum(missing, 0).sum() / diag.sum())
    vectors = left.reshape(*shape, len(pivots))
    return Nystrom(singular**2, vectors, np.array(pivots), error)


def _parts(
    kernel: ArrayLike | Columns, diagonal: ArrayLike | None
) -> tuple[Columns, np.ndarray, tuple[int, ...]]:
    if not callable(kernel):
        matrix = symmetric_matrix(kernel)
        diag, shape = np.diag(matrix), np.shape(kernel)[::2]
        columns: Columns = lambda index: matrix[:, index]  # noqa: E731
    elif diagonal is None:
        raise ValueError("diagonal is needed where the kernel is a function of columns")
    else:
        columns, diag = kernel, widen("diagonal", diagonal)
        shape = diag.shape
        if diag.ndim != 1:
            raise ValueError(f"diagonal has shape {diag.shape}; expected (M,)")
    if diag.min() < 0 or not diag.sum() > 0:
        raise ValueError(
            f"the kernel's diagonal spans {diag.min():.3g} to {diag.max():.3g}; "
            "a positive semi-definite kernel has none below 0, and some above"
        )
    return columns, diag, shape


def _column(columns: Columns, pivot: int, diag: np.ndarray) -> np.ndarray:
    column = np.asarray(columns(np.array([pivot])), np.float64)
    if column.shape != (len(diag), 1):
        raise ValueError(
            f"columns gives shape {column.shape} for one index; expected ({len(diag)}, 1)"
        )
    column = column[:, 0]
    if not abs(column[pivot] - diag[pivot]) <= 1e-3 * diag[pivot]:
        raise ValueError(
            f"column {pivot} holds {column[pivot]:.6g} on the diagonal, and diagonal "
            f"{diag[pivot]:.6g}; give the diagonal of the same matrix, in the order n·C + c"
        )
    return column


def randomized_nystrom(
    matvec: Product, shape: tuple[int, ...], rank: int, *, seed: int = 0
) -> Nystrom:
    """The Nyström approximation along ``rank`` random directions, from as many products.

    Args:
        matvec: the product with a symmetric positive semi-definite kernel.
        shape: of its argument, (N, C) or (N,).
        rank: directions, 1 to N·C.
        seed: of the directions.

    Raises:
        ValueError: ``rank`` out of range; products that are not finite or of another shape; a
            kernel that is not positive semi-definite.

    Frangella, Tropp & Udell 2023, algorithm 2.1. Expected error in the spectral norm: that of the
    best approximation of a somewhat lower rank, times a constant (their theorem 2.2).

    >>> low_rank = randomized_nystrom(lambda v: v.sum() + 0 * v, (3,), rank=1)
    >>> low_rank.values.round(6)
    array([3.])
    """
    size = prod(shape)
    if not 1 <= integer("rank", rank) <= size:
        raise ValueError(f"rank={rank}; this kernel has {size} dimensions: choose 1 to {size}")
    product = flat_product(matvec, shape)
    sketch = scipy.linalg.qr(
        np.random.default_rng(seed).normal(size=(size, rank)), mode="economic"
    )[0]
    images = np.stack([product(v) for v in sketch.T], axis=1)
    scale = float(np.linalg.norm(images))
    # products in float32 leave the small matrix indefinite by their own rounding
    for eps in (np.finfo(np.float64).eps, np.finfo(np.float32).eps):
        shift = np.sqrt(size) * float(eps) * max(scale, np.finfo(np.float64).tiny)
        shifted = images + shift * sketch
        small = sketch.T @ shifted
        try:
            lower = scipy.linalg.cholesky((small + small.T) / 2, lower=True)
        except scipy.linalg.LinAlgError:
            continue
        half = scipy.linalg.solve_triangular(lower, shifted.T, lower=True).T
        left, singular, _ = scipy.linalg.svd(half, full_matrices=False)
        values = np.maximum(singular**2 - shift, 0)
        return Nystrom(values, left.reshape(*shape, rank), None, None)
    smallest = float(scipy.linalg.eigvalsh((small + small.T) / 2)[0])
    raise ValueError(
        f"kernel is not positive semi-definite: smallest eigenvalue {smallest:.3g} along {rank} "
        f"random directions; add a ridge above {-smallest:.3g}"
    )

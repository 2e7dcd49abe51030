"""Spectra and solutions from products K v alone, for kernels too large to hold.

A product is any function of one array: :func:`linearize.ntk.vector_product`'s, or
``lambda v: kernel @ v``. It is called with float64 NumPy arrays of the shape in hand, (N, C) or
(N,), and answers with the same shape in any precision; the iterations run in float64 on the host.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import scipy.sparse.linalg as sparse
from jax.typing import ArrayLike

from linearize.fields import integer
from linearize.ntk.checks import NotConvergedError, nonnegative, widen
from linearize.ntk.matvec import Product, check_symmetric, flat_product
from linearize.ntk.nystrom import Nystrom, randomized_nystrom
from linearize.ntk.spectrum import Eigenpairs, sorted_pairs


@dataclass(frozen=True, eq=False)
class Solution:
    """What conjugate gradients found."""

    x: np.ndarray
    """The solution, of the right-hand side's shape, float64."""
    residual: float
    """‖b − (K + ridge) x‖ / ‖b‖, computed anew from x."""
    steps: int
    """Iterations, a product each."""


def lanczos(
    matvec: Product,
    shape: tuple[int, ...],
    k: int,
    *,
    tolerance: float = 1e-8,
    max_restarts: int | None = None,
    seed: int = 0,
) -> Eigenpairs:
    """The k largest eigenpairs by implicitly restarted Lanczos (ARPACK).

    Args:
        matvec: the product with a symmetric kernel, see the module.
        shape: of its argument, (N, C) or (N,).
        k: how many, below N·C.
        tolerance: relative accuracy of the eigenvalues; 0 for that of float64.
        max_restarts: 10·N·C by default.
        seed: of the start vector.

    Returns:
        The pairs, vectors in ``shape`` with k last; ``residuals`` cost k more products.

    Raises:
        ValueError: ``k`` out of range; products that are not finite, of another shape or not
            symmetric.
        NotConvergedError: no convergence within ``max_restarts``.

    >>> pairs = lanczos(lambda v: np.diag([1.0, 5.0, 3.0]) @ v, (3,), k=2)
    >>> pairs.values.round(6)
    array([5., 3.])
    """
    size = prod(shape)
    if not 1 <= integer("k", k) < size:
        raise ValueError(
            f"k={k}; Lanczos finds 1 to {size - 1} of {size} eigenpairs, and eigenpairs() all of a "
            "dense kernel"
        )
    product, rng = flat_product(matvec, shape), np.random.default_rng(seed)
    check_symmetric(product, size, rng)
    operator = sparse.LinearOperator((size, size), matvec=product, dtype=np.float64)
    try:
        values, vectors = sparse.eigsh(
            operator,
            k,
            which="LA",
            v0=rng.normal(size=size),
            tol=tolerance,
            maxiter=max_restarts,
        )
    except sparse.ArpackNoConvergence as error:
        raise NotConvergedError(
            f"Lanczos found {len(error.eigenvalues)} of {k} eigenpairs to tolerance={tolerance}; "
            "raise the tolerance or max_restarts"
        ) from error
    images = np.stack([product(v) for v in vectors.T], axis=1)
    return sorted_pairs(values, vectors, images, shape)


def conjugate_gradient(
    matvec: Product,
    b: ArrayLike,
    *,
    ridge: float = 0.0,
    preconditioner: Nystrom | int | None = None,
    tolerance: float = 1e-5,
    max_steps: int | None = None,
    seed: int = 0,
    callback: Callable[[int], None] | None = None,
) -> Solution:
    """Solve (K + ridge I) x = b for a symmetric positive (semi-)definite kernel.

    Args:
        matvec: the product K v, see the module.
        b: (N, C) or (N,).
        ridge: added to the diagonal, ≥ 0.
        preconditioner: a Nyström approximation of K, or the rank of one to build here with that
            many products (Frangella, Tropp & Udell 2023); none by default.
        tolerance: on ‖residual‖ / ‖b‖. Products in float32 do not carry it below some 1e-7 × the
            condition number.
        max_steps: 10·N·C by default.
        seed: of the preconditioner built here.
        callback: called with each step's number.

    Raises:
        ValueError: a negative or infinite ridge, a tolerance that is not positive; products as in
            :func:`lanczos`; a kernel that shows negative or zero curvature.
        NotConvergedError: after ``max_steps``, or because the products are too coarse.

    >>> conjugate_gradient(lambda v: 2 * v, [2.0, 4.0]).x
    array([1., 2.])
    """
    right, ridge = widen("b", b), nonnegative("ridge", ridge)
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}; expected a positive number, such as 1e-5")
    shape, size = right.shape, right.size
    product = flat_product(matvec, shape)
    check_symmetric(product, size, np.random.default_rng(seed))
    if isinstance(preconditioner, int):
        preconditioner = randomized_nystrom(matvec, shape, preconditioner, seed=seed)

    def shifted(v: np.ndarray) -> np.ndarray:
        return product(v) + ridge * v

    def curved(v: np.ndarray) -> np.ndarray:
        image = shifted(v)
        curvature = v @ image / (v @ v)
        if curvature <= 0:
            raise ValueError(
                f"kernel + ridge is not positive definite: curvature {curvature:.3g} along a "
                f"search direction with ridge={ridge:.3g}; add a ridge above {-curvature:.3g}, at "
                "least 1e-6 of the largest eigenvalue for products in float32"
            )
        return image

    steps = 0

    def count(_: np.ndarray) -> None:
        nonlocal steps
        steps += 1
        if callback is not None:
            callback(steps)

    found, info = sparse.cg(
        sparse.LinearOperator((size, size), matvec=curved, dtype=np.float64),
        right.ravel(),
        rtol=tolerance,
        atol=0.0,
        maxiter=max_steps,
        M=None if preconditioner is None else _inverse(preconditioner, ridge, size),
        callback=count,
    )
    norm = float(np.linalg.norm(right))
    residual = float(np.linalg.norm(right.ravel() - shifted(found))) / norm if norm else 0.0
    solution = Solution(found.reshape(shape), residual, steps)
    if info:
        raise NotConvergedError(
            f"residual {residual:.3g} after {steps} steps, above tolerance={tolerance}; raise "
            "max_steps, the preconditioner's rank or the ridge",
            solution,
        )
    if residual > 10 * tolerance:
        raise NotConvergedError(
            f"residual {residual:.3g} after {steps} steps that believed in tolerance={tolerance}: "
            "the products are too coarse; widen their precision, or raise tolerance or ridge",
            solution,
        )
    return solution


def _inverse(low_rank: Nystrom, ridge: float, size: int) -> sparse.LinearOperator:
    if prod(low_rank.vectors.shape[:-1]) != size:
        raise ValueError(
            f"preconditioner approximates a kernel of {low_rank.vectors.shape[:-1]} points and "
            f"outputs; b has {size} entries"
        )
    return sparse.LinearOperator(
        (size, size),
        matvec=lambda v: low_rank.precondition(v, ridge),
        dtype=np.float64,
    )

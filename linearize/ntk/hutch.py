"""Trace, Frobenius norm, effective rank and alignment of kernels too large to hold, with errors.

For any Q of orthonormal columns and P = I − Q Qᵀ, tr M = tr(Qᵀ M Q) + E zᵀ P M P z over random
signs z. Hutch++ (Meyer, Musco, Musco & Woodruff 2021, *Hutch++: Optimal Stochastic Trace
Estimation*, Algorithm 1) takes Q = orth(K S) of random signs S: what is random is then the trace of
the rest alone, which is small where eigenvalues fall off. Without a sketch, Q is empty and that is
Hutchinson's estimate (1989). With M = AᵀB the same products give ⟨A, B⟩ = tr AᵀB, and ‖A‖².

Given Q, every estimate is a function of means over independent probes: its standard error is the
jackknife's (Efron & Stein 1981), exact for a mean. Samples are quadratic in z, so an eigenvalue far
above the others makes them far from normal, and intervals of few probes too short: a sketch takes
it out. All sums are in float64 on the host.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np

from linearize.fields import integer
from linearize.ntk.checks import NEGATIVE
from linearize.ntk.matvec import Product, check_symmetric, flat_product
from linearize.ntk.stochastic import Estimate, signs, tridiagonal

_NOTHING = 1e-14
"""What rounding leaves of a kernel that centring takes away."""

_Flat = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Moments:
    """What the sum of a kernel's eigenvalues and that of their squares say."""

    trace: Estimate
    """tr K."""
    frobenius: Estimate
    """‖K‖, the root of an unbiased estimate of ‖K‖²."""
    participation_ratio: Estimate
    """(tr K)² / ‖K‖², how many eigenvalues carry the trace
    (:func:`linearize.ntk.participation_ratio`)."""


def moments(
    matvec: Product, shape: tuple[int, ...], *, probes: int = 32, sketch: int = 16, seed: int = 0
) -> Moments:
    """Estimate trace, Frobenius norm and participation ratio of a symmetric kernel.

    Args:
        matvec: the product with the kernel; called 2 · sketch + probes + 2 times.
        shape: of its argument, (N, C) or (N,).
        probes: random sign vectors, 2 or more.
        sketch: columns of Q, 0 for Hutchinson's estimate; with the kernel's rank or more, what is
            estimated is exact.
        seed: of the signs.

    Raises:
        ValueError: fewer than two probes, a sketch below 0; products that are not finite, of
            another shape or not symmetric; a kernel that is zero.

    >>> found = moments(lambda v: 3 * v, (4, 2))
    >>> round(found.trace.value, 9), round(found.participation_ratio.value, 9)
    (24.0, 8.0)
    """
    size, product = prod(shape), flat_product(matvec, shape)
    rng = np.random.default_rng(seed)
    check_symmetric(product, size, rng)
    q = _range([product], size, sketch, rng)
    rest = _rest(q, signs(size, probes, rng))
    inner, outer = _images(product, q), _images(product, rest)
    known = np.array([np.vdot(q, inner), np.vdot(inner, inner)])
    drawn = np.stack([(rest * outer).sum(1), (outer**2).sum(1)], axis=1)
    if not (known + drawn.mean(0))[1] > 0:
        raise ValueError("the kernel is zero on all probes: its spectrum has no shape")
    return Moments(
        _jackknife(lambda m: m[..., 0], known, drawn),
        _jackknife(lambda m: np.sqrt(m[..., 1]), known, drawn),
        _jackknife(lambda m: m[..., 0] ** 2 / m[..., 1], known, drawn),
    )


def alignment_estimate(
    matvec_a: Product,
    matvec_b: Product,
    shape: tuple[int, ...],
    *,
    centered: bool = True,
    probes: int = 32,
    sketch: int = 16,
    seed: int = 0,
) -> Estimate:
    """Estimate ⟨A, B⟩ / (‖A‖ ‖B‖) of two kernels (:func:`linearize.ntk.alignment`).

    Targets Y (N, C) are the kernel ``lambda v: Y @ (Y.T @ v)`` beside a trace kernel, and
    ``lambda v: Y * np.vdot(Y, v)`` beside a full one; with 2 · C columns or more of a sketch its
    part is exact.

    Args:
        matvec_a: the product with a symmetric kernel; called 1.5 · sketch + probes + 3 times.
        matvec_b: that with another, likewise.
        shape: of their argument, (N, C) or (N,).
        centered: subtract the points' mean from the features of each output first.
        probes: random sign vectors, 2 or more, the same for both.
        sketch: columns of Q, half of them of each kernel; 0 for Hutchinson's estimate.
        seed: of the signs.

    Returns:
        The estimate, at most 1.

    Raises:
        ValueError: as :func:`moments`, of either kernel.

    >>> found = alignment_estimate(lambda v: 2 * v, lambda v: 3 * v, (5,))
    >>> round(found.value, 9)
    1.0
    """
    size, rng = prod(shape), np.random.default_rng(seed)
    products = [flat_product(f, shape) for f in (matvec_a, matvec_b)]
    for product in products:
        check_symmetric(product, size, rng)
    z = signs(size, probes, rng)
    before = np.array([np.linalg.norm(product(z[0])) for product in products])
    if centered:
        products = [_centred(product, shape) for product in products]
    q = _range(products, size, sketch, rng)
    rest = _rest(q, z)
    (a, b), (c, d) = ([_images(f, x) for f in products] for x in (q, rest))
    pairs = ((a, b, c, d), (a, a, c, c), (b, b, d, d))
    known = np.array([np.vdot(x, y) for x, y, _, _ in pairs])
    drawn = np.stack([(x * y).sum(1) for _, _, x, y in pairs], axis=1)
    if (np.sqrt((known + drawn.mean(0))[1:]) <= _NOTHING * before).any():
        raise ValueError(
            f"a kernel is zero{', once centred' if centered else ''}: it has no direction to align"
        )
    return _jackknife(lambda m: m[..., 0] / np.sqrt(m[..., 1] * m[..., 2]), known, drawn)


def rank_estimate(
    matvec: Product,
    shape: tuple[int, ...],
    *,
    probes: int = 32,
    steps: int = 32,
    seed: int = 0,
) -> Estimate:
    """Estimate exp(−Σ p log p), p = λ / tr K (:func:`linearize.ntk.effective_rank`).

    log(tr K) − tr(K log K) / tr K by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017, §3),
    both traces from the same probes. Gauss quadrature of x log x lies below, so that few steps
    overestimate the rank; with N·C steps, or one for each distinct eigenvalue, it is exact.

    Args:
        matvec: the product with a symmetric positive semi-definite kernel.
        shape: of its argument, (N, C) or (N,).
        probes: random sign vectors, 2 or more.
        steps: Lanczos steps for each, a product each.
        seed: of the signs.

    Raises:
        ValueError: fewer than two probes, no step; products that are not finite, of another shape
            or not symmetric; a kernel that is zero, or has a negative eigenvalue.

    >>> round(rank_estimate(lambda v: np.float64([2, 2, 0]) * v, (3,)).value, 9)
    2.0
    """
    size, product = prod(shape), flat_product(matvec, shape)
    rng = np.random.default_rng(seed)
    check_symmetric(product, size, rng)
    integer("steps", steps, low=1)
    drawn = []
    for z in signs(size, probes, rng):
        diagonal, off = tridiagonal(product, z, min(steps, size))
        nodes, vectors = np.linalg.eigh(
            np.diag(diagonal) + np.diag(off[:-1], 1) + np.diag(off[:-1], -1)
        )
        if nodes[0] < -NEGATIVE * max(nodes[-1], 0) or nodes[-1] < 0:
            raise ValueError(
                f"matvec has a negative eigenvalue, {nodes[0]:.3g} at most; the effective rank is "
                "of a positive semi-definite kernel"
            )
        weights, kept = size * vectors[0] ** 2, np.maximum(nodes, 0)
        logs = np.log(kept, out=np.zeros_like(kept), where=kept > 0)
        drawn.append([weights @ kept, weights @ (kept * logs)])
    table = np.array(drawn)
    if not table[:, 0].any():
        raise ValueError("the kernel is zero on all probes: its spectrum has no shape")
    return _jackknife(lambda m: m[..., 0] * np.exp(-m[..., 1] / m[..., 0]), np.zeros(2), table)


def _range(products: list[_Flat], size: int, columns: int, rng: np.random.Generator) -> np.ndarray:
    """An orthonormal basis, as rows (k, M), of what kernels make of random signs."""
    count = integer("sketch", columns, low=0)
    shares = np.array_split(rng.choice([-1.0, 1.0], size=(min(count, size), size)), len(products))
    images = np.concatenate([_images(f, s) for f, s in zip(products, shares, strict=True)])
    return np.linalg.qr(images.T)[0].T


def _images(product: _Flat, rows: np.ndarray) -> np.ndarray:
    return np.array([product(row) for row in rows]).reshape(rows.shape)


def _rest(q: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows without their parts in the rows of Q, taken twice against rounding."""
    for _ in range(2):
        rows = rows - (rows @ q.T) @ q
    return rows


def _centred(product: _Flat, shape: tuple[int, ...]) -> _Flat:
    """H K H, H = I − 11ᵀ/N over the points."""

    def without_mean(v: np.ndarray) -> np.ndarray:
        points = v.reshape(shape)
        return (points - points.mean(0)).ravel()

    return lambda v: without_mean(product(without_mean(v)))


def _jackknife(
    of: Callable[[np.ndarray], np.ndarray], known: np.ndarray, drawn: np.ndarray
) -> Estimate:
    """A function of what is known plus the mean over probes (n, m), and its standard error."""
    n, mean = len(drawn), drawn.mean(0)
    without = of(known + (n * mean - drawn) / (n - 1))
    error = np.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
    return Estimate(float(of(known + mean)), float(error), n)

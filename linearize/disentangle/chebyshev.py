"""Polynomial interpolation at Chebyshev points, by barycentric weights."""

import numpy as np


def nodes(low: float, high: float, m: int) -> np.ndarray:
    """The m Chebyshev points of the second kind on [low, high], both ends among them; float64.

    >>> nodes(0.0, 2.0, 3).round(12).tolist()
    [0.0, 1.0, 2.0]
    """
    x = -np.cos(np.pi * np.arange(m) / (m - 1))
    return low + (high - low) * (x + 1) / 2


def weights(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The matrix (len(at), len(x)) that takes values at the points ``x`` to values at ``at``.

    Exact for polynomials of degree below ``len(x)``. ``x`` are points from :func:`nodes`
    (Berrut and Trefethen, *Barycentric Lagrange Interpolation*, eq. 4.2 and 5.4).
    """
    w = (-1.0) ** np.arange(len(x))
    w[[0, -1]] /= 2
    gap = at[:, None] - x[None, :]
    hit = np.isclose(gap, 0, atol=1e-12 * max(1.0, np.abs(x).max()))
    terms = w[None, :] / np.where(hit, 1.0, gap)
    terms = np.where(hit.any(1, keepdims=True), hit, terms)
    return terms / terms.sum(1, keepdims=True)

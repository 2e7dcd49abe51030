"""Newton's method for convex objectives of exponential kind, in any coordinates."""

from collections.abc import Callable

import numpy as np

Derivatives = tuple[float, np.ndarray, np.ndarray]
"""Value, gradient (K,) and Hessian (K, K)."""

_DECREMENT = 1e-22
"""Squared Newton decrement, twice what is left to gain, at which the iteration stops."""
_ROUNDING = 1e-13
"""Below this it also stops when it no longer halves, and steps are taken without asking values."""
_REACH = 8.0
"""Change of a logit, beside another, that a first step makes at most; twice that, a second."""
_FLAT = 1e-14
"""Curvature, relative to the largest, below which directions count as this curved."""
_LEAST = 1e-100
"""Curvature below which there is none: all is flat, and only the gradient's sign is left."""


def newton(
    derivatives: Callable[[np.ndarray], Derivatives],
    reach: Callable[[np.ndarray], float],
    start: np.ndarray,
    max_iterations: int,
) -> tuple[np.ndarray, int]:
    """Newton steps, shortened where they reach far or do not lower the objective.

    Args:
        derivatives: of the objective, whose third derivative is at most its second times a bound.
        reach: the largest change that a step makes to one logit beside another.
        start: (K,).
        max_iterations: steps at most.

    Returns:
        The minimiser, and the number of steps. Where there is no minimum (separable examples), the
        point at which the objective is as near its infimum as float64 says.
    """
    at, last, limit = start, np.inf, _REACH
    value, gradient, hessian = derivatives(at)
    for iteration in range(max_iterations):
        step = newton_step(gradient, hessian)
        decrement = -float(gradient @ step)
        if decrement <= _DECREMENT or last / 2 <= decrement <= _ROUNDING:
            return at, iteration
        last, size = decrement, limit / max(reach(step), limit)
        limit *= 2
        found = derivatives(at + size * step)
        while decrement > _ROUNDING and not found[0] <= value - 1e-4 * size * decrement:
            size /= 2
            found = derivatives(at + size * step)
        at = at + size * step
        value, gradient, hessian = found
    return at, max_iterations


def newton_step(gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
    """``−H⁻¹ g``, finite where H is singular or its diagonal is of many sizes."""
    scale = np.sqrt(np.maximum(np.diag(hessian), _LEAST))
    values, vectors = np.linalg.eigh(hessian / scale / scale[:, None])
    floor = max(_FLAT * values.max(initial=0.0), np.sqrt(_LEAST))
    return -(vectors @ (vectors.T @ (gradient / scale) / np.maximum(values, floor))) / scale

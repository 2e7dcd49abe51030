"""How far to trust a measurement."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike
from scipy.special import ndtri, stdtrit


class Interval(NamedTuple):
    """An estimate with a two-sided confidence interval; arrays of one shape."""

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def binomial_interval(successes: ArrayLike, n: ArrayLike, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion, elementwise.

    Args:
        successes: number of successes, any shape; each in [0, n].
        n: number of trials, broadcast against ``successes``; each ≥ 1.
        level: two-sided confidence in (0, 1).

    Returns:
        The observed proportion with its bounds, float64.

    Raises:
        ValueError: ``n`` is below 1, ``successes`` outside [0, n], or ``level`` outside (0, 1).

    >>> low, high = binomial_interval(8, 10)[1:]
    >>> f"{low:.3f} {high:.3f}"
    '0.490 0.943'
    """
    _check_level(level)
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if (n < 1).any():
        raise ValueError(f"n={n.min():g}; a proportion needs at least one trial")
    if (k < 0).any() or (k > n).any():
        raise ValueError(f"successes={k}; expected numbers from 0 to n={n}")
    z = ndtri((1 + level) / 2)
    p = k / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    low = np.where(k == 0, 0.0, np.maximum(middle - half, 0.0))
    high = np.where(k == n, 1.0, np.minimum(middle + half, 1.0))
    return Interval(p, low, high)


def seed_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean over seeds with Student's t interval.

    Args:
        values: (S, ...), seeds first.
        level: two-sided confidence in (0, 1).

    Returns:
        Arrays of shape (...), float64; the bounds are NaN when S = 1, which says nothing of spread.

    Raises:
        ValueError: no seed, or ``level`` outside (0, 1).

    >>> mean, low, high = seed_interval([1.0, 2.0, 3.0])
    >>> f"{mean:.2f} {low:.2f} {high:.2f}"
    '2.00 -0.48 4.48'
    """
    _check_level(level)
    x = np.asarray(values, float)
    if x.ndim == 0 or len(x) == 0:
        raise ValueError(f"values has shape {x.shape}; expected one entry per seed on axis 0")
    mean = x.mean(0)
    if len(x) == 1:
        unknown = np.full_like(mean, np.nan)
        return Interval(mean, unknown, unknown)
    half = stdtrit(len(x) - 1, (1 + level) / 2) * x.std(0, ddof=1) / np.sqrt(len(x))
    return Interval(mean, mean - half, mean + half)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level={level}; a confidence level lies between 0 and 1, such as 0.95")

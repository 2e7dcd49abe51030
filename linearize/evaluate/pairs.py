"""Statistics over pairs of tasks, which share their tasks and so are not independent."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from linearize.evaluate.metrics import Interval

_FEWEST = 4


def rank_correlation(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Interval:
    """Spearman's rank correlation of two measures of ordered pairs, with an interval over tasks.

    All entries but the diagonals enter. Two symmetric matrices so give the correlation over
    unordered pairs. The interval is the delete-one jackknife's over tasks, each with all of its
    pairs, with Student's t of T − 1 degrees of freedom, cut to [-1, 1]; where pairs are in truth
    independent, it is too wide by √2 (Snijders and Borgatti 1999).

    Args:
        a: (T, T), a measure of the pair (row, column); the diagonal is ignored.
        b: (T, T), the other measure.
        level: two-sided confidence in (0, 1).

    Returns:
        Scalars; the bounds are NaN with fewer than 4 tasks, and all is NaN where a measure is
        constant.

    Raises:
        ValueError: matrices that are not square, of one shape and finite beside the diagonal, or
            of fewer than two tasks; ``level`` outside (0, 1).

    >>> distance = np.abs(np.arange(5.0)[:, None] - np.arange(5.0))
    >>> [round(float(x), 12) for x in rank_correlation(distance, distance**2)]
    [1.0, 1.0, 1.0]
    """
    if not 0 < level < 1:
        raise ValueError(f"level={level}; a confidence level lies between 0 and 1, such as 0.95")
    left, right = np.asarray(a, np.float64), np.asarray(b, np.float64)
    T = len(left) if left.ndim else 0
    if left.shape != (T, T) or right.shape != (T, T) or T < 2:
        raise ValueError(
            f"a has shape {left.shape} and b {right.shape}; expected (T, T) both, T >= 2"
        )
    off = ~np.eye(T, dtype=bool)
    for name, values in (("a", left), ("b", right)):
        if not np.isfinite(values[off]).all():
            raise ValueError(f"{name} holds NaN or infinity beside its diagonal")
    found = _spearman(left, right)
    if T < _FEWEST:
        return Interval(found, np.full_like(found, np.nan), np.full_like(found, np.nan))
    rest = [np.delete(np.arange(T), t) for t in range(T)]
    without = np.array([_spearman(left[np.ix_(r, r)], right[np.ix_(r, r)]) for r in rest])
    error = np.sqrt((T - 1) / T * ((without - without.mean()) ** 2).sum())
    half = stdtrit(T - 1, (1 + level) / 2) * error
    return Interval(found, np.maximum(found - half, -1.0), np.minimum(found + half, 1.0))


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    off = ~np.eye(len(a), dtype=bool)
    left, right = a[off], b[off]
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return np.asarray(np.nan)
    from scipy import stats  # a second, which only who asks for it should wait

    return np.asarray(stats.spearmanr(left, right).statistic)

"""Means over seeds with Student's t interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

LEVEL = 0.95

Bounds = tuple[float, float]
"""The least and the largest value that there is, in the units of what is drawn."""

SHARE: Bounds = (0.0, 100.0)
"""Of shares in %."""
POSITIVE: Bounds = (0.0, np.inf)
CORRELATION: Bounds = (-1.0, 1.0)
ANY: Bounds = (-np.inf, np.inf)


class Summary(NamedTuple):
    """Mean over axis 0 and half the width of its 95 % interval, NaN where there is one seed."""

    mean: NDArray[np.float64]
    half: NDArray[np.float64]

    def ends(self, bounds: Bounds) -> NDArray[np.float64]:
        """Where the interval begins and ends, (2, ...), within what values can be.

        >>> over_seeds([0.9, 1.0]).ends((0.0, 1.0)).round(3).tolist()
        [0.315, 1.0]
        """
        return np.clip([self.mean - self.half, self.mean + self.half], *bounds)


def over_seeds(values: ArrayLike) -> Summary:
    """Mean over axis 0 (seeds) and the half width t(0.975, S − 1) · s / √S.

    Args:
        values: shape (S, ...), S ≥ 1; a NaN in any seed makes that entry NaN.

    >>> over_seeds([0.4, 0.6]).mean.item(), round(over_seeds([0.4, 0.6]).half.item(), 4)
    (0.5, 1.2706)
    >>> over_seeds([0.4]).half.item()
    nan
    """
    array = np.asarray(values, np.float64)
    count = array.shape[0]
    with np.errstate(invalid="ignore"):  # an infinite value has a mean and no interval
        mean = array.mean(axis=0)
        if count < 2:
            return Summary(mean, np.full_like(mean, np.nan))
        quantile = stdtrit(count - 1, (1 + LEVEL) / 2)
        return Summary(mean, quantile * array.std(axis=0, ddof=1) / np.sqrt(count))


def seeds_phrase(seeds: Sequence[int]) -> str:
    """How the numbers came about, for captions.

    >>> seeds_phrase([0, 1, 2])
    'Mean ± 95 % t interval over 3 seeds.'
    """
    if len(seeds) == 1:
        return f"One seed ({seeds[0]}): no interval."
    return f"Mean ± 95 % t interval over {len(seeds)} seeds."


def mean_phrase(seeds: Sequence[int]) -> str:
    """The same where no interval is shown, to end a caption with; empty for one seed.

    >>> mean_phrase([0, 1, 2]), mean_phrase([0])
    (' Mean over 3 seeds.', '')
    """
    return "" if len(seeds) == 1 else f" Mean over {len(seeds)} seeds."

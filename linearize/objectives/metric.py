"""What a number says of a model: its name, which way is better, between which bounds."""

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from linearize.choices import one_of

_TIE = 1e-12


@dataclasses.dataclass(frozen=True)
class Metric:
    """A measure of a model on data, and all that searches, tables and figures ask of it.

    >>> PERPLEXITY.better, PERPLEXITY.gain([9.0, 12.0], 10.0).tolist()
    ('lower', [1.0, -2.0])
    """

    name: str
    """As tables call it, in lower case."""
    better: Literal["higher", "lower"] = "higher"
    low: float = -math.inf
    """The least value that there is; both bounds belong to the range."""
    high: float = math.inf
    percent: bool = False
    """Whether it is a share, which tables show in %."""

    def __post_init__(self) -> None:
        one_of("better", self.better, ("higher", "lower"))
        if not self.low < self.high:
            raise ValueError(
                f"{self.name}: low={self.low} and high={self.high}; expected low < high"
            )

    def described(self) -> dict[str, str | float | bool | None]:
        """Its fields, as JSON has them: a bound that there is not is None."""
        fields = dataclasses.asdict(self)
        return {k: None if v in (-math.inf, math.inf) else v for k, v in fields.items()}

    @property
    def sign(self) -> int:
        """1 where higher is better, −1 where lower is."""
        return 1 if self.better == "higher" else -1

    @property
    def has_ratio(self) -> bool:
        """Whether values may be divided: a metric below 0 knows no share of itself."""
        return self.low >= 0

    def gain(self, value: ArrayLike, other: ArrayLike) -> np.ndarray:
        """How much better ``value`` is than ``other``, in the metric's units; float64."""
        return self.sign * (np.asarray(value, np.float64) - np.asarray(other, np.float64))

    def check(self, argument: str, values: ArrayLike) -> np.ndarray:
        """Values as float64.

        Raises:
            ValueError: one is not finite or out of bounds.
        """
        array = np.asarray(values, np.float64)
        if not np.isfinite(array).all() or (array < self.low).any() or (array > self.high).any():
            raise ValueError(
                f"{argument} holds {array.tolist()}; {self.name} lies between {self.low:g} and "
                f"{self.high:g}"
            )
        return array

    def normalized(self, merged: ArrayLike, single: ArrayLike) -> np.ndarray:
        """Normalized ``merged``: 1 where it is as good as ``single``, less where it is worse.

        ``merged / single`` where higher is better (*Task Arithmetic in the Tangent Space*, §2),
        ``single / merged`` where lower is.

        Args:
            merged: (..., T) values of an edited model.
            single: (T,) values of each task's own fine-tuned model.

        Returns:
            (..., T), float64; may exceed 1.

        Raises:
            ValueError: shapes that do not fit, values out of bounds, a division by 0, or a metric
                that may be negative.
        """
        top, bottom = self._tables(merged, single)
        if not self.has_ratio:
            raise ValueError(f"{self.name} may be negative, so no share of it says anything")
        if self.sign < 0:
            top, bottom = np.broadcast_to(bottom, top.shape), top
        if (bottom == 0).any():
            task = int(np.argwhere(np.atleast_1d(bottom) == 0)[0, -1])
            of = f" of task {task}" if bottom.size > 1 else ""
            raise ValueError(
                f"the {'single-task' if self.sign > 0 else 'merged'} {self.name}{of} is 0: nothing "
                "can be divided by it; check its labels and head"
            )
        return top / bottom

    def score(self, merged: ArrayLike, single: ArrayLike) -> np.ndarray:
        """What a coefficient for several tasks is chosen by: :meth:`normalized`, where there is it.

        Of a metric that may be negative but has bounds, 1 + the gain over ``single`` as a share of
        its range, so that tasks of different metrics count alike.

        Raises:
            ValueError: as :meth:`normalized`; a metric without bounds.
        """
        if self.has_ratio:
            return self.normalized(merged, single)
        span = self.high - self.low
        if not math.isfinite(span):
            raise ValueError(
                f"{self.name} may be negative and has no bounds: nothing says how it counts beside "
                "another task's; give it bounds, or measure what is positive"
            )
        return 1 + self.gain(*self._tables(merged, single)) / span

    def _tables(self, merged: ArrayLike, single: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        top, bottom = self.check("merged", merged), self.check("single", single)
        if bottom.ndim != 1 or top.ndim == 0 or top.shape[-1] != len(bottom):
            raise ValueError(
                f"merged has shape {top.shape} and single {bottom.shape}; expected (..., T) and "
                "(T,)"
            )
        return top, bottom


@dataclasses.dataclass(frozen=True)
class Control:
    """How much worse an edit may make the control task: by a share or by so many units.

    >>> Control().floor(ACCURACY, 0.8).item(), Control(units=0.5).floor(PERPLEXITY, 12.0).item()
    (0.76, 12.5)
    """

    retained: float = 0.95
    """Share of the pre-trained value to keep, in [0, 1]: with perplexity and the like, at most
    1 / ``retained`` times it. Not looked at where ``units`` are given."""
    units: float | None = None
    """How far the metric may move to its worse side, in its own units ("perplexity + 0.5")."""

    def __post_init__(self) -> None:
        if not 0 <= self.retained <= 1:
            raise ValueError(
                f"retained={self.retained}; expected a share between 0 and 1, such as 0.95"
            )
        if self.units is not None and not 0 <= self.units < math.inf:
            raise ValueError(f"units={self.units}; expected a finite number, 0 or more")

    def floor(self, metric: Metric, pretrained: ArrayLike) -> np.ndarray:
        """The worst value that is allowed, of the control's metric before the edit.

        Raises:
            ValueError: a share of a metric that may be negative.
        """
        before = np.asarray(pretrained, np.float64)
        if self.units is not None:
            return before - metric.sign * self.units
        if not metric.has_ratio:
            raise ValueError(
                f"the control's {metric.name} may be negative, so that no share of it says "
                "anything; give the tolerance in units"
            )
        if metric.sign > 0:
            return before * self.retained
        return before / self.retained if self.retained else np.full_like(before, np.inf)

    def allows(self, metric: Metric, value: ArrayLike, pretrained: ArrayLike) -> np.ndarray:
        """Whether values keep what is to be kept; what lies on the floor does."""
        return metric.gain(value, self.floor(metric, pretrained)) >= -_TIE


ACCURACY = Metric("accuracy", "higher", 0.0, 1.0, percent=True)
PERPLEXITY = Metric("perplexity", "lower", 1.0)
SQUARED_ERROR = Metric("mean squared error", "lower", 0.0)

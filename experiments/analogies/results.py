"""What a run of ``experiments.analogies`` measures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from experiments.on_target import OnTarget
from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes


@dataclass(frozen=True)
class OnClass:
    """A vector's accuracy on a single class and on all but the four classes of its quadruple."""

    alpha: Annotated[Floats, Axes("S")]
    target: Annotated[Floats, Axes("S", upper=1.0)]
    control: Annotated[Floats, Axes("S", upper=1.0)]


@dataclass(frozen=True)
class Target:
    """One sub-population."""

    regimes: Mapping[str, Mapping[str, OnTarget]]
    """By regime and method."""
    curve: Mapping[str, Annotated[Floats, Axes("S", "E", upper=1.0)]] = field(default_factory=dict)
    """Accuracy by start and number of labelled examples; none without the non-linear regime."""


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    tasks: tuple[str, ...]
    """The styles."""
    classes: tuple[str, ...]
    halves: tuple[tuple[int, ...], ...]
    examples: Annotated[tuple[int, ...], Axes("E")]
    regimes: tuple[str, ...]
    methods: tuple[str, ...]
    king_methods: tuple[str, ...]
    subpopulations: Mapping[str, Target]
    kings: Mapping[str, Mapping[str, Mapping[str, OnClass]]]
    """By quadruple, regime and method."""

    def on_targets(self, regime: str, method: str, what: str, over: str | None = None) -> Floats:
        """Mean over sub-populations, (S,); minus that of another method where one is named.

        Raises:
            KeyError: there is none, or not that regime or method.
        """
        return _mean((t.regimes for t in self.subpopulations.values()), regime, method, what, over)

    def on_classes(self, regime: str, method: str, what: str, over: str | None = None) -> Floats:
        """The same over quadruples."""
        return _mean(self.kings.values(), regime, method, what, over)

    def curve(self, start: str) -> Floats:
        """Mean over sub-populations of the learning curves, (S, E).

        Raises:
            KeyError: there are none.
        """
        found = [target.curve[start] for target in self.subpopulations.values()]
        if not found:
            raise KeyError(start)
        return np.mean(found, 0)


def _mean(
    groups: Iterable[Mapping[str, Mapping[str, object]]],
    regime: str,
    method: str,
    what: str,
    over: str | None,
) -> Floats:
    found = [group[regime] for group in groups]
    if not found:
        raise KeyError(what)
    values = np.stack([getattr(each[method], what) for each in found])
    if over is not None:
        values = values - np.stack([getattr(each[over], what) for each in found])
    return values.mean(0)

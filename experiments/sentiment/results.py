"""What a run of ``experiments.sentiment`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from experiments.on_target import OnTarget
from linearize.report.compare.results import PairMap
from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes
from linearize.report.style import Look


@dataclass(frozen=True)
class Analogy:
    """One domain's sentiment from another's."""

    auxiliary: str
    target: str
    regimes: Mapping[str, Mapping[str, OnTarget]]
    """By regime and method."""


@dataclass(frozen=True)
class Perplexity:
    """Of a domain's test text, before and after language modelling of its training text."""

    before: Annotated[Floats, Axes("S")]
    after: Annotated[Floats, Axes("S")]


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    domains: tuple[str, ...]
    prompt: str
    words: tuple[str, ...]
    regimes: tuple[str, ...]
    labels: Mapping[str, str]
    """How regimes are called."""
    methods: tuple[str, ...]
    grids: Mapping[str, int]
    """By regime, how many values of each coefficient were tried."""
    tested: Mapping[str, int]
    """Test examples by domain."""
    analogies: tuple[Analogy, ...]
    perplexity: Mapping[str, Mapping[str, Perplexity]]
    """By regime and domain."""
    maps: tuple[PairMap, ...] = ()
    """Of language modelling, by pair and distance."""

    @property
    def look(self) -> Look:
        """Of the regimes."""
        return Look(self.labels)

    def each(self, regime: str, method: str, what: str, over: str | None = None) -> Floats:
        """Of every analogy, (P, S); minus that of another method where one is named.

        Raises:
            KeyError: there is not that regime or method.
        """
        rows = [analogy.regimes[regime] for analogy in self.analogies]
        values = np.stack([getattr(row[method], what) for row in rows])
        if over is not None:
            values = values - np.stack([getattr(row[over], what) for row in rows])
        return values

    def mean(self, regime: str, method: str, what: str, over: str | None = None) -> Floats:
        """The mean over analogies, (S,)."""
        return self.each(regime, method, what, over).mean(0)

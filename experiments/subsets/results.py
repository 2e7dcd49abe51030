"""What a run of ``experiments.subsets`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes, entries

OWN, ALL = "own", "all"
"""Tasks that a subset's model is measured on: the subset's own, or all."""


@dataclass(frozen=True)
class Regime:
    """One regime's subsets; S seeds, M subsets, T tasks."""

    single: Annotated[Floats, Axes("S", "T", upper=1.0)]
    """Accuracy of each task's own model, α = 1."""
    alpha: Annotated[Floats, Axes("S", "M")]
    """Chosen on validation data."""
    accuracy: Annotated[Floats, Axes("S", "M", "T", upper=1.0)]
    """At the chosen α."""
    fixed: Annotated[Floats, Axes("S", "M")]
    """Mean normalized accuracy over the subset's own tasks at the fixed α."""


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    config: Mapping[str, Any]
    tasks: Annotated[tuple[str, ...], Axes("T")]
    fixed: float
    subsets: Mapping[str, Annotated[tuple[tuple[int, ...], ...], Axes("M")]]
    """By regime, as task numbers."""
    grid: Mapping[str, tuple[float, ...]]
    """Coefficients tried, by regime."""
    regimes: Mapping[str, Regime] = entries("subsets")

    def means(self, regime: str, on: str, normalized: bool = True) -> Floats:
        """Mean accuracy of each subset, on its own tasks or on all, (S, M)."""
        found = self.regimes[regime]
        values = found.accuracy / found.single[:, None] if normalized else found.accuracy
        if on == ALL:
            return values.mean(-1)
        columns = [values[:, m, list(s)].mean(-1) for m, s in enumerate(self.subsets[regime])]
        return np.stack(columns, -1)

    def rows(self, regime: str, size: int) -> NDArray[np.intp]:
        """The subsets of one size."""
        return np.array([m for m, s in enumerate(self.subsets[regime]) if len(s) == size], np.intp)

    def by_size(self, regime: str, size: int, on: str) -> Floats:
        """Mean normalized accuracy of a size's subsets, (S,)."""
        return self.means(regime, on)[:, self.rows(regime, size)].mean(1)

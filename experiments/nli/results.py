"""What a run of ``experiments.nli`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes, entries


@dataclass(frozen=True)
class Donors:
    """A target's own model with one more vector added; S seeds."""

    alpha: Annotated[Floats, Axes("S")]
    """Of the donor that the target's validation examples choose; 0 of none."""
    chosen: Annotated[Floats, Axes("S")]
    """Its number among ``best``; −1 where none is better than no donor."""
    value: Annotated[Floats, Axes("S")]
    """The target's metric then."""
    best: Mapping[str, Annotated[Floats, Axes("S")]]
    """By donor, the target's metric at the α chosen for it."""


@dataclass(frozen=True)
class Regime:
    """One regime; S seeds, M subsets, T tasks. Values are each task's own metric, on test data."""

    single: Annotated[Floats, Axes("S", "T")]
    """Of each task's own model, α = 1."""
    alpha: Annotated[Floats, Axes("S", "M")]
    """Of each subset's sum, chosen on validation data of the subset's tasks."""
    own: Annotated[Floats, Axes("S", "M")]
    """Mean of the subset's own tasks there."""
    own_at_one: Annotated[Floats, Axes("S", "M")]
    """Of the sum, without a search."""
    whole: Annotated[Floats, Axes("S", "T")]
    """Each task in the sum of all, at its α."""
    whole_at_one: Annotated[Floats, Axes("S", "T")]
    donors: Mapping[str, Donors]
    """By target."""


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    tasks: Annotated[tuple[str, ...], Axes("T")]
    metrics: tuple[str, ...]
    """What each task is measured by."""
    classes: tuple[tuple[str, ...], ...]
    """Of each task; none where answers are not of classes."""
    read: str
    """How the model is read."""
    tested: tuple[int, ...]
    """Test examples of each task."""
    pretrained: Annotated[Floats, Axes("S", "T")]
    subsets: Mapping[str, Annotated[tuple[tuple[int, ...], ...], Axes("M")]]
    """By regime, as task numbers."""
    grids: Mapping[str, tuple[float, ...]]
    """Coefficients tried, by regime."""
    regimes: Mapping[str, Regime] = entries("subsets")

    def rows(self, regime: str, size: int) -> NDArray[np.intp]:
        """The subsets of one size."""
        return np.array([m for m, s in enumerate(self.subsets[regime]) if len(s) == size], np.intp)

    def own(self, regime: str, size: int, *, at_one: bool = False) -> Floats:
        """Mean metric of a size's subsets on their own tasks, (S,)."""
        found = self.regimes[regime]
        values = found.own_at_one if at_one else found.own
        return values[:, self.rows(regime, size)].mean(1)

    def gain(self, regime: str) -> Floats:
        """What the chosen donors add to the targets' own models, mean of targets, (S,)."""
        found = self.regimes[regime]
        values = np.stack([found.donors[task].value for task in self.tasks], -1)
        return (values - found.single).mean(-1)

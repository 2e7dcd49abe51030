"""What a run of ``experiments.ensembling`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes, Number, entries, key


@dataclass(frozen=True)
class Regime:
    """One regime's accuracies by merge, ``average`` and ``ensemble``, and their ``agreement``."""

    pairs: Mapping[str, Annotated[Floats, Axes("S", "T", "T", upper=1.0)]]
    """Seeds, the task measured on, the task merged with; the diagonal holds the single models."""
    every: Mapping[str, Annotated[Floats, Axes("S", "T", upper=1.0)]] = key("all")
    """Of the merges of all tasks."""

    def over_pairs(self, name: str, normalized: bool = False) -> Floats:
        """Mean over ordered pairs of different tasks, (S,)."""
        single = np.einsum("stt->st", self.pairs["average"])
        values = self.pairs[name] / single[..., None] if normalized else self.pairs[name]
        return off_diagonal(values).mean(-1)


@dataclass(frozen=True)
class Spearman:
    """Of means over seeds, with its 95 % interval over tasks."""

    mean: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class Relation:
    """Correlation over ordered pairs of the two merges' accuracies."""

    pearson: Annotated[Floats, Axes("S")]
    spearman: Spearman


@dataclass(frozen=True)
class Across:
    """One trained regime's vectors across seeds: tasks, vectors' seeds, heads' seeds."""

    cosine: Annotated[Floats, Axes("T", "S", "S")]
    single: Annotated[Floats, Axes("T", "S", "S", upper=1.0)]
    average: Annotated[Floats, Axes("T", "S", upper=1.0)]


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    config: Mapping[str, Any]
    tasks: Annotated[tuple[str, ...], Axes("T")]
    relation: Mapping[str, Relation]
    across: Mapping[str, Across] | None = None
    regimes: Mapping[str, Regime] = entries("relation")


def off_diagonal(values: Floats) -> Floats:
    """The ordered pairs of different tasks, (S, T, T) -> (S, T² − T)."""
    return values[:, ~np.eye(values.shape[-1], dtype=bool)]

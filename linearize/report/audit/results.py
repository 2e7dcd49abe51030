"""What an audit measured, as ``results.json`` has it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes
from linearize.report.stats import POSITIVE, over_seeds
from linearize.report.style import Look

Matrix = Annotated[Floats, Axes("S", "T", "T")]
"""Seeds, tasks whose examples are seen, tasks whose vector is added."""
ByLayer = Annotated[Floats, Axes("S", "T", "T", "L")]


class Cell(NamedTuple):
    """How far a vector moves a task's outputs, in units of that task's own vector."""

    task: str
    vector: str
    value: float
    low: float
    """Of its 95 % interval: over seeds, or over the examples of one seed; NaN where there is none.
    """
    high: float
    at: tuple[int, int]
    """Row and column."""


@dataclass(frozen=True, kw_only=True)
class Audited:
    """One set of vectors, each task's on each task's examples; L layers."""

    label: str
    view: str
    """In which ξ was measured."""
    parts: Annotated[tuple[str, ...], Axes("L", some=True)]
    """The layers."""
    examples: Annotated[Floats, Axes("S", "T")]
    moved: Matrix
    """√ E ‖J(x)τ‖²."""
    relative: Matrix
    """That, divided by the same of the task's own vector."""
    low: Matrix
    """Of the 95 % interval over examples."""
    high: Matrix
    layers: ByLayer
    """√ E ‖J_l(x)τ_l‖²."""
    shares: ByLayer
    """E ⟨J_lτ_l, Jτ⟩ / E ‖Jτ‖², which sum to 1."""
    xi: Matrix
    cosine: Matrix
    norm: Annotated[Floats, Axes("S", "T")]
    kronecker: Matrix | None = None
    """√ τᵀGτ with Kronecker factors, TAK's estimate of ``moved``."""
    kronecker_layers: ByLayer | None = None

    @property
    def bounds(self) -> tuple[Floats, Floats, Floats]:
        """Mean over seeds of ``relative`` and its interval, (T, T) each."""
        found = over_seeds(self.relative)
        if len(self.relative) == 1:
            return found.mean, self.low[0], self.high[0]
        low, high = found.ends(POSITIVE)
        return found.mean, low, high

    def cells(self, tasks: tuple[str, ...]) -> list[Cell]:
        """Every vector on every other task, the largest movement first; what is unknown is last."""
        mean, low, high = self.bounds
        found = [
            Cell(task, vector, float(mean[i, j]), float(low[i, j]), float(high[i, j]), (i, j))
            for i, task in enumerate(tasks)
            for j, vector in enumerate(tasks)
            if i != j
        ]
        return sorted(found, key=lambda cell: (np.isnan(cell.value), -cell.value))


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    tasks: Annotated[tuple[str, ...], Axes("T")]
    alpha: float
    """Of both vectors, at which ξ is."""
    split: str
    audited: Mapping[str, Audited]
    """By name of the method, or ``given``."""

    @property
    def look(self) -> Look:
        """Names and colours of the sets of vectors."""
        return Look({name: each.label for name, each in self.audited.items()})

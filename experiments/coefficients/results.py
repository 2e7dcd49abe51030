"""What a run of ``experiments.coefficients`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes, entries, key

Seeds = Annotated[Floats, Axes("S")]
Tasks = Annotated[Floats, Axes("S", "T")]

KINDS = ("shared", "task", "part", "task and part")
"""Which coefficients are free, beside the one α of the grid."""


@dataclass(frozen=True)
class Scores:
    """Of one split, through the true head."""

    cross_entropy: Tasks
    accuracy: Annotated[Floats, Axes("S", "T", upper=1.0)]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The α of the papers' protocol."""

    alpha: Seeds
    validation: Scores
    test: Scores

    @property
    def coefficients(self) -> Floats:
        """(S, 1), as of a :class:`Fit`."""
        return self.alpha[:, None]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The optimum through one head, as :class:`linearize.edit.Optimum` says it of each seed."""

    coefficients: Annotated[Floats, Axes("S", "K")]
    objective: Seeds
    gradient: Seeds | None = None
    curvature: Seeds | None = None
    gap: Seeds | None = None
    """Bound on the suboptimality in nats."""
    iterations: Annotated[tuple[int, ...], Axes("S")] | None = None
    attained: Annotated[tuple[bool, ...], Axes("S")] | None = None
    validation: Scores
    test: Scores


@dataclass(frozen=True)
class Fits:
    """Coefficients of one kind through both heads."""

    affine: Fit
    true: Fit
    """The best of the starts."""
    starts: Annotated[Floats, Axes("S", "?")]
    """Objectives that the starts ended in."""


@dataclass(frozen=True)
class Regime:
    """One regime's coefficients, of each kind that was fitted."""

    single: Annotated[Floats, Axes("S", "T", upper=1.0)]
    """Accuracy of each task's own model."""
    grid: Grid
    shared: Fits = key("fits/shared")
    task: Fits = key("fits/task")
    part: Fits | None = key("fits/part", default=None)
    task_and_part: Fits | None = key("fits/task and part", default=None)

    @property
    def fits(self) -> dict[str, Fits]:
        """Those that there are, by kind."""
        every = (self.shared, self.task, self.part, self.task_and_part)
        return {kind: found for kind, found in zip(KINDS, every, strict=True) if found is not None}


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    tasks: Annotated[tuple[str, ...], Axes("T")]
    parts: tuple[str, ...]
    split: tuple[str, ...]
    """Regimes in which coefficients by part were fitted."""
    regimes: Mapping[str, Regime] = entries("config/regimes")

    @property
    def fits(self) -> dict[tuple[str, str, str], Grid | Fit]:
        """By regime, kind and head; the grid's, found through no head, is filed under ``true``."""
        found: dict[tuple[str, str, str], Grid | Fit] = {}
        for name, regime in self.regimes.items():
            found[name, "grid", "true"] = regime.grid
            for kind, fits in regime.fits.items():
                found |= {(name, kind, "affine"): fits.affine, (name, kind, "true"): fits.true}
        return found

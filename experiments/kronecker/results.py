"""What a run of ``experiments.kronecker`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np

from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes, Number

Kind = Literal["pairs", "layers", "within"]
"""Over ordered pairs of tasks, of all layers together; over pairs and layers; over pairs, in each
layer by itself, mean of layers."""

ByLayer = Annotated[Floats, Axes("S", "X", "T", "T", "L")]
"""Seeds, steps, the task whose examples, the task whose vector, layers: mean ‖Jτ‖²."""


@dataclass(frozen=True)
class OverTasks:
    """A rank correlation of means over seeds, with its 95 % interval over tasks."""

    mean: Number
    low: Number
    high: Number


@dataclass(frozen=True)
class Method:
    """Of one method's vectors."""

    exact: ByLayer
    """Of each layer's displacement alone."""
    whole: Annotated[Floats, Axes("S", "X", "T", "T")]
    """Of all layers together, with what they do to each other's."""
    estimates: Mapping[str, ByLayer]
    """By number of probes: tr(B ΔWᵀ A ΔW)."""
    merged: Annotated[Floats, Axes("S", "X", "T")]
    """By vector: its form in (Σ B) ⊗ (mean A) of the other tasks, one probe."""
    over_tasks: OverTasks
    """At the last step, of whole pairs, with the fewest probes."""

    def pairs(self, values: Floats) -> Floats:
        """Ordered pairs of different tasks, (S, X, T, T, ...) -> (S, X, T² − T, ...)."""
        return values[:, :, ~np.eye(values.shape[2], dtype=bool)]

    @property
    def moves(self) -> np.ndarray:
        """Which layers the vectors move, (L,) bool; of frozen ones there is nothing to relate."""
        return np.asarray((self.exact != 0).any(axis=(0, 1, 2, 3)))

    def of_layers(self, values: Floats) -> Floats:
        """:meth:`pairs` of what is told by layer, those that move, (S, X, T² − T, L')."""
        return self.pairs(values)[..., self.moves]

    def estimate(self, probes: str | None = None) -> Floats:
        """(S, X, T, T, L); of the fewest probes by default."""
        return self.estimates[probes or next(iter(self.estimates))]

    def correlation(self, kind: Kind, *, ranks: bool, probes: str | None = None) -> Floats:
        """Of the logarithms, Pearson's or Spearman's, (S, X)."""
        estimate, exact = (self.of_layers(x) for x in (self.estimate(probes), self.exact))
        if kind == "pairs":
            return correlation(estimate.sum(-1), self.pairs(self.whole), ranks=ranks)
        if kind == "layers":
            flat = (*exact.shape[:2], -1)
            return correlation(estimate.reshape(flat), exact.reshape(flat), ranks=ranks)
        return correlation(*(x.swapaxes(2, 3) for x in (estimate, exact)), ranks=ranks).mean(-1)

    def log_ratio(self, probes: str | None = None) -> Floats:
        """log₂ of estimate ÷ exact of whole pairs, mean over pairs, (S, X)."""
        estimate = self.pairs(self.estimate(probes)).sum(-1)
        return np.log2(estimate / self.pairs(self.whole)).mean(-1)

    def log_layers(self) -> Floats:
        """log₂ of Σ ‖J_l τ_l‖² ÷ ‖Jτ‖², mean over pairs, (S, X): what layers do to each other."""
        return np.log2(self.pairs(self.exact).sum(-1) / self.pairs(self.whole)).mean(-1)

    def log_merged(self) -> Floats:
        """log₂ of the merged form ÷ the sum of the other tasks' own, mean over vectors, (S, X)."""
        estimate = self.estimate().sum(-1)
        own = np.einsum("sxtt->sxt", estimate)
        return np.log2(self.merged / (estimate.sum(2) - own)).mean(-1)


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    tasks: Annotated[tuple[str, ...], Axes("T")]
    layers: Annotated[tuple[str, ...], Axes("L")]
    factored: Annotated[tuple[bool, ...], Axes("L")]
    """Whether a layer has Kronecker factors; if not, a whole block."""
    along: Annotated[tuple[int, ...], Axes("X")]
    methods: Mapping[str, Method]


def correlation(a: Floats, b: Floats, *, ranks: bool) -> Floats:
    """Of positive numbers along the last axis: Pearson's of logarithms, or Spearman's.

    NaN where either is constant.

    >>> x = np.array([[1.0, 10.0, 100.0]])
    >>> correlation(x, 3 * x**2, ranks=False).round(6), correlation(x, -1 / x, ranks=True)
    (array([1.]), array([1.]))
    """
    if ranks:
        a, b = _ranks(a), _ranks(b)
    else:
        a, b = np.log(a), np.log(b)
    a, b = (x - x.mean(-1, keepdims=True) for x in (a, b))
    with np.errstate(invalid="ignore"):
        return (a * b).sum(-1) / np.sqrt((a**2).sum(-1) * (b**2).sum(-1))


def _ranks(values: Floats) -> Floats:
    """From 0, along the last axis; equal numbers share the mean of theirs."""
    other, own = values[..., None, :], values[..., :, None]
    return (other < own).sum(-1) + ((other == own).sum(-1) - 1) / 2

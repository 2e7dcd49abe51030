"""What a run of ``experiments.audit`` measures: audits, and what they are to predict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import numpy as np

from linearize.report.audit.results import Audited as Audited
from linearize.report.audit.results import Results as AuditResults
from linearize.report.node import Floats
from linearize.report.schema import Axes, Number

MEASURES = {
    "relative": "‖J(x)τ‖, in units of the own vector",
    "moved": "‖J(x)τ‖",
    "kronecker": "Kronecker estimate, in units of the own",
    "xi": "ξ at α = 1",
    "cosine": "cosine of the vectors",
    "norm": "‖τ‖, in units of the own vector",
}
"""What is held against the loss, in the order of the table; the first is the auditor's."""


@dataclass(frozen=True)
class Relation:
    """Spearman's ρ of a measure with the loss over ordered pairs of tasks.

    Of each seed, and of the means over seeds with its 95 % jackknife interval over tasks.
    """

    regime: str
    measure: str
    seeds: Annotated[Floats, Axes("S")]
    mean: Number
    low: Number
    high: Number


@dataclass(frozen=True, kw_only=True)
class Results(AuditResults):
    """All that the page shows."""

    accuracy: Mapping[str, Annotated[Floats, Axes("S", "T", "T", upper=1.0)]] = field(
        default_factory=dict
    )
    """By regime: on each task's test examples (row) with its own vector and another's (column) at
    α = 1; the diagonal holds its own alone."""
    relation: tuple[Relation, ...] = ()

    def loss(self, regime: str) -> Floats:
        """Of accuracy, by the vector that was added, (S, T, T); 0 on the diagonal."""
        found = self.accuracy[regime]
        return np.einsum("stt->st", found)[..., None] - found

    def measure(self, regime: str, name: str) -> Floats:
        """One of :data:`MEASURES`, (S, T, T)."""
        audited = self.audited[regime]
        if name == "norm":
            return audited.norm[:, None, :] / audited.norm[:, :, None]
        values = np.asarray(getattr(audited, name))
        if name == "kronecker":
            return values / np.einsum("stt->st", values)[..., None]
        return values

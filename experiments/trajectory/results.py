"""What a run of ``experiments.trajectory`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass

from experiments import curves
from linearize.report.schema import entries


@dataclass(frozen=True)
class Regime(curves.Regime):
    """One regime's measures by step."""

    cosine: curves.Along
    """To the final vector, mean of tasks."""


@dataclass(frozen=True, kw_only=True)
class Results(curves.Results):
    """Every measure by step."""

    regimes: Mapping[str, Regime] = entries("along")

"""Averaged weights against averaged logits."""

import dataclasses

from linearize.config.vectors import AnalysisConfig


@dataclasses.dataclass(frozen=True)
class EnsemblingConfig(AnalysisConfig):
    """Averaged weights against averaged logits, of pairs of tasks and of seeds."""

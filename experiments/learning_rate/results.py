"""What a run of ``experiments.learning_rate`` measures."""

from dataclasses import dataclass

from experiments import curves


@dataclass(frozen=True, kw_only=True)
class Results(curves.Results):
    """Every measure by learning rate."""

"""An audit of the vectors of some regimes, and the loss of accuracy that it is to predict."""

import dataclasses

from linearize.config.vectors import Regime, VectorsConfig
from linearize.fields import TwoOrMore


@dataclasses.dataclass(frozen=True)
class AuditConfig(VectorsConfig):
    """Every ordered pair of tasks: audited on validation examples, measured on test examples."""

    regimes: tuple[Regime, ...] = ("nonlinear", "linear")
    examples: TwoOrMore = 64
    """Validation examples of each task that the auditor looks at, at most."""

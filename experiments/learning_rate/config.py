"""Single-task and merged accuracy against the learning rate."""

import dataclasses
import itertools

from linearize.config.compare import CompareConfig
from linearize.config.files import ConfigError, require
from linearize.fields import Positive, check


@dataclasses.dataclass(frozen=True)
class LearningRateConfig:
    """Single-task and merged accuracy against the learning rate."""

    setting: CompareConfig = CompareConfig()
    """Its learning rates are replaced; all else of the recipes stays. What it compares beside the
    three regimes (methods, merges, baselines, maps, random weights) is not measured here."""
    nonlinear: tuple[Positive, ...] = (2e-6, 1e-5, 5e-5, 2e-4)
    """Learning rates of non-linear fine-tuning, ascending."""
    linear: tuple[Positive, ...] = (4e-6, 2e-5, 1e-4, 4e-4)
    """Learning rates of linear fine-tuning, ascending."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        for name in ("nonlinear", "linear"):
            values = getattr(self, name)
            rising = all(a < b for a, b in itertools.pairwise((0, *values)))
            require(len(values) > 1 and rising, name, values,
                    "give two positive rates or more, ascending")  # fmt: skip

    @property
    def seeds(self) -> tuple[int, ...]:
        """The setting's."""
        return self.setting.seeds

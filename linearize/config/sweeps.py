"""Analyses that train: effect of the learning rate, and task vectors along training."""

import dataclasses
import itertools

from linearize.config.compare import CompareConfig
from linearize.config.files import ConfigError, require
from linearize.fields import Count, Positive, check


@dataclasses.dataclass(frozen=True)
class LearningRateConfig:
    """Single-task and merged accuracy against the learning rate."""

    setting: CompareConfig = CompareConfig()
    """Its learning rates are replaced; all else of the recipes stays."""
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


@dataclasses.dataclass(frozen=True)
class TrajectoryConfig:
    """Task vectors after some of the steps: their direction, and what they merge to."""

    setting: CompareConfig = CompareConfig()
    steps: tuple[Count, ...] = (5, 10, 20, 40)
    """Steps after which vectors are kept, ascending; the last step is always measured."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        rising = all(a < b for a, b in itertools.pairwise((0, *self.steps)))
        require(bool(self.steps) and rising, "steps", self.steps,
                "give positive numbers, ascending")  # fmt: skip
        for name in ("nonlinear", "linear"):
            recipe = getattr(self.setting, name)
            if recipe.epochs is not None:
                raise ConfigError(f"setting.{name}.epochs={recipe.epochs}: give steps instead")
            require(
                self.steps[-1] < recipe.steps, "steps", self.steps,
                f"must end before setting.{name}.steps={recipe.steps}",
            )  # fmt: skip

    @property
    def seeds(self) -> tuple[int, ...]:
        """The setting's."""
        return self.setting.seeds

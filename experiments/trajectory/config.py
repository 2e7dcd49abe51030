"""Task vectors along training."""

import dataclasses
import itertools

from experiments.vectors import check_steps
from linearize.config.compare import CompareConfig
from linearize.config.files import ConfigError, require
from linearize.fields import Count, check


@dataclasses.dataclass(frozen=True)
class TrajectoryConfig:
    """Task vectors after some of the steps: their direction, and what they merge to."""

    setting: CompareConfig = CompareConfig()
    """Model, data, heads, recipes and ``edit``; what it compares beside the three regimes (methods,
    merges, baselines, maps, random weights) is not measured here."""
    steps: tuple[Count, ...] = (5, 10, 20, 40)
    """Steps after which vectors are kept, ascending; the last step is always measured."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        rising = all(a < b for a, b in itertools.pairwise((0, *self.steps)))
        require(bool(self.steps) and rising, "steps", self.steps,
                "give positive numbers, ascending")  # fmt: skip
        for name in ("nonlinear", "linear"):
            check_steps(self.setting, f"setting.{name}", getattr(self.setting, name), self.steps)

    @property
    def seeds(self) -> tuple[int, ...]:
        """The setting's."""
        return self.setting.seeds

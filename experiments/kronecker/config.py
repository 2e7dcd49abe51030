"""Kronecker factors beside exact derivatives."""

import dataclasses
import itertools

from linearize.config.compare import CompareConfig
from linearize.config.files import ConfigError, require
from linearize.fields import Count, check
from linearize.methods import METHODS


@dataclasses.dataclass(frozen=True)
class KroneckerConfig:
    """TAK's estimate of ‖Jτ‖² beside the exact one, by pair of tasks and layer, along training."""

    setting: CompareConfig = CompareConfig()
    methods: tuple[str, ...] = ("linear", "tak")
    """Whose vectors: trained without regard to the estimate, and against it."""
    steps: tuple[Count, ...] = (5, 10)
    """Steps after which vectors are kept, ascending; the last step is always measured."""
    examples: Count = 256
    """Training examples of a task that its card is made of."""
    probes: tuple[Count, ...] = (1, 8)
    """Gaussian probes an example; one is TAK's own."""
    exact: Count = 64
    """Test examples of a task on which ‖Jτ‖² is measured exactly."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        for name in self.methods:
            require(
                name in METHODS and METHODS[name].view == "tangent" and METHODS[name].of is None,
                "methods", name, "expected methods whose vectors are trained in the tangent space",
            )  # fmt: skip
        rising = all(a < b for a, b in itertools.pairwise((0, *self.steps)))
        require(bool(self.steps) and rising, "steps", self.steps,
                "give positive numbers, ascending")  # fmt: skip
        last = self.setting.linear.steps
        require(self.steps[-1] < last, "steps", self.steps,
                f"must end before setting.linear.steps={last}")  # fmt: skip
        more = all(a < b for a, b in itertools.pairwise(self.probes))
        require(bool(self.probes) and more, "probes", self.probes,
                "give one number at least, ascending")  # fmt: skip
        require(len(self.setting.data.tasks) > 1, "setting.data.tasks", self.setting.data.tasks,
                "name two tasks at least")  # fmt: skip

    @property
    def seeds(self) -> tuple[int, ...]:
        """The setting's."""
        return self.setting.seeds

    @property
    def along(self) -> tuple[int, ...]:
        """The steps that are measured."""
        return (*self.steps, self.setting.linear.steps)

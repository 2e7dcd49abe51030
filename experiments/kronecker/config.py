"""Kronecker factors beside exact derivatives."""

import dataclasses
import itertools

from experiments.vectors import check_steps
from linearize.config.compare import CompareConfig
from linearize.config.files import ConfigError, require
from linearize.fields import Count, check
from linearize.methods import METHODS
from linearize.methods.fine_tuning import fine_tune
from linearize.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class KroneckerConfig:
    """TAK's estimate of ‖Jτ‖² beside the exact one, by pair of tasks and layer, along training."""

    setting: CompareConfig = CompareConfig()
    """Model, data, heads, the linear recipe, and ``training`` and ``weights`` of methods; what else
    it compares (regimes, merges, baselines, maps, random weights) is not measured here."""
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
            row = METHODS.get(name)
            stepped = row is not None and getattr(row.train, "func", None) is fine_tune
            require(
                row is not None and row.view == "tangent" and stepped,
                "methods", name,
                "expected methods whose vectors are trained in the tangent space, step by step",
            )  # fmt: skip
        rising = all(a < b for a, b in itertools.pairwise((0, *self.steps)))
        require(bool(self.steps) and rising, "steps", self.steps,
                "give positive numbers, ascending")  # fmt: skip
        for name, recipe in self.recipes.items():
            check_steps(self.setting, name, recipe, self.steps)
            remedy = f"all train for setting.linear.steps={self.along[-1]}"
            require(recipe.steps == self.along[-1], f"{name}.steps", recipe.steps, remedy)
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
    def recipes(self) -> dict[str, TrainConfig]:
        """How the methods train, by option: as their regime does, or as the setting says."""
        own = {n: r for n, r in self.setting.training.items() if n in self.methods}
        return {"setting.linear": self.setting.linear} | {
            f"setting.training.{name}": recipe for name, recipe in own.items()
        }

    @property
    def along(self) -> tuple[int, ...]:
        """The steps that are measured."""
        return (*self.steps, self.setting.linear.steps)

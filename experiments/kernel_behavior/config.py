"""Kernel behaviour along a fine-tuning."""

import dataclasses
from typing import Literal

from linearize.config import HeadConfig, ModelConfig
from linearize.config.files import ConfigError, require
from linearize.fields import Count, Natural, Positive, TwoOrMore, check
from linearize.train import TrainConfig

Kernel = Literal["ntk", "signgd"]


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """Which tasks, with how many labelled examples."""

    tasks: tuple[str, ...] = ("mnist",)
    image_size: Count = 28
    shots: Count = 8
    """Training examples a class."""
    validation: Count = 100
    test: Count = 200
    seed: Natural = 0
    """Decides the splits; a run's own seeds draw the shots."""

    def __post_init__(self) -> None:
        check(self, "data.", ConfigError)
        require(len(self.tasks) >= 1, "data.tasks", self.tasks, "name a task")
        require(
            len(set(self.tasks)) == len(self.tasks), "data.tasks", self.tasks, "name each task once"
        )


@dataclasses.dataclass(frozen=True)
class KernelBehaviorConfig:
    """The kernel along non-linear fine-tunings, and what it predicts of them."""

    model: ModelConfig = ModelConfig()
    data: FewShotConfig = FewShotConfig()
    head: HeadConfig = HeadConfig(shots=8)
    sgd: TrainConfig = TrainConfig()
    """Fine-tuning by SGD, whose kernel is the NTK."""
    adam: TrainConfig = TrainConfig()
    """Fine-tuning by Adam, whose first steps are SignGD's."""
    measured_at: tuple[Count, ...] = (1, 2, 4, 8, 16, 32)
    """Optimizer steps after which the kernel is measured, besides the last."""
    points: TwoOrMore = 48
    """Training examples on which the kernel is followed."""
    kernels: tuple[Kernel, ...] = ("ntk", "signgd")
    """Kernels at θ0 whose solutions are held beside fine-tuning. SignGD's wants whole Jacobians,
    whose blocks are slow for models of millions of parameters."""
    l2: tuple[Positive, ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    """Weight decays of τ for the kernels' solutions, in units of the kernel's mean diagonal;
    validation data choose one."""
    seeds: tuple[Natural, ...] = (0,)
    """Each draws its own shots, head and data order; intervals are over them."""
    batch_size: Count = 256
    """Examples a call in evaluation."""
    memory: Count = 1 << 30
    """Bytes of derivatives that a kernel may hold at a time."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        require(len(self.seeds) >= 1, "seeds", self.seeds, "give at least one")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "name each once")
        require(
            len(set(self.kernels)) == len(self.kernels), "kernels", self.kernels, "name each once"
        )
        require(len(self.l2) >= 1, "l2", self.l2, "give at least one weight decay")
        require(
            self.head.shots <= self.data.shots,
            "head.shots",
            self.head.shots,
            f"the head is made from data.shots={self.data.shots} examples a class",
        )
        for name, recipe in self.recipes.items():
            try:
                recipe.total_steps(2 * self.data.shots)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from error
            late = [t for t in self.measured_at if not 0 < t <= recipe.steps]
            require(
                not late and recipe.epochs is None,
                "measured_at",
                self.measured_at,
                f"choose steps from 1 to {name}.steps={recipe.steps}, and leave epochs alone",
            )

    @property
    def recipes(self) -> dict[str, TrainConfig]:
        """The fine-tunings by name."""
        return {"sgd": self.sgd, "adam": self.adam}

    def steps(self, optimizer: str) -> list[int]:
        """The steps after which a fine-tuning is measured, its start and its end among them."""
        return sorted({0, *self.measured_at, self.recipes[optimizer].steps})

"""Localization of the kernel's eigenfunctions, and the disentanglement error beside it."""

import dataclasses
from typing import Literal

import numpy as np

from linearize.config.compare import MapConfig
from linearize.config.files import require, require_distinct, require_task
from linearize.config.vectors import Regime, VectorsConfig
from linearize.fields import Count, TwoOrMore

Initialization = Literal["pretrained", "random"]


@dataclasses.dataclass(frozen=True)
class LocalizationConfig(VectorsConfig):
    """Eigenfunctions of the kernel at θ0 on every two tasks' inputs, and these tasks' ξ.

    Every task is a target, with each other task as its control. The kernel is that of the logits of
    the target's head, in the trainable parameters; ``regimes`` are those in which ξ is measured.
    Each seed draws its own points and random weights too.
    """

    regimes: tuple[Regime, ...] = ("linear", "posthoc")
    points: TwoOrMore = 48
    """Test examples of each task on which the kernel lives."""
    output: Literal["trace", "full"] = "trace"
    """Scalar eigenfunctions that the logits share, or vector ones; the latter for small sizes."""
    shares: tuple[float, ...] = (1.0, 0.25)
    """Shares of the eigenfunctions, leading ones first, that are measured; figures show the
    first."""
    random_tasks: tuple[str, ...] = ()
    """Tasks whose kernels are also taken at random weights."""
    map: MapConfig = MapConfig(low=-1.0, high=1.0, points=9, n_eval=300)
    """Where ξ is measured, for all pairs; ``map.pairs`` are those whose spectra are drawn."""
    memory: Count = 4 * 1024**3
    """Bytes of derivatives that a kernel may hold at a time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.map.require_tasks(self.data.tasks)
        require(
            2 <= self.points <= (self.data.test or self.points), "points", self.points,
            f"give 2 to data.test={self.data.test} test examples a task",
        )  # fmt: skip
        good = bool(self.shares) and all(0 < s <= 1 for s in self.shares)
        require(good, "shares", self.shares, "give one share or more, each in (0, 1]")
        require_distinct("shares", self.shares)
        for task in self.random_tasks:
            require_task("random_tasks", task, self.data.tasks)
        require(
            len(self.random_tasks) != 1, "random_tasks", self.random_tasks,
            "a target needs a control: name none, or two or more",
        )  # fmt: skip
        require(
            np.isclose(self.map.alphas, 1, rtol=0, atol=1e-9).any(),
            "map", (self.map.low, self.map.high, self.map.points),
            "the grid must hold α = 1, where ξ is measured too",
        )  # fmt: skip

    def tasks_at(self, initialization: Initialization) -> tuple[str, ...]:
        """The tasks whose kernels are taken there, in the order of ``data.tasks``."""
        if initialization == "pretrained":
            return self.data.tasks
        return tuple(task for task in self.data.tasks if task in self.random_tasks)

    def at(self, initialization: Initialization) -> "LocalizationConfig":
        """The same, with pre-trained or random weights."""
        if initialization == "pretrained":
            return self
        return dataclasses.replace(self, model=dataclasses.replace(self.model, pretrained=False))

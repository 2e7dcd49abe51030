"""Localization of the kernel's eigenfunctions, and the disentanglement error beside it."""

import dataclasses
import difflib
from typing import Literal

from linearize.config.compare import CompareConfig, DataConfig, HeadConfig, MapConfig, ModelConfig
from linearize.config.files import require
from linearize.train import TrainConfig

Initialization = Literal["pretrained", "random"]
Regime = Literal["linear", "posthoc", "nonlinear"]


@dataclasses.dataclass(frozen=True)
class LocalizationConfig:
    """Eigenfunctions of the kernel at θ0 on every two tasks' inputs, and these tasks' ξ."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(tasks=("mnist", "animals"))
    """Every task is a target, with each other task as its control; ``data.control`` is not used."""
    head: HeadConfig = HeadConfig()
    """Of the target, frozen at θ0: the kernel is that of its logits, on both tasks' inputs."""
    vectors: str | None = None
    """Run directory of ``experiments.compare`` whose task vectors to use; its own configuration
    then decides model, data, heads and training. Where None they are trained."""
    nonlinear: TrainConfig = TrainConfig()
    linear: TrainConfig = TrainConfig()
    epochs: dict[str, float] = dataclasses.field(default_factory=dict)
    """Passes over a task's training examples, in place of the recipes' ``steps``."""
    trainable: str | None = None
    """Regular expression of the parameters to train and to differentiate in; all where None."""
    points: int = 48
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
    regimes: tuple[Regime, ...] = ("linear", "posthoc")
    """In which ξ is measured."""
    seeds: tuple[int, ...] = (0,)
    """Each draws its own heads, data order, points and random weights; intervals are over them."""
    batch_size: int = 256
    """Examples a call in evaluation."""
    memory: int = 4 * 1024**3
    """Bytes of derivatives that a kernel may hold at a time."""

    def __post_init__(self) -> None:
        self.compare("pretrained")
        require(
            2 <= self.points <= (self.data.test or self.points), "points", self.points,
            f"give 2 to data.test={self.data.test} test examples a task",
        )  # fmt: skip
        good = bool(self.shares) and all(0 < s <= 1 for s in self.shares)
        require(good, "shares", self.shares, "give one share or more, each in (0, 1]")
        require(len(set(self.shares)) == len(self.shares), "shares", self.shares, "name each once")
        require(bool(self.regimes), "regimes", self.regimes, "name one regime or more")
        require(
            len(set(self.regimes)) == len(self.regimes), "regimes", self.regimes, "name each once"
        )
        for task in self.random_tasks:
            near = difflib.get_close_matches(task, self.data.tasks, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            require(task in self.data.tasks, "random_tasks", task, f"not one of data.tasks{hint}")
        require(
            len(self.random_tasks) != 1, "random_tasks", self.random_tasks,
            "a target needs a control: name none, or two or more",
        )  # fmt: skip
        step = (self.map.high - self.map.low) / (self.map.points - 1)
        place = (1 - self.map.low) / step
        require(
            abs(place - round(place)) < 1e-9 and self.map.low < 1 <= self.map.high,
            "map", (self.map.low, self.map.high, self.map.points),
            "the grid must hold α = 1, where ξ is measured too",
        )  # fmt: skip
        require(self.memory > 0, "memory", self.memory, "give a positive number of bytes")

    def tasks_at(self, initialization: Initialization) -> tuple[str, ...]:
        """The tasks whose kernels are taken there, in the order of ``data.tasks``."""
        if initialization == "pretrained":
            return self.data.tasks
        return tuple(task for task in self.data.tasks if task in self.random_tasks)

    def compare(self, initialization: Initialization) -> CompareConfig:
        """The setting as ``experiments.compare`` is told it."""
        model = self.model
        if initialization == "random":
            model = dataclasses.replace(model, pretrained=False)
        return CompareConfig(
            model=model,
            data=self.data,
            head=self.head,
            nonlinear=self.nonlinear,
            linear=self.linear,
            epochs=self.epochs,
            trainable=self.trainable,
            map=self.map,
            baselines=(),
            seeds=self.seeds,
            batch_size=self.batch_size,
        )

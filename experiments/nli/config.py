"""Addition of language tasks: which model reads them in which way, and which tasks."""

import dataclasses
from typing import Literal

import numpy as np

from experiments import adding
from experiments.nli.wordings import WORDINGS
from linearize.choices import one_of
from linearize.config import ConfigError, EditConfig, LanguageModelConfig
from linearize.config.files import require, require_distinct, require_task
from linearize.config.vectors import Regime
from linearize.fields import Count, Positive, Seed, TwoOrMore, check
from linearize.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class ReadConfig(LanguageModelConfig):
    """A language model, and how it is asked."""

    name: str = "minilm_l6"
    read: Literal["features", "words", "answers", "classifier"] = "features"
    """An encoder's features under heads of a few examples; a decoder's words after a prompt; an
    encoder–decoder's answers in words; or its classes, whose head all tasks share."""
    shots: Count = 10
    """Labelled training examples a class of a features' head."""


@dataclasses.dataclass(frozen=True)
class NliConfig:
    """Addition of language tasks: all subsets of them, and one donor for each target."""

    model: ReadConfig = ReadConfig()
    tasks: tuple[str, ...] = ("toy_food", "toy_film", "toy_shop")
    """Rows of :data:`experiments.nli.wordings.WORDINGS`."""
    donors: dict[str, str] = dataclasses.field(default_factory=dict)
    """Other fine-tuned weights of the model, by name: folders or repositories on the Hub. The other
    tasks' vectors are donors too."""
    data_dir: str | None = None
    """Where TFDS data sets lie, as TFDS prepares them."""
    length: Count = 128
    """Tokens of a text with its prompt; the text of a longer one is cut."""
    train: Count | None = 1000
    validation: Count | None = 200
    test: Count | None = 400
    """Documents of each task at most; all where None."""
    data_seed: Seed = 0
    """Decides the splits."""
    nonlinear: TrainConfig = TrainConfig()
    linear: TrainConfig = TrainConfig()
    epochs: dict[str, Positive] = dataclasses.field(default_factory=dict)
    """Passes over a task's training examples in both regimes, in place of their ``steps``; tasks
    that are left out keep these."""
    trainable: str | None = None
    """Regular expression of the parameter names to train; all where None."""
    regimes: tuple[Regime, ...] = ("nonlinear", "posthoc", "linear")
    edit: EditConfig = EditConfig(points=21)
    """The grid on which α is searched, of sums and of donors."""
    coarse: TwoOrMore = 6
    """Points of it in the non-linear regime, where each takes passes through the model."""
    sample: Count = 3
    """Subsets of each size from 3 to T − 1 that the non-linear regime is measured on; all pairs,
    singles and the whole set are always measured."""
    seeds: tuple[Seed, ...] = (0,)
    """Each draws its own heads and order of the data; intervals are over them."""
    batch_size: Count = 32
    """Examples a call in evaluation."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        for field, least in (("tasks", 2), ("regimes", 1), ("seeds", 1)):
            require_distinct(field, getattr(self, field), least)
        for task in self.tasks:
            one_of("tasks", task, WORDINGS, ConfigError)
        T = len(self.tasks)
        require(T <= 12, "tasks", T, "2^T subsets are too many; name 12 tasks or fewer")
        for task in self.epochs:
            require_task("epochs", task, self.tasks, "tasks", WORDINGS.keys)
        taken = sorted(set(self.donors) & set(self.tasks))
        require(not taken, "donors", taken, "tasks have these names; choose others")
        require(
            not self.donors or self.model.read != "classifier", "donors", self.donors,
            "their weights lack the head that a classifier is drawn with; read answers",
        )  # fmt: skip

    @property
    def reads(self) -> tuple[str, ...]:
        """Data sets."""
        return tuple(WORDINGS[task].source for task in self.tasks)

    def subsets(self, passes: bool) -> tuple[adding.Subset, ...]:
        """Those that are looked at, in a view where each point takes passes or none."""
        T = len(self.tasks)
        return adding.sampled(T, self.sample, 0) if passes else adding.every(T)

    def alphas(self, passes: bool) -> np.ndarray:
        """(A,) coefficients that are tried there."""
        return np.linspace(
            self.edit.low, self.edit.high, self.coarse if passes else self.edit.points
        )

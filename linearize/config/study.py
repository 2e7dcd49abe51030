"""One study as it is told: model, tasks, heads, recipes, seeds."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Literal

from linearize import models
from linearize.config.files import (
    ConfigError,
    require,
    require_distinct,
    require_task,
    require_tasks,
    said_as_configuration,
)
from linearize.data import Task
from linearize.fields import Count, Positive, Seed, check
from linearize.models import Backbone, Model, TextEncoder, Tokenizer
from linearize.objectives import Objective
from linearize.study.heads import Heads, Probe, Prototypes, words
from linearize.train import TrainConfig

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which pretrained model, and how much of it."""

    name: str = "vit_s_focus"
    image_size: Count = 28
    """Side in pixels that images are resized to inside the model."""
    blocks: Count | None = 6
    """How many blocks to keep, counted from the input; all where None."""
    weights: str | None = None
    """A folder, a file or a repository on the Hub; the packaged ones where None."""
    pretrained: bool = True
    """False draws the weights at random, from ``seed``: the control for what pre-training does."""
    seed: Seed = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters, τ and outputs are float32."""
    scan: bool = False
    """One scanned block in place of many (ViTs): compiles faster, and ``remat`` saves memory."""
    remat: Literal["none", "dots", "full"] = "none"
    """What ViTs' blocks keep for the backward pass: all, matrix products, or their input alone."""

    def __post_init__(self) -> None:
        check(self, "model.", ConfigError)
        require(self.weights != "", "model.weights", self.weights, "give a path or a repository")

    def load(self, seed: int) -> Backbone:
        """The model, read anew; random weights are drawn from ``seed``.

        Raises:
            ConfigError: there is no such model, or it cannot be made so.
            WeightsError: its weights cannot be read.
        """
        log.info("reading model %s", self.name)
        with said_as_configuration("model"):
            return models.load(
                self.name,
                pretrained=self.pretrained,
                seed=seed,
                image_size=self.image_size,
                blocks=self.blocks,
                dtype=self.dtype,
                remat=self.remat,
                scan=self.scan,
                weights=self.weights if self.pretrained else None,
            )

    def text_tower(self, tokenizer: str | None) -> tuple[TextEncoder, Tokenizer]:
        """The text tower beside the weights, read anew, and its tokenizer, there or elsewhere.

        Raises:
            ConfigError: there is none.
            WeightsError: its weights cannot be read.
        """
        with said_as_configuration("head"):
            text = models.load_text(self.name, weights=self.weights)
            where = tokenizer or self.weights
            return text, models.load_tokenizer(where, vocabulary=text.vocabulary)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which tasks, and how many examples of each split at most."""

    tasks: tuple[str, ...] = ("mnist",)
    control: str = "digits"
    """A task that nothing is trained on; negation must leave its accuracy alone."""
    image_size: Count = 28
    train: Count | None = 2000
    """All where None. Nothing is trained on the control task: of a large one's training images,
    which make few-shot heads, 50 a class are then kept."""
    validation: Count | None = 500
    test: Count | None = 1000
    seed: Seed = 0
    """Decides the splits; a run's own seeds decide heads and data order."""
    data_dir: str | None = None
    """Where the papers' tasks lie as TFDS prepares them; ``tfds`` in the cache where None."""
    augment: bool = True
    """Random crops of the papers' tasks in training, as in open_clip; packaged tasks have none."""
    workers: Count = 4
    """Threads that decode the papers' tasks."""
    on_bad_image: Literal["error", "skip"] = "error"
    """``"skip"`` leaves out images that do not decode, and counts them in the results."""

    def __post_init__(self) -> None:
        check(self, "data.", ConfigError)
        require_tasks(self.tasks, self.control, least=2)


@dataclasses.dataclass(frozen=True)
class HeadConfig:
    """The frozen head: of class names, or, where there is no text tower, of training examples."""

    kind: Literal["text", "prototype", "probe"] = "prototype"
    """The papers' zero-shot head from the text tower in ``model.weights``; few-shot prototypes of
    features at θ0; a linear probe of all training examples there."""
    templates: str | None = None
    """A TOML file of sentences to use in place of the papers' (text heads)."""
    class_names: str | None = None
    """A TOML file of what sentences call the classes, in place of OpenAI's (text heads)."""
    tokenizer: str | None = None
    """A folder or repository that holds the tokenizer, where ``model.weights`` does not."""
    shots: Count = 10
    """Labelled training examples a class."""
    temperature: Positive = 20.0
    normalize: bool = True
    """False makes prototypes' logits affine in the features; a probe's always are, a text head's
    never."""

    def __post_init__(self) -> None:
        check(self, "head.", ConfigError)
        if self.kind == "text":
            require(
                self.normalize, "head.normalize", False, "text heads are of normalised features"
            )
        for name in ("templates", "class_names", "tokenizer"):
            require(
                getattr(self, name) is None or self.kind == "text",
                f"head.{name}", getattr(self, name), "it is for head.kind='text'",
            )  # fmt: skip

    def heads(self, model: ModelConfig, batch_size: int) -> Heads:
        """What makes each task's head, of features that are computed ``batch_size`` at a time."""
        return HEADS[self.kind](self, model, batch_size)


_text_tower = cache(ModelConfig.text_tower)


def _words(told: HeadConfig, config: ModelConfig, batch_size: int) -> Heads:
    def made(model: Model, task: Task, seed: int) -> Objective:
        heads = words(*_text_tower(config, told.tokenizer), told.class_names, told.templates)
        with said_as_configuration("head"):
            return heads(model, task, seed)

    return made


HEADS: Mapping[str, Callable[[HeadConfig, ModelConfig, int], Heads]] = {
    "text": _words,
    "prototype": lambda told, _, size: Prototypes(
        told.shots, told.temperature, told.normalize, size
    ),
    "probe": lambda told, _, size: Probe(size),
}
"""Kinds of heads, as :class:`HeadConfig` tells them."""


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """What every experiment on task vectors is told."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(tasks=("mnist", "animals"))
    head: HeadConfig = HeadConfig()
    nonlinear: TrainConfig = TrainConfig()
    """Fine-tuning of f itself; its task vectors serve the post-hoc regime too."""
    linear: TrainConfig = TrainConfig()
    """Fine-tuning of f's linearization."""
    epochs: dict[str, Positive] = dataclasses.field(default_factory=dict)
    """Passes over a task's training examples in both regimes, in place of their ``steps``; tasks
    that are left out keep these."""
    trainable: str | None = None
    """Regular expression of the parameter names to train; all where None."""
    seeds: tuple[Seed, ...] = (0,)
    """Each draws its own heads and data order; intervals are over them."""
    batch_size: Count = 256
    """Examples a call in evaluation."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        require(
            self.head.kind != "text" or self.model.weights is not None,
            "head.kind", "text", "its sentences need model.weights, which hold a text tower",
        )  # fmt: skip
        for task in self.epochs:
            require_task("epochs", task, self.data.tasks)
        require_distinct("seeds", self.seeds)
        for name in ("nonlinear", "linear"):
            if self.data.train is None:
                continue  # the loop knows how many there are
            try:
                getattr(self, name).total_steps(self.data.train)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from error

    @property
    def recipes(self) -> dict[str, Any]:
        """How vectors are trained, by method."""
        return {"nonlinear": self.nonlinear, "linear": self.linear}

"""The main job: three regimes of task arithmetic side by side."""

import dataclasses
from typing import ClassVar, Literal

from linearize.config.files import ConfigError, require, require_task
from linearize.fields import Count, Natural, Positive, TwoOrMore, check
from linearize.train import TrainConfig


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
    seed: Natural = 0
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the computation; parameters, τ and outputs are float32."""
    scan: bool = False
    """One scanned block in place of many (ViTs): compiles faster, and ``remat`` saves memory."""
    remat: Literal["none", "dots", "full"] = "none"
    """What ViTs' blocks keep for the backward pass: all, matrix products, or their input alone."""

    def __post_init__(self) -> None:
        check(self, "model.", ConfigError)
        require(self.weights != "", "model.weights", self.weights, "give a path or a repository")


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
    seed: Natural = 0
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
        require(len(self.tasks) >= 2, "data.tasks", self.tasks, "name two tasks or more")
        require(
            len(set(self.tasks)) == len(self.tasks), "data.tasks", self.tasks, "name each task once"
        )
        require(
            self.control not in self.tasks,
            "data.control",
            self.control,
            "the control task must not be one of data.tasks",
        )


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


@dataclasses.dataclass(frozen=True)
class EditConfig:
    """How the scaling coefficient is searched on validation data."""

    low: float = 0.0
    high: float = 1.0
    points: TwoOrMore = 21
    retained: float = 0.95
    """Share of the control task's pre-trained accuracy that negation must keep."""
    sweep_test: bool = True
    """Measure test accuracy along all of α for the figure, not at the chosen α alone."""

    def __post_init__(self) -> None:
        check(self, "edit.", ConfigError)
        require(self.low < self.high, "edit.low", self.low, f"must be below high={self.high}")
        require(0 < self.retained <= 1, "edit.retained", self.retained, "a share in (0, 1]")


@dataclasses.dataclass(frozen=True)
class MapConfig:
    """Which pairs of tasks get a disentanglement error map, on which grid."""

    pairs: tuple[tuple[str, str], ...] = ()
    low: float = -3.0
    high: float = 3.0
    points: TwoOrMore = 21
    n_eval: Count = 500
    """Examples of each task, drawn from its test split."""
    search_box: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        check(self, "map.", ConfigError)
        require(self.low < self.high, "map.low", self.low, f"must be below high={self.high}")


@dataclasses.dataclass(frozen=True)
class ExactConfig:
    """Linear fine-tuning to its optimum: mean cross-entropy + (l2 / 2) ‖τ‖²."""

    l2: Positive = 1e-2
    solver: Literal["auto", "dual", "gauss_newton"] = "auto"
    """On the kernel of the logits, which an affine head has, or in weight space."""
    tolerance: Positive = 1e-5
    """On the objective, in nats, by its gradient norm² / (2 l2)."""
    max_iterations: Count = 50
    """Newton steps at most."""
    max_products: Count = 2000
    """Passes over the training split at most, in weight space."""
    batch_size: Count = 64
    """Examples a pass in training."""

    def __post_init__(self) -> None:
        check(self, "exact.", ConfigError)


Baseline = Literal["random", "gradient_ascent", "joint"]


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """The main job: three regimes of task arithmetic side by side."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(tasks=("mnist", "animals"))
    head: HeadConfig = HeadConfig()
    nonlinear: TrainConfig = TrainConfig()
    """Fine-tuning of f itself; its task vectors serve the post-hoc regime too."""
    linear: TrainConfig = TrainConfig()
    """Fine-tuning of f's linearization."""
    exact: ExactConfig | None = None
    """The optimum of that as one more regime; None leaves it out."""
    epochs: dict[str, Positive] = dataclasses.field(default_factory=dict)
    """Passes over a task's training examples in both regimes, in place of their ``steps``; tasks
    that are left out keep these."""
    trainable: str | None = None
    """Regular expression of the parameter names to train; all where None."""
    edit: EditConfig = EditConfig()
    map: MapConfig = MapConfig()
    baselines: tuple[Baseline, ...] = ("random", "gradient_ascent", "joint")
    seeds: tuple[Natural, ...] = (0,)
    """Each draws its own heads and data order; intervals are over them."""
    random_init: bool = False
    """Also run the two trained regimes from random weights, to see what pre-training does."""
    batch_size: Count = 256
    """Examples a call in evaluation."""
    FORMER: ClassVar = ("stand_ins",)
    """Fields that earlier versions wrote."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        require(
            self.head.kind != "text" or self.model.weights is not None,
            "head.kind", "text", "its sentences need model.weights, which hold a text tower",
        )  # fmt: skip
        for task in self.epochs:
            require_task("epochs", task, self.data.tasks)
        require(len(self.seeds) >= 1, "seeds", self.seeds, "give at least one")
        require(len(set(self.seeds)) == len(self.seeds), "seeds", self.seeds, "name each once")
        for name, recipe in (("nonlinear", self.nonlinear), ("linear", self.linear)):
            if self.data.train is None:
                continue  # the loop knows how many there are
            try:
                recipe.total_steps(self.data.train)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}") from error
        for pair in self.map.pairs:
            for task in pair:
                require_task("map.pairs", task, self.data.tasks)

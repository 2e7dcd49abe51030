"""Kernel behaviour along a fine-tuning."""

import dataclasses
from typing import Literal

from experiments.kernel_behavior.asked import PROMPTS, SETS
from linearize.config import HeadConfig, LanguageModelConfig, ModelConfig
from linearize.config.files import ConfigError, require, require_distinct
from linearize.fields import Count, Positive, Seed, TwoOrMore, check
from linearize.train import TrainConfig

Kernel = Literal["ntk", "signgd"]
Rule = Literal["sgd", "signgd", "asymmetric_signgd"]
Solver = Literal["least_squares", "svm", "logistic_rows"]
Variant = Literal["all", "no_embeddings", "no_head", "biases"]


@dataclasses.dataclass(frozen=True)
class FewShotConfig:
    """Which tasks, with how many labelled examples."""

    tasks: tuple[str, ...] = ("mnist",)
    image_size: Count = 28
    shots: Count = 8
    """Training examples a class."""
    validation: Count = 100
    test: Count = 200
    seed: Seed = 0
    """Decides the splits; a run's own seeds draw the shots."""

    def __post_init__(self) -> None:
        check(self, "data.", ConfigError)
        require_distinct("data.tasks", self.tasks)


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
    seeds: tuple[Seed, ...] = (0,)
    """Each draws its own shots, head and data order; intervals are over them."""
    batch_size: Count = 256
    """Examples a call in evaluation."""
    memory: Count = 1 << 30
    """Bytes of derivatives that a kernel may hold at a time."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        require_distinct("seeds", self.seeds)
        require_distinct("kernels", self.kernels, least=0)
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


@dataclasses.dataclass(frozen=True)
class ReaderConfig(LanguageModelConfig):
    """A language model, and which of its parameters are trained and make the kernel."""

    name: str = "minilm_l6"
    trainable: str = ""
    """A pattern of leaves; all where empty."""


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """Kernels of language models on a few examples: with a prompt, and without."""

    prompted: ReaderConfig | None = None
    """Read by label words: a masked language model or a decoder."""
    plain: ReaderConfig | None = None
    """Read without a prompt: an encoder's pooled features under a linear probe's head."""
    tasks: tuple[str, ...] = ("sentiment_amazon",)
    texts: str | None = None
    """A folder with TASK/train.csv and TASK/test.csv, of columns label, text and, of pairs, pair,
    which go before packaged and TFDS' sets."""
    data_dir: str | None = None
    """Where TFDS data sets lie, as TFDS prepares them."""
    data_seed: Seed = 0
    test: Count = 1000
    """Test examples at most."""
    length: Count | None = 128
    """Most tokens of an example; None for the prompts' own."""
    cut: Literal["texts", "tail"] = "texts"
    """What becomes of longer ones: the text gives way, or, as in the paper's code, the tail."""
    shots: tuple[Count, ...] = (16, 64)
    """Training examples a class, and as many for development."""
    binary: bool = False
    """Of two classes, the kernel of logit₁ − logit₀ with targets −1 and 1."""
    kernels: tuple[Rule, ...] = ("sgd", "signgd", "asymmetric_signgd")
    variants: tuple[Variant, ...] = ("all",)
    """Of which parameters the kernels are; fine-tuning is of the first."""
    solvers: tuple[Solver, ...] = ("least_squares",)
    shares: tuple[Positive, ...] = (1e-3, 1e-2, 1e-1, 1.0)
    """λ of λ‖K‖ on the diagonal; development data choose."""
    f0_scales: tuple[float, ...] = (0.0, 1.0)
    """Factors of the outputs at θ0; likewise."""
    sgd: TrainConfig = TrainConfig()
    adam: TrainConfig = TrainConfig()
    points: TwoOrMore = 32
    """Training examples on which the drift of the kernel is measured."""
    seeds: tuple[Seed, ...] = (13, 21, 42, 87, 100)
    batch_size: Count = 32
    memory: Count = 1 << 30
    """Bytes of derivatives that a kernel may hold at a time."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        for name in ("tasks", "shots", "kernels", "variants", "solvers", "shares", "f0_scales",
                     "seeds"):  # fmt: skip
            require_distinct(name, getattr(self, name))
        require(
            self.prompted is not None or self.plain is not None,
            "prompted",
            None,
            "give a model that is prompted, or one that is not (plain)",
        )
        unknown = [task for task in self.tasks if task not in PROMPTS]
        require(not unknown, "tasks", unknown, f"there are {', '.join(PROMPTS)}")

    @property
    def recipes(self) -> dict[str, TrainConfig]:
        """The fine-tunings by name."""
        return {"sgd": self.sgd, "adam": self.adam}

    @property
    def reads(self) -> tuple[str, ...]:
        """Data sets."""
        return tuple(SETS.get(task, task) for task in self.tasks)

    @property
    def readers(self) -> dict[str, ReaderConfig]:
        """The models by how they are read."""
        both = {"prompted": self.prompted, "plain": self.plain}
        return {way: reader for way, reader in both.items() if reader is not None}

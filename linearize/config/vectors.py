"""What the analyses of task vectors share: a setting, and where its task vectors come from."""

import dataclasses
from typing import Literal

from linearize.config.compare import CompareConfig, DataConfig, EditConfig, HeadConfig, ModelConfig
from linearize.config.files import ConfigError, require
from linearize.fields import Count, Natural, Positive, check
from linearize.train import TrainConfig

Regime = Literal["nonlinear", "posthoc", "linear"]


@dataclasses.dataclass(frozen=True)
class VectorsConfig:
    """The setting of an analysis of task vectors that ``experiments.compare`` trains."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(tasks=("mnist", "animals"))
    """``data.control`` is not used."""
    head: HeadConfig = HeadConfig()
    vectors: str | None = None
    """Run directory of ``experiments.compare`` whose task vectors to use; its own configuration
    then decides model, data, heads and training. Where None they are trained."""
    nonlinear: TrainConfig = TrainConfig()
    """Fine-tuning of f itself; its task vectors serve the post-hoc regime too."""
    linear: TrainConfig = TrainConfig()
    """Fine-tuning of f's linearization."""
    epochs: dict[str, Positive] = dataclasses.field(default_factory=dict)
    """Passes over a task's training examples, in place of the recipes' ``steps``."""
    trainable: str | None = None
    """Regular expression of the parameter names to train; all where None."""
    regimes: tuple[Regime, ...] = ("nonlinear", "posthoc", "linear")
    seeds: tuple[Natural, ...] = (0,)
    """Each draws its own heads and data order; intervals are over them."""
    batch_size: Count = 256
    """Examples a call in evaluation."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        self.compare()
        require(bool(self.regimes), "regimes", self.regimes, "name one regime or more")
        require(
            len(set(self.regimes)) == len(self.regimes), "regimes", self.regimes, "name each once"
        )

    def compare(self) -> CompareConfig:
        """The setting as ``experiments.compare`` is told it."""
        return CompareConfig(
            model=self.model,
            data=self.data,
            head=self.head,
            nonlinear=self.nonlinear,
            linear=self.linear,
            epochs=self.epochs,
            trainable=self.trainable,
            baselines=(),
            seeds=self.seeds,
            batch_size=self.batch_size,
        )


@dataclasses.dataclass(frozen=True)
class AnalysisConfig(VectorsConfig):
    """An analysis of what the vectors merge to."""

    edit: EditConfig = EditConfig()
    """The grid on which the scaling coefficient is searched in the affine regimes."""
    validation: Count | None = None
    """Validation examples of each task to look at, at most; all where None."""
    test: Count | None = None
    """Test examples of each task to look at, at most; all where None."""

    def __post_init__(self) -> None:
        super().__post_init__()

    def compare(self) -> CompareConfig:
        """The setting as ``experiments.compare`` is told it."""
        return dataclasses.replace(super().compare(), edit=self.edit)

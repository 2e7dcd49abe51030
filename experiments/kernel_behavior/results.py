"""What a run of ``experiments.kernel_behavior`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from linearize.report.node import Floats, ResultsError
from linearize.report.run import Run
from linearize.report.schema import Axes

OfSeeds = Annotated[Floats, Axes("S")]
Steps = Annotated[Floats, Axes("S", "T")]
"""By seed and measured step, the first of which is 0."""
Shares = Annotated[Floats, Axes("S", "T", upper=1.0)]


@dataclass(frozen=True)
class Along:
    """θ_t of one fine-tuning held against θ0; accuracies, losses and the gap on test examples."""

    drift: Steps
    """Of the trace kernel, relative."""
    alignment: Steps
    """Of the kernels at θ_t and at θ0, centred."""
    target_alignment: Steps
    """With the labels' kernel, centred."""
    feature_change: Steps
    """Of gradients of single outputs, relative."""
    gap: Steps
    """‖f − f_lin‖ / ‖f − f0‖ at θ_t; 0 where nothing moved."""
    gap_loss: Steps
    """Of f minus that of f_lin, nats."""
    gap_accuracy: Steps
    agreement: Shares
    """Share of examples of which f and f_lin predict the same class."""
    accuracy: Shares
    loss: Steps
    linearized_accuracy: Shares
    train_loss: Steps
    movement: Mapping[str, Steps]
    """Of each block's parameters and of ``all``, relative."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of the trace kernel before and after, one for each example it is on."""

    start: Annotated[Floats, Axes("S", "?")]
    end: Annotated[Floats, Axes("S", "?")]


@dataclass(frozen=True)
class Scores:
    """On test examples."""

    accuracy: Annotated[Floats, Axes("S", upper=1.0)]
    loss: OfSeeds


@dataclass(frozen=True)
class Solution(Scores):
    """A kernel's, at the weight decay ``l2`` of the least loss on validation examples."""

    l2: OfSeeds
    validation_loss: OfSeeds


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows, by task and fine-tuning or kernel."""

    tasks: Annotated[tuple[str, ...], Axes("?")]
    steps: Mapping[str, Annotated[tuple[int, ...], Axes("T")]]
    """By fine-tuning, those after which it was measured."""
    examples: Mapping[str, Mapping[str, int]]
    """By split and task."""
    pretrained: Mapping[str, Scores]
    along: Mapping[str, Mapping[str, Along]]
    spectrum: Mapping[str, Mapping[str, Spectrum]]
    solutions: Mapping[str, Mapping[str, Solution]]

    def __post_init__(self) -> None:
        for name in ("pretrained", "along", "spectrum", "solutions"):
            if set(found := getattr(self, name)) != set(self.tasks):
                raise ResultsError(f"{name} is of {sorted(found)}; expected {sorted(self.tasks)}")
        for task, found in self.along.items():
            if set(found) != set(self.steps):
                raise ResultsError(
                    f"along/{task} is of {sorted(found)}; expected {sorted(self.steps)}"
                )

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The fine-tunings, in the order of the file."""
        return tuple(self.steps)

"""What a run with prompts measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from linearize.report.node import Floats, ResultsError
from linearize.report.run import Run
from linearize.report.schema import Axes

OfSeeds = Annotated[Floats, Axes("S")]
Share = Annotated[Floats, Axes("S", upper=1.0)]


@dataclass(frozen=True)
class Solved:
    """A solver's on a kernel, with what development data chose; 0 where it has no choice."""

    accuracy: Share
    development: Share
    share: Annotated[Floats, Axes("S")]
    f0_scale: OfSeeds


@dataclass(frozen=True)
class Tuned:
    """A fine-tuning, held against θ0 and its linearization there."""

    accuracy: Share
    linearized_accuracy: Share
    """Of the linearization at the same θ."""
    gap: OfSeeds
    """‖f − f_lin‖ / ‖f − f0‖ of test outputs."""
    feature_change: OfSeeds
    """Of gradients of single outputs, relative."""
    drift: OfSeeds
    """Of the trace kernel, relative."""
    train_loss: OfSeeds


@dataclass(frozen=True)
class FewShot:
    """One task with k examples a class; accuracies are on test examples."""

    zero_shot: Share
    kernels: Mapping[str, Mapping[str, Solved]]
    """By kernel (with the variant where it is not of all parameters) and solver."""
    tuned: Mapping[str, Tuned]


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows: by way of reading, task and k."""

    tasks: Annotated[tuple[str, ...], Axes("?")]
    shots: tuple[int, ...]
    readers: Mapping[str, str]
    """By way, the model's name."""
    few_shot: Mapping[str, Mapping[str, Mapping[str, FewShot]]]

    def __post_init__(self) -> None:
        if set(self.few_shot) != set(self.readers):
            raise ResultsError(f"few_shot is of {sorted(self.few_shot)}; expected {self.readers}")

    def cells(self, way: str, k: int) -> dict[str, FewShot]:
        """Each task's."""
        return {task: self.few_shot[way][task][str(k)] for task in self.tasks}

    def over_tasks(self, way: str, k: int, method: str) -> Floats:
        """Accuracy, mean over tasks, (S,).

        Raises:
            KeyError: no such method.
        """
        return np.mean([methods(cell)[method] for cell in self.cells(way, k).values()], axis=0)


def methods(cell: FewShot) -> dict[str, Floats]:
    """Accuracies by method, in the table's order; the kernels' by ``kernel, solver``."""
    return {
        "zero_shot": cell.zero_shot,
        **{name: tuned.accuracy for name, tuned in cell.tuned.items()},
        **{
            f"{kernel}, {solver}": solved.accuracy
            for kernel, by in cell.kernels.items()
            for solver, solved in by.items()
        },
    }

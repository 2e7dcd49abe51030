"""What a run of ``experiments.merging`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from linearize.report.node import Floats
from linearize.report.run import Run
from linearize.report.schema import Axes

Seeds = Annotated[Floats, Axes("S")]


@dataclass(frozen=True)
class Merged:
    """A merge of K tasks; S seeds."""

    accuracy: Annotated[Floats, Axes("S", "K", upper=1.0)]
    """Of each task on test data, at the α and the hyper-parameters that validation data choose."""
    normalized: Annotated[Floats, Axes("S", "K")]
    """Divided by that of the task's own vector in the same view."""
    plain: Annotated[Floats, Axes("S", "K", upper=1.0)]
    """At the authors' α and hyper-parameters, without a search."""
    alpha: Seeds
    seconds: Seeds
    """That the merging took, while its memory was traced; of the most tasks with what it takes of
    data."""
    bytes: Seeds
    """Size of the arrays that it held at once."""
    options: Mapping[str, Seeds] = field(default_factory=dict)
    """Hyper-parameters."""
    gap: Seeds | None = None
    """Of coefficients that were fitted: nats above the optimum, at most."""


@dataclass(frozen=True)
class Method:
    """One method's vectors."""

    single: Annotated[Floats, Axes("S", "T", upper=1.0)]
    """Accuracy of each task's own model, α = 1."""
    merges: Mapping[str, Mapping[str, Merged]]
    """By merge and number of tasks."""


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    config: Mapping[str, Any]
    tasks: Annotated[tuple[str, ...], Axes("T")]
    numbers: tuple[int, ...]
    """How many tasks are merged, descending."""
    labels: Mapping[str, str]
    """How methods and merges are called, by name."""
    takes: Mapping[str, str]
    """What a merge takes of data, by name."""
    pretrained: Annotated[Floats, Axes("S", "T", upper=1.0)]
    methods: Mapping[str, Method]

    @property
    def most(self) -> int:
        """The largest number of tasks."""
        return self.numbers[0]

    def rows(self) -> list[tuple[str, str, Merged]]:
        """Method, merge and what was measured of the most tasks, best first."""
        rows = [
            (name, merge, found[str(self.most)])
            for name, method in self.methods.items()
            for merge, found in method.merges.items()
        ]
        return sorted(rows, key=lambda row: -float(row[2].accuracy.mean()))

    def mean(self, method: str, merge: str, size: int) -> Floats:
        """Accuracy after merging, mean of the tasks, (S,)."""
        return self.methods[method].merges[merge][str(size)].accuracy.mean(1)

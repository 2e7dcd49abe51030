"""Merges of methods' task vectors."""

import dataclasses

from linearize.config.compare import REGIMES, require_names
from linearize.config.files import require, require_distinct
from linearize.config.vectors import AnalysisConfig
from linearize.fields import Count, NonNegative
from linearize.merge import MERGES
from linearize.methods import METHODS
from linearize.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class MergingConfig(AnalysisConfig):
    """Every merge of every method's task vectors, by number of tasks."""

    methods: tuple[str, ...] = ("tau_jp",)
    """More methods of fine-tuning beside ``regimes``, trained with all tasks at hand however few
    are merged: rows of :data:`linearize.methods.METHODS`."""
    training: dict[str, TrainConfig] = dataclasses.field(default_factory=dict)
    """How such a method trains, by its name, where not as its regime does."""
    weights: dict[str, NonNegative] = dataclasses.field(default_factory=dict)
    """λ of such a method's penalty, by its name, in place of the method's own."""
    merges: tuple[str, ...] = ()
    """Rows of :data:`linearize.merge.MERGES`, in each view those that it can have; all but random
    directions where empty."""
    without: tuple[tuple[str, str], ...] = ()
    """A method and a merge, of what is left out."""
    examples: Count = 256
    """Of a task's training inputs, for merges that take them."""
    sizes: tuple[int, ...] = ()
    """How many tasks are merged, the first ones of ``data.tasks``; 2 to all where empty."""

    def __post_init__(self) -> None:
        super().__post_init__()
        regimes = {name for name, method in METHODS.items() if method.stands == "regime"}
        require_names("methods", self.methods, regimes - REGIMES)
        require_names("merges", self.merges, MERGES.keys())
        require_names("training", self.training, set(self.methods))
        require_names("weights", self.weights, set(self.methods))
        for method, merge in self.without:
            require_names("without", [method], set(self.compared))
            require_names("without", [merge], set(self.merged))
        for field in ("methods", "merges", "sizes"):
            require_distinct(field, getattr(self, field), least=0)
        T = len(self.data.tasks)
        for size in self.sizes:
            require(2 <= size <= T, "sizes", size, f"merge 2 to {T} tasks, those of data.tasks")

    @property
    def numbers(self) -> tuple[int, ...]:
        """How many tasks are merged, descending."""
        every = self.sizes or range(2, len(self.data.tasks) + 1)
        return tuple(sorted(every, reverse=True))

    @property
    def merged(self) -> tuple[str, ...]:
        """All merges."""
        return self.merges or tuple(name for name in MERGES if name != "random")

    @property
    def compared(self) -> tuple[str, ...]:
        """All methods."""
        return (*self.regimes, *self.methods)

    @property
    def recipes(self) -> dict[str, object]:
        """How vectors are trained, by method."""
        return super().recipes | self.training

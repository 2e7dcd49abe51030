"""The main job: three regimes of task arithmetic side by side."""

import dataclasses
from collections.abc import Iterable, Set
from typing import Any, ClassVar, Literal

import numpy as np

from linearize.choices import hint
from linearize.config.files import ConfigError, require, require_task
from linearize.config.study import StudyConfig
from linearize.fields import Count, NonNegative, Positive, TwoOrMore, box, check, near_zero
from linearize.merge import MERGES
from linearize.methods import METHODS
from linearize.train import TrainConfig


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

    @property
    def alphas(self) -> np.ndarray:
        """(points,) the coefficients that are tried."""
        return near_zero(np.linspace(self.low, self.high, self.points))


@dataclasses.dataclass(frozen=True)
class MapConfig:
    """Which pairs of tasks get a disentanglement error map, on which grid."""

    pairs: tuple[tuple[str, str], ...] = ()
    low: float = -3.0
    high: float = 3.0
    points: TwoOrMore = 25
    n_eval: Count = 500
    """Examples of each task, drawn from its test split."""
    search_box: tuple[float, float] = (-1.0, 1.0)
    """The part that figures mark. Means in it are of the coefficients that lie there: of a grid
    without its ends, as of 11 points from −3 to 3, of fewer than the box spans."""

    def __post_init__(self) -> None:
        check(self, "map.", ConfigError)
        require(self.low < self.high, "map.low", self.low, f"must be below high={self.high}")
        for pair in self.pairs:
            require(pair[0] != pair[1], "map.pairs", pair, "name two different tasks")
        try:
            box("map.search_box", self.search_box, self.alphas)
        except ValueError as error:
            raise ConfigError(str(error)) from None

    @property
    def alphas(self) -> np.ndarray:
        """(points,) the coefficients on either axis."""
        return near_zero(np.linspace(self.low, self.high, self.points))

    def require_tasks(self, tasks: tuple[str, ...]) -> None:
        """Refuse a pair of others than these.

        Raises:
            ConfigError: one that is none of them; with the nearest.
        """
        for pair in self.pairs:
            for task in pair:
                require_task("map.pairs", task, tasks)


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


REGIMES = {"nonlinear", "posthoc", "linear", "exact"}
"""What is compared without being named among ``methods``."""

Baseline = Literal["random", "gradient_ascent", "joint"]


def require_names(field: str, names: Iterable[str], known: Set[str]) -> None:
    """Refuse a name that is none of those known.

    Raises:
        ConfigError: one that is none of them; with the nearest.
    """
    for name in names:
        listed = ", ".join(map(repr, sorted(known)))
        remedy = f"expected one of {listed}" if known else "methods names none that it could be of"
        require(name in known, field, name, remedy + hint(name, known))


@dataclasses.dataclass(frozen=True)
class CompareConfig(StudyConfig):
    """The main job: three regimes of task arithmetic side by side."""

    exact: ExactConfig | None = None
    """The optimum of that as one more regime; None leaves it out."""
    edit: EditConfig = EditConfig()
    map: MapConfig = MapConfig()
    methods: tuple[str, ...] = ()
    """More methods of fine-tuning beside the regimes: rows of :data:`linearize.methods.METHODS`."""
    training: dict[str, TrainConfig] = dataclasses.field(default_factory=dict)
    """How a method or baseline trains, by its name, where not as its regime does."""
    weights: dict[str, NonNegative] = dataclasses.field(default_factory=dict)
    """λ of a method's penalty, by the method's name, in place of the method's own."""
    merges: tuple[str, ...] = ()
    """Merges beside the sum, of all vectors that are added: rows of
    :data:`linearize.merge.MERGES`."""
    baselines: tuple[Baseline, ...] = ("random", "gradient_ascent", "joint")
    random_init: bool = False
    """Also run the two trained regimes from random weights, to see what pre-training does to the
    maps; on the tasks of ``map.pairs``."""
    FORMER: ClassVar = ("stand_ins",)
    """Fields that earlier versions wrote."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.map.require_tasks(self.data.tasks)
        edit = self.edit
        require(
            bool((edit.alphas == 0).any()), "edit", (edit.low, edit.high, edit.points),
            "the grid of low, high and points must hold α = 0, beside which negation holds the "
            "control task",
        )  # fmt: skip
        remedy = "random weights are for error maps; name map.pairs too"
        require(bool(self.map.pairs) or not self.random_init, "random_init", True, remedy)
        regimes = {name for name, method in METHODS.items() if method.stands == "regime"}
        require_names("methods", self.methods, regimes - REGIMES)
        require_names("merges", self.merges, MERGES.keys() - {"sum"})
        for field in ("methods", "merges"):
            names = getattr(self, field)
            require(len(set(names)) == len(names), field, names, f"name each of the {field} once")
        require_names("training", self.training, {*self.methods, *self.baselines} - MERGES.keys())
        penalised = {
            name
            for name in self.methods
            if getattr(METHODS[name].train, "keywords", {}).get("penalties")
        }
        require_names("weights", self.weights, penalised)

    @property
    def recipes(self) -> dict[str, Any]:
        """How vectors are trained, by method."""
        exact = {} if self.exact is None else {"exact": self.exact}
        return super().recipes | exact | self.training

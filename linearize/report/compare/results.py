"""What a comparison measured, as ``results.json`` has it; nothing here needs a model."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from linearize.objectives.metric import Control, Metric
from linearize.report import schema
from linearize.report.compare import measures
from linearize.report.compare.measures import Measures
from linearize.report.node import Floats, ResultsError, checked, read
from linearize.report.run import Run
from linearize.report.schema import Axes
from linearize.report.style import FACES, UNKNOWN, Look

ARGMAX = "argmax disagreement"

PerTask = Annotated[Floats, Axes("S", "T")]
Sweep = Annotated[Floats, Axes("S", "A", "T")]


@dataclass(frozen=True)
class Addition:
    """θ0 + α Σ τ_t: S seeds, T tasks, A coefficients.

    What is called accuracy is each task's metric on test data, in its own units.
    """

    accuracy: PerTask
    normalized: PerTask | None = None
    alpha: Annotated[Floats, Axes("S")] | None = None
    """Chosen on validation data; None of what is added in full."""
    full: PerTask | None = None
    """The metric at α = 1, without a search."""
    full_normalized: PerTask | None = None
    sweep_validation: Sweep | None = None
    sweep_test: Sweep | None = None
    options: Mapping[str, Annotated[Floats, Axes("S")]] = field(default_factory=dict)
    """A merge's hyper-parameters by name, chosen on validation data with α."""
    seconds: Annotated[Floats, Axes("S")] | None = None
    """That the merging took, with these, and what it takes of data."""
    gap: Annotated[Floats, Axes("S")] | None = None
    """Of coefficients by task that were fitted: nats above the optimum, at most."""


@dataclass(frozen=True)
class Negation:
    """θ0 − α τ_t, a task at a time: the metric of that task (target) and of its control task."""

    target: PerTask
    control: PerTask
    alpha: PerTask | None = None


@dataclass(frozen=True)
class PairMap:
    """Disentanglement error ξ(α_a, α_b) of a pair of tasks."""

    tasks: Annotated[tuple[str, ...], Axes("pair")]
    alphas: Annotated[Floats, Axes("G")]
    total: Mapping[str, Annotated[Floats, Axes("S", "G", "G")]]
    """By method: seeds, α of the first task, α of the second."""
    per_task: Mapping[str, Annotated[Floats, Axes("S", "pair", "G", "G")]] = field(
        default_factory=dict
    )
    """What each of the two adds to that."""
    n_eval: int | None = None
    """The smaller number of examples."""
    examples: Annotated[tuple[int, ...], Axes("pair")] | None = None
    """Of each task; None of runs that noted the smaller number alone."""
    search_box: tuple[float, float] | None = None
    distance: str = ARGMAX
    farthest: float | None = None
    """The largest distance of one task, where there is one."""
    reduction: Literal["sum", "mean"] = "sum"

    def __post_init__(self) -> None:
        if len(self.alphas) < 2 or np.any(np.diff(self.alphas) <= 0):
            raise ValueError(f"alphas must be two or more rising numbers, got {self.alphas}")
        if self.farthest is None and self.distance == ARGMAX:  # early runs did not say so
            object.__setattr__(self, "farthest", 1.0)
        most = np.inf if self.most is None else self.most
        for method, total in self.total.items():
            low, high = np.nanmin(total, initial=0), np.nanmax(total, initial=0)
            if most < np.inf and (low < 0 or high > most * (1 + 1e-6)):
                raise ValueError(
                    f"total/{method} reaches from {low:g} to {high:g}; expected errors in "
                    f"[0, {most:g}]"
                )
        if self.search_box is not None and not self.inside.any():
            raise ValueError(f"search_box is {list(self.search_box)}; no coefficient lies there")

    @property
    def measured(self) -> str:
        """What the error sums, for captions."""
        if self.distance.endswith("disagreement"):
            return self.distance
        return f"distance of predictions: {self.distance}"

    @property
    def kind(self) -> tuple[str, float | None, str]:
        """What maps have in common whose errors may be compared."""
        return self.distance, self.farthest, self.reduction

    @property
    def most(self) -> float | None:
        """The largest error that there is."""
        count = 2 if self.reduction == "sum" else 1
        return None if self.farthest is None else count * self.farthest

    @property
    def inside(self) -> np.ndarray:
        """Which coefficients lie in the search box, (G,) bool; all where there is none."""
        low, high = self.search_box or (self.alphas[0], self.alphas[-1])
        return (self.alphas >= low - 1e-9) & (self.alphas <= high + 1e-9)

    def boxed(self, method: str) -> Floats:
        """A method's error inside the search box, (S, B, B)."""
        return self.total[method][:, self.inside][:, :, self.inside]


@dataclass(frozen=True)
class RandomInit:
    """The maps once more from random weights, of the R tasks that they are of."""

    tasks: Annotated[tuple[str, ...], Axes("R")]
    maps: tuple[PairMap, ...]
    pretrained: Annotated[Floats, Axes("S", "R")] | None = None
    """Accuracy at the random weights."""
    single: Mapping[str, Annotated[Floats, Axes("S", "R")]] = field(default_factory=dict)
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """``results.json``; mappings are keyed by method or merge."""

    experiment: str = "compare"
    tasks: Annotated[tuple[str, ...], Axes("T", some=True)]
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    skipped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    metrics: Mapping[str, Metric] | None = None
    """Each task's; None of runs that knew accuracy alone."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """How rows are called, by row."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What methods and merges are, by what they are called; none in early runs."""
    explored: str | None = "linear"
    """The method that the live explorer shows first."""
    alphas: Annotated[Floats, Axes("A")] = field(default_factory=lambda: np.zeros(0))
    control_task: Any = None
    """A name, or one a task."""
    control_share: float | None = None
    control_units: float | None = None
    pretrained: PerTask
    control_pretrained: PerTask | None = None
    random_init: PerTask | None = None
    single: Mapping[str, PerTask] = field(default_factory=dict)
    addition: Mapping[str, Addition] = field(default_factory=dict)
    negation: Mapping[str, Negation] = field(default_factory=dict)
    cosine: Mapping[str, Annotated[Floats, Axes("S", "T", "T")]] = field(default_factory=dict)
    maps: tuple[PairMap, ...] = ()
    random: RandomInit | None = None
    training: Mapping[str, Mapping[str, PerTask]] = field(default_factory=dict)
    """By method, what was recorded."""

    def __post_init__(self) -> None:
        for i, pair in enumerate(self.maps):
            if len(pair.tasks) != 2 or not set(pair.tasks) <= set(self.tasks):
                raise ResultsError(
                    f"maps/{i}/tasks is {list(pair.tasks)}; expected two of {list(self.tasks)}"
                )
        for name, values, of in self._measured():
            if values is not None:
                measures.check(name, values, of)
        _ = self.tolerance

    def _measured(self) -> Iterator[tuple[str, Floats | None, Measures]]:
        """What is in the units of a task's metric, by key."""
        of, controls = self.measures, self.control_measures
        yield from ((key, getattr(self, key), of) for key in ("pretrained", "random_init"))
        yield "control_pretrained", self.control_pretrained, controls
        yield from ((f"single/{m}", values, of) for m, values in self.single.items())
        for m, added in self.addition.items():
            for key in ("accuracy", "full", "sweep_validation", "sweep_test"):
                yield f"addition/{m}/{key}", getattr(added, key), of
        for m, negated in self.negation.items():
            yield f"negation/{m}/target", negated.target, of
            yield f"negation/{m}/control", negated.control, controls

    @cached_property
    def control_tasks(self) -> tuple[str, ...] | None:
        """Each task's control."""
        control, T = self.control_task, len(self.tasks)
        if control is None or isinstance(control, str):
            return None if control is None else (control,) * T
        if not isinstance(control, list | tuple) or len(control) != T:
            raise ResultsError(f"control_task is {control!r}; expected a name or {T} names")
        return tuple(map(str, control))

    @cached_property
    def measures(self) -> Measures:
        """What each task is measured by."""
        return measures.of_tasks(self.metrics, self.tasks, self.counts)

    @cached_property
    def control_measures(self) -> Measures:
        """What each task's control is measured by."""
        return measures.of_tasks(self.metrics, self.control_tasks or self.tasks, self.counts)

    @cached_property
    def look(self) -> Look:
        """How rows are called and drawn."""
        return Look(self.labels)

    @cached_property
    def tolerance(self) -> Control:
        """How much worse negation might make the control task."""
        share = Control.retained if self.control_share is None else self.control_share
        try:
            return Control(share, self.control_units)
        except ValueError as error:
            raise ResultsError(f"control_share or control_units: {error}") from None

    @property
    def shown(self) -> str:
        """The explorer's method; empty where there is none."""
        return self.explored or ""

    def regime(self, row: str) -> bool:
        """Whether a row is a method whose vectors are added and negated."""
        return row in self.single or FACES.get(row, UNKNOWN).fine_tuned

    def contends(self, row: str) -> bool:
        """Whether a row may be the best: regimes and merges, not what they are held against."""
        if self.regime(row):
            return True
        return (
            row in self.look.own and row in self.addition and self.addition[row].alpha is not None
        )

    @property
    def merged(self) -> bool:
        """Whether merges contend beside the sum of a regime's vectors."""
        return any(self.contends(m) and not self.regime(m) for m in self.addition)


def load(run_dir: Path | str) -> Results:
    """Reads ``results.json`` of a run directory.

    Raises:
        ResultsError: the file is missing, is no JSON, or does not fit the schema; the message
            names the file and the key.
    """
    raw = read(run_dir).value
    try:
        return parse(raw)
    except ResultsError as error:
        raise ResultsError(f"{Path(run_dir) / 'results.json'}: {error}") from None


def parse(raw: Any) -> Results:
    """A decoded ``results.json``, checked.

    Raises:
        ResultsError: a key is missing, or its value has another shape, type or range.
    """
    return schema.read(Results, checked(raw))

"""A study: a model at θ0, tasks, what their numbers are, and a seed; all else is asked of it.

study = Study(model, tasks, objectives, control="digits", store="runs/mine")
taus = study.vectors(METHODS["linear"])
view = study.view(METHODS["linear"])
study.measure(view, {"mnist": 0.7, "cars": 0.7}, "mnist", "validation")
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from linearize import tree
from linearize.data import Task
from linearize.evaluate.view import VIEWS, Points, View
from linearize.examples import Examples
from linearize.models import Model
from linearize.objectives import Objective
from linearize.study.store import Store
from linearize.task_vector import TaskVector

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Method:
    """How task vectors come about, and in which view they are evaluated."""

    name: str
    label: str
    """As tables and figures call it."""
    view: str
    """A row of :data:`linearize.evaluate.VIEWS`."""
    train: Callable[["Study", str], TaskVector] | None = None
    """One task's vector: of a study and the task's name. None where ``of`` says whose to take."""
    of: "Method | None" = None
    """The method whose vectors it takes (post-hoc linearization takes the non-linear ones), or,
    of one that is no regime of its own, whose single-task values it is held against."""
    stands: Literal["regime", "addition", "negation"] = "regime"
    """``regime``: task vectors, to be added and negated. ``negation``: each vector in full is the
    edited model of a negation (gradient ascent). ``addition``: one vector for all tasks, in full,
    is the edited model of an addition (joint training)."""

    def __post_init__(self) -> None:
        if self.train is None and self.of is None:
            raise ValueError(
                f"method {self.name!r}: give train, or of, the method whose vectors it takes"
            )


@dataclass(frozen=True, eq=False)
class Study:
    """One seed's fixed things: the model at θ0, the tasks, and an objective for each."""

    model: Model
    tasks: Mapping[str, Task]
    """By name, in the tables' order; the control task may be among them."""
    objectives: Mapping[str, Objective]
    """Of every task, such as a frozen head's."""
    control: str | None = None
    """The task that nothing is trained on; negation must leave it alone."""
    seed: int = 0
    """Decides data order, and all else that is drawn here."""
    store: Store = field(default_factory=Store)
    recipes: Mapping[str, Any] = field(default_factory=dict)
    """How a method trains, by its name (:class:`linearize.train.TrainConfig` of most)."""
    trainable: tree.Pattern = None
    """The leaves that are trained (:func:`linearize.tree.select`)."""
    epochs: Mapping[str, float] = field(default_factory=dict)
    """Passes over a task's training examples in place of a recipe's steps."""
    feed: Callable[[Mapping[str, Any]], Any] = dict
    """What ``train.fine_tune`` is given of training examples by role: a loader that augments."""
    batch_size: int = 256
    """Examples a pass in evaluation."""
    views: Mapping[str, type[View]] = field(default_factory=lambda: VIEWS)
    borrowed: Path | None = None
    """The folder of another run's seed whose vectors are taken in place of training."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What task vectors are to remember."""
    # not init: dataclasses.replace then makes a study that remembers nothing of this one
    _vectors: dict[str, dict[str, TaskVector]] = field(default_factory=dict, init=False)
    _seen: dict[str, View] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if len(self.names) < 1:
            raise ValueError(f"tasks={list(self.tasks)}: nothing is left to train beside control")
        missing = [name for name in self.tasks if name not in self.objectives]
        if missing:
            raise ValueError(f"objectives lacks {missing}; give one for each task")
        if self.control is not None and self.control not in self.tasks:
            raise ValueError(f"control={self.control!r} is none of the tasks {list(self.tasks)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks that are trained, in the tables' order."""
        return tuple(name for name in self.tasks if name != self.control)

    @cached_property
    def alike(self) -> dict[str, Objective]:
        """The objectives in one shape, so that all tasks share what is compiled for one."""
        every = list(self.objectives.values())
        return {name: each.alike(every) for name, each in self.objectives.items()}

    def split(self, task: str, split: str) -> Examples:
        """A task's ``train``, ``validation`` or ``test`` examples."""
        return self.tasks[task].split(split)

    def recipe(self, method: str, default: Any) -> Any:
        """How a method trains, with the study's seed."""
        return self.recipes.get(method, default)

    def vectors(self, method: Method) -> dict[str, TaskVector]:
        """Each task's vector; those that a finished run left in the store are reused."""
        if method.train is None:
            assert method.of is not None
            return self.vectors(method.of)
        if method.name not in self._vectors:
            self._vectors[method.name] = (
                self._trained(method) if self.borrowed is None else self._borrowed(method)
            )
        return self._vectors[method.name]

    def _trained(self, method: Method) -> dict[str, TaskVector]:
        assert method.train is not None
        names = (method.name,) if method.stands == "addition" else self.names
        vectors = {}
        for i, task in enumerate(names, 1):
            where = f"task {i} of {len(names)}"
            log.info("seed %d: %s fine-tuning on %s, %s", self.seed, method.name, task, where)
            vectors[task] = method.train(self, task)
        return vectors

    def _borrowed(self, method: Method) -> dict[str, TaskVector]:
        folder = Path(str(self.borrowed)) / method.name
        places = {task: folder / task for task in self.names}
        if method.stands == "addition":
            places = {method.name: folder}
        try:
            return {
                name: TaskVector.load(place / "task_vector.safetensors")
                for name, place in places.items()
            }
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; finish the run that vectors are taken of") from error

    def view(self, method: Method, vectors: Mapping[str, TaskVector] | None = None) -> View:
        """A method's view of its vectors, or of others, which are then not kept in mind."""
        if vectors is not None:
            return self._view(method.view, vectors)
        if method.name not in self._seen:
            self._seen[method.name] = self._view(method.view, self.vectors(method))
        return self._seen[method.name]

    def _view(self, name: str, vectors: Mapping[str, TaskVector]) -> View:
        return self.views[name](self.model.f, self.model.params, vectors, self.batch_size)

    def objective(self, task: str, view: View) -> Objective:
        """A task's objective, in the shape that costs a view least."""
        return (self.alike if view.passes else self.objectives)[task]

    def measure(self, view: View, points: Points, task: str, split: str) -> np.ndarray:
        """A task's primary metric at points of a view, (A,) float64."""
        return view.measure(points, self.split(task, split), self.objective(task, view))

    def at(self, view: View, point: Mapping[str, float], task: str, split: str) -> float:
        """The same at one point."""
        return float(self.measure(view, point, task, split)[0])

    def singles(self, view: View, split: str = "test") -> list[float]:
        """Each task's metric with its own vector, α = 1."""
        return [self.at(view, {task: 1.0}, task, split) for task in self.names]

    def pretrained(self, view: View, task: str, split: str = "test") -> float:
        """A task's metric at θ0."""
        return self.at(view, {}, task, split)

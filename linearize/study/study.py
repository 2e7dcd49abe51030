"""A study: a model at θ0, tasks, what their numbers are, and a seed; all else is asked of it.

study = Study(model, tasks, objectives, control="digits", store="runs/mine")
taus = study.vectors(METHODS["linear"])
view = study.view(METHODS["linear"])
study.measure(view, {"mnist": 0.7, "cars": 0.7}, "mnist", "validation")
"""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import jax
import numpy as np

from linearize import identity, io, tree
from linearize.choices import hint, one_of
from linearize.data import Task
from linearize.evaluate.view import VIEWS, Points, View
from linearize.examples import Examples, as_arguments
from linearize.fields import integer
from linearize.fields import seed as checked_seed
from linearize.models import Model
from linearize.objectives import Objective
from linearize.study.heads import Heads, Prototypes, one_for_all
from linearize.study.scans import scanned
from linearize.study.store import Store
from linearize.study.tokens import check_tokens
from linearize.task_vector import TaskVector
from linearize.train import Stream
from linearize.train.penalty import seed_of
from linearize.types import PyTree

log = logging.getLogger(__name__)

T = TypeVar("T")
Stands = Literal["regime", "addition", "negation"]


ASKED = "asked"
"""The role of :meth:`Study.asked` in a stream."""


def _check_name(noun: str, name: str) -> None:
    """A name is a folder in the store."""
    if not isinstance(name, str) or {"", ".", ".."} & set(name.split("/")):
        raise ValueError(
            f"{noun} {name!r}: it names a folder of the store, so give a word, no path that leads "
            "out of it"
        )


def _check_moves(model: Model, what: str, moved: Iterable[str]) -> None:
    """Nothing moves a leaf that must stay at θ0."""
    if wrong := sorted(model.fixed.intersection(moved)):
        shown = ", ".join(wrong[:3]) + ", ..." * (len(wrong) > 3)
        raise ValueError(
            f"{what} moves {shown}, of blocks whose outputs at θ0 are among the inputs of "
            f"{model.name}; take the whole model and its own examples"
        )


def _arrays(path: Path) -> Any:
    return io.load_tree(path)[0]


@dataclass(frozen=True)
class Method:
    """How task vectors come about, and in which view they are evaluated."""

    name: str
    label: str
    """As tables and figures call it."""
    view: str
    """A row of :data:`linearize.evaluate.view.VIEWS`."""
    train: Callable[["Study", str], TaskVector] | None = None
    """One task's vector: of a study and the task's name. None where ``of`` says whose to take.
    Most are :func:`linearize.methods.fine_tuning.fine_tune` of a regime, a pattern, penalties and a
    mask."""
    of: "Method | None" = None
    """The method whose vectors it takes (post-hoc linearization takes the non-linear ones), or,
    of one that is no regime of its own, whose single-task values it is held against."""
    stands: Stands = "regime"
    """``regime``: task vectors, to be added and negated. ``negation``: each vector in full is the
    edited model of a negation (gradient ascent). ``addition``: one vector for all tasks, in full,
    is the edited model of an addition (joint training)."""
    controlled: bool = False
    """Whether ``train`` looks at the study's control task too."""
    about: str = ""
    """A sentence for the glossary of a page; empty where there is none."""

    @property
    def key(self) -> str:
        """As results call it."""
        return self.name

    @property
    def trainer(self) -> "Method":
        """The method that trains its vectors: itself, or the one that it takes them of."""
        return self if self.train is not None or self.of is None else self.of.trainer

    def targets(self, tasks: Sequence[str]) -> tuple[str, ...]:
        """What it has vectors of: the tasks, or all of them together, under its own name."""
        return (self.name,) if self.stands == "addition" else tuple(tasks)

    def place(self, target: str) -> tuple[str, ...]:
        """The folders in a store of one of these vectors."""
        return (self.name,) if self.stands == "addition" else (self.name, target)

    def __post_init__(self) -> None:
        _check_name("method", self.name)
        one_of(f"method {self.name!r}: stands", self.stands, get_args(Stands))
        if self.train is None and self.of is None:
            raise ValueError(
                f"method {self.name!r}: give train, or of, the method whose vectors it takes"
            )


@dataclass(frozen=True, eq=False, init=False)
class Study:
    """One seed's fixed things: the model at θ0, the tasks, and an objective for each.

    >>> from linearize.data import split_task
    >>> from linearize.objectives import Classify
    >>> x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    >>> tasks = [split_task(f"sum {i}", x + i, (x.sum(1) > 0).astype(int)) for i in range(2)]
    >>> f, params = lambda params, x: x @ params["w"], {"w": np.eye(3, 2, dtype="float32")}
    >>> study = Study((f, params), tasks, Classify())
    >>> study.names
    ('sum 0', 'sum 1')
    """

    model: Model
    tasks: Mapping[str, Task]
    """By name, in the tables' order; the control task is among them."""
    objectives: Mapping[str, Objective]
    """Of every task."""
    control: str | None
    """The task that nothing is trained on; negation must leave it alone."""
    seed: int
    """Decides heads, data order, and all else that is drawn here."""
    store: Store
    recipes: Mapping[str, Any]
    trainable: tree.Pattern
    epochs: Mapping[str, float]
    feed: Callable[[Mapping[str, Any]], Any]
    batch_size: int
    views: Mapping[str, type[View]]
    borrowed: Path | None
    meta: Mapping[str, Any]
    heads: Heads | None
    """How objectives were made, where they were not given."""
    _vectors: dict[str, dict[str, TaskVector]] = field(repr=False)
    _seen: dict[str, tuple[str, Mapping[str, TaskVector], View]] = field(repr=False)
    _made: dict[str, Method] = field(repr=False)
    _prepared: dict[str, Any] = field(repr=False)

    def __init__(
        self,
        model: Any,
        tasks: Mapping[str, Task] | Iterable[Task],
        objectives: Mapping[str, Objective] | Objective | Heads | None = None,
        control: str | Task | None = None,
        *,
        seed: int = 0,
        store: Store | Path | str | None = None,
        recipes: Mapping[str, Any] | None = None,
        trainable: tree.Pattern = None,
        epochs: Mapping[str, float] | None = None,
        feed: Callable[[Mapping[str, Any]], Any] = dict,
        batch_size: int = 256,
        views: Mapping[str, type[View]] = VIEWS,
        borrowed: Path | None = None,
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Check and complete what is given.

        Args:
            model: in any form that :meth:`linearize.models.Model.of` takes: an nnx model, linen's
                ``(module, variables)``, or ``(f, params)``.
            tasks: in the tables' order; the control task may be among them.
            objectives: of every task; or one for all; or how a task's is made
                (:mod:`linearize.study.heads`); few-shot prototypes by default.
            control: the task that negation must leave alone, or its name among the tasks.
            seed: of heads and data order.
            store: a directory, or in memory where nothing is given.
            recipes: how a method trains, by its name (:class:`linearize.train.TrainConfig` of most;
                its default where there is none).
            trainable: pattern of the leaves to train (:func:`linearize.tree.select`).
            epochs: by task, passes over its training examples in place of a recipe's steps.
            feed: what ``train.fine_tune`` is given of training examples by role, such as a loader
                that augments.
            batch_size: examples a pass in evaluation.
            views: the ways to evaluate points, by name.
            borrowed: the folder of another run's seed whose vectors are taken, not trained.
            meta: what task vectors are to remember.

        Raises:
            TypeError: a model of another kind.
            ValueError: a seed beyond 32 bits, no task to train, two tasks of one name, a task
                without an objective, a control task that is none of the tasks, or tokens that a
                language model lacks.
        """
        seed = checked_seed("seed", seed)
        given = list(tasks.values()) if isinstance(tasks, Mapping) else list(tasks)
        names = list(tasks) if isinstance(tasks, Mapping) else [task.name for task in given]
        named = dict(zip(names, given, strict=True))
        if len(named) != len(given):
            raise ValueError(f"tasks={names}: give each name once")
        for name in names:
            _check_name("task", name)
        for name, recipe in (recipes or {}).items():
            if not is_dataclass(recipe) and recipe is not None:
                raise ValueError(
                    f"recipes[{name!r}] is a {type(recipe).__name__}; expected a TrainConfig, or "
                    "another dataclass that its method takes"
                )
        if isinstance(control, Task):
            named, control = named | {control.name: control}, control.name
        if control is not None and control not in named:
            raise ValueError(f"control={control!r} is none of the tasks{hint(control, named)}")
        if not set(named) - {control}:
            raise ValueError(f"tasks={names}: nothing is left to train beside control")
        known, heads = Model.of(model), None
        for name, task in named.items():
            check_tokens(known, name, task)
        if not isinstance(objectives, Mapping):
            made = Prototypes() if objectives is None else objectives
            heads = one_for_all(made) if isinstance(made, Objective) else made
            log.info("seed %d: heads of %d tasks", seed, len(named))
            objectives = {name: heads(known, task, seed) for name, task in named.items()}
        missing = [name for name in named if name not in objectives]
        if missing:
            raise ValueError(f"objectives lacks {missing}; give one for each task")
        if known.fixed:
            moved = tree.select(known.params, trainable)
            _check_moves(known, f"trainable={trainable!r}", moved)
        fields = {
            "model": known,
            "tasks": named,
            "objectives": objectives,
            "control": control,
            "seed": seed,
            "store": Store.of(store),
            "recipes": dict(recipes or {}),
            "trainable": trainable,
            "epochs": dict(epochs or {}),
            "feed": feed,
            "batch_size": batch_size,
            "views": views,
            "borrowed": borrowed,
            "meta": dict(meta or {}),
            "heads": heads,
            "_vectors": {},
            "_seen": {},
            "_made": {},
            "_prepared": {},
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks that are trained, in the tables' order."""
        return tuple(name for name in self.tasks if name != self.control)

    @cached_property
    def alike(self) -> dict[str, Objective]:
        """The objectives in one shape, so that all tasks share what is compiled for one."""
        every = list(self.objectives.values())
        return {name: each.alike(every) for name, each in self.objectives.items()}

    @cached_property
    def scanned(self) -> list[str]:
        """The leaves that the model scans through along axis 0, a pattern each."""
        alone = self.split(self.names[0], "train").alone
        found = scanned(self.model.f, self.model.params, *alone)
        return tree.exactly(sorted(found))

    def but(self, **changes: Any) -> "Study":
        """The same study, some of it otherwise."""
        same = ("model", "tasks", "control", "seed", "store", "recipes", "trainable", "epochs")
        more = ("feed", "batch_size", "views", "borrowed", "meta")
        kept = {name: getattr(self, name) for name in (*same, *more)}
        return Study(**{**kept, "objectives": self.heads or self.objectives, **changes})

    def with_seed(self, seed: int) -> "Study":
        """The same study with another seed, and so other heads, in a part of the store."""
        same = {"objectives": self.objectives} if seed == self.seed else {}
        return self.but(seed=seed, store=self.store.under(f"seed_{seed}"), **same)

    def split(self, task: str, split: str) -> Examples:
        """A task's ``train``, ``validation`` or ``test`` examples."""
        return self.tasks[task].split(split)

    def asked(self, task: str, split: str = "train") -> np.ndarray | None:
        """Which places of the outputs' first axes are asked for, bool (N, ...); None where all are.

        Of a text what follows its last token is not, say
        (:meth:`linearize.objectives.Objective.asked`).
        """
        return self.objectives[task].asked(self.split(task, split).targets)

    def stream(
        self,
        task: str,
        batch_size: int,
        split: str = "train",
        targets: Sequence[str] = (),
        *,
        asked: bool = False,
    ) -> Stream:
        """A task's examples for a penalty: batches ``(*inputs, *targets)`` of them.

        Args:
            task: whose examples.
            batch_size: of them a step.
            split: ``train``, ``validation`` or ``test``.
            targets: roles that follow the model's arguments.
            asked: whether the flags of :meth:`asked` come last, all true where there are none.
        """
        examples = self.split(task, split)
        arrays, roles = examples.arrays(), [*examples.arguments, *targets]
        if asked:
            flags = self.asked(task, split)
            arrays[ASKED] = np.ones(len(examples), bool) if flags is None else flags
            roles.append(ASKED)
        return Stream(self.feed(arrays), batch_size, roles)

    def others(self, task: str, method: str, *, control: bool = False) -> list[str]:
        """The tasks that a method for ``task`` is to leave alone.

        Args:
            task: that is trained.
            method: whose, for the message.
            control: whether the control task is one of them.

        Raises:
            ValueError: there is none, or no control task where it is asked for.
        """
        found = [name for name in self.names if name != task]
        if control and self.control is None:
            raise ValueError(f"{method} with the control task: give the study a control=")
        if control:
            found.append(str(self.control))
        if not found:
            raise ValueError(
                f"{method} leaves other tasks alone, and the study trains {task!r} only; give it "
                "another task, or a method that needs none, such as 'linear'"
            )
        return found

    def drawn(self, task: str, n: int, method: str) -> tuple[PyTree, ...]:
        """The model's arguments for n of a task's training examples, without augmentation.

        Args:
            task: whose examples.
            n: how many; all where there are fewer.
            method: whose draw it is; it, the task and the study's seed decide it.

        Raises:
            ValueError: as :meth:`some`.
        """
        return as_arguments(self.some(task, n, method)[0].inputs)

    def some(
        self, task: str, n: int, method: str, split: str = "train"
    ) -> tuple[Examples, np.ndarray | None]:
        """N of a task's examples of which something is asked, and which of their outputs are.

        Args:
            task: whose examples.
            n: how many; all where there are fewer.
            method: whose draw it is; it, the task and the study's seed decide it.
            split: ``train``, ``validation`` or ``test``.

        Returns:
            The examples in their order, in memory; and their flags of :meth:`asked`.

        Raises:
            ValueError: there is none.
        """
        examples, asked = self.split(task, split), self.asked(task, split)
        counted = self.objectives[task].counted(examples.targets)
        flags = np.ones(len(examples), bool) if counted is None else np.asarray(counted) > 0
        if not flags.any():
            raise ValueError(
                f"task {task!r}: of {len(examples)} {split} examples none counts, since their "
                "targets ask for nothing; give others, or another split"
            )
        order = np.random.default_rng(seed_of(self.seed, f"{method}: {task}"))
        drawn = order.permutation(np.flatnonzero(flags))[: integer("examples", n, low=1)]
        rows = np.sort(drawn)
        found = examples.take(rows)
        inputs = jax.tree.map(np.asarray, found.inputs)
        return Examples(inputs, found.targets), None if asked is None else asked[rows]

    def prepared(
        self,
        folder: str,
        task: str,
        told: Mapping[str, Any],
        make: Callable[[], T],
        *,
        split: str = "train",
        readout: Callable | None = None,
        save: Callable[[Path, T], object] = io.save_tree,
        load: Callable[[Path], T] = _arrays,
    ) -> T:
        """What a method takes of a task's examples before it trains: made once.

        The study keeps it in mind, and its store in a file, by all that decides it: f, θ0, the
        leaves that are trained, the examples, what is asked of them, the seed, and what is told.

        Args:
            folder: of its files in the store.
            task: whose examples.
            told: what else decides it, as JSON.
            make: makes it: arrays by name, or what ``save`` writes.
            split: whose examples.
            readout: of the model's outputs, where it decides too.
            save: writes a file with a hash of its own.
            load: reads it.

        Raises:
            UnidentifiedError: nothing says what f or the readout computes, and the store is a
                directory.
        """
        asked = json.dumps([folder, task, split, io.to_json(dict(told))], sort_keys=True)
        if asked not in self._prepared:
            file = "" if self.store.root is None else self._file(folder, task, told, split, readout)
            self._prepared[asked] = self.store.kept_file(file, make, save, load)
        return self._prepared[asked]

    def _file(
        self, folder: str, task: str, told: Mapping[str, Any], split: str, readout: Callable | None
    ) -> str:
        model, examples = self.model, self.split(task, split)
        decided_by = {
            "f": identity.of(model.f, model.params, *examples.alone, derivative=True),
            "base": tree.fingerprint(model.params),
            "trainable": tree.select(model.params, self.trainable),
            "data": examples.fingerprint,
            "seed": self.seed,
            "told": dict(told),
        }
        seen = self.objectives[task].counted(examples.targets), self.asked(task, split)
        if known_of := {i: np.asarray(x) for i, x in enumerate(seen) if x is not None}:
            decided_by["asked"] = tree.fingerprint(known_of)
        if readout is not None:
            outputs = jax.eval_shape(model.f, model.params, *examples.alone)
            known = identity.stated(readout)  # without its arrays, which follow
            program = known or identity.of(readout, outputs, derivative=True)
            decided_by["readout"] = [program, tree.fingerprint(readout)]
        text = json.dumps(io.to_json(decided_by), sort_keys=True)
        return f"{folder}/{task}-{sha256(text.encode()).hexdigest()[:16]}.safetensors"

    def recipe(self, method: str, default: Any) -> Any:
        """How a method trains, or ``default`` where the study does not say."""
        return self.recipes.get(method, default)

    def vectors(self, method: Method) -> dict[str, TaskVector]:
        """Each task's vector; those that a finished run left in the store are reused."""
        method = method.trainer
        if self._made.get(method.name, method) != method:  # another row of that name
            self._vectors.pop(method.name, None)
        self._made[method.name] = method
        if method.name not in self._vectors:
            self._vectors[method.name] = (
                self._trained(method) if self.borrowed is None else self._borrowed(method)
            )
        return self._vectors[method.name]

    def _trained(self, method: Method) -> dict[str, TaskVector]:
        return {task: self.train(method, task) for task in method.targets(self.names)}

    def train(self, method: Method, target: str) -> TaskVector:
        """One of a method's vectors: of a task, or of all; a finished run's is read."""
        assert method.train is not None
        names = method.targets(self.names)
        where = f"task {names.index(target) + 1} of {len(names)}"
        log.info("seed %d: %s fine-tuning on %s, %s", self.seed, method.name, target, where)
        found = method.train(self, target)
        if not isinstance(found, TaskVector):
            raise TypeError(
                f"method {method.name!r} made a {type(found).__name__} of task {target!r}; its "
                "train is to return a TaskVector: TaskVector.between(params0, params)"
            )
        return found

    def lent(self, method: Method) -> dict[str, str]:
        """The fingerprints of the vectors that the borrowed folder has for a method.

        Raises:
            FileNotFoundError: one is not there.
        """
        taken = self._borrowed(method.trainer)
        return {name: tree.fingerprint(tau.delta) for name, tau in taken.items()}

    def _borrowed(self, method: Method) -> dict[str, TaskVector]:
        folder = Path(str(self.borrowed))
        try:
            return {
                name: TaskVector.load(
                    folder.joinpath(*method.place(name), "task_vector.safetensors")
                )
                for name in method.targets(self.names)
            }
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}; finish the run that vectors are taken of") from error

    def view(self, method: Method, vectors: Mapping[str, TaskVector] | None = None) -> View:
        """A method's view of its vectors, or of others, which are then not kept in mind."""
        if vectors is not None:
            return self._view(method.view, vectors)
        found = self.vectors(method)
        seen = self._seen.get(method.name)
        if seen is None or seen[0] != method.view or seen[1] is not found:
            self._seen[method.name] = method.view, found, self._view(method.view, found)
        return self._seen[method.name][2]

    def _view(self, name: str, vectors: Mapping[str, TaskVector]) -> View:
        one_of("view", name, self.views)
        for task, tau in vectors.items():
            _check_moves(self.model, f"the vector of {task!r}", tau.delta)
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

"""The main job: methods of fine-tuning and of merging side by side, on one study.

    found = compare(Study(model, tasks, control="digits", store="runs/mine"))
    found.report()                                       # tables, figures, page
    found.results.single["linear"]                       # (S, T): seeds, tasks

Choices are made on validation data; test data make the report. Every metric is the objectives':
what is written ``accuracy`` below is the primary metric of each task, whatever that is.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize import current, edit, fields, hosts, identity, io, merge, methods, tree
from linearize.choices import one_of
from linearize.data.records import SPLITS
from linearize.disentangle import ErrorMap
from linearize.evaluate.view import Tangent, View
from linearize.explored import explorable, explored
from linearize.merge import MERGES, Merge
from linearize.methods import LINEAR, METHODS, NONLINEAR, POSTHOC, named
from linearize.models import Model
from linearize.objectives import Control, Metric
from linearize.report import schema
from linearize.report.compare.results import Results
from linearize.report.run import Run
from linearize.report.style import Look
from linearize.study import Job, Method, Study, fine_tunings, stack
from linearize.study.maps import distance_of, error_map, looked_at, mapped
from linearize.study.store import Record, Store, begin
from linearize.task_vector import TaskVector


@dataclass(frozen=True)
class Row:
    """A merge of a method's vectors, in the method's view."""

    merge: Merge
    method: Method
    name: str = ""
    """As results call it; made of both names by default."""
    title: str = ""
    """As tables and figures call it; made of both labels by default."""

    @property
    def key(self) -> str:
        """As results call it."""
        return self.name or f"{self.merge.name}_{self.method.name}"

    @property
    def label(self) -> str:
        """As tables and figures call it."""
        method = self.method
        return self.title or Look({method.key: method.label}).joined(self.merge.label, method.key)


@dataclass(frozen=True)
class Plan:
    """What is compared, and how coefficients are chosen."""

    methods: Sequence[Method] = (NONLINEAR, POSTHOC, LINEAR)
    rows: Sequence[Row] = ()
    """Merges beside the sum, which every method gets."""
    alphas: np.ndarray = field(default_factory=lambda: edit.search.ALPHAS)
    """(A,) scaling coefficients that are tried."""
    sweep_test: bool = True
    """Measure test data along all of α for the figure, not at the chosen α alone."""
    tolerance: Control = Control()
    """How much worse negation may make the control task."""
    pairs: Sequence[tuple[str, str]] = ()
    """Tasks whose disentanglement error is mapped."""
    map_alphas: np.ndarray = field(default_factory=lambda: np.linspace(-3.0, 3.0, 25))
    """(G,) coefficients of a map, on both axes; any rising ones. What is said of the search box is
    of those that lie in it, so its ends and 0 belong among them, as here; a page tells where the
    ends do not."""
    n_eval: int = 500
    """Examples of each task that a map looks at."""
    search_box: tuple[float, float] = (-1.0, 1.0)
    """The part of a map's axes that its figure marks."""

    def __post_init__(self) -> None:
        """Make arrays of the grids.

        Raises:
            ValueError: a grid that is not of rising finite numbers, ``n_eval`` below 1, or a search
                box in which no coefficient lies.
        """
        object.__setattr__(self, "alphas", fields.rising("alphas", self.alphas))
        object.__setattr__(self, "map_alphas", fields.rising("map_alphas", self.map_alphas, 2))
        fields.integer("n_eval", self.n_eval, low=1)
        fields.box("search_box", self.search_box, self.map_alphas)

    @property
    def regimes(self) -> list[Method]:
        """The methods whose vectors are added and negated."""
        return [method for method in self.methods if method.stands == "regime"]

    @property
    def baselines(self) -> list[Method]:
        """The others."""
        return [method for method in self.methods if method.stands != "regime"]

    def parts(self, extra: int = 0) -> int:
        """How many parts the measuring of a seed has: fine-tunings, files of numbers, scores."""
        trained = sum(method.train is not None for method in self.regimes)
        files = 1 + 3 * len(self.regimes) + len(self.pairs) + len(self.baselines) + len(self.rows)
        return trained + files + 1 + extra


R = TypeVar("R", bound=Run)


@dataclass(frozen=True)
class Measured(Generic[R]):
    """What was measured, and where that is kept."""

    results: R
    store: Store

    @property
    def record(self) -> Record:
        """The same as JSON has it: ``results.json``."""
        return schema.record(self.results)

    def report(self, directory: str | Path | None = None) -> Path:
        """Tables, figures and ``report.html``; the page's path.

        Args:
            directory: where they go; that of the study by default.

        Raises:
            ValueError: no directory, and the study is kept in memory.
        """
        from linearize import report  # matplotlib, which only who draws should wait for

        where = self.store.root if directory is None else Path(directory)
        if where is None:
            raise ValueError("the study is kept in memory: report(directory) says where files go")
        if where != self.store.root:
            place = Store.of(where)
            place.write("results.json", self.record)
            carry(self.store, place)
        return Path(hosts.told(lambda: str(report.write_all(where))))


class Comparison(Measured[Results]):
    """What a comparison measured, and where that is kept."""


DEFAULT = ("nonlinear", "posthoc", "linear")
"""The methods that are compared where none are named."""


def compare(
    study: Study,
    methods: Sequence[str | Method] = DEFAULT,
    merges: Sequence[str | Merge] = (),
    *,
    seeds: Sequence[int] | None = None,
    maps: Sequence[tuple[str, str]] | None = None,
    plan: Plan | None = None,
) -> Comparison:
    """Train, add, negate and map: every method, every merge in every method's view.

    What the study's store already holds is not computed again.

    Args:
        study: of one seed; of others the same is made with their heads and data order.
        methods: rows of :data:`linearize.methods.METHODS`, also with options, as
            ``"lora:rank=8"`` (:func:`linearize.methods.named`), or one's own.
        merges: rows of :data:`linearize.merge.MERGES`, or one's own, beside the sum.
        seeds: the study's alone by default; intervals want several.
        maps: pairs of tasks whose disentanglement error is mapped; the first that can be, if None.
        plan: grids and tolerances; its methods, merges and pairs give way to those here.

    Returns:
        Every measurement, seeds first.

    Raises:
        ValueError: a name that no row has (the nearest is suggested), or two have; a seed twice, or
            several of one borrowed folder; no method whose vectors are added, or a baseline without
            what it is held against; a control, and no 0 among the plan's ``alphas``.
        RunMismatchError: the store holds a study of another model, data or configuration.
    """
    every = _seeds(study, seeds)
    return _compared(study, _wanted(study, methods, merges, maps, plan), every)


def job(
    study: Study,
    methods: Sequence[str | Method] = DEFAULT,
    merges: Sequence[str | Merge] = (),
    *,
    seeds: Sequence[int] | None = None,
    maps: Sequence[tuple[str, str]] | None = None,
    plan: Plan | None = None,
) -> Job[Comparison]:
    """:func:`compare` as a job that several processes share; its arguments, in each of them.

    Each calls ``job(...).work()``, which returns the comparison where the process was the last, and
    None elsewhere.

    Raises:
        ValueError: as there; or the study is kept in memory.
    """
    store, every = study.store, _seeds(study, seeds)
    if store.root is None:
        raise ValueError("processes share a directory, and the study is kept in memory: give store")
    wanted = _wanted(study, methods, merges, maps, plan)
    trained = wanted.methods if study.borrowed is None else ()
    return Job(
        store.root,
        fine_tunings(store, every, trained, study.names, lambda seed, _: study.with_seed(seed)),
        lambda: store.claimed(identity_of(study, wanted), shared=True),
        partial(_compared, study, wanted, every),
    )


def _wanted(
    study: Study,
    methods: Sequence[str | Method],
    merges: Sequence[str | Merge],
    maps: Sequence[tuple[str, str]] | None,
    plan: Plan | None,
) -> Plan:
    """What is asked for, checked."""
    for name, rows in (("methods", methods), ("merges", merges)):
        if isinstance(rows, str):
            raise ValueError(f"{name}={rows!r}; expected a sequence of rows, such as [{rows!r}]")
    regimes = [named(each, METHODS) if isinstance(each, str) else each for each in methods]
    _check_methods(study, regimes)
    pairs = itertools.combinations(study.names, 2)
    wanted = replace(
        plan or Plan(),
        methods=regimes,
        rows=_rows(study, [_row(each) for each in merges], regimes),
        pairs=tuple(itertools.islice((p for p in pairs if mapped(study, p)), 1))
        if maps is None
        else tuple(maps),
    )
    if study.control is not None and not (wanted.alphas == 0).any():
        raise ValueError(
            f"alphas={wanted.alphas.tolist()} lacks 0, the pre-trained model, beside which "
            f"negation holds the control task {study.control!r}; add it, or give no control"
        )
    for task in study.epochs:
        one_of("epochs", task, study.names)
    for name in study.recipes:
        one_of("recipes", name, [*METHODS, *(method.trainer.name for method in regimes)])
    for pair in wanted.pairs:
        if isinstance(pair, str) or len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(f"maps: {pair!r}; expected pairs of two tasks, such as ('a', 'b')")
        for task in pair:
            one_of("maps: task", task, study.names)
    keys = [*(method.key for method in regimes), *(row.key for row in wanted.rows)]
    if twice := sorted({key for key in keys if keys.count(key) > 1}):
        raise ValueError(
            f"methods and merges name {', '.join(map(repr, twice))} twice; give each row a name of "
            "its own"
        )
    return wanted


def _compared(study: Study, wanted: Plan, every: Sequence[int]) -> Comparison:
    store = study.store
    parts = wanted.parts(-len(wanted.regimes) if study.control is None else 0)
    with store.claimed(identity_of(study, wanted)):
        measured = store.every_seed(
            every, parts, lambda seed, _: measure(study.with_seed(seed), wanted)
        )
        found = Comparison(gathered(study, wanted, every, measured), store)
        store.write("results.json", found.record)
        carry(store.under(f"seed_{every[0]}"), store)
    return found


def _seeds(study: Study, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """The seeds, each once: an interval over seeds takes them for draws of their own."""
    every = (study.seed,) if seeds is None else seeds
    if not isinstance(every, Sequence) or isinstance(every, str) or not every:
        raise ValueError(f"seeds={seeds!r}; expected a sequence of whole numbers, such as [0, 1]")
    if len(set(every)) != len(every):
        raise ValueError(f"seeds={list(every)}; give each seed once")
    if study.borrowed is not None and len(every) > 1:
        raise ValueError(
            f"seeds={list(every)}: all would take the vectors of borrowed={str(study.borrowed)!r}, "
            "and an interval count one draw several times; compare one seed, or leave borrowed out"
        )
    return tuple(every)


def _row(given: str | Merge) -> Merge:
    return MERGES[one_of("merges", given, MERGES)] if isinstance(given, str) else given


def _rows(study: Study, merges: Sequence[Merge], methods: Sequence[Method]) -> list[Row]:
    """Every merge of every method's vectors, in whose view it can be."""
    regimes = [method for method in methods if method.stands == "regime"]
    rows = [Row(each, m) for each in merges for m in regimes if fits(study.views, each, m)]
    for each in merges:
        if not any(row.merge is each for row in rows):
            raise ValueError(
                f"merge {each.name!r} is for views that are affine in the coefficients, and "
                f"methods={[m.name for m in regimes]} has none; name 'linear', say, too"
            )
    return rows


def fits(views: Mapping[str, type[View]], merge: Merge, method: Method) -> bool:
    """Whether a merge is for the method's view, which is among these."""
    return not merge.affine or issubclass(views[method.view], Tangent)


def _check_methods(study: Study, methods: Sequence[Method]) -> None:
    names = [method.name for method in methods]
    if not any(method.stands == "regime" for method in methods):
        raise ValueError(f"methods={names}: none has task vectors to add; name 'linear', say, too")
    for method in methods:
        if method.stands == "negation" and study.control is None:
            raise ValueError(f"method {method.name!r} is of negation: give the study a control=")
        if method.trainer.controlled and study.control is None:
            raise ValueError(
                f"method {method.name!r} trains with the control task: give the study a control="
            )
        against = method.of if method.stands != "regime" else None
        if against is not None and against.name not in names:
            raise ValueError(
                f"methods={names}: {method.name!r} is held against {against.name!r}; name that too"
            )


def carry(source: Store, place: Store) -> None:
    """Keep the arrays of the live explorer in another place too, where there are any."""
    explorer = source.read_bytes("explorer.npz")
    if explorer is not None:
        place.write_bytes("explorer.npz", explorer)


def gathered(
    study: Study,
    plan: Plan,
    seeds: Sequence[int],
    measured: Record,
    told: Record | None = None,
) -> Results:
    """All seeds' measurements, as the schema has them that ``results.json`` is read by.

    Args:
        study: of one of the seeds.
        plan: what was compared.
        seeds: in the order of the measurements.
        measured: what :meth:`linearize.study.Store.every_seed` makes of :func:`measure`.
        told: keys that a study alone cannot know, such as the preset's name.
    """
    maps = {"maps": maps_of(study, plan, measured)}
    found = {**describe(study, plan, seeds), **measured, **maps, **(told or {})}
    return schema.read(Results, io.to_json(found))


def maps_of(study: Study, plan: Plan, measured: Record) -> list[Record]:
    """The seeds' error maps by pair, with what their figures say of them."""
    by_pair = zip(*measured["maps"], strict=True)
    return [
        {"tasks": list(pair), **map_facts(study, plan, pair), **stack(list(seeds))}
        for pair, seeds in zip(plan.pairs, by_pair, strict=True)
    ]


def map_facts(study: Study, plan: Plan, pair: tuple[str, str]) -> Record:
    """What a map's figure says of it."""
    distance = distance_of(study, pair)
    examples = looked_at((study.split(task, "test") for task in pair), plan.n_eval)
    return {
        "n_eval": min(examples),
        "examples": examples,
        "search_box": list(plan.search_box),
        "alphas": np.asarray(plan.map_alphas).tolist(),
        "distance": "argmax disagreement" if distance.binary else distance.name.replace("_", " "),
        "farthest": None if np.isnan(distance.farthest) else distance.farthest,
        "reduction": "sum",
    }


def describe(study: Study, plan: Plan, seeds: Sequence[int]) -> Record:
    """What was compared, on what, by which versions."""
    rows: list[Method | Row] = [*plan.methods, *plan.rows]
    words = {method.label: method.about for method in plan.methods}
    words |= {row.title or row.merge.label: row.merge.about for row in plan.rows}
    return {
        "preset": "custom",
        "versions": io.versions(),
        "seeds": list(seeds),
        "model": describe_model(study.model),
        "tasks": list(study.names),
        "classes": {n: list(c) for n in study.names if (c := study.tasks[n].classes)},
        "counts": {name: task.counts for name, task in study.tasks.items()},
        "skipped": {name: dict(t.skipped) for name, t in study.tasks.items() if t.skipped},
        "metrics": {n: each.primary.described() for n, each in study.objectives.items()},
        "labels": {row.key: row.label for row in rows},
        "about": {word: about for word, about in words.items() if about},
        "explored": next((method.name for method in explorable(study, plan.regimes)), None),
        "alphas": np.asarray(plan.alphas).tolist(),
        "control_task": study.control,
        "control_share": plan.tolerance.retained,
        "control_units": plan.tolerance.units,
    }


def describe_model(model: Model) -> Record:
    """Name, number of blocks, and number of parameters."""
    parameters = sum(np.size(leaf) for leaf in tree.flatten(model.params).values())
    return {"name": model.name, "blocks": len(model.blocks), "parameters": parameters}


def identity_of(study: Study, plan: Plan) -> Record:
    """All that decides the numbers, as JSON: models and data by their content."""
    model, (name, *_) = study.model, study.names
    args = study.split(name, "test").alone
    return io.to_json(
        {
            "f": identity.of(model.f, model.params, *args, derivative=True),
            "base": tree.fingerprint(model.params),
            "data": {
                task: {split: study.split(task, split).fingerprint for split in SPLITS}
                for task in study.tasks
            },
            "objectives": {n: objective_of(study, n) for n in study.tasks},
            "control": study.control,
            "recipes": {n: asdict(recipe) for n, recipe in study.recipes.items()},
            "trainable": study.trainable,
            "epochs": dict(study.epochs),
            "methods": [_written(m, m.name, (m.of or m).train, m.train) for m in plan.methods],
            "views": {m.name: m.view for m in plan.methods if not _known(m)},
            "feed": "" if study.feed is dict else current.written(study.feed),
            "rows": [
                _written(
                    *(row.merge, row.key, row.merge.directions),
                    *(row.merge.options or None, row.merge.statistics),
                )
                for row in plan.rows
            ],
            "plan": {
                "alphas": np.asarray(plan.alphas).tolist(),
                "tolerance": asdict(plan.tolerance),
                "pairs": list(plan.pairs),
                "map_alphas": np.asarray(plan.map_alphas).tolist(),
                "n_eval": plan.n_eval,
                "sweep_test": plan.sweep_test,
            },
            **(
                {}
                if study.borrowed is None
                else {"borrowed": {m.trainer.name: study.lent(m) for m in plan.methods}}
            ),
        }
    )


def _known(row: Method | Merge) -> bool:
    return any(row is known for room in (methods, merge) for known in vars(room).values())


def _written(row: Method | Merge, name: str, *functions: Any) -> str:
    """A row's name; of one's own also a hash of how its functions are written."""
    if _known(row):
        return name
    found = current.written(*(f for f in functions if f is not None))
    return f"{name} {found[:16]}" if found else name


def objective_of(study: Study, task: str) -> str:
    """What it measures, what training lowers, and what maps compare, as programs."""
    objective = study.objectives[task]
    examples, trained = (study.split(task, s).take(slice(1)) for s in ("test", "train"))
    args = examples.alone
    outputs = jax.eval_shape(study.model.f, study.model.params, *args)
    targets, batch = (identity.shapes(dict(each.targets)) for each in (examples, trained))
    batch |= dict(zip(trained.arguments, args, strict=True))
    kept = jax.eval_shape(objective.kept, outputs, targets)
    programs = [
        identity.of(objective.statistics, outputs, targets),
        identity.of(objective.loss, outputs, batch, derivative=True),
        identity.of(objective.kept, outputs, targets),
        identity.of(objective.distance.between, kept, kept),
        current.written(type(objective).between, type(objective).counted),
    ]
    return " ".join((type(objective).__name__, str(objective.primary), *filter(None, programs)))


def measure(
    study: Study, plan: Plan, more: Mapping[str, Callable[[], Any]] | None = None
) -> Record:
    """One seed's measurements; each part is kept as soon as it is measured.

    Args:
        study: of the seed.
        plan: what is compared.
        more: further parts of the record, by name.

    Returns:
        ``pretrained`` and ``control_pretrained`` (T,); ``single`` (T,), ``addition``, ``negation``
        and ``cosine`` (T, T) by method or row; ``maps``, an entry a pair; what ``more`` gives.
    """
    for row in plan.rows:
        row.merge.check(study, methods.moving(study, row.method))
    views = trained(study, plan)
    for row in plan.rows:
        row.merge.check_moved(study.vectors(row.method))
    kept = study.store.kept

    def each(name: str, of: Callable[[View], Any]) -> dict[str, Any]:
        return {m: kept(f"{name}_{m}", partial(of, view)) for m, view in views.items()}

    record: Record = {**kept("pretrained", partial(pretrained, study, cheapest(views)))}
    record["single"] = each("single", study.singles)
    record["addition"] = {
        m: kept(f"addition_{m}", partial(addition, study, plan, view, record["single"][m]))
        for m, view in views.items()
    }
    if study.control is not None:
        record["negation"] = each("negation", partial(negation, study, plan))
    record["cosine"] = {
        method.name: cosines(study.vectors(method)) for method in plan.regimes if method.train
    }
    record["maps"] = every_map(study, plan, views)
    record |= {name: kept(name, make) for name, make in (more or {}).items()}
    for row in plan.rows:
        _enter(record, row.key, kept(row.key, partial(merged, study, plan, row)))
    for method in plan.baselines:
        _enter(record, method.name, kept(method.name, partial(baseline, study, method, record)))
    begin("class scores for the report's sliders")
    explorer = explored(study, plan.regimes)
    if explorer is not None:
        study.store.write_bytes("explorer.npz", explorer)
    return record


def _files(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """A name for each pair's map: that of ``a_b`` and ``c`` is not that of ``a`` and ``b_c``."""
    names = ["map_" + "_".join(pair) for pair in pairs]
    return [name + "_again" * names[:i].count(name) for i, name in enumerate(names)]


def trained(study: Study, plan: Plan) -> dict[str, View]:
    """Every regime's vectors, trained or read, and its view of them, by name."""
    for method in plan.regimes:
        if method.train is not None:
            begin(f"{method.name} fine-tuning")
            study.vectors(method)
    return {method.name: study.view(method) for method in plan.regimes}


def cheapest(views: Mapping[str, View]) -> View:
    """A view to measure θ0 by: the last of those whose points take no passes, if there are any."""
    return min(reversed(list(views.values())), key=lambda view: view.passes)


def _enter(record: Record, name: str, tables: Mapping[str, Any]) -> None:
    for table, row in tables.items():
        record.setdefault(table, {})[name] = row


def metrics(study: Study) -> list[Metric]:
    """Each trained task's primary metric."""
    return [study.objectives[task].primary for task in study.names]


def pretrained(study: Study, view: View) -> Record:
    """What θ0 reaches, on each task and, once a task, on the control task."""
    found = {"pretrained": [study.pretrained(view, task) for task in study.names]}
    if study.control is not None:
        before = study.pretrained(view, study.control)
        found["control_pretrained"] = [before] * len(study.names)
    return found


def addition(
    study: Study,
    plan: Plan,
    view: View,
    single: Sequence[float],
    choice: edit.ScaleSearch | None = None,
) -> Record:
    """All directions of a view added with one α, which validation data choose.

    Args:
        study: of the view.
        plan: the candidates.
        view: a direction for each task, under its name, or others.
        single: (T,) each task's metric on test data that the sum is normalized by.
        choice: what was chosen before; of a view that has a direction for each task, made here.
    """
    choice = choice or searched(study, plan, view, study.singles(view, "validation"))
    tested = np.unique([*(plan.alphas if plan.sweep_test else ()), choice.alpha, 1.0])
    found = dict(zip(tested.tolist(), along(study, view, tested, "test").tolist(), strict=True))
    reached, full = found[choice.alpha], found[1.0]
    return {
        "alpha": choice.alpha,
        "accuracy": reached,
        "normalized": normalized(study, reached, single),
        "full": full,
        "full_normalized": normalized(study, full, single),
        "sweep_validation": choice.values.tolist(),
        **({"sweep_test": [found[a] for a in plan.alphas.tolist()]} if plan.sweep_test else {}),
    }


def searched(study: Study, plan: Plan, view: View, single: Sequence[float]) -> edit.ScaleSearch:
    """The α that validation data choose for all directions of a view.

    Args:
        study: of the view.
        plan: the candidates.
        view: the directions.
        single: (T,) each task's metric on validation data that the sum is normalized by.
    """
    return choose(study, along(study, view, plan.alphas, "validation"), single, plan.alphas)


def along(study: Study, view: View, alphas: ArrayLike | Sequence[float], split: str) -> np.ndarray:
    """Each task's metric with all directions at one α, (A, T)."""
    every = dict.fromkeys(view.vectors, np.asarray(alphas))
    return np.stack([study.measure(view, every, task, split) for task in study.names], -1)


def choose(
    study: Study, sweep: np.ndarray, single: ArrayLike | Sequence[float], alphas: np.ndarray
) -> edit.ScaleSearch:
    """The α that :func:`along` of validation data is best at, on the mean of the tasks."""
    alone = np.asarray(single)
    return edit.search_scale(sweep, alone, alphas, metrics=metrics(study), names=study.names)


def normalized(study: Study, values: Sequence[float], single: Sequence[float]) -> list[float]:
    """Each task's normalized value, where its metric knows shares."""
    found = choose(study, np.asarray(values)[None], single, np.ones(1))
    return [float(value) for value in found.normalized[0]]


def negation(study: Study, plan: Plan, view: View) -> Record:
    """Each task's direction subtracted, with the α that validation data choose under control."""
    control = study.control
    assert control is not None
    rows = []
    for task in study.names:
        target, kept = (
            study.measure(view, {task: -plan.alphas}, t, "validation") for t in (task, control)
        )
        choice = edit.search_negation(
            target,
            kept,
            plan.alphas,
            tolerance=plan.tolerance,
            metrics=study.objectives[task].primary,
            control_metric=study.objectives[control].primary,
        )
        after = {task: -float(choice.alpha)}
        rows.append(
            {
                "alpha": float(choice.alpha),
                "target": study.at(view, after, task, "test"),
                "control": study.at(view, after, control, "test"),
            }
        )
    return stack(rows)


SUMMARY = ("single", "addition", "normalized", "alpha", "norm")


def summary(study: Study, view: View, plan: Plan) -> dict[str, float]:
    """Means over tasks: single-task metric, metric after addition, α, norm of the vectors."""
    single = study.singles(view)
    added = addition(study, plan, view, single)
    norms = [float(tau.norm()) for tau in view.vectors.values()]
    values = (single, added["accuracy"], added["normalized"], added["alpha"], norms)
    return {name: float(np.mean(v)) for name, v in zip(SUMMARY, values, strict=True)}


def cosines(taus: Mapping[str, TaskVector]) -> list[list[float]]:
    """Cosine similarity of every two task vectors."""
    return [[float(a.cosine(b)) for b in taus.values()] for a in taus.values()]


def every_map(study: Study, plan: Plan, views: Mapping[str, View]) -> list[Record]:
    """:func:`error_maps` of each pair, kept as soon as it is measured."""
    return [
        study.store.kept(name, partial(error_maps, study, plan, views, pair))
        for name, pair in zip(_files(plan.pairs), plan.pairs, strict=True)
    ]


def error_maps(
    study: Study, plan: Plan, views: Mapping[str, View], pair: tuple[str, str]
) -> Record:
    """Disentanglement error of one pair of tasks in all regimes, on one grid."""
    maps: dict[str, ErrorMap] = {
        name: error_map(study, view, pair, plan.map_alphas, plan.n_eval)
        for name, view in views.items()
    }
    return {
        "per_task": {name: np.asarray(m.per_task).tolist() for name, m in maps.items()},
        "total": {name: np.asarray(m.total).tolist() for name, m in maps.items()},
    }


def merged(
    study: Study,
    plan: Plan,
    row: Row,
    measured: Callable[[], Mapping[str, Any]] | None = None,
    single: Callable[[str], Sequence[float]] | None = None,
    plain: bool = False,
) -> Record:
    """A merge added and, where it has a direction for each task, negated, in its method's view.

    Its hyper-parameters and α are those that validation data choose together. Its accuracies are
    normalized by those of the method's vectors, as the method's own sum's are.

    Args:
        study: of the tasks that are merged.
        plan: the candidates for α.
        row: the merge, and whose vectors.
        measured: what the merge takes of data, as keywords; measured here where nobody else did.
        single: of a split each task's metric with its own vector, (T,); likewise.
        plain: measure it at the authors' α and hyper-parameters too, which nothing searched.

    Raises:
        ValueError: a vector that is zero, which no merge but plain addition takes.
    """
    row.merge.check_moved(study.vectors(row.method))
    own = cache(single or (lambda split: study.singles(study.view(row.method), split)))
    started = time.perf_counter()
    told = dict(row.merge.measured(study, row.method) if measured is None else measured())
    before = time.perf_counter() - started
    reference = own("validation")
    tried = (_candidate(study, plan, row, reference, told, o) for o in row.merge.candidates())
    first = next(tried)
    best = max(itertools.chain([first], tried), key=lambda each: each.score)  # of equal ones first
    added = addition(study, plan, best.view, own("test"), best.choice)
    added |= {"options": best.options, "seconds": before + best.seconds}
    gaps = [tau.meta["gap"] for tau in best.view.vectors.values() if "gap" in tau.meta]
    added |= {"gap": max(gaps)} if gaps else {}
    if plain:
        added["plain"] = along(study, first.view, [row.merge.alpha], "test")[0].tolist()
    tables = {"addition": added}
    if by_task(study, best.view) and study.control is not None:
        tables["negation"] = negation(study, plan, best.view)
    return tables


@dataclass(frozen=True, eq=False)
class _Candidate:
    """A merge with one choice of its hyper-parameters."""

    options: dict[str, float]
    view: View
    choice: edit.ScaleSearch
    seconds: float
    """That the merging took, without what it takes of data."""

    @property
    def score(self) -> float:
        """What the search maximises."""
        return float(self.choice.normalized[self.choice.index].mean())


def by_task(study: Study, view: View) -> bool:
    """Whether a view has a direction for each task."""
    return set(study.names) <= set(view.vectors)


def _candidate(
    study: Study,
    plan: Plan,
    row: Row,
    single: Sequence[float],
    told: Mapping[str, Any],
    options: dict[str, float],
) -> _Candidate:
    vectors, started = study.vectors(row.method), time.perf_counter()
    directions = row.merge.directions(vectors, study.seed, **told, **options)
    jax.block_until_ready(directions)
    seconds = time.perf_counter() - started
    view = study.view(row.method, directions)
    return _Candidate(options, view, searched(study, plan, view, single), seconds)


def baseline(study: Study, method: Method, record: Record) -> Record:
    """What a method's vectors in full stand beside in a table."""
    view = study.view(method)
    if method.stands == "negation":
        control = study.control
        assert control is not None
        return {
            "negation": {
                "target": study.singles(view),
                "control": [study.at(view, {t: 1.0}, control, "test") for t in study.names],
            }
        }
    found = [study.at(view, {method.name: 1.0}, task, "test") for task in study.names]
    assert method.of is not None
    single = record["single"][method.of.name]
    return {"addition": {"accuracy": found, "normalized": normalized(study, found, single)}}

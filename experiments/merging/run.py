"""Every merge of every method's task vectors, in the method's view, by number of tasks.

    python -m experiments.merging packaged

For each seed, method, merge and number of tasks (the first ones): hyper-parameters and α chosen on
validation data, test accuracy there, and the same at the authors' own without a search; how long
merging took and how much it held. A method's vectors are trained once, with all tasks at hand.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from experiments import claims, protocol, running, vectors
from experiments.claims import Claim
from experiments.merging.config import MergingConfig
from experiments.merging.memory import held
from experiments.merging.results import Results
from linearize import comparison, edit
from linearize.comparison import Plan, Row
from linearize.data import Task
from linearize.evaluate.view import VIEWS
from linearize.merge import MERGES, TRAINING, Merge
from linearize.methods import METHODS, moving, weighted
from linearize.report import schema
from linearize.study import FineTuning, Method, Store, Study
from linearize.study.store import Record
from linearize.task_vector import TaskVector

log = logging.getLogger(__name__)


def run(config: MergingConfig, run_dir: Path, preset: str = "custom") -> Path:
    """Everything from task vectors to ``report.html``, whose path is returned."""
    config = vectors.resolve(config)
    methods = compared(config)
    vectors.check_lent(config, methods)
    with running.claimed(run_dir, config):
        tasks, store = protocol.load_tasks(config, methods=methods), Store.of(run_dir)
        rows = sum(len(merges(config, method)) for method in methods)
        parts = 1 + len(methods) + rows * len(config.numbers)
        measured = store.every_seed(
            config.seeds, parts, lambda seed, place: measure(config, tasks, seed, place, methods)
        )
        model = protocol.describe_model(config.model, config.seeds[0])
        named: list[Method | Merge] = [*methods, *(MERGES[name] for name in config.merged)]
        found = running.about("merging", preset, config, model) | measured
        found |= {
            "tasks": config.data.tasks,
            "numbers": config.numbers,
            "labels": {row.name: row.label for row in named},
            "takes": {name: MERGES[name].takes for name in config.merged},
        }
        return running.finish(run_dir, claims.judged(schema.read(Results, found), CLAIMS))


def fine_tunings(config: MergingConfig, run_dir: Path) -> list[FineTuning]:
    """Those of every seed and method."""
    return vectors.fine_tunings(config, run_dir, compared(config))


def compared(config: MergingConfig) -> list[Method]:
    """The methods whose vectors are merged, each with its λ."""
    return [weighted(METHODS[name], config.weights) for name in config.compared]


def merges(config: MergingConfig, method: Method) -> list[Merge]:
    """Those that the method's view can have, but for what is left out."""
    rows = [MERGES[name] for name in config.merged if (method.name, name) not in config.without]
    return [
        replace(row, statistics=partial(row.statistics, examples=config.examples))
        if row.statistics is not None and row.takes == TRAINING
        else row
        for row in rows
        if comparison.fits(VIEWS, row, method)
    ]


def measure(
    config: MergingConfig,
    tasks: Mapping[str, Task],
    seed: int,
    place: Store,
    methods: list[Method],
) -> Record:
    """One seed's record."""
    study = vectors.study(config, tasks, seed, place).but(views=VIEWS)  # each merge is seen once
    found: dict[str, Any] = {}
    for method in methods:
        for each in merges(config, method):
            each.check(study, moving(study, method))
    for method in methods:
        single = place.kept(f"single_{method.name}", partial(alone, study, method))
        fewer = {k: first(study, k) for k in config.numbers}
        rows = {
            m.name: of_merge(config, study, fewer, method, m, single)
            for m in merges(config, method)
        }
        found[method.name] = {"single": single["test"], "merges": rows}

    def pretrained() -> list[float]:
        view = study.view(methods[-1])
        return [study.pretrained(view, task) for task in study.names]

    return {"pretrained": place.kept("pretrained", pretrained), "methods": found}


def alone(study: Study, method: Method) -> dict[str, list[float]]:
    """Each task's accuracy with its own vector, on both splits; views of one vector cost least."""
    views = {t: study.view(method, {t: tau}) for t, tau in study.vectors(method).items()}
    return {
        split: [study.at(view, {task: 1.0}, task, split) for task, view in views.items()]
        for split in ("validation", "test")
    }


def first(study: Study, size: int) -> Study:
    """The same study of the first tasks, whose vectors were trained with all tasks at hand."""
    return study.but(
        tasks={name: study.tasks[name] for name in study.names[:size]},
        control=None,
        borrowed=study.borrowed or study.store.root,
    )


def of_merge(
    config: MergingConfig,
    study: Study,
    fewer: Mapping[int, Study],
    method: Method,
    merge: Merge,
    single: Mapping[str, list[float]],
) -> Record:
    """One merge of one method's vectors, of each number of tasks."""
    whole = cache(partial(merge.measured, study, method))

    def of(k: int) -> Record:
        told = whole if merge.by_task else partial(merge.measured, fewer[k], method)
        return of_size(config, fewer[k], Row(merge, method), told, single)

    name = f"{method.name}_{merge.name}"
    return {str(k): study.store.kept(f"{name}_{k}", partial(of, k)) for k in config.numbers}


def of_size(
    config: MergingConfig,
    study: Study,
    row: Row,
    measured: Callable[[], Mapping[str, Any]],
    single: Mapping[str, list[float]],
) -> Record:
    """A merge of a study's vectors; its directions are one, which a tangent view sees in 3 passes.

    ``bytes`` is what the largest of its candidates held.
    """
    largest = 0

    def directions(*args: Any, **options: Any) -> dict[str, TaskVector]:
        nonlocal largest
        found, size = held(lambda: list(row.merge.directions(*args, **options).values()))
        largest = max(largest, size)
        return {row.merge.name: found[0] if len(found) == 1 else edit.add(found)}

    one = replace(row, merge=replace(row.merge, directions=directions))
    plan = Plan(alphas=config.edit.alphas, sweep_test=False)
    own = {split: values[: len(study.names)] for split, values in single.items()}
    tables = comparison.merged(study, plan, one, measured, own.__getitem__, plain=True)
    return {**tables["addition"], "bytes": largest}


def _ahead(merge: str, than: str, method: str, words: str) -> Claim[Results]:
    return Claim(
        f"{words} ({method})",
        lambda r: r.mean(method, merge, r.most) - r.mean(method, than, r.most),
        f"test accuracy of all tasks merged, {merge} minus {than}",
    )


CLAIMS: tuple[Claim[Results], ...] = tuple(
    _ahead(merge, "sum", method, f"{words} than the sum")
    for method in ("nonlinear", "linear", "tau_jp")
    for merge, words in (
        ("ties", "TIES merges better"),
        ("tsv_m", "TSV-M merges better"),
        ("iso_c", "Iso-C merges better"),
    )
)

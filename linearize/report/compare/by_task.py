"""Tables with a row a task."""

from collections.abc import Mapping

from linearize.objectives.metric import ACCURACY
from linearize.report.compare.best import highlighted
from linearize.report.compare.measures import Measures, arrow, axis, capital, lower_is_better
from linearize.report.compare.phrases import (
    better,
    chances,
    control_phrase,
    examples_phrase,
    normalized_measures,
    normalized_phrase,
)
from linearize.report.compare.results import Results
from linearize.report.node import Floats
from linearize.report.stats import seeds_phrase
from linearize.report.table import MEAN, NONE, Cell, Table, freeze


def _by_task(
    results: Results,
    name: str,
    title: str,
    caption: str,
    columns: Mapping[str, Floats],
    of: Measures,
    forgotten: bool = False,
) -> Table:
    """A row a task, and their mean where they share a metric; else the metric has a column."""
    methods = list(columns)
    rows = []
    for t, (task, metric) in enumerate(zip(results.tasks, of.each, strict=True)):
        cells = [of.of_task(columns[m], t) for m in methods]
        low = lower_is_better(metric, forgotten)
        kind = [] if of.shared else [Cell(f"{capital(axis(metric))} {arrow(metric, forgotten)}")]
        rows.append([Cell(task), *kind, *highlighted(results, cells, methods, low)])
    mean = [of.mean(columns[m]) for m in methods]
    if of.shared:
        mean = highlighted(results, mean, methods, lower_is_better(of.shared, forgotten))
    rows.append([Cell(MEAN), *([] if of.shared else [Cell(NONE)]), *mean])
    names = (results.look.label(m) for m in methods)
    heads = ("Task", *(() if of.shared else ("Metric",)), *names)
    return Table(name, title, f"{caption}{of.no_mean}", heads, freeze(rows))


def _with_pretrained(results: Results, more: Mapping[str, Floats]) -> dict[str, Floats]:
    columns = {"pretrained": results.pretrained}
    if results.random_init is not None:
        columns["random_init"] = results.random_init
    return columns | {m: more[m] for m in results.look.ordered(more)}


def single(results: Results) -> Table:
    """Single-task test metric of each regime."""
    of = results.measures
    return _by_task(
        results,
        "single",
        f"Single-task {of.name}",
        f"Test {of.in_units}{better(of)} after fine-tuning on the task alone. "
        f"{seeds_phrase(results.seeds)} {examples_phrase(results)}".strip(),
        _with_pretrained(results, results.single),
        of,
    )


def addition_by_task(results: Results) -> Table:
    """Each task's metric after the addition of all vectors."""
    of = results.measures
    return _by_task(
        results,
        "addition_by_task",
        f"Addition, per task: absolute {of.name}",
        f"Test {of.in_units}{better(of)} of the model with all vectors added. "
        f"{seeds_phrase(results.seeds)}",
        _with_pretrained(results, {m: a.accuracy for m, a in results.addition.items()}),
        of,
    )


def addition_by_task_normalized(results: Results) -> Table:
    """Each task's metric after addition as a share of what its own vector alone reaches."""
    columns = {
        m: normalized
        for m in results.look.ordered(results.addition)
        if (normalized := results.addition[m].normalized) is not None
    }
    of = normalized_measures(results)
    metric = results.measures.shared
    what = f"normalized, in %: {normalized_phrase(results)}"
    if metric is not None and metric.has_ratio and not lower_is_better(metric):
        what = f"{normalized_phrase(results)}, in %"
    return _by_task(
        results,
        "addition_by_task_normalized",
        f"Addition, per task: {of.name}",
        f"Test {results.measures.name} after addition {what}. {seeds_phrase(results.seeds)}",
        columns,
        of,
    )


def negation_by_task(results: Results, part: str) -> Table:
    """Each task's target or control metric after its vector was subtracted.

    Args:
        results: the run's results.
        part: ``"target"`` or ``"control"``.
    """
    forgotten = part == "target"
    of = results.measures if forgotten else results.control_measures
    before = results.pretrained if forgotten else results.control_pretrained
    columns = {} if before is None else {"pretrained": before}
    columns |= {
        m: getattr(results.negation[m], part) for m in results.look.ordered(results.negation)
    }
    what = "on the task itself" if forgotten else "on the control task"
    return _by_task(
        results,
        f"negation_{part}_by_task",
        f"Negation, per task: {part} {of.name}",
        f"Test {of.in_units} {what}{better(of, forgotten)} after subtracting the task's vector. "
        f"{control_phrase(results)} {seeds_phrase(results.seeds)}",
        columns,
        of,
        forgotten,
    )


def tasks(results: Results) -> Table:
    """The tasks: split sizes; classes and chance level, or another metric."""
    classify = ACCURACY in results.measures.each
    other = results.measures.shared != ACCURACY
    rows = []
    for task, metric, chance in zip(
        results.tasks, results.measures.each, chances(results), strict=True
    ):
        count = results.counts.get(task, {})
        n = len(results.classes.get(task, ()))
        sizes = [count.get(split) for split in ("train", "validation", "test")]
        row = [Cell(task)]
        row += [Cell(f"{capital(axis(metric))} {arrow(metric)}")] if other else []
        row += [Cell(str(n), n) if n else Cell(NONE)] if classify else []
        row += [Cell(NONE) if s is None else Cell(f"{s:,}", float(s)) for s in sizes]
        if classify:
            row.append(Cell(NONE) if chance is None else Cell(f"{chance:.1f}", chance))
        rows.append(row)
    chance_phrase = "; chance: 100 % divided by the number of classes" if classify else ""
    return Table(
        "tasks",
        "Tasks",
        f"Examples a split{chance_phrase}.",
        (
            "Task",
            *(("Metric",) if other else ()),
            *(("Classes",) if classify else ()),
            *("Train", "Validation", "Test"),
            *(("Chance",) if classify else ()),
        ),
        freeze(rows),
    )

"""Tables of each task's metric, error maps, cosines and claims."""

from collections.abc import Mapping
from functools import partial

import numpy as np

from linearize.objectives.metric import ACCURACY
from linearize.report import claims
from linearize.report.compare.measures import (
    Measures,
    arrow,
    axis,
    capital,
    lower_is_better,
    shown,
)
from linearize.report.compare.phrases import (
    better,
    chances,
    control_phrase,
    control_rule,
    examples_phrase,
    in_percent,
    normalized_measures,
    normalized_phrase,
    other_control,
    over_tasks,
    target,
)
from linearize.report.compare.results import Results
from linearize.report.compare.training import training
from linearize.report.node import Floats
from linearize.report.stats import seeds_phrase
from linearize.report.table import (
    MEAN,
    NONE,
    Cell,
    Table,
    freeze,
    number,
    percent,
    significant,
)


def _alpha(values: Floats | None) -> Cell:
    if values is None or not np.isfinite(values).all():
        return Cell(NONE)
    low, high, mean = float(values.min()), float(values.max()), float(values.mean())
    return Cell(f"{low:.2f}" if low == high else f"{low:.2f}–{high:.2f}", mean)


def _highlight(
    results: Results, rows: list[list[Cell]], methods: list[str], column: int, low: bool = False
) -> None:
    """Marks the best of the regimes and merges in a column, where two or more are there."""
    found = [
        (kept.value, i)
        for i, (row, m) in enumerate(zip(rows, methods, strict=True))
        if results.contends(m) and (kept := row[column]).value is not None
    ]
    if len(found) < 2:
        return
    best = (min if low else max)(value for value, _ in found)
    for value, i in found:
        if value == best:
            old = rows[i][column]
            rows[i][column] = Cell(old.text, old.value, old.half, best=True)


def _highlighted(
    results: Results, cells: list[Cell], methods: list[str], low: bool = False
) -> list[Cell]:
    column = [[cell] for cell in cells]
    _highlight(results, column, methods, 0, low)
    return [cell for (cell,) in column]


def summary(results: Results) -> Table:
    """The headline: each method's single-task, addition and negation means over the tasks."""
    look, of, controls = results.look, results.measures, results.control_measures
    methods = look.ordered({*results.single, *results.addition, *results.negation})
    before = of.mean(results.pretrained)
    rows = [[Cell(look.label("pretrained")), before, before, Cell(NONE)]]
    if results.negation:
        rows[0] += [before, controls.mean(results.control_pretrained)]
    for m in methods:
        added, negated = results.addition.get(m), results.negation.get(m)
        row = [
            Cell(look.label(m)),
            of.mean(results.single.get(m)),
            of.mean(None if added is None else added.accuracy),
            Cell(NONE)
            if added is None or added.normalized is None
            else percent(added.normalized.mean(-1)),
        ]
        if results.negation:
            row.append(of.mean(None if negated is None else negated.target))
            row.append(controls.mean(None if negated is None else negated.control))
        rows.append(row)
    better = of.shared is not None and lower_is_better(of.shared)
    columns = [(1, better), (2, better), (3, False)]
    columns += [(4, not better)] if results.negation else []
    for column, low in columns:
        _highlight(results, rows, ["pretrained", *methods], column, low)
    titles = ["Single task", "Addition"]
    heads = [of.heading(title) for title in titles]
    heads.append(in_percent(results, "Addition, normalized"))
    negation = ""
    if results.negation:
        heads += [of.heading("Negation: target", forgotten=True), "Negation: control"]
        negation = f"Negation: {target(of)}, control should stay{other_control(results)}. "
    contenders = "the regimes and merges" if results.merged else "the regimes"
    return Table(
        "summary",
        "Summary",
        f"{over_tasks(results)} {seeds_phrase(results.seeds)} "
        f"Addition: all task vectors at one α chosen on validation data. {negation}"
        f"Bold: best of {contenders}.{of.no_mean}",
        ("Method", *heads),
        freeze(rows),
    )


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
        cells = [shown(metric, columns[m][:, t]) for m in methods]
        low = lower_is_better(metric, forgotten)
        kind = [] if of.shared else [Cell(f"{capital(axis(metric))} {arrow(metric, forgotten)}")]
        rows.append([Cell(task), *kind, *_highlighted(results, cells, methods, low)])
    mean = [of.mean(columns[m]) for m in methods]
    if of.shared:
        mean = _highlighted(results, mean, methods, lower_is_better(of.shared, forgotten))
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


def addition(results: Results) -> Table:
    """Addition of all task vectors: α, absolute and normalized metric of each method."""
    look, of = results.look, results.measures
    methods = look.ordered(results.addition)
    rows = [[Cell(look.label("pretrained")), Cell(NONE), of.mean(results.pretrained), Cell(NONE)]]
    for m in methods:
        added = results.addition[m]
        rows.append(
            [
                Cell(look.label(m)),
                _alpha(added.alpha),
                of.mean(added.accuracy),
                Cell(NONE) if added.normalized is None else percent(added.normalized.mean(-1)),
            ]
        )
    better = of.shared is not None and lower_is_better(of.shared)
    for column, low in ((2, better), (3, False)):
        _highlight(results, rows, ["pretrained", *methods], column, low)
    what = "Normalized in %" if of.shared is None else f"Test {of.in_units}"
    return Table(
        "addition",
        f"Addition of {len(results.tasks)} task vectors",
        f"{what}, mean over the tasks; normalized: {normalized_phrase(results)}. α chosen on "
        f"validation data. {seeds_phrase(results.seeds)}{of.no_mean}",
        ("Method", "α", of.heading("Absolute"), in_percent(results, "Normalized")),
        freeze(rows),
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


def negation(results: Results) -> Table:
    """Negation of each task vector: α, target and control metric of each method."""
    look, of, controls = results.look, results.measures, results.control_measures
    methods = look.ordered(results.negation)
    rows = [
        [
            Cell(look.label("pretrained")),
            Cell(NONE),
            of.mean(results.pretrained),
            controls.mean(results.control_pretrained),
        ]
    ]
    for m in methods:
        negated = results.negation[m]
        rows.append(
            [
                Cell(look.label(m)),
                _alpha(negated.alpha),
                of.mean(negated.target),
                controls.mean(negated.control),
            ]
        )
    goal = "makes the target worst on validation data"
    if of.shared is not None:
        low = lower_is_better(of.shared, forgotten=True)
        _highlight(results, rows, ["pretrained", *methods], 2, low)
        goal = f"{'minimises' if low else 'maximises'} the target's validation {of.name}"
    what = "Test values" if of.shared is None else f"Test {of.in_units}"
    return Table(
        "negation",
        "Negation",
        f"{what}, mean over the tasks, each task's vector subtracted alone. α {goal} while "
        f"{control_rule(results).rule}. {control_phrase(results)} {seeds_phrase(results.seeds)}"
        f"{of.no_mean}",
        (
            "Method",
            "α",
            of.heading("Target", forgotten=True),
            f"Control{other_control(results)}",
        ),
        freeze(rows),
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


def cosine(results: Results, regime: str) -> Table:
    """Cosines between the task vectors of one regime."""
    values = results.cosine[regime]
    rows = [
        [Cell(a), *(number(values[:, i, j], 3) for j in range(len(results.tasks)))]
        for i, a in enumerate(results.tasks)
    ]
    return Table(
        f"cosine_{regime}",
        f"Cosines between task vectors: {results.look.inline(regime)}",
        f"{seeds_phrase(results.seeds)}",
        ("Task", *results.tasks),
        freeze(rows),
    )


def error_maps(results: Results) -> Table:
    """Disentanglement error of each pair and regime: inside the search box and on the whole map."""
    rows = []
    for m in results.maps:
        regimes = results.look.ordered(m.total)
        size = significant if m.farthest is None else partial(number, digits=3)
        block = []
        for regime in regimes:
            total, box = m.total[regime], m.boxed(regime)
            block.append(
                [
                    Cell(" + ".join(m.tasks)),
                    Cell(results.look.label(regime)),
                    size(box.mean((1, 2))),
                    size(box.max((1, 2))),
                    size(total.mean((1, 2))),
                ]
            )
        for column in (2, 3, 4):
            _highlight(results, block, regimes, column, low=True)
        rows += block
    first = results.maps[0]
    tasks = "sum over both tasks" if first.reduction == "sum" else "mean over both tasks"
    distances = "; ".join(dict.fromkeys(capital(m.measured) for m in results.maps))
    return Table(
        "error_maps",
        "Disentanglement error ξ",
        f"{distances}, {tasks}; mean and maximum inside the "
        f"search box, mean over the whole map; lower is better. {seeds_phrase(results.seeds)}",
        ("Pair", "Regime", "Mean in box ↓", "Maximum in box ↓", "Mean of map ↓"),
        freeze(rows),
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


def all_tables(results: Results) -> list[Table]:
    """Every table that the results can fill, in reading order."""
    tables = [summary(results), tasks(results)]
    if results.single:
        tables.append(single(results))
    if results.training:
        tables.append(training(results))
    if results.addition:
        tables += [addition(results), addition_by_task(results)]
        if any(a.normalized is not None for a in results.addition.values()):
            tables.append(addition_by_task_normalized(results))
    if results.negation:
        tables += [
            negation(results),
            negation_by_task(results, "target"),
            negation_by_task(results, "control"),
        ]
    if results.maps:
        tables.append(error_maps(results))
    tables += [cosine(results, regime) for regime in results.look.ordered(results.cosine)]
    if results.claims:
        tables.append(claims.table(results.claims))
    return tables

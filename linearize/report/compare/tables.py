"""Tables of the accuracies, error maps, cosines and claims."""

from collections.abc import Mapping

import numpy as np

from linearize.report.claims import claims_table
from linearize.report.compare.results import Results
from linearize.report.compare.training import training
from linearize.report.node import Floats
from linearize.report.stats import seeds_phrase
from linearize.report.style import REGIMES, label, ordered
from linearize.report.table import MEAN, NONE, Cell, Table, freeze, number, percent


def _alpha(values: Floats | None) -> Cell:
    if values is None or not np.isfinite(values).all():
        return Cell(NONE)
    low, high, mean = float(values.min()), float(values.max()), float(values.mean())
    return Cell(f"{low:.2f}" if low == high else f"{low:.2f}–{high:.2f}", mean)


def _highlight(rows: list[list[Cell]], methods: list[str], column: int, low: bool = False) -> None:
    """Marks the best of the regimes in a column, where two or more are there."""
    found = [
        (kept.value, i)
        for i, (row, m) in enumerate(zip(rows, methods, strict=True))
        if m in REGIMES and (kept := row[column]).value is not None
    ]
    if len(found) < 2:
        return
    best = (min if low else max)(value for value, _ in found)
    for value, i in found:
        if value == best:
            old = rows[i][column]
            rows[i][column] = Cell(old.text, old.value, old.half, best=True)


def _highlight_row(row: list[Cell], methods: list[str], low: bool = False) -> list[Cell]:
    cells = [[c] for c in row[1:]]
    _highlight(cells, methods, 0, low)
    return [row[0], *(c[0] for c in cells)]


def examples_phrase(results: Results) -> str:
    """Test examples a task, for captions; empty where the counts are not known."""
    tests = [c["test"] for c in results.counts.values() if isinstance(c, Mapping) and "test" in c]
    if not tests:
        return ""
    span = f"{min(tests):,}" if min(tests) == max(tests) else f"{min(tests):,}–{max(tests):,}"
    return f"n = {span} test examples a task."


def summary(results: Results) -> Table:
    """The headline: each method's single-task, addition and negation means over the tasks."""
    methods = ordered({*results.single, *results.addition, *results.negation})
    rows = [
        [
            Cell(label("pretrained")),
            percent(results.pretrained.mean(-1)),
            percent(results.pretrained.mean(-1)),
            Cell(NONE),
            percent(results.pretrained.mean(-1)) if results.negation else Cell(NONE),
            Cell(NONE)
            if results.control_pretrained is None
            else percent(results.control_pretrained.mean(-1)),
        ]
    ]
    for m in methods:
        added, negated = results.addition.get(m), results.negation.get(m)
        normalized = None if added is None else added.normalized
        rows.append(
            [
                Cell(label(m)),
                percent(results.single[m].mean(-1)) if m in results.single else Cell(NONE),
                Cell(NONE) if added is None else percent(added.accuracy.mean(-1)),
                Cell(NONE) if normalized is None else percent(normalized.mean(-1)),
                Cell(NONE) if negated is None else percent(negated.target.mean(-1)),
                Cell(NONE) if negated is None else percent(negated.control.mean(-1)),
            ]
        )
    for column, low in ((1, False), (2, False), (3, False), (4, True)):
        _highlight(rows, ["pretrained", *methods], column, low)
    return Table(
        "summary",
        "Summary",
        f"Accuracy in %, mean over {len(results.tasks)} tasks. {seeds_phrase(results.seeds)} "
        "Addition: all task vectors at one α chosen on validation data. Negation: lower target "
        "is better, control should stay. Bold: best of the regimes.",
        (
            "Method",
            "Single task",
            "Addition",
            "Addition, normalized",
            "Negation: target ↓",
            "Negation: control",
        ),
        freeze(rows),
    )


def _by_task(
    results: Results, name: str, title: str, caption: str, columns: Mapping[str, Floats], low: bool
) -> Table:
    methods = list(columns)
    rows = []
    for t, task in enumerate(results.tasks):
        row = [Cell(task), *(percent(columns[m][:, t]) for m in methods)]
        rows.append(_highlight_row(row, methods, low))
    mean = [Cell(MEAN), *(percent(columns[m].mean(-1)) for m in methods)]
    rows.append(_highlight_row(mean, methods, low))
    return Table(name, title, caption, ("Task", *(label(m) for m in methods)), freeze(rows))


def _with_pretrained(results: Results, more: Mapping[str, Floats]) -> dict[str, Floats]:
    columns = {"pretrained": results.pretrained}
    if results.random_init is not None:
        columns["random_init"] = results.random_init
    return columns | {m: more[m] for m in ordered(dict(more))}


def single(results: Results) -> Table:
    """Single-task test accuracy of each regime."""
    return _by_task(
        results,
        "single",
        "Single-task accuracy",
        f"Test accuracy in % after fine-tuning on the task alone. {seeds_phrase(results.seeds)} "
        f"{examples_phrase(results)}".strip(),
        _with_pretrained(results, results.single),
        low=False,
    )


def addition(results: Results) -> Table:
    """Addition of all task vectors: α, absolute and normalized accuracy of each method."""
    methods = ordered(dict(results.addition))
    rows = [
        [Cell(label("pretrained")), Cell(NONE), percent(results.pretrained.mean(-1)), Cell(NONE)]
    ]
    for m in methods:
        added = results.addition[m]
        rows.append(
            [
                Cell(label(m)),
                _alpha(added.alpha),
                percent(added.accuracy.mean(-1)),
                Cell(NONE) if added.normalized is None else percent(added.normalized.mean(-1)),
            ]
        )
    for column in (2, 3):
        _highlight(rows, ["pretrained", *methods], column)
    return Table(
        "addition",
        f"Addition of {len(results.tasks)} task vectors",
        "Test accuracy in %, mean over the tasks; normalized: divided by the single-task accuracy "
        f"of the same regime. α chosen on validation data. {seeds_phrase(results.seeds)}",
        ("Method", "α", "Absolute", "Normalized"),
        freeze(rows),
    )


def addition_by_task(results: Results) -> Table:
    """Each task's accuracy after the addition of all vectors."""
    return _by_task(
        results,
        "addition_by_task",
        "Addition, per task: absolute accuracy",
        f"Test accuracy in % of the model with all vectors added. {seeds_phrase(results.seeds)}",
        _with_pretrained(results, {m: a.accuracy for m, a in results.addition.items()}),
        low=False,
    )


def addition_by_task_normalized(results: Results) -> Table:
    """Each task's accuracy after addition, divided by its single-task accuracy."""
    columns = {
        m: normalized
        for m in ordered(dict(results.addition))
        if (normalized := results.addition[m].normalized) is not None
    }
    return _by_task(
        results,
        "addition_by_task_normalized",
        "Addition, per task: normalized accuracy",
        "Test accuracy after addition divided by the single-task accuracy of the same regime, "
        f"in %. {seeds_phrase(results.seeds)}",
        columns,
        low=False,
    )


def control_phrase(results: Results) -> str:
    """Which control task was kept, for captions."""
    if results.control_tasks is None:
        return ""
    if len(set(results.control_tasks)) == 1:
        return f"Control task: {results.control_tasks[0]}."
    pairs = zip(results.tasks, results.control_tasks, strict=True)
    return "Control tasks: " + ", ".join(f"{c} for {t}" for t, c in pairs) + "."


def negation(results: Results) -> Table:
    """Negation of each task vector: α, target and control accuracy of each method."""
    methods = ordered(dict(results.negation))
    kept = results.control_pretrained
    share = f"{100 * results.control_share:g} %"
    rows = [
        [
            Cell(label("pretrained")),
            Cell(NONE),
            percent(results.pretrained.mean(-1)),
            Cell(NONE) if kept is None else percent(kept.mean(-1)),
        ]
    ]
    for m in methods:
        negated = results.negation[m]
        rows.append(
            [
                Cell(label(m)),
                _alpha(negated.alpha),
                percent(negated.target.mean(-1)),
                percent(negated.control.mean(-1)),
            ]
        )
    _highlight(rows, ["pretrained", *methods], 2, low=True)
    return Table(
        "negation",
        "Negation",
        "Test accuracy in %, mean over the tasks, each task's vector subtracted alone. α minimises "
        f"the target's validation accuracy while the control keeps {share} of its "
        f"pre-trained accuracy. {control_phrase(results)} {seeds_phrase(results.seeds)}",
        ("Method", "α", "Target ↓", "Control"),
        freeze(rows),
    )


def negation_by_task(results: Results, part: str) -> Table:
    """Each task's target or control accuracy after its vector was subtracted.

    Args:
        results: the run's results.
        part: ``"target"`` or ``"control"``.
    """
    before = results.pretrained if part == "target" else results.control_pretrained
    columns = {} if before is None else {"pretrained": before}
    columns |= {m: getattr(results.negation[m], part) for m in ordered(dict(results.negation))}
    what = "on the task itself (lower is better)" if part == "target" else "on the control task"
    return _by_task(
        results,
        f"negation_{part}_by_task",
        f"Negation, per task: {part} accuracy",
        f"Test accuracy in % {what} after subtracting the task's vector. {control_phrase(results)} "
        f"{seeds_phrase(results.seeds)}",
        columns,
        low=part == "target",
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
        f"Cosines between task vectors: {label(regime).lower()}",
        f"{seeds_phrase(results.seeds)}",
        ("Task", *results.tasks),
        freeze(rows),
    )


def error_maps(results: Results) -> Table:
    """Disentanglement error of each pair and regime: inside the search box and on the whole map."""
    rows = []
    for m in results.maps:
        a = m.alphas
        low, high = m.search_box or (a[0], a[-1])
        inside = (a >= low - 1e-9) & (a <= high + 1e-9)
        regimes = ordered(dict(m.total))
        block = []
        for regime in regimes:
            total = m.total[regime]
            box = total[:, inside][:, :, inside]
            block.append(
                [
                    Cell(" + ".join(m.tasks)),
                    Cell(label(regime)),
                    number(box.mean((1, 2)), 3),
                    number(box.max((1, 2)), 3),
                    number(total.mean((1, 2)), 3),
                ]
            )
        for column in (2, 3, 4):
            _highlight(block, regimes, column, low=True)
        rows += block
    first = results.maps[0]
    tasks = "sum over both tasks" if first.reduction == "sum" else "mean over both tasks"
    return Table(
        "error_maps",
        "Disentanglement error ξ",
        f"{first.distance[:1].upper()}{first.distance[1:]}, {tasks}; mean and maximum inside the "
        f"search box, mean over the whole map; lower is better. {seeds_phrase(results.seeds)}",
        ("Pair", "Regime", "Mean in box ↓", "Maximum in box ↓", "Mean of map ↓"),
        freeze(rows),
    )


def tasks(results: Results) -> Table:
    """The tasks: classes, split sizes and chance level."""
    rows = []
    for task in results.tasks:
        count = results.counts.get(task, {})
        n = len(results.classes.get(task, ()))
        sizes = [count.get(split) for split in ("train", "validation", "test")]
        rows.append(
            [
                Cell(task),
                Cell(str(n), n) if n else Cell(NONE),
                *(Cell(NONE) if s is None else Cell(f"{s:,}", float(s)) for s in sizes),
                Cell(f"{100 / n:.1f}", 100 / n) if n else Cell(NONE),
            ]
        )
    return Table(
        "tasks",
        "Tasks",
        "Examples a split; chance: 100 % divided by the number of classes.",
        ("Task", "Classes", "Train", "Validation", "Test", "Chance"),
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
    tables += [cosine(results, regime) for regime in ordered(dict(results.cosine))]
    if results.claims:
        tables.append(claims_table(results.claims))
    return tables

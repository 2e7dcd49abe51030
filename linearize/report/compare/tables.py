"""Tables of means over tasks, error maps, cosines and claims; in :func:`all_tables` every one."""

from functools import partial

import numpy as np

from linearize.report import claims
from linearize.report.compare.best import highlight
from linearize.report.compare.by_task import (
    addition_by_task,
    addition_by_task_normalized,
    negation_by_task,
    single,
    tasks,
)
from linearize.report.compare.measures import (
    capital,
    error,
    lower_is_better,
)
from linearize.report.compare.phrases import (
    control_phrase,
    control_rule,
    in_percent,
    normalized_phrase,
    other_control,
    over_tasks,
    target,
)
from linearize.report.compare.results import Addition, Results
from linearize.report.compare.training import training
from linearize.report.node import Floats
from linearize.report.stats import seeds_phrase
from linearize.report.table import (
    NONE,
    Cell,
    Table,
    fixed,
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
        highlight(results, rows, ["pretrained", *methods], column, low)
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
        f"Bold: best of {contenders}, and what does not differ from it.{of.no_mean}",
        ("Method", *heads),
        freeze(rows),
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
    in_full = any(added.full is not None for added in results.addition.values())
    if in_full:
        rows[0] += [Cell(NONE), Cell(NONE)]
        for m, row in zip(methods, rows[1:], strict=True):
            full, share = results.addition[m].full, results.addition[m].full_normalized
            row += [of.mean(full), Cell(NONE) if share is None else percent(share.mean(-1))]
    merging = any(added.seconds is not None for added in results.addition.values())
    if merging:
        rows[0] += [Cell(NONE), Cell(NONE)]
        for m, row in zip(methods, rows[1:], strict=True):
            row += _merging(results.addition[m])
    better = of.shared is not None and lower_is_better(of.shared)
    columns = [(2, better), (3, False), *([(4, better), (5, False)] if in_full else [])]
    for column, low in columns:
        highlight(results, rows, ["pretrained", *methods], column, low)
    what = "Normalized in %" if of.shared is None else f"Test {of.in_units}"
    return Table(
        "addition",
        f"Addition of {len(results.tasks)} task vectors",
        f"{what}, mean over the tasks; normalized: {normalized_phrase(results)}. α chosen on "
        f"validation data{', with what a merge has to choose' * merging}"
        f"{'; beside it α = 1, without a search' * in_full}. "
        f"{seeds_phrase(results.seeds)}{of.no_mean}",
        (
            "Method",
            "α",
            of.heading("Absolute"),
            in_percent(results, "Normalized"),
            *((of.heading("α = 1"), in_percent(results, "α = 1, normalized")) if in_full else ()),
            *(("Chosen", "Merging, s") if merging else ()),
        ),
        freeze(rows),
    )


def _merging(added: Addition) -> list[Cell]:
    """What validation data chose for a merge beside α, and how long its merging took."""
    chosen = [f"{name} {_alpha(values).text}" for name, values in added.options.items()]
    chosen += [] if added.gap is None else [f"within {added.gap.max():.1g} nats of the optimum"]
    seconds = Cell(NONE) if added.seconds is None else significant(added.seconds)
    return [Cell(", ".join(chosen) or NONE), seconds]


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
        highlight(results, rows, ["pretrained", *methods], 2, low)
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
        size = partial(error, farthest=m.farthest)
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
            highlight(results, block, regimes, column, low=True)
        rows += block
    first = results.maps[0]
    tasks = "sum over both tasks" if first.reduction == "sum" else "mean over both tasks"
    distances = "; ".join(dict.fromkeys(capital(m.measured) for m in results.maps))
    return Table(
        "error_maps",
        "Disentanglement error ξ",
        f"{distances}, {tasks}; mean and maximum inside the "
        f"search box{_off_grid(results)}, mean over the whole map; lower is better. "
        f"{seeds_phrase(results.seeds)}",
        ("Pair", "Regime", "Mean in box ↓", "Maximum in box ↓", "Mean of map ↓"),
        freeze(rows),
    )


def _off_grid(results: Results) -> str:
    """Which coefficients the box holds, where its ends are not on a map's grid."""
    told = {
        f"{fixed(inside[0], 2)} to {fixed(inside[-1], 2)}"
        for pair in results.maps
        if pair.search_box is not None
        and not np.allclose(pair.search_box, (inside := pair.alphas[pair.inside])[[0, -1]])
    }
    return f" (whose coefficients on the grid are {' or '.join(sorted(told))})" * bool(told)


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

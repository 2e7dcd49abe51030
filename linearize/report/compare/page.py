"""The page of the main job: regimes of task arithmetic side by side."""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from linearize.objectives.metric import ACCURACY, Metric
from linearize.report import schema
from linearize.report.compare import (
    explorer,
    glossary,
    live,
    maps,
    measures,
    phrases,
    plots,
    sweeps,
    tables,
)
from linearize.report.compare.logits import TaskLogits, load_explorer
from linearize.report.compare.results import Results
from linearize.report.compare.scatter import against, scatter
from linearize.report.node import Floats, Node
from linearize.report.page import Page, Section
from linearize.report.plot import Plot
from linearize.report.section import configuration
from linearize.report.style import FACES
from linearize.report.table import Table

HERE = Path(__file__).parent


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory, its explorer included where the run left its arrays.

    Raises:
        ResultsError: a result file is damaged, or does not fit the schema.
    """
    results = schema.read(Results, node)
    return page(results, load_explorer(run_dir, results))


def page(results: Results, task_logits: Sequence[TaskLogits] | None) -> Page:
    """The page's parts; ``task_logits`` None leaves the explorer out, and says so.

    Nor is there one where a task is not measured by accuracy, which is all that it computes.
    """
    if results.measures.shared != ACCURACY:
        task_logits = None
    figures: dict[str, Plot | Table] = {p.name: p for p in all_plots(results)}
    shown: dict[str, Plot | Table] = {t.name: t for t in tables.all_tables(results)}

    def named(parts: dict[str, Plot | Table], *names: str) -> list[Plot | Table]:
        return [parts[name] for name in names if name in parts]

    def starting(parts: dict[str, Plot | Table], prefix: str) -> list[Plot | Table]:
        return [part for name, part in parts.items() if name.startswith(prefix)]

    drawn = starting(figures, "error_map")
    by_task = [
        *named(shown, "tasks"),
        *named(figures, "single_task"),
        *named(shown, "single"),
        *named(figures, "addition_by_task"),
        *starting(shown, "addition_by_task"),
        *named(figures, "negation_by_task"),
        *starting(shown, "negation_"),
    ]
    sections = (
        ("summary", "In short", [_sentence(results), *named(shown, "summary")]),
        ("training", "AdamW against the optimum", named(shown, "training")),
        ("explore", "Live explorer", _explorer(results, task_logits)),
        (
            "maps",
            "Error maps",
            [
                *_maps(results, drawn, task_logits is not None),
                *drawn,
                *starting(shown, "error_maps"),
            ],
        ),
        ("addition", "Addition", named(figures, "addition") + named(shown, "addition")),
        (
            "sweeps",
            f"{measures.capital(results.measures.name)} along α",
            starting(figures, "alpha_sweeps"),
        ),
        ("negation", "Negation", named(figures, "negation") + named(shown, "negation")),
        ("scatter", against(results), named(figures, "single_task_scatter")),
        ("tasks", "Task by task", by_task),
        ("claims", "Claims of the papers", starting(shown, "claims")),
        (
            "cosine",
            "Angles between task vectors",
            starting(figures, "cosine") + starting(shown, "cosine_"),
        ),
        ("glossary", "Words", [glossary.section(results)]),
        ("configuration", "Configuration and versions", [_configuration(results)]),
    )
    code = ["maps.js"] * bool(drawn) + ["explorer.js"] * (task_logits is not None)
    code = ["arithmetic.js", "grid.js", *code] if code else []
    return Page(
        title=_title(results),
        lead=_lead(results),
        facts=results.facts(results.tasks),
        sections=tuple(Section(key, title, tuple(parts)) for key, title, parts in sections),
        headlines=("summary", "single", "training", "addition", "negation", "error_maps", "claims"),
        script="".join((HERE / name).read_text("utf-8") for name in code),
    )


def all_plots(results: Results) -> list[Plot]:
    """Every figure that the results can fill, in reading order."""
    drawings: list[Plot | None] = []
    if results.single:
        drawings.append(plots.single_task(results))
    if results.addition:
        drawings += [plots.addition(results), plots.addition_tasks(results)]
    if sweeps.swept(results)[1]:
        drawings += [sweeps.sweeps(results), sweeps.sweeps_by_task(results)]
    if results.negation:
        drawings += [plots.negation(results), plots.negation_tasks(results)]
    if len(results.single) > 1:
        drawings.append(scatter(results))
    drawings += [maps.error_map(results, i) for i, m in enumerate(results.maps) if m.total]
    if results.cosine and len(results.tasks) > 1:
        drawings.append(maps.cosine(results))
    return [drawing for drawing in drawings if drawing is not None]


PAPERS = {row: face.regime for row, face in FACES.items() if face.regime}
"""The papers' regimes, and what each is."""


def _of_the_papers(results: Results) -> bool:
    """Whether the page is of the papers' regimes, which have sentences of their own."""
    look = results.look
    return not look.labels or (PAPERS.keys() <= results.single.keys() and not look.own)


def _title(results: Results) -> str:
    of = " in three regimes" * _of_the_papers(results)
    return f"Task arithmetic{of}: {results.preset}"


def _lead(results: Results) -> str:
    """What the sums keep without a search, where that is known; then what was run."""
    return "\n".join(filter(None, [_in_full(results), _what(results)]))


def _what(results: Results) -> str:
    tasks, seeds, look = len(results.tasks), len(results.seeds), results.look
    model = str(results.model.get("name", "One model"))
    many = "one seed" if seeds == 1 else f"{seeds} seeds"
    fine_tuned = (
        f"{model}, fine-tuned on {tasks} task{'s' * (tasks > 1)} with {many}; its task vectors "
        f"{_done(results)}"
    )
    if not _of_the_papers(results):
        rows = "; ".join(look.label(row) for row in look.ordered(look.labels))
        return f"{fine_tuned}. Compared: {rows}."
    *first, last = PAPERS.values()
    optimum = "; there also at the optimum of training" * bool(results.training)
    return f"{fine_tuned} in three regimes: {', '.join(first)}, and {last}{optimum}."


def _done(results: Results) -> str:
    if not results.look.labels:
        return "added, negated and mapped"
    parts = {"added": results.addition, "negated": results.negation, "mapped": results.maps}
    return _join(name for name, found in parts.items() if found)


def _sentence(results: Results) -> str:
    """What a search makes of it, in one or two sentences, from the run's numbers alone."""
    of = results.measures
    contenders = _contenders(results)
    if of.shared is None:
        return _shares(results, contenders)
    before = f"the pre-trained model’s {_value(of.shared, results.pretrained)}"
    if not contenders:
        return f"<p>Compared with {before}.</p>"
    level = {m: _value(of.shared, results.addition[m].accuracy) for m in contenders}
    better = " (lower is better)" * measures.lower_is_better(of.shared)
    text = (
        f"All {len(results.tasks)} task vectors added, at the α that validation data choose, the "
        f"mean test {of.name}{better} is "
        f"{_listed(results, level)}, against {before}.{_best_merge(results, of.shared)}"
    )
    negated = [m for m in contenders if m in results.negation]
    if negated:
        level = {m: _value(of.shared, results.negation[m].target) for m in negated}
        text += (
            f" Subtracted one at a time, they leave their own task at {_listed(results, level)}."
        )
    return f'<p class="lead">{text}</p>'


def _contenders(results: Results) -> list[str]:
    return [m for m in results.look.ordered(results.addition) if results.regime(m)]


def _in_full(results: Results) -> str:
    """What the sums keep where nobody searches for a coefficient; empty where that is not known."""
    rows = _contenders(results)
    level = _levels(results, {m: results.addition[m].full_normalized for m in rows})
    if not level or len(results.tasks) == 1:
        return ""
    kept = _join(f"{value} ({results.look.inline(m)})" for m, value in level.items())
    return (
        f"At α = 1, without a search, the sum of all {len(results.tasks)} task vectors keeps "
        f"{kept} of what each reaches alone."
    )


def _best_merge(results: Results, metric: Metric) -> str:
    found = {
        m: added.accuracy
        for m, added in results.addition.items()
        if results.contends(m) and not results.regime(m)
    }
    if not found:
        return ""
    pick = min if measures.lower_is_better(metric) else max
    best = pick(found, key=lambda m: float(found[m].mean()))
    name = html.escape(results.look.inline(best))
    return (
        f" The best of the merges beside the sum is <b>{_value(metric, found[best])}</b> ({name})."
    )


def _shares(results: Results, rows: Sequence[str]) -> str:
    """The same of tasks whose metrics differ: only shares have a mean."""
    level = _levels(results, {m: results.addition[m].normalized for m in rows})
    if not level:
        return ""
    return (
        f'<p class="lead">All {len(results.tasks)} task vectors added, the mean normalized test '
        f"performance is {_listed(results, level)}; 100 % is that of each task’s own vector.</p>"
    )


def _levels(results: Results, shares: Mapping[str, Floats | None]) -> dict[str, str]:
    """Means of normalized values, of those that are known."""
    metric = phrases.normalized_measures(results).shared
    assert metric is not None
    return {m: _value(metric, values) for m, values in shares.items() if values is not None}


def _listed(results: Results, level: Mapping[str, str]) -> str:
    names = {m: html.escape(results.look.inline(m)) for m in level}
    return _join(f"<b>{value}</b> ({names[m]})" for m, value in level.items())


def _value(metric: Metric, values: np.ndarray) -> str:
    cell = measures.shown(metric, values.mean(-1))
    return f"{cell.text}{' %' * metric.percent}".replace(" ", "\N{NO-BREAK SPACE}")


def _join(parts: Iterable[str]) -> str:
    items = list(parts)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _maps(results: Results, plots: Sequence[Plot | Table], moves: bool) -> list[str]:
    """The maps that answer the pointer; ``moves`` where there are sliders for a click to move."""
    drawn = [plot for plot in plots if isinstance(plot, Plot)]
    return [live.section(results, drawn, moves)] if drawn else []


def _explorer(results: Results, task_logits: Sequence[TaskLogits] | None) -> list[str]:
    """The explorer, or why there is none where there could be one."""
    if task_logits is None:
        if results.measures.shared != ACCURACY or results.shown not in results.single:
            return []
        return [
            '<p class="notice">This run has no explorer.npz, so the live explorer is left out. '
            "Run the experiment again to get it.</p>"
        ]
    what = (
        "<p>Move the sliders: each task vector enters with its own coefficient α, and every task’s "
        "accuracy is recomputed here, in the page. The table has every method at the same "
        "coefficients.</p>"
    )
    return [what + explorer.section(results, task_logits)]


def _configuration(results: Results) -> str:
    classes = {"Class names": {task: list(names) for task, names in results.classes.items()}}
    return configuration({**results.blocks, **classes})

"""The page of ``experiments.compare``: three regimes of task arithmetic side by side."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from linearize.report.compare import explorer, maps, plots, tables
from linearize.report.compare.results import Results, TaskLogits, load_explorer, parse
from linearize.report.node import Node
from linearize.report.page import Page, Section, configuration, facts
from linearize.report.plot import Plot
from linearize.report.stats import over_seeds
from linearize.report.style import REGIMES, label, ordered
from linearize.report.table import Table

HERE = Path(__file__).parent


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory, its explorer included where the run left its arrays.

    Raises:
        ResultsError: a result file is damaged, or does not fit the schema.
    """
    results = parse(node.value)
    return page(results, load_explorer(run_dir, results))


def page(results: Results, task_logits: Sequence[TaskLogits] | None) -> Page:
    """The page's parts; ``task_logits`` None leaves the explorer out, and says so."""
    figures: dict[str, Plot | Table] = {p.name: p for p in all_plots(results)}
    shown: dict[str, Plot | Table] = {t.name: t for t in tables.all_tables(results)}

    def named(parts: dict[str, Plot | Table], *names: str) -> list[Plot | Table]:
        return [parts[name] for name in names if name in parts]

    def starting(parts: dict[str, Plot | Table], prefix: str) -> list[Plot | Table]:
        return [part for name, part in parts.items() if name.startswith(prefix)]

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
        ("explore", "Live explorer", [_explorer(results, task_logits)]),
        ("maps", "Error maps", starting(figures, "error_map") + starting(shown, "error_maps")),
        ("addition", "Addition", named(figures, "addition") + named(shown, "addition")),
        ("sweeps", "Accuracy along α", starting(figures, "alpha_sweeps")),
        ("negation", "Negation", named(figures, "negation") + named(shown, "negation")),
        ("scatter", "Linearized against non-linear", starting(figures, "single_task_scatter")),
        ("tasks", "Task by task", by_task),
        ("claims", "Claims of the papers", starting(shown, "claims")),
        (
            "cosine",
            "Angles between task vectors",
            starting(figures, "cosine") + starting(shown, "cosine_"),
        ),
        ("configuration", "Configuration and versions", [_configuration(results)]),
    )
    code = ("arithmetic.js", "explorer.js") if task_logits is not None else ()
    return Page(
        title=f"Task arithmetic in three regimes: {results.preset}",
        lead=_lead(results),
        facts=facts(results.preset, results.model, results.tasks, results.seeds, results.seconds),
        sections=tuple(Section(key, title, tuple(parts)) for key, title, parts in sections),
        headlines=("summary", "single", "training", "addition", "negation", "error_maps", "claims"),
        script="".join((HERE / name).read_text("utf-8") for name in code),
    )


def all_plots(results: Results) -> list[Plot]:
    """Every figure that the results can fill, in reading order."""
    drawings = []
    if results.single:
        drawings.append(plots.single_task(results))
    if results.addition:
        drawings += [plots.addition(results), plots.addition_tasks(results)]
    if plots.swept(results)[1]:
        drawings += [plots.sweeps(results), plots.sweeps_by_task(results)]
    if results.negation:
        drawings += [plots.negation(results), plots.negation_tasks(results)]
    if "nonlinear" in results.single and {"posthoc", "linear"} & set(results.single):
        drawings.append(plots.scatter(results))
    drawings += [maps.error_map(results, i) for i, m in enumerate(results.maps) if m.total]
    if results.cosine and len(results.tasks) > 1:
        drawings.append(maps.cosine(results))
    return drawings


def _lead(results: Results) -> str:
    tasks, seeds = len(results.tasks), len(results.seeds)
    model = str(results.model.get("name", "One model"))
    many = "one seed" if seeds == 1 else f"{seeds} seeds"
    return (
        f"{model}, fine-tuned on {tasks} task{'s' * (tasks > 1)} with {many}; its task vectors "
        "added, negated and mapped in three regimes: the model itself, its linearization after "
        "the fact, and its linearization from the start"
        + ("; there also at the optimum of training." if results.training else ".")
    )


def _sentence(results: Results) -> str:
    """What the run shows, in one or two sentences, from its numbers alone."""
    regimes = [m for m in ordered(dict(results.addition)) if m in REGIMES]
    before = f"the pre-trained model’s {_percent(results.pretrained)}"
    if not regimes:
        return f"<p>Compared with {before}.</p>"
    level = {m: _percent(results.addition[m].accuracy) for m in regimes}
    text = (
        f"All {len(results.tasks)} task vectors added, the mean test accuracy is "
        f"{_join(f'<b>{level[m]}</b> ({label(m).lower()})' for m in regimes)}, against {before}."
    )
    negated = [m for m in regimes if m in results.negation]
    if negated:
        level = {m: _percent(results.negation[m].target) for m in negated}
        text += (
            " Subtracted one at a time, they leave their own task at "
            f"{_join(f'<b>{level[m]}</b> ({label(m).lower()})' for m in negated)}."
        )
    return f'<p class="lead">{text}</p>'


def _percent(values: np.ndarray) -> str:
    mean, half = (100 * float(x) for x in over_seeds(values.mean(-1)))
    text = f"{mean:.1f} %" if not np.isfinite(half) else f"{mean:.1f} ± {half:.1f} %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _join(parts: Iterable[str]) -> str:
    items = list(parts)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _explorer(results: Results, task_logits: Sequence[TaskLogits] | None) -> str:
    if task_logits is None:
        return (
            '<p class="notice">This run has no explorer.npz, so the live explorer is left out. '
            "Run the experiment again to get it.</p>"
        )
    what = (
        "<p>Move the sliders: each task vector of the linear regime enters with its own "
        "coefficient α, and every task’s accuracy is recomputed here, in the page.</p>"
    )
    return what + explorer.section(results, task_logits)


def _configuration(results: Results) -> str:
    classes = {task: list(names) for task, names in results.classes.items()}
    return configuration(
        {
            "Configuration": results.config,
            "Versions": results.versions,
            "Model": results.model,
            "Class names": classes,
        }
    )

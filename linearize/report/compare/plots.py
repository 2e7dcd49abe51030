"""Figures of each task's metric: single task, addition and negation."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from linearize.objectives.metric import Metric
from linearize.report.compare.measures import (
    Measures,
    axis,
    bounds,
    capital,
    factor,
    lower_is_better,
    shown,
    spans_magnitudes,
)
from linearize.report.compare.phrases import (
    chances,
    control_phrase,
    control_rule,
    examples_phrase,
    normalized_measures,
    normalized_phrase,
)
from linearize.report.compare.results import Results
from linearize.report.node import Floats
from linearize.report.plot import Plot, figure, handle, legend, powers_of_ten, whiskers
from linearize.report.stats import over_seeds, seeds_phrase
from linearize.report.style import GRID, INK, MUTED, PAPER, Look, shorten


class Panel(NamedTuple):
    """What one axes shows: values (S, n) or (S,) by row, of one metric."""

    title: str
    series: Mapping[str, Floats]
    metric: Metric
    unit: str = ""
    """What stands below its axis, where that is not the metric."""

    @property
    def bars(self) -> bool:
        """Whether its means are bars from 0: shares are, of other metrics 0 may say nothing."""
        return self.metric.percent and self.metric.low >= 0

    @property
    def logarithmic(self) -> bool:
        """Whether its values want a logarithmic axis."""
        every = [values.ravel() for values in self.series.values()]
        return spans_magnitudes(self.metric, np.concatenate(every))


def method_legend(fig: Figure, handles: Sequence[Line2D], narrow: bool) -> None:
    """A legend of methods; of many or long names in rows, which are read from left to right."""
    longest = max(len(str(each.get_label())) for each in handles)
    if longest <= 22 and (narrow or len(handles) <= 8):
        return legend(fig, handles, narrow)
    columns = max(1, (45 if narrow else 115) // (longest + 6))
    rows = -(-len(handles) // columns)
    fig.set_figheight(fig.get_figheight() + 0.19 * (rows - 1))
    by_column = [each for j in range(columns) for each in handles[j::columns]]
    return legend(fig, by_column, narrow, columns)


class Group(NamedTuple):
    """The tasks of one metric, as rows of a panel; the last may be their mean."""

    tasks: list[int]
    rows: list[str]
    panel: Panel


def _dots(ax: Axes, group: Group, look: Look, narrow: bool) -> None:
    """One row a task, one mark a method: mean over seeds, with its interval."""
    rows, panel = group.rows, group.panel
    methods = list(panel.series)
    step = 0.72 / max(len(methods), 1)
    for i in range(len(rows)):
        if i % 2 == 0:
            ax.axhspan(i - 0.5, i + 0.5, color=GRID, alpha=0.28, lw=0)
    if panel.logarithmic:
        ax.set_xscale("log")
        powers_of_ten(ax.xaxis)
    for k, m in enumerate(methods):
        found = over_seeds(factor(panel.metric) * panel.series[m])
        y = np.arange(len(rows)) + (k - (len(methods) - 1) / 2) * step
        ax.errorbar(
            found.mean, y, xerr=whiskers(found, bounds(panel.metric)), fmt=look.marker(m),
            color=look.colour(m), ms=5.5, mec=PAPER, mew=0.5, elinewidth=1.2, capsize=0,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [shorten(r, 14 if narrow else 20) for r in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def _groups(
    results: Results,
    title: Callable[[Measures], str],
    series: Mapping[str, Floats],
    of: Measures,
) -> list[Group]:
    """Panels of tasks that share an axis: all and their mean, or those of each metric."""
    if of.shared is not None:  # (S, T) to (S, T + 1)
        whole = {m: np.concatenate([v, v.mean(-1, keepdims=True)], -1) for m, v in series.items()}
        every = list(range(len(results.tasks)))
        return [Group(every, [*results.tasks, "Mean"], Panel(title(of), whole, of.shared))]
    return [
        Group(
            tasks,
            [results.tasks[t] for t in tasks],
            Panel(title(Measures((metric,))), {m: v[:, tasks] for m, v in series.items()}, metric),
        )
        for metric, tasks in of.groups()
    ]


def _dot_plot(
    results: Results,
    panels: Sequence[tuple[Callable[[Measures], str], Mapping[str, Floats], Measures]],
    narrow: bool,
) -> Figure:
    look = results.look
    groups = [group for panel in panels for group in _groups(results, *panel)]
    alike = len(groups) == len(panels)
    methods = look.ordered({m for group in groups for m in group.panel.series})
    across = 1 if narrow else len(panels) if alike else min(2, len(groups))
    down = int(np.ceil(len(groups) / across))
    rows = max(len(group.rows) for group in groups)
    fig = figure(narrow, down * (0.075 * len(methods) + 0.16) * rows + 0.5 * down + 0.5)
    axes = fig.subplots(down, across, squeeze=False, sharey=alike)
    handles = [handle(m, look=look) for m in methods]
    chance = chances(results)
    for ax, group in zip(axes.flat, groups, strict=False):
        title, metric = group.panel.title, group.panel.metric
        _dots(ax, group, look, narrow)
        if group.rows[-1:] != [results.tasks[group.tasks[-1]]]:
            ax.axhline(len(group.rows) - 1.5, color=MUTED, lw=0.7)
        ax.set_title(title)
        better = " (lower is better)" if lower_is_better(metric) and not title else ""
        ax.set_xlabel(f"Test {axis(metric)}{better}")
        levels = [] if len(panels) > 1 else [chance[t] for t in group.tasks]
        for i, value in enumerate(levels):
            if value is not None:
                ax.plot([value, value], [i - 0.42, i + 0.42], color=MUTED, lw=1, ls=":")
        if any(value is not None for value in levels):
            handles.append(Line2D([], [], color=MUTED, lw=1, ls=":", label="Chance"))
    for ax in axes.flat[len(groups) :]:
        ax.set_visible(False)
    method_legend(fig, handles, narrow)
    return fig


def single_task(results: Results) -> Plot:
    """Single-task metric of the regimes and of the pre-trained model."""
    of = results.measures
    series = {"pretrained": results.pretrained}
    if results.random_init is not None:
        series["random_init"] = results.random_init
    series |= {m: results.single[m] for m in results.look.ordered(results.single)}
    return Plot(
        "single_task",
        f"Single-task {of.name}",
        f"Test {of.name} after fine-tuning on one task, evaluated on that task. "
        f"{seeds_phrase(results.seeds)} {examples_phrase(results)}",
        "Dot plot: one row a task, one mark each for the pre-trained model and the regimes.",
        lambda narrow: _dot_plot(results, [(lambda _: "", series, of)], narrow),
    )


def addition_tasks(results: Results) -> Plot:
    """Each task's metric after addition of all vectors."""
    of = results.measures
    series = {"pretrained": results.pretrained}
    series |= {m: results.addition[m].accuracy for m in results.look.ordered(results.addition)}
    return Plot(
        "addition_by_task",
        "Addition, task by task",
        f"Test {of.name} of each task after adding all task vectors at the α chosen on validation "
        f"data. {seeds_phrase(results.seeds)} {examples_phrase(results)}",
        "Dot plot: one row a task, one mark a method.",
        lambda narrow: _dot_plot(results, [(lambda _: "", series, of)], narrow),
    )


def _target(of: Measures) -> str:
    better = of.better(forgotten=True)
    return f"Target ({better})" if better else "Target"


def _control(of: Measures) -> str:
    return "Control (lower is better)" if "lower" in of.better() else "Control"


def negation_tasks(results: Results) -> Plot:
    """Target and control metric of each task's negation."""
    of, controls = results.measures, results.control_measures
    methods = results.look.ordered(results.negation)
    target = {"pretrained": results.pretrained}
    control = (
        {} if results.control_pretrained is None else {"pretrained": results.control_pretrained}
    )
    target |= {m: results.negation[m].target for m in methods}
    control |= {m: results.negation[m].control for m in methods}
    better = of.better(forgotten=True)
    return Plot(
        "negation_by_task",
        "Negation, task by task",
        f"Left or above: {of.name} on the task whose vector was subtracted"
        f"{f' ({better})' if better else ''}. Right "
        f"or below: {controls.name} on its control task. {control_phrase(results)} "
        f"{seeds_phrase(results.seeds)} {examples_phrase(results)}",
        f"Two dot plots: target and control {of.name} of each task, one mark a method.",
        lambda narrow: _dot_plot(
            results, [(_target, target, of), (_control, control, controls)], narrow
        ),
    )


def _means(ax: Axes, panel: Panel, look: Look, narrow: bool) -> None:
    """A row a method of task means, shape (S,): mean, interval, and a dot a seed."""
    series, metric = panel.series, panel.metric
    bars = panel.bars
    if panel.logarithmic:
        ax.set_xscale("log")
        powers_of_ten(ax.xaxis)
    for i, (m, values) in enumerate(series.items()):
        each = factor(metric) * values
        found = over_seeds(each)
        mean = float(found.mean)
        if not np.isfinite(mean):
            if np.isinf(mean):  # at the margin, where no mark can be
                ax.annotate(
                    shown(metric, values).text, (1, i), xycoords=("axes fraction", "data"),
                    ha="right", va="center", fontsize=8, color=INK,
                )  # fmt: skip
            continue
        if bars:
            ax.barh(i, mean, color=look.colour(m), height=0.66)
        if len(values) > 1:
            spread = np.linspace(-0.16, 0.16, len(values))
            ax.scatter(each, i + spread, s=7, color=PAPER, edgecolors=INK, lw=0.5, zorder=3)
        interval = whiskers(found, bounds(metric))
        if interval is not None:
            ax.errorbar(
                mean, i, xerr=interval[:, None], color=INK, elinewidth=1.1, capsize=2.5, fmt="none"
            )
        if not bars:
            ax.plot(
                mean, i, look.marker(m), color=look.colour(m), ms=8, mec=PAPER, mew=0.5, zorder=4
            )
        end = max(mean if interval is None else mean + interval[1], *each)
        text = f"{mean:.1f}" if metric.percent else shown(metric, values).text.split(" ")[0]
        ax.annotate(
            text, (end, i), xytext=(5 if bars else 8, 0), textcoords="offset points", va="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    names = [look.label(m).replace(", ", ",\n" if narrow else ", ") for m in series]
    ax.set_yticks(range(len(series)), names)
    ax.set_ylim(len(series) - 0.45, -0.55)
    ax.margins(x=0.16)
    if bars:
        ax.set_xlim(left=0)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def _mean_panels(panels: Sequence[Panel], look: Look, narrow: bool) -> Figure:
    down, across = (len(panels), 1) if narrow else (1, len(panels))
    tallest = max(len(panel.series) for panel in panels)
    names = [look.label(m) for panel in panels for m in panel.series]
    row = 0.34 if narrow and any(", " in name for name in names) else 0.27
    fig = figure(narrow, down * (row * tallest + 0.85))
    for ax, panel in zip(fig.subplots(down, across, squeeze=False).flat, panels, strict=True):
        _means(ax, panel, look, narrow)
        long = narrow and len(panel.title) > 26
        ax.set_title(panel.title.replace(" (", "\n(") if long else panel.title)
        ax.set_xlabel(panel.unit or capital(axis(panel.metric)))
    return fig


def addition(results: Results) -> Plot | None:
    """Absolute and normalized metric of the addition of all vectors; None where no mean is."""
    of = results.measures
    methods = results.look.ordered(results.addition)
    panels = []
    if of.shared is not None:
        absolute = {"pretrained": results.pretrained.mean(-1)}
        absolute |= {m: results.addition[m].accuracy.mean(-1) for m in methods}
        better = " (lower is better)" if lower_is_better(of.shared) else ""
        panels.append(Panel(f"Absolute {of.name}{better}", absolute, of.shared))
    normalized = {
        m: values.mean(-1)
        for m in methods
        if (values := results.addition[m].normalized) is not None
    }
    share = normalized_measures(results).shared
    if normalized and share is not None:
        unit = "Normalized [%]"
        if of.shared and of.shared.percent and not lower_is_better(of.shared):
            unit = capital(axis(of.shared))
        panels.append(Panel(capital(share.name), normalized, share, unit))
    if not panels:
        return None
    kinds = "absolute, and normalized: " if of.shared else "normalized: "
    if normalized_phrase(results).startswith("divided"):
        kinds = "absolute, and "
    return Plot(
        "addition",
        f"Addition of all {len(results.tasks)} task vectors",
        f"Mean test {of.name} over {len(results.tasks)} tasks, {kinds}"
        f"{normalized_phrase(results)}. {_drawn(panels)}; whiskers: 95 % t interval; dots: "
        f"seeds. {seeds_phrase(results.seeds)} {examples_phrase(results)}{of.no_mean}",
        f"Horizontal bars: one a method, absolute and normalized {of.name}.",
        lambda narrow: _mean_panels(panels, results.look, narrow),
    )


def _drawn(panels: Sequence[Panel]) -> str:
    """What the means of panels are drawn as."""
    bars = {panel.bars for panel in panels}
    kind = "Marks and bars" if len(bars) > 1 else "Bars" if True in bars else "Marks"
    return f"{kind}: mean"


def negation(results: Results) -> Plot | None:
    """Target and control metric of the negations, mean over the tasks; None where no mean is."""
    of, controls = results.measures, results.control_measures
    metric, kept = of.shared, controls.shared
    if metric is None or kept is None:
        return None
    methods = results.look.ordered(results.negation)
    target = {"pretrained": results.pretrained.mean(-1)}
    target |= {m: results.negation[m].target.mean(-1) for m in methods}
    before = results.control_pretrained
    control = {} if before is None else {"pretrained": before.mean(-1)}
    control |= {m: results.negation[m].control.mean(-1) for m in methods}

    def draw(narrow: bool) -> Figure:
        panels = [Panel(_target(of), target, metric), Panel(_control(controls), control, kept)]
        fig = _mean_panels(panels, results.look, narrow)
        if before is not None:
            bound = factor(kept) * float(results.tolerance.floor(kept, before.mean()))
            if np.isfinite(bound):
                fig.axes[1].axvline(bound, color=INK, lw=1, ls="--", zorder=4)
        return fig

    return Plot(
        "negation",
        "Negation of each task vector",
        f"Mean test {of.name} over {len(results.tasks)} negated tasks, on the task and on its "
        f"control{'' if kept == metric else f', which is measured by {kept.name}'}. "
        f"Dashed: the control's {'ceiling' if lower_is_better(kept) else 'floor'}, "
        f"{control_rule(results).bound}, which α respects on validation data. "
        f"{control_phrase(results)} {seeds_phrase(results.seeds)} {examples_phrase(results)}",
        f"Horizontal bars: target and control {of.name}, one a method.",
        draw,
    )

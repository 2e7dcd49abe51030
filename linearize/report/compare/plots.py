"""Figures of each task's metric: single task, addition, negation, scatter and α sweeps."""

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
    capital,
    factor,
    lower_is_better,
    shown,
    spans_magnitudes,
)
from linearize.report.compare.results import Results
from linearize.report.compare.tables import (
    chances,
    control_bound,
    control_phrase,
    examples_phrase,
    normalized_measures,
    normalized_phrase,
)
from linearize.report.node import Floats
from linearize.report.plot import Plot, figure, handle, legend, powers_of_ten, whiskers
from linearize.report.stats import over_seeds, seeds_phrase
from linearize.report.style import (
    GRID,
    INK,
    MUTED,
    PAPER,
    REGIMES,
    TASK_MARKERS,
    Look,
    shorten,
)


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


def _legend(fig: Figure, handles: Sequence[Line2D], narrow: bool) -> None:
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
        mean, half = over_seeds(factor(panel.metric) * panel.series[m])
        y = np.arange(len(rows)) + (k - (len(methods) - 1) / 2) * step
        ax.errorbar(
            mean, y, xerr=whiskers(half), fmt=look.marker(m),
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
    _legend(fig, handles, narrow)
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
        mean, half = (float(x) for x in over_seeds(each))
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
        if np.isfinite(half):
            ax.errorbar(mean, i, xerr=half, color=INK, elinewidth=1.1, capsize=2.5, fmt="none")
        if not bars:
            ax.plot(
                mean, i, look.marker(m), color=look.colour(m), ms=8, mec=PAPER, mew=0.5, zorder=4
            )
        end = max(mean + (half if np.isfinite(half) else 0), *each)
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
        unit = capital(axis(of.shared)) if of.shared and of.shared.percent else "Normalized [%]"
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
        f"{control_bound(results)}, which α respects on validation data. "
        f"{control_phrase(results)} {seeds_phrase(results.seeds)} {examples_phrase(results)}",
        f"Horizontal bars: target and control {of.name}, one a method.",
        draw,
    )


def scatter(results: Results) -> Plot:
    """The other regimes against the non-linear one, a point a task and seed, alone on its task."""
    look, of = results.look, results.measures
    others = [m for m in look.ordered(results.single) if m != "nonlinear"]
    panels = [(metric, tasks, m) for metric, tasks in of.groups() for m in others]
    linearized = set(others) <= set(REGIMES)
    lower = {lower_is_better(metric) for metric in of.each}
    where = "below it" if lower == {False} else "above it"
    if len(lower) > 1:
        where = "below it, or above it where lower is better,"

    def draw(narrow: bool) -> Figure:
        rows = int(np.ceil(len(results.tasks) / 2)) if narrow else 1
        across = 1 if narrow else min(3, len(panels))
        down = int(np.ceil(len(panels) / across))
        fig = figure(narrow, 3.3 * down + 0.2 * rows if narrow else 4.2 * down)
        axes = fig.subplots(down, across, squeeze=False).flat
        for ax, (metric, tasks, m) in zip(axes, panels, strict=False):
            _scatter(ax, results, metric, tasks, m)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        legend(fig, [_task_handle(t, name) for t, name in enumerate(results.tasks)], narrow, 5)
        return fig

    return Plot(
        "single_task_scatter",
        "Non-linear advantage",
        f"Single-task test {of.name} of the {'linearized models' if linearized else 'others'} "
        f"against the non-linear one, a point a "
        f"task and seed ({len(results.seeds)} × {len(results.tasks)}); on the dashed diagonal both "
        f"are equal, {where} the non-linear model is better. {examples_phrase(results)}",
        "Scatter plot with the diagonal; one marker shape a task.",
        draw,
    )


def _scatter(ax: Axes, results: Results, metric: Metric, tasks: list[int], method: str) -> None:
    look, times = results.look, factor(metric)
    shown = np.concatenate([times * values[:, tasks] for values in results.single.values()])
    shown = shown[np.isfinite(shown)] if np.isfinite(shown).any() else np.zeros(1)
    if metric.percent:
        low = max(times * metric.low, 5 * np.floor((np.nanmin(shown) - 2) / 5))
        high = min(times * metric.high + 2, 5 * np.ceil((np.nanmax(shown) + 2) / 5))
    elif spans_magnitudes(metric, shown):
        low, high = 0.8 * np.nanmin(shown), 1.25 * np.nanmax(shown)
        ax.set(xscale="log", yscale="log")
        powers_of_ten(ax.xaxis, ax.yaxis)
    else:
        margin = max(0.08 * np.ptp(shown), 0.02 * np.nanmax(np.abs(shown))) or 1.0
        low, high = np.nanmin(shown) - margin, np.nanmax(shown) + margin
    ax.plot([low, high], [low, high], color=MUTED, lw=0.9, ls="--", zorder=1)
    for t in tasks:
        ax.scatter(
            times * results.single["nonlinear"][:, t], times * results.single[method][:, t], s=38,
            color=look.colour(method), marker=TASK_MARKERS[t % len(TASK_MARKERS)],
            edgecolors=PAPER, lw=0.5, zorder=3,
        )  # fmt: skip
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.set_xlabel(f"Non-linear {axis(metric)}")
    ax.set_ylabel(f"{look.label(method)} {axis(metric)}")
    ax.grid()


def _task_handle(t: int, name: str) -> Line2D:
    return Line2D(
        [], [], color=MUTED, marker=TASK_MARKERS[t % len(TASK_MARKERS)], ls="none", ms=6,
        mec=PAPER, mew=0.5, label=shorten(name, 18),
    )  # fmt: skip


def _curve(ax: Axes, alphas: Floats, values: Floats, colour: str) -> None:
    """A method's mean along α and its interval; values (S, A) as shown."""
    mean, half = over_seeds(values)
    ax.plot(alphas, mean, color=colour)
    if np.isfinite(half).any():
        ax.fill_between(alphas, mean - half, mean + half, color=colour, alpha=0.18, lw=0)


def _mark(
    ax: Axes, alphas: Floats, values: Floats, chosen: Floats | None, look: Look, method: str
) -> None:
    """The chosen α of each seed on that seed's own curve."""
    if chosen is None:
        return
    for alpha, row in zip(chosen, values, strict=True):
        if np.isfinite(alpha):
            ax.plot(
                alpha, np.interp(alpha, alphas, row), look.marker(method), ms=7,
                color=look.colour(method), mec=PAPER, mew=0.8, zorder=4, clip_on=False,
            )  # fmt: skip


def _scale(ax: Axes, metric: Metric, found: Mapping[str, Floats]) -> None:
    every = np.concatenate([values.ravel() for values in found.values()])
    if spans_magnitudes(metric, every):
        ax.set_yscale("log")
        powers_of_ten(ax.yaxis)


def swept(results: Results) -> tuple[str, dict[str, Floats]]:
    """Metrics along α (S, A, T) by method, and their split: test, or validation without it."""
    found: dict[str, dict[str, Floats]] = {"test": {}, "validation": {}}
    for m in results.look.ordered(results.addition):
        addition = results.addition[m]
        for split, sweep in (
            ("test", addition.sweep_test),
            ("validation", addition.sweep_validation),
        ):
            if sweep is not None:
                found[split][m] = sweep
    split = "test" if found["test"] else "validation"
    return split, found[split]


def _level(results: Results, found: dict[str, Floats], split: str) -> Floats:
    """The pre-trained metric of each task, on the curves' split."""
    if split == "test":
        return results.pretrained.mean(0)
    start = int(np.abs(results.alphas).argmin())
    return next(iter(found.values()))[:, start].mean(0)


def sweeps(results: Results) -> Plot | None:
    """Mean metric against α, with the pre-trained level and the chosen α; None without a mean."""
    split, found = swept(results)
    shown = examples_phrase(results) if split == "test" else ""
    of, look = results.measures, results.look
    metric = of.shared
    if metric is None:
        return None
    times = factor(metric)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.6)
        ax = fig.subplots()
        means = {m: times * sweep.mean(-1) for m, sweep in found.items()}
        _scale(ax, metric, means)
        level = times * _level(results, found, split).mean()
        before = look.colour("pretrained")
        ax.axhline(level, color=before, lw=1.2, ls="--")
        for m, values in means.items():
            _curve(ax, results.alphas, values, look.colour(m))
            _mark(ax, results.alphas, values, results.addition[m].alpha, look, m)
        handles = [Line2D([], [], color=before, ls="--", label=look.label("pretrained"))]
        handles += [
            Line2D(
                [], [], color=look.colour(m), marker=look.marker(m), mec=PAPER, label=look.label(m)
            )
            for m in found
        ]
        if "joint" in results.addition and split == "test":
            joint = look.colour("joint")
            ax.axhline(
                times * results.addition["joint"].accuracy.mean(), color=joint, lw=1.2, ls=":"
            )
            handles.append(Line2D([], [], color=joint, ls=":", label=look.label("joint")))
        ax.set_xlabel("Scaling coefficient α (one for all tasks)")
        ax.set_ylabel(f"Mean {split} {axis(metric)}")
        ax.margins(x=0.01)
        ax.grid()
        _legend(fig, handles, narrow)
        return fig

    return Plot(
        "alpha_sweeps",
        f"{capital(of.name)} along α",
        f"Mean {split} {of.name} over {len(results.tasks)} tasks of θ0 + α Σ τ. Marks: the α "
        "chosen on validation data, one a seed, on that seed's curve; bands: 95 % t interval. "
        f"{seeds_phrase(results.seeds)} {shown}",
        f"Line plot: mean {split} {of.name} against alpha, a curve a regime.",
        draw,
    )


def sweeps_by_task(results: Results) -> Plot:
    """Each task's metric against α."""
    split, every = swept(results)
    shown = examples_phrase(results) if split == "test" else ""
    of, look = results.measures, results.look
    found = {m: s for m, s in every.items() if results.contends(m)}

    def draw(narrow: bool) -> Figure:
        across = min(2 if narrow else 4, len(results.tasks))
        down = int(np.ceil(len(results.tasks) / across))
        fig = figure(narrow, (1.75 if narrow else 2.0) * down + 0.6)
        alike = of.shared is not None
        axes = fig.subplots(down, across, squeeze=False, sharex=True, sharey=alike)
        before = look.colour("pretrained")
        for t, (ax, name, metric) in enumerate(
            zip(axes.flat, results.tasks, of.each, strict=False)
        ):
            times = factor(metric)
            level = times * _level(results, found or every, split)[t]
            ax.axhline(level, color=before, lw=1, ls="--")
            for m, sweep in found.items():
                _curve(ax, results.alphas, times * sweep[..., t], look.colour(m))
            ax.set_title(shorten(name, 16 if narrow else 24), fontsize=8.5, fontweight="normal")
            ax.grid()
            if alike:
                _scale(ax, metric, found or every)
            else:
                ax.set_ylabel(capital(axis(metric)), fontsize=7.5)
                _scale(ax, metric, {m: sweep[..., t] for m, sweep in (found or every).items()})
        for i, ax in enumerate(axes.flat[len(results.tasks) :], len(results.tasks)):
            ax.set_visible(False)
            axes.flat[i - across].tick_params(labelbottom=True)
        fig.supxlabel("Scaling coefficient α", fontsize=8.5)
        if of.shared is not None:
            text = f"{split.capitalize()} {axis(of.shared)}"
            if len(found) > 7:  # beside a tall legend the middle of the figure is not that of axes
                for ax in axes[:, 0]:
                    ax.set_ylabel(text)
            else:
                fig.supylabel(text, fontsize=8.5)
        handles = [Line2D([], [], color=before, ls="--", label=look.label("pretrained"))]
        handles += [Line2D([], [], color=look.colour(m), label=look.label(m)) for m in found]
        _legend(fig, handles, narrow)
        return fig

    return Plot(
        "alpha_sweeps_by_task",
        f"{capital(of.name)} along α, task by task",
        f"{split.capitalize()} {of.name} of each task under θ0 + α Σ τ, all tasks' vectors added "
        f"with one α. Dashed: pre-trained. {seeds_phrase(results.seeds)} {shown}",
        f"Small line plots: {split} {of.name} of each task against alpha, a curve a regime.",
        draw,
    )

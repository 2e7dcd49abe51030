"""Figure of one regime's single-task metric against the others'."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from linearize.objectives.metric import Metric
from linearize.report.compare.measures import axis, factor, lower_is_better, spans_magnitudes
from linearize.report.compare.phrases import examples_phrase
from linearize.report.compare.results import Results
from linearize.report.plot import Plot, figure, legend, powers_of_ten
from linearize.report.style import FACES, MUTED, PAPER, TASK_MARKERS, UNKNOWN, shorten


def _linearized(results: Results) -> bool:
    """Whether the first regime is the model itself, and all others are linearized."""
    first, *others = (FACES.get(m, UNKNOWN).tangent for m in results.look.ordered(results.single))
    return all(others) and not first


def against(results: Results) -> str:
    """What is held against what, as a title; empty of a run without regimes."""
    if not results.single:
        return ""
    first = results.look.inline(results.look.ordered(results.single)[0])
    return f"{'Linearized' if _linearized(results) else 'The others'} against {first}"


def scatter(results: Results) -> Plot:
    """The other regimes against the first, a point a task and seed, each alone on its task."""
    look, of = results.look, results.measures
    first, *others = look.ordered(results.single)
    panels = [(metric, tasks, m) for metric, tasks in of.groups() for m in others]
    lower = {lower_is_better(metric) for metric in of.each}
    of_what = "linearized models" if _linearized(results) else "others"
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
            _scatter(ax, results, metric, tasks, (first, m))
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        legend(fig, [_task_handle(t, name) for t, name in enumerate(results.tasks)], narrow, 5)
        return fig

    return Plot(
        "single_task_scatter",
        f"{look.label(first)} advantage",
        f"Single-task test {of.name} of the {of_what} "
        f"against the {look.inline(first)} one, a point a "
        f"task and seed ({len(results.seeds)} × {len(results.tasks)}); on the dashed diagonal both "
        f"are equal, {where} the {look.inline(first)} model is better. {examples_phrase(results)}",
        "Scatter plot with the diagonal; one marker shape a task.",
        draw,
    )


def _scatter(
    ax: Axes, results: Results, metric: Metric, tasks: list[int], methods: tuple[str, str]
) -> None:
    look, times = results.look, factor(metric)
    first, other = methods
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
            times * results.single[first][:, t], times * results.single[other][:, t], s=38,
            color=look.colour(other), marker=TASK_MARKERS[t % len(TASK_MARKERS)],
            edgecolors=PAPER, lw=0.5, zorder=3,
        )  # fmt: skip
    ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    ax.set_xlabel(f"{look.label(first)} {axis(metric)}")
    ax.set_ylabel(f"{look.label(other)} {axis(metric)}")
    ax.grid()


def _task_handle(t: int, name: str) -> Line2D:
    return Line2D(
        [], [], color=MUTED, marker=TASK_MARKERS[t % len(TASK_MARKERS)], ls="none", ms=6,
        mec=PAPER, mew=0.5, label=shorten(name, 18),
    )  # fmt: skip

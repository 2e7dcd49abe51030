"""Figures of the accuracies: single task, addition, negation, scatter and α sweeps."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from linearize.report.compare.results import Results
from linearize.report.compare.tables import control_phrase, examples_phrase
from linearize.report.node import Floats
from linearize.report.plot import Plot, figure, handle, legend, whiskers
from linearize.report.stats import over_seeds, seeds_phrase
from linearize.report.style import (
    GRID,
    INK,
    MUTED,
    PAPER,
    REGIMES,
    TASK_MARKERS,
    colour,
    label,
    marker,
    ordered,
    shorten,
)


def _dots(ax: Axes, rows: Sequence[str], series: Mapping[str, Floats], narrow: bool) -> None:
    """One row a task, one mark a method: mean over seeds in %, with its interval."""
    methods = list(series)
    step = 0.72 / max(len(methods), 1)
    for i in range(len(rows)):
        if i % 2 == 0:
            ax.axhspan(i - 0.5, i + 0.5, color=GRID, alpha=0.28, lw=0)
    for k, m in enumerate(methods):
        mean, half = over_seeds(100 * series[m])
        y = np.arange(len(rows)) + (k - (len(methods) - 1) / 2) * step
        ax.errorbar(
            mean, y, xerr=whiskers(half), fmt=marker(m),
            color=colour(m), ms=5.5, mec=PAPER, mew=0.5, elinewidth=1.2, capsize=0,
        )  # fmt: skip
    ax.set_yticks(range(len(rows)), [shorten(r, 14 if narrow else 20) for r in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def _task_rows(results: Results, series: Mapping[str, Floats]) -> dict[str, Floats]:
    """The series with the mean over tasks appended: (S, T) to (S, T + 1)."""
    return {m: np.concatenate([v, v.mean(-1, keepdims=True)], -1) for m, v in series.items()}


def _chance(results: Results) -> Floats:
    sizes = [len(results.classes.get(t, ())) for t in results.tasks]
    return np.array([100 / n if n else np.nan for n in sizes])


def _dot_plot(
    results: Results, panels: Sequence[tuple[str, Mapping[str, Floats]]], narrow: bool
) -> Figure:
    rows = [*results.tasks, "Mean"]
    methods = ordered({m for _, series in panels for m in series})
    across = 1 if narrow else len(panels)
    down = len(panels) // across
    fig = figure(narrow, down * (0.075 * len(methods) + 0.16) * len(rows) + 0.5 * down + 0.5)
    axes = fig.subplots(down, across, squeeze=False, sharey=True)
    for ax, (title, series) in zip(axes.flat, panels, strict=True):
        _dots(ax, rows, _task_rows(results, series), narrow)
        ax.axhline(len(rows) - 1.5, color=MUTED, lw=0.7)
        ax.set_title(title)
        ax.set_xlabel("Test accuracy [%]")
    handles = [handle(m) for m in methods]
    if len(panels) == 1:
        chance = _chance(results)
        if np.isfinite(chance).any():
            for i, value in enumerate(chance):
                axes[0, 0].plot([value, value], [i - 0.42, i + 0.42], color=MUTED, lw=1, ls=":")
            handles.append(Line2D([], [], color=MUTED, lw=1, ls=":", label="Chance"))
    legend(fig, handles, narrow)
    return fig


def single_task(results: Results) -> Plot:
    """Single-task accuracy of the regimes and of the pre-trained model."""
    series = {"pretrained": results.pretrained}
    if results.random_init is not None:
        series["random_init"] = results.random_init
    series |= {m: results.single[m] for m in ordered(dict(results.single))}
    return Plot(
        "single_task",
        "Single-task accuracy",
        "Test accuracy after fine-tuning on one task, evaluated on that task. "
        f"{seeds_phrase(results.seeds)} {examples_phrase(results)}",
        "Dot plot: one row a task, one mark each for the pre-trained model and the regimes.",
        lambda narrow: _dot_plot(results, [("", series)], narrow),
    )


def addition_tasks(results: Results) -> Plot:
    """Each task's accuracy after addition of all vectors."""
    series = {"pretrained": results.pretrained}
    series |= {m: results.addition[m].accuracy for m in ordered(dict(results.addition))}
    return Plot(
        "addition_by_task",
        "Addition, task by task",
        "Test accuracy of each task after adding all task vectors at the α chosen on validation "
        f"data. {seeds_phrase(results.seeds)} {examples_phrase(results)}",
        "Dot plot: one row a task, one mark a method.",
        lambda narrow: _dot_plot(results, [("", series)], narrow),
    )


def negation_tasks(results: Results) -> Plot:
    """Target and control accuracy of each task's negation."""
    methods = ordered(dict(results.negation))
    target = {"pretrained": results.pretrained}
    control = (
        {} if results.control_pretrained is None else {"pretrained": results.control_pretrained}
    )
    target |= {m: results.negation[m].target for m in methods}
    control |= {m: results.negation[m].control for m in methods}
    return Plot(
        "negation_by_task",
        "Negation, task by task",
        "Left or above: accuracy on the task whose vector was subtracted (lower is better). Right "
        f"or below: accuracy on its control task. {control_phrase(results)} "
        f"{seeds_phrase(results.seeds)} {examples_phrase(results)}",
        "Two dot plots: target and control accuracy of each task, one mark a method.",
        lambda narrow: _dot_plot(
            results, [("Target (lower is better)", target), ("Control", control)], narrow
        ),
    )


def _bars(ax: Axes, series: Mapping[str, Floats]) -> None:
    """Horizontal bars of task means, shape (S,): mean, interval, and a dot a seed."""
    for i, (m, values) in enumerate(series.items()):
        mean, half = (float(x) for x in over_seeds(100 * values))
        if not np.isfinite(mean):
            continue
        ax.barh(i, mean, color=colour(m), height=0.66)
        if len(values) > 1:
            spread = np.linspace(-0.16, 0.16, len(values))
            ax.scatter(100 * values, i + spread, s=7, color=PAPER, edgecolors=INK, lw=0.5, zorder=3)
        if np.isfinite(half):
            ax.errorbar(mean, i, xerr=half, color=INK, elinewidth=1.1, capsize=2.5, fmt="none")
        end = max(mean + (half if np.isfinite(half) else 0), *(100 * values))
        ax.annotate(
            f"{mean:.1f}", (end, i), xytext=(5, 0), textcoords="offset points", va="center",
            fontsize=8, color=INK,
        )  # fmt: skip
    ax.set_yticks(range(len(series)), [label(m) for m in series])
    ax.set_ylim(len(series) - 0.45, -0.55)
    ax.margins(x=0.16)
    ax.set_xlim(left=0)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)


def _bar_panels(panels: Sequence[tuple[str, Mapping[str, Floats]]], narrow: bool) -> Figure:
    down, across = (len(panels), 1) if narrow else (1, len(panels))
    tallest = max(len(series) for _, series in panels)
    fig = figure(narrow, down * (0.27 * tallest + 0.85))
    for ax, (title, series) in zip(
        fig.subplots(down, across, squeeze=False).flat, panels, strict=True
    ):
        _bars(ax, series)
        ax.set_title(title)
        ax.set_xlabel("Accuracy [%]")
    return fig


def addition(results: Results) -> Plot:
    """Absolute and normalized accuracy of the addition of all vectors."""
    methods = ordered(dict(results.addition))
    absolute = {"pretrained": results.pretrained.mean(-1)}
    absolute |= {m: results.addition[m].accuracy.mean(-1) for m in methods}
    normalized = {
        m: values.mean(-1)
        for m in methods
        if (values := results.addition[m].normalized) is not None
    }
    panels = [("Absolute accuracy", absolute)]
    if normalized:
        panels.append(("Normalized accuracy", normalized))
    return Plot(
        "addition",
        f"Addition of all {len(results.tasks)} task vectors",
        f"Mean test accuracy over {len(results.tasks)} tasks, absolute, and divided by the "
        "single-task accuracy of the same regime. Bars: mean; whiskers: 95 % t interval; dots: "
        f"seeds. {seeds_phrase(results.seeds)} {examples_phrase(results)}",
        "Horizontal bars: one a method, absolute and normalized accuracy.",
        lambda narrow: _bar_panels(panels, narrow),
    )


def negation(results: Results) -> Plot:
    """Target and control accuracy of the negations, mean over the tasks."""
    methods = ordered(dict(results.negation))
    target = {"pretrained": results.pretrained.mean(-1)}
    target |= {m: results.negation[m].target.mean(-1) for m in methods}
    before = results.control_pretrained
    control = {} if before is None else {"pretrained": before.mean(-1)}
    control |= {m: results.negation[m].control.mean(-1) for m in methods}

    def draw(narrow: bool) -> Figure:
        panels = [("Target (lower is better)", target), ("Control", control)]
        fig = _bar_panels(panels, narrow)
        if before is not None:
            floor = 100 * results.control_share * float(before.mean())
            fig.axes[1].axvline(floor, color=INK, lw=1, ls="--", zorder=4)
        return fig

    return Plot(
        "negation",
        "Negation of each task vector",
        f"Mean test accuracy over {len(results.tasks)} negated tasks, on the task and on its "
        f"control. Dashed: the control's floor, {100 * results.control_share:g} % of its "
        f"pre-trained accuracy, which α respects on validation data. {control_phrase(results)} "
        f"{seeds_phrase(results.seeds)} {examples_phrase(results)}",
        "Horizontal bars: target and control accuracy, one a method.",
        draw,
    )


def scatter(results: Results) -> Plot:
    """The linearized regimes against non-linear single-task accuracy, a point a task and seed."""
    others = [m for m in ("posthoc", "linear", "exact") if m in results.single]
    base = 100 * results.single["nonlinear"]
    shown = np.concatenate([base, *(100 * results.single[m] for m in others)])
    low = max(0.0, 5 * np.floor((np.nanmin(shown) - 2) / 5))
    high = min(102.0, 5 * np.ceil((np.nanmax(shown) + 2) / 5))

    def draw(narrow: bool) -> Figure:
        rows = int(np.ceil(len(results.tasks) / 2)) if narrow else 1
        down, across = (len(others), 1) if narrow else (1, len(others))
        fig = figure(narrow, 3.3 * down + 0.2 * rows if narrow else 4.2)
        for ax, m in zip(fig.subplots(down, across, squeeze=False).flat, others, strict=True):
            ax.plot([low, high], [low, high], color=MUTED, lw=0.9, ls="--", zorder=1)
            for t in range(len(results.tasks)):
                ax.scatter(
                    base[:, t], 100 * results.single[m][:, t], s=38, color=colour(m),
                    marker=TASK_MARKERS[t % len(TASK_MARKERS)], edgecolors=PAPER, lw=0.5, zorder=3,
                )  # fmt: skip
            ax.set(xlim=(low, high), ylim=(low, high), aspect="equal")
            ax.set_xlabel("Non-linear accuracy [%]")
            ax.set_ylabel(f"{label(m)} accuracy [%]")
            ax.grid()
        legend(fig, [_task_handle(t, name) for t, name in enumerate(results.tasks)], narrow, 5)
        return fig

    return Plot(
        "single_task_scatter",
        "Non-linear advantage",
        "Single-task test accuracy of the linearized models against the non-linear one, a point a "
        f"task and seed ({len(results.seeds)} × {len(results.tasks)}); on the dashed diagonal both "
        f"are equal, below it the non-linear model is better. {examples_phrase(results)}",
        "Scatter plot with the diagonal; one marker shape a task.",
        draw,
    )


def _task_handle(t: int, name: str) -> Line2D:
    return Line2D(
        [], [], color=MUTED, marker=TASK_MARKERS[t % len(TASK_MARKERS)], ls="none", ms=6,
        mec=PAPER, mew=0.5, label=shorten(name, 18),
    )  # fmt: skip


def _curve(ax: Axes, alphas: Floats, values: Floats, method: str) -> None:
    mean, half = over_seeds(100 * values)
    ax.plot(alphas, mean, color=colour(method))
    if np.isfinite(half).any():
        ax.fill_between(alphas, mean - half, mean + half, color=colour(method), alpha=0.18, lw=0)


def _mark(ax: Axes, alphas: Floats, values: Floats, chosen: Floats | None, method: str) -> None:
    """The chosen α of each seed on that seed's own curve."""
    if chosen is None:
        return
    for alpha, row in zip(chosen, values, strict=True):
        if np.isfinite(alpha):
            ax.plot(
                alpha, 100 * np.interp(alpha, alphas, row), marker(method), ms=7,
                color=colour(method), mec=PAPER, mew=0.8, zorder=4, clip_on=False,
            )  # fmt: skip


def swept(results: Results) -> tuple[str, dict[str, Floats]]:
    """Accuracies along α (S, A, T) by method, and their split: test, or validation without it."""
    found: dict[str, dict[str, Floats]] = {"test": {}, "validation": {}}
    for m in ordered(dict(results.addition)):
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
    """The pre-trained accuracy of each task, on the curves' split."""
    if split == "test":
        return results.pretrained.mean(0)
    start = int(np.abs(results.alphas).argmin())
    return next(iter(found.values()))[:, start].mean(0)


def sweeps(results: Results) -> Plot:
    """Mean accuracy against α, with the pre-trained level and the chosen α."""
    split, found = swept(results)
    shown = examples_phrase(results) if split == "test" else ""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.6)
        ax = fig.subplots()
        level = 100 * _level(results, found, split).mean()
        ax.axhline(level, color=colour("pretrained"), lw=1.2, ls="--")
        for m, sweep in found.items():
            _curve(ax, results.alphas, sweep.mean(-1), m)
            _mark(ax, results.alphas, sweep.mean(-1), results.addition[m].alpha, m)
        handles = [Line2D([], [], color=colour("pretrained"), ls="--", label=label("pretrained"))]
        handles += [
            Line2D([], [], color=colour(m), marker=marker(m), mec=PAPER, label=label(m))
            for m in found
        ]
        if "joint" in results.addition and split == "test":
            ax.axhline(
                100 * results.addition["joint"].accuracy.mean(),
                color=colour("joint"),
                lw=1.2,
                ls=":",
            )
            handles.append(Line2D([], [], color=colour("joint"), ls=":", label=label("joint")))
        ax.set_xlabel("Scaling coefficient α (one for all tasks)")
        ax.set_ylabel(f"Mean {split} accuracy [%]")
        ax.margins(x=0.01)
        ax.grid()
        legend(fig, handles, narrow)
        return fig

    return Plot(
        "alpha_sweeps",
        "Accuracy along α",
        f"Mean {split} accuracy over {len(results.tasks)} tasks of θ0 + α Σ τ. Marks: the α chosen "
        "on validation data, one a seed, on that seed's curve; bands: 95 % t interval. "
        f"{seeds_phrase(results.seeds)} {shown}",
        f"Line plot: mean {split} accuracy against alpha, a curve a regime.",
        draw,
    )


def sweeps_by_task(results: Results) -> Plot:
    """Each task's accuracy against α."""
    split, every = swept(results)
    shown = examples_phrase(results) if split == "test" else ""
    found = {m: s for m, s in every.items() if m in REGIMES}

    def draw(narrow: bool) -> Figure:
        across = min(2 if narrow else 4, len(results.tasks))
        down = int(np.ceil(len(results.tasks) / across))
        fig = figure(narrow, (1.75 if narrow else 2.0) * down + 0.6)
        axes = fig.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for t, (ax, name) in enumerate(zip(axes.flat, results.tasks, strict=False)):
            level = 100 * _level(results, found, split)[t]
            ax.axhline(level, color=colour("pretrained"), lw=1, ls="--")
            for m, sweep in found.items():
                _curve(ax, results.alphas, sweep[..., t], m)
            ax.set_title(shorten(name, 16 if narrow else 24), fontsize=8.5, fontweight="normal")
            ax.grid()
        for i, ax in enumerate(axes.flat[len(results.tasks) :], len(results.tasks)):
            ax.set_visible(False)
            axes.flat[i - across].tick_params(labelbottom=True)
        fig.supxlabel("Scaling coefficient α", fontsize=8.5)
        fig.supylabel(f"{split.capitalize()} accuracy [%]", fontsize=8.5)
        handles = [Line2D([], [], color=colour("pretrained"), ls="--", label=label("pretrained"))]
        handles += [Line2D([], [], color=colour(m), label=label(m)) for m in found]
        legend(fig, handles, narrow)
        return fig

    return Plot(
        "alpha_sweeps_by_task",
        "Accuracy along α, task by task",
        f"{split.capitalize()} accuracy of each task under θ0 + α Σ τ, all tasks' vectors added "
        f"with one α. Dashed: pre-trained. {seeds_phrase(results.seeds)} {shown}",
        f"Small line plots: {split} accuracy of each task against alpha, a curve a regime.",
        draw,
    )

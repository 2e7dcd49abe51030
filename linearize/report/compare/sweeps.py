"""Figures of the metric along α."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from linearize.objectives.metric import Metric
from linearize.report.compare.measures import axis, bounds, capital, factor, spans_magnitudes
from linearize.report.compare.phrases import examples_phrase
from linearize.report.compare.plots import method_legend
from linearize.report.compare.results import Results
from linearize.report.node import Floats
from linearize.report.plot import Plot, band, figure, powers_of_ten
from linearize.report.stats import seeds_phrase
from linearize.report.style import PAPER, Look, shorten

_ZERO = 1e-9
"""What early runs wrote for 0 on a grid of ``np.linspace``, at most."""


def _mark(
    ax: Axes, alphas: Floats, values: Floats, chosen: Floats | None, look: Look, method: str
) -> None:
    """The chosen α of each seed on that seed's own curve."""
    if chosen is None:
        return
    for alpha, row in zip(chosen, values, strict=True):
        if np.isfinite(alpha):
            nearest = int(np.abs(alphas - alpha).argmin())
            ax.plot(
                alphas[nearest], row[nearest], look.marker(method), ms=7,
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


def _level(results: Results, found: dict[str, Floats], split: str) -> Floats | None:
    """The pre-trained metric of each task, on the curves' split; None where no α is 0."""
    if split == "test":
        return results.pretrained.mean(0)
    start = np.flatnonzero(np.abs(results.alphas) <= _ZERO)
    return next(iter(found.values()))[:, start[0]].mean(0) if len(start) else None


def _dashed(ax: Axes, level: float, width: float, look: Look) -> Line2D:
    """The pre-trained level, and its entry in the legend."""
    colour = look.colour("pretrained")
    ax.axhline(level, color=colour, lw=width, ls="--")
    return Line2D([], [], color=colour, ls="--", label=look.label("pretrained"))


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
        level, handles = _level(results, found, split), []
        if level is not None:
            handles.append(_dashed(ax, times * level.mean(), 1.2, look))
        for m, values in means.items():
            band(ax, results.alphas, values, bounds(metric), color=look.colour(m))
            _mark(ax, results.alphas, values, results.addition[m].alpha, look, m)
        handles += [
            Line2D(
                [], [], color=look.colour(m), marker=look.marker(m), mec=PAPER, label=look.label(m)
            )
            for m in found
        ]
        for m in look.ordered(results.addition) if split == "test" else ():
            if results.addition[m].alpha is None:  # added in full
                reached, shade = results.addition[m].accuracy.mean(), look.colour(m)
                ax.axhline(times * reached, color=shade, lw=1.2, ls=":")
                handles.append(Line2D([], [], color=shade, ls=":", label=look.label(m)))
        ax.set_xlabel("Scaling coefficient α (one for all tasks)")
        ax.set_ylabel(f"Mean {split} {axis(metric)}")
        ax.margins(x=0.01)
        ax.grid()
        method_legend(fig, handles, narrow)
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
    dashed = " Dashed: pre-trained." * (_level(results, found or every, split) is not None)

    def draw(narrow: bool) -> Figure:
        across = min(2 if narrow else 4, len(results.tasks))
        down = int(np.ceil(len(results.tasks) / across))
        fig = figure(narrow, (1.75 if narrow else 2.0) * down + 0.6)
        alike = of.shared is not None
        axes = fig.subplots(down, across, squeeze=False, sharex=True, sharey=alike)
        level, handles = _level(results, found or every, split), []
        for t, (ax, name, metric) in enumerate(
            zip(axes.flat, results.tasks, of.each, strict=False)
        ):
            times = factor(metric)
            if level is not None:
                handles = [_dashed(ax, times * level[t], 1, look)]
            for m, sweep in found.items():
                values = times * sweep[..., t]
                band(ax, results.alphas, values, bounds(metric), color=look.colour(m))
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
        handles += [Line2D([], [], color=look.colour(m), label=look.label(m)) for m in found]
        method_legend(fig, handles, narrow)
        return fig

    return Plot(
        "alpha_sweeps_by_task",
        f"{capital(of.name)} along α, task by task",
        f"{split.capitalize()} {of.name} of each task under θ0 + α Σ τ, all tasks' vectors added "
        f"with one α.{dashed} {seeds_phrase(results.seeds)} {shown}",
        f"Small line plots: {split} {of.name} of each task against alpha, a curve a regime.",
        draw,
    )

"""Figures: spectra and histograms of a pair, energies of all pairs, energies against ξ."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.localization.results import Pair, Results, Spectrum
from experiments.localization.tables import NAMES, interval
from linearize.report.node import Floats
from linearize.report.plot import Plot, figure, in_cell, legend, matrix_axes, whiskers
from linearize.report.stats import mean_phrase, over_seeds, seeds_phrase
from linearize.report.style import INK, MUTED, PAPER, colour, label, shorten
from linearize.report.table import fixed

DIVERGING = "RdBu"
"""Blue on the task, red on the control, as in the histograms."""
TASK, CONTROL = colour("nonlinear"), colour("gradient_ascent")
_BINS = 20
SUM = (0.0, 2.0)
"""Bounds of an energy on two tasks, and of an error summed over them."""


def _both_directions(
    shown: Sequence[tuple[str, Pair, Spectrum]],
    narrow: bool,
    height: float,
    names: tuple[str, str],
    panel: Callable[[Axes, Spectrum], None],
) -> Figure:
    """A row a direction, a column an initialization; on a phone one below the other."""
    across = 1 if narrow else len(shown) // 2
    fig = figure(narrow, height)
    axes = fig.subplots(-(-len(shown) // across), across, squeeze=False, sharex=True, sharey=True)
    width = 11 if narrow else 16
    for k, (ax, (initialization, pair, found)) in enumerate(zip(axes.flat, shown, strict=True)):
        panel(ax, found)
        target, control = (shorten(name, width) for name in pair)
        ax.set_title(f"{NAMES[initialization]}: {target}, {control}", fontsize=8.5)
        if k % across == 0:
            ax.set_ylabel(names[1])
        if k >= len(shown) - across:
            ax.set_xlabel(names[0])
    return fig


def spectrum(results: Results, index: int) -> Plot:
    """Eigenvalues of one pair, by where their eigenfunctions live and how much they carry."""
    pair = results.pairs[index]
    shown = results.drawn(pair)

    def panel(ax: Axes, found: Spectrum) -> None:
        values, weights = found.values[0], found.weights[0]
        kept = values > 1e-7 * values[0]
        ax.scatter(
            np.arange(1, len(values) + 1)[kept],
            values[kept] / values[0],
            s=6 + 900 * weights[kept],
            c=1 - found.control[0][kept],
            cmap=DIVERGING,
            norm=Normalize(-1, 1),
            edgecolors=INK,
            linewidths=0.4,
        )
        ax.set(xscale="log", yscale="log")
        ax.grid(alpha=0.6)

    def draw(narrow: bool) -> Figure:
        height = 2.2 * len(shown) + 0.8 if narrow else 4.9
        names = ("rank of the eigenfunction", "eigenvalue ÷ largest")
        fig = _both_directions(shown, narrow, height, names, panel)
        bar = fig.colorbar(
            fig.axes[-1].collections[0], ax=fig.axes, location="bottom" if narrow else "right",
            aspect=30, pad=0.02, shrink=0.9, ticks=[-1, 0, 1],
        )  # fmt: skip
        bar.ax.set(**{"xticklabels" if narrow else "yticklabels": ["control", "both", "task"]})
        bar.set_label("where the eigenfunction lives", fontsize=8)
        bar.outline.set_visible(False)
        return fig

    first = "" if len(results.seeds) == 1 else f" Seed {results.seeds[0]}."
    return Plot(
        f"spectrum_{index + 1}_{'_'.join(pair)}",
        f"Eigenfunctions of the kernel: {pair[0]} and {pair[1]}",
        f"Eigenvalues on {results.points} inputs of each task. Colour: half the difference of the "
        "local energies on task and control, 1 where all energy is on the task, −1 where all is on "
        "the control. Size: the share of the target's square that the eigenfunction carries. "
        f"Titles: target, then control.{first}",
        f"Scatter plots of eigenvalues against rank, {len(shown) // 2} initializations, two "
        "targets.",
        draw,
    )


def histogram(results: Results, index: int) -> Plot:
    """How a target's square is spread over local energies, on task and control."""
    pair = results.pairs[index]
    shown = results.drawn(pair)
    edges = np.linspace(0, 2, _BINS + 1)

    def panel(ax: Axes, found: Spectrum) -> None:
        for shade, energies in ((TASK, 2 - found.control), (CONTROL, found.control)):
            mass = [
                np.histogram(np.clip(e, 0, 2), edges, weights=w)[0]
                for e, w in zip(energies, found.weights, strict=True)
            ]
            ax.stairs(np.mean(mass, 0), edges, fill=True, color=shade, alpha=0.35, lw=0)
            ax.stairs(np.mean(mass, 0), edges, color=shade, lw=1.3)
        mean = (found.control * found.weights).sum(1).mean()
        for shade, at in ((CONTROL, mean), (TASK, 2 - mean)):
            ax.axvline(at, color=shade, lw=1.1, ls="--")
        ax.set_xlim(0, 2)

    def draw(narrow: bool) -> Figure:
        height = 1.8 * len(shown) + 0.7 if narrow else 4.4
        names = ("local energy", "share of the target")
        fig = _both_directions(shown, narrow, height, names, panel)
        marks = [
            Line2D([], [], color=shade, lw=4, alpha=0.6, label=text)
            for shade, text in ((TASK, "on the task"), (CONTROL, "on the control"))
        ]
        legend(fig, [*marks, Line2D([], [], color=MUTED, ls="--", lw=1.1, label="mean")], narrow)
        return fig

    return Plot(
        f"histogram_{index + 1}_{'_'.join(pair)}",
        f"Local energy of the eigenfunctions: {pair[0]} and {pair[1]}",
        "Histogram of the eigenfunctions' local energies, each weighed by the share of the "
        "target's square that it carries. Perfectly localized: 2 on the task, 0 on the control; "
        "living everywhere: 1 on both. The two mirror each other, as an eigenfunction's energies "
        "sum to 2. Titles: target, then control."
        + ("" if len(results.seeds) == 1 else f" Mean of {len(results.seeds)} seeds."),
        f"Histograms of local energy on task and control, {len(shown) // 2} initializations, two "
        "targets.",
        draw,
    )


def matrix(results: Results) -> Plot:
    """The energy on the control, every target with every control, a panel an initialization."""
    shown = {i: results.matrix("control", i)[:, 0].mean(0) for i in results.tasks}
    sizes = [len(mean) for mean in shown.values()]
    lowest = min(float(np.nanmin(mean)) for mean in shown.values())

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.5 * len(shown) + 0.6 if narrow else 4.0)
        shape = (len(shown), 1) if narrow else (1, len(shown))
        ratios = {"height_ratios" if narrow else "width_ratios": sizes}
        axes = list(fig.subplots(*shape, squeeze=False, gridspec_kw=ratios).flat)
        for ax, (i, mean) in zip(axes, shown.items(), strict=True):
            image = ax.imshow(mean, cmap="viridis", vmin=np.floor(lowest * 20) / 20, vmax=1)
            for (row, column), value in np.ndenumerate(mean):
                if row != column:
                    text, size = fixed(float(value), 2), 5.5 if narrow else 6.5
                    in_cell(ax, column, row, text, size, dark=image.norm(value) <= 0.6)
            names = [shorten(name, 13) for name in results.tasks[i]]
            matrix_axes(ax, names, names, 40)
            ax.set(title=NAMES[i], xlabel="control", ylabel="target")
        bar = fig.colorbar(
            image, ax=axes, location="bottom" if narrow else "right", shrink=0.8,
            aspect=30 if narrow else 22, pad=0.02,
        )  # fmt: skip
        bar.set_label("energy on the control", fontsize=8)
        bar.outline.set_visible(False)
        return fig

    return Plot(
        "energy",
        "Energy on the control, of every target and control",
        "Local energy, on the control's inputs, of the eigenfunctions that carry the target, "
        "weighed by its squared coefficients; dark is localized on the task, 1 is everywhere."
        f"{mean_phrase(results.seeds)}",
        "Matrices of energies, a row a target and a column a control, one an initialization.",
        draw,
    )


def scatter(results: Results) -> Plot:
    """Every pair's energy on the control against its ξ, a panel a regime."""
    names, energy = results.pretrained, results.matrix("control", "pretrained")[:, 0]
    upper = np.triu_indices(len(names), 1)
    x = ((energy + energy.swapaxes(1, 2)) / 2)[:, *upper]
    marked = [frozenset(pair) for pair in results.pairs]

    def draw(narrow: bool) -> Figure:
        shape = (len(results.xi), 1) if narrow else (1, len(results.xi))
        fig = figure(narrow, 2.9 * len(results.xi) + 0.3 if narrow else 3.6)
        axes = list(fig.subplots(*shape, squeeze=False).flat)
        for ax, (regime, xi) in zip(axes, results.xi.items(), strict=True):
            y = (xi.box + xi.box.swapaxes(1, 2))[:, *upper]
            energies, errors = over_seeds(x), over_seeds(y)
            across, up = energies.mean, errors.mean
            if len(results.seeds) > 1:
                ax.errorbar(
                    across, up, xerr=whiskers(energies, SUM), yerr=whiskers(errors, SUM),
                    fmt="none", ecolor=MUTED, elinewidth=0.5, alpha=0.5,
                )  # fmt: skip
            ax.scatter(across, up, s=26, color=colour(regime), edgecolors=PAPER, lw=0.5, zorder=3)
            for a, b, px, py in zip(*upper, across, up, strict=True):
                if frozenset((names[a], names[b])) in marked:
                    ax.annotate(
                        f"{names[a]}, {names[b]}", (px, py), xytext=(5, 5), fontsize=7,
                        textcoords="offset points", zorder=4,
                    )  # fmt: skip
            ax.set(xlim=_around(across), ylim=_around(up))
            ax.set_title(f"{label(regime)}: {_rho(results, regime)}", fontsize=8.5)
            ax.set_xlabel("energy on the control, mean of both directions")
            ax.grid(alpha=0.6)
        for ax in axes if narrow else axes[:1]:
            ax.set_ylabel("ξ, mean in the search box")
        return fig

    many = "" if len(results.seeds) == 1 else " Lines: 95 % t intervals over seeds."
    return Plot(
        "relation",
        "Localization and disentanglement error of every pair",
        f"A point a pair of tasks. {seeds_phrase(results.seeds)}{many} ρ: Spearman's rank "
        "correlation of the means over seeds, with its 95 % jackknife interval over tasks.",
        f"Scatter plots of ξ against energy on the control, {len(results.xi)} regimes.",
        draw,
    )


def _around(values: Floats) -> tuple[float, float]:
    """Limits around the points alone: an interval may reach beyond what can be drawn."""
    margin = 0.15 * (np.ptp(values) or 0.1)
    return float(values.min() - margin), float(values.max() + margin)


def _rho(results: Results, regime: str) -> str:
    first = next(r for r in results.relation if (r.regime, r.coefficients) == (regime, "box"))
    found = first.pairs
    if not np.isfinite(found.mean):
        return "ρ not defined"
    brackets = f" {interval(found)}" if np.isfinite(found.low) else ""
    return f"ρ = {fixed(found.mean, 2)}{brackets}"

"""The page of ``experiments.width``: slopes against width, and the papers' claims."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from experiments.width.results import QUANTITIES, Results
from linearize.report.node import Floats
from linearize.report.page import Page, Section, shows
from linearize.report.plot import Plot, errorbars, figure, legend, whiskers
from linearize.report.stats import POSITIVE, over_seeds, seeds_phrase
from linearize.report.style import MUTED, colour
from linearize.report.table import NONE, Cell, Table, cell, freeze, number, percent

SOURCES = """After Jacot et al., <cite>Neural Tangent Kernel: Convergence and Generalization in
Neural Networks</cite> (NeurIPS 2018, arXiv 1806.07572), Lee et al., <cite>Deep Neural Networks as
Gaussian Processes</cite> (ICLR 2018, arXiv 1711.00165), Lee et al., <cite>Wide Neural Networks of
Any Depth Evolve as Linear Models Under Gradient Descent</cite> (NeurIPS 2019, arXiv 1902.06720),
and Hanin and Nica, <cite>Finite Depth and Width Corrections to the Neural Tangent Kernel</cite>
(ICLR 2020, arXiv 1909.05989)."""


PANELS = (
    ("Kernel drift", "‖Kₜ − K₀‖ / ‖K₀‖", ("drift", "feature_drift")),
    ("Gap to the linearization", "RMS of f − f_lin on test", ("gap", "gap_at_theta")),
    ("Movement of the weights", "‖Wₜ − W₀‖ / ‖W₀‖", ("input", "hidden", "output")),
    ("Empirical against analytic", "‖K₀ − K∞‖ / ‖K∞‖", ("ntk_error", "nngp_error")),
)
_LOOKS = ("nonlinear", "posthoc", "linear")
"""Methods of other pages, whose colours and marks a panel's quantities take."""


def phrase(results: Results) -> str:
    """Where quantities are taken and over what their intervals are, for captions."""
    steps = ", ".join(map(str, results.steps))
    return (
        f"Largest value at the steps {steps}. {seeds_phrase(results.seeds)} Errors against "
        f"analytic kernels: at θ0, over {len(results.measured.ntk_error)} draws of the weights."
    )


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    widths = results.widths
    lead = (
        f"{results.model_name}, {len(widths)} widths from {widths[0]} to {widths[-1]}; "
        f"{results.counts['train']} examples of {results.task}, squared error, {results.steps[-1]} "
        f"steps of full-batch gradient descent at {results.config.get('rate', '?')} of the largest "
        "stable learning rate of the infinite-width kernel."
    )
    return Page(
        title=f"Kernel behaviour against width: {results.preset}",
        lead=lead,
        facts=results.facts([results.task]),
        sections=(
            results.verdicts(caption="Decided by the 95 % interval of this run's slopes alone."),
            Section("scaling", "Against width", (scaling(results), slopes(results))),
            Section("widths", "Width by width", (by_width(results), learning(results))),
            Section("time", "Along training", (in_time(results),)),
            results.configuration,
        ),
        headlines=("slopes", "claims"),
        sources=SOURCES,
    )


def scaling(results: Results) -> Plot:
    """Every quantity against width, doubly logarithmic, with the slopes of the theory."""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 10.4 if narrow else 6.2)
        axes = fig.subplots(4, 1) if narrow else fig.subplots(2, 2)
        for ax, (title, what, names) in zip(axes.flat, PANELS, strict=True):
            _panel(ax, results, names)
            ax.set(title=title, ylabel=what, xlabel="Width")
        handles = [
            Line2D([], [], color=MUTED, lw=1, ls="--", label="slope −1/2"),
            Line2D([], [], color=MUTED, lw=1, ls=":", label="slope −1"),
        ]
        legend(fig, handles, narrow)
        return fig

    return Plot(
        "scaling",
        "Against width",
        f"{phrase(results)} Small dots: seeds or draws. Dashed and dotted: slopes −1/2 and −1, "
        f"through the first fitted width ({results.fit_from}).",
        "Four doubly logarithmic panels against width: kernel drift, gap to the linearization, "
        "movement of the weights, distance from the analytic kernels, beside lines of slope −1/2 "
        "and −1. " + _in_words(results),
        draw,
    )


def _in_words(results: Results) -> str:
    fitted = (
        f"{QUANTITIES[name].label} {results.slopes[name].fit.mean():.2f}"
        for name in results.measured.largest
    )
    return f"Slopes: {', '.join(fitted)}."


def _panel(ax: Axes, results: Results, names: Sequence[str]) -> None:
    widths, largest = np.asarray(results.widths, float), results.measured.largest
    shown = {name: largest[name] for name in names if name in largest}
    for (name, values), method in zip(shown.items(), _LOOKS, strict=False):
        slope = results.slopes[name].fit.mean()
        text = f"{QUANTITIES[name].short} ({slope:.2f})".replace("-", "−")
        across = np.broadcast_to(widths, values.shape)
        ax.scatter(across, values, s=3, color=colour(method), alpha=0.3, lw=0)
        errorbars(ax, widths, values, method, POSITIVE, label=text)
    at = int(np.argmax(widths >= results.fit_from))
    anchor = next(iter(shown.values()))[:, at].mean()
    for exponent, style in ((-0.5, "--"), (-1.0, ":")):
        guide = anchor * (widths[at:] / widths[at]) ** exponent
        ax.plot(widths[at:], guide, color=MUTED, lw=1, ls=style, zorder=1)
    _log_axes(ax, results.widths, np.concatenate([values.ravel() for values in shown.values()]))
    ax.legend(loc="lower left", handlelength=1.4, borderaxespad=0.2)


def _log_axes(ax: Axes, ticks: Sequence[int], shown: Floats) -> None:
    """Doubly logarithmic, a label at each of ``ticks``, as high as the numbers ``shown``."""
    ax.set(xscale="log", yscale="log", ylim=(0.8 * shown.min(), 1.25 * shown.max()))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xticks(ticks, [str(t) for t in ticks])
    ax.minorticks_off()
    ax.grid()


def in_time(results: Results) -> Plot:
    """Drift and gap along training, a line for each width."""
    shown = {"drift": results.measured.drift, "gap": results.measured.gap}

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 5.6 if narrow else 3.2)
        axes = fig.subplots(len(shown), 1) if narrow else fig.subplots(1, len(shown))
        inks = colormaps["viridis"](np.linspace(0, 0.85, len(results.widths)))
        for ax, (name, values) in zip(np.ravel(axes), shown.items(), strict=True):
            for w, ink in enumerate(inks):
                found = over_seeds(values[:, w])
                ax.errorbar(
                    results.steps, found.mean, yerr=whiskers(found, POSITIVE), color=ink,
                    marker="o", ms=3, lw=1.2,
                )  # fmt: skip
            _log_axes(ax, results.steps, values.mean(0))
            title, what, _ = next(p for p in PANELS if name in p[2])
            ax.set(title=title, ylabel=what, xlabel="Steps")
        handles = [
            Line2D([], [], color=ink, marker="o", ms=3, label=str(width))
            for ink, width in zip(inks, results.widths, strict=True)
        ]
        legend(fig, handles, narrow)
        return fig

    return Plot(
        "in_time",
        "Drift and gap along training",
        "One line a width; the gap is between f and f_lin, each trained. "
        f"{seeds_phrase(results.seeds)}",
        "Two doubly logarithmic panels: kernel drift and gap to the linearization against steps of "
        "gradient descent, one line a width, lower for wider networks.",
        draw,
    )


def slopes(results: Results) -> Table:
    """Exponents with their intervals, beside the theory's."""
    ntk = results.config.get("parametrization", "ntk") == "ntk"
    rows = [
        [
            Cell(QUANTITIES[name].label),
            Cell((QUANTITIES[name].theory if ntk else "") or NONE),
            number(results.slopes[name].fit, 3),
            number(results.slopes[name].every, 3),
        ]
        for name in results.measured.largest
    ]
    return Table(
        "slopes",
        "Exponents in the width",
        f"Least-squares slopes of log quantity against log width, one a seed. {phrase(results)}",
        ("Quantity", "Theory", f"From width {results.fit_from}", "All widths"),
        freeze(rows),
    )


def by_width(results: Results) -> Table:
    """Every quantity at every width."""
    rows = [
        [Cell(QUANTITIES[name].label), *(_significant(v) for v in values.T)]
        for name, values in results.measured.largest.items()
    ]
    for name, label in (("ntk", "Mean NTK of the draws"), ("nngp", "Mean last layer's kernel")):
        values = results.error_of_mean[name]
        rows.append([Cell(f"{label} against analytic"), *(_significant(v[None]) for v in values)])
    return Table(
        "by_width",
        "Width by width",
        f"{phrase(results)} Gaps are root mean squares over test examples and outputs; drifts, "
        "movements and errors relative Frobenius norms.",
        ("Quantity", *map(str, results.widths)),
        freeze(rows),
    )


def learning(results: Results) -> Table:
    """How far training came, of f and of f_lin."""
    measured = results.measured

    def row(label: str, values: Floats, show: Callable[[Floats], Cell]) -> list[Cell]:
        return [Cell(label), *(show(v) for v in values[..., -1].T)]

    return Table(
        "learning",
        "How far learning is",
        f"After {results.steps[-1]} steps. Loss: squared error on the training examples as a "
        "share of that at θ0; accuracy and agreement on test examples in %. "
        f"{seeds_phrase(results.seeds)}",
        ("Measure", *map(str, results.widths)),
        freeze(
            [
                row("Training loss, f", measured.f.loss, _significant),
                row("Training loss, f_lin", measured.f_lin.loss, _significant),
                row("Test accuracy, f", measured.f.accuracy, percent),
                row("Test accuracy, f_lin", measured.f_lin.accuracy, percent),
                row("Same class predicted", measured.agreement, percent),
                row("‖f − f_lin‖ / ‖f − f0‖", measured.gap_share, _significant),
            ]
        ),
    )


def _significant(values: Floats) -> Cell:
    """Mean ± half width with two digits of the half width, or three of the mean."""
    mean, half = (float(x) for x in over_seeds(values))
    leading = half if np.isfinite(half) and half > 0 else abs(mean) / 10
    digits = 1 - int(np.floor(np.log10(leading))) if leading > 0 else 2
    return cell(mean, half, min(max(digits, 0), 8))

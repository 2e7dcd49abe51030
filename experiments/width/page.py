"""The page of ``experiments.width``: slopes against width, and the papers' claims."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator

from linearize.report.claims import claims_section
from linearize.report.node import Floats, Node
from linearize.report.page import Page, Section, configuration_of, facts_of
from linearize.report.plot import Plot, errorbars, figure, legend, whiskers
from linearize.report.stats import over_seeds, seeds_phrase
from linearize.report.style import MUTED, colour
from linearize.report.table import NONE, Cell, Table, cell, freeze, number, percent

SOURCES = """After Jacot et al., <cite>Neural Tangent Kernel: Convergence and Generalization in
Neural Networks</cite> (NeurIPS 2018, arXiv 1806.07572), Lee et al., <cite>Deep Neural Networks as
Gaussian Processes</cite> (ICLR 2018, arXiv 1711.00165), Lee et al., <cite>Wide Neural Networks of
Any Depth Evolve as Linear Models Under Gradient Descent</cite> (NeurIPS 2019, arXiv 1902.06720),
and Hanin and Nica, <cite>Finite Depth and Width Corrections to the Neural Tangent Kernel</cite>
(ICLR 2020, arXiv 1909.05989)."""


@dataclass(frozen=True)
class Quantity:
    """A row of the tables and a curve of the figures."""

    name: str
    label: str
    short: str
    theory: str
    """What is expected of its exponent in the ``"ntk"`` parametrization."""


QUANTITIES = {
    q.name: q
    for q in (
        Quantity("drift", "Drift of the NTK", "NTK", "≤ −1/2, near −1"),
        Quantity("feature_drift", "Drift of the last layer's kernel", "last layer", "≤ −1/2"),
        Quantity("gap", "Gap to f_lin, each trained", "each trained", "≤ −1/2"),
        Quantity("gap_at_theta", "Gap to f_lin at the same weights", "same weights", ""),
        Quantity("input", "Movement of input weights", "input", "−1/2"),
        Quantity("hidden", "Movement of hidden weights", "hidden", "−1"),
        Quantity("output", "Movement of output weights", "output", "−1/2"),
        Quantity("distance", "Distance of all weights", "all, absolute", "≤ 0"),
        Quantity("ntk_error", "NTK at θ0 against analytic", "NTK", "−1/2"),
        Quantity("nngp_error", "Last layer's kernel against NNGP", "NNGP", "−1/2"),
    )
}

PANELS = (
    ("Kernel drift", "‖Kₜ − K₀‖ / ‖K₀‖", ("drift", "feature_drift")),
    ("Gap to the linearization", "RMS of f − f_lin on test", ("gap", "gap_at_theta")),
    ("Movement of the weights", "‖Wₜ − W₀‖ / ‖W₀‖", ("input", "hidden", "output")),
    ("Empirical against analytic", "‖K₀ − K∞‖ / ‖K∞‖", ("ntk_error", "nngp_error")),
)
_LOOKS = ("nonlinear", "posthoc", "linear")
"""Methods of other pages, whose colours and marks a panel's quantities take."""


@dataclass(frozen=True)
class Results:
    """What the page shows, checked."""

    node: Node
    seeds: tuple[int, ...]
    widths: Floats
    steps: Floats
    fit_from: int
    values: dict[str, Floats]
    """By quantity (S, W, T), or (D, W, 1) of D draws for what is measured at θ0 alone."""
    slopes: dict[str, tuple[Floats, Floats]]
    """By quantity, each seed's slope over the widths that are fitted, and over all."""

    @classmethod
    def parse(cls, node: Node) -> "Results":
        """Read and check.

        Raises:
            ResultsError: with the key that is missing or misshapen.
        """
        seeds = node.integers("seeds")
        widths, steps = node.numbers("widths", (None,)), node.numbers("steps", (None,))
        S, W, T = len(seeds), len(widths), len(steps)
        values, slopes = {}, {}
        for name in QUANTITIES:
            if node.has(f"measured/{name}"):
                at_start = name.endswith("_error")
                found = node.numbers(f"measured/{name}", (None, W) if at_start else (S, W, T))
                D = len(found)
                values[name] = found.reshape(D, W, -1)
                both = (node.numbers(f"slopes/{name}/{kind}", (D,)) for kind in ("fit", "all"))
                slopes[name] = (next(both), next(both))
        return cls(node, seeds, widths, steps, int(node.get("fit_from")), values, slopes)

    @property
    def last(self) -> int:
        """The step at which training ended."""
        return int(self.steps[-1])

    @property
    def phrase(self) -> str:
        """Where quantities are taken and over what their intervals are, for captions."""
        steps = ", ".join(f"{t:.0f}" for t in self.steps)
        draws = len(self.values["ntk_error"])
        return (
            f"Largest value at the steps {steps}. {seeds_phrase(self.seeds)} Errors against "
            f"analytic kernels: at θ0, over {draws} draws of the weights."
        )

    def largest(self, name: str) -> Floats:
        """A quantity's largest value over the steps, (S, W): the theorems bound a supremum."""
        return self.values[name].max(-1)


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory.

    Raises:
        ResultsError: a result file does not fit the schema.
    """
    results = Results.parse(node)
    config, counts = node.mapping("config"), node.mapping("counts")
    rate = config.get("rate", "?")
    lead = (
        f"{node.get('model/name')}, {len(results.widths)} widths from {int(results.widths[0])} to "
        f"{int(results.widths[-1])}; {counts.get('train')} examples of {node.get('task')}, squared "
        f"error, {results.last} steps of full-batch gradient descent at {rate} of the largest "
        "stable learning rate of the infinite-width kernel."
    )
    return Page(
        title=f"Kernel behaviour against width: {node.get('preset')}",
        lead=lead,
        facts=facts_of(node, [str(node.get("task"))], results.seeds),
        sections=(
            claims_section(
                node, caption="Decided by the 95 % interval of this run's slopes alone."
            ),
            Section("scaling", "Against width", (scaling(results), slopes(results))),
            Section("widths", "Width by width", (by_width(results), learning(results))),
            Section("time", "Along training", (in_time(results),)),
            configuration_of(node),
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
            _panel(ax, results, [n for n in names if n in results.values])
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
        f"{results.phrase} Small dots: seeds or draws. Dashed and dotted: slopes −1/2 and −1, "
        f"through the first fitted width ({results.fit_from}).",
        "Four doubly logarithmic panels against width: kernel drift, gap to the linearization, "
        "movement of the weights, distance from the analytic kernels, beside lines of slope −1/2 "
        "and −1. " + _in_words(results),
        draw,
    )


def _in_words(results: Results) -> str:
    fitted = (f"{QUANTITIES[n].label} {v[0].mean():.2f}" for n, v in results.slopes.items())
    return f"Slopes: {', '.join(fitted)}."


def _panel(ax: Axes, results: Results, names: Sequence[str]) -> None:
    widths = results.widths
    for name, method in zip(names, _LOOKS, strict=False):
        values = results.largest(name)
        slope = over_seeds(results.slopes[name][0]).mean
        text = f"{QUANTITIES[name].short} ({slope:.2f})".replace("-", "−")
        across = np.broadcast_to(widths, values.shape)
        ax.scatter(across, values, s=3, color=colour(method), alpha=0.3, lw=0)
        errorbars(ax, widths, values, method, label=text)
    at = int(np.argmax(widths >= results.fit_from))
    anchor = results.largest(names[0])[:, at].mean()
    for exponent, style in ((-0.5, "--"), (-1.0, ":")):
        guide = anchor * (widths[at:] / widths[at]) ** exponent
        ax.plot(widths[at:], guide, color=MUTED, lw=1, ls=style, zorder=1)
    shown = np.concatenate([results.largest(name).ravel() for name in names])
    _log_axes(ax, widths, shown)
    ax.legend(loc="lower left", handlelength=1.4, borderaxespad=0.2)


def _log_axes(ax: Axes, ticks: Floats, shown: Floats) -> None:
    """Doubly logarithmic, a label at each of ``ticks``, as high as the numbers ``shown``."""
    ax.set(xscale="log", yscale="log", ylim=(0.8 * shown.min(), 1.25 * shown.max()))
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=20))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_xticks(ticks, [f"{t:.0f}" for t in ticks])
    ax.minorticks_off()
    ax.grid()


def in_time(results: Results) -> Plot:
    """Drift and gap along training, a line for each width."""
    shown = [n for n in ("drift", "gap") if n in results.values]

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 5.6 if narrow else 3.2)
        axes = fig.subplots(len(shown), 1) if narrow else fig.subplots(1, len(shown))
        inks = colormaps["viridis"](np.linspace(0, 0.85, len(results.widths)))
        for ax, name in zip(np.ravel(axes), shown, strict=True):
            for w, ink in enumerate(inks):
                mean, half = over_seeds(results.values[name][:, w])
                ax.errorbar(
                    results.steps, mean, yerr=whiskers(half), color=ink, marker="o", ms=3, lw=1.2
                )
            _log_axes(ax, results.steps, results.values[name].mean(0))
            title, what, _ = next(p for p in PANELS if name in p[2])
            ax.set(title=title, ylabel=what, xlabel="Steps")
        handles = [
            Line2D([], [], color=ink, marker="o", ms=3, label=f"{width:.0f}")
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
    ntk = results.node.mapping("config").get("parametrization", "ntk") == "ntk"
    rows = [
        [
            Cell(QUANTITIES[name].label),
            Cell((QUANTITIES[name].theory if ntk else "") or NONE),
            number(fitted, 3),
            number(whole, 3),
        ]
        for name, (fitted, whole) in results.slopes.items()
    ]
    return Table(
        "slopes",
        "Exponents in the width",
        f"Least-squares slopes of log quantity against log width, one a seed. {results.phrase}",
        ("Quantity", "Theory", f"From width {results.fit_from}", "All widths"),
        freeze(rows),
    )


def by_width(results: Results) -> Table:
    """Every quantity at every width."""
    rows = [
        [Cell(QUANTITIES[name].label), *(_significant(v) for v in results.largest(name).T)]
        for name in results.values
    ]
    for name, label in (("ntk", "Mean NTK of the draws"), ("nngp", "Mean last layer's kernel")):
        values = results.node.numbers(f"error_of_mean/{name}", (len(results.widths),))
        rows.append([Cell(f"{label} against analytic"), *(_significant(v[None]) for v in values)])
    return Table(
        "by_width",
        "Width by width",
        f"{results.phrase} Gaps are root mean squares over test examples and outputs; drifts, "
        "movements and errors relative Frobenius norms.",
        ("Quantity", *(f"{width:.0f}" for width in results.widths)),
        freeze(rows),
    )


def learning(results: Results) -> Table:
    """How far training came, of f and of f_lin."""
    S, W, T = len(results.seeds), len(results.widths), len(results.steps)

    def row(label: str, key: str, share: bool) -> list[Cell]:
        values = results.node.numbers(f"measured/{key}", (S, W, T))[..., -1]
        cells = (percent(v) if share else _significant(v) for v in values.T)
        return [Cell(label), *cells]

    return Table(
        "learning",
        "How far learning is",
        f"After {results.last} steps. Loss: squared error on the training examples as a share of "
        "that at θ0; accuracy and agreement on test examples in %. "
        f"{seeds_phrase(results.seeds)}",
        ("Measure", *(f"{width:.0f}" for width in results.widths)),
        freeze(
            [
                row("Training loss, f", "f/loss", False),
                row("Training loss, f_lin", "f_lin/loss", False),
                row("Test accuracy, f", "f/accuracy", True),
                row("Test accuracy, f_lin", "f_lin/accuracy", True),
                row("Same class predicted", "agreement", True),
                row("‖f − f_lin‖ / ‖f − f0‖", "gap_share", False),
            ]
        ),
    )


def _significant(values: Floats) -> Cell:
    """Mean ± half width with two digits of the half width, or three of the mean."""
    mean, half = (float(x) for x in over_seeds(values))
    leading = half if np.isfinite(half) and half > 0 else abs(mean) / 10
    digits = 1 - int(np.floor(np.log10(leading))) if leading > 0 else 2
    return cell(mean, half, min(max(digits, 0), 8))

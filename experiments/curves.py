"""Results that are curves by regime, along learning rates or steps, and their pages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

from matplotlib.figure import Figure

from linearize.report.node import Floats
from linearize.report.page import Page, Section
from linearize.report.plot import Plot, errorbars, figure, handle, legend, powers_of_ten
from linearize.report.run import Run
from linearize.report.schema import Axes, entries
from linearize.report.stats import ANY, CORRELATION, POSITIVE, SHARE, Bounds, seeds_phrase
from linearize.report.style import label
from linearize.report.table import Cell, Table, freeze, number, percent


@dataclass(frozen=True)
class Measure:
    """A panel of the figure and a column of the table."""

    title: str
    axis: str
    share: bool = True
    """Printed in %."""
    bounds: Bounds = SHARE
    """Of what is drawn."""


MEASURES = {
    "cosine": Measure("Direction", "Cosine to the final vector", False, CORRELATION),
    "single": Measure("Single task", "Accuracy (%)"),
    "addition": Measure("After addition", "Accuracy (%)"),
    "normalized": Measure("After addition, normalized", "Normalized accuracy (%)", bounds=POSITIVE),
    "norm": Measure("Length", "‖τ‖", False, POSITIVE),
    "alpha": Measure("Scaling coefficient", "α chosen", False, ANY),
}
PANELS = ("cosine", "single", "addition", "normalized")

Along = Annotated[Floats, Axes("S", "X")]
"""By seed and learning rate or step, mean of tasks; NaN where fine-tuning diverged."""


@dataclass(frozen=True)
class Regime:
    """One regime's measures."""

    single: Along
    addition: Along
    normalized: Along
    norm: Along
    alpha: Along


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the pages show."""

    tasks: Annotated[tuple[str, ...], Axes("T")]
    along: Mapping[str, Annotated[Floats, Axes("X")]]
    """By regime: learning rates or steps."""
    regimes: Mapping[str, Regime] = entries("along")

    def shown(self, names: Iterable[str]) -> list[str]:
        """Those of these measures that the regimes have."""
        return [n for n in names if all(hasattr(each, n) for each in self.regimes.values())]


def page(results: Results, title: str, lead: str, x: str, *, log: bool) -> Page:
    """Claims, curves and their numbers."""
    return Page(
        title=f"{title}: {results.preset}",
        lead=lead,
        facts=results.facts(results.tasks),
        sections=(
            results.verdicts(),
            Section("curves", title, (curves(results, x, log), table(results, x))),
            results.configuration,
        ),
        headlines=("along", "claims"),
    )


def curves(results: Results, x: str, log: bool) -> Plot:
    """Every measure against learning rate or steps."""
    panels = results.shown(PANELS)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 2.5 * len(panels) if narrow else 2.7 * -(-len(panels) // 2))
        shape = (len(panels), 1) if narrow else (-(-len(panels) // 2), 2)
        axes = list(fig.subplots(*shape, squeeze=False).flat)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        for ax, name in zip(axes, panels, strict=False):
            measure = MEASURES[name]
            for regime, found in results.regimes.items():
                values = (100 if measure.share else 1) * getattr(found, name)
                errorbars(ax, results.along[regime], values, regime, measure.bounds)
            ax.set(title=measure.title, xlabel=x, ylabel=measure.axis)
            if log:
                ax.set_xscale("log")
                powers_of_ten(ax.xaxis)
            ax.grid()
        legend(fig, [handle(r) for r in results.regimes], narrow)
        return fig

    return Plot(
        "curves",
        f"By {x.lower()}",
        f"Mean over tasks, test examples. {seeds_phrase(results.seeds)}",
        f"Panels against {x.lower()}: {', '.join(MEASURES[p].title.lower() for p in panels)}; one "
        "line a regime.",
        draw,
    )


def table(results: Results, x: str) -> Table:
    """Every measure at every point."""
    shown = results.shown(MEASURES)
    rows = []
    for regime, found in results.regimes.items():
        for i, value in enumerate(results.along[regime]):
            columns = {name: getattr(found, name)[:, i] for name in shown}
            cells = [percent(v) if MEASURES[n].share else number(v, 3) for n, v in columns.items()]
            rows.append([Cell(label(regime)), Cell(f"{value:g}", float(value)), *cells])
    heads = [f"{MEASURES[n].title} (%)" if MEASURES[n].share else MEASURES[n].axis for n in shown]
    return Table(
        "along",
        "All measures",
        f"Test accuracy, mean over tasks; normalized: ÷ single-task accuracy. "
        f"{seeds_phrase(results.seeds)}",
        ("Regime", x, *heads),
        freeze(rows),
    )

"""Pages of curves by regime, along learning rates or steps."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from linearize.report.claims import claims_section
from linearize.report.node import Floats, Node
from linearize.report.page import Page, Section, configuration_of, facts_of
from linearize.report.plot import Plot, errorbars, figure, handle, legend, powers_of_ten
from linearize.report.stats import seeds_phrase
from linearize.report.style import label
from linearize.report.table import Cell, Table, freeze, number, percent


@dataclass(frozen=True)
class Measure:
    """A panel of the figure and a column of the table."""

    title: str
    axis: str
    share: bool = True
    """Printed in %."""


MEASURES = {
    "cosine": Measure("Direction", "Cosine to the final vector", share=False),
    "single": Measure("Single task", "Accuracy (%)"),
    "addition": Measure("After addition", "Accuracy (%)"),
    "normalized": Measure("After addition, normalized", "Normalized accuracy (%)"),
    "norm": Measure("Length", "‖τ‖", share=False),
    "alpha": Measure("Scaling coefficient", "α chosen", share=False),
}
PANELS = ("cosine", "single", "addition", "normalized")


@dataclass(frozen=True)
class Results:
    """What the pages show, checked."""

    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    along: Mapping[str, Floats]
    """By regime, (X,): learning rates or steps."""
    measured: Mapping[str, Mapping[str, Floats]]
    """By regime and measure, (S, X), mean of tasks; NaN where fine-tuning diverged."""

    @classmethod
    def parse(cls, node: Node) -> "Results":
        """Read and check.

        Raises:
            ResultsError: with the key that is missing or misshapen.
        """
        seeds = node.integers("seeds")
        along = {r: node.numbers(f"along/{r}", (None,)) for r in node.mapping("along")}
        measured = {
            regime: {
                name: node.numbers(f"{regime}/{name}", (len(seeds), len(x)))
                for name in MEASURES
                if name != "cosine" or node.has(f"{regime}/cosine")
            }
            for regime, x in along.items()
        }
        return cls(seeds, node.names("tasks"), along, measured)

    def common(self, names: Iterable[str]) -> list[str]:
        """Those of these measures that every regime has."""
        return [name for name in names if all(name in m for m in self.measured.values())]


def page(node: Node, title: str, lead: str, x: str, *, log: bool) -> Page:
    """Claims, curves and their numbers."""
    results = Results.parse(node)
    return Page(
        title=f"{title}: {node.get('preset')}",
        lead=lead,
        facts=facts_of(node, results.tasks, results.seeds),
        sections=(
            claims_section(node),
            Section("curves", title, (curves(results, x, log), table(results, x))),
            configuration_of(node),
        ),
        headlines=("along", "claims"),
    )


def curves(results: Results, x: str, log: bool) -> Plot:
    """Every measure against learning rate or steps."""
    panels = results.common(PANELS)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 2.5 * len(panels) if narrow else 2.7 * -(-len(panels) // 2))
        shape = (len(panels), 1) if narrow else (-(-len(panels) // 2), 2)
        axes = list(fig.subplots(*shape, squeeze=False).flat)
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        for ax, name in zip(axes, panels, strict=False):
            measure = MEASURES[name]
            for regime, found in results.measured.items():
                values = (100 if measure.share else 1) * found[name]
                errorbars(ax, results.along[regime], values, regime)
            ax.set(title=measure.title, xlabel=x, ylabel=measure.axis)
            if log:
                ax.set_xscale("log")
                powers_of_ten(ax.xaxis)
            ax.grid()
        legend(fig, [handle(r) for r in results.measured], narrow)
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
    shown = results.common(MEASURES)
    rows = []
    for regime, found in results.measured.items():
        for i, value in enumerate(results.along[regime]):
            cells = [
                percent(found[n][:, i]) if MEASURES[n].share else number(found[n][:, i], 3)
                for n in shown
            ]
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

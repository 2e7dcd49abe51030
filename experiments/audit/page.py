"""The page of ``experiments.audit``: the library's audit, and whether it predicts."""

import dataclasses

import numpy as np
from matplotlib.figure import Figure

from experiments.audit.results import MEASURES, Relation, Results
from linearize.report.audit.page import page
from linearize.report.claims import table
from linearize.report.page import Page, Section, shows
from linearize.report.plot import Plot, figure
from linearize.report.stats import mean_phrase
from linearize.report.style import INK, PAPER, colour, label
from linearize.report.table import NONE, Cell, Table, cell, fixed, freeze

SOURCES = """; the interval over tasks after Snijders and Borgatti, <cite>Non-Parametric Standard
Errors and Tests for Network Statistics</cite> (Connections 22(2), 1999)."""
DECIDED = (
    "Decided by the numbers of this run alone: held, or not, where the 95 % jackknife interval "
    "over tasks lies on one side of zero."
)
DRAWN = ("relative", "kronecker", "xi")


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    if not results.relation:
        return page(results)
    more = Section("relation", "Does it predict?", (scatter(results), relations(results)))
    decided = dataclasses.replace(table(results.claims, DECIDED), title="Decided here")
    whole = page(results, (more, Section("claims", "Decided here", (decided,))))
    about = (
        f"Task vectors of {len(results.tasks)} tasks, {results.model_name}: how far each moves the "
        "others' outputs, measured at θ0 before anything is merged, beside the accuracy that is "
        "then lost when it is added at α = 1."
    )
    return dataclasses.replace(
        whole,
        title=f"The auditor: {results.preset}",
        lead=f"{whole.lead}\n{about}",
        headlines=("relation", "claims"),
        sources=whole.sources.removesuffix(".") + SOURCES,
    )


def scatter(results: Results) -> Plot:
    """The loss of accuracy against the measures, a row a regime, a point an ordered pair."""
    off = ~np.eye(len(results.tasks), dtype=bool)

    def draw(narrow: bool) -> Figure:
        panels = [(regime, name) for regime in results.audited for name in DRAWN]
        across = 1 if narrow else len(DRAWN)
        down = len(panels) // across
        fig = figure(narrow, 2.7 * down + 0.3)
        axes = fig.subplots(down, across, squeeze=False).flat
        for k, (ax, (regime, name)) in enumerate(zip(axes, panels, strict=True)):
            x = results.measure(regime, name).mean(0)[off]
            y = 100 * results.loss(regime).mean(0)[off]
            ax.axhline(0, color=INK, lw=0.6)
            ax.scatter(x, y, s=20, color=colour(regime), edgecolors=PAPER, lw=0.4, zorder=3)
            ax.set_title(f"{label(regime)}: {_rho(results, regime, name)}", fontsize=8.5)
            ax.set_xlabel(MEASURES[name])
            if k % across == 0:
                ax.set_ylabel("accuracy lost, points")
            ax.grid(alpha=0.6)
        return fig

    return Plot(
        "relation",
        "The loss of accuracy against what the auditor says beforehand",
        "A point an ordered pair of tasks: test accuracy on the first with its own vector alone, "
        "minus that with the second's vector added, both at α = 1; below 0 the foreign vector "
        "helps. ρ: Spearman's rank correlation of the means over seeds, with its 95 % jackknife "
        f"interval over tasks.{mean_phrase(results.seeds)}",
        "Scatter plots of lost accuracy against three measures, a row a regime. "
        + "; ".join(
            f"{label(r)}, {MEASURES[n]}: {_rho(results, r, n)}"
            for r in results.audited
            for n in DRAWN
        ),
        draw,
    )


def relations(results: Results) -> Table:
    """The rank correlation of every measure with the loss."""
    return Table(
        "relation",
        "Rank correlation with the accuracy lost",
        "Spearman's ρ over ordered pairs of tasks of a measure, taken at θ0 on validation "
        "examples, with the loss of test accuracy when the foreign vector is added at α = 1. Of "
        "means over seeds; in brackets the 95 % jackknife interval over tasks (pairs share tasks, "
        "and are not independent). By seed: each seed alone.",
        ("Regime", "Measure", "ρ", "95 % interval", "By seed"),
        freeze(
            [
                Cell(label(each.regime)),
                Cell(MEASURES[each.measure]),
                cell(each.mean, np.nan, 2),
                Cell(_interval(each) or NONE),
                Cell(", ".join(fixed(s, 2) if np.isfinite(s) else NONE for s in each.seeds)),
            ]
            for each in results.relation
        ),
    )


def _interval(relation: Relation) -> str:
    if not np.isfinite(relation.low):
        return ""
    return f"[{fixed(relation.low, 2)}, {fixed(relation.high, 2)}]"


def _rho(results: Results, regime: str, name: str) -> str:
    found = next(r for r in results.relation if (r.regime, r.measure) == (regime, name))
    if not np.isfinite(found.mean):
        return "ρ not defined"
    return f"ρ = {fixed(found.mean, 2)} {_interval(found)}".strip()

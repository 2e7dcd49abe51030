"""The page of ``experiments.sentiment``: what an analogy of domains gains, and where."""

import itertools
from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.on_target import OF_TWO
from experiments.sentiment.results import Results
from linearize.report.compare import maps
from linearize.report.node import Floats
from linearize.report.page import Page, Section, shows
from linearize.report.plot import Plot, categories, dots, figure, handle, legend
from linearize.report.stats import ANY, SHARE, Bounds, over_seeds, seeds_phrase
from linearize.report.style import MUTED
from linearize.report.table import NONE, Cell, Table, cell, freeze, number, percent

NAMES = {
    "pretrained": "Zero-shot",
    "auxiliary": "Auxiliary",
    "analogy": "Analogy, one coefficient",
    OF_TWO: "Analogy, two coefficients",
    "target": "Target",
}
"""Methods as printed, in the order shown."""


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    lead = (
        f"Sentiment of one domain from another's, {results.model_name}, domains "
        f"{', '.join(results.domains)}. The vector of the target's sentiment is guessed as λ₁ "
        "times that of an auxiliary domain, plus λ₂ times what language modelling of the target's "
        "text does beyond that of the auxiliary's. The model answers "
        f"{' or '.join(map(repr, results.words))} to {results.prompt!r}; no answer is learned on "
        "the target but that of the last row, and the target's validation examples choose λ."
    )
    return Page(
        title=f"Sentiment by analogy: {results.preset}",
        lead=lead,
        facts=results.facts(results.domains),
        sections=(
            results.verdicts("Claims of the paper"),
            Section(
                "sentiment",
                "Sentiment of the target",
                (gains(results), methods(results), summary(results), by_target(results)),
            ),
            Section("text", "Language modelling", (perplexity(results),)),
            Section(
                "error",
                "Disentanglement error of language modelling",
                tuple(maps.error_map(results, i) for i in range(len(results.maps))),
            ),
            results.configuration,
        ),
        headlines=("sentiment", "claims"),
    )


def _dots(
    ax: Axes, results: Results, count: int, of: Callable[[str], Floats], bounds: Bounds
) -> None:
    """Each regime's values (S, count), side by side."""
    for i, regime in enumerate(results.regimes):
        at = np.arange(count) + 0.14 * (i - (len(results.regimes) - 1) / 2)
        face = {"color": results.look.colour(regime), "marker": results.look.marker(regime)}
        dots(ax, at, 100 * of(regime), regime, bounds, **face)
    ax.grid(axis="y")


def gains(results: Results) -> Plot:
    """What the analogy gains over the auxiliary vector, by target."""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.4)
        ax = fig.subplots()
        ax.axhline(0, color=MUTED, lw=0.8, ls="--")
        gain = partial(results.each, method=OF_TWO, what="accuracy", over="auxiliary")
        _dots(ax, results, len(results.analogies), lambda regime: gain(regime).T, ANY)
        categories(ax, [f"{a.target} from {a.auxiliary}" for a in results.analogies], 25)
        ax.set_ylabel("Gain in accuracy (points)")
        legend(fig, [handle(r, look=results.look) for r in results.regimes], narrow)
        return fig

    return Plot(
        "gains",
        "What the target's text adds to another domain's sentiment",
        "Accuracy of the analogy with two coefficients minus that of the auxiliary vector, each at "
        "the coefficients that the target's validation examples choose. "
        f"{seeds_phrase(results.seeds)}",
        "Dot chart of the gain over the auxiliary vector by target, one colour a regime.",
        draw,
    )


def methods(results: Results) -> Plot:
    """Accuracy on the target by method, mean of targets."""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.4)
        ax = fig.subplots()

        def values(regime: str) -> Floats:
            return np.stack([results.mean(regime, m, "accuracy") for m in results.methods], -1)

        _dots(ax, results, len(results.methods), values, SHARE)
        categories(ax, [NAMES[m] for m in results.methods], 25)
        ax.set_ylabel("Accuracy on the target (%)")
        legend(fig, [handle(r, look=results.look) for r in results.regimes], narrow)
        return fig

    return Plot(
        "methods",
        "Accuracy on the target",
        f"Mean of {len(results.analogies)} targets. {seeds_phrase(results.seeds)}",
        "Dot chart of accuracy on the target by method, from zero-shot to the target's own labels.",
        draw,
    )


def summary(results: Results) -> Table:
    """By regime and method: mean of targets; gains with intervals over seeds and over targets."""
    rows = []
    for regime, method in itertools.product(results.regimes, results.methods):
        of = partial(results.mean, regime, method)
        gain = results.each(regime, method, "accuracy", over="auxiliary")
        over_targets = over_seeds(100 * gain.mean(1))
        scaled = method not in ("pretrained", "target")
        rows.append(
            [
                Cell(results.look.label(regime)),
                Cell(NAMES[method]),
                percent(of("accuracy")),
                *(
                    [Cell(NONE), Cell(NONE)]
                    if method == "auxiliary"
                    else [
                        percent(gain.mean(0)),
                        cell(float(over_targets.mean), float(over_targets.half), 1),
                    ]
                ),
                number(of("alpha"), 2) if scaled else Cell(NONE),
                number(of("beta"), 2) if method == OF_TWO else Cell(NONE),
                percent(of("at_one")) if scaled else Cell(NONE),
            ]
        )
    grids = "; ".join(f"{results.look.label(r)} {n}" for r, n in results.grids.items())
    return Table(
        "sentiment",
        "Sentiment of the target",
        f"Accuracy in %, mean of {len(results.analogies)} targets, at the coefficients that the "
        "target's validation examples choose, of equal ones the nearest to 0. The gain is over the "
        "auxiliary vector, ± over seeds, and ± over targets (of means over seeds). λ₁ is of the "
        "auxiliary's sentiment, or of all; λ₂ of the difference of the domains' language "
        "modelling. At 1: both coefficients are 1, chosen by no label of the target. Values tried "
        f"of each coefficient: {grids}. "
        f"{seeds_phrase(results.seeds)}",
        ("Regime", "Vector", "Accuracy ↑", "Gain", "Gain, ± targets", "λ₁", "λ₂", "At 1"),
        freeze(rows),
    )


def by_target(results: Results) -> Table:
    """Every target by every method."""
    rows = [
        [
            Cell(results.look.label(regime)),
            Cell(analogy.target),
            Cell(analogy.auxiliary),
            *(percent(analogy.regimes[regime][m].accuracy) for m in results.methods),
        ]
        for regime in results.regimes
        for analogy in results.analogies
    ]
    tested = ", ".join(f"{name} {count}" for name, count in results.tested.items())
    return Table(
        "by_target",
        "Every target",
        f"Accuracy in %. Test examples: {tested}. {seeds_phrase(results.seeds)}",
        ("Regime", "Target", "Auxiliary", *(NAMES[m] for m in results.methods)),
        freeze(rows),
    )


def perplexity(results: Results) -> Table:
    """What language modelling does to its own domain's text."""
    rows = [
        [
            Cell(results.look.label(regime)),
            Cell(domain),
            number(found.before, 2),
            number(found.after, 2),
        ]
        for regime, domains in results.perplexity.items()
        for domain, found in domains.items()
    ]
    return Table(
        "perplexity",
        "Language modelling",
        "Perplexity of the domain's test text before and after language modelling of its training "
        f"text, α = 1. {seeds_phrase(results.seeds)}",
        ("Regime", "Domain", "Before ↓", "After ↓"),
        freeze(rows),
    )

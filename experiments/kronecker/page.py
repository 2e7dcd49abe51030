"""The page of ``experiments.kronecker``: the estimate beside the exact number."""

import re
from dataclasses import astuple

import numpy as np
from matplotlib.figure import Figure

from experiments.kronecker.results import Kind, Method, Results
from linearize.report.page import Page, Section, shows
from linearize.report.plot import (
    Plot,
    errorbars,
    figure,
    handle,
    legend,
    powers_of_ten,
)
from linearize.report.stats import CORRELATION, POSITIVE, mean_phrase, seeds_phrase
from linearize.report.style import INK, MUTED, PAPER, Look
from linearize.report.table import NONE, Cell, Table, fixed, freeze, number

LOOK = Look({"linear": "Linear", "tak": "TAK", "tak_all_leaves": "TAK, all leaves"})
KINDS: dict[Kind, str] = {
    "pairs": "Pairs of tasks",
    "layers": "Pairs and layers",
    "within": "Pairs, within a layer",
}
COLOURS = {True: "#0072b2", False: "#e69f00"}
"""Of layers with Kronecker factors, and of whole blocks."""


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    config = results.config
    lead = (
        f"Task vectors of {len(results.tasks)} tasks, {results.model_name}: mean ‖J(x)τ‖² on "
        f"{config.get('exact')} test examples of every other task, of features of length 1, "
        "exactly by forward mode, beside TAK's estimate from Kronecker factors of "
        f"{config.get('examples')} training examples, by layer and for all layers together."
    )
    return Page(
        title=f"The quality of the Kronecker factorisation: {results.preset}",
        lead=lead,
        facts=results.facts(results.tasks),
        sections=(
            results.verdicts("Claims", "The thresholds are ours. " + _DECIDED),
            Section("relation", "Estimate and exact", (scatter(results), relation(results))),
            Section("along", "Along training", (along(results), steps(results))),
            Section("layers", "By layer", (layers(results),)),
            results.configuration,
        ),
        headlines=("relation", "claims"),
    )


_DECIDED = (
    "Decided by the numbers of this run alone: held, or not, where the 95 % t interval over seeds "
    "lies on one side of zero."
)


def scatter(results: Results) -> Plot:
    """Estimate against exact at the last step, a point a pair and layer, or a whole pair."""

    def draw(narrow: bool) -> Figure:
        count = len(results.methods)
        fig = figure(narrow, 3.6 * count if narrow else 4.0)
        shape = (count, 1) if narrow else (1, count)
        axes = list(fig.subplots(*shape, squeeze=False, sharex=True, sharey=True).flat)
        for ax, (name, found) in zip(axes, results.methods.items(), strict=True):
            exact, estimate = (
                found.of_layers(x)[:, -1].mean(0) for x in (found.exact, found.estimate())
            )
            for factored, colour in COLOURS.items():
                kind = np.array(results.factored)[found.moves] == factored
                ax.scatter(
                    exact[:, kind], estimate[:, kind], s=7, color=colour, alpha=0.55, lw=0, zorder=2
                )
            whole = found.pairs(found.whole)[:, -1].mean(0)
            ax.scatter(
                whole, estimate.sum(-1), s=34, color=INK, marker="D", edgecolors=PAPER, lw=0.6,
                zorder=4,
            )  # fmt: skip
            ends = [min(exact.min(), estimate.min()), max(whole.max(), estimate.sum(-1).max())]
            ax.plot(ends, ends, color=MUTED, lw=0.8, ls="--", zorder=1)
            ax.set(xscale="log", yscale="log")
            rho = found.correlation("pairs", ranks=True)[:, -1].mean()
            ax.set_title(f"{LOOK.label(name)}: ρ = {fixed(float(rho), 2)}", fontsize=8.5)
            powers_of_ten(ax.xaxis, ax.yaxis)
            ax.grid(alpha=0.6)
            if narrow or ax is axes[0]:
                ax.set_ylabel("Kronecker estimate")
            if not narrow or ax is axes[-1]:
                ax.set_xlabel("Exact mean ‖J(x)τ‖²")
        marks = [handle("exact", text) for text in ("Layer with factors", "Whole block", "Pair")]
        for mark, colour, shape_ in zip(marks, (*COLOURS.values(), INK), "ooD", strict=True):
            mark.set(color=colour, marker=shape_)
        legend(fig, marks, narrow)
        return fig

    return Plot(
        "scatter",
        "Estimate against exact, at the last step",
        "A small point an ordered pair of tasks and a layer, a diamond an ordered pair with all "
        "layers together; ρ: Spearman's of the diamonds; dashed: equality."
        f"{mean_phrase(results.seeds)}",
        "Scatter plots on logarithmic axes of TAK's Kronecker estimate against the exact mean "
        f"squared change of features, one panel for each of {len(results.methods)} methods.",
        draw,
    )


def relation(results: Results) -> Table:
    """By method and number of probes: correlations and ratios at the last step."""
    rows = []
    for name, found in results.methods.items():
        for probes in found.estimates:
            rows.append(
                [
                    Cell(LOOK.label(name)),
                    Cell(probes),
                    *(
                        number(found.correlation(kind, ranks=ranks, probes=probes)[:, -1], 2)
                        for kind in KINDS
                        for ranks in (True, False)
                    ),
                    number(2 ** found.log_ratio(probes)[:, -1], 2),
                    number(2 ** found.log_layers()[:, -1], 2),
                    number(2 ** found.log_merged()[:, -1], 2),
                    Cell(_brackets(found)),
                ]
            )
    return Table(
        "relation",
        "How well the estimate follows the exact number",
        "At the last step, over ordered pairs of different tasks. ρ: Spearman's, r: Pearson's of "
        "logarithms; of pairs with all layers together, of pairs and layers, of pairs within a "
        "layer (mean of layers). Estimate ÷ exact: geometric mean of pairs. Layers ÷ whole: "
        "Σ ‖J_l τ_l‖² ÷ ‖Jτ‖², exactly: what is neglected where layers do not see each other. "
        "Merged ÷ sum: (Σ B) ⊗ (mean A) of the other tasks beside the sum of their own, the fewest "
        "probes. Last: ρ of means over seeds, fewest probes, with its jackknife interval over "
        f"tasks. {seeds_phrase(results.seeds)}",
        (
            "Vectors", "Probes", "ρ pairs", "r pairs", "ρ pairs × layers", "r pairs × layers",
            "ρ within layer", "r within layer", "Estimate ÷ exact", "Layers ÷ whole",
            "Merged ÷ sum", "ρ pairs, over tasks",
        ),
        freeze(rows),
    )  # fmt: skip


def _brackets(found: Method) -> str:
    mean, low, high = astuple(found.over_tasks)
    if not np.isfinite(mean):
        return NONE
    return fixed(mean, 2) + (f" [{fixed(low, 2)}, {fixed(high, 2)}]" if np.isfinite(low) else "")


def along(results: Results) -> Plot:
    """Rank correlations and the ratio against steps."""

    def draw(narrow: bool) -> Figure:
        titles = [*KINDS.values(), "Estimate ÷ exact"]
        fig = figure(narrow, 2.5 * len(titles) if narrow else 5.4)
        axes = list(fig.subplots(*((len(titles), 1) if narrow else (2, 2)), squeeze=False).flat)
        for ax, title in zip(axes, titles, strict=True):
            ax.set_title(title)
            ax.set_xlabel("Steps")
            ax.grid()
        for name, found in results.methods.items():
            look = {"color": LOOK.colour(name), "marker": LOOK.marker(name)}
            for ax, kind in zip(axes, KINDS, strict=False):
                values = found.correlation(kind, ranks=True)
                errorbars(ax, results.along, values, name, CORRELATION, **look)
                ax.set_ylabel("Spearman's ρ")
            errorbars(axes[-1], results.along, 2 ** found.log_ratio(), name, POSITIVE, **look)
            axes[-1].set_ylabel("Ratio, geometric mean")
            axes[-1].set_yscale("log", base=2)
            axes[-1].yaxis.set_major_formatter("{x:g}")
        legend(fig, [handle(name, look=LOOK) for name in results.methods], narrow)
        return fig

    return Plot(
        "along",
        "Along training",
        f"Estimates of the fewest probes. {seeds_phrase(results.seeds)}",
        "Panels against steps: rank correlation of estimate and exact number over pairs, over "
        "pairs and layers, over pairs within a layer, and their ratio; a line a method.",
        draw,
    )


def steps(results: Results) -> Table:
    """The same as numbers, with the exact ‖Jτ‖² itself."""
    rows = []
    for name, found in results.methods.items():
        for x, step in enumerate(results.along):
            exact = found.pairs(found.whole)[:, x].mean(-1)
            rows.append(
                [
                    Cell(LOOK.label(name)),
                    Cell(str(step), float(step)),
                    number(1e4 * exact, 2),
                    number(1e4 * np.einsum("stt->st", found.whole[:, x]).mean(-1), 2),
                    *(number(found.correlation(k, ranks=True)[:, x], 2) for k in KINDS),
                    number(2 ** found.log_ratio()[:, x], 2),
                    number(2 ** found.log_layers()[:, x], 2),
                ]
            )
    return Table(
        "along",
        "Along training",
        "Exact mean ‖J(x)τ‖² × 10⁴ on other tasks and on the vector's own; then as above, fewest "
        f"probes. {seeds_phrase(results.seeds)}",
        (
            "Vectors", "Steps", "‖Jτ‖² × 10⁴, others", "‖Jτ‖² × 10⁴, own", "ρ pairs",
            "ρ pairs × layers", "ρ within layer", "Estimate ÷ exact", "Layers ÷ whole",
        ),
        freeze(rows),
    )  # fmt: skip


def layers(results: Results) -> Table:
    """By kind of layer: share of the changes, and the estimate's ratio and correlation."""
    kinds: dict[str, list[int]] = {}
    for i, label in enumerate(results.layers):
        kinds.setdefault(re.sub(r"\d+", "*", label), []).append(i)
    rows = []
    for name, found in results.methods.items():
        exact, estimate = (found.pairs(x)[:, -1] for x in (found.exact, found.estimate()))
        for kind, every in kinds.items():
            places = [place for place in every if found.moves[place]]
            if not places:
                continue
            e, k = exact[..., places], estimate[..., places]
            share = e.sum((1, 2)) / exact.sum((1, 2))
            rows.append(
                [
                    Cell(f"{LOOK.label(name)}: {kind}"),
                    Cell("factors" if results.factored[places[0]] else "whole block"),
                    number(100 * share, 1),
                    number(2 ** np.log2(k / e).mean((1, 2)), 2),
                ]
            )
    return Table(
        "layers",
        "By kind of layer",
        "At the last step, layers of all blocks together, without those that a method freezes. "
        "Share of Σ ‖J_l τ_l‖² in %, and estimate ÷ exact, geometric mean of pairs and layers. "
        f"{seeds_phrase(results.seeds)}",
        ("Layer", "Kept as", "Share (%)", "Estimate ÷ exact"),
        freeze(rows),
    )

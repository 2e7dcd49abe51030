"""The page of ``experiments.ensembling``: averaged weights beside averaged logits, and seeds."""

from dataclasses import astuple

import numpy as np
from matplotlib.figure import Figure

from experiments.ensembling.results import Results
from experiments.told import examples, normalizes
from linearize.report.page import Page, Section, shows
from linearize.report.plot import Plot, figure
from linearize.report.stats import mean_phrase, seeds_phrase
from linearize.report.style import MUTED, PAPER, colour, label
from linearize.report.table import NONE, Cell, Table, fixed, freeze, number, percent

KEYS = ("average", "ensemble", "agreement")


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    config = results.config
    heads = "are affine in these, and so are logits"
    if normalizes(config):
        heads = "divide these by their norm, so logits may differ"
    lead = (
        f"Task vectors of {len(results.tasks)} tasks, {results.model_name}: for every two, the "
        "model with averaged weights beside the ensemble that averages the two models' logits, on "
        f"{examples(config, 'test')} of each task. In the tangent space both have the same "
        f"features; the heads here {heads}."
    )
    across = (seeds_table(results),) if results.across else ()
    return Page(
        title=f"Averaging weights and ensembling: {results.preset}",
        lead=lead,
        facts=results.facts(results.tasks),
        sections=(
            results.verdicts(),
            Section("merges", "Two ways to merge", (scatter(results), merges(results))),
            Section("seeds", "One task, several seeds", across),
            results.configuration,
        ),
        headlines=("merges", "claims"),
    )


def scatter(results: Results) -> Plot:
    """Accuracy of the average against that of the ensemble, a point an ordered pair."""
    off = ~np.eye(len(results.tasks), dtype=bool)
    shown = [r.pairs[k].mean(0)[off] for r in results.regimes.values() for k in KEYS[:2]]
    ends = (100 * float(np.min(shown)) - 2, 100 * float(np.max(shown)) + 2)

    def draw(narrow: bool) -> Figure:
        count = len(results.regimes)
        fig = figure(narrow, 3.4 * count if narrow else 3.7)
        shape = (count, 1) if narrow else (1, count)
        axes = list(fig.subplots(*shape, squeeze=False, sharex=True, sharey=True).flat)
        for ax, (name, regime) in zip(axes, results.regimes.items(), strict=True):
            x, y = (100 * regime.pairs[k].mean(0)[off] for k in ("ensemble", "average"))
            ax.plot(ends, ends, color=MUTED, lw=0.8, ls="--", zorder=1)
            ax.scatter(x, y, s=24, color=colour(name), edgecolors=PAPER, lw=0.5, zorder=3)
            rho = results.relation[name].spearman.mean
            ax.set_title(
                f"{label(name)}: ρ = {fixed(rho, 3) if np.isfinite(rho) else NONE}", fontsize=8.5
            )
            ax.set(xlim=ends, ylim=ends)
            ax.set_box_aspect(1)
            ax.grid(alpha=0.6)
            if narrow or ax is axes[0]:
                ax.set_ylabel("Averaged weights, accuracy (%)")
            if not narrow or ax is axes[count - 1]:
                ax.set_xlabel("Ensemble, accuracy (%)")
        return fig

    return Plot(
        "scatter",
        "Averaged weights against the ensemble",
        "A point an ordered pair: the accuracy on the first task's test examples of its model "
        "merged with the second's. ρ: Spearman's rank correlation; dashed: equality."
        f"{mean_phrase(results.seeds)}",
        f"Scatter plots of the accuracy of averaged weights against the ensemble's, "
        f"{len(results.regimes)} regimes.",
        draw,
    )


def merges(results: Results) -> Table:
    """By regime: both merges of pairs and of all tasks, agreement, correlation."""
    rows = []
    for name, regime in results.regimes.items():
        relation = results.relation[name]
        mean, low, high = astuple(relation.spearman)
        brackets = f" [{fixed(low, 3)}, {fixed(high, 3)}]" if np.isfinite(low) else ""
        rows.append(
            [
                Cell(label(name)),
                percent(regime.over_pairs("average")),
                percent(regime.over_pairs("ensemble")),
                percent(regime.over_pairs("average") - regime.over_pairs("ensemble")),
                percent(regime.over_pairs("average", normalized=True)),
                percent(regime.over_pairs("agreement")),
                number(relation.pearson, 3),
                Cell(fixed(mean, 3) + brackets if np.isfinite(mean) else NONE),
                *(percent(regime.every[k].mean(1)) for k in ("average", "ensemble")),
            ]
        )
    return Table(
        "merges",
        "Averaged weights beside the ensemble",
        "Accuracy in %, mean over ordered pairs of tasks, on the first of the two; normalized: ÷ "
        "single-task accuracy. Agreement: test examples of which both merges predict the same "
        "class. r: Pearson's correlation of the accuracies over ordered pairs; ρ: Spearman's, of "
        "means over seeds, with its jackknife interval over tasks. All: merges of all tasks at "
        f"once. {seeds_phrase(results.seeds)}",
        (
            "Regime", "Average", "Ensemble", "Difference", "Average, normalized", "Agreement", "r",
            "ρ", "All: average", "All: ensemble",
        ),
        freeze(rows),
    )  # fmt: skip


def seeds_table(results: Results) -> Table:
    """By regime and task: how alike the seeds' vectors are, and what their average is worth."""
    S = len(results.seeds)
    off = ~np.eye(S, dtype=bool)
    rows = []
    for name, found in (results.across or {}).items():
        own = np.einsum("tss->ts", found.single)
        foreign = found.single[:, off].reshape(len(results.tasks), S, S - 1).mean(-1)
        whole = (found.cosine[:, off], own, foreign, found.average)
        for i, task in enumerate((*results.tasks, "Mean")):
            cosine, *accuracies = (v.mean(0) if i == len(results.tasks) else v[i] for v in whole)
            rows.append(
                [
                    Cell(label(name)),
                    Cell(task),
                    Cell(fixed(float(cosine.mean()), 3), float(cosine.mean())),
                    *(percent(values) for values in accuracies),
                ]
            )
    return Table(
        "seeds",
        "The same task with different seeds",
        "A seed decides the few-shot head that training sees and the order of the data. Cosine: "
        "mean of two seeds' vectors. Test accuracy in %, with the seed's own head, with another "
        f"seed's, and of the average of the {S} vectors; mean ± 95 % t interval over the vectors' "
        "seeds, of the average over the heads'.",
        ("Regime", "Task", "Cosine", "Own head", "Another seed's head", "Average of seeds"),
        freeze(rows),
    )

"""The page of ``experiments.ensembling``: averaged weights beside averaged logits, and seeds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from linearize.report.claims import claims_section
from linearize.report.node import Floats, Node
from linearize.report.page import Page, Section, configuration_of, facts_of
from linearize.report.plot import Plot, figure
from linearize.report.stats import mean_phrase, seeds_phrase
from linearize.report.style import MUTED, PAPER, colour, label
from linearize.report.table import NONE, Cell, Table, fixed, freeze, number, percent

KEYS = ("average", "ensemble", "agreement")


@dataclass(frozen=True)
class Regime:
    """One regime's accuracies; S seeds, T tasks. Rows are the tasks measured on."""

    pairs: Mapping[str, Floats]
    """By merge, and their ``agreement``: (S, T, T); the diagonal holds the single models."""
    every: Mapping[str, Floats]
    """The merges of all tasks, (S, T)."""
    pearson: Floats
    """(S,), over ordered pairs."""
    spearman: tuple[float, float, float]
    """Of means over seeds, with its 95 % interval over tasks."""

    @property
    def single(self) -> Floats:
        """(S, T)."""
        return np.einsum("stt->st", self.pairs["average"])

    def over_pairs(self, key: str, normalized: bool = False) -> Floats:
        """Mean over ordered pairs of different tasks, (S,)."""
        values = self.pairs[key] / self.single[..., None] if normalized else self.pairs[key]
        return values[:, ~np.eye(values.shape[-1], dtype=bool)].mean(-1)


@dataclass(frozen=True)
class Across:
    """One trained regime's vectors across seeds; T tasks, S seeds."""

    cosine: Floats
    """(T, S, S)."""
    single: Floats
    """(T, S, S): task, vector's seed, head's seed."""
    average: Floats
    """(T, S): task, head's seed."""


@dataclass(frozen=True)
class Results:
    """What the page shows, checked."""

    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    regimes: Mapping[str, Regime]
    across: Mapping[str, Across]

    @classmethod
    def parse(cls, node: Node) -> "Results":
        """Read and check.

        Raises:
            ResultsError: with the key that is missing or misshapen.
        """
        seeds, tasks = node.integers("seeds"), node.names("tasks")
        S, T = len(seeds), len(tasks)
        regimes, across = {}, {}
        for name in node.child("config").names("regimes"):
            child, relation = node.child(name), node.child(f"relation/{name}")
            spearman = (relation.numbers(f"spearman/{p}", ()) for p in ("mean", "low", "high"))
            mean, low, high = (float(value) for value in spearman)
            regimes[name] = Regime(
                {k: child.numbers(f"pairs/{k}", (S, T, T), 1.0) for k in KEYS},
                {k: child.numbers(f"all/{k}", (S, T), 1.0) for k in KEYS},
                relation.numbers("pearson", (S,)),
                (mean, low, high),
            )
        for name in node.mapping("across"):
            child = node.child(f"across/{name}")
            across[name] = Across(
                child.numbers("cosine", (T, S, S)),
                child.numbers("single", (T, S, S), 1.0),
                child.numbers("average", (T, S), 1.0),
            )
        return cls(seeds, tasks, regimes, across)


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory.

    Raises:
        ResultsError: a result file does not fit the schema.
    """
    results = Results.parse(node)
    config = node.mapping("config")
    lead = (
        f"Task vectors of {len(results.tasks)} tasks, {node.get('model/name')}: for every two, the "
        "model with averaged weights beside the ensemble that averages the two models' logits, on "
        f"at most {config.get('test') or config['data']['test']} test examples of each task. In "
        "the tangent space both have the same features; the heads here divide these by their "
        "norm, so logits may differ."
    )
    across = (seeds_table(results),) if results.across else ()
    return Page(
        title=f"Averaging weights and ensembling: {node.get('preset')}",
        lead=lead,
        facts=facts_of(node, results.tasks, results.seeds),
        sections=(
            claims_section(node),
            Section("merges", "Two ways to merge", (scatter(results), merges(results))),
            Section("seeds", "One task, several seeds", across),
            configuration_of(node),
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
            rho = fixed(regime.spearman[0], 3) if np.isfinite(regime.spearman[0]) else NONE
            ax.set_title(f"{label(name)}: ρ = {rho}", fontsize=8.5)
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
        mean, low, high = regime.spearman
        brackets = f" [{fixed(low, 3)}, {fixed(high, 3)}]" if np.isfinite(low) else ""
        rows.append(
            [
                Cell(label(name)),
                percent(regime.over_pairs("average")),
                percent(regime.over_pairs("ensemble")),
                percent(regime.over_pairs("average") - regime.over_pairs("ensemble")),
                percent(regime.over_pairs("average", normalized=True)),
                percent(regime.over_pairs("agreement")),
                number(regime.pearson, 3),
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
    for name, found in results.across.items():
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
        f"seed's, and of the average of the {S} vectors; mean ± 95 % t interval over heads.",
        ("Regime", "Task", "Cosine", "Own head", "Another seed's head", "Average of seeds"),
        freeze(rows),
    )

"""The page of ``experiments.subsets``: normalized accuracy by number of tasks, pairs, claims."""

import itertools

import numpy as np
from matplotlib.figure import Figure

from experiments.subsets.results import ALL, OWN, Results
from experiments.told import examples
from linearize.report.page import Page, Section, shows
from linearize.report.plot import Plot, errorbars, figure, handle, legend
from linearize.report.stats import POSITIVE, over_seeds, seeds_phrase
from linearize.report.style import colour, label
from linearize.report.table import NONE, Cell, Table, cell, freeze, percent

TITLES = {OWN: "On the subset's own tasks", ALL: "On all tasks"}


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    validation, test = (examples(results.config, split) for split in ("validation", "test"))
    lead = (
        f"Task vectors of {len(results.tasks)} tasks, {results.model_name}, added in all "
        f"subsets with one scaling coefficient each, chosen on {validation} of each of the "
        f"subset's tasks, and measured on {test} of each.{sampled(results)}"
    )
    return Page(
        title=f"Subsets of the tasks: {results.preset}",
        lead=lead,
        facts=results.facts(results.tasks),
        sections=(
            results.verdicts(),
            Section("sizes", "By number of tasks", (by_size(results), sizes(results))),
            Section("alphas", "Scaling coefficients", (coefficients(results),)),
            Section("pairs", "Pairs of tasks", (pairs(results),)),
            results.configuration,
        ),
        headlines=("sizes", "claims"),
    )


def sampled(results: Results) -> str:
    """Which regimes were measured on a sample, for captions; empty where none was."""
    whole = 2 ** len(results.tasks) - 1
    notes = [
        f"{label(name)}: a sample of {len(subsets)} of {whole} subsets, α on "
        f"{len(results.grid[name])} points."
        for name, subsets in results.subsets.items()
        if len(subsets) < whole
    ]
    return " ".join(["", *notes])


def by_size(results: Results) -> Plot:
    """Mean normalized accuracy against the number of tasks, own and all."""
    numbers = range(1, len(results.tasks) + 1)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 6.4 if narrow else 3.6)
        axes = fig.subplots(2, 1) if narrow else fig.subplots(1, 2)
        for ax, on in zip(axes, (OWN, ALL), strict=True):
            for i, name in enumerate(results.regimes):
                values = 100 * results.means(name, on)
                by_number = [values[:, results.rows(name, k)] for k in numbers]
                shift = 0.09 * (i - (len(results.regimes) - 1) / 2)
                for k, found in zip(numbers, by_number, strict=True):
                    dots = found.mean(0)
                    at = np.full(len(dots), k + shift - 0.05)
                    ax.scatter(at, dots, s=5, color=colour(name), alpha=0.35, lw=0)
                means = np.stack([v.mean(1) for v in by_number], -1)
                errorbars(ax, np.array(numbers) + shift, means, name, POSITIVE)
            ax.set(xticks=numbers, title=TITLES[on], xlabel="Number of task vectors added")
            ax.grid()
        for ax in axes if narrow else axes[:1]:
            ax.set_ylabel("Normalized accuracy (%)")
        legend(fig, [handle(name) for name in results.regimes], narrow)
        return fig

    return Plot(
        "by_size",
        "Normalized accuracy by number of task vectors",
        "Accuracy ÷ that of the task's own fine-tuned model in the same regime, mean over tasks, "
        f"then over subsets of that size. Small dots: subsets. {seeds_phrase(results.seeds)}"
        f"{sampled(results)}",
        "Two panels of normalized accuracy against the number of task vectors added, on the "
        "subset's own tasks and on all tasks, one line a regime.",
        draw,
    )


def coefficients(results: Results) -> Plot:
    """The chosen α against the number of tasks."""
    numbers = range(1, len(results.tasks) + 1)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.2)
        ax = fig.subplots()
        for name, regime in results.regimes.items():
            chosen = [regime.alpha[:, results.rows(name, k)].mean(1) for k in numbers]
            errorbars(ax, numbers, np.stack(chosen, -1), name, POSITIVE)
        ax.set(xticks=numbers, xlabel="Number of task vectors added", ylabel="Chosen α, mean")
        ax.set_ylim(0, None)
        ax.grid()
        legend(fig, [handle(name) for name in results.regimes], narrow)
        return fig

    grids = (f"{label(n)}: {len(grid)} points." for n, grid in results.grid.items())
    return Plot(
        "coefficients",
        "Scaling coefficient by number of task vectors",
        "The α that validation data of the subset's tasks choose, mean over subsets of that size. "
        f"{seeds_phrase(results.seeds)} Grids: {' '.join(grids)}",
        "Line chart of the chosen scaling coefficient against the number of task vectors added.",
        draw,
    )


def sizes(results: Results) -> Table:
    """By regime and size: own, all, fixed α, and the spread over subsets."""
    rows = []
    for name, regime in results.regimes.items():
        own, every = results.means(name, OWN), results.means(name, ALL)
        absolute = results.means(name, OWN, normalized=False)
        for k in range(1, len(results.tasks) + 1):
            m = results.rows(name, k)
            spread = 100 * over_seeds(own[:, m].std(1, ddof=1)).mean if len(m) > 1 else np.nan
            alpha = over_seeds(regime.alpha[:, m].mean(1))
            rows.append(
                [
                    Cell(label(name)),
                    Cell(str(k), k),
                    Cell(str(len(m)), len(m)),
                    percent(own[:, m].mean(1)),
                    cell(float(spread), float("nan"), 1),
                    percent(every[:, m].mean(1)),
                    percent(absolute[:, m].mean(1)),
                    percent(regime.fixed[:, m].mean(1)),
                    cell(float(alpha.mean), float(alpha.half), 2),
                ]
            )
    return Table(
        "sizes",
        "Normalized accuracy by number of task vectors",
        "In %, mean over tasks and over subsets of that size; normalized but for the accuracy. "
        f"Spread: standard deviation over subsets, mean of seeds. {seeds_phrase(results.seeds)}"
        f"{sampled(results)}",
        (
            "Regime", "Vectors", "Subsets", "Own tasks ↑", "Spread", "All tasks ↑",
            "Own tasks, accuracy ↑", f"Own tasks, α = {results.fixed:g}", "α chosen",
        ),
        freeze(rows),
    )  # fmt: skip


def pairs(results: Results) -> Table:
    """Every pair's mean normalized accuracy on its two tasks, by regime."""
    own = [(subsets, results.means(name, OWN)) for name, subsets in results.subsets.items()]
    rows = []
    for pair in itertools.combinations(range(len(results.tasks)), 2):
        cells = [Cell(", ".join(results.tasks[t] for t in pair))]
        cells += [percent(v[:, s.index(pair)]) if pair in s else Cell(NONE) for s, v in own]
        rows.append(cells)
    return Table(
        "pairs",
        "Every pair of tasks",
        "Normalized accuracy in %, mean of the two tasks, α chosen on their validation data. "
        f"{seeds_phrase(results.seeds)}",
        ("Pair", *(label(name) for name in results.regimes)),
        freeze(rows),
    )

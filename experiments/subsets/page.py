"""The page of ``experiments.subsets``: normalized accuracy by number of tasks, pairs, claims."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from linearize.report.claims import claims_section
from linearize.report.node import Floats, Node
from linearize.report.page import Page, Section, configuration_of, facts_of
from linearize.report.plot import Plot, errorbars, figure, handle, legend
from linearize.report.stats import over_seeds, seeds_phrase
from linearize.report.style import colour, label
from linearize.report.table import NONE, Cell, Table, cell, freeze, percent

OWN, ALL = "own", "all"
TITLES = {OWN: "On the subset's own tasks", ALL: "On all tasks"}


@dataclass(frozen=True)
class Regime:
    """One regime's subsets; S seeds, M subsets, T tasks."""

    subsets: tuple[tuple[int, ...], ...]
    alphas: Floats
    """(S, M), chosen on validation data."""
    accuracy: Floats
    """(S, M, T), at the chosen α."""
    single: Floats
    """(S, T): accuracy of each task's own model, α = 1."""
    fixed: Floats
    """(S, M): mean over the subset's own tasks at the fixed α."""
    grid: tuple[float, ...]

    def means(self, on: str, normalized: bool = True) -> Floats:
        """Mean accuracy of each subset, on its own tasks or on all, (S, M)."""
        values = self.accuracy / self.single[:, None] if normalized else self.accuracy
        if on == ALL:
            return values.mean(-1)
        columns = [values[:, m, list(s)].mean(-1) for m, s in enumerate(self.subsets)]
        return np.stack(columns, -1)

    def rows(self, size: int) -> NDArray[np.intp]:
        """The subsets of one size."""
        return np.array([m for m, s in enumerate(self.subsets) if len(s) == size], np.intp)


@dataclass(frozen=True)
class Results:
    """What the page shows, checked."""

    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    fixed: float
    regimes: Mapping[str, Regime]

    @classmethod
    def parse(cls, node: Node) -> "Results":
        """Read and check.

        Raises:
            ResultsError: with the key that is missing or misshapen.
        """
        seeds, tasks = node.integers("seeds"), node.names("tasks")
        S, T = len(seeds), len(tasks)
        regimes = {}
        for name in node.mapping("subsets"):
            subsets = tuple(tuple(int(t) for t in s) for s in node.list(f"subsets/{name}"))
            M, child = len(subsets), node.child(name)
            regimes[name] = Regime(
                subsets,
                child.numbers("alpha", (S, M)),
                child.numbers("accuracy", (S, M, T), 1.0),
                child.numbers("single", (S, T), 1.0),
                child.numbers("fixed", (S, M)),
                tuple(float(a) for a in node.list(f"grid/{name}")),
            )
        return cls(seeds, tasks, float(node.get("fixed")), regimes)

    @property
    def sampled(self) -> str:
        """Which regimes were measured on a sample, for captions; empty where none was."""
        whole = 2 ** len(self.tasks) - 1
        notes = [
            f"{label(name)}: a sample of {len(r.subsets)} of {whole} subsets, α on "
            f"{len(r.grid)} points."
            for name, r in self.regimes.items()
            if len(r.subsets) < whole
        ]
        return " ".join(["", *notes])


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory.

    Raises:
        ResultsError: a result file does not fit the schema.
    """
    results = Results.parse(node)
    config = node.mapping("config")
    counts = [config.get(split) or config["data"][split] for split in ("validation", "test")]
    lead = (
        f"Task vectors of {len(results.tasks)} tasks, {node.get('model/name')}, added in all "
        "subsets with one scaling coefficient each, chosen on at most "
        f"{counts[0]} validation examples of each of the subset's tasks, and measured on at most "
        f"{counts[1]} test examples of each.{results.sampled}"
    )
    return Page(
        title=f"Subsets of the tasks: {node.get('preset')}",
        lead=lead,
        facts=facts_of(node, results.tasks, results.seeds),
        sections=(
            claims_section(node),
            Section("sizes", "By number of tasks", (by_size(results), sizes(results))),
            Section("alphas", "Scaling coefficients", (coefficients(results),)),
            Section("pairs", "Pairs of tasks", (pairs(results),)),
            configuration_of(node),
        ),
        headlines=("sizes", "claims"),
    )


def by_size(results: Results) -> Plot:
    """Mean normalized accuracy against the number of tasks, own and all."""
    numbers = range(1, len(results.tasks) + 1)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 6.4 if narrow else 3.6)
        axes = fig.subplots(2, 1) if narrow else fig.subplots(1, 2)
        for ax, on in zip(axes, (OWN, ALL), strict=True):
            for i, (name, regime) in enumerate(results.regimes.items()):
                values = 100 * regime.means(on)
                by_number = [values[:, regime.rows(k)] for k in numbers]
                shift = 0.09 * (i - (len(results.regimes) - 1) / 2)
                for k, found in zip(numbers, by_number, strict=True):
                    dots = found.mean(0)
                    at = np.full(len(dots), k + shift - 0.05)
                    ax.scatter(at, dots, s=5, color=colour(name), alpha=0.35, lw=0)
                means = np.stack([v.mean(1) for v in by_number], -1)
                errorbars(ax, np.array(numbers) + shift, means, name)
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
        f"{results.sampled}",
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
            chosen = np.stack([regime.alphas[:, regime.rows(k)].mean(1) for k in numbers], -1)
            errorbars(ax, numbers, chosen, name)
        ax.set(xticks=numbers, xlabel="Number of task vectors added", ylabel="Chosen α, mean")
        ax.set_ylim(0, None)
        ax.grid()
        legend(fig, [handle(name) for name in results.regimes], narrow)
        return fig

    grids = (f"{label(n)}: {len(r.grid)} points." for n, r in results.regimes.items())
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
        own, every = regime.means(OWN), regime.means(ALL)
        absolute = regime.means(OWN, normalized=False)
        for k in range(1, len(results.tasks) + 1):
            m = regime.rows(k)
            spread = 100 * over_seeds(own[:, m].std(1, ddof=1)).mean if len(m) > 1 else np.nan
            alpha = over_seeds(regime.alphas[:, m].mean(1))
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
        f"{results.sampled}",
        (
            "Regime", "Vectors", "Subsets", "Own tasks ↑", "Spread", "All tasks ↑",
            "Own tasks, accuracy ↑", f"Own tasks, α = {results.fixed:g}", "α chosen",
        ),
        freeze(rows),
    )  # fmt: skip


def pairs(results: Results) -> Table:
    """Every pair's mean normalized accuracy on its two tasks, by regime."""
    own = [(regime.subsets, regime.means(OWN)) for regime in results.regimes.values()]
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

"""The page of ``experiments.nli``: tasks added, by number and by task, and donors."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from experiments.nli.results import Donors, Results
from linearize.report.node import Floats
from linearize.report.page import Page, Section, shows
from linearize.report.plot import Plot, errorbars, figure, handle, legend
from linearize.report.stats import Bounds, over_seeds, seeds_phrase
from linearize.report.style import label
from linearize.report.table import MEAN, Cell, Table, cell, freeze, number, percent

READ = {
    "features": "heads of a few examples on its features",
    "words": "the word that follows a prompt",
    "answers": "answers in words",
    "classifier": "classes of one head that all tasks share",
}
WITHIN: Bounds = (-100.0, 100.0)
"""Of every metric here, in the units of tables."""


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    measured = ", ".join(
        f"{name} by {metric}" for name, metric in zip(results.tasks, results.metrics, strict=True)
    )
    if len(set(results.metrics)) == 1:
        measured = f"{', '.join(results.tasks)}, all by {results.metrics[0]}"
    lead = (
        f"Task vectors of {len(results.tasks)} language tasks, {results.model_name}, read by "
        f"{READ[results.read]}, added in subsets, and one by one to each target's own model. "
        f"Measured are {measured}."
    )
    return Page(
        title=f"Addition of language tasks: {results.preset}",
        lead=lead,
        facts=results.facts(results.tasks),
        sections=(
            results.verdicts(),
            Section("tasks", "All tasks added", (summary(results), by_task(results))),
            Section("sizes", "By number of tasks", (by_size(results), sizes(results))),
            Section("donors", "One donor for each target", (donors(results),)),
            results.configuration,
        ),
        headlines=("tasks", "donors", "claims"),
    )


def summary(results: Results) -> Table:
    """By regime: before, alone, all added, with a donor."""
    rows = []
    for name, regime in results.regimes.items():
        (row,) = results.rows(name, len(results.tasks))
        rows.append(
            [
                Cell(label(name)),
                percent(results.pretrained.mean(-1)),
                percent(regime.single.mean(-1)),
                percent(regime.whole.mean(-1)),
                number(regime.alpha[:, row], 2),
                percent(regime.whole_at_one.mean(-1)),
                percent(regime.single.mean(-1) + results.gain(name)),
                gain(results.gain(name)),
            ]
        )
    return Table(
        "tasks",
        "All tasks added",
        f"Mean of {len(results.tasks)} tasks' own metrics. {units(results)} α on validation "
        f"examples of all tasks, of equal ones the least: {grids(results)}. With a donor: each "
        "target's own model and one other vector, chosen on its validation examples. "
        f"{seeds_phrase(results.seeds)}",
        (
            "Regime", "Pre-trained ↑", "Each alone ↑", "All added ↑", "α", "All added, α = 1 ↑",
            "With a donor ↑", "Gain",
        ),
        freeze(rows),
    )  # fmt: skip


def by_task(results: Results) -> Table:
    """Every task: before, alone, in the sum."""
    rows = []
    for name, regime in results.regimes.items():
        kinds = {
            "each alone": regime.single,
            "all added": regime.whole,
            "all added, α = 1": regime.whole_at_one,
        }
        for kind, values in kinds.items():
            rows.append(across(f"{label(name)}, {kind}", values))
    tested = ", ".join(f"{t} {n}" for t, n in zip(results.tasks, results.tested, strict=True))
    return Table(
        "by_task",
        "Every task",
        f"{units(results)} Test examples: {tested}. {seeds_phrase(results.seeds)}",
        ("Model", *results.tasks, MEAN),
        freeze([across("Pre-trained", results.pretrained), *rows]),
    )


def across(name: str, values: Floats) -> list[Cell]:
    """A row of every task (S, T), and their mean."""
    return [Cell(name), *(percent(column) for column in values.T), percent(values.mean(-1))]


def by_size(results: Results) -> Plot:
    """Mean metric of the subset's own tasks against their number."""
    numbers = np.arange(1, len(results.tasks) + 1)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.4)
        ax = fig.subplots()
        for i, name in enumerate(results.regimes):
            means = np.stack([100 * results.own(name, int(k)) for k in numbers], -1)
            shift = 0.06 * (i - (len(results.regimes) - 1) / 2)
            errorbars(ax, numbers + shift, means, name, WITHIN)
        ax.set(xticks=numbers, xlabel="Number of task vectors added", ylabel="Own tasks (%)")
        ax.grid()
        legend(fig, [handle(name) for name in results.regimes], narrow)
        return fig

    return Plot(
        "by_size",
        "By number of task vectors",
        f"Mean metric of the subset's own tasks, then of subsets of that size. {units(results)} "
        f"{seeds_phrase(results.seeds)}{sampled(results)}",
        "Line chart of the subset's own tasks' mean metric against the number of vectors added.",
        draw,
    )


def sizes(results: Results) -> Table:
    """The same in numbers, and at α = 1."""
    rows = []
    for name, regime in results.regimes.items():
        for k in range(1, len(results.tasks) + 1):
            m = results.rows(name, k)
            alpha = over_seeds(regime.alpha[:, m].mean(1))
            rows.append(
                [
                    Cell(label(name)),
                    Cell(str(k), k),
                    Cell(str(len(m)), len(m)),
                    percent(results.own(name, k)),
                    cell(float(alpha.mean), float(alpha.half), 2),
                    percent(results.own(name, k, at_one=True)),
                ]
            )
    return Table(
        "sizes",
        "By number of task vectors",
        f"Mean metric of the subset's own tasks, then of subsets of that size. {units(results)} "
        f"{seeds_phrase(results.seeds)}{sampled(results)}",
        ("Regime", "Vectors", "Subsets", "Own tasks ↑", "α chosen", "Own tasks, α = 1 ↑"),
        freeze(rows),
    )


def donors(results: Results) -> Table:
    """Every target: its own model, with the chosen donor, and which that is."""
    rows = []
    for name, regime in results.regimes.items():
        for t, task in enumerate(results.tasks):
            found = regime.donors[task]
            rows.append(
                [
                    Cell(label(name)),
                    Cell(task),
                    percent(regime.single[:, t]),
                    percent(found.value),
                    gain(found.value - regime.single[:, t]),
                    number(found.alpha, 2),
                    Cell(chosen(found)),
                ]
            )
    return Table(
        "donors",
        "One donor for each target",
        f"{units(results)} The donor and its α are those that the target's validation examples "
        "choose, of equal ones the least α and the first donor, none where no donor raises its "
        f"metric there. {seeds_phrase(results.seeds)}",
        ("Regime", "Target", "Alone ↑", "With a donor ↑", "Gain", "α", "Donor"),
        freeze(rows),
    )


def chosen(found: Donors) -> str:
    """The donors by how many seeds choose them."""
    names = list(found.best)
    counts = Counter(names[int(i)] if i >= 0 else "none" for i in found.chosen)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{name} ({n})" for name, n in counts.most_common())


def gain(values: Sequence[float] | Floats) -> Cell:
    """A difference in points."""
    found = over_seeds(100 * np.asarray(values))
    return cell(float(found.mean), float(found.half), 1)


def units(results: Results) -> str:
    """Of the numbers, for captions."""
    if "Matthews correlation" in results.metrics:
        return "In %; of Matthews correlation, hundredths."
    return "In %."


def grids(results: Results) -> str:
    """How many coefficients each regime tried, for captions."""
    return "; ".join(f"{label(name)} {len(grid)} points" for name, grid in results.grids.items())


def sampled(results: Results) -> str:
    """Which regimes were measured on a sample, for captions; empty where none was."""
    whole = 2 ** len(results.tasks) - 1
    notes = [
        f"{label(name)}: a sample of {len(subsets)} of {whole} subsets."
        for name, subsets in results.subsets.items()
        if len(subsets) < whole
    ]
    return " ".join(["", *notes])

"""The page of ``experiments.merging``: every merge of every method, accuracy by number of tasks."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments import told
from experiments.merging.results import Merged, Results
from linearize.report.page import TASK_ARITHMETIC, Page, Section, shows
from linearize.report.plot import Plot, errorbars, figure, legend
from linearize.report.stats import SHARE, over_seeds, seeds_phrase
from linearize.report.style import INK, MUTED, PAPER, Look, label
from linearize.report.table import NONE, Cell, Table, cell, freeze, percent, significant

SOURCES = TASK_ARITHMETIC[:-1] + "; each merge after the paper that its module names."
BEST = 3
"""Merges of each method that the figure has in colour, beside the sum."""


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    config = results.config
    validation, test = (told.examples(config, split) for split in ("validation", "test"))
    method, merge, _ = results.rows()[0]
    best = 100 * float(results.mean(method, merge, results.most).mean())
    lead = (
        f"Best of all: {results.labels[merge]} of {look(results).inline(method)} vectors, "
        f"{best:.1f} % on {results.most} tasks. {results.model_name}; hyper-parameters and α "
        f"are chosen on {validation} of each task, and measured on {test}. Vectors are trained "
        "once, with all tasks at hand."
    )
    return Page(
        title=f"Merging: {results.preset}",
        lead=lead,
        facts=results.facts(results.tasks),
        sections=(
            Section("merges", "Every merge of every method", (by_number(results), table(results))),
            Section("numbers", "By number of tasks", (numbers(results),)),
            results.verdicts("Claims"),
            results.configuration,
        ),
        headlines=("merges", "claims"),
        sources=SOURCES,
    )


def look(results: Results) -> Look:
    """How methods and merges are called and drawn."""
    return Look(results.labels)


def table(results: Results) -> Table:
    """All merges of the most tasks, best first."""
    rows = []
    for method, merge, found in results.rows():
        alpha = over_seeds(found.alpha)
        rows.append(
            [
                Cell(results.labels[method]),
                Cell(results.labels[merge]),
                Cell(results.takes.get(merge) or NONE),
                percent(found.accuracy.mean(1)),
                percent(found.normalized.mean(1)),
                percent(found.plain.mean(1)),
                cell(float(alpha.mean), float("nan"), 2),
                Cell(chosen(found)),
                significant(found.seconds[:1]),
                cell(float(found.bytes.max()) / 2**20, float("nan"), 0),
            ]
        )
    before = percent(results.pretrained.mean(1))
    rows.append([Cell(label("pretrained")), Cell(NONE), Cell(NONE), before, *[Cell(NONE)] * 6])
    return Table(
        "merges",
        f"Every merge of {results.most} task vectors, by accuracy",
        "Test accuracy in %, mean over the tasks, at the α and hyper-parameters that validation "
        "data choose together; normalized: ÷ that of each task's own vector in the same view; no "
        "search: at the authors' α and hyper-parameters. A merge takes no data but what is named"
        f"{examples(results)}. "
        "Seconds are of merging once, with what it takes of data, while memory was traced, seed "
        f"{results.seeds[0]}. MB (2²⁰ bytes): the arrays that merging held at once at most "
        f"(NumPy's traced, JAX's as seen every 2 ms). {seeds_phrase(results.seeds)}",
        (
            "Method", "Merge", "Takes", "Accuracy ↑", "Normalized ↑", "No search ↑", "α, mean",
            "Chosen", "Seconds", "MB",
        ),
        freeze(rows),
    )  # fmt: skip


def examples(results: Results) -> str:
    """How much data merges take, and what was left out, for captions."""
    without = [
        f"{results.labels[b]}, {look(results).inline(a)}" for a, b in results.config["without"]
    ]
    left = f"; left out, as it takes long: {'; '.join(without)}" if without else ""
    return f"; of training inputs {results.config['examples']} a task{left}"


def chosen(found: Merged) -> str:
    """The hyper-parameters of each seed, and how near to their optimum fitted coefficients are."""
    words = [f"{n} {', '.join(f'{v:g}' for v in values)}" for n, values in found.options.items()]
    words += [] if found.gap is None else [f"within {found.gap.max():.1g} nats of the optimum"]
    return "; ".join(words) or NONE


def numbers(results: Results) -> Table:
    """Accuracy by number of tasks."""
    sizes = results.numbers[::-1]
    rows = [
        [
            Cell(results.labels[method]),
            Cell(results.labels[merge]),
            *(percent(results.mean(method, merge, k)) for k in sizes),
        ]
        for method, merge, _ in results.rows()
    ]
    return Table(
        "numbers",
        "Accuracy by number of tasks",
        "Test accuracy in %, mean over the tasks that are merged, the first ones in the order "
        f"{', '.join(results.tasks)}. {seeds_phrase(results.seeds)}",
        ("Method", "Merge", *(f"{k} tasks" for k in sizes)),
        freeze(rows),
    )


def by_number(results: Results) -> Plot:
    """Accuracy against the number of tasks, a panel a method."""
    sizes, rows = results.numbers[::-1], results.rows()
    best = {
        merge
        for method in results.methods
        for merge in [m for name, m, _ in rows if name == method][:BEST]
    }
    coloured = [m for m in results.labels if m in best - {"sum"}]
    inks = Look(dict.fromkeys(coloured, "coloured"))
    shown = ["sum", *coloured]
    apart = 0.6 / len(shown)  # whiskers beside each other, not on each other

    def along(method: str, merge: str) -> np.ndarray:
        """In %, (S, numbers of tasks)."""
        return np.stack([100 * results.mean(method, merge, k) for k in sizes], -1)

    def reach(method: str, merge: str) -> np.ndarray:
        """The ends of what is drawn of it."""
        found = over_seeds(along(method, merge))
        half = np.nan_to_num(found.half) if merge in shown else np.zeros_like(found.mean)
        return np.ravel(np.clip([found.mean - half, found.mean + half], *SHARE))

    def draw(narrow: bool) -> Figure:
        count = len(results.methods)
        across = 1 if narrow else min(count, 2)
        down = -(-count // across)
        fig = figure(narrow, 2.6 * down + 0.6)
        axes = list(fig.subplots(down, across, sharey=True, sharex=True, squeeze=False).flat)
        for ax in axes[count:]:
            ax.set_visible(False)
        for ax, (name, method) in zip(axes, results.methods.items(), strict=False):
            alone = [100 * method.single[:, :k].mean() for k in sizes]
            ax.plot(sizes, alone, color=INK, lw=1, ls=":", zorder=3)
            for merge in method.merges:
                values = along(name, merge)
                if merge in shown:
                    beside = apart * (shown.index(merge) - (len(shown) - 1) / 2)
                    errorbars(ax, np.array(sizes) + beside, values, merge, SHARE, **style(merge))
                else:
                    ax.plot(sizes, values.mean(0), color=MUTED, lw=0.6, alpha=0.5, zorder=0)
            ax.set(title=results.labels[name], xticks=sizes)
            ax.tick_params(labelbottom=True)
            ax.grid(axis="y")
        own = [100 * m.single[:, :k].mean() for m in results.methods.values() for k in sizes]
        seen = np.concatenate([own, *(reach(method, merge) for method, merge, _ in rows)])
        axes[0].set_ylim(max(0, seen.min() - 2), min(100, seen.max() + 2))
        for ax in axes[max(count - across, 0) : count]:
            ax.set_xlabel("Task vectors merged")
        for ax in axes[:count:across]:
            ax.set_ylabel("Accuracy (%)")
        handles = [
            Line2D([], [], label=results.labels[m], ms=5, mec=PAPER, **style(m))
            for m in ("sum", *coloured)
            if any(m in method.merges for method in results.methods.values())
        ]
        handles += [
            Line2D([], [], color=MUTED, lw=0.6, alpha=0.5, label="Other merges"),
            Line2D([], [], color=INK, lw=1, ls=":", label="Each task's own vector"),
        ]
        legend(fig, handles, narrow, ncols=4)
        return fig

    def style(merge: str) -> dict[str, Any]:
        if merge == "sum":
            return {"color": INK, "marker": "o", "lw": 1.6}
        return {"color": inks.colour(merge), "marker": inks.marker(merge), "lw": 1.4}

    return Plot(
        "by_number",
        "Accuracy by number of task vectors merged",
        f"Mean over the merged tasks, test examples; coloured: the {BEST} best merges of each "
        f"method, and the sum; dotted: each task with its own vector alone. "
        f"{seeds_phrase(results.seeds)}",
        "A panel for each method: accuracy against the number of task vectors merged, a line a "
        "merge.",
        draw,
    )

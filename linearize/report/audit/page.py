"""The page of an audit: a sentence, a matrix, the layers, and the estimates beside it."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from linearize.plot import LOW_IS_LIGHT
from linearize.report import schema
from linearize.report.audit.results import Cell, Results
from linearize.report.audit.words import of_one, sentence, where
from linearize.report.node import Floats, Node
from linearize.report.page import Page, Section
from linearize.report.plot import Plot, figure, in_cell, legend, matrix_axes, whiskers
from linearize.report.stats import ANY, POSITIVE, mean_phrase, over_seeds
from linearize.report.style import MUTED, OWN_COLOURS, PAPER, shorten
from linearize.report.table import NONE, Table, fixed, freeze
from linearize.report.table import Cell as Entry

SOURCES = """‖J(x)τ‖ after Yoshida et al., <cite>Mastering Task Arithmetic: τJp as a Key Indicator
for Weight Disentanglement</cite> (ICLR 2025); its Kronecker estimate after TAK (ICLR 2026); ξ after
Ortiz-Jimenez et al., <cite>Task Arithmetic in the Tangent Space</cite> (NeurIPS 2023)."""

WORST = 3
"""Cells whose layers are drawn."""

READ = (
    "A row is a task's examples, a column the vector that is added: how far it moves the outputs "
    "there, √E ‖J(x)τ‖², divided by the same of the row's own vector. 1 is as far as its own; dark "
    "is far."
)


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory.

    Raises:
        ResultsError: a result file does not fit the schema.
    """
    return page(schema.read(Results, node))


def page(results: Results, more: tuple[Section, ...] = ()) -> Page:
    """The page's parts.

    Args:
        results: what is shown.
        more: sections after the matrix.
    """
    return Page(
        title=f"Interference between {len(results.tasks)} task vectors: {results.preset}",
        lead=sentence(results),
        facts=(*results.facts(results.tasks), ("Examples", _seen(results))),
        sections=(
            Section("matrix", "Which vector disturbs which task", (matrix(results),)),
            *more,
            Section("layers", "Where", tuple(profile(results, n) for n in results.audited)),
            Section("estimates", "Other measures beside it", (scatter(results),)),
            Section("cells", "Every pair", tuple(table(results, name) for name in results.audited)),
            results.configuration,
        ),
        headlines=tuple(f"cells_{name}" for name in results.audited),
        sources=SOURCES,
    )


def _seen(results: Results) -> str:
    most = int(max(each.examples.max() for each in results.audited.values()))
    return f"{most} {results.split} examples a task at most"


def interval_phrase(results: Results) -> str:
    """What intervals are over."""
    many = len(results.seeds)
    return "examples" if many == 1 else f"{many} seeds"


def matrix(results: Results) -> Plot:
    """How far each vector moves each task's outputs, a panel a set of vectors."""
    shown = {name: each.bounds[0] for name, each in results.audited.items()}
    off = ~np.eye(len(results.tasks), dtype=bool)
    known = np.concatenate([mean[off & np.isfinite(mean)] for mean in shown.values()])
    upper = float(max(known.max(initial=0.0), 0.1))
    names = [shorten(task, 13) for task in results.tasks]
    colours = LOW_IS_LIGHT.with_extremes(bad=PAPER)

    def draw(narrow: bool) -> Figure:
        count, size = len(shown), max(len(names), 4)
        height = min(0.42 * size + 1.5, 4.4 if narrow else 1 + 6.4 / count)
        fig = figure(narrow, height * count if narrow else height)
        shape = (count, 1) if narrow else (1, count)
        axes = list(fig.subplots(*shape, squeeze=False).flat)
        for ax, (name, mean) in zip(axes, shown.items(), strict=True):
            image = ax.imshow(np.where(off, mean, np.nan), cmap=colours, vmin=0, vmax=upper)
            for (row, column), value in np.ndenumerate(mean):
                own = row == column
                text = "own" if own else fixed(float(value), 2) if np.isfinite(value) else NONE
                if own:
                    ax.text(column, row, text, ha="center", va="center", fontsize=6.5, color=MUTED)
                else:
                    in_cell(ax, column, row, text, 7.5, dark=bool(value > 0.6 * upper))
            matrix_axes(ax, names, names, 40)
            ax.set(
                title=results.audited[name].label, xlabel="vector that is added",
                ylabel="examples of task",
            )  # fmt: skip
        bar = fig.colorbar(
            image, ax=axes, location="bottom" if narrow else "right", shrink=0.8,
            aspect=30 if narrow else 22, pad=0.02,
        )  # fmt: skip
        bar.set_label("times as far as its own vector", fontsize=8)
        bar.outline.set_visible(False)
        return fig

    told = "; ".join(
        f"{each.label}: {of_one(each, results.tasks)}" for each in results.audited.values()
    )
    return Plot(
        "matrix",
        "How far each vector moves each task's outputs",
        f"{READ} Exact, at θ0.{mean_phrase(results.seeds)}",
        f"A matrix of numbers, a row a task and a column a vector. {told}",
        draw,
    )


def profile(results: Results, name: str) -> Plot:
    """The layers of the worst cells: their shares, and what each would do alone."""
    audited = results.audited[name]
    cells = [cell for cell in audited.cells(results.tasks)[:WORST] if np.isfinite(cell.value)]
    x = np.arange(len(audited.parts))

    def in_units(cell: Cell, values: Floats) -> Floats:
        return values[:, *cell.at] / audited.moved[:, cell.at[0], cell.at[0], None]

    def panels(cell: Cell) -> tuple[Floats, Floats]:
        return 100 * audited.shares[:, *cell.at], in_units(cell, audited.layers)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 5.4 if narrow else 3.4)
        axes = list(fig.subplots(*((2, 1) if narrow else (1, 2)), squeeze=False).flat)
        handles = []
        for cell, colour in zip(cells, OWN_COLOURS, strict=False):
            for ax, values, bounds in zip(axes, panels(cell), (ANY, POSITIVE), strict=True):
                found = over_seeds(values)
                ax.errorbar(
                    x, found.mean, yerr=whiskers(found, bounds), color=colour, marker="o", ms=4,
                    mec=PAPER, mew=0.4, lw=1.2, elinewidth=0.8,
                )  # fmt: skip
            if audited.kronecker_layers is not None:
                guessed = in_units(cell, audited.kronecker_layers).mean(0)
                axes[1].plot(x, guessed, color=colour, lw=1, ls=":")
            text = f"{shorten(cell.vector, 12)} on {shorten(cell.task, 12)}"
            handles.append(Line2D([], [], color=colour, marker="o", ms=4, label=text))
        names = [shorten(part, 16) for part in audited.parts]
        for ax, text in zip(
            axes, ("share of the square [%]", "alone, times the task's own vector"), strict=True
        ):
            ax.set_xticks(x, names, rotation=40, ha="right", rotation_mode="anchor", fontsize=7)
            ax.set_ylabel(text)
            ax.axhline(0, color=MUTED, lw=0.6)
            ax.grid(axis="y", alpha=0.6)
        axes[1].set_ylim(bottom=0)
        if handles:
            legend(fig, handles, narrow, 4)
        return fig

    where_ = "; ".join(f"{c.vector} on {c.task}: {where(audited, c)}" for c in cells)
    return Plot(
        f"layers_{name}",
        f"The layers of the worst cells: {audited.label}",
        "Left or above: what each layer contributes, E ⟨J_l τ_l, J τ⟩ / E ‖J τ‖², which sums to "
        "100 % and is negative where a layer works against the others. Right or below: what it "
        "would do alone, √E ‖J_l τ_l‖² over the task's own √E ‖J τ‖²; these squares do not sum up. "
        "Dotted: what Kronecker factors make of the latter."
        f"{mean_phrase(results.seeds)}"
        + (" Whiskers: 95 % t intervals over seeds." if len(results.seeds) > 1 else ""),
        f"Two line charts over the layers. {where_}.",
        draw,
    )


def scatter(results: Results) -> Plot:
    """The Kronecker estimate, ξ and the cosine against the exact movement, a row a measure."""
    off = ~np.eye(len(results.tasks), dtype=bool)
    measures = (
        ("Kronecker estimate", "kronecker"),
        (f"ξ at α = {results.alpha:g}", "xi"),
        ("cosine", "cosine"),
    )
    drawn = [
        (title, key)
        for title, key in measures
        if any(getattr(each, key) is not None for each in results.audited.values())
    ]

    def draw(narrow: bool) -> Figure:
        shape = (len(drawn), 1) if narrow else (1, len(drawn))
        fig = figure(narrow, 2.7 * len(drawn) if narrow else 3.3)
        axes = list(fig.subplots(*shape, squeeze=False).flat)
        for ax, (title, key) in zip(axes, drawn, strict=True):
            for name, each in results.audited.items():
                values = getattr(each, key)
                if values is None:
                    continue
                x, y = each.bounds[0][off], values.mean(0)[off]
                if key == "kronecker":
                    x = each.moved.mean(0)[off]
                ax.scatter(
                    x, y, s=18, color=results.look.colour(name), edgecolors=PAPER, lw=0.4, zorder=3
                )
            if key == "kronecker":
                ends = [0.0, max(*ax.get_xlim(), *ax.get_ylim())]
                ax.plot(ends, ends, color=MUTED, lw=0.8, ls="--", zorder=1)
                ax.set_xlabel("exact √E ‖J(x)τ‖²")
            else:
                ax.set_xlabel("exact, in units of the own vector")
            ax.set_ylabel(title)
            ax.grid(alpha=0.6)
        if len(results.audited) > 1:
            look = results.look
            dots = [
                Line2D(
                    [],
                    [],
                    color=look.colour(n),
                    marker="o",
                    ls="none",
                    ms=5,
                    mec=PAPER,
                    mew=0.4,
                    label=look.label(n),
                )
                for n in results.audited
            ]
            legend(fig, dots, narrow)
        return fig

    return Plot(
        "measures",
        "Other measures against the exact movement",
        "A point an ordered pair of tasks. The Kronecker estimate is TAK's √ τᵀGτ with factors of "
        "the same examples (dashed: equal to the exact one); ξ is the share of the task's "
        f"predictions that the other vector changes beside its own, both at α = {results.alpha:g}."
        f"{mean_phrase(results.seeds)}",
        f"Scatter plots of {', '.join(title for title, _ in drawn)} against the exact movement.",
        draw,
    )


def table(results: Results, name: str) -> Table:
    """Every vector on every other task, the largest movement first."""
    audited = results.audited[name]

    def shown(values: Floats | None, at: tuple[int, int], digits: int) -> Entry:
        if values is None:
            return Entry(NONE)
        value = float(values.mean(0)[at])
        return Entry(fixed(value, digits), value) if np.isfinite(value) else Entry(NONE)

    rows = []
    for cell in audited.cells(results.tasks):
        ok = np.isfinite(cell.low) and np.isfinite(cell.high)
        value = Entry(NONE)
        if np.isfinite(cell.value):
            value = Entry(fixed(cell.value, 3), cell.value)
        rows.append(
            [
                Entry(cell.vector),
                Entry(cell.task),
                value,
                Entry(f"[{fixed(cell.low, 3)}, {fixed(cell.high, 3)}]" if ok else NONE),
                shown(audited.moved, cell.at, 4),
                shown(audited.kronecker, cell.at, 4),
                shown(audited.xi, cell.at, 3),
                shown(audited.cosine, cell.at, 3),
                Entry(where(audited, cell).removeprefix("mostly through ")),
            ]
        )
    return Table(
        f"cells_{name}",
        f"Every vector on every other task: {audited.label}",
        "Relative: √E ‖J(x)τ‖² of the vector on the task's examples over that of the task's own "
        f"vector, with its 95 % interval over {interval_phrase(results)}. Moved: the numerator. "
        "Kronecker: TAK's estimate of it. ξ: share of the task's predictions that the vector "
        f"changes beside its own at α = {results.alpha:g}, in the {audited.view} view. Mostly: the "
        f"layers with the largest shares of the square.{mean_phrase(results.seeds)}",
        ("Vector", "On task", "Relative", "95 % interval", "Moved", "Kronecker", "ξ", "Cosine",
         "Mostly"),
        freeze(rows),
    )  # fmt: skip

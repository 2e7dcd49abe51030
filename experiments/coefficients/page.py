"""The page of ``experiments.coefficients``: optimal coefficients, certificates, their worth."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from linearize.report.claims import claims_section
from linearize.report.node import Floats, Node
from linearize.report.page import TASK_ARITHMETIC, Page, Section, configuration_of, facts_of
from linearize.report.plot import (
    Plot,
    categories,
    dots,
    figure,
    handle,
    in_cell,
    legend,
    matrix_axes,
)
from linearize.report.stats import mean_phrase, over_seeds, seeds_phrase
from linearize.report.style import PAPER, colour, label, shorten
from linearize.report.table import NONE, Cell, Table, fixed, freeze, number, percent

SOURCES = (
    TASK_ARITHMETIC[:-1]
    + """; the certificate after Bach, <cite>Self-concordant analysis for
logistic regression</cite> (Electronic Journal of Statistics 4, 2010)."""
)

KINDS = {
    "grid": "One α, on the grid",
    "shared": "One α, optimal",
    "task": "Per task",
    "part": "Per part",
    "task and part": "Per task and part",
}
"""Which coefficients are free, in the order shown."""
AFFINE = {"text": "a head that divides each example by its own norm at θ0"}
"""What the affine head is, by the kind of the true one; elsewhere one without normalisation."""
HEADS = {"affine": "affine, global", "true": "true, best start"}
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Fit:
    """Coefficients of one kind through one head; S seeds, K of them, T tasks."""

    coefficients: Floats
    """(S, K)."""
    cross_entropy: Mapping[str, Floats]
    """By split, (S, T), through the true head."""
    accuracy: Mapping[str, Floats]
    gap: Floats | None
    """(S,): bound on the suboptimality in nats, of the affine head's optimum."""
    gradient: Floats | None
    curvature: Floats | None


@dataclass(frozen=True)
class Results:
    """What the page shows, checked."""

    seeds: tuple[int, ...]
    tasks: tuple[str, ...]
    parts: tuple[str, ...]
    split: tuple[str, ...]
    single: Mapping[str, Floats]
    """By regime, (S, T)."""
    fits: Mapping[tuple[str, str, str], Fit]
    """By regime, kind and head; the grid's is found through no head, and filed under ``true``."""
    starts: Mapping[tuple[str, str], Floats]
    """By regime and kind, (S, n): objectives that the starts ended in."""

    @classmethod
    def parse(cls, node: Node) -> "Results":
        """Read and check.

        Raises:
            ResultsError: with the key that is missing or misshapen.
        """
        seeds, tasks = node.integers("seeds"), node.names("tasks")
        S, T = len(seeds), len(tasks)
        fits, starts, single = {}, {}, {}
        for regime in node.child("config").names("regimes"):
            child = node.child(regime)
            single[regime] = child.numbers("single", (S, T), 1.0)
            alpha = child.numbers("grid/alpha", (S,))
            fits[regime, "grid", "true"] = _fit(child.child("grid"), alpha[:, None], S, T)
            for kind in list(KINDS)[1:]:
                if kind in ("shared", "task") or child.has(f"fits/{kind}"):
                    found = child.child(f"fits/{kind}")
                    starts[regime, kind] = found.numbers("starts", (S, None))
                    for head in HEADS:
                        one = found.child(head)
                        at = one.numbers("coefficients", (S, None))
                        fits[regime, kind, head] = _fit(one, at, S, T)
        parts, split = node.names("parts"), node.names("split")
        return cls(seeds, tasks, parts, split, single, fits, starts)

    @property
    def regimes(self) -> tuple[str, ...]:
        """Those that were measured."""
        return tuple(self.single)


def _fit(node: Node, coefficients: Floats, S: int, T: int) -> Fit:
    measured = {
        what: {split: node.numbers(f"{split}/{what}", (S, T)) for split in SPLITS}
        for what in ("cross_entropy", "accuracy")
    }
    known = (node.optional(key, (S,)) for key in ("gap", "gradient", "curvature"))
    return Fit(coefficients, measured["cross_entropy"], measured["accuracy"], *known)


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory.

    Raises:
        ResultsError: a result file does not fit the schema.
    """
    results = Results.parse(node)
    config = node.mapping("config")
    affine = AFFINE.get(config["head"]["kind"], "a head without normalisation")
    counts = [config.get(split) or config["data"][split] for split in SPLITS]
    lead = (
        f"Scaling coefficients of {len(results.tasks)} task vectors, {node.get('model/name')}, of "
        f"least cross-entropy on {counts[0]} validation examples a task: one for all, one for each "
        f"task, one for each part of the model. Through {affine} the problem "
        "is convex and the optimum global, with a certificate; through the true, normalising head "
        "it is the best of several starts. All are measured with the true head, on "
        f"{counts[1]} test examples a task."
    )
    maps = [heatmap(results, regime) for regime in results.split if len(results.parts) > 1]
    return Page(
        title=f"Optimal coefficients: {node.get('preset')}",
        lead=lead,
        facts=facts_of(node, results.tasks, results.seeds),
        sections=(
            claims_section(node, "Claims"),
            Section("worth", "What coefficients are worth", (worth(results), table(results))),
            Section("certificates", "Certificates", (certificates(results),)),
            Section("values", "The coefficients", (by_task(results), *maps)),
            configuration_of(node),
        ),
        headlines=("coefficients", "claims"),
        sources=SOURCES,
    )


def worth(results: Results) -> Plot:
    """Accuracy and cross-entropy of every kind, on both splits."""
    kinds = [k for k in KINDS if any((r, k, "true") in results.fits for r in results.regimes)]

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 6.2 if narrow else 3.4)
        axes = fig.subplots(2, 1, sharex=narrow) if narrow else fig.subplots(1, 2)
        for ax, what in zip(axes, ("accuracy", "cross_entropy"), strict=True):
            for i, regime in enumerate(results.regimes):
                for split, filled in zip(SPLITS, (False, True), strict=True):
                    shown = [k for k in kinds if (regime, k, "true") in results.fits]
                    found = [getattr(results.fits[regime, k, "true"], what)[split] for k in shown]
                    scale = 100 if what == "accuracy" else 1
                    means = np.stack([scale * v.mean(1) for v in found], -1)
                    at = np.array([kinds.index(k) for k in shown]) + 0.16 * (2 * i - 1)
                    ink = colour(regime)
                    dots(
                        ax, at + (0.07 if filled else -0.07), means, regime,
                        mfc=ink if filled else PAPER, mec=ink, mew=1.0,
                    )  # fmt: skip
            categories(ax, [KINDS[k] for k in kinds], 25)
            ax.grid(axis="y")
        axes[0].set_ylabel("Accuracy after addition (%)")
        axes[1].set_ylabel("Cross-entropy (nats)")
        legend(fig, [handle(r) for r in results.regimes], narrow)
        return fig

    return Plot(
        "worth",
        "Accuracy and cross-entropy by what is free",
        "Mean over tasks, through the true head; filled: test, open: validation, on which the "
        f"coefficients are fitted. {seeds_phrase(results.seeds)}",
        "Two panels, accuracy and cross-entropy after addition, for one coefficient on the grid, "
        "one optimal, one per task, per part, and per task and part.",
        draw,
    )


def table(results: Results) -> Table:
    """Every kind and head: cross-entropy, over-fitting gap, accuracy."""
    rows = []
    for (regime, kind, head), fit in results.fits.items():
        entropy = {split: fit.cross_entropy[split].mean(1) for split in SPLITS}
        normalized = (fit.accuracy["test"] / results.single[regime]).mean(1)
        free = fit.coefficients.shape[1]
        rows.append(
            [
                Cell(label(regime)),
                Cell(KINDS[kind]),
                Cell(NONE if kind == "grid" else HEADS[head]),
                Cell(str(free), free),
                number(entropy["validation"], 3),
                number(entropy["test"], 3),
                number(entropy["test"] - entropy["validation"], 3),
                percent(fit.accuracy["test"].mean(1)),
                percent(normalized),
            ]
        )
    return Table(
        "coefficients",
        "Addition with optimal coefficients",
        "Cross-entropy in nats and accuracy in %, mean over tasks, through the true head whichever "
        "head the coefficients are fitted through; normalized: ÷ single-task accuracy. "
        f"{seeds_phrase(results.seeds)}",
        (
            "Regime", "Coefficients", "Fitted through", "Free", "Validation CE ↓", "Test CE ↓",
            "Test − validation", "Test accuracy ↑", "Normalized ↑",
        ),
        freeze(rows),
    )  # fmt: skip


def certificates(results: Results) -> Table:
    """How sure the optimum is, and how many optima the starts found."""
    rows = []
    for (regime, kind), starts in results.starts.items():
        affine = results.fits[regime, kind, "affine"]
        spread = float((starts.max(1) - starts.min(1)).max())
        distinct = [len(np.unique(np.round(s, 3))) for s in starts]
        rows.append(
            [
                Cell(label(regime)),
                Cell(KINDS[kind]),
                _worst(affine.gradient, np.max),
                _worst(affine.curvature, np.min),
                _worst(affine.gap, np.max),
                _worst(results.fits[regime, kind, "true"].gradient, np.max),
                Cell(str(starts.shape[1]), starts.shape[1]),
                Cell(", ".join(map(str, distinct))),
                Cell(f"{spread:.1e}", spread),
            ]
        )
    return Table(
        "certificates",
        "Certificates",
        "Of the affine head's optimum, the worst over seeds: gradient norm, smallest eigenvalue of "
        "the Hessian, and the bound that they give on the cross-entropy above the global minimum. "
        "Of the true head: the largest gradient norm of the best start; how many values, to 0.001 "
        "nats, the starts ended in, by seed; the largest difference between two.",
        (
            "Regime", "Coefficients", "Gradient", "Smallest eigenvalue", "Nats above optimum ≤",
            "True head: gradient", "Starts", "Distinct", "Largest difference",
        ),
        freeze(rows),
    )  # fmt: skip


def _worst(values: Floats | None, of: Callable[[Floats], float]) -> Cell:
    if values is None or np.isnan(values).any():
        return Cell(NONE)
    worst = float(of(values))
    return Cell(f"{worst:.1e}", worst)


def by_task(results: Results) -> Plot:
    """The coefficient of every task, beside the shared one."""
    names = [shorten(task, 14) for task in results.tasks]

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.4)
        ax = fig.subplots()
        for i, regime in enumerate(results.regimes):
            at = np.arange(len(names)) + 0.12 * (2 * i - 1)
            dots(ax, at, results.fits[regime, "task", "true"].coefficients, regime)
            grid = over_seeds(results.fits[regime, "grid", "true"].coefficients[:, 0]).mean
            ax.axhline(float(grid), color=colour(regime), lw=1, ls="--")
        categories(ax, names, 30)
        ax.set_ylabel("α of the task")
        ax.grid(axis="y")
        legend(fig, [handle(r) for r in results.regimes], narrow)
        return fig

    return Plot(
        "by_task",
        "Optimal coefficient of every task",
        "Fitted through the true head; dashed: the shared α that the grid search chooses. "
        f"{seeds_phrase(results.seeds)}",
        "Dot chart of the optimal coefficient of each task, one mark a regime.",
        draw,
    )


def heatmap(results: Results, regime: str) -> Plot:
    """The coefficient of every task and part."""
    found = results.fits[regime, "task and part", "true"].coefficients
    values = found.reshape(len(results.seeds), len(results.tasks), len(results.parts)).mean(0)

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 4.2 if narrow else 3.6)
        ax = fig.subplots()
        top = float(np.abs(values).max())
        image = ax.imshow(values.T, cmap="RdBu", vmin=-top, vmax=top, aspect="auto")
        for (task, part), value in np.ndenumerate(values):
            text, size = fixed(float(value), 1 if narrow else 2), 5.5 if narrow else 7
            in_cell(ax, task, part, text, size, dark=abs(value) > 0.6 * top)
        names = [shorten(t, 14) for t in results.tasks]
        matrix_axes(ax, names, [shorten(p, 22) for p in results.parts], 35)
        bar = fig.colorbar(image, ax=ax, location="bottom" if narrow else "right", shrink=0.8)
        bar.outline.set_visible(False)
        bar.set_label("α")
        return fig

    return Plot(
        f"by_part_{regime}",
        f"Optimal coefficient of every task and part, {label(regime).lower()}",
        f"Fitted through the true head; a row a part of the model.{mean_phrase(results.seeds)}",
        "Matrix of coefficients, a column a task and a row a part of the model.",
        draw,
    )

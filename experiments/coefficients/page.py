"""The page of ``experiments.coefficients``: optimal coefficients, certificates, their worth."""

from collections.abc import Callable

import numpy as np
from matplotlib.figure import Figure

from experiments.coefficients.results import Results
from experiments.told import examples, normalizes
from linearize.report.node import Floats
from linearize.report.page import TASK_ARITHMETIC, Page, Section, shows
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
from linearize.report.stats import ANY, POSITIVE, SHARE, mean_phrase, over_seeds, seeds_phrase
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


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    config = results.config
    affine = AFFINE.get(config["head"]["kind"], "a head without normalisation")
    true = "the true head is such a one"
    if normalizes(config):
        true = "through the true, normalising head it is the best of several starts"
    validation, test = (examples(config, split) for split in SPLITS)
    lead = (
        f"Scaling coefficients of {len(results.tasks)} task vectors, {results.model_name}, of "
        f"least cross-entropy on {validation} of each: one for all, one for each task, one for "
        f"each part of the model. Through {affine} the problem is convex and the optimum global, "
        f"with a certificate; {true}. All are measured with the true head, on {test} of each."
    )
    maps = [heatmap(results, regime) for regime in results.split if len(results.parts) > 1]
    return Page(
        title=f"Optimal coefficients: {results.preset}",
        lead=lead,
        facts=results.facts(results.tasks),
        sections=(
            results.verdicts("Claims"),
            Section("worth", "What coefficients are worth", (worth(results), table(results))),
            Section("certificates", "Certificates", (certificates(results),)),
            Section("values", "The coefficients", (by_task(results), *maps)),
            results.configuration,
        ),
        headlines=("coefficients", "claims"),
        sources=SOURCES,
    )


def worth(results: Results) -> Plot:
    """Accuracy and cross-entropy of every kind, on both splits."""
    fits = results.fits
    kinds = [k for k in KINDS if any((r, k, "true") in fits for r in results.regimes)]

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 6.2 if narrow else 3.4)
        axes = fig.subplots(2, 1, sharex=narrow) if narrow else fig.subplots(1, 2)
        for ax, what in zip(axes, ("accuracy", "cross_entropy"), strict=True):
            for i, regime in enumerate(results.regimes):
                for split, filled in zip(SPLITS, (False, True), strict=True):
                    shown = [k for k in kinds if (regime, k, "true") in fits]
                    found = [getattr(fits[regime, k, "true"], split) for k in shown]
                    scale, bounds = (100, SHARE) if what == "accuracy" else (1, POSITIVE)
                    means = np.stack([scale * getattr(v, what).mean(1) for v in found], -1)
                    at = np.array([kinds.index(k) for k in shown]) + 0.16 * (2 * i - 1)
                    ink = colour(regime)
                    dots(
                        ax, at + (0.07 if filled else -0.07), means, regime, bounds,
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
        validation, test = (each.cross_entropy.mean(1) for each in (fit.validation, fit.test))
        normalized = (fit.test.accuracy / results.regimes[regime].single).mean(1)
        free = fit.coefficients.shape[1]
        rows.append(
            [
                Cell(label(regime)),
                Cell(KINDS[kind]),
                Cell(NONE if kind == "grid" else HEADS[head]),
                Cell(str(free), free),
                number(validation, 3),
                number(test, 3),
                number(test - validation, 3),
                percent(fit.test.accuracy.mean(1)),
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
    found = ((name, *each) for name, r in results.regimes.items() for each in r.fits.items())
    for regime, kind, fits in found:
        affine, starts = fits.affine, fits.starts
        spread = float((starts.max(1) - starts.min(1)).max())
        distinct = [len(np.unique(np.round(s, 3))) for s in starts]
        rows.append(
            [
                Cell(label(regime)),
                Cell(KINDS[kind]),
                _worst(affine.gradient, np.max),
                _worst(affine.curvature, np.min),
                _worst(affine.gap, np.max),
                _worst(fits.true.gradient, np.max),
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
        for i, (name, regime) in enumerate(results.regimes.items()):
            at = np.arange(len(names)) + 0.12 * (2 * i - 1)
            dots(ax, at, regime.task.true.coefficients, name, ANY)
            grid = over_seeds(regime.grid.alpha).mean
            ax.axhline(float(grid), color=colour(name), lw=1, ls="--")
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

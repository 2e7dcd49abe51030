"""The page of ``experiments.analogies``: sub-populations, learning curves, kings and queens."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.analogies.results import Results
from experiments.on_target import OF_TWO
from linearize.report.node import Floats
from linearize.report.page import Page, Section, shows
from linearize.report.plot import Plot, categories, dots, errorbars, figure, handle, legend
from linearize.report.stats import SHARE, seeds_phrase
from linearize.report.style import colour, label, marker
from linearize.report.table import NONE, Cell, Table, freeze, number, percent

NAMES = {
    "pretrained": "Pre-trained",
    "same classes": "Same classes, other style",
    "same style": "Other classes, same style",
    "sum": "Sum of these two",
    "queen": "Same class, other style",
    "man": "Other class, same style",
    "analogy": "Analogy",
    OF_TWO: "Analogy, two coefficients",
    "target": "Target itself",
}
"""Methods as printed, in the order shown."""
TWO = " Two coefficients: α of the same classes' vector, β of the difference of the styles."
AT_ONE = "Accuracy at α = 1"
HEADS = {"text": "the classes' names"}
"""What heads are made of, by their kind; elsewhere of examples."""
STARTS = {"pretrained": "from pre-trained", "edited": "from the analogy"}


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    head = results.config.get("setting", {}).get("head", {})
    made_of = HEADS.get(head.get("kind"), "the other style's examples")
    lead = (
        f"Task analogies on images, {results.model_name}: {len(results.classes)} classes in "
        f"the styles {', '.join(results.tasks)}. A target sub-population is half of the classes in "
        "one style; its task vector is guessed from the three that share a style or classes with "
        f"it. Heads are made of {made_of}; where the styles draw the same things, the counterparts "
        "of test images are test images too."
    )
    drawn = any(target.curve for target in results.subpopulations.values())
    kings = (forgetting(results), kings_table(results)) if results.kings else ()
    targets = (
        (gains(results), subpopulations(results), by_target(results))
        if results.subpopulations
        else ()
    )
    return Page(
        title=f"Task analogies: {results.preset}",
        lead=lead,
        facts=results.facts(results.tasks),
        sections=(
            results.verdicts("Claims of the paper"),
            Section("subpopulations", "Sub-populations", targets),
            Section("curve", "With labelled examples", (curve(results),) if drawn else ()),
            Section("kings", "A class never trained on", kings),
            results.configuration,
        ),
        headlines=("subpopulations", "kings", "claims"),
    )


def gains(results: Results) -> Plot:
    """Accuracy on the target by method."""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.6)
        ax = fig.subplots()
        _by_method(ax, results, results.methods, partial(results.on_targets, what="accuracy"))
        ax.set_ylabel("Accuracy on the target (%)")
        legend(fig, [handle(r) for r in results.regimes], narrow)
        return fig

    return Plot(
        "gains",
        "Accuracy on the target sub-population",
        "α chosen on the target's validation examples; mean of "
        f"{len(results.subpopulations)} targets. {seeds_phrase(results.seeds)}",
        "Dot chart of accuracy on the target by method, from pre-trained to a vector of its own.",
        draw,
    )


def _by_method(
    ax: Axes, results: Results, methods: Sequence[str], of: Callable[[str, str], Floats]
) -> None:
    """Dots of what each method has in each regime, (S,)."""
    for i, regime in enumerate(results.regimes):
        at = np.arange(len(methods)) + 0.14 * (i - (len(results.regimes) - 1) / 2)
        dots(ax, at, 100 * np.stack([of(regime, m) for m in methods], -1), regime, SHARE)
    categories(ax, [NAMES[m] for m in methods], 25)
    ax.grid(axis="y")


def subpopulations(results: Results) -> Table:
    """By regime and method: mean of targets; β where a method has two coefficients."""
    rows, two = [], OF_TWO in results.methods
    for regime, method in itertools.product(results.regimes, results.methods):
        of = partial(results.on_targets, regime, method)
        beta = number(of("beta"), 2) if method == OF_TWO else Cell(NONE)
        rows.append(
            [
                Cell(label(regime)),
                Cell(NAMES[method]),
                percent(of("accuracy")),
                percent(of("accuracy", over="pretrained")),
                number(of("alpha"), 2),
                *([beta] if two else []),
                percent(of("at_one")),
            ]
        )
    return Table(
        "subpopulations",
        "Sub-populations",
        f"Accuracy on the target in %, mean of {len(results.subpopulations)} targets, at the α "
        "that its validation examples choose, and at α = 1, for which no labelled example of the "
        f"target is used.{TWO if two else ''} {seeds_phrase(results.seeds)}",
        ("Regime", "Vector", "Accuracy ↑", "Gain", "α", *(["β"] if two else []), AT_ONE),
        freeze(rows),
    )


def by_target(results: Results) -> Table:
    """Every target by every method."""
    rows = [
        [
            Cell(label(regime)),
            Cell(name),
            *(percent(target.regimes[regime][m].accuracy) for m in results.methods),
        ]
        for regime in results.regimes
        for name, target in results.subpopulations.items()
    ]
    return Table(
        "by_target",
        "Every target",
        "Accuracy on the target in %. Targets: style and half of the classes, and the style that "
        f"the other vectors and the head come from. {seeds_phrase(results.seeds)}",
        ("Regime", "Target", *(NAMES[m] for m in results.methods)),
        freeze(rows),
    )


def curve(results: Results) -> Plot:
    """Accuracy against the number of the target's labelled examples."""
    measured = {start: results.curve(start) for start in STARTS}

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.2)
        ax = fig.subplots()
        at = np.arange(len(results.examples))
        handles = []
        for (start, text), method in zip(STARTS.items(), ("pretrained", "nonlinear"), strict=True):
            errorbars(ax, at, 100 * measured[start], method, SHARE, lw=1.4)
            handles.append(
                Line2D([], [], color=colour(method), marker=marker(method), ms=5, label=text)
            )
        ax.set_xticks(at, [str(e) for e in results.examples])
        ax.set(xlabel="Labelled examples of the target", ylabel="Accuracy (%)")
        ax.grid()
        legend(fig, handles, narrow)
        return fig

    return Plot(
        "curve",
        "With labelled examples of the target",
        "Non-linear fine-tuning on the target's examples, from θ0 and from the model edited by the "
        f"analogy; mean of {len(results.subpopulations)} targets. {seeds_phrase(results.seeds)}",
        "Line chart of accuracy against the number of labelled examples of the target, from two "
        "starts.",
        draw,
    )


def forgetting(results: Results) -> Plot:
    """Accuracy on the class and on all others, by method."""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 6.0 if narrow else 3.4)
        axes = fig.subplots(2, 1, sharex=True) if narrow else fig.subplots(1, 2)
        for ax, what in zip(axes, ("target", "control"), strict=True):
            _by_method(ax, results, results.king_methods, partial(results.on_classes, what=what))
            ax.set_title("The class" if what == "target" else "All other classes")
            ax.set_ylabel("Accuracy (%)")
        legend(fig, [handle(r) for r in results.regimes], narrow)
        return fig

    return Plot(
        "kings",
        "A class never trained on, from three related classes",
        f"Mean of the quadruples {'; '.join(results.kings)}. α is chosen on validation "
        f"examples, such that the other classes keep their accuracy. {seeds_phrase(results.seeds)}",
        "Two panels of accuracy by method: on the class, and on all other classes.",
        draw,
    )


def kings_table(results: Results) -> Table:
    """By regime and method: the class and the control, mean of quadruples."""
    rows = []
    for regime, method in itertools.product(results.regimes, results.king_methods):
        of = partial(results.on_classes, regime, method)
        accuracies = (percent(of("target")), percent(of("control")))
        row = [Cell(label(regime)), Cell(NAMES[method]), *accuracies, number(of("alpha"), 2)]
        rows.append(row)
    return Table(
        "kings",
        "A class never trained on",
        "Accuracy in % on the class and on all but the four classes of the analogy, among all "
        f"classes of both styles; mean of the quadruples {'; '.join(results.kings)}. The "
        "largest accuracy on the class whose control keeps its share, on validation examples, "
        f"chooses α. {seeds_phrase(results.seeds)}",
        ("Regime", "Vector", "Class ↑", "Control ↑", "α"),
        freeze(rows),
    )

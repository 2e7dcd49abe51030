"""The page of ``experiments.analogies``: sub-populations, learning curves, kings and queens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from linearize.report.claims import claims_section
from linearize.report.node import Floats, Node
from linearize.report.page import Page, Section, configuration_of, facts_of
from linearize.report.plot import Plot, categories, dots, errorbars, figure, handle, legend
from linearize.report.stats import seeds_phrase
from linearize.report.style import colour, label, marker
from linearize.report.table import Cell, Table, freeze, number, percent

NAMES = {
    "pretrained": "Pre-trained",
    "same classes": "Same classes, other style",
    "same style": "Other classes, same style",
    "sum": "Sum of these two",
    "queen": "Same class, other style",
    "man": "Other class, same style",
    "analogy": "Analogy",
    "target": "Target itself",
}
"""Methods as printed, in the order shown."""
STARTS = {"pretrained": "from pre-trained", "edited": "from the analogy"}


@dataclass(frozen=True)
class Method:
    """One method on every target or quadruple; G of them, S seeds."""

    alpha: Floats
    """(G, S)."""
    measured: Mapping[str, Floats]
    """By measure, (G, S)."""


@dataclass(frozen=True)
class Results:
    """What the page shows, checked."""

    seeds: tuple[int, ...]
    regimes: tuple[str, ...]
    targets: tuple[str, ...]
    subpopulations: Mapping[tuple[str, str], Method]
    """By regime and method; ``accuracy`` at the chosen α and ``at one``."""
    examples: Floats
    curves: Mapping[str, Floats]
    """By start, (G, S, E)."""
    quadruples: tuple[str, ...]
    kings: Mapping[tuple[str, str], Method]
    """By regime and method; accuracy on ``target`` and ``control``."""

    @classmethod
    def parse(cls, node: Node) -> "Results":
        """Read and check.

        Raises:
            ResultsError: with the key that is missing or misshapen.
        """
        seeds, regimes = node.integers("seeds"), node.names("regimes")
        S = len(seeds)
        groups = {
            key: [Node(v, f"{key}/{name}") for name, v in node.mapping(key).items()]
            for key in ("subpopulations", "kings")
        }
        targets = [g.child("regimes") for g in groups["subpopulations"]]
        examples = node.numbers("examples", (None,))
        drawn = [g for g in groups["subpopulations"] if g.has("curve")]
        curves = {
            start: np.stack([g.numbers(f"curve/{start}", (S, len(examples))) for g in drawn])
            for start in STARTS
            if drawn
        }
        return cls(
            seeds,
            regimes,
            tuple(node.mapping("subpopulations")),
            _methods(targets, regimes, node.names("methods"), ("accuracy", "at one"), S),
            examples,
            curves,
            tuple(node.mapping("kings")),
            _methods(groups["kings"], regimes, node.names("king_methods"), ("target", "control"), S)
            if groups["kings"]
            else {},
        )


def _methods(
    groups: list[Node],
    regimes: tuple[str, ...],
    methods: tuple[str, ...],
    measures: tuple[str, ...],
    S: int,
) -> dict[tuple[str, str], Method]:
    found = {}
    for regime in regimes:
        for name in methods:
            rows = [group.child(f"{regime}/{name}") for group in groups]
            found[regime, name] = Method(
                np.stack([row.numbers("alpha", (S,)) for row in rows]),
                {m: np.stack([row.numbers(m, (S,), 1.0) for row in rows]) for m in measures},
            )
    return found


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory.

    Raises:
        ResultsError: a result file does not fit the schema.
    """
    results = Results.parse(node)
    styles, classes = node.names("tasks"), node.names("classes")
    lead = (
        f"Task analogies on images, {node.get('model/name')}: {len(classes)} classes in the styles "
        f"{', '.join(styles)}. A target sub-population is half of the classes in one style; its "
        "task vector is guessed from the three that share a style or classes with it. Heads are "
        "made of the other style's examples; test images show drawings whose counterparts in the "
        "other style are test images too."
    )
    kings = (forgetting(results), kings_table(results)) if results.quadruples else ()
    return Page(
        title=f"Task analogies: {node.get('preset')}",
        lead=lead,
        facts=facts_of(node, styles, results.seeds),
        sections=(
            claims_section(node, "Claims of the paper"),
            Section(
                "subpopulations",
                "Sub-populations",
                (gains(results), subpopulations(results), by_target(results)),
            ),
            Section("curve", "With labelled examples", (curve(results),) if results.curves else ()),
            Section("kings", "A class never trained on", kings),
            configuration_of(node),
        ),
        headlines=("subpopulations", "kings", "claims"),
    )


def gains(results: Results) -> Plot:
    """Accuracy on the target by method."""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.6)
        ax = fig.subplots()
        _by_method(ax, results.regimes, results.subpopulations, "accuracy")
        ax.set_ylabel("Accuracy on the target (%)")
        legend(fig, [handle(r) for r in results.regimes], narrow)
        return fig

    return Plot(
        "gains",
        "Accuracy on the target sub-population",
        f"α chosen on the target's validation examples; mean of {len(results.targets)} targets. "
        f"{seeds_phrase(results.seeds)}",
        "Dot chart of accuracy on the target by method, from pre-trained to a vector of its own.",
        draw,
    )


def _by_method(
    ax: Axes, regimes: Sequence[str], found: Mapping[tuple[str, str], Method], measure: str
) -> None:
    """Dots of one measure, mean of its targets or quadruples, by method and regime."""
    methods = [m for m in NAMES if (regimes[0], m) in found]
    for i, regime in enumerate(regimes):
        means = np.stack([found[regime, m].measured[measure].mean(0) for m in methods], -1)
        at = np.arange(len(methods)) + 0.14 * (i - (len(regimes) - 1) / 2)
        dots(ax, at, 100 * means, regime)
    categories(ax, [NAMES[m] for m in methods], 25)
    ax.grid(axis="y")


def subpopulations(results: Results) -> Table:
    """By regime and method: mean of targets."""
    rows = [
        [
            Cell(label(regime)),
            Cell(NAMES[name]),
            percent(found.measured["accuracy"].mean(0)),
            percent(
                (
                    found.measured["accuracy"]
                    - results.subpopulations[regime, "pretrained"].measured["accuracy"]
                ).mean(0)
            ),
            number(found.alpha.mean(0), 2),
            percent(found.measured["at one"].mean(0)),
        ]
        for (regime, name), found in results.subpopulations.items()
    ]
    return Table(
        "subpopulations",
        "Sub-populations",
        f"Accuracy on the target in %, mean of {len(results.targets)} targets, at the α that its "
        "validation examples choose, and at α = 1, for which no labelled example of the target is "
        f"used. {seeds_phrase(results.seeds)}",
        ("Regime", "Vector", "Accuracy ↑", "Gain", "α", "Accuracy at α = 1"),
        freeze(rows),
    )


def by_target(results: Results) -> Table:
    """Every target: pre-trained, alone, analogy, its own."""
    shown = ("pretrained", "same classes", "same style", "sum", "analogy", "target")
    rows = [
        [
            Cell(label(regime)),
            Cell(target),
            *(percent(results.subpopulations[regime, m].measured["accuracy"][g]) for m in shown),
        ]
        for regime in results.regimes
        for g, target in enumerate(results.targets)
    ]
    return Table(
        "by_target",
        "Every target",
        "Accuracy on the target in %. Targets: style and half of the classes, and the style that "
        f"the other vectors and the head come from. {seeds_phrase(results.seeds)}",
        ("Regime", "Target", *(NAMES[m] for m in shown)),
        freeze(rows),
    )


def curve(results: Results) -> Plot:
    """Accuracy against the number of the target's labelled examples."""

    def draw(narrow: bool) -> Figure:
        fig = figure(narrow, 3.2)
        ax = fig.subplots()
        at = np.arange(len(results.examples))
        handles = []
        for (start, text), method in zip(STARTS.items(), ("pretrained", "nonlinear"), strict=True):
            errorbars(ax, at, 100 * results.curves[start].mean(0), method, lw=1.4)
            handles.append(
                Line2D([], [], color=colour(method), marker=marker(method), ms=5, label=text)
            )
        ax.set_xticks(at, [f"{e:.0f}" for e in results.examples])
        ax.set(xlabel="Labelled examples of the target", ylabel="Accuracy (%)")
        ax.grid()
        legend(fig, handles, narrow)
        return fig

    return Plot(
        "curve",
        "With labelled examples of the target",
        "Non-linear fine-tuning on the target's examples, from θ0 and from the model edited by the "
        f"analogy; mean of {len(results.targets)} targets. {seeds_phrase(results.seeds)}",
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
            _by_method(ax, results.regimes, results.kings, what)
            ax.set_title("The class" if what == "target" else "All other classes")
            ax.set_ylabel("Accuracy (%)")
        legend(fig, [handle(r) for r in results.regimes], narrow)
        return fig

    return Plot(
        "kings",
        "A class never trained on, from three related classes",
        f"Mean of {len(results.quadruples)} quadruples; α chosen on validation examples, such "
        f"that the other classes keep their accuracy. {seeds_phrase(results.seeds)}",
        "Two panels of accuracy by method: on the class, and on all other classes.",
        draw,
    )


def kings_table(results: Results) -> Table:
    """By regime and method: the class and the control, mean of quadruples."""
    rows = [
        [
            Cell(label(regime)),
            Cell(NAMES[name]),
            percent(found.measured["target"].mean(0)),
            percent(found.measured["control"].mean(0)),
            number(found.alpha.mean(0), 2),
        ]
        for (regime, name), found in results.kings.items()
    ]
    return Table(
        "kings",
        "A class never trained on",
        "Accuracy in % on the class and on all but the four classes of the analogy, among all "
        f"classes of both styles; mean of the quadruples {'; '.join(results.quadruples)}. The "
        "largest accuracy on the class whose control keeps its share, on validation examples, "
        f"chooses α. {seeds_phrase(results.seeds)}",
        ("Regime", "Vector", "Class ↑", "Control ↑", "α"),
        freeze(rows),
    )

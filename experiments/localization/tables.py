"""Tables: energies by initialization and by pair, rank correlations."""

import itertools

import numpy as np

from experiments.localization.results import Correlation, Results
from linearize.report.stats import seeds_phrase
from linearize.report.style import label
from linearize.report.table import NONE, Cell, Table, cell, fixed, freeze, number

NAMES = {"pretrained": "Pre-trained", "random": "Random initialization"}
PLACES = {"box": "mean in search box", "one": "α = (1, 1)"}


def energies(results: Results) -> Table:
    """Mean energy on the control at each initialization, on the pairs that both have."""
    common = results.random or results.pretrained
    rows = []
    for k, share in enumerate(results.shares):
        for names in dict.fromkeys((results.pretrained, common)):
            off = ~np.eye(len(names), dtype=bool)
            cells = [
                number(results.matrix(part, initialization, names)[:, k, off].mean(-1), 3)
                if set(names) <= set(results.tasks.get(initialization, ()))
                else Cell(NONE)
                for initialization in NAMES
                for part in ("control", "captured")
            ]
            rows.append([Cell(_share(share)), Cell(f"{off.sum()}"), *cells])
    head = [
        part
        for name in NAMES.values()
        for part in (f"{name}: energy on control ↓", f"{name}: captured")
    ]
    return Table(
        "energies",
        "Local energy on the control task",
        "Of the leading eigenfunctions that carry the target, weighed by its squared coefficients; "
        "mean of ordered pairs of tasks. 0 is localized on the task, 1 is everywhere; the energy "
        "on the task is 2 minus this. Captured: the share of the target's square that these "
        f"eigenfunctions represent. {seeds_phrase(results.seeds)}",
        ("Eigenfunctions", "Ordered pairs", *head),
        freeze(rows),
    )


def _share(share: float) -> str:
    return f"{share:.0%}".replace("%", " %")


def relations(results: Results) -> Table:
    """Rank correlation of energy and ξ: by regime, coefficients, direction and share."""
    return Table(
        "relation",
        "Rank correlation of localization and ξ",
        "Spearman's ρ of the weighed energy on the control, pre-trained, with the disentanglement "
        "error. Both directions: the energy's mean and ξ's sum over both tasks, over unordered "
        "pairs; one direction: the energy on the control, and the control's predictions that the "
        "target's vector changes, over ordered pairs. Of means over seeds; in brackets the 95 % "
        "jackknife interval over tasks (pairs share tasks, and are not independent). By seed: "
        "each seed alone.",
        ("Regime", "Coefficients", "Pairs", "Eigenfunctions", "ρ", "95 % interval", "By seed"),
        freeze(
            [
                Cell(label(r.regime)),
                Cell(PLACES[r.coefficients]),
                Cell(words),
                Cell(_share(r.share)),
                cell(found.mean, np.nan, 2),
                Cell(interval(found)),
                Cell(", ".join(fixed(s, 2) if np.isfinite(s) else NONE for s in found.seeds)),
            ]
            for r in results.relation
            for words, found in (("both directions", r.pairs), ("one direction", r.ordered))
        ),
    )


def interval(correlation: Correlation) -> str:
    """Its interval as text."""
    if not np.isfinite(correlation.low):
        return NONE
    return f"[{fixed(correlation.low, 2)}, {fixed(correlation.high, 2)}]"


def pairs(results: Results) -> Table:
    """Every pair: energy on the control in both directions, and ξ."""
    rows = []
    for (i, a), (j, b) in itertools.combinations(enumerate(results.pretrained), 2):
        energies = [
            number(results.of("control", initialization, pair)[:, 0], 3)
            if {a, b} <= set(names)
            else Cell(NONE)
            for initialization, names in results.tasks.items()
            for pair in ((a, b), (b, a))
        ]
        errors = [number(xi.box[:, i, j] + xi.box[:, j, i], 3) for xi in results.xi.values()]
        rows.append([Cell(f"{a}, {b}"), *energies, *errors])
    directions = ("first on second", "second on first")
    head = [f"{what} {d}" for what in ("Energy,", "Random:") for d in directions]
    head = head if results.random else head[:2]
    return Table(
        "pairs",
        "Every pair of tasks",
        "Energy of the first task's eigenfunctions on the second's inputs, and the reverse, at "
        "pre-trained and at random weights; ξ: mean over the search box, sum over both tasks. "
        f"{seeds_phrase(results.seeds)}",
        ("Pair", *head, *(f"ξ, {label(regime).lower()}" for regime in results.xi)),
        freeze(rows),
    )

"""Tables: energies by initialization and by pair, rank correlations."""

import itertools
from collections.abc import Iterator

import numpy as np

from experiments.localization.results import Relation, Results
from linearize.report.node import Floats
from linearize.report.stats import seeds_phrase
from linearize.report.style import label
from linearize.report.table import NONE, Cell, Table, fixed, freeze, number

NAMES = {"pretrained": "Pre-trained", "random": "Random initialization"}
PLACES = {"box": "mean in search box", "one": "α = (1, 1)"}
KINDS = {"pairs": "both directions", "ordered": "one direction"}


def energies(results: Results) -> Table:
    """Mean energy on the control at each initialization, on the pairs that both have."""
    common = results.tasks["random"] or results.tasks["pretrained"]
    rows = []
    for k, share in enumerate(results.shares):
        for name, of in (("all pairs", results.tasks["pretrained"]), ("common pairs", common)):
            if name == "common pairs" and of == results.tasks["pretrained"]:
                continue
            cells = []
            for initialization in NAMES:
                values = _among(results, initialization, of)
                cells += [Cell(NONE) if v is None else number(v[:, k], 3) for v in values]
            T = len(of)
            rows.append([Cell(f"{share:.0%}".replace("%", " %")), Cell(f"{T * (T - 1)}"), *cells])
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


def _among(
    results: Results, initialization: str, names: tuple[str, ...]
) -> Iterator[Floats | None]:
    """Means over the ordered pairs of these tasks, (S, K): energy on the control, captured."""
    known = results.tasks[initialization]
    if not set(names) <= set(known):
        yield from (None, None)
        return
    index = [known.index(name) for name in names]
    off = ~np.eye(len(names), dtype=bool)
    for values in (results.energy, results.captured):
        yield values[initialization][:, :, index][..., index][..., off].mean(-1)


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
                Cell(KINDS[r.kind]),
                Cell(f"{r.share:.0%}".replace("%", " %")),
                Cell(fixed(r.mean, 2), r.mean) if np.isfinite(r.mean) else Cell(NONE),
                Cell(interval(r)),
                Cell(", ".join(fixed(s, 2) if np.isfinite(s) else NONE for s in r.seeds)),
            ]
            for r in results.relations
        ),
    )


def interval(relation: Relation) -> str:
    """Its interval as text."""
    if not np.isfinite(relation.low):
        return NONE
    return f"[{fixed(relation.low, 2)}, {fixed(relation.high, 2)}]"


def pairs(results: Results) -> Table:
    """Every pair: energy on the control in both directions, and ξ."""
    names, energy = results.tasks["pretrained"], results.energy["pretrained"][:, 0]
    rows = []
    for i, j in itertools.combinations(range(len(names)), 2):
        row = [Cell(f"{names[i]}, {names[j]}")]
        row += [number(energy[:, a, b], 3) for a, b in ((i, j), (j, i))]
        random = results.tasks["random"]
        for a, b in ((i, j), (j, i)) if random else ():
            if {names[a], names[b]} <= set(random):
                both = random.index(names[a]), random.index(names[b])
                row.append(number(results.energy["random"][:, 0, *both], 3))
            else:
                row.append(Cell(NONE))
        for xi in results.xi.values():
            row.append(number((xi["box"] + xi["box"].swapaxes(1, 2))[:, i, j], 3))
        rows.append(row)
    directions = ("first on second", "second on first")
    head = [f"Energy, {d}" for d in directions]
    if results.tasks["random"]:
        head += [f"Random: {d}" for d in directions]
    return Table(
        "pairs",
        "Every pair of tasks",
        "Energy of the first task's eigenfunctions on the second's inputs, and the reverse, at "
        "pre-trained and at random weights; ξ: mean over the search box, sum over both tasks. "
        f"{seeds_phrase(results.seeds)}",
        ("Pair", *head, *(f"ξ, {label(regime).lower()}" for regime in results.xi)),
        freeze(rows),
    )

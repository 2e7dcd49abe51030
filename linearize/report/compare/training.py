"""Table of what training took and reached: AdamW's task vectors held against the optimum."""

from linearize.report.compare.measures import axis, shown
from linearize.report.compare.results import Results
from linearize.report.node import Floats
from linearize.report.stats import seeds_phrase
from linearize.report.table import NONE, Cell, Table, freeze, number

COLUMNS = (
    ("seconds", "Seconds a task", 1),
    ("loss", "Training loss", 4),
    ("objective", "Objective", 4),
    ("gradient_norm", "Gradient norm", 5),
    ("norm", "‖τ‖", 3),
    ("cosine", "Cosine with exact", 3),
)
"""What is recorded, as it is headed, and with how many decimals."""

PAIR, LESS = ("linear", "exact"), "Linear less exact"
"""The rows of one objective, and what their difference is called."""


def training(results: Results) -> Table:
    """Time, loss, objective and accuracy of each trained regime, and AdamW's less the optimum's."""
    found = results.training
    methods = results.look.ordered(found)
    rows = [
        [
            Cell(results.look.label(m)),
            *(_mean(found[m].get(key), digits) for key, _, digits in COLUMNS),
            _accuracy(results, m),
        ]
        for m in methods
    ]
    if set(PAIR) <= set(methods):
        rows.append([Cell(LESS), *_difference(results)])
    l2 = (results.config.get("exact") or {}).get("l2")
    return Table(
        "training",
        "AdamW against the optimum",
        "Means over the tasks. Loss: mean cross-entropy of the whole training split at α = 1, in "
        "the regime that trained the vector. Objective, where the regime is linear: loss + (l2 / "
        f"2) ‖τ‖² with l2 = {l2}, which the exact solver minimises; gradient norm: that "
        "objective's. Seconds: of training, compilation included. "
        f"{LESS}: of the same seed and task. {seeds_phrase(results.seeds)}",
        ("Method", *(title for _, title, _ in COLUMNS), _title(results)),
        freeze(rows),
    )


def _mean(values: Floats | None, digits: int) -> Cell:
    return Cell(NONE) if values is None else number(values.mean(-1), digits)


def _title(results: Results) -> str:
    metric = results.measures.shared
    return "Test performance" if metric is None else f"Test {axis(metric)}"


def _accuracy(results: Results, method: str) -> Cell:
    return results.measures.mean(results.single.get(method))


def _difference(results: Results) -> list[Cell]:
    left, right = (results.training[m] for m in PAIR)
    cells = [
        _mean(left[key] - right[key] if key in left and key in right else None, digits)
        for key, _, digits in COLUMNS
    ]
    single = [results.single[m] for m in PAIR if m in results.single]
    metric = results.measures.shared
    if metric is None or len(single) < len(PAIR):
        return [*cells, Cell(NONE)]
    return [*cells, shown(metric, (single[0] - single[1]).mean(-1))]

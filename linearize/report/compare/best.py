"""The best of a column in bold, where it is better than chance would have it."""

from dataclasses import replace

import numpy as np

from linearize.report.compare.results import Results
from linearize.report.stats import over_seeds
from linearize.report.table import Cell

TWO_SIDED = 1.959963984540054
"""Standard errors on either side of a 95 % normal interval."""


def highlighted(
    results: Results, cells: list[Cell], methods: list[str], low: bool = False
) -> list[Cell]:
    """The cells, the best of the regimes and merges marked, and what does not differ from it.

    None is marked where there is one alone, or none differs.
    """
    found = [
        cell
        for cell, m in zip(cells, methods, strict=True)
        if cell.value is not None and results.contends(m)
    ]
    if not found:
        return cells
    best = (min if low else max)(found, key=lambda cell: float(cell.value or 0))
    tied = [cell for cell in found if not differ(cell, best)]
    if len(tied) == len(found):
        return cells
    return [replace(cell, best=True) if any(cell is t for t in tied) else cell for cell in cells]


def differ(a: Cell, b: Cell) -> bool:
    """Whether two numbers differ: by the 95 % interval of their difference, where there is one.

    Over seeds that is Student's, of the pairs; in one seed the binomial of its test examples. What
    has neither differs as it is printed.

    >>> differ(Cell("0.5", 0.5, each=(0.4, 0.6)), Cell("0.6", 0.6, each=(0.5, 0.7)))
    True
    >>> differ(Cell("0.5", 0.5, each=(0.4, 0.6)), Cell("0.6", 0.6, each=(0.6, 0.6)))
    False
    >>> differ(Cell("0.5", 0.5, error=0.05), Cell("0.6", 0.6, error=0.05))
    False
    """
    if len(a.each) > 1 and len(a.each) == len(b.each):
        mean, half = over_seeds(np.subtract(a.each, b.each).round(12))
        return bool(abs(mean) > half)
    if a.error is not None and b.error is not None and a.value is not None and b.value is not None:
        return abs(a.value - b.value) > TWO_SIDED * float(np.hypot(a.error, b.error))
    return a.text != b.text


def highlight(
    results: Results, rows: list[list[Cell]], methods: list[str], column: int, low: bool = False
) -> None:
    """The same in a column of rows."""
    marked = highlighted(results, [row[column] for row in rows], methods, low)
    for row, cell in zip(rows, marked, strict=True):
        row[column] = cell

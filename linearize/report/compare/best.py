"""The best of a column in bold."""

from dataclasses import replace

from linearize.report.compare.results import Results
from linearize.report.table import Cell


def highlighted(
    results: Results, cells: list[Cell], methods: list[str], low: bool = False
) -> list[Cell]:
    """The cells, the best of the regimes and merges marked, where two or more are there."""
    values = [
        cell.value if results.contends(m) else None for cell, m in zip(cells, methods, strict=True)
    ]
    found = [value for value in values if value is not None]
    if len(found) < 2:
        return cells
    best = (min if low else max)(found)
    return [
        replace(cell, best=True) if value == best else cell
        for cell, value in zip(cells, values, strict=True)
    ]


def highlight(
    results: Results, rows: list[list[Cell]], methods: list[str], column: int, low: bool = False
) -> None:
    """The same in a column of rows."""
    marked = highlighted(results, [row[column] for row in rows], methods, low)
    for row, cell in zip(rows, marked, strict=True):
        row[column] = cell

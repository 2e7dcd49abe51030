"""A table: one list of rows, written as Markdown, CSV, HTML and to the terminal."""

import base64
import csv
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from rich.console import Console
from rich.text import Text

from linearize.report import terminal
from linearize.report.node import Floats
from linearize.report.stats import over_seeds

NONE = "–"
MEAN = "Mean"


@dataclass(frozen=True)
class Cell:
    """What is printed, and the number behind it where there is one."""

    text: str
    value: float | None = None
    half: float | None = None
    best: bool = False
    each: tuple[float, ...] = ()
    """By seed, in the units of the value."""
    error: float | None = None
    """The value's standard error over test examples, where that is known of one seed."""


@dataclass(frozen=True)
class Table:
    """A table; ``name`` is its file's name, column 0 names the row."""

    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        """GitHub Markdown, title and caption included; the best regime is bold."""
        numeric = self._numeric()
        head = "| " + " | ".join(_escape(c) for c in self.columns) + " |"
        rule = "|" + "|".join("---:" if n else "---" for n in numeric) + "|"
        body = [
            "| "
            + " | ".join(f"**{_escape(c.text)}**" if c.best else _escape(c.text) for c in row)
            + " |"
            for row in self.rows
        ]
        return "\n".join([f"### {self.title}", "", head, rule, *body, "", self.caption, ""])

    def csv(self) -> str:
        """Comma-separated values: numbers in full precision, intervals in columns of their own."""
        numeric = self._numeric()
        interval = [
            any(row[j].half is not None for row in self.rows) for j in range(len(self.columns))
        ]
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        head: list[str] = []
        for name, wide in zip(self.columns, interval, strict=True):
            head += [name, f"{name} ± (95 %)"] if wide else [name]
        writer.writerow(head)
        for row in self.rows:
            line: list[str] = []
            for cell, wide, number in zip(row, interval, numeric, strict=True):
                line.append(_full(cell.value) if number else cell.text)
                if wide:
                    line.append(_full(cell.half))
            writer.writerow(line)
        return out.getvalue()

    def html(self) -> str:
        """A ``<table>`` with row and column headers, inside a region that may scroll."""
        numeric = self._numeric()
        head = "".join(
            f'<th scope="col"{_class(n)}>{html.escape(c)}</th>'
            for c, n in zip(self.columns, numeric, strict=True)
        )
        body = []
        for row in self.rows:
            cells = [f'<th scope="row">{html.escape(row[0].text)}</th>']
            for cell, number in zip(row[1:], numeric[1:], strict=True):
                text = _htmlnumber(cell.text) if number else html.escape(cell.text)
                text = f"<strong>{text}</strong>" if cell.best else text
                cells.append(f"<td{_class(number)}>{text}</td>")
            kind = ' class="mean"' if row[0].text == MEAN else ""
            body.append(f"<tr{kind}>{''.join(cells)}</tr>")
        title = html.escape(self.title)
        content = base64.b64encode(self.csv().encode()).decode()
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{title}">'
            f'<table id="table-{self.name}"><caption>{title}</caption>'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
            f'<p class="caption">{html.escape(self.caption)} <a class="get" '
            f'download="{self.name}.csv" aria-label="{title} as CSV" '
            f'href="data:text/csv;charset=utf-8;base64,{content}">CSV</a></p>'
        )

    def print(self, console: Console) -> None:
        """The table in a terminal, in parts where it is wider than that."""
        rows = [[Text(c.text, style="bold" if c.best else "") for c in row] for row in self.rows]
        terminal.show(
            console, self.title, terminal.Grid(self.columns, rows, self._numeric()), self.caption
        )

    def _numeric(self) -> list[bool]:
        return [
            any(row[j].value is not None for row in self.rows)
            or (bool(self.rows) and all(row[j].text == NONE for row in self.rows))
            for j in range(len(self.columns))
        ]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def _full(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else repr(float(value))


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _htmlnumber(text: str) -> str:
    mean, plus, half = text.partition(" ± ")
    tail = f' <span class="half">± {html.escape(half)}</span>' if plus else ""
    return html.escape(mean) + tail


def percent(values: Floats) -> Cell:
    """A cell of fractions over seeds, shape (S,): percent with one decimal, ± the half width."""
    mean, half = (100 * float(x) for x in over_seeds(values))
    return _by_seed(cell(mean, half, 1), 100 * values)


def fixed(value: float, digits: int) -> str:
    """A number with a fixed count of decimals, a true minus, and no negative zero.

    >>> fixed(-0.25, 1), fixed(-0.001, 2)
    ('−0.2', '0.00')
    """
    return f"{value:z.{digits}f}".replace("-", "−")


def cell(mean: float, half: float, digits: int) -> Cell:
    """A mean and half the width of its interval, NaN where there is none."""
    if not np.isfinite(mean):
        return Cell(NONE)
    text = fixed(mean, digits)
    if not np.isfinite(half):
        return Cell(text, mean)
    return Cell(f"{text} ± {half:.{digits}f}", mean, half)


def number(values: Floats, digits: int) -> Cell:
    """A cell of numbers over seeds, shape (S,): mean ± the half width."""
    mean, half = (float(x) for x in over_seeds(values))
    return _by_seed(cell(mean, half, digits), values)


def _by_seed(found: Cell, values: Floats) -> Cell:
    return replace(found, each=tuple(map(float, values)))


def significant(values: Floats) -> Cell:
    """A cell of numbers over seeds, shape (S,), whose size is not known: four digits that count.

    >>> [significant(np.array([x])).text for x in (12.3456, 0.25, 123456.7, 1.23456e-5, np.inf)]
    ['12.35', '0.2500', '123457', '1.235e−05', '∞']
    """
    mean, half = (float(x) for x in over_seeds(values))
    if np.isinf(mean):
        return Cell("∞" if mean > 0 else "−∞", mean)
    if not np.isfinite(mean) or mean == 0 or 1e-4 <= abs(mean) < 1e6:
        size = int(np.floor(np.log10(abs(mean)))) if np.isfinite(mean) and mean else 0
        return number(values, max(0, 3 - size))
    tail = f" ± {half:.3e}" if np.isfinite(half) else ""
    text = f"{mean:.3e}{tail}".replace("-", "−")
    return _by_seed(Cell(text, mean, half if np.isfinite(half) else None), values)


def freeze(rows: Iterable[Iterable[Cell]]) -> tuple[tuple[Cell, ...], ...]:
    """Rows as :class:`Table` keeps them."""
    return tuple(tuple(row) for row in rows)

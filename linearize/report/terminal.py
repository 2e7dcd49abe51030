"""A table in a terminal of any width: wrapped, or in parts below each other; never cropped."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from linearize import narration

BOX, EDGE, GAP = box.HEAVY_HEAD, 1, 3
"""The lines, how wide the left one is, and the columns that each cell adds to its text."""

FOLDED = (16, 8)
"""Words are kept whole up to so many cells, and longer ones may fold; fewer where it must be."""

UNBOUNDED = 100_000


def console() -> Console:
    """Standard output: as wide as the terminal, and unbounded in a file or a pipe.

    ``COLUMNS`` decides where it is set.
    """
    shown = narration.Console()
    bounded = shown.is_terminal or os.environ.get("COLUMNS")
    return shown if bounded else narration.Console(width=UNBOUNDED)


def total(columns: Iterable[int]) -> int:
    """The width of a grid of which each column's text has a width."""
    return EDGE + sum(each + GAP for each in columns)


def groups(least: Sequence[int], lead: int, width: int) -> list[list[int]]:
    """The columns in as few groups as fit ``width``, about equally wide.

    The first ``lead`` columns name the rows and stand in each group, beside one other at least,
    though that be wider.

    >>> groups([10, 8, 8, 8], 1, 80), groups([10, 8, 8, 8], 1, 40)
    ([[0, 1, 2, 3]], [[0, 1, 2], [0, 3]])
    """
    most = min(width, total(least))
    few = len(_filled(least, lead, most))
    return next(g for w in range(most + 1) if len(g := _filled(least, lead, w)) == few)


def _filled(least: Sequence[int], lead: int, width: int) -> list[list[int]]:
    names = list(range(lead))
    found = [names]
    for j in range(lead, len(least)):
        if found[-1] != names and total(least[k] for k in (*found[-1], j)) > width:
            found.append(names)
        found[-1] = [*found[-1], j]
    return found


def widths(
    columns: Sequence[int], least: Sequence[int], wanted: Sequence[int], width: int
) -> dict[int, int]:
    """Each column's text width: all that it wants, or the widest are cut down to one level.

    >>> widths([0, 1], [4, 4], [6, 40], 30)
    {0: 6, 1: 17}
    """
    room = width - EDGE - GAP * len(columns)

    def at(level: int) -> dict[int, int]:
        return {j: max(least[j], min(wanted[j], level)) for j in columns}

    levels = range(max(wanted[j] for j in columns), 0, -1)
    return next((found for n in levels if sum((found := at(n)).values()) <= room), at(0))


@dataclass(frozen=True)
class Grid:
    """Texts in rows and columns."""

    head: Sequence[str]
    rows: Sequence[Sequence[Text]]
    exact: Sequence[bool]
    """Of each column: whether it holds numbers, which stand to the right and are never wrapped."""

    @classmethod
    def plain(cls, head: Sequence[str], rows: Iterable[Sequence[str]], numbers: int) -> "Grid":
        """Of strings; the last ``numbers`` columns hold numbers."""
        texts = [[Text(cell) for cell in row] for row in rows]
        return cls(head, texts, [len(head) - j <= numbers for j in range(len(head))])

    def parts(self, width: int) -> list[RichTable]:
        """One table, or where the width is too small several, each with the rows' names."""
        columns = list(zip(*self.rows, strict=True)) or [()] * len(self.head)
        whole = [max((cell.cell_len for cell in cells), default=0) for cells in columns]
        wanted = [max(cell_len(name), w) for name, w in zip(self.head, whole, strict=True)]
        for most in FOLDED:
            least = [
                max(min(most, _longest_word(name, *cells)), w if exact else 0)
                for name, cells, w, exact in zip(self.head, columns, whole, self.exact, strict=True)
            ]
            found = groups(least, self._lead(), width)
            if all(total(least[j] for j in group) <= width for group in found):
                break
        return [self._part(widths(group, least, wanted, width)) for group in found]

    def _lead(self) -> int:
        """How many columns tell the rows apart."""
        names = [tuple(cell.plain for cell in row) for row in self.rows]
        told = (n for n in range(1, len(self.head)) if len({r[:n] for r in names}) == len(names))
        return next(told, 1)

    def _part(self, columns: dict[int, int]) -> RichTable:
        table = RichTable(box=BOX, width=total(columns.values()))
        for j, width in columns.items():
            side: Literal["right", "left"] = "right" if self.exact[j] else "left"
            table.add_column(Text(self.head[j]), justify=side, overflow="fold", width=width)
        for row in self.rows:
            table.add_row(*(row[j] for j in columns))
        return table


def _longest_word(name: str, *cells: Text) -> int:
    words = [word for text in (name, *(cell.plain for cell in cells)) for word in text.split()]
    return max(map(cell_len, words), default=0)


def show(console: Console, title: str, grid: Grid, caption: str = "") -> None:
    """Print a table between its title and its caption; each of several parts says which it is."""
    parts = grid.parts(console.width)
    for i, part in enumerate(parts, 1):
        which = f" (part {i} of {len(parts)})" if len(parts) > 1 else ""
        console.print(Text(title + which, style="bold"))
        console.print(part, crop=False)
    if caption:
        console.print(Text(caption, style="italic"))
    console.print()

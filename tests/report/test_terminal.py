"""Every cell of every table is printed, whatever the terminal's width."""

import io
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from linearize import report
from linearize.report import terminal
from linearize.report.table import NONE, Cell, Table, freeze

PAGES = [p.with_suffix(".md") for p in (Path(__file__).parents[2] / "docs/results").glob("*.json")]
WIDTHS = (60, 80, 100, 120, 200)


def printed(table: Table, width: int) -> str:
    out = io.StringIO()
    table.print(Console(file=out, width=width))
    return out.getvalue()


def cells(text: str) -> Counter[str]:
    """The texts between the lines of a printed grid."""
    found = re.findall(r"(?<=[│┃])[^│┃\n]*(?=[│┃])", text)
    return Counter(cell.strip() for cell in found)


def letters(text: str) -> Counter[str]:
    return Counter(re.sub(r"\s", "", text))


def is_whole(table: Table, text: str) -> None:
    """Numbers are printed in one piece; of the other cells no letter is missing."""
    numbers = Counter(cell.text for row in table.rows for cell in row if cell.value is not None)
    assert numbers <= cells(text)
    words = "".join([*table.columns, *(cell.text for row in table.rows for cell in row)])
    assert letters(words) <= letters("".join(cells(text).elements()))


def published(path: Path) -> list[Table]:
    """The tables of a committed page, of every experiment's real numbers."""
    tables = []
    for block in re.findall(r"(?:^\|.*\|\n)+", path.read_text(), re.MULTILINE):
        lines = [re.split(r"(?<!\\) \| ", line[2:-2]) for line in block.splitlines()]
        right = [rule.strip("|").endswith(":") for rule in block.splitlines()[1].split("|")[1:-1]]
        rows = [[_cell(text, number) for text, number in zip(line, right, strict=True)]
                for line in lines[2:]]  # fmt: skip
        tables.append(Table("t", "A title", "", tuple(lines[0]), freeze(rows)))
    return tables


def _cell(text: str, number: bool) -> Cell:
    return Cell(text.strip("*"), 1.0 if number and text != NONE else None)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_an_experiments_tables_are_printed_whole(path, width):
    tables = published(path)
    assert tables
    for table in tables:
        text = printed(table, width)
        is_whole(table, text)
        assert max(map(cell_len, text.splitlines())) <= width, table.columns


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("T", [2, 9])
def test_a_run_of_compare_is_printed_whole(make_results, T, width):
    for table in report.all_tables(report.parse(make_results(T, 3))):
        is_whole(table, printed(table, width))


name = st.text(st.sampled_from("ab-_[]:/ 漢"), min_size=1, max_size=50)
numbers = st.floats(-1e4, 1e4).map(lambda x: Cell(f"{x:.1f} ± {abs(x) / 3:.1f}", x))


@given(st.data(), st.integers(20, 220))
@settings(max_examples=40, deadline=None)
def test_any_table_is_printed_whole(data, width):
    columns = data.draw(st.lists(name, min_size=1, max_size=12))
    row = st.tuples(name.map(Cell), *[numbers] * (len(columns) - 1))
    rows = data.draw(st.lists(row, max_size=4))
    table = Table("t", "A title", "", tuple(columns), tuple(rows))
    is_whole(table, printed(table, width))


def test_a_table_in_parts_says_so_and_repeats_what_names_its_rows():
    rows = [
        tuple(map(Cell, pair)) + tuple(Cell(f"{x:.5f}", x) for x in np.arange(6) + 10 * i)
        for i, pair in enumerate([("mnist", "linear"), ("mnist", "exact")])
    ]
    table = Table("t", "Errors", "", ("Task", "Regime", *"abcdef"), tuple(rows))
    text = printed(table, 60)
    assert "Errors (part 1 of 2)" in text
    assert "Errors (part 2 of 2)" in text
    assert cells(text)["linear"] == cells(text)["exact"] == 2
    assert "part" not in printed(table, 120)


def test_names_are_no_markup():
    table = Table("t", "[b]", "", ("[red]", ":apple:"), ((Cell("[/x]"), Cell(":bug:")),))
    assert {"[red]", ":apple:", "[/x]", ":bug:"} <= set(cells(printed(table, 80)))


@pytest.mark.parametrize(("columns", "width"), [(None, terminal.UNBOUNDED), ("70", 70)])
def test_a_pipe_is_unbounded_unless_columns_are_said(monkeypatch, columns, width):
    monkeypatch.delenv("COLUMNS", raising=False)
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    assert terminal.console().width == width

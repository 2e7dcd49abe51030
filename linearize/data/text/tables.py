"""A user's own texts: CSV files, JSON lines, plain text."""

import csv
import io
import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from linearize import choices, files
from linearize.data.records import DataError
from linearize.data.text.documents import Documents, blank

log = logging.getLogger(__name__)

OnEmpty = Literal["error", "skip"]

PLAIN = frozenset({".txt", ".text", ".md", ".raw", ".tokens"})
"""Suffixes of files of plain text."""

_MOST_FIELD = 2**31 - 1
_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_WITHOUT = {"label": "; name another, or pass label=None if texts are all there is"}
"""What may be done without a column, by its role."""
_INTEGER = re.compile(r"-?\d+")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?")
_Line = tuple[int, Mapping[str, Any]]
"""A line's number and its values by column."""


def read_csv(
    path: str | Path,
    *,
    text: str = "text",
    label: str | None = None,
    pair: str | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    delimiter: str = ",",
    on_empty: OnEmpty = "error",
) -> Documents:
    """Documents of a CSV file, one a row; its first row names the columns.

    Quoted fields may hold delimiters, doubled quotes and line breaks. UTF-8, with or without a
    byte-order mark. Rows without anything in them are passed over.

    Args:
        path: the file.
        text: the column of texts.
        label: the column of class names, if there is one.
        pair: the column of second texts.
        group: the column of what must stay in one split, such as an author.
        classes: class names in the order of their numbers; by default those that occur, sorted,
            by number where all are integers.
        delimiter: between columns.
        on_empty: ``"skip"`` passes over rows whose text is empty, with a warning in the log.

    Raises:
        DataError: no such file, or one that is no UTF-8 (with the byte); a column that is not there
            or is there twice; a row of more or fewer fields than columns, a quote that is not
            closed, an empty text, a label that is missing or none of ``classes`` (each with its
            line); labels that are hardly classes.
    """
    columns = {"text": text, "pair": pair, "label": label, "group": group}
    return _documents(path, _csv_lines(path, columns, delimiter), columns, classes, on_empty)


def read_json_lines(
    path: str | Path,
    *,
    text: str = "text",
    label: str | None = None,
    pair: str | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    on_empty: OnEmpty = "error",
) -> Documents:
    """Documents of a file with a JSON object in each line.

    Texts are strings; labels and groups are strings, integers or booleans. Blank lines are passed
    over.

    Args:
        path: the file.
        text: the key of texts.
        label: as in :func:`read_csv`; so are the others.
        pair: second texts.
        group: what must stay together.
        classes: class names in the order of their numbers.
        on_empty: of rows whose text is empty.

    Raises:
        DataError: as :func:`read_csv`, and a line that is no JSON object, with its number.
    """
    columns = {"text": text, "pair": pair, "label": label, "group": group}
    return _documents(path, _json_lines(path, columns), columns, classes, on_empty)


def read_plain(path: str | Path, *, classes: Sequence[str] | None = None) -> Documents:
    """A file of plain text as one document, or the files of a folder as one each, by name.

    In a folder whose sub-folders hold the files, their names are the classes.

    Args:
        path: the file, or the folder.
        classes: class names in the order of their numbers; by default the sub-folders', sorted.

    Raises:
        DataError: nothing there, no file that ends in one of :data:`PLAIN`, files both beside and
            inside sub-folders, a sub-folder that is none of ``classes``, a file that is empty or
            no UTF-8.
    """
    root = Path(path)
    if root.is_file():
        return Documents((read_utf8(root),), places=(str(root),))
    if not root.is_dir():
        raise DataError(f"path={str(path)!r} is neither a file nor a folder")
    beside = _plain_files(root)
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    inside = {folder.name: found for folder in folders if (found := _plain_files(folder))}
    if beside and inside:
        raise DataError(
            f"{root} holds texts beside the folders {', '.join(inside)}, which hold texts too; "
            "sort them all into folders, one a class, or keep them without"
        )
    if not beside and not inside:
        raise DataError(
            f"{root} holds no text; expected files that end in one of {' '.join(sorted(PLAIN))}, "
            "or folders of them, one a class"
        )
    every = beside or [file for found in inside.values() for file in found]
    places = list(map(str, every))
    named = [name for name, found in inside.items() for _ in found] if inside else None
    numbered = _numbered(path, named, tuple(inside) if classes is None else classes, places)
    return Documents([read_utf8(file) for file in every], numbered[1], numbered[0], places=places)


def _plain_files(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and p.suffix.lower() in PLAIN and p.name[0] != "."
    )


def read_utf8(path: str | Path) -> str:
    """A file's text, without its byte-order mark, with line breaks as they are.

    Raises:
        DataError: there is no such file, or it is no UTF-8: with its name, the line and the byte.
    """
    try:
        raw = files.read_bytes(path)
    except (OSError, files.CorruptFileError) as error:
        raise DataError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{path} is UTF-16; save it as UTF-8")
    wrong = raw.find(b"\0")  # which no text holds, but UTF-16 and other programs' files
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        wrong = error.start
    if wrong >= 0:
        line = raw.count(b"\n", 0, wrong) + 1
        table = ", or as CSV what is a table of another program" * (b"\0" in raw)
        raise DataError(
            f"{path} is no UTF-8: byte {wrong} (line {line}) is 0x{raw[wrong]:02x}; save it as "
            f"UTF-8, or convert it with iconv{table}"
        )
    return decoded.removeprefix("\ufeff")


def _csv_lines(
    path: str | Path, columns: Mapping[str, str | None], delimiter: str
) -> Iterator[_Line]:
    header: list[str] = []
    for number, row in csv_rows(path, delimiter):
        if not header:
            header = [name.strip() for name in row]
            _check_columns(path, header, columns, delimiter)
        elif len(row) != len(header):
            raise DataError(
                f"{path}, line {number} has {len(row)} fields for {len(header)} columns; put "
                "quotes around fields that hold delimiters or line breaks"
            )
        else:
            yield number, dict(zip(header, row, strict=True))
    if not header:
        raise DataError(f"{path} is empty; its first line names the columns")


def csv_rows(path: str | Path, delimiter: str = ",") -> Iterator[tuple[int, list[str]]]:
    """Rows that hold something, each with the number of the line that it begins in.

    Raises:
        DataError: as :func:`read_csv`.
    """
    if len(delimiter) != 1:
        raise DataError(f"delimiter={delimiter!r}; expected one character")
    lines = io.StringIO(read_utf8(path), newline="")
    before = csv.field_size_limit(_MOST_FIELD)
    try:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        begin = 1
        try:
            for row in reader:
                if any(field.strip() for field in row):
                    yield begin, row
                begin = reader.line_num + 1
        except csv.Error as error:
            raise DataError(
                f"{path}, line {begin}: {error}; a quote that opens a field must be closed before "
                "the next delimiter, and one inside it doubled"
            ) from error
    finally:
        csv.field_size_limit(before)


def _check_columns(
    path: str | Path, header: Sequence[str], columns: Mapping[str, str | None], delimiter: str
) -> None:
    for role, column in columns.items():
        if column is None:
            continue
        if header.count(column) > 1:
            raise DataError(f"{path} has {header.count(column)} columns {column!r}; rename one")
        if column not in header:
            known = ", ".join(map(repr, header))
            other = next((d for d in _DELIMITERS if d != delimiter and d in header[0]), None)
            hint = choices.hint(column, header) or _WITHOUT.get(role, "")
            if other is not None and len(header) == 1:
                hint = f"; it seems to be cut by {_DELIMITERS[other]}: pass delimiter={other!r}"
            raise DataError(f"{role}={column!r} is no column of {path}, which has {known}{hint}")


def _json_lines(path: str | Path, columns: Mapping[str, str | None]) -> Iterator[_Line]:
    for number, line in enumerate(read_utf8(path).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            found = files.parse_json(line)
        except (ValueError, RecursionError) as error:
            whole = "; a JSON object a line is expected, not one list of all" * line.startswith("[")
            raise DataError(f"{place} is no JSON ({error}){whole}; mend that line") from error
        if not isinstance(found, dict):
            raise DataError(f"{place} holds a {type(found).__name__}; expected an object a line")
        for role, column in columns.items():
            if column is not None and column not in found:
                known = ", ".join(map(repr, found)) or "nothing"
                hint = choices.hint(column, found) or _WITHOUT.get(role, "")
                raise DataError(f"{role}={column!r} is no key of {place}, which has {known}{hint}")
        yield number, found


def _documents(
    path: str | Path,
    lines: Iterator[_Line],
    columns: Mapping[str, str | None],
    classes: Sequence[str] | None,
    on_empty: OnEmpty,
) -> Documents:
    choices.one_of("on_empty", on_empty, ("error", "skip"), DataError)
    wanted = {role: column for role, column in columns.items() if column is not None}
    found: dict[str, list[str]] = {role: [] for role in wanted}
    places, empty = [], 0
    for number, line in lines:
        place = f"{path}, line {number}"
        values = {role: _READ[role](line[column], column, place) for role, column in wanted.items()}
        if not all(values.get(role, "all is well") for role in ("text", "pair")):
            if on_empty == "error":
                raise DataError(
                    f"{place} has an empty text; write something there, take the line out, or pass "
                    "on_empty='skip'"
                )
            empty += 1
            continue
        for role, value in values.items():
            found[role].append(value)
        places.append(place)
    if empty:
        log.warning("%s: passed over %d lines whose text is empty", path, empty)
    if not places:
        raise DataError(f"{path} holds no document")
    names, labels = _numbered(path, found.get("label"), classes, places)
    return Documents(found["text"], labels, names, found.get("pair"), found.get("group"), places)


def _text(value: Any, column: str, place: str) -> str:
    if not isinstance(value, str | None):
        raise DataError(f"{place}: {column!r} is {value!r:.40}; expected a string")
    return "" if value is None or blank(value) else value


def _name(value: Any, column: str, place: str) -> str:
    """A class's or group's name; the integers that some write as 1.0 are integers."""
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        value = int(value)
    if not isinstance(value, str | int | None):
        raise DataError(f"{place}: {column!r} is {value!r:.40}; expected a name")
    name = "" if value is None else str(value).strip()
    if not name:
        raise DataError(f"{place} has no {column!r}; fill it in, or take the line out")
    return name


_READ: Mapping[str, Callable[[Any, str, str], str]] = {
    "text": _text,
    "pair": _text,
    "label": _name,
    "group": _name,
}
"""What a column's values are read as, by its role; of a value, the column and the place."""


def _numbered(
    path: str | Path,
    names: Sequence[str] | None,
    classes: Sequence[str] | None,
    places: Sequence[str],
) -> tuple[tuple[str, ...], np.ndarray | None]:
    """The classes, and each label's number among them."""
    if names is None:
        return (), None
    counts = Counter(names)
    if classes is None:
        alike = Counter(map(_sense, counts))
        if double := [name for name in counts if alike[_sense(name)] > 1]:
            raise DataError(
                f"{path} has the labels {', '.join(map(repr, sorted(double)))}, which differ in "
                "capitals alone, or in how a number is written; write them alike, or pass classes= "
                "if they are two"
            )
        if len(counts) > 2 and len(counts) > len(names) / 2:
            raise DataError(
                f"{path} has {len(counts)} different labels in {len(names)} lines, such as "
                f"{names[0]!r}; classes recur: name another column, or pass classes="
            )
        classes = sorted(counts, key=_order(counts))
    classes = tuple(map(str, classes))
    number = {name: n for n, name in enumerate(classes)}
    for name, place in zip(names, places, strict=True):
        if name not in number:
            raise DataError(
                f"{place} has the label {name!r}, which is none of classes={classes}; mend it, or "
                f"pass classes= with all that there are{choices.hint(name, classes)}"
            )
    return classes, np.array([number[name] for name in names], np.int32)


def _sense(name: str) -> str | float:
    """What is equal of labels that are meant alike: ``Good`` and ``good``, ``1`` and ``1.0``."""
    return float(name) if _NUMBER.fullmatch(name) else name.casefold()


def _order(names: Mapping[str, int]) -> Any:
    """How classes are sorted: by number where all are integers."""
    whole = all(_INTEGER.fullmatch(name) for name in names)
    return int if whole else str

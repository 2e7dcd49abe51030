"""Texts by a name or a path: packaged ones, TFDS's, or a user's file or folder, split."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from linearize import choices
from linearize.data.folders import SPLIT_NAMES
from linearize.data.records import DataError, Limits
from linearize.data.split import FRACTIONS
from linearize.data.text.documents import Documents
from linearize.data.text.packaged import TEXT_TASKS, load_text
from linearize.data.text.sets import TEXT_SETS, text_set
from linearize.data.text.tables import OnEmpty, read_csv, read_json_lines, read_plain
from linearize.data.text.task import TextTask, split_documents

TABLES: Mapping[str, Callable[..., Documents]] = {
    ".csv": read_csv,
    ".tsv": partial(read_csv, delimiter="\t"),
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json_lines,
}
"""Readers of files with columns, by suffix."""


def open_text(
    what: str | Path,
    *,
    name: str | None = None,
    text: str = "text",
    label: str | None = "label",
    pair: str | None = None,
    group: str | None = None,
    classes: Sequence[str] | None = None,
    delimiter: str | None = None,
    on_empty: OnEmpty = "error",
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    data_dir: str | Path | None = None,
) -> TextTask:
    """A task of texts, wherever they are.

    Args:
        what: a name that :func:`linearize.data.text.load_text` knows, as a string (``./spam``, or a
            ``Path``, is the folder of that name); a CSV, TSV or JSON-lines file; a file of plain
            text; a folder of such texts, one sub-folder a class or none; or a folder with files or
            folders named ``train``, ``validation`` and ``test`` (in any of the ways that folders of
            images are), which then are the splits.
        name: of the task; that which is known, or the file's, by default.
        text: the column of texts; it and the following are for files with columns.
        label: the column of class names; None where texts are all there is.
        pair: the column of second texts.
        group: the column of what must stay in one split.
        classes: class names in the order of their numbers, for files and folders alike; those of
            the training texts by default.
        delimiter: between the columns of a CSV file, where it is no comma (a tab in ``.tsv``).
        on_empty: of rows whose text is empty, as in :func:`linearize.data.text.read_csv`.
        limit: as in :func:`linearize.data.text.load_text`; so are the rest.
        seed: of the split.
        fractions: shares of train, validation and test.
        data_dir: where sets of TFDS lie.

    Raises:
        DataError: neither a name nor a path, and as the readers and :func:`split_documents`.
        AssetError: a packaged task could not be fetched.
    """
    how = {"limit": limit, "seed": seed, "fractions": fractions}
    known = str(what)
    if isinstance(what, str) and (known in TEXT_TASKS or text_set(known) is not None):
        task = load_text(known, data_dir=data_dir, **how)  # type: ignore[arg-type]
        return task if name is None else dataclasses.replace(task, name=name)
    path = Path(what)
    if not path.exists():
        near = choices.hint(known, [*TEXT_TASKS, *TEXT_SETS])
        raise DataError(f"{known!r} is neither a file or folder nor a task of texts{near}")
    told = {"text": text, "label": label, "pair": pair, "group": group, "on_empty": on_empty}
    told |= {} if delimiter is None else {"delimiter": delimiter}
    named = name or path.resolve().stem
    parts = _splits(path) if path.is_dir() else {}
    if not parts:
        whole = _read(path, classes, told)
        return split_documents(named, whole, provenance=str(path), **how)  # type: ignore[arg-type]
    if "train" not in parts:
        raise DataError(f"{path} holds {', '.join(parts)} and no train; add it, or rename them")
    found = {"train": _read(parts["train"], classes, told)}
    for split in parts.keys() - {"train"}:
        found[split] = _read(parts[split], found["train"].classes or None, told)
    return split_documents(named, **found, provenance=str(path), **how)  # type: ignore[arg-type]


def _read(path: Path, classes: Sequence[str] | None, told: Mapping[str, Any]) -> Documents:
    """A table by the columns that are told, or plain text."""
    reader = TABLES.get(path.suffix.lower())
    if "delimiter" in told and reader in (None, read_json_lines):
        raise DataError(f"delimiter={told['delimiter']!r} is of CSV files, and {path} is none")
    if reader is None or path.is_dir():
        return read_plain(path, classes=classes)
    return reader(path, classes=classes, **told)


def _splits(folder: Path) -> dict[str, Path]:
    """The files or folders in it that are named like splits, by split.

    One such folder among others is a class (trains beside planes).
    """
    found: dict[str, Path] = {}
    others = []
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith(".")):
        stem = path.name if path.is_dir() else path.stem
        split = SPLIT_NAMES.get("".join(c for c in stem.lower() if c.isalpha()))
        if split in found:
            raise DataError(f"{folder} holds {found[split].name} and {path.name}; keep one {split}")
        if split is not None:
            found[split] = path
        elif path.is_dir():
            others.append(path.name)
    if others and len(found) > 1:
        raise DataError(
            f"{folder} holds {', '.join(p.name for p in found.values())}, which are named like "
            f"splits, beside {', '.join(others)}; put classes into the splits, or rename them"
        )
    return {} if others else found

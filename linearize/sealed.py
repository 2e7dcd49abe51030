"""Files that are kept between runs, each with its hash in a list beside it, and the run it is of.

``sha256.json`` in a folder lists its files. What was changed after it was written, cut short or
brought from another run is not believed. A folder of an earlier version has no list: what lies
there is taken as it is, once, and listed then.
"""

import hashlib
import logging
from pathlib import Path

from linearize import files, written

log = logging.getLogger(__name__)

LIST = "sha256.json"
RUN = "run.json"
"""In a run's directory: which run the files in it and below are of."""

_APART = (LIST, RUN, "config.json", "versions.json")


def write(path: Path, content: bytes | str) -> Path:
    """Write a file whole or not at all (:func:`linearize.written.atomic_write`), and list it.

    Raises:
        OSError: as there.
    """
    data = content.encode() if isinstance(content, str) else content
    listed = _listed(path.parent)
    if listed is None:
        listed = _adopted(path)
    # listed first: a file without an entry would be one of another hand
    listed[path.name] = {"sha256": _hash(data), "run": run_of(path)}
    written.write_json(path.parent / LIST, {"files": listed})
    return written.atomic_write(path, data)


def read(path: Path) -> bytes | None:
    """A file's bytes, if it is whole and of this run; None where it is absent or is not.

    One that is not is logged by name and set aside as ``NAME.damaged``; nothing is destroyed.
    """
    if not path.is_file():
        return None
    listed = _listed(path.parent)
    if listed is None:
        log.warning(
            "%s is of an earlier version, which kept no hashes: what lies there is taken as it is",
            path.parent,
        )
        listed = _adopted(path)
        written.write_json(path.parent / LIST, {"files": listed})
    data = path.read_bytes()
    problem = _problem(listed.get(path.name), data, run_of(path))
    if not problem:
        return data
    set_aside(path, problem)
    return None


def problem(path: Path) -> str:
    """What is wrong with a file; empty where nothing is, or where its folder has no list."""
    listed = _listed(path.parent)
    if listed is None or not path.is_file():
        return ""
    return _problem(listed.get(path.name), path.read_bytes(), run_of(path))


def lost(folder: Path) -> list[str]:
    """Names of the files that are listed in a folder and are not there, or are not whole."""
    listed = _listed(folder) or {}
    return [n for n in listed if not (folder / n).is_file() or problem(folder / n)]


def set_aside(path: Path, problem: str) -> None:
    """Rename a file that is not believed, and say so."""
    aside = path.with_name(f"{path.name}.damaged")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged{number}")
    path.rename(aside)
    log.warning("%s %s; it is set aside as %s and made anew", path, problem, aside.name)


def run_of(path: Path) -> str:
    """The run of a file, as the nearest directory above it says; empty where none does."""
    for folder in path.absolute().parents:
        said = folder / RUN
        if said.is_file():
            return str((_json(said) or {}).get("run", ""))
    return ""


def _problem(entry: object, data: bytes, run: str) -> str:
    if not isinstance(entry, dict):
        return f"is not in the list of files beside it ({LIST})"
    if entry.get("sha256") != _hash(data):
        return "was changed after it was written"
    return "" if entry.get("run") == run else "is of another run"


def _adopted(path: Path) -> dict[str, dict[str, str]]:
    """Entries of what an earlier version left in a file's folder."""
    run = run_of(path)
    found = [p for end in ("json", "npz") for p in path.parent.glob(f"*.{end}")]
    return {
        p.name: {"sha256": _hash(p.read_bytes()), "run": run}
        for p in sorted(found)
        if p.name not in _APART and p.is_file()
    }


def _listed(folder: Path) -> dict | None:
    """The list's entries; None where there is no list. One that is damaged lists nothing."""
    path = folder / LIST
    if not path.is_file():
        return None
    listed = (_json(path) or {}).get("files")
    return listed if isinstance(listed, dict) else {}


def _json(path: Path) -> dict | None:
    try:
        return files.read_json(path)
    except ValueError:
        return None


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

"""Records as they lie on disk: an image's bytes, its label, its file's name; nothing is decoded."""

import dataclasses
import hashlib
import logging
import re
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from linearize.assets.cache import atomic, cache_dir, sha256
from linearize.data.records import DataError

log = logging.getLogger(__name__)

_LARGE = 16 << 20


class Raw(Protocol):
    """Records that are read by their number, from several threads at once."""

    @property
    def name(self) -> str:
        """Such as ``cars/train``, for messages."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash that changes with the data."""
        ...

    def __len__(self) -> int:
        """The number of records."""
        ...

    def image(self, row: int) -> bytes | np.ndarray:
        """The image file's bytes, or its pixels."""
        ...

    def about(self, row: int) -> tuple[int, str]:
        """The number of the class, and the name of the image's file where the data set keeps it."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class TfdsRecords:
    """Records of a TFDS data source whose images are not decoded."""

    name: str
    source: Sequence[Any]
    keys: tuple[str, str]
    """Names of the image and of the label among the features."""
    fingerprint: str

    def __len__(self) -> int:
        """The number of records."""
        return len(self.source)

    def image(self, row: int) -> bytes | np.ndarray:
        """Encoded bytes; pixels where the source decodes anyway, as a mocked one does."""
        return self.source[row][self.keys[0]]

    def about(self, row: int) -> tuple[int, str]:
        """The label, and the file's name from whichever text feature holds it."""
        example = self.source[row]
        names = (example[key] for key in ("filename", "file_name", "id", "name") if key in example)
        name = next(names, "")
        text = name.decode() if isinstance(name, bytes) else str(name)
        return int(example[self.keys[1]]), text


@dataclasses.dataclass(frozen=True, eq=False)
class FolderRecords:
    """Image files in a folder, with their labels."""

    name: str
    root: Path
    files: tuple[str, ...]
    labels: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        """The number of records."""
        return len(self.files)

    def image(self, row: int) -> bytes:
        """The file's bytes."""
        return (self.root / self.files[row]).read_bytes()

    def about(self, row: int) -> tuple[int, str]:
        """The label and the file's path inside the folder."""
        return int(self.labels[row]), self.files[row]


def folder_fingerprint(folder: Path) -> str:
    """A hash of a prepared TFDS folder: each file's name and all that is in it."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file():
            digest.update(f"{path.name}\0{file_digest(path)}\0".encode())
    return digest.hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file; a large one is read once, as long as it is not written anew."""
    about = path.stat()
    if about.st_size < _LARGE:
        return sha256(path)
    place = repr((str(path.resolve()), about.st_size, about.st_mtime_ns, about.st_ino))
    kept = cache_dir() / "digests" / hashlib.sha256(place.encode()).hexdigest()
    if kept.is_file() and re.fullmatch("[0-9a-f]{64}", known := kept.read_text(errors="replace")):
        return known
    log.info("%s: hashing %.2f GB, once", path.name, about.st_size / 1e9)
    found = sha256(path)

    def write(target: Path) -> None:
        target.write_text(found)

    atomic(kept, write)
    return found


@dataclasses.dataclass(frozen=True)
class Index:
    """What is known of each record without its image.

    Attributes:
        labels: (N,) int32.
        files: (N,) names, empty strings where the data set keeps none.
    """

    labels: np.ndarray
    files: np.ndarray


def index(raw: Raw, rows: np.ndarray, workers: int) -> Index:
    """Labels and file names of the given rows, read once and then kept in the cache."""
    path = cached("index", raw, rows, "npz")
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Index(arrays["labels"], arrays["files"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
    if isinstance(raw, FolderRecords):
        return Index(raw.labels[rows].astype(np.int32), np.array(raw.files, object)[rows])
    with ThreadPoolExecutor(workers) as pool:
        pairs = list(pool.map(raw.about, rows.tolist(), chunksize=64))
    labels = np.array([label for label, _ in pairs], np.int32)
    files = np.array([file for _, file in pairs])

    def write(target: Path) -> None:
        with target.open("wb") as opened:
            np.savez(opened, labels=labels, files=files)

    atomic(path, write)
    return Index(labels, files)


def cached(kind: str, raw: Raw, rows: np.ndarray, suffix: str, *decided_by: object) -> Path:
    """Where something made of these rows is kept; the name says all that decides it."""
    digest = hashlib.sha256(repr((kind, raw.fingerprint, *decided_by)).encode())
    digest.update(np.ascontiguousarray(rows, np.int64).tobytes())
    base = raw.name.replace("/", "-")
    return cache_dir() / "vision" / f"{base}-{kind}-{digest.hexdigest()[:16]}.{suffix}"


def check_rows(raw: Raw, labels: np.ndarray, rows: np.ndarray, classes: int) -> None:
    """Labels are classes.

    Raises:
        DataError: with the first that is none.
    """
    bad = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(bad):
        row = int(rows[bad[0]])
        file = raw.about(row)[1]
        raise DataError(
            f"{raw.name}: example {row} {file!r} has the label {labels[bad[0]]}, not in "
            f"0..{classes - 1} ({len(bad)} such examples); labels are hidden or damaged there: "
            "prepare the data set anew"
        )

"""Where a kernel's blocks go: host memory, or a zarr array on disk that a killed run resumes.

    kernel.json    what kernel it is, with a hash of that
    blocks.txt     a line for each block that is whole, with its CRC-32C: one in another's place,
                   or of another kernel, is none
    lock           held by the process that notes, and lets others write blocks of its run
    array.zarr/    one chunk a block, each with its CRC-32C; NaN where none is

Nothing is taken on trust: a block counts if it is noted, there, of its full size, ends in the
checksum that was noted, and reads with it. Stores of version 0.1 have neither hash nor checksums,
and zeros where no block is; those of format 2 note no checksum.
"""

import errno
import fcntl
import hashlib
import itertools
import json
import logging
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorstore as ts

from linearize import files, io

log = logging.getLogger(__name__)

_PROGRESS = "blocks.txt"
_DESCRIPTION = "kernel.json"
_ARRAY = "array.zarr"
_LOCK = "lock"
_FORMAT, _HASH = "format", "sha256"
_NOW = {"params_filter": "trainable"}
"""The present name by the one that an older description has."""

CHECKSUM_BYTES = 4
"""At the end of each block's file."""

_AGAIN = (
    "call kernel(..., out=...) with the same arguments: blocks that are whole are kept, the others "
    "are computed again"
)

_TAKEN = "it is taken for this model's kernel; if f is another one, give another folder"

Start = tuple[int, int]
"""The rows and columns at which a block begins."""


class UnfinishedKernelError(ValueError):
    """A kernel on disk of which blocks are still to be computed."""


class BlockStore(Protocol):
    """A kernel that takes blocks in any order."""

    def holds(self, start: Start) -> bool:
        """Whether the block that starts at these rows and columns is there already."""

    def put(self, start: Start, block: np.ndarray) -> None:
        """Write a block."""

    def result(self, *, unfinished: bool = False) -> Any:
        """The kernel, once all blocks are there, or as far as it is."""

    def close(self) -> None:
        """Nothing more is written."""


class Memory:
    """A NumPy array on the host."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.array = np.empty(shape, dtype)

    def holds(self, start: Start) -> bool:
        """Never: memory does not outlive a run."""
        return False

    def put(self, start: Start, block: np.ndarray) -> None:
        """Write a block."""
        self.array[_window(start, block)] = block

    def result(self, *, unfinished: bool = False) -> np.ndarray:
        """The array."""
        return self.array

    def close(self) -> None:
        """The array stays."""


class Blocks:
    """Files of blocks in a folder, which any process may write, and one notes."""

    path: Path
    array: ts.TensorStore
    _held: dict[str, Any]
    _done: dict[Start, str]

    @property
    def kind(self) -> str:
        """A hash of what kernel it is."""
        return _hash(self._held)

    def holds(self, start: Start) -> bool:
        """Whether a block was written whole, by this run or one before, and still reads."""
        if start not in self._done:
            return False
        file = _chunk(self.path, self._held, start)
        try:
            whole = _whole(file, self._held, self._done[start])
            whole = whole and bool(np.isfinite(self.array[_extent(self._held, start)]).all())
        except ValueError:  # its checksum
            whole = False
        if not whole:
            log.warning("block %s of the kernel is damaged (%s): it is computed again", start, file)
            del self._done[start]
        return whole

    def write(self, start: Start, block: np.ndarray) -> str:
        """Write a block, which counts once it is noted; its checksum."""
        self.array[_window(start, block)].write(block).result()
        return _checksum(_chunk(self.path, self._held, start), self._held)

    def result(self, *, unfinished: bool = False) -> ts.TensorStore:
        """The array on disk; ``numpy.asarray`` reads all of it, indexing and ``read`` a part."""
        return open_kernel(self.path, unfinished=unfinished)


class Disk(Blocks):
    """A zarr array (version 3) in a folder, with what it is and which blocks are written.

    Raises:
        FileExistsError: the folder holds another kernel, or other files.
        BlockingIOError: another process writes there.
        CorruptFileError: what it says of itself or of its blocks is damaged.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, ...],
        dtype: np.dtype,
        rows: int,
        description: dict[str, Any],
    ) -> None:
        self.path = Path(path).absolute()
        described = {**description, "shape": list(shape), "dtype": str(dtype), "rows": rows}
        self._check_folder()
        self._lock = _locked(self.path)
        try:
            self._held = self._claim(json.loads(json.dumps(described)))
            self.array = _open(self.path, self._held, create=True)
            self._done = _progress(self.path, self._held)
        except BaseException:
            self.close()
            raise

    def _check_folder(self) -> None:
        there = {p.name for p in self.path.iterdir()} if self.path.exists() else set()
        if there - {_LOCK} and _DESCRIPTION not in there:
            raise FileExistsError(f"out={self.path} holds other files; give an empty or new folder")

    def _claim(self, described: dict[str, Any]) -> dict[str, Any]:
        file = self.path / _DESCRIPTION
        if file.exists():
            held = _description(self.path)
            stated = {_NOW.get(k, k): v for k, v in held.items() if k not in (_FORMAT, _HASH)}
            if "f" in described and "f" not in stated:
                log.warning("out=%s is of version 0.1, which did not note f: %s", self.path, _TAKEN)
                described = {k: v for k, v in described.items() if k != "f"}
            changed = sorted(k for k in stated | described if stated.get(k) != described.get(k))
            if changed:
                raise FileExistsError(
                    f"out={self.path} holds another kernel (it differs in {', '.join(changed)}); "
                    "give another folder, or delete this one"
                )
            return held
        self._check_folder()
        held = {**described, _FORMAT: 3}
        held[_HASH] = _hash(held)
        io.write_json(file, held)
        return held

    def put(self, start: Start, block: np.ndarray) -> None:
        """Write a block, and only then note that it is there."""
        self.note({start: self.write(start, block)})

    def note(self, written: dict[Start, str]) -> None:
        """Blocks that were written, by this process or others, count from now on.

        Args:
            written: the checksum of each.

        Raises:
            FileNotFoundError: one that another process wrote is not there.
        """
        for start, checksum in written.items():
            chunk = _chunk(self.path, self._held, start)
            if not _whole(chunk, self._held, checksum):
                raise FileNotFoundError(
                    f"block {start} was written, but {chunk} {_wrong(chunk, self._held)} where "
                    f"blocks are noted; give a folder out={self.path} that all processes see"
                )
        with open(self.path / _PROGRESS, "a") as file:
            for start, checksum in written.items():
                file.write(f"{start[0]} {start[1]}{checksum and ' ' + checksum}.\n")
            file.flush()
            os.fsync(file.fileno())
        self._done.update(written)

    def close(self) -> None:
        """Let another process write."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


class Elsewhere(Blocks):
    """A kernel on disk of which this process writes blocks, and another says what it is.

    Raises:
        FileNotFoundError: it is not seen here.
        CorruptFileError: as :class:`Disk`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        if not (self.path / _DESCRIPTION).exists():
            raise FileNotFoundError(
                f"out={self.path} was opened by process 0 and is not there in this one; give a "
                "folder that all processes see"
            )
        self._held = _description(self.path)
        self.array = _open(self.path, self._held, create=False, write=True)
        self._done = _progress(self.path, self._held)

    def put(self, start: Start, block: np.ndarray) -> None:
        """Write a block, of which the other process has to be told."""
        self.write(start, block)

    def note(self, written: dict[Start, str]) -> None:
        """Noted there."""

    def close(self) -> None:
        """Nothing is open."""


def _locked(folder: Path) -> int | None:
    """A handle that holds the folder until it is closed; None where no lock can be made."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # a read-only disk, on which a finished kernel may lie
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        if error.errno not in (errno.EAGAIN, errno.EACCES):  # a disk without locks
            return None
        raise BlockingIOError(
            error.errno,
            "another process writes a kernel there; wait for it to end, or give another folder",
            str(folder),
        ) from error
    return handle


def open_kernel(path: str | Path, *, unfinished: bool = False) -> ts.TensorStore:
    """A kernel on disk, for reading: ``numpy.asarray(open_kernel(path)[:100, :100])``.

    Every block is looked for now; its checksum is verified when it is read, and where it does not
    agree reading raises a ``ValueError`` that names the block's file.

    Args:
        path: the folder that was passed as ``out``.
        unfinished: accept one of which blocks are still to be computed; they read as NaN.

    Raises:
        FileNotFoundError: there is no kernel.
        UnfinishedKernelError: blocks are still to be computed, and ``unfinished`` is False.
        CorruptFileError: a block that was written is missing, truncated or another one, or what
            describes the kernel is damaged; with the file.
    """
    folder, held = _found(path)
    done, wanted = _progress(folder, held), list(_starts(held))
    missing = [start for start in wanted if start not in done]
    if missing and (not unfinished or _FORMAT not in held):
        raise UnfinishedKernelError(
            f"{folder} lacks {len(missing)} of {len(wanted)} blocks, the first at {missing[0]}: "
            f"the kernel is unfinished; {_AGAIN}"
            + ("" if _FORMAT not in held else ", or pass unfinished=True for NaN in their place")
        )
    for start in wanted:
        file = _chunk(folder, held, start)
        if start in done and not _whole(file, held, done[start]):
            state = _wrong(file, held)
            raise io.CorruptFileError(f"block {start} of the kernel {state} ({file}); {_AGAIN}")
    return _open(folder, held, gaps=bool(missing))


def count_blocks(path: str | Path) -> tuple[int, int]:
    """How many blocks of a kernel on disk are noted as whole, and how many it has.

    Cheap, and may be asked while another process computes it: no block is read.

    Args:
        path: the folder that was passed as ``out``.

    Raises:
        FileNotFoundError: there is no kernel.
        CorruptFileError: what describes it is damaged.
    """
    folder, held = _found(path)
    return len(_progress(folder, held)), sum(1 for _ in _starts(held))


def _found(path: str | Path) -> tuple[Path, dict[str, Any]]:
    folder = Path(path).absolute()
    if not (folder / _DESCRIPTION).exists():
        raise FileNotFoundError(
            f"{path} holds no kernel; give the folder that was passed to kernel(..., out=...)"
        )
    return folder, _description(folder)


def _open(
    folder: Path,
    held: dict[str, Any],
    *,
    create: bool = False,
    write: bool = False,
    gaps: bool = False,
) -> ts.TensorStore:
    chunk = _chunk_shape(held)
    checked = _FORMAT in held
    codecs: list[dict[str, Any]] = [{"name": "bytes", "configuration": {"endian": "little"}}]
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{folder / _ARRAY}/"},
        "fill_missing_data_reads": gaps,
        "metadata": {
            "shape": held["shape"],
            "data_type": held["dtype"],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "fill_value": "NaN" if checked else 0.0,
            "codecs": codecs + [{"name": "crc32c"}] * checked,
        },
    }
    try:
        return ts.open(
            spec, open=True, read=True, create=create, write=write or create or None
        ).result()
    except ValueError as error:
        raise io.CorruptFileError(
            f"{folder / _ARRAY} is no array as {_DESCRIPTION} describes it: its zarr.json is "
            f"damaged or missing ({error}); delete the folder {folder}, and compute the kernel anew"
        ) from error


def _description(folder: Path) -> dict[str, Any]:
    """What the folder says that it holds, checked against its hash.

    Raises:
        CorruptFileError: it is damaged.
    """
    file = folder / _DESCRIPTION
    try:
        held: dict[str, Any] = io.read_json(file)
        ts.dtype(held["dtype"])
        sound = all(isinstance(n, int) and n > 0 for n in (*held["shape"], held["rows"]))
        if {_FORMAT, _HASH} & set(held):
            sound = sound and held[_HASH] == _hash(held)
    except (ValueError, TypeError, KeyError):
        sound = False
    if not sound:
        raise io.CorruptFileError(
            f"{file} was changed or damaged after it was written, so that it is not known what "
            f"kernel this is; delete the folder {folder}, and compute the kernel again"
        )
    return held


def _hash(held: dict[str, Any]) -> str:
    text = json.dumps({k: v for k, v in held.items() if k != _HASH}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _progress(folder: Path, held: dict[str, Any]) -> dict[Start, str]:
    """The blocks that were noted as whole, each with its checksum; "" where the format has none.

    Raises:
        CorruptFileError: a line that no run writes.
    """
    file = folder / _PROGRESS
    text = files.read_bytes(file).decode(errors="replace") if file.exists() else ""
    # what follows the last line's end was being written when the run was killed
    *lines, _ = text.split("\n")
    pattern = r"(\d{1,18}) (\d{1,18})" + (r" ([0-9a-f]{8})\." if _noted(held) else r"()\.")
    wanted, done = set(_starts(held)), dict[Start, str]()
    for number, line in enumerate(lines, 1):
        found = re.fullmatch(pattern, line, re.ASCII)
        start = (int(found[1]), int(found[2])) if found else None
        if found is None or start is None or start not in wanted:
            raise io.CorruptFileError(
                f"line {number} of {file} is {line[:40]!r}, no block of this kernel: the file is "
                f"damaged; delete it, and {_AGAIN}"
            )
        done[start] = found[3]
    return done


def _starts(held: dict[str, Any]) -> Iterator[Start]:
    (n1, n2, *_), rows = held["shape"], held["rows"]
    return itertools.product(range(0, n1, rows), range(0, n2, rows))


def _chunk_shape(held: dict[str, Any]) -> list[int]:
    shape, rows = held["shape"], held["rows"]
    return [min(rows, shape[0]), min(rows, shape[1]), *shape[2:]]


def _chunk(folder: Path, held: dict[str, Any], start: Start) -> Path:
    """The file of a block."""
    place = [k // held["rows"] for k in start] + [0] * (len(held["shape"]) - 2)
    return folder.joinpath(_ARRAY, "c", *map(str, place))


def _noted(held: dict[str, Any]) -> bool:
    """Whether blocks are noted with their checksums."""
    return held.get(_FORMAT, 1) >= 3


def _checksum(file: Path, held: dict[str, Any]) -> str:
    """A block's CRC-32C, which its file ends in; "" in formats that note none."""
    if not _noted(held):
        return ""
    with file.open("rb") as stream:
        stream.seek(-CHECKSUM_BYTES, os.SEEK_END)
        return stream.read().hex()


def _wrong(file: Path, held: dict[str, Any]) -> str:
    """Why a block's file is not whole."""
    if not file.exists():
        return "is missing"
    return "is another block or was changed" if _sized(file, held) else "is truncated"


def _whole(file: Path, held: dict[str, Any], checksum: str) -> bool:
    """Whether a block's file is there, with all its bytes, and ends in the checksum noted."""
    return _sized(file, held) and _checksum(file, held) == checksum


def _sized(file: Path, held: dict[str, Any]) -> bool:
    size = math.prod(_chunk_shape(held)) * ts.dtype(held["dtype"]).numpy_dtype.itemsize
    return file.is_file() and file.stat().st_size == size + CHECKSUM_BYTES * (_FORMAT in held)


def _extent(held: dict[str, Any], start: Start) -> tuple[slice, slice]:
    i, j = (slice(k, min(k + held["rows"], n)) for k, n in zip(start, held["shape"], strict=False))
    return i, j


def _window(start: Start, block: np.ndarray) -> tuple[slice, slice]:
    (i, j), (n1, n2) = start, block.shape[:2]
    return slice(i, i + n1), slice(j, j + n2)

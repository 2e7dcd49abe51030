"""Files that are whole or absent: parameter trees as safetensors, results as JSON.

They are written as :mod:`linearize.written` does. Trees carry a hash of their own: safetensors
finds a truncated file, but not a flipped bit.
"""

import dataclasses
import hashlib
import importlib.metadata
import json
import math
import operator
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax
import ml_dtypes
import numpy as np
import safetensors.numpy

from linearize import files, tree
from linearize.files import CorruptFileError as CorruptFileError
from linearize.files import read_json as read_json
from linearize.lazy import Lazy
from linearize.types import PyTree
from linearize.written import atomic_write as atomic_write
from linearize.written import to_json as to_json
from linearize.written import write_json as write_json

_FORMAT, _HASH = "linearize.format", "linearize.sha256"

_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "C64": np.dtype(np.complex64),
    "BOOL": np.dtype(np.bool_),
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
}


def save_tree(path: str | Path, params: PyTree, metadata: Mapping[str, str] | None = None) -> Path:
    """Write a tree's leaves to a safetensors file, keyed by name, with a hash over all of it.

    Any reader of safetensors opens it. bfloat16 is kept.

    Args:
        path: the file to write; its directory is made where absent.
        params: a tree of concrete arrays; integer and boolean leaves are welcome.
        metadata: strings to keep beside the leaves.

    Raises:
        NonFiniteError: a leaf holds NaN or infinity.
        TypeError: a leaf's dtype has no place in safetensors (PRNG keys; complex128).
        ValueError: a leaf is called as safetensors calls its notes.
        OSError: the file cannot be written; a file that was there is untouched.
    """
    flat = tree.flatten(params).items()
    leaves = {name: leaf.make() if isinstance(leaf, Lazy) else leaf for name, leaf in flat}
    tree.check_finite(leaves, what=f"tree to save to {path}")
    arrays = {}
    for name, leaf in leaves.items():
        spelled(name, leaf)
        arrays[name] = tree.to_numpy(leaf)
    notes = {str(k): str(v) for k, v in (metadata or {}).items()}
    notes[_FORMAT] = "1"
    notes[_HASH] = hashed(tree.fingerprint(arrays), notes)
    return atomic_write(path, safetensors.numpy.save(arrays, notes))


def spelled(name: str, leaf: Any) -> str:
    """A leaf's dtype as safetensors spells it, ``"F32"``; nothing is read of a lazy one.

    Raises:
        TypeError: it has none (PRNG keys; complex128).
        ValueError: the leaf is called as safetensors calls its notes.
    """
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        raise TypeError(f"{name} is a PRNG key; save jax.random.key_data(key) in its place")
    if name == "__metadata__":
        raise ValueError(f"a leaf called {name!r} has no place in safetensors; rename it")
    found = next((word for word, known in _DTYPES.items() if known == dtype), None)
    if found is None:
        raise TypeError(f"{name} has dtype {dtype}, unknown to safetensors")
    return found


def load_tree(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file: ``({name: array}, metadata)``.

    The hash of a file that :func:`save_tree` wrote is verified; other writers' files have none.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: the file is truncated or damaged, or is no safetensors file.
        NonFiniteError: a leaf holds NaN or infinity.
    """
    with files.open_regular(path) as file:
        stored, notes, start = _header(path, file)
        arrays = {}
        for name, entry in sorted(stored.items()):
            file.seek(start + entry.begin)
            arrays[name] = entry.array(file)
    return arrays, _verified(path, arrays, notes)


def open_tree(path: str | Path) -> tuple[dict[str, Lazy], dict[str, str]]:
    """As :func:`load_tree`, with leaves that are read when they are asked for, one at a time.

    A file that states a hash is read once, leaf by leaf, to verify it.

    Raises:
        FileNotFoundError, CorruptFileError, NonFiniteError: as :func:`load_tree`; NaN or infinity
            in a file that states no hash, when the leaf is read.
    """
    with files.open_regular(path) as file:
        stored, notes, _ = _header(path, file)
    leaves = {name: entry.lazy() for name, entry in sorted(stored.items())}
    return leaves, _verified(path, leaves, notes)


def _verified(path: str | Path, leaves: Mapping[str, Any], notes: dict[str, str]) -> dict[str, str]:
    """The notes without what is this module's, after the hash, if any, was found to hold."""
    stated, ours = notes.pop(_HASH, None), _FORMAT in notes
    if (ours or stated) and stated != hashed(tree.fingerprint(leaves), notes):
        raise CorruptFileError(
            f"{path} was changed after it was written: its contents do not have the SHA-256 that "
            "it states; delete it and write or fetch it anew"
        )
    notes.pop(_FORMAT, None)
    tree.check_finite(leaves, what=str(path))
    return notes


@dataclasses.dataclass(frozen=True)
class Stored:
    """A tensor in a safetensors file, as its header describes it.

    Attributes:
        path: the file.
        name: of the tensor.
        dtype: as safetensors spells it, ``"F32"``.
        shape: of the array.
        begin: its first byte, counted from the header's end.
        end: the byte after its last.
        start: where the header ends.
        stamp: by which the file that the header was read of is known again.
    """

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    start: int
    stamp: tuple[int, ...]

    def read(self) -> np.ndarray:
        """The array, in its own dtype.

        Raises:
            CorruptFileError: the file was changed meanwhile, or NumPy has no such dtype.
            OSError: it cannot be read.
        """
        with files.open_regular(self.path) as file:
            if _stamp(file) != self.stamp:
                raise CorruptFileError(
                    f"{self.path} was changed after it was opened; open it again"
                )
            file.seek(self.start + self.begin)
            return self.array(file)

    def lazy(self) -> Lazy:
        """The array, read whenever it is asked for, and refused where it is not finite.

        Raises:
            CorruptFileError: NumPy has no such dtype.
        """
        leaf = Lazy(self.shape, self._dtype(), self.read)
        return tree.finite(self.name, leaf, str(self.path))

    def array(self, file: BinaryIO) -> np.ndarray:
        """As :meth:`read`, of an open file at its first byte."""
        dtype = self._dtype()
        data = file.read(self.end - self.begin)
        if len(data) != self.end - self.begin:
            raise CorruptFileError(f"{self.path} became shorter while it was read; read it again")
        return np.frombuffer(data, dtype).reshape(self.shape)

    def _dtype(self) -> np.dtype:
        if self.dtype not in _DTYPES:
            raise CorruptFileError(
                f"{self.path}: tensor {self.name!r} has dtype {self.dtype}, which has no array "
                "here; convert it to F32 or BF16 and save it again"
            )
        return _DTYPES[self.dtype]


def _stamp(file: BinaryIO) -> tuple[int, ...]:
    found = os.fstat(file.fileno())
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def stored_tensors(path: str | Path) -> dict[str, Stored]:
    """The tensors of a safetensors file by name, none of them read yet.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: the file is truncated or damaged, or is no safetensors file.
        OSError: it cannot be read.
    """
    with files.open_regular(path) as file:
        return _header(path, file)[0]


def read_notes(path: str | Path) -> dict[str, str]:
    """The metadata of a safetensors file, of which no tensor is read.

    Raises:
        CorruptFileError, OSError: as :func:`stored_tensors`.
    """
    with files.open_regular(path) as file:
        notes = _header(path, file)[1]
    return {name: value for name, value in notes.items() if name not in (_FORMAT, _HASH)}


def stated_hash(path: str | Path) -> str | None:
    """The SHA-256 that a file of :func:`save_tree` states of its content; None of others.

    Raises:
        CorruptFileError, OSError: as :func:`stored_tensors`.
    """
    with files.open_regular(path) as file:
        return _header(path, file)[1].get(_HASH)


_LONGEST_HEADER = 10**8
"""Bytes; the format's own bound."""


def _header(path: str | Path, file: BinaryIO) -> tuple[dict[str, Stored], dict[str, str], int]:
    """Tensors by name, metadata, and where the tensors' bytes start.

    Raises:
        CorruptFileError: no header, or one that does not tell of each byte exactly once.
    """
    size, stamp = os.fstat(file.fileno()).st_size, _stamp(file)
    first = file.read(9)
    length = int.from_bytes(first[:8], "little")
    if 0 < len(first) < 9:
        raise CorruptFileError(
            f"{path} ({size} bytes) is truncated, or is no safetensors file: none is so short"
        )
    if first and (first[8:] != b"{" or not 2 <= length <= _LONGEST_HEADER):
        raise CorruptFileError(
            f"{path} ({size} bytes) is no safetensors file: it begins with {first!r}; is it a file "
            "of another kind?"
        )
    start = 8 + length
    if len(first) < 9 or start > size:
        raise _cut(path, size, "its header does not end")
    try:
        told = json.loads((first[8:] + file.read(length - 1)).decode())
        notes = told.pop("__metadata__", None) or {}
        stored = {}
        for name, entry in told.items():
            begin, end = map(operator.index, entry["data_offsets"])
            shape = tuple(map(operator.index, entry["shape"]))
            stored[name] = Stored(Path(path), name, entry["dtype"], shape, begin, end, start, stamp)
        place = 0
        for entry in sorted(stored.values(), key=lambda x: (x.begin, x.end)):
            dtype = _DTYPES.get(entry.dtype)
            count = math.prod(entry.shape)
            if (
                entry.begin != place
                or entry.end < place
                or not all(0 <= n < 2**48 for n in entry.shape)
                or (dtype is not None and entry.end - place != count * dtype.itemsize)
            ):
                raise ValueError(f"tensor {entry.name[:200]!r} is not where it should be")
            place = entry.end
        if not all(isinstance(v, str) for v in notes.values()):
            raise ValueError("its metadata are no strings")
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CorruptFileError(
            f"{path} ({size} bytes) is damaged or is no safetensors file: its header cannot be "
            f"read ({error}). If nothing writes it any more, delete it and write or fetch it anew"
        ) from error
    if start + place > size:
        raise _cut(path, size, f"its header tells of {start + place}")
    if start + place < size:
        raise CorruptFileError(
            f"{path} has {size} bytes and its header tells of {start + place}: it was changed "
            "after it was written"
        )
    return stored, notes, start


def _cut(path: str | Path, size: int, why: str) -> CorruptFileError:
    return CorruptFileError(
        f"{path} ({size} bytes) is truncated: {why}. If nothing writes it any more, delete it and "
        "write or fetch it anew"
    )


def hashed(fingerprint: str, notes: Mapping[str, str]) -> str:
    """SHA-256 over a tree, by its fingerprint, and the notes beside it."""
    text = json.dumps([fingerprint, sorted(notes.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of this library and of what its numbers depend on; written beside results."""
    found = {}
    for package in ("linearize", "jax", "jaxlib", "flax", "optax", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found

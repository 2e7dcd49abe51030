"""Data frames of R packages: lazy-load archives and R's serialisation, without R.

Only values are read: vectors, lists, strings, factors and their attributes. What would be code or
an environment is refused.
"""

import bz2
import gzip
import lzma
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from linearize import files
from linearize.data.records import DataError

_NIL, _REFERENCE, _ALTREP, _GLOBAL, _EMPTY, _BASE = 254, 255, 238, 253, 242, 241
_SYMBOL, _PAIRS, _CHARACTERS, _LOGICAL, _INTEGER, _REAL = 1, 2, 9, 10, 13, 14
_STRINGS, _LIST = 16, 19
_NUMBERS = {_LOGICAL: ">i4", _INTEGER: ">i4", _REAL: ">f8"}
_ATTRIBUTES, _TAG = 1 << 9, 1 << 10
_DEEPEST = 100


@dataclass
class Value:
    """A vector with attributes.

    Attributes:
        data: an array of numbers, or a list of strings (None where missing) or of values.
        attributes: such as ``names``, ``levels`` and ``class``.
    """

    data: Any
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def strings(self) -> list[str | None]:
        """A character vector's strings, or the level of each entry of a factor."""
        if "levels" in self.attributes:
            levels = self.attributes["levels"].data
            return [levels[code - 1] if code > 0 else None for code in self.data.tolist()]
        return self.data

    @property
    def columns(self) -> dict[str, "Value"]:
        """A data frame's columns, or a list's entries, by name."""
        return dict(zip(self.attributes["names"].data, self.data, strict=True))


def read_lazy(rdx: str | Path, rdb: str | Path, name: str) -> Value:
    """An object of a package's data, ``data/Rdata.rdx`` and ``data/Rdata.rdb``.

    Raises:
        DataError: there is none of this name, or the files are damaged or hold code.
    """
    try:
        index = unserialised(_index(files.read_bytes(rdx))).columns["variables"].columns
        if name not in index:
            raise DataError(f"{rdx} has no {name!r}; it has {', '.join(index)}")
        offset, length = index[name].data.tolist()
        return unserialised(_unpacked(files.read_bytes(rdb)[offset : offset + length]))
    except (KeyError, ValueError, TypeError, struct.error, zlib.error, EOFError, OSError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{rdx}, {rdb}: no whole archive of R's ({error})") from error


def _index(content: bytes) -> bytes:
    """What ``saveRDS`` compressed: with gzip, bzip2, xz or by itself."""
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else zlib.decompress(content)


def _unpacked(chunk: bytes) -> bytes:
    """A length of four bytes, then what zlib, or bz2 or LZMA by a letter, has compressed."""
    kind, body = chunk[4:5], chunk[5:]
    if kind == b"2":
        return bz2.decompress(body)
    if kind == b"Z":
        raw = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2}])
        return raw.decompress(body)
    return zlib.decompress(chunk[4:])


def unserialised(content: bytes) -> Value:
    """What R's ``serialize`` wrote in its binary format, versions 2 and 3.

    Raises:
        ValueError: another format, code, an environment, or a damaged stream.
    """
    return _Reader(content).value()


class _Reader:
    def __init__(self, content: bytes) -> None:
        self.content, self.at = memoryview(content), 2
        self.seen: list[Value] = []
        if content[:2] != b"X\n":
            raise ValueError("no binary serialisation of R's")
        version, _, _ = self.integers(3)
        if version not in (2, 3):
            raise ValueError(f"version {version} of R's serialisation")
        if version == 3:
            self.take(self.integers(1)[0])

    def take(self, n: int) -> bytes:
        if not 0 <= n <= len(self.content) - self.at:
            raise ValueError("the stream is cut short")
        self.at += n
        return bytes(self.content[self.at - n : self.at])

    def integers(self, n: int) -> tuple[int, ...]:
        return struct.unpack(f">{n}i", self.take(4 * n))

    def value(self, depth: int = 0) -> Value:
        if depth > _DEEPEST:
            raise ValueError(f"nested more than {_DEEPEST} deep")
        (flags,) = self.integers(1)
        kind = flags & 0xFF
        if kind in (_NIL, _GLOBAL, _EMPTY, _BASE):
            return Value(None)
        if kind == _REFERENCE:
            number = flags >> 8 or self.integers(1)[0]
            if not 0 < number <= len(self.seen):
                raise ValueError("a reference to nothing")
            return self.seen[number - 1]
        if kind == _SYMBOL:
            self.seen.append(self.value(depth + 1))
            return self.seen[-1]
        if kind == _ALTREP:
            return self.compact(depth)
        if kind == _PAIRS:
            return Value(self.pairs(flags, depth))
        found = Value(self.data(kind, depth))
        if flags & _ATTRIBUTES and kind != _CHARACTERS:
            found.attributes = self.value(depth + 1).data or {}
        return found

    def data(self, kind: int, depth: int) -> Any:
        (n,) = self.integers(1)
        if kind == _CHARACTERS:
            return None if n == -1 else self.take(n).decode("utf-8", "replace")
        if n < 0:
            raise ValueError("a vector of more than 2³¹ entries")
        if kind in _NUMBERS:
            dtype = np.dtype(_NUMBERS[kind])
            return np.frombuffer(self.take(n * dtype.itemsize), dtype)
        if kind == _STRINGS:
            return [self.value(depth + 1).data for _ in range(n)]
        if kind == _LIST:
            return [self.value(depth + 1) for _ in range(n)]
        raise ValueError(f"an object of R's kind {kind}, which is no plain data")

    def pairs(self, flags: int, depth: int) -> Mapping[str, Value]:
        found: dict[str, Value] = {}
        while flags & 0xFF == _PAIRS:
            if flags & _ATTRIBUTES:
                self.value(depth + 1)
            tag = self.value(depth + 1).data if flags & _TAG else str(len(found))
            found[tag] = self.value(depth + 1)
            (flags,) = self.integers(1)
        return found

    def compact(self, depth: int) -> Value:
        """A sequence that is told by its length, first and step, or a wrapped vector."""
        about, state, attributes = (self.value(depth + 1) for _ in range(3))
        name = next(iter(about.data.values())).data
        if name in ("compact_intseq", "compact_realseq"):
            n, first, step = state.data.tolist()
            return Value(first + step * np.arange(int(n)), attributes.data or {})
        if str(name).startswith("wrap_"):
            return Value(state.data[0].data, attributes.data or state.data[0].attributes)
        raise ValueError(f"a vector in R's form {name!r}")

"""Files of others: regular ones only, of bounded size, and JSON that is no more than JSON.

A path may lead to a FIFO, a device or a socket, where reading waits or never ends; a JSON file may
be nested without end, or say a thing twice. Each is an error that names the file.
"""

import errno
import io
import json
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

MOST_JSON = 2**28
"""Bytes of a JSON file; tokenizers of many languages have some 2**25."""
DEEPEST_JSON = 64

_KINDS = (
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


_OF_THE_DISK = frozenset(
    getattr(errno, name)
    for name in (
        *("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "EMFILE", "ENFILE"),
        *("ENAMETOOLONG", "ENOTDIR", "EISDIR", "ELOOP"),
    )
)


class CorruptFileError(ValueError):
    """A file is truncated, damaged, or not of the kind that was asked for."""


def disk_fault(error: BaseException | None) -> OSError | None:
    """The fault of a disk (full, read-only, not permitted, ...) that an error comes from, if any.

    >>> disk_fault(OSError(errno.ENOSPC, "No space left on device")).strerror
    'No space left on device'
    >>> disk_fault(ConnectionError(errno.ECONNREFUSED, "no route"))
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def said_fault(text: str) -> str:
    """The system's words for a fault of a disk that a program's output holds, or nothing.

    >>> said_fault("ERROR: Could not install: [Errno 28] No space left on device")
    'No space left on device'
    """
    return next((os.strerror(n) for n in sorted(_OF_THE_DISK) if os.strerror(n) in text), "")


def check_regular(path: str | Path) -> os.stat_result:
    """What the system says of a regular file; for readers that open it themselves.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is a directory, a FIFO, a device or a socket.
    """
    found = os.stat(path)
    _require_regular(path, found)
    return found


def _require_regular(path: str | Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = next((name for test, name in _KINDS if test(found.st_mode)), "no regular file")
        raise CorruptFileError(f"{path} is {what}; a regular file is expected there")


def open_regular(path: str | Path) -> BinaryIO:
    """A regular file, open for reading bytes; never waits.

    Raises:
        FileNotFoundError, PermissionError, OSError: it cannot be opened.
        CorruptFileError: it is a directory, a FIFO, a device or a socket.
    """
    check_regular(path)  # to open a device may do something already
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _require_regular(path, os.fstat(handle))
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | Path, most: int | None = None) -> bytes:
    """All bytes of a regular file.

    Raises:
        CorruptFileError: it has more than ``most``, or as :func:`open_regular`.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is None:
            return file.read()
        data = file.read(most + 1) if size <= most else b""
    if max(size, len(data)) > most:
        raise CorruptFileError(
            f"{path} has {max(size, len(data))} bytes; a file of its kind has {most} at most"
        )
    return data


def read_text(path: str | Path, most: int = MOST_JSON) -> str:
    """A regular file's UTF-8 text.

    Raises:
        CorruptFileError: it is no UTF-8, or as :func:`read_bytes`.
        OSError: it cannot be read.
    """
    try:
        return io.IncrementalNewlineDecoder(None, translate=True).decode(
            read_bytes(path, most).decode("utf-8-sig"), final=True
        )
    except UnicodeDecodeError as error:
        raise CorruptFileError(f"{path} is no UTF-8 text ({error})") from error


def read_json(
    path: str | Path, *, kind: type = dict, most: int = MOST_JSON, deepest: int = DEEPEST_JSON
) -> Any:
    """What a JSON file says, held to what the format has: no NaN, no infinity, no key twice.

    Args:
        path: the file; UTF-8.
        kind: what it holds, ``dict``, ``list`` or ``object`` for anything.
        most: bytes.
        deepest: objects and lists within each other.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: it is no regular file, too large or too deep, no JSON, or of another kind;
            with the file's name, and the place in it.
        OSError: it cannot be read.
    """
    text = read_text(path, most)
    try:
        value = parse_json(text)
    except RecursionError:
        raise _too_deep(path, deepest) from None
    except ValueError as error:
        raise CorruptFileError(f"{path} is no readable JSON ({error})") from error
    if not isinstance(value, kind):
        raise CorruptFileError(f"{path} holds a {type(value).__name__}; expected a {kind.__name__}")
    level = [("", value)]
    for _ in range(deepest + 1):
        below: list[tuple[str, Any]] = []
        for where, item in level:
            if type(item) is dict:
                below += [(f"{where}.{key}" if where else key, x) for key, x in item.items()]
            elif type(item) is list:
                below += [(f"{where}[{i}]", x) for i, x in enumerate(item)]
            elif type(item) is float and not math.isfinite(item):
                raise CorruptFileError(f"{path}: {where[-200:]} is {item}, which is no JSON number")
        if not below:
            return value
        level = below
    raise _too_deep(path, deepest)


def parse_json(text: str) -> Any:
    """What a JSON text says.

    Raises:
        ValueError: it is none, or says a key twice.
        RecursionError: it is nested too deep.
    """
    return json.loads(text, object_pairs_hook=_unique)


def _too_deep(path: str | Path, deepest: int) -> CorruptFileError:
    return CorruptFileError(f"{path} is nested more than {deepest} deep")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice[:200]!r} is there twice")
    return found


def flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of mappings within mappings, by names joined with dots.

    >>> flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            found |= {f"{name}.{inner}": leaf for inner, leaf in flat(entry).items()}
        else:
            found[name] = entry
    return found

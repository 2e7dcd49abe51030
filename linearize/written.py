"""Files of ours, whole or absent: bytes, text, and results as JSON.

Every file is written beside its place, flushed to the disk and renamed into it, so a full disk, a
read-only directory or a killed process leaves the old file, or none.
"""

import contextlib
import dataclasses
import json
import math
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


def atomic_write(path: str | Path, content: bytes | str) -> Path:
    """Write a file whole or not at all; text is UTF-8. The directory is made where absent.

    Raises:
        OSError: with the path; what was there before is untouched and no part is left behind.
    """
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return Path(path)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write that takes the path's place where the block ends without an error.

    Raises:
        OSError: as :func:`atomic_write`; another file's error, in the block, stays as it is.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    ours = (temporary, path, *path.parents)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            sync(file)
        temporary.replace(path)
    except OSError as error:
        if error.filename is not None and str(error.filename) not in map(str, ours):
            raise
        reason = f"{error.strerror} (nothing was written; make room, permit, or choose elsewhere)"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sync(file: BinaryIO) -> None:
    """Have on the disk what was written, or learn that there is no room for it."""
    file.flush()
    os.fsync(file.fileno())


def write_json(path: str | Path, value: Any) -> Path:
    """Write a JSON file; arrays become lists, dataclasses objects, NaN and infinity null.

    Raises:
        TypeError: a value that has no form in JSON.
        OSError: as :func:`atomic_write`.
    """
    return atomic_write(path, json.dumps(to_json(value), indent=2, allow_nan=False) + "\n")


def to_json(value: Any) -> Any:
    """The value in JSON's own terms.

    >>> to_json({"alpha": np.linspace(0, 1, 3), "shape": (2, 3), "loss": float("nan")})
    {'alpha': [0.0, 0.5, 1.0], 'shape': [2, 3], 'loss': None}
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [
            to_json(v) for v in (sorted(value) if isinstance(value, set | frozenset) else value)
        ]
    if hasattr(value, "__array__"):
        return to_json(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no form in JSON")

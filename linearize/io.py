"""Files that are whole or absent: parameter trees as safetensors, results as JSON.

Every file is written beside its place, flushed to the disk and renamed into it, so a full disk, a
read-only directory or a killed process leaves the old file, or none. Trees carry a hash of their
own: safetensors finds a truncated file, but not a flipped bit.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import math
import os
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from linearize import tree
from linearize.types import PyTree

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


class CorruptFileError(ValueError):
    """A file is truncated, damaged, or not of the kind that was asked for."""


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
        OSError: the file cannot be written; a file that was there is untouched.
    """
    tree.check_finite(params, what=f"tree to save to {path}")
    arrays = {}
    for name, leaf in tree.flatten(params).items():
        if jax.dtypes.issubdtype(jax.numpy.result_type(leaf), jax.dtypes.prng_key):
            raise TypeError(f"{name} is a PRNG key; save jax.random.key_data(key) in its place")
        arrays[name] = tree.to_numpy(leaf)
        if arrays[name].dtype not in _DTYPES.values():
            raise TypeError(f"{name} has dtype {arrays[name].dtype}, unknown to safetensors")
    notes = {str(k): str(v) for k, v in (metadata or {}).items()}
    notes[_FORMAT] = "1"
    notes[_HASH] = _hash(arrays, notes)
    return atomic_write(path, safetensors.numpy.save(arrays, notes))


def load_tree(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read a safetensors file: ``({name: array}, metadata)``.

    The hash of a file that :func:`save_tree` wrote is verified; other writers' files have none.

    Raises:
        FileNotFoundError: there is no such file.
        CorruptFileError: the file is truncated or damaged, or is no safetensors file.
        NonFiniteError: a leaf holds NaN or infinity.
    """
    data = Path(path).read_bytes()
    try:
        views = sorted(safetensors.deserialize(data), key=lambda item: item[0])
        arrays = {name: _array(**view) for name, view in views}
        (length,) = struct.unpack("<Q", data[:8])
        notes = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    except (safetensors.SafetensorError, KeyError, ValueError) as error:
        raise CorruptFileError(
            f"{path} ({len(data)} bytes) is truncated or is no safetensors file: {error}; "
            "delete it and write or fetch it anew"
        ) from error
    stated, ours = notes.pop(_HASH, None), _FORMAT in notes
    if (ours or stated) and stated != _hash(arrays, notes):
        raise CorruptFileError(
            f"{path} was changed after it was written: its contents do not have the SHA-256 that "
            "it states; delete it and write or fetch it anew"
        )
    notes.pop(_FORMAT, None)
    tree.check_finite(arrays, what=str(path))
    return arrays, notes


def _array(dtype: str, shape: list[int], data: bytes) -> np.ndarray:
    return np.frombuffer(data, _DTYPES[dtype]).reshape(shape)


def _hash(arrays: Mapping[str, np.ndarray], notes: Mapping[str, str]) -> str:
    text = json.dumps([tree.fingerprint(arrays), sorted(notes.items())])
    return hashlib.sha256(text.encode()).hexdigest()


def atomic_write(path: str | Path, content: bytes | str) -> Path:
    """Write a file whole or not at all; text is UTF-8. The directory is made where absent.

    Raises:
        OSError: with the path; what was there before is untouched and no part is left behind.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = f"{error.strerror} (nothing was written; make room, permit, or choose elsewhere)"
        raise OSError(error.errno, reason, str(path)) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path


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
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return to_json(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no form in JSON")


def versions() -> dict[str, str]:
    """Versions of this library and of what its numbers depend on; written beside results."""
    found = {}
    for package in ("linearize", "jax", "jaxlib", "flax", "optax", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found

"""Reads a pickled NumPy array without letting the pickle do anything else."""

import io
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from linearize import files, unpickle
from linearize.assets.asset import UnsafePickleError
from linearize.unpickle import Shell, Word, kind, not_called, words

_NUMBERS = re.compile("[<>=|](b1|[iu][1248]|f[248])")


class _ArraysOnly(unpickle.Unpickler):
    known = words(
        Word("numpy.ndarray", not_called),
        Word("numpy.dtype", lambda code, *_: Shell(code)),
        Word("numpy.core.multiarray._reconstruct", lambda *_: Shell("array")),
        Word("numpy._core.multiarray._reconstruct", lambda *_: Shell("array")),
    )
    otherwise = "and only NumPy arrays are admitted; nothing was run"


def load_array(content: bytes | Path) -> np.ndarray:
    """The one array that a pickle holds.

    Args:
        content: the pickle's bytes, or a file of them.

    Returns:
        An array of a boolean, integer or floating dtype.

    Raises:
        UnsafePickleError: the pickle names anything but NumPy's array and dtype, holds Python
            objects, is damaged, or holds something else than one array.

    >>> import pickle
    >>> load_array(pickle.dumps(np.arange(3), protocol=4))
    array([0, 1, 2])
    """
    raw = files.read_bytes(content) if isinstance(content, Path) else content
    try:
        return _array(_ArraysOnly(io.BytesIO(raw)).load())
    except unpickle.PickleError as error:
        raise UnsafePickleError(str(error)) from None
    except Exception as error:  # a damaged pickle raises nearly any exception
        raise UnsafePickleError(f"not a whole pickle of an array: {error}") from error


def _array(loaded: Any) -> np.ndarray:
    """What the state of a plain array says: its version, shape, dtype, order and bytes."""
    match loaded:
        case Shell(name="array", state=(1, shape, dtype, bool(fortran), bytes(data))):
            return array_of(shape, dtype, fortran, data)
    raise unpickle.PickleError(f"the pickle holds a {kind(loaded)}, not an array of numbers")


def array_of(shape: Any, dtype: Any, fortran: bool, data: bytes) -> np.ndarray:
    """The array that a pickle describes.

    Args:
        shape: a tuple of integers.
        dtype: a :class:`linearize.unpickle.Shell` with NumPy's code and the state of a dtype.
        fortran: whether the first axis runs fastest.
        data: its bytes.

    Raises:
        PickleError: it is not an array of numbers, or its bytes are not as many as its shape says.
    """
    match shape, dtype:
        case tuple(shape), Shell(name=str(code), state=(_, str(order), *_)) if _NUMBERS.fullmatch(
            order + code
        ) and all(type(n) is int and n >= 0 for n in shape):
            known = np.dtype(order + code)
            if len(data) != math.prod(shape) * known.itemsize:
                raise unpickle.PickleError(f"the pickle's array of shape {shape} is cut short")
            # NumPy relies on its booleans' bytes being 0 or 1
            flat = np.frombuffer(data, np.uint8 if known.kind == "b" else known)
            flat = flat.astype(known.newbyteorder("="))
            return flat.reshape(shape, order="F" if fortran else "C")
    raise unpickle.PickleError(
        f"the pickle holds an array of {kind(dtype)}, not an array of numbers"
    )

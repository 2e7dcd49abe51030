"""Reads a pickled NumPy array without letting the pickle do anything else."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from linearize import files
from linearize.assets.asset import UnsafePickleError

_SAFE: dict[tuple[str, str], Any] = {
    (module, name): value
    for modules, name, value in (
        (("numpy",), "ndarray", np.ndarray),
        (("numpy",), "dtype", np.dtype),
        (("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct", None),
    )
    for module in modules
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _SAFE:
            raise UnsafePickleError(
                f"the pickle asks for {module}.{name}; only NumPy arrays are admitted, and "
                "nothing was run"
            )
        value = _SAFE[module, name]
        return _empty if value is None else value


def _empty(subtype: type, shape: tuple[int, ...], typecode: Any) -> np.ndarray:
    """NumPy's ``_reconstruct`` for plain arrays: an empty array, which the pickle then fills."""
    if subtype is not np.ndarray or shape not in ((0,), ()):
        raise UnsafePickleError("the pickle builds something else than a plain NumPy array")
    return np.empty((0,), "u1")


def load_array(content: bytes | Path) -> np.ndarray:
    """The one array that a pickle holds.

    Args:
        content: the pickle's bytes, or a file of them.

    Returns:
        An array of a boolean, integer or floating dtype.

    Raises:
        UnsafePickleError: the pickle names anything but NumPy's array and dtype, holds Python
            objects, is damaged, or holds something else than one array.

    >>> load_array(pickle.dumps(np.arange(3), protocol=4))
    array([0, 1, 2])
    """
    raw = files.read_bytes(content) if isinstance(content, Path) else content
    try:
        value = _ArraysOnly(io.BytesIO(raw)).load()
    except UnsafePickleError:
        raise
    except Exception as error:  # a damaged pickle raises nearly any exception
        raise UnsafePickleError(f"not a whole pickle of an array: {error}") from error
    if type(value) is not np.ndarray or value.dtype.kind not in "biuf":
        raise UnsafePickleError(
            f"the pickle holds a {type(value).__name__} "
            f"({getattr(value, 'dtype', 'no dtype')}), not an array of numbers"
        )
    return value

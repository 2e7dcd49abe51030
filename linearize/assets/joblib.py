"""Reads what joblib wrote, without letting the pickle in it do anything: shells and NumPy arrays.

joblib's file is a pickle in which each array is announced by a wrapper, whose bytes follow at once.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from linearize import files, unpickle
from linearize.assets.asset import UnsafePickleError
from linearize.assets.unpickle import array_of
from linearize.unpickle import Shell, Word, not_called, words

_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_NUMPY = (
    Word("numpy.ndarray", not_called),
    Word("numpy.float64", not_called),
    Word("numpy.dtype", lambda code, *_: Shell(code)),
    Word("numpy._core.multiarray.scalar", lambda dtype, data: array_of((), dtype, False, data)),
    Word(_WRAPPER, lambda *_: Shell(_WRAPPER)),
    Word("collections.defaultdict", lambda *_: {}),
    Word("builtins.int", not_called),
)


def shell(name: str) -> Word:
    """A class of which the file may hold objects; they become shells that are called by it.

    >>> shell("sklearn.svm._classes.LinearSVC").call().name
    'LinearSVC'
    """
    return Word(name, lambda *_: Shell(name.rpartition(".")[2]))


def read(path: Path, *classes: str) -> Any:
    """What a file of joblib, or a plain pickle, holds: shells, mappings, lists, numbers, arrays.

    Args:
        path: the file.
        classes: full names of those whose objects it may hold.

    Raises:
        UnsafePickleError: it names anything else, is damaged, or holds arrays of objects.
    """

    class Reader(_Reader):
        known: ClassVar[Mapping[str, Word]] = words(*_NUMPY, *map(shell, classes), unpickle.ORDERED)

    try:
        with files.open_regular(path) as file:
            return Reader(file).load()
    except unpickle.PickleError as error:
        raise UnsafePickleError(f"{path}: {error}") from None
    except OSError:
        raise
    except Exception as error:  # a damaged pickle raises nearly any exception
        raise UnsafePickleError(f"{path} is not a whole file of joblib: {error}") from error


class _Reader(unpickle.Unpickler):
    otherwise = "which the file of a scorer has no need of; nothing was run"

    def _load_build(self) -> None:
        unpickle.Unpickler._load_build(self)
        last = self.stack[-1]
        if type(last) is Shell and last.name == _WRAPPER:
            self.stack[-1] = self._array(last.state)

    def _array(self, state: Any) -> np.ndarray:
        match state:
            case {"shape": tuple(shape), "dtype": Shell(name=str(code)) as dtype, "order": order}:
                if not all(type(n) is int and n >= 0 for n in shape) or code[1:] not in _WIDTHS:
                    raise unpickle.PickleError("its pickle holds an array, not an array of numbers")
                if state.get("numpy_array_alignment_bytes"):
                    self.read(self.read(1)[0])
                data = self.read(math.prod(shape) * int(code[1:]))
                return array_of(shape, dtype, order == "F", data)
        raise unpickle.PickleError("its pickle announces an array in a way that is not known")

    dispatch: ClassVar[Any] = type(unpickle.Unpickler.dispatch)(
        unpickle.Unpickler.dispatch | {ord("b"): _load_build}
    )


_WIDTHS = {"1", "2", "4", "8"}

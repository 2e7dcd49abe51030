"""Arrays in the cache: made once, whole or not at all, and again where they are damaged."""

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linearize.assets.cache import atomic


def kept_arrays(
    path: Path, names: Sequence[str], make: Callable[[], Mapping[str, np.ndarray]]
) -> dict[str, np.ndarray]:
    """The arrays of these names in a file, which is written if it is not there or damaged.

    Args:
        path: an ``.npz`` whose name says everything that decides the arrays.
        names: what is wanted of it.
        make: gives at least these.
    """
    if path.is_file():
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in names}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            path.unlink(missing_ok=True)
    made: dict[str, Any] = dict(make())

    def write(target: Path) -> None:
        with target.open("wb") as file:
            np.savez(file, **made)

    atomic(path, write)
    return made

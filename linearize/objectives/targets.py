"""Targets that an objective asks for, checked on the host."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def role(batch: Mapping[str, Any], name: str, objective: object) -> Any:
    """A batch's entry.

    Raises:
        ValueError: it is not there.
    """
    if name not in batch:
        there = ", ".join(map(repr, batch)) or "none"
        raise ValueError(
            f"{type(objective).__name__} compares outputs with {name!r}, which the examples' "
            f"targets lack; there are: {there}"
        )
    return batch[name]


def check_integers(values: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    """Labels as int32 of a shape.

    Raises:
        ValueError: another shape, or no integers.
    """
    y = np.asarray(values)
    if y.shape != shape or not np.issubdtype(y.dtype, np.integer):
        wanted = f"({shape[0]},)" if len(shape) == 1 else str(shape)
        raise ValueError(f"labels are {y.dtype}{y.shape}; expected {wanted} integers")
    return y.astype(np.int32)


def check_labels(labels: ArrayLike, n: int, classes: int) -> np.ndarray:
    """Labels as (N,) int32.

    Raises:
        ValueError: another number than examples, no integers, or outside [0, classes).
    """
    y = check_integers(labels, (n,))
    if n and (y.min() < 0 or y.max() >= classes):
        raise ValueError(
            f"labels run from {y.min()} to {y.max()}; this readout has the classes 0 to "
            f"{classes - 1}"
        )
    return y

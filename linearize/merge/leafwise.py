"""Merging leaf by leaf, on the host in float64: no program, and one leaf in memory at a time."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from linearize import edit, tree
from linearize.task_vector import TaskVector
from linearize.types import Array


def leafwise(
    taus: Mapping[str, TaskVector], of: Callable[[str, np.ndarray], np.ndarray]
) -> TaskVector:
    """A vector whose leaves are made of those of T vectors.

    Args:
        taus: T task vectors of the same leaves.
        of: of a leaf's name and its values (T, ...), float64 or complex128: the merged leaf (...).

    Returns:
        The vector, each leaf in its own dtype, or in float32 if that is narrower.

    Raises:
        ValueError: no vector.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector, or in what is made of them.
    """
    total = edit.add(taus.values())
    for task, tau in taus.items():
        tree.check_finite(tau, what=f"the task vector {task!r}")
    merged = {
        name: jnp.asarray(of(name, np.stack([wide(tau.delta[name]) for tau in taus.values()])))
        .reshape(jnp.shape(leaf))
        .astype(jnp.promote_types(jnp.result_type(leaf), jnp.float32))
        for name, leaf in total.delta.items()
    }
    tree.check_finite(merged, what="the merged vector")
    return replace(total, delta=merged)


def wide(leaf: Array) -> np.ndarray:
    """A leaf on the host, in float64 or complex128."""
    values = np.asarray(leaf)
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def total_square(tau: TaskVector) -> float:
    """‖τ‖² in float64."""
    return sum(float(np.square(np.abs(wide(leaf))).sum()) for leaf in tau.delta.values())

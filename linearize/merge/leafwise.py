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

    Raises:
        ValueError: no vector.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector, or in what is made of them.
    """
    total = together(taus)
    return of_leaves(total, {name: of(name, stacked(taus, name)) for name in total.delta})


def together(taus: Mapping[str, TaskVector]) -> TaskVector:
    """The sum of vectors that belong together.

    Raises:
        ValueError: no vector.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector.
    """
    for task, tau in taus.items():
        tree.check_finite(tau, what=f"the task vector {task!r}")
    return edit.add(taus.values())


def stacked(taus: Mapping[str, TaskVector], name: str) -> np.ndarray:
    """A leaf of T vectors, (T, ...) in float64 or complex128."""
    return np.stack([wide(tau.delta[name]) for tau in taus.values()])


def of_leaves(like: TaskVector, leaves: Mapping[str, np.ndarray]) -> TaskVector:
    """A vector of these leaves, each of the shape and dtype that it has in another, or float32.

    Raises:
        NonFiniteError: NaN or infinity in a leaf.
    """
    delta = {
        name: jnp.asarray(
            leaves[name].reshape(jnp.shape(leaf)),
            jnp.promote_types(jnp.result_type(leaf), jnp.float32),
        )
        for name, leaf in like.delta.items()
    }
    tree.check_finite(delta, what="the merged vector")
    return replace(like, delta=delta)


def wide(leaf: Array) -> np.ndarray:
    """A leaf on the host, in float64 or complex128."""
    values = np.asarray(leaf)
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def total_square(tau: TaskVector) -> float:
    """‖τ‖² in float64."""
    return sum(float(np.square(np.abs(wide(leaf))).sum()) for leaf in tau.delta.values())

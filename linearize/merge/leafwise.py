"""Merging leaf by leaf, on the host in float64: no program, and one leaf in memory at a time.

Of lazy vectors (:meth:`linearize.TaskVector.open`) a merged one is lazy.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from linearize import edit, tree
from linearize.lazy import Lazy, alike
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
    return of_leaves(total, lambda name: of(name, stacked(taus, name)))


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


def of_leaves(like: TaskVector, make: Callable[[str], np.ndarray]) -> TaskVector:
    """A vector of leaves of the shape and dtype that they have in another, or float32.

    Args:
        like: that vector; where a leaf of it is lazy, so is ours.
        make: of a leaf's name: its values.

    Raises:
        NonFiniteError: NaN or infinity in a leaf; of a lazy one, when it is made.
    """
    what = "the merged vector"
    delta = {name: _leaf(leaf, partial(make, name)) for name, leaf in like.delta.items()}
    tree.check_finite(delta, what)
    return replace(
        like,
        delta={n: tree.finite(n, x, what) if isinstance(x, Lazy) else x for n, x in delta.items()},
    )


def _leaf(like: Any, make: Callable[[], np.ndarray]) -> Any:
    dtype = jnp.promote_types(jnp.result_type(like), jnp.float32)

    def made() -> Array:
        return jnp.asarray(make().reshape(np.shape(like)), dtype)

    return alike(like, made, dtype)


def wide(leaf: Array) -> np.ndarray:
    """A leaf on the host, in float64 or complex128."""
    values = np.asarray(leaf)
    return values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)


def total_square(tau: TaskVector) -> float:
    """‖τ‖² in float64."""
    return sum(float(np.square(np.abs(wide(leaf))).sum()) for leaf in tau.delta.values())

"""Leaves that are made when they are asked for: arithmetic on trees that no memory holds.

A tree of lazy leaves is as small as its names. What is computed of one is lazy too, until somebody
asks for its numbers; they are kept by nobody, so that leaf after leaf takes the memory of one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True, eq=False)
class Lazy:
    """An array by its shape, its dtype, and how it is made: each time anew.

    >>> leaf = Lazy((2,), np.dtype(np.float32), lambda: np.float32([1, 2]))
    >>> twice = lazily(lambda x: 2 * x, leaf)
    >>> twice.shape, now(twice)
    ((2,), Array([2., 4.], dtype=float32))
    """

    shape: tuple[int, ...]
    dtype: Any
    make: Callable[[], Any]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return prod(self.shape)

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """For NumPy, which makes it."""
        return np.asarray(self.make(), dtype)

    def __jax_array__(self) -> jax.Array:
        """For JAX, which makes it."""
        return jnp.asarray(self.make())


def lazily(op: Callable[..., Any], *leaves: Any) -> Any:
    """``op(*leaves)``; where a leaf is lazy, a lazy leaf of that value.

    Args:
        op: traceable, of one array or several; asked of shapes and dtypes at once, and of values
            whenever the result is made.
        leaves: arrays, lazy or not.
    """
    if not any(isinstance(leaf, Lazy) for leaf in leaves):
        return op(*leaves)
    out = jax.eval_shape(op, *map(_abstract, leaves))
    return Lazy(out.shape, out.dtype, lambda: eagerly(op, *leaves))


def eagerly(op: Callable[..., Any], *leaves: Any) -> Any:
    """``op`` of the leaves, lazy ones made for it.

    Where one was, the result is waited for: JAX else goes on to the next leaf, and the next, while
    those before are still in memory.
    """
    found = op(*map(now, leaves))
    lazy = any(isinstance(leaf, Lazy) for leaf in leaves)
    return jax.block_until_ready(found) if lazy else found


def alike(leaf: Any, make: Callable[[], Any], dtype: Any = None) -> Any:
    """``make()``, of a leaf's shape and of its dtype or another; lazy where the leaf is."""
    if not isinstance(leaf, Lazy):
        return make()
    return Lazy(leaf.shape, leaf.dtype if dtype is None else dtype, make)


def now(leaf: Any) -> Any:
    """The leaf as an array; a lazy one is made, as JAX has it."""
    return jnp.asarray(leaf.make()) if isinstance(leaf, Lazy) else leaf


def _abstract(leaf: Any) -> Any:
    if not isinstance(leaf, Lazy):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))

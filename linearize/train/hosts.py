"""Several processes, each with its share of the devices: what they put, fetch and agree on.

A value that is the same in every process becomes one global array, of which each process makes its
own shards alone. Files are written by one process, and what was decided there is told to the others
by the coordination service of ``jax.distributed``, so that no device waits for it.
"""

import functools
import itertools
import json
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from linearize.compiled import jit
from linearize.types import Array, PyTree


def several() -> bool:
    """Whether there is more than one process."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this one writes files."""
    return jax.process_index() == 0


def put(arrays: PyTree, where: PyTree) -> PyTree:
    """As ``jax.device_put``, also onto devices of other processes, which hold the same arrays.

    Args:
        arrays: a tree, the same in every process.
        where: a sharding, or a tree of them that begins as ``arrays`` does.
    """
    if not several():
        return jax.device_put(arrays, where)
    each = jax.tree.broadcast(where, arrays, is_leaf=lambda x: isinstance(x, Sharding))
    return jax.tree.map(_put, arrays, each)


def _put(leaf: Any, where: Sharding) -> Array:
    if where.is_fully_addressable:
        return jax.device_put(leaf, where)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return jax.device_put(leaf, where)
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        data = _put(jax.random.key_data(leaf), where)
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    whole = np.asarray(leaf)
    whole = whole.astype(jax.dtypes.canonicalize_dtype(whole.dtype), copy=False)
    return jax.make_array_from_callback(whole.shape, where, lambda index: whole[index])


def fetch(leaf: Any) -> np.ndarray:
    """The whole of an array, in every process; all of them ask for it."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    if not leaf.is_fully_replicated:
        assert isinstance(leaf.sharding, NamedSharding)
        leaf = _gathered(leaf.sharding.mesh)(leaf)
    return np.asarray(leaf.addressable_data(0))


@functools.cache
def _gathered(mesh: Any) -> Any:
    return jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))

"""Several processes, each with its share of the devices: what they put, fetch and agree on.

A value that is the same in every process becomes one global array, of which each process makes its
own shards alone. Files are written by one process, the first, and what it decided is told to the
others. All processes call these functions in the same order, from their main threads.
"""

import functools
import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from linearize import io
from linearize.compiled import jit
from linearize.types import Array, PyTree


class HostError(RuntimeError):
    """What another process met, or in what it differs."""


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


def together(what: str) -> None:
    """Until every process is here."""
    if several():
        multihost_utils.sync_global_devices(what)


def told(decide: Callable[[], Any]) -> Any:
    """What the first process decides, in every process.

    Args:
        decide: called in the first process alone; gives what JSON can hold.

    Raises:
        HostError: in the others, with what ``decide`` raised in the first.
    """
    if not several():
        return decide()
    if not first():
        said = json.loads(_broadcast(b""))
        if "error" in said:
            raise HostError(f"process 0: {said['error']}")
        return said["value"]
    try:
        value = decide()
    except Exception as error:
        _broadcast(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        raise
    _broadcast(json.dumps({"value": io.to_json(value)}).encode())
    return value


def _broadcast(words: bytes) -> bytes:
    """The bytes of the first process."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(words))))
    padded = np.frombuffer(words.ljust(size, b"\0")[:size], np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()


def check_same(**values: Any) -> None:
    """Every process has the same values.

    Raises:
        HostError: in all of them, with the names of what differs and the processes where it does.
    """
    if not several():
        return
    names = list(values)
    digests = [sha256(json.dumps(io.to_json(values[n])).encode()).digest() for n in names]
    own = np.stack([np.frombuffer(digest, np.uint8) for digest in digests])
    every = np.asarray(multihost_utils.process_allgather(own))  # (processes, values, 32)
    others = (every != every[:1]).any(-1)
    wrong = [f"{names[i]} of process {p}" for p, i in np.argwhere(others)]
    if wrong:
        raise HostError(
            f"{', '.join(wrong)} differ from those of process 0; start all processes with the same "
            f"command, code and versions (process {jax.process_index()} has "
            f"{ {names[i]: values[names[i]] for i in np.flatnonzero(others.any(0))} })"
        )


def anywhere(flag: bool) -> bool:
    """Whether it is true in any process."""
    return bool(np.any(multihost_utils.process_allgather(np.bool_(flag)))) if several() else flag

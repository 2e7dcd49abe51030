"""Several processes, each with its share of the devices: what they put, fetch and agree on.

A value that is the same in every process becomes one global array, of which each process makes its
own shards alone. Files are written by one process, the first, and what it decided is told to the
others. All processes call these functions in the same order, from their main threads.
"""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from linearize import files
from linearize.compiled import jit
from linearize.joining import LOST, joined
from linearize.joining import HostError as HostError
from linearize.joining import Processes as Processes
from linearize.joining import initialize as initialize
from linearize.types import Array, PyTree
from linearize.written import to_json

T = TypeVar("T")

_GONE = re.compile(r"gloo|nccl|\bmpi\b|connection|socket|unavailable|heartbeat|coordination", re.I)

_alone: ContextVar[bool] = ContextVar("alone", default=False)


def several() -> bool:
    """Whether there is more than one process, and this one is not :func:`alone`."""
    return jax.process_count() > 1 and not _alone.get()


def first() -> bool:
    """Whether this one writes files."""
    return jax.process_index() == 0 or not several()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """In the block nothing is asked of the other processes, which may do something else.

    >>> with alone():
    ...     several()
    False
    """
    before = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(before)


@contextlib.contextmanager
def reached() -> Iterator[None]:
    """What a network says when a process is gone, as an error that says what to do.

    Raises:
        HostError: another process ended, or cannot be reached.
    """
    try:
        yield
    except (RuntimeError, ValueError, TimeoutError) as error:  # JAX's two, and Orbax's
        if not joined() or isinstance(error, HostError) or not _GONE.search(str(error)):
            raise
        raise HostError(f"{LOST} ({error})") from error


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


@reached()
def fetch(leaf: Any) -> np.ndarray:
    """The whole of an array, in every process; all of them ask for it."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return np.asarray(leaf)
    if not leaf.is_fully_replicated:
        assert isinstance(leaf.sharding, NamedSharding)
        leaf = _gathered(leaf.sharding.mesh)(leaf)
    return np.asarray(leaf.addressable_data(0))


def own(arrays: PyTree) -> PyTree:
    """Arrays that lie on all processes' devices, whole on this one's; all of them ask for it."""
    return jax.tree.map(_own, arrays)


def _own(leaf: Any) -> Array:
    if jax.dtypes.issubdtype(getattr(leaf, "dtype", None), jax.dtypes.prng_key):
        data = _own(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return jnp.asarray(np.array(fetch(leaf)))


@functools.cache
def _gathered(mesh: Any) -> Any:
    return jit(lambda x: x, out_shardings=NamedSharding(mesh, PartitionSpec()))


@reached()
def together(what: str) -> None:
    """Until every process is here."""
    if several():
        multihost_utils.sync_global_devices(what)


def told(decide: Callable[[], Any]) -> Any:
    """What the first process decides, in every process.

    Within ``decide`` it asks nobody: what is told there is decided at once.

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
        with alone():
            value = decide()
    except Exception as error:
        _broadcast(json.dumps({"error": f"{type(error).__name__}: {error}"}).encode())
        raise
    _broadcast(json.dumps({"value": to_json(value)}).encode())
    return value


@contextlib.contextmanager
def held(by_first: contextlib.AbstractContextManager[T]) -> Iterator[T | None]:
    """A context, such as a lock, that the first process enters for all; None in the others.

    Raises:
        HostError: in the others, with what kept the first from entering.
    """
    with contextlib.ExitStack() as stack:
        entered: list[T] = []
        told(lambda: entered.append(stack.enter_context(by_first)))
        yield entered[0] if entered else None


@reached()
def _broadcast(words: bytes) -> bytes:
    """The bytes of the first process."""
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(words))))
    padded = np.frombuffer(words.ljust(size, b"\0")[:size], np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()


def check_same(values: Mapping[str, Any]) -> None:
    """Every process has the same values.

    Args:
        values: what JSON can hold, by name, mappings within mappings.

    Raises:
        HostError: in all processes, with the names of what differs, where, and from what.
    """
    if not several():
        return
    every = [json.loads(each) for each in gathered_words(json.dumps(to_json(values)))]
    leaves = [files.flat(each) for each in every]
    wrong = [
        f"{name} is {other.get(name)!r} in process {p} and {leaves[0].get(name)!r} in process 0"
        for p, other in enumerate(leaves)
        for name in sorted(leaves[0].keys() | other.keys())
        if other.get(name) != leaves[0].get(name)
    ]
    if wrong:
        raise HostError(
            "the processes differ; start all with the same command, code and versions:\n  "
            + "\n  ".join(wrong)
        )


@reached()
def gathered(row: np.ndarray) -> np.ndarray:
    """Each process's row, (P, N) of (N,), bit by bit: JAX would narrow what has 64."""
    every = multihost_utils.process_allgather(np.ascontiguousarray(row).view(np.uint8))
    return np.asarray(every).view(row.dtype)


def gathered_words(words: str) -> list[str]:
    """What each process says."""
    own = np.frombuffer(words.encode(), np.uint8)
    sizes = gathered(np.array([len(own)])).ravel()
    every = gathered(np.pad(own, (0, int(sizes.max()) - len(own))))
    return [bytes(row[:size]).decode() for row, size in zip(every, sizes, strict=True)]


@reached()
def largest(number: int) -> int:
    """Of all processes' numbers."""
    return int(gathered(np.array([number])).max()) if several() else number

"""The order of examples, and the way of batches to the device.

The examples form one endless stream: a permutation of the data set, then another, and so on. Step
``s`` (from 0) takes positions ``s B`` to ``(s + 1) B``, so the order is a function of the seed and
the step alone, nothing is dropped at the end of an epoch, and resuming needs no iterator's state.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from linearize import hosts, tree
from linearize.agreement import agree
from linearize.examples import count
from linearize.single import drawn
from linearize.train.mesh import Placement
from linearize.types import Array, PyTree

_WINDOW_BYTES = 4 << 20


@runtime_checkable
class Loader(Protocol):
    """Data that are too large for arrays, or made as they are used: batches by step.

    What a step is given must be a function of the arguments of :meth:`batches` and of the step
    alone, so that a run that is resumed goes on bitwise as if it had not been stopped.
    """

    @property
    def examples(self) -> int:
        """How many make an epoch."""
        ...

    @property
    def columns(self) -> Mapping[str, np.ndarray]:
        """The entries that are arrays in memory, such as ``labels``: (examples, ...)."""
        ...

    @property
    def spec(self) -> Mapping[str, tuple[tuple[int, ...], np.dtype]]:
        """Shape of one example and dtype of each entry of a batch."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the batches, but for the arguments of :meth:`batches`."""
        ...

    def batches(self, batch_size: int, seed: int, first: int) -> Iterator[PyTree]:
        """The batches of steps ``first``, ``first + 1``, ... without end: arrays (B, ...)."""
        ...


Data = Mapping[str, PyTree] | Loader
"""What a run is trained on."""

Gather = Callable[..., PyTree]
""":func:`gather`, compiled: ``(data, order, first, step) -> batch``."""


@lru_cache(maxsize=32)
def permutation(examples: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: int32, shape (examples,)."""
    order = np.random.default_rng([seed, epoch]).permutation(examples).astype(np.int32)
    order.setflags(write=False)
    return order


def rows(examples: int, batch_size: int, seed: int, first: int, count: int) -> np.ndarray:
    """Indices of the batches of steps ``first`` to ``first + count``: int32, (count, batch_size).

    >>> order = rows(examples=6, batch_size=4, seed=0, first=0, count=3)
    >>> sorted(order.reshape(-1)[:6].tolist()), sorted(order.reshape(-1)[6:].tolist())
    ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5])
    """
    start, stop = first * batch_size, (first + count) * batch_size
    parts = []
    for epoch in range(start // examples, -(-stop // examples)):
        offset = epoch * examples
        parts.append(
            permutation(examples, seed, epoch)[max(start - offset, 0) : max(stop - offset, 0)]
        )
    return np.concatenate(parts).reshape(count, batch_size)


def size(data: Mapping[str, PyTree]) -> int:
    """Bytes of a data set in memory."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(data))


def entries(data: Data, batch_size: int) -> dict[str, PyTree]:
    """Shapes and dtypes of a batch, by role."""

    def batch(inner: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        there = jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
        return jax.ShapeDtypeStruct((batch_size, *inner), there)

    if isinstance(data, Loader):
        return {name: batch(inner, dtype) for name, (inner, dtype) in data.spec.items()}
    return jax.tree.map(lambda leaf: batch(np.shape(leaf)[1:], leaf.dtype), dict(data))


def check_entries(data: Data, wanted: Iterable[str], what: str = "data") -> None:
    """Refuse data without some of the entries.

    Raises:
        ValueError: with those that are missing, and those that are there.
    """
    there = entries(data, 1)
    if missing := [name for name in wanted if name not in there]:
        raise ValueError(
            f"{what} has no entry {', '.join(map(repr, missing))}; it has "
            f"{', '.join(map(repr, there))}"
        )


def labels(data: Data) -> Any:
    """The entry ``labels`` of all examples; None where there is none."""
    return (data.columns if isinstance(data, Loader) else data).get("labels")


def check(data: Data) -> int:
    """The number of examples.

    Raises:
        ValueError: no entries, no examples, entries that are no arrays of numbers, or that disagree
            in their number.
    """
    if isinstance(data, Loader):
        if not data.examples:
            raise ValueError("data hold no example; give at least one")
        return data.examples
    if not isinstance(data, Mapping):
        raise ValueError(
            f"data is a {type(data).__name__}; expected a mapping of arrays by role, such as "
            "{'inputs': x, 'labels': y}, or a Loader"
        )
    for name, entry in data.items():
        for leaf in jax.tree.leaves(entry):
            _check_numbers(name, entry, leaf)
    return count(data, "data")


def _check_numbers(name: str, entry: PyTree, leaf: Any) -> None:
    if isinstance(leaf, jax.Array):
        return
    dtype = getattr(leaf, "dtype", None)
    if not isinstance(dtype, np.dtype):
        kind = type(entry if isinstance(entry, list | tuple) else leaf).__name__
        raise ValueError(
            f"data[{name!r}] is a {kind}; expected an array, of NumPy or JAX, or a tree of them: "
            f"np.asarray(data[{name!r}])"
        )
    if dtype.kind in "OUSMm":
        raise ValueError(
            f"data[{name!r}] has dtype {dtype}; expected numbers (of names, "
            "np.unique(names, return_inverse=True)[1])"
        )


class Resident:
    """Data on the device; the order of many steps is uploaded at once."""

    def __init__(
        self,
        data: Mapping[str, PyTree],
        batch_size: int,
        seed: int,
        total: int,
        place: Placement,
        gather: Gather,
    ) -> None:
        self.examples = check(data)
        self.batch_size, self.seed, self._gather = batch_size, seed, gather
        self.length = min(total, max(1, _WINDOW_BYTES // (4 * batch_size)))
        self.data = hosts.put(dict(data), place.replicated)
        self._place = place
        self._first: int | None = None
        self._window: tuple[Array, Array] | None = None

    def window(self, step: int) -> tuple[Array, Array]:
        """``(order (W, B) int32, first)``: the batches of steps ``first`` to ``first + W``."""
        first = step - step % self.length
        if first != self._first or self._window is None:
            order = rows(self.examples, self.batch_size, self.seed, first, self.length)
            placed = hosts.put((order, np.int32(first)), self._place.replicated)
            self._first, self._window = first, placed
        return self._window

    def batch(self, step: int, counter: Any = None) -> PyTree:
        """The batch of a step; ``counter`` is its number on the device, where it is there."""
        counter = np.int32(step) if counter is None else counter
        return self._gather(self.data, *self.window(step), counter)

    def prepare(self, step: int) -> None:
        """Nothing: all of it is there."""

    def check(self, batch: PyTree, step: int) -> None:
        """One example of a step's batch is the data's (:func:`check_rows`)."""
        (index,) = rows(self.examples, self.batch_size, self.seed, step, 1)
        check_rows(self.data, batch, index)

    def until_window_ends(self, step: int) -> int:
        """How many steps from ``step`` on the present window still covers."""
        return self.length - step % self.length


class Loaded:
    """A loader's batches, the next one sent while the device works."""

    def __init__(self, data: Loader, batch_size: int, seed: int, place: Placement) -> None:
        self.examples = check(data)
        self._data, self._batch_size, self._seed, self._place = data, batch_size, seed, place
        self._next: tuple[int, Any] | None = None
        self._iterator: Iterator[PyTree] | None = None
        self._at = 0

    def batch(self, step: int) -> PyTree:
        """The batch of a step, on the device."""
        if self._next is not None and self._next[0] == step:
            return self._next[1]
        if self._iterator is None or step != self._at:
            self.close()
            self._iterator = self._data.batches(self._batch_size, self._seed, step)
        self._at = step + 1
        return hosts.put(dict(next(self._iterator)), self._place.batch)

    def prepare(self, step: int) -> None:
        """Take and send a batch ahead of its step."""
        self._next = (step, self.batch(step))

    def close(self) -> None:
        """Stop what makes batches ahead."""
        close = getattr(self._iterator, "close", None)
        self._iterator = None
        if close is not None:
            close()


class Streamed:
    """Data on the host; the next batch is gathered and sent while the device works."""

    def __init__(
        self, data: Mapping[str, PyTree], batch_size: int, seed: int, place: Placement
    ) -> None:
        self.examples = check(data)
        self.data, self.batch_size, self.seed, self._place = data, batch_size, seed, place
        self._next: tuple[int, Any] | None = None

    def batch(self, step: int) -> PyTree:
        """The batch of a step, on the device."""
        if self._next is not None and self._next[0] == step:
            return self._next[1]
        (index,) = rows(self.examples, self.batch_size, self.seed, step, 1)

        def taken(leaf: Any) -> Any:
            is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            return leaf[index] if is_key else np.asarray(leaf)[index]

        return hosts.put(jax.tree.map(taken, dict(self.data)), self._place.batch)

    def prepare(self, step: int) -> None:
        """Gather and send a batch ahead of its step."""
        self._next = (step, self.batch(step))


Feed = Resident | Loaded | Streamed


def of(
    data: Data,
    batch_size: int,
    seed: int,
    total: int,
    place: Placement,
    gather: Gather,
    room: int,
) -> Feed:
    """The way of a data set to the device.

    Args:
        data: checked.
        batch_size: examples a batch.
        seed: of their order.
        total: steps that there will be.
        place: the devices.
        gather: takes a batch out of resident data.
        room: bytes up to which data may live on the device.
    """
    if isinstance(data, Loader):
        return Loaded(data, batch_size, seed, place)
    if size(data) <= room:
        return Resident(data, batch_size, seed, total, place, gather)
    return Streamed(data, batch_size, seed, place)


class Turns:
    """Batches of several sets, one set a step in turn: of each, the entries ``roles``."""

    def __init__(self, feeds: Sequence[Feed], roles: Sequence[str]) -> None:
        self._feeds, self._roles = feeds, roles

    def batch(self, step: int) -> tuple[PyTree, ...]:
        """The batch of a step, on the device."""
        turn, which = divmod(step, len(self._feeds))
        found = self._feeds[which].batch(turn)
        return tuple(found[role] for role in self._roles)

    def prepare(self, step: int) -> None:
        """Send a batch ahead of its step."""
        turn, which = divmod(step, len(self._feeds))
        self._feeds[which].prepare(turn)

    def check(self, step: int) -> None:
        """One example of a step's batch is the data's, where a program took it out of them."""
        turn, which = divmod(step, len(self._feeds))
        found = self._feeds[which]
        if isinstance(found, Resident):
            found.check(found.batch(turn), turn)

    def close(self) -> None:
        """Stop what makes batches ahead."""
        for each in self._feeds:
            if isinstance(each, Loaded):
                each.close()


def gather(data: PyTree, order: Array, first: Array, step: Array, place: Placement) -> PyTree:
    """The batch of ``step`` out of resident data, split over the batch axes."""
    index = place.split_batch(order[step - first])
    return place.split_batch(jax.tree.map(lambda leaf: leaf[index], data))


def check_rows(data: Mapping[str, PyTree], batch: PyTree, index: np.ndarray) -> None:
    """One example of a batch is the data's, to the last bit.

    Args:
        data: all examples.
        batch: as a program took it out of them.
        index: (B,), which examples those are.

    Raises:
        DisagreementError: it is another.
    """
    k, examples = drawn(len(index)), tree.flatten(dict(data))
    for name, leaf in tree.flatten(batch).items():
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) or not leaf.is_fully_addressable:
            continue
        found = np.asarray(leaf)[k]
        expected = np.asarray(examples[name][index[k]]).astype(found.dtype)
        same = (found == expected) | ((found != found) & (expected != expected))
        agree(
            float(np.count_nonzero(~same)),
            0.0,
            scale=0.0,
            dtypes=(np.dtype(np.float32),),
            terms=0,
            what=f"how many numbers of {name!r} are not the data's in a batch",
            entry=f"of example {index[k]}",
        )

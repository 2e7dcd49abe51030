"""A whole data set through ``f(params, *inputs)``: one compilation, padded last batch.

The data is cut into equal batches once and stays on the device if it fits; results come to the
host while the next batch runs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track as rich_track

from linearize import hosts, narration, shares
from linearize.current import current
from linearize.examples import Examples, as_arguments, count
from linearize.fields import integer
from linearize.single import check_outputs, forward
from linearize.taylor import check_function
from linearize.types import Apply, Array, Params, PyTree

RESIDENT_BYTES = 2 * 1024**3
"""Data sets up to this size are kept on the device between passes."""

_IN_FLIGHT = 2
_Item = TypeVar("_Item")


class Batches(NamedTuple):
    """A data set cut into batches of one shape; the last repeats its last example as padding."""

    items: Sequence[tuple[PyTree, ...]]
    n: int

    def first(self) -> tuple[tuple[PyTree, ...], slice]:
        """The first batch of this process's share, and which examples it holds."""
        at = shares.share(len(self.items)).start
        args = self.items[at]
        size = count(args)
        return args, slice(at * size, min((at + 1) * size, self.n))


def examples(split: Any) -> tuple[PyTree, np.ndarray]:
    """``(inputs, labels (N,))`` of a split in any form that :meth:`linearize.Examples.of` takes.

    Raises:
        ValueError: as there; labels that are not (N,) integers.
    """
    found = Examples.of(split)
    labels = np.asarray(found.labels)
    if labels.ndim != 1:
        raise ValueError(f"labels have shape {labels.shape}; expected ({len(found)},)")
    return found.inputs, labels


def split_batches(inputs: PyTree, batch_size: int, *, balanced: bool = False) -> Batches:
    """Cut ``inputs`` (an array; a tuple for several arguments) into padded batches of one shape.

    Args:
        inputs: arrays that share axis 0.
        batch_size: upper limit. Fewer examples than that take the next power of two, so that small
            data sets of many sizes share a few compilations.
        balanced: spread the examples evenly instead, for data that is passed many times.

    Raises:
        ValueError: no example, or ``batch_size`` below 1.
    """
    batch_size = integer("batch_size", batch_size, low=1)
    args = as_arguments(inputs)
    n = count(args)
    if balanced:
        batch_size = -(-n // -(-n // batch_size))
    elif n < batch_size:
        batch_size = min(batch_size, 1 << (n - 1).bit_length())
    resident = sum(leaf.nbytes for leaf in jax.tree.leaves(args)) <= RESIDENT_BYTES
    windows = Windows(args, range(0, n, batch_size), batch_size)
    return Batches([jax.device_put(item) for item in windows] if resident else windows, n)


class Windows(Sequence[tuple[PyTree, ...]]):
    """The batches of a data set, each cut when it is asked for: what is on disk stays there."""

    def __init__(self, args: tuple[PyTree, ...], starts: range, size: int) -> None:
        self._args, self._starts, self._size = args, starts, size

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Windows(self._args, self._starts[at], self._size)
        return window(self._args, self._starts[at], self._size)


def window(inputs: PyTree, start: int, size: int) -> PyTree:
    """``size`` examples from ``start`` on; beyond the end the last one is repeated."""
    return jax.tree.map(partial(_window, start=start, size=size, n=count(inputs)), inputs)


def _window(leaf: Array | np.ndarray, *, start: int, size: int, n: int) -> Array | np.ndarray:
    on_device = isinstance(
        leaf, jax.Array
    )  # else in memory, mapped from disk, or read when indexed
    if start + size <= n and not on_device:
        return leaf[start : start + size]
    rows = np.minimum(np.arange(start, start + size), n - 1)
    return jnp.take(leaf, rows, axis=0) if on_device else leaf[rows]


def outputs(
    f: Apply,
    params: Params,
    inputs: PyTree,
    batch_size: int = 256,
    *,
    progress: bool = False,
) -> PyTree:
    """``f(params, *inputs)`` for a whole data set.

    Args:
        f: ``f(params, *inputs) -> outputs``, each output with examples on axis 0. Compiled once
            per batch shape; give the same function object to have the compilation reused.
        params: parameters, any pytree.
        inputs: arrays with examples on axis 0; a tuple for a model of several arguments.
        batch_size: examples per pass.
        progress: draw a progress bar.

    Returns:
        What ``f`` returns, with all N examples on axis 0, as NumPy arrays.

    Raises:
        ValueError: no example, or an output without examples on axis 0.
        DisagreementError: a sampled example, computed alone, has other outputs.

    >>> f = lambda params, x: params * x
    >>> outputs(f, 2.0, np.arange(5.0), batch_size=2).tolist()
    [0.0, 2.0, 4.0, 6.0, 8.0]
    """
    check_function(f)
    batches = split_batches(inputs, batch_size)
    f = current(f, params, *batches.items[0])
    found = gather(partial(forward, f, params), batches, progress=progress)
    args, rows = batches.first()
    own = jax.tree.map(lambda leaf: leaf[rows], found)
    check_outputs(f, params, args, own, rows.stop - rows.start)
    return found


def gather(
    step: Callable[[tuple[PyTree, ...]], PyTree],
    batches: Batches,
    *,
    axes: PyTree = 0,
    progress: bool = False,
) -> PyTree:
    """``step`` on every batch, the results joined on the host and cut to N examples.

    Of several processes each takes its share of the batches, and all have all results.

    Args:
        step: a jitted function of one batch's arguments.
        batches: from :func:`split_batches`.
        axes: where each result has its examples; a tree prefix of integers.
        progress: draw a progress bar.
    """

    def passed(numbers: Sequence[int]) -> Iterator[PyTree]:
        return fetched(step(batches.items[i]) for i in track(numbers, progress))

    found = shares.each(passed, len(batches.items))
    size = count(batches.items[0])

    def join(axis: int, *parts: PyTree) -> PyTree:
        return jax.tree.map(partial(_join, axis=axis, size=size, n=batches.n), *parts)

    return jax.tree.map(join, axes, *found)


def fetched(results: Iterable[PyTree]) -> Iterator[PyTree]:
    """What programs give, on the host, with a lag: the device stays busy, its memory bounded."""
    pending: deque[PyTree] = deque()
    for result in results:
        pending.append(result)
        if len(pending) > _IN_FLIGHT:
            yield jax.device_get(pending.popleft())
    yield from map(jax.device_get, pending)


def _join(*parts: np.ndarray, axis: int, size: int, n: int) -> np.ndarray:
    _check_axis(np.shape(parts[0]), axis, size)
    whole = np.concatenate(parts, axis)
    return whole if whole.shape[axis] == n else whole[(slice(None),) * axis + (slice(n),)]


def _check_axis(shape: tuple[int, ...], axis: int, size: int) -> None:
    if len(shape) <= axis or shape[axis] != size:
        raise ValueError(
            f"f returns an array of shape {shape} for {size} examples; expected examples on axis "
            f"{axis}"
        )


def output_shapes(f: Apply, params: Params, batches: Batches) -> PyTree:
    """Shapes of the outputs of all N examples; nothing is run.

    Raises:
        ValueError: an output without examples on axis 0.
    """
    size = count(batches.items[0])

    def whole(batch: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        _check_axis(batch.shape, 0, size)
        return jax.ShapeDtypeStruct((batches.n, *batch.shape[1:]), batch.dtype)

    return jax.tree.map(whole, forward.eval_shape(f, params, batches.items[0]))


def track(items: Sequence[_Item], progress: bool, label: str = "evaluating") -> Iterable[_Item]:
    """The items, with a progress bar of the first process if wanted, else with lines in the log."""
    console = narration.screen(progress and hosts.first())
    if console is None:
        return narration.paced(items, label)
    return rich_track(items, label, transient=True, console=console)

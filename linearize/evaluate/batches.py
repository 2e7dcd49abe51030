"""A whole data set through ``f(params, *inputs)``: one compilation, padded last batch.

The data is cut into equal batches once and stays on the device if it fits; results come to the
host while the next batch runs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from rich.progress import track as rich_track

from linearize import narration, tree
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


def examples(split: Any) -> tuple[PyTree, np.ndarray]:
    """``(inputs, labels)`` of a split, whichever way it is written.

    Args:
        split: a pair, a mapping with ``inputs`` and ``labels``, or an object with ``images`` and
            ``labels`` (:class:`linearize.data.Split`).

    Returns:
        Inputs as given and labels (N,) as an integer array.

    Raises:
        ValueError: another kind of object, no example, labels that are not integers or whose
            number differs from the inputs'.
    """
    if isinstance(split, Mapping) and {"inputs", "labels"} <= set(split):
        inputs, labels = split["inputs"], split["labels"]
    elif hasattr(split, "images") and hasattr(split, "labels"):
        inputs, labels = split.images, split.labels
    elif isinstance(split, tuple | list) and len(split) == 2:
        inputs, labels = split
    else:
        raise ValueError(
            f"split is a {type(split).__name__}; expected (inputs, labels), a mapping with these "
            "keys, or an object with images and labels"
        )
    labels = np.asarray(labels)
    n = count(inputs)
    if labels.shape != (n,) or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {labels.dtype}{labels.shape}; expected ({n},) integers, one per example"
        )
    return inputs, labels


def count(inputs: PyTree) -> int:
    """Number of examples: the length of axis 0 that all arrays share.

    Raises:
        ValueError: there is none, or the arrays disagree.
    """
    sizes = {np.shape(leaf)[0] if np.ndim(leaf) else -1 for leaf in jax.tree.leaves(inputs)}
    if len(sizes) != 1 or -1 in sizes:
        shapes = [np.shape(leaf) for leaf in jax.tree.leaves(inputs)]
        raise ValueError(f"inputs have shapes {shapes}; expected arrays that share axis 0")
    (n,) = sizes
    if n == 0:
        raise ValueError("inputs hold no example; give at least one")
    return n


def check_inputs(inputs: PyTree, what: str = "inputs") -> None:
    """Floating inputs in memory are finite in the dtype that JAX gives them.

    Raises:
        NonFiniteError: with the number of examples that hold NaN or infinity.
    """
    for leaf in jax.tree.leaves(inputs):
        if isinstance(leaf, np.ndarray | jax.Array) and tree.is_trainable(leaf):
            dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.asarray(leaf).astype(dtype, copy=False))
            if not finite.all():
                bad = ~finite.reshape(len(finite), -1).all(1)
                raise tree.NonFiniteError(
                    f"{what} hold NaN or infinity in {np.count_nonzero(bad)} of {len(bad)} "
                    f"examples, the first at {int(bad.argmax())}; mend them or leave them out"
                )


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
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}; expected 1 or more")
    args = as_arguments(inputs)
    n = count(args)
    if balanced:
        batch_size = -(-n // -(-n // batch_size))
    elif n < batch_size:
        batch_size = min(batch_size, 1 << (n - 1).bit_length())
    resident = sum(leaf.nbytes for leaf in jax.tree.leaves(args)) <= RESIDENT_BYTES
    windows = Windows(args, batch_size, n)
    return Batches([jax.device_put(item) for item in windows] if resident else windows, n)


class Windows(Sequence[tuple[PyTree, ...]]):
    """The batches of a data set, each cut when it is asked for: what is on disk stays there."""

    def __init__(self, args: tuple[PyTree, ...], batch_size: int, n: int) -> None:
        self._args, self._starts, self._size = args, range(0, n, batch_size), batch_size

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return [self[i] for i in range(len(self))[at]]
        return window(self._args, self._starts[at], self._size)


def as_arguments(inputs: PyTree) -> tuple[PyTree, ...]:
    """``inputs`` as the tuple of a model's arguments: an array is a single one."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


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
    found = gather(partial(forward, f, params), batches, progress=progress)
    size = min(batches.n, count(batches.items[0]))
    check_outputs(f, params, batches.items[0], found, size)
    return found


def gather(
    step: Callable[[tuple[PyTree, ...]], PyTree],
    batches: Batches,
    *,
    axes: PyTree = 0,
    progress: bool = False,
) -> PyTree:
    """``step`` on every batch, the results joined on the host and cut to N examples.

    Args:
        step: a jitted function of one batch's arguments.
        batches: from :func:`split_batches`.
        axes: where each result has its examples; a tree prefix of integers.
        progress: draw a progress bar.
    """
    pending: deque[PyTree] = deque()
    fetched = []
    for args in track(batches.items, progress):
        pending.append(step(args))
        if len(pending) > _IN_FLIGHT:
            fetched.append(jax.device_get(pending.popleft()))
    fetched += [jax.device_get(result) for result in pending]
    size = count(batches.items[0])

    def join(axis: int, *parts: PyTree) -> PyTree:
        return jax.tree.map(partial(_join, axis=axis, size=size, n=batches.n), *parts)

    return jax.tree.map(join, axes, *fetched)


def _join(*parts: np.ndarray, axis: int, size: int, n: int) -> np.ndarray:
    if np.ndim(parts[0]) <= axis or np.shape(parts[0])[axis] != size:
        raise ValueError(
            f"f returns an array of shape {np.shape(parts[0])} for {size} examples; expected "
            f"examples on axis {axis}"
        )
    whole = np.concatenate(parts, axis)
    return whole if whole.shape[axis] == n else whole[(slice(None),) * axis + (slice(n),)]


def track(items: Sequence[_Item], progress: bool, label: str = "evaluating") -> Iterable[_Item]:
    """The items, with a progress bar in the terminal if wanted, and else with lines in the log."""
    return rich_track(items, label, transient=True) if progress else narration.paced(items, label)

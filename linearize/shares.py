"""Work shared among processes: each does its part of the items, and all have the whole result.

All processes call these functions in the same order and with the same arguments, from their main
threads. Which items are whose follows from their number, so that nothing need be said beforehand.
Results are exchanged once nothing of this process's is under way, as the bytes that they are: an
item has one result to the bit, whichever process made it. What goes wrong in one process is an
error in all. Within :func:`linearize.hosts.alone`, and in one process, all items are one's own.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce

import jax
import numpy as np

from linearize import hosts
from linearize.types import PyTree

_BYTES = 2**26
"""Of all processes together, that a device holds at a time while they are exchanged."""
_ALIGNED = 16


def share(n: int) -> range:
    """Which of n items are this process's: numbers that differ by one at most among processes.

    >>> share(5)
    range(0, 5)
    """
    return share_of(n, jax.process_index(), jax.process_count()) if hosts.several() else range(n)


def share_of(n: int, process: int, count: int) -> range:
    """Which of n items are those of one of ``count`` processes.

    >>> [share_of(5, process, 2) for process in range(2)]
    [range(0, 2), range(2, 5)]
    """
    return range(n * process // count, n * (process + 1) // count)


def each(
    work: Callable[[Sequence[int]], Iterable[PyTree]], n: int, at_once: int | None = None
) -> Iterator[PyTree]:
    """The results of n items in order, in every process, each of which makes its share of them.

    Where items do not divide evenly, a process that would wait makes one again that is another's.

    Args:
        work: gives the result of each of the items whose numbers it is called with, which are a
            share and one at least: trees alike in structure, shapes and dtypes. In several
            processes they come as NumPy arrays.
        n: how many items there are.
        at_once: how many items' results may be held; all by default. Processes meet once for each.

    Raises:
        HostError: another process failed, with what it says; or made results of another kind.

    >>> list(each(lambda numbers: (i**2 for i in numbers), 4))
    [0, 1, 4, 9]
    """
    if not hosts.several():
        yield from work(range(n))
        return
    step = at_once or max(n, 1)
    for first in range(0, n, step):
        yield from _together(work, range(first, min(first + step, n)))


def done(
    work: Callable[[Sequence[int]], Iterable[str]], n: int, at_once: int
) -> Iterator[list[str]]:
    """Items that are each done once, and whose results are left where all processes find them.

    Args:
        work: does the items whose numbers it is called with, a share, and gives words about each.
        n: how many items there are.
        at_once: after how many of its own a process tells the others; they meet once for each.

    Yields:
        The words about the items that were done since, by all processes in their order.

    Raises:
        HostError: as :func:`each`.

    >>> list(done(lambda numbers: map(str, numbers), 3, at_once=2))
    [['0', '1'], ['2']]
    """
    doing = iter(work(share(n)))
    most = -(-n // (jax.process_count() if hosts.several() else 1))
    for _ in range(0, most, at_once):
        with alike():
            words = json.dumps(list(itertools.islice(doing, at_once)))
        every = hosts.gathered_words(words) if hosts.several() else [words]
        yield [said for process in every for said in json.loads(process)]
    next(doing, None)


def total(work: Callable[[range], PyTree], n: int) -> PyTree:
    """The sum over n items in every process, each of which adds up its share of them.

    Processes' sums are added in their order, from the first's on, in the dtypes of the leaves. That
    is not the order of one process: of m items' numbers the two sums differ by at most
    2 m ε Σ |numbers|.

    Args:
        work: gives the sum over the items whose numbers it is called with: zeros if there are none.
        n: how many items there are.

    Raises:
        HostError: as :func:`each`.

    >>> total(sum, 4)
    6
    """
    if not hosts.several():
        return work(range(n))
    own = share(n)
    with alike():
        part = jax.tree.map(np.asarray, work(own))
    _check_kinds(n, part)
    return jax.tree.map(lambda x: reduce(np.add, _exchanged(x.ravel())).reshape(x.shape), part)


def _together(work: Callable[[Sequence[int]], Iterable[PyTree]], items: range) -> Iterator[PyTree]:
    count, n = jax.process_count(), len(items)
    start, most = share(n).start, -(-n // count)
    with alike():
        own = [items[min(start + k, n - 1)] for k in range(most)]
        made = [jax.tree.map(np.asarray, result) for result in work(own)]
    _check_kinds(n, *made)
    rows = _exchanged(np.concatenate([_packed(result) for result in made]))
    for p, row in enumerate(rows.reshape(count, most, rows.shape[1] // most)):
        yield from (_unpacked(each, made[0]) for each in row[: len(share_of(n, p, count))])


def _packed(result: PyTree) -> np.ndarray:
    """The bytes of all leaves, each filled up so that the next lies as its dtype wants."""
    flat = [np.ascontiguousarray(leaf).reshape(-1) for leaf in jax.tree.leaves(result)]
    parts = [np.pad(leaf.view(np.uint8), (0, -leaf.nbytes % _ALIGNED)) for leaf in flat]
    return np.concatenate([*parts, np.empty(0, np.uint8)])


def _unpacked(row: np.ndarray, like: PyTree) -> PyTree:
    at = 0

    def leaf(like: np.ndarray) -> np.ndarray:
        nonlocal at
        found = row[at : at + like.nbytes].view(like.dtype).reshape(like.shape)
        at += like.nbytes + -like.nbytes % _ALIGNED
        return found

    return jax.tree.map(leaf, like)


def _exchanged(row: np.ndarray) -> np.ndarray:
    """Every process's row of numbers, (P, N)."""
    count = jax.process_count()
    found = np.empty((count, len(row)), row.dtype)
    step = max(1, _BYTES // (count * row.itemsize))
    for at in range(0, len(row), step):
        found[:, at : at + step] = hosts.gathered(row[at : at + step])
    return found


@contextlib.contextmanager
def alike() -> Iterator[None]:
    """What fails in the block in one process fails in all; it is done :func:`hosts.alone`.

    Raises:
        HostError: another process failed, with what it says.
    """
    if not hosts.several():
        yield
        return
    try:
        with hosts.alone():
            yield
    except Exception as error:
        hosts.gathered_words(f"{type(error).__name__}: {error}")
        raise
    for process, words in enumerate(hosts.gathered_words("")):
        if words:
            raise hosts.HostError(f"process {process}: {words}")


def _check_kinds(n: int, *results: PyTree) -> None:
    """All results of all processes are alike, so that their bytes can be told apart."""
    kinds = {
        str([jax.tree.structure(result), *((x.shape, x.dtype) for x in jax.tree.leaves(result))])
        for result in results
    }
    hosts.check_same({"items": n, "results": sorted(kinds)})
    assert len(kinds) == 1, kinds

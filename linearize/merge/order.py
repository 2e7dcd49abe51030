"""The k-th largest of numbers that come in parts, of which one is in memory at a time."""

from collections.abc import Callable, Iterable

import numpy as np

MOST = 2**22
"""Numbers that are sorted in memory."""
_BITS = 16
"""By which numbers are told apart, a pass."""


def largest(
    parts: Callable[[], Iterable[np.ndarray]], k: int, count: int, *, most: int = MOST
) -> float:
    """The k-th largest, exactly, in at most four passes.

    Numbers that are not negative are in the order of their bits, so a pass counts them by the next
    16 of these, and one of the counts holds the k-th.

    Args:
        parts: gives all numbers anew each time it is called, float64 (n,), none negative or NaN.
        k: 1 for the largest of all.
        count: how many there are.
        most: how many candidates are held together.

    Raises:
        ValueError: there are fewer than k numbers.

    >>> largest(lambda: (np.float64(part) for part in ([1, 4], [3], [3, 0])), 3, 5)
    3.0
    """
    prefix, shift = 0, 64  # candidates begin with these bits
    if not 1 <= k <= count:
        raise ValueError(f"k={k} of {count} numbers; expected 1 to {count}")
    while count > most and shift:
        shift -= _BITS
        counts = np.zeros(2**_BITS, np.int64)
        for part in parts():
            bits = _candidates(part, prefix, shift + _BITS) >> np.uint64(shift)
            digits = (bits & np.uint64(2**_BITS - 1)).astype(np.int64)
            counts += np.bincount(digits, minlength=2**_BITS)
        above = np.cumsum(counts[::-1])[::-1]  # how many have these bits or larger ones
        chosen = int(np.flatnonzero(above >= k)[-1])
        k -= int(above[chosen] - counts[chosen])
        prefix, count = prefix << _BITS | chosen, int(counts[chosen])
    if not shift:
        return float(np.uint64(prefix).view(np.float64))
    found = np.concatenate([_candidates(part, prefix, shift) for part in parts()])
    return float(np.partition(found, count - k)[count - k].view(np.float64))


def _candidates(part: np.ndarray, prefix: int, shift: int) -> np.ndarray:
    """The numbers, as their bits, that begin with a prefix."""
    bits = np.ascontiguousarray(part, np.float64).view(np.uint64)
    return bits if shift == 64 else bits[bits >> np.uint64(shift) == np.uint64(prefix)]

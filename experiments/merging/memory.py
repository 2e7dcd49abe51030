"""How large the arrays are that a merge holds at once."""

import threading
import tracemalloc
from collections.abc import Callable
from typing import TypeVar

import jax

T = TypeVar("T")

_EVERY = 2e-3
"""Seconds between two looks at JAX's arrays."""


def held(make: Callable[[], T]) -> tuple[T, int]:
    """What is made, and bytes at the peak, beyond those before: NumPy's and Python's, and JAX's.

    The former are traced. The latter are looked at every 2 ms, so that shorter ones pass unseen;
    what both hold counts twice.
    """
    before, done = _live(), threading.Event()
    largest = before

    def watch() -> None:
        nonlocal largest
        while not done.wait(_EVERY):
            largest = max(largest, _live())

    watcher = threading.Thread(target=watch, daemon=True)
    tracemalloc.start()
    watcher.start()
    try:
        made = make()
        traced = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        done.set()
        watcher.join()
    return made, traced + max(largest, _live()) - before


def _live() -> int:
    return sum(array.nbytes for array in jax.live_arrays() if not array.is_deleted())

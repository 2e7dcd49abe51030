"""Sums of task vectors: which subsets are looked at, and what is measured along each."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from linearize import edit
from linearize.study import Method, Study

Subset = tuple[int, ...]


def every(tasks: int) -> tuple[Subset, ...]:
    """All 2^T − 1 subsets as task numbers, by size, then in order.

    >>> every(2)
    ((0,), (1,), (0, 1))
    """
    return tuple(s for k in range(1, tasks + 1) for s in itertools.combinations(range(tasks), k))


def sampled(tasks: int, most: int, seed: int) -> tuple[Subset, ...]:
    """All singles and pairs, the whole set, and at most so many drawn subsets of each other size.

    >>> sampled(3, 1, 0)
    ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))
    """
    rng = np.random.default_rng(seed)
    chosen: list[Subset] = []
    for k in range(1, tasks + 1):
        of_size = list(itertools.combinations(range(tasks), k))
        few = len(of_size) if k <= 2 else min(most, math.comb(tasks, k))
        rows = np.sort(rng.choice(len(of_size), few, replace=False))
        chosen += [of_size[i] for i in rows]
    return tuple(chosen)


def line(
    study: Study, method: Method, subset: Sequence[str]
) -> Callable[[np.ndarray, str, str], np.ndarray]:
    """The metric along one subset's sum: ``(alphas (A,), task, split) -> (A,)``."""
    view = study.view(method)
    if view.passes:  # the sum is then made once
        view = study.view(method, {"sum": edit.add([view.vectors[name] for name in subset])})
        subset = ["sum"]
    return lambda alphas, task, split: study.measure(
        view, dict.fromkeys(subset, alphas), task, split
    )

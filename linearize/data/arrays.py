"""A task of any arrays: tokens, tables, signals, with labels, numbers or nothing as targets."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize.data.records import SPLITS, DataError, Task
from linearize.data.split import FREE, assign, content_keys, near_duplicates, stratified_order
from linearize.examples import Examples
from linearize.types import PyTree


def split_task(
    name: str,
    inputs: PyTree,
    targets: ArrayLike | Mapping[str, ArrayLike],
    *,
    validation: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    classes: Sequence[str] = (),
) -> Task:
    """Examples of any kind, split by a hash of their inputs.

    Examples of equal inputs never lie in two splits, and a data set that is re-ordered splits
    alike. Labels, where there are any, are in each split in proportion.

    Args:
        name: of the task.
        inputs: arrays (N, ...); a tuple of them for a model of several arguments.
        targets: labels (N,), or arrays (N, ...) by role (:class:`linearize.Examples`).
        validation: share of the examples.
        test: likewise; the rest is trained on.
        seed: of the split and of the order.
        classes: the classes' names, by label.

    Raises:
        DataError: shares that leave a split empty, and as :class:`Task`.
        ValueError: as :class:`linearize.Examples`.

    >>> x = np.random.default_rng(0).normal(size=(50, 3))
    >>> split_task("sums", x, {"sums": x.sum(1)}).counts
    {'train': 40, 'validation': 5, 'test': 5}
    """
    shares = 1 - validation - test, validation, test
    if min(shares) <= 0:
        raise DataError(
            f"validation={validation}, test={test}; expected positive shares that leave some of "
            "1 for training"
        )
    whole = Examples.of((inputs, targets))
    each = [content_keys(list(np.asarray(leaf))) for leaf in jax.tree.leaves(whole.inputs)]
    keys = content_keys(list(np.stack(each, 1)))
    strata = _strata(whole)
    links = near_duplicates(np.zeros((len(whole), 1, 1)), keys, 0.0)
    given = np.full(len(whole), FREE, np.int8)
    place = assign(strata, keys, links, given, shares, seed)
    parts: list[Examples] = []
    for code, split in enumerate(SPLITS):
        rows = np.flatnonzero(place == code)
        if not len(rows):
            raise DataError(
                f"split {name + '/' + split!r} is empty: validation={validation} and test={test} "
                f"of {len(np.unique(keys))} different examples leave it none; give more examples "
                "or another share"
            )
        parts.append(whole.take(rows[stratified_order(strata[rows], keys[rows], seed)]))
    return Task(name, parts[0], parts[1], parts[2], tuple(classes))


def _strata(examples: Examples) -> np.ndarray:
    """(N,) numbers of what each split has in proportion: the labels, or one for all."""
    labels = np.asarray(examples.targets.get("labels", np.zeros(len(examples), int)))
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return np.zeros(len(examples), int)
    return np.unique(labels, return_inverse=True)[1]

"""TIES: trim, elect a sign, merge those that agree (Yadav et al. 2023)."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import jax.numpy as jnp

from linearize import edit
from linearize.choices import one_of
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector
from linearize.types import Array

Aggregate = Literal["mean", "sum"]

DENSITY = 0.2
"""Share of a vector's entries that are kept, the largest (§4.1, the paper's default)."""


def ties(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    density: float = DENSITY,
    aggregate: Aggregate = "mean",
) -> dict[str, TaskVector]:
    """One direction, in which entries of the minority sign do not take part.

    Each vector keeps its largest entries over *all* tensors, and with the least of them all that
    are as large, as in the authors' code: which of equal entries stay is nobody's choice. An
    entry's sign is that of the kept entries' sum (where they cancel, that of most entries), and its
    value the mean of those kept entries that have this sign, or their sum.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        density: share of the entries that are kept, in (0, 1]; more where entries are equal.
        aggregate: ``"mean"``, the paper's, or ``"sum"``, which FusionBench has by the same name.

    Returns:
        The direction, as ``{"ties": τ}``.

    Raises:
        ValueError: no vector, ``density`` out of range, or another ``aggregate``.
        StructureMismatch: vectors of other names, shapes or bases.

    >>> one, two = (TaskVector({"w": jnp.array(w)}) for w in ([3.0, -1.0], [1.0, 2.0]))
    >>> ties({"a": one, "b": two}, density=1.0)["ties"].delta["w"].tolist()
    [2.0, 2.0]
    """
    one_of("aggregate", aggregate, get_args(Aggregate))
    if not 0 < density <= 1:
        raise ValueError(f"density={density}; expected a share in (0, 1]")
    total = edit.add(taus.values())  # refuses vectors that do not belong together
    trimmed = [_trimmed(tau, density) for tau in taus.values()]
    stacks = {name: jnp.stack([each[name] for each in trimmed]) for name in total.delta}
    signs = {name: jnp.sign(stacked.sum(0)) for name, stacked in stacks.items()}
    most = jnp.sign(sum(jnp.sum(sign) for sign in signs.values()))
    elected = {name: jnp.where(sign == 0, most, sign) for name, sign in signs.items()}
    merged = {name: _of_agreeing(stacks[name], elected[name], aggregate) for name in stacks}
    return {"ties": replace(total, delta=merged)}


def _trimmed(tau: TaskVector, density: float) -> dict[str, Array]:
    sizes = jnp.concatenate([jnp.abs(leaf).ravel() for leaf in tau.delta.values()])
    kept = max(1, round(density * sizes.size))
    threshold = jnp.sort(sizes)[sizes.size - kept]
    return {n: jnp.where(jnp.abs(leaf) >= threshold, leaf, 0) for n, leaf in tau.delta.items()}


def _of_agreeing(stacked: Array, sign: Array, aggregate: Aggregate) -> Array:
    agree = (jnp.sign(stacked) == sign[None]) & (stacked != 0)
    total = jnp.where(agree, stacked, 0).sum(0)
    return total / jnp.maximum(agree.sum(0), 1) if aggregate == "mean" else total


TIES = Merge("ties", "TIES", ties)
"""The mean of what agrees: the paper's, with its λ = 1."""

TIES_SUM = Merge("ties_sum", "TIES (sum)", partial(ties, aggregate="sum"), alpha=0.3)
"""The sum of what agrees: FusionBench's, with its scaling factor."""

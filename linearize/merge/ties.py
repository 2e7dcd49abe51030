"""TIES: trim, elect a sign, and take the mean of those that agree (Yadav et al. 2023)."""

from collections.abc import Mapping
from dataclasses import replace

import jax.numpy as jnp

from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector
from linearize.types import Array

DENSITY = 0.2
"""Share of a vector's entries that are kept, the largest (§4.1, the paper's default)."""


def ties(
    taus: Mapping[str, TaskVector], seed: int = 0, *, density: float = DENSITY
) -> dict[str, TaskVector]:
    """One direction, in which entries of the minority sign do not take part.

    Each vector keeps its largest entries over *all* tensors, and with the least of them all that
    are as large, as in the authors' code: which of equal entries stay is nobody's choice. An
    entry's sign is that of the kept entries' sum (where they cancel, that of most entries), and its
    value the mean of those kept entries that have this sign.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        density: share of the entries that are kept, in (0, 1]; more where entries are equal.

    Returns:
        The direction, as ``{"ties": τ}``.

    Raises:
        ValueError: no vector, or ``density`` out of range.
        StructureMismatch: vectors of other names, shapes or bases.

    >>> one, two = (TaskVector({"w": jnp.array(w)}) for w in ([3.0, -1.0], [1.0, 2.0]))
    >>> ties({"a": one, "b": two}, density=1.0)["ties"].delta["w"].tolist()
    [2.0, 2.0]
    """
    if not taus:
        raise ValueError("taus is empty; give at least one task vector to merge")
    if not 0 < density <= 1:
        raise ValueError(f"density={density}; expected a share in (0, 1]")
    first, *rest = taus.values()
    total = sum(rest, start=first)  # refuses vectors that do not belong together
    trimmed = [_trimmed(tau, density) for tau in taus.values()]
    stacks = {name: jnp.stack([each[name] for each in trimmed]) for name in total.delta}
    signs = {name: jnp.sign(stacked.sum(0)) for name, stacked in stacks.items()}
    most = jnp.sign(sum(jnp.sum(sign) for sign in signs.values()))
    elected = {name: jnp.where(sign == 0, most, sign) for name, sign in signs.items()}
    merged = {name: _mean_of_agreeing(stacks[name], elected[name]) for name in stacks}
    return {"ties": replace(total, delta=merged)}


def _trimmed(tau: TaskVector, density: float) -> dict[str, Array]:
    sizes = jnp.concatenate([jnp.abs(leaf).ravel() for leaf in tau.delta.values()])
    kept = max(1, round(density * sizes.size))
    threshold = jnp.sort(sizes)[sizes.size - kept]
    return {n: jnp.where(jnp.abs(leaf) >= threshold, leaf, 0) for n, leaf in tau.delta.items()}


def _mean_of_agreeing(stacked: Array, sign: Array) -> Array:
    agree = (jnp.sign(stacked) == sign[None]) & (stacked != 0)
    return jnp.where(agree, stacked, 0).sum(0) / jnp.maximum(agree.sum(0), 1)


TIES = Merge("ties", "TIES", ties)

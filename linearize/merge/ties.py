"""TIES: trim, elect a sign, merge those that agree (Yadav et al. 2023)."""

from collections.abc import Mapping
from functools import partial
from typing import Literal, get_args

import numpy as np

from linearize.choices import one_of
from linearize.merge.leafwise import leafwise, stacked, together, wide
from linearize.merge.merge import Merge
from linearize.merge.order import largest
from linearize.task_vector import TaskVector

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
    value the mean of those kept entries that have this sign, or their sum. Complex entries agree
    with their sum where they are within a right angle of it.

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
        NonFiniteError: NaN or infinity in a vector.

    >>> one, two = (TaskVector({"w": np.float32(w)}) for w in ([3.0, -1.0], [1.0, 2.0]))
    >>> ties({"a": one, "b": two}, density=1.0)["ties"].delta["w"].tolist()
    [2.0, 2.0]
    """
    one_of("aggregate", aggregate, get_args(Aggregate))
    if not 0 < density <= 1:
        raise ValueError(f"density={density}; expected a share in (0, 1]")
    together(taus)  # refuses vectors that do not belong together
    least = np.array([_threshold(tau, density) for tau in taus.values()])

    def kept(name: str, leaves: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        small = (least > np.abs(leaves).T).T
        trimmed = np.where(small, 0, leaves)
        return trimmed, np.sign(trimmed.sum(0))

    names = next(iter(taus.values())).delta
    most = np.sign(sum(kept(name, stacked(taus, name))[1].sum() for name in names))

    def merged(name: str, leaves: np.ndarray) -> np.ndarray:
        trimmed, sign = kept(name, leaves)
        agree = (trimmed * np.where(sign == 0, most, sign).conj()).real > 0
        total = np.where(agree, trimmed, 0).sum(0)
        return total / np.maximum(agree.sum(0), 1) if aggregate == "mean" else total

    return {"ties": leafwise(taus, merged)}


def _threshold(tau: TaskVector, density: float) -> float:
    """The least size that is kept."""
    count = sum(np.size(leaf) for leaf in tau.delta.values())
    if not count:
        return 0.0
    return largest(
        lambda: (np.abs(wide(leaf)).ravel() for leaf in tau.delta.values()),
        max(1, round(density * count)),
        count,
    )


_TRIMMED = "Of each vector the largest entries are kept, of each entry the sign that outweighs, and"
TIES = Merge("ties", "TIES", ties, about=f"{_TRIMMED} the mean of what agrees (Yadav et al. 2023).")
"""The mean of what agrees: the paper's, with its λ = 1."""

TIES_SUM = Merge(
    "ties_sum",
    "TIES (sum)",
    partial(ties, aggregate="sum"),
    alpha=0.3,
    about=f"{_TRIMMED} the sum of what agrees.",
)
"""The sum of what agrees: FusionBench's, with its scaling factor."""

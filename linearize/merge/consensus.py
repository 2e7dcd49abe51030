"""Consensus: the sum where at least two tasks claim an entry.

(*Localizing Task Information for Improved Model Merging and Compression*, Wang et al. 2024.)
"""

from collections.abc import Mapping

import numpy as np

from linearize.merge.leafwise import leafwise
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector


def consensus(
    taus: Mapping[str, TaskVector], seed: int = 0, *, tall: float = 0.4, votes: int = 2
) -> dict[str, TaskVector]:
    """Σ τ_t where enough tasks' TALL masks hold, zero elsewhere.

    Task t's mask holds where |τ_t| > λ |Σ τ − τ_t|. The authors choose a λ for each task, by what
    its masked model reaches on validation data; here one for all of them is chosen, beside α.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        tall: λ, above 0; the larger, the fewer entries a task claims.
        votes: how many masks must hold, 1 to T.

    Returns:
        The direction, as ``{"consensus": τ}``.

    Raises:
        ValueError: no vector, fewer vectors than votes, or λ not above 0.
        StructureMismatch: vectors of other names, shapes or bases.

    >>> one, two = (TaskVector({"w": np.float32(w)}) for w in ([1, 1, 4], [1, -1, 1]))
    >>> consensus({"a": one, "b": two})["consensus"].delta["w"].tolist()
    [2.0, 0.0, 0.0]
    """
    if not tall > 0:
        raise ValueError(f"tall={tall}; expected a number above 0")
    if taus and not 1 <= votes <= len(taus):
        raise ValueError(
            f"votes={votes}, and taus has {len(taus)}: no entry could be kept; merge more tasks, "
            "or ask for fewer votes"
        )

    def kept(_: str, leaves: np.ndarray) -> np.ndarray:
        total = leaves.sum(0)
        masks = np.abs(leaves) > tall * np.abs(total - leaves)
        return np.where(masks.sum(0) >= votes, total, 0)

    return {"consensus": leafwise(taus, kept)}


CONSENSUS = Merge(
    "consensus",
    "Consensus",
    consensus,
    {"tall": (0.4, 0.2, 0.3, 0.5, 0.6)},
    about="The sum where at least two tasks claim an entry (Wang et al. 2024).",
)
"""Task arithmetic without the entries of one task alone, and of none."""

"""The mean of the task vectors: weight averaging (*Model soups*, Wortsman et al. 2022, §2)."""

from collections.abc import Mapping

from linearize.merge.leafwise import leafwise
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector


def mean(taus: Mapping[str, TaskVector], seed: int = 0) -> dict[str, TaskVector]:
    """Σ τ_t / T, as ``{"mean": τ}``; ``seed`` is not used.

    Raises:
        ValueError: no vector.
        StructureMismatch: vectors of other names, shapes or bases.
    """
    return {"mean": leafwise(taus, lambda _, leaves: leaves.mean(0))}


MEAN = Merge(
    "mean",
    "Mean",
    mean,
    plain=True,
    about="The mean of the task vectors; at α = 1 that of the fine-tuned weights (Wortsman et al. "
    "2022).",
)
"""θ0 + mean τ is the mean of the fine-tuned weights at α = 1."""

"""Random directions of the same norms, the baseline of both papers' negation tables."""

from collections.abc import Mapping

from linearize import edit
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector
from linearize.train.penalty import seed_of


def _drawn(taus: Mapping[str, TaskVector], seed: int) -> dict[str, TaskVector]:
    return {
        task: edit.random_like(tau, seed=seed_of(seed, f"random: {task}"))
        for task, tau in taus.items()
    }


RANDOM = Merge(
    "random",
    "Random vector",
    _drawn,
    whole=True,
    about="In place of each task vector one that moves each tensor as far, nowhere in particular.",
)
"""In place of each task vector one that moves each tensor as far, nowhere in particular."""

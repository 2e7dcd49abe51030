"""Consensus: the sum where at least two tasks claim an entry.

(*Localizing Task Information for Improved Model Merging and Compression*, Wang et al. 2024.)
"""

from collections.abc import Mapping, Sequence

import numpy as np

from linearize.merge.leafwise import leafwise
from linearize.merge.merge import Merge, Shapes
from linearize.merge.needed import of_tasks
from linearize.study import Method, Study
from linearize.task_vector import TaskVector

VOTES = 2
"""Masks that must hold for an entry to be kept."""
TALLS = (0.4, 0.2, 0.3, 0.5, 0.6)
"""λ to choose among, the authors', the default first."""


def consensus(
    taus: Mapping[str, TaskVector], seed: int = 0, *, tall: float = 0.4, votes: int = VOTES
) -> dict[str, TaskVector]:
    """Σ τ_t where enough tasks' TALL masks hold, zero elsewhere.

    Task t's mask holds where |τ_t| > λ |Σ τ − τ_t|, with one λ for all tasks, which is chosen
    beside α; the authors choose one for each (:func:`consensus_by_task`).

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
    return _merged(taus, dict.fromkeys(taus, tall), votes)


def consensus_by_task(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    statistics: Mapping[str, float] | None = None,
    votes: int = VOTES,
) -> dict[str, TaskVector]:
    """:func:`consensus` with a λ for each task, as the authors have it.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        statistics: λ by task (:func:`chosen`).
        votes: how many masks must hold, 1 to T.

    Returns:
        The direction, as ``{"consensus": τ}``.

    Raises:
        ValueError: no vector, fewer vectors than votes, or statistics that are missing.
        StructureMismatch: vectors of other names, shapes or bases.
    """
    if taus:
        of_tasks("consensus_tasks", statistics, taus)
    return _merged(taus, statistics or {}, votes)


def chosen(
    study: Study,
    method: Method,
    *,
    talls: Sequence[float] = TALLS,
    split: str = "validation",
) -> dict[str, float]:
    """Each task's λ: the one whose mask of the sum, θ0 + m_t Σ τ, does best on the task's examples.

    Args:
        study: of the data.
        method: whose vectors are merged.
        talls: the values to try; of equally good ones the first is taken.
        split: whose examples.
    """
    taus, found = study.vectors(method), {}
    for t, task in enumerate(taus):
        metric = study.objectives[task].primary

        def reached(tall: float, t: int = t, task: str = task) -> float:
            own = leafwise(taus, lambda _, x: np.where(_masks(x, tall)[t], x.sum(0), 0))
            return study.at(study.view(method, {task: own}), {task: 1.0}, task, split)

        found[task] = max(talls, key=lambda tall: metric.sign * reached(tall))
    return found


def _masks(leaves: np.ndarray, talls: float | np.ndarray) -> np.ndarray:
    """Which entries each task claims, (T, ...)."""
    others = np.abs(leaves.sum(0) - leaves)
    return np.abs(leaves) > (talls * others.T).T


def _merged(
    taus: Mapping[str, TaskVector], talls: Mapping[str, float], votes: int
) -> dict[str, TaskVector]:
    if taus:
        _check_votes(votes, f"taus has {len(taus)}", len(taus))
    each = np.array([talls[task] for task in taus])

    def kept(_: str, leaves: np.ndarray) -> np.ndarray:
        return np.where(_masks(leaves, each).sum(0) >= votes, leaves.sum(0), 0)

    return {"consensus": leafwise(taus, kept)}


def _check_votes(votes: int, what: str, tasks: int) -> None:
    if not 1 <= votes <= tasks:
        raise ValueError(
            f"votes={votes}, and {what}: no entry could be kept; merge more tasks, or ask for "
            "fewer votes"
        )


def needs(study: Study, moving: Shapes) -> None:
    """As many tasks as masks must hold.

    Raises:
        ValueError: a study of one task.
    """
    names = study.names
    _check_votes(VOTES, f"the study trains {', '.join(map(repr, names))} alone", len(names))


CONSENSUS = Merge(
    "consensus",
    "Consensus",
    consensus,
    {"tall": TALLS},
    needs=needs,
    about="The sum where at least two tasks claim an entry (Wang et al. 2024).",
)
"""Task arithmetic without the entries of one task alone, and of none."""

CONSENSUS_TASKS = Merge(
    "consensus_tasks",
    "Consensus by task",
    consensus_by_task,
    statistics=chosen,
    takes="validation labels",
    by_task=False,
    needs=needs,
    about="Consensus with a threshold of its own for each task, chosen on validation labels (Wang "
    "et al. 2024).",
)
"""With a λ for each task."""

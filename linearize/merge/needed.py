"""What merges with statistics of data ask of a study, and what they refuse."""

from collections.abc import Mapping
from typing import Any

from jax.tree_util import Partial

from linearize.merge.merge import Shapes
from linearize.objectives import Classify
from linearize.objectives.readout import as_readout
from linearize.study import Study


def of_tasks(merge: str, statistics: Mapping[str, Any] | None, tasks: Mapping[str, Any]) -> None:
    """Require that there are statistics, of every task.

    Raises:
        ValueError: none, or none of a task.
    """
    if statistics is None:
        raise ValueError(
            f"{merge} merges by statistics of data, and statistics=None; give what "
            f"MERGES[{merge!r}].statistics(study, method) measures, or let lz.compare do so"
        )
    if missing := [task for task in tasks if task not in statistics]:
        raise ValueError(
            f"statistics is of {', '.join(map(repr, statistics)) or 'no task'}, and taus of "
            f"{', '.join(map(repr, missing))} too; measure them on a study of all these tasks"
        )


def logits(merge: str, study: Study, moving: Shapes) -> None:
    """Require class probabilities of every task, as a row's ``needs``.

    Raises:
        ValueError: as :func:`logits_of`.
    """
    for task in study.names:
        logits_of(study, task, merge)


def logits_of(study: Study, task: str, merge: str) -> Partial:
    """From outputs to a task's logits, padded so that all tasks share what is compiled for one.

    Raises:
        ValueError: the task's objective has no logits.
    """
    objective = study.alike[task]
    if not isinstance(objective, Classify):
        raise ValueError(
            f"{merge} takes class probabilities, and objectives[{task!r}] is "
            f"{type(objective).__name__}; give Classify, or leave {merge} out"
        )
    return as_readout(objective.readout)

"""What a merge is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from linearize.task_vector import TaskVector


@dataclass(frozen=True)
class Merge:
    """Directions that are made of task vectors, before any coefficient.

    >>> import numpy as np
    >>> halves = Merge("half", "Half", lambda taus, seed: {n: 0.5 * tau for n, tau in taus.items()})
    >>> halves.directions({"a": TaskVector({"w": np.ones(1)})}, 0)["a"].delta["w"].tolist()
    [0.5]
    """

    name: str
    label: str
    """As tables and figures call it."""
    directions: Callable[[Mapping[str, TaskVector], int], Mapping[str, TaskVector]]
    """Of task vectors by task and a seed: a direction for each task, under the task's name, which
    are added with one coefficient and negated one at a time; or directions under other names, which
    are added alone."""

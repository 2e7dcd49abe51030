"""What a merge is."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np

from linearize import edit, tree
from linearize.lazy import now
from linearize.study import Method, Study
from linearize.task_vector import TaskVector

TRAINING = "training inputs"
"""What a merge takes of data whose ``statistics`` have the keyword ``examples``, their number."""

Shapes = Mapping[str, tuple[int, ...]]
"""By leaf; empty where nothing is known."""


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
    directions: Callable[..., Mapping[str, TaskVector]]
    """Of task vectors by task, a seed, and hyper-parameters by keyword, each with a default: a
    direction for each task, under the task's name, which are added with one coefficient and negated
    one at a time; or directions under other names, which are added alone."""
    options: Mapping[str, Sequence[float]] = field(default_factory=dict, hash=False)
    """The hyper-parameters that validation data choose, beside α: the values to try, by keyword,
    the default first."""
    alpha: float = 1.0
    """The coefficient of its authors where no validation data choose one."""
    statistics: Callable[..., Any] | None = None
    """What it takes of data, measured once on a study and the method whose vectors are merged;
    ``directions`` gets it by the keyword of that name. None of what vectors alone decide."""
    takes: str = ""
    """What that is made of, as tables say it."""
    by_task: bool = True
    """Whether statistics are a mapping by task, each entry of its task and vector alone."""
    whole: bool = False
    """Whether it holds all leaves of all vectors at once, which are else made leaf by leaf."""
    affine: bool = False
    """Whether it is for views alone whose outputs are affine in the coefficients."""
    plain: bool = False
    """Whether it is plain addition, to which a vector that is zero adds nothing and is welcome."""
    needs: Callable[[Study, Shapes], None] | None = None
    """Refuses, before anything is trained, a study that it cannot merge the vectors of: of the
    study and the shapes of what moves, by leaf."""
    about: str = ""
    """A sentence for the glossary of a page; empty where there is none."""

    def check(self, study: Study, moving: Shapes | None) -> None:
        """Refuse a study that the merge cannot be of, before anything is trained.

        Args:
            study: of the tasks.
            moving: shapes of the leaves that will move, where that is known.

        Raises:
            ValueError: what the merge needs is not there.
        """
        if self.needs is not None:
            self.needs(study, moving or {})

    def check_moved(self, taus: Mapping[str, TaskVector]) -> None:
        """Refuse a vector that is zero, of which no merge but plain addition can be meant.

        Args:
            taus: task vectors by task; of lazy ones the leaves up to the first that moves are made.

        Raises:
            ValueError: with the tasks.
        """
        still = [] if self.plain else [task for task, tau in taus.items() if not _moves(tau)]
        if still:
            raise ValueError(
                f"merge {self.name!r}: the task vector of {', '.join(map(repr, still))} is zero, "
                "so that nothing of that task can be merged; fine-tune it, or leave the task out"
            )

    def measured(self, study: Study, method: Method) -> dict[str, Any]:
        """What ``directions`` gets of the study, as keywords; none of what vectors alone decide.

        Beside statistics that is ``scanned``, where it is a keyword: a pattern of the leaves that
        the model scans through, whose first axis is one of layers.

        Args:
            study: of the data.
            method: whose vectors are merged.

        Raises:
            ValueError: the study or the method's view has not what it takes.
        """
        known = signature(self.directions).parameters
        found: dict[str, Any] = {"scanned": study.scanned} if "scanned" in known else {}
        if self.statistics is not None:
            found["statistics"] = self.statistics(study, method)
        return found

    def candidates(self) -> Iterator[dict[str, float]]:
        """Every combination of hyper-parameters, as keywords; a single empty one if none is chosen.

        >>> list(Merge("m", "M", lambda taus, seed, p=1: taus, {"p": [1, 2]}).candidates())
        [{'p': 1}, {'p': 2}]
        """
        for values in itertools.product(*self.options.values()):
            yield dict(zip(self.options, values, strict=True))

    def merged(self, taus: Mapping[str, TaskVector], seed: int = 0, **options: Any) -> TaskVector:
        """What is added to θ0 without a search: the directions' sum times the default α.

        Raises:
            ValueError: as :meth:`check_moved` and ``directions``; there is no direction.

        >>> import numpy as np
        >>> third = Merge("third", "Third", lambda taus, seed: taus, alpha=0.25)
        >>> third.merged({n: TaskVector({"w": np.ones(1)}) for n in "ab"}).delta["w"].tolist()
        [0.5]
        """
        self.check_moved(taus)
        return self.alpha * edit.add(self.directions(taus, seed, **options).values())


def _moves(tau: TaskVector) -> bool:
    return any(np.count_nonzero(tree.to_numpy(now(leaf))) for leaf in tau.delta.values())

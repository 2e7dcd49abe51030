"""A study's disentanglement error maps, asked through its views and objectives."""

import sys
from collections.abc import Iterable, Sized

import numpy as np
from jax.typing import ArrayLike

from linearize.disentangle import ErrorMap, disentanglement_error
from linearize.evaluate.view import VIEWS, Tangent, View
from linearize.objectives import Distance
from linearize.objectives.distances import together
from linearize.study.study import Study


def error_map(
    study: Study,
    view: View,
    pair: tuple[str, str],
    alphas: ArrayLike,
    n_eval: int | None = None,
    split: str = "test",
) -> ErrorMap:
    """Disentanglement error of two tasks over a grid of their coefficients.

    Args:
        study: of the view.
        view: how points are evaluated.
        pair: the two tasks.
        alphas: (G,) coefficients, for both.
        n_eval: examples of each task at most.
        split: whose examples.

    Returns:
        The map; axes in the pair's order.

    Raises:
        ValueError: the tasks' distances have different units, which no sum is of.
    """
    columns = [list(view.vectors).index(task) for task in pair]
    data = [study.split(task, split) for task in pair]
    cached = None
    if isinstance(view, Tangent) and all(view.keeps(examples) for examples in data):
        cached = [view.terms(examples).tasks(columns) for examples in data]
    return disentanglement_error(
        study.model.f,
        study.model.params,
        [view.vectors[task] for task in pair],
        [examples.inputs for examples in data],
        alphas=np.asarray(alphas),
        regime=next((name for name, row in VIEWS.items() if isinstance(view, row)), view.name),
        objectives=[study.objective(task, view) for task in pair],
        targets=[examples.targets for examples in data],
        n_eval=n_eval,
        seed=study.seed,
        batch_size=study.batch_size,
        progress=view.passes and sys.stderr.isatty(),
        cached=cached,
    )


def looked_at(data: Iterable[Sized], n_eval: int | None = None) -> list[int]:
    """How many of each task's examples :func:`error_map` looks at: all, or ``n_eval`` at most."""
    found = [len(examples) for examples in data]
    return found if n_eval is None else [min(n_eval, n) for n in found]


def distance_of(study: Study, pair: tuple[str, str]) -> Distance:
    """What two tasks' distances are called where they are added up.

    Raises:
        ValueError: they have different units.
    """
    return together([study.objectives[task].distance for task in pair])


def mapped(study: Study, pair: tuple[str, str]) -> bool:
    """Whether the errors of two tasks have one unit, and so a sum."""
    try:
        return bool(distance_of(study, pair))
    except ValueError:
        return False

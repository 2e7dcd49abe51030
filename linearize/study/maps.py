"""A study's disentanglement error maps, asked through its views and objectives."""

import sys

import numpy as np
from jax.typing import ArrayLike

from linearize.disentangle import ErrorMap, disentanglement_error
from linearize.evaluate.view import Tangent, View
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
        ValueError: not :func:`mapped`.
    """
    if not mapped(study, pair, split):
        raise ValueError(
            f"the map of {' and '.join(pair)}: their objectives measure different distances, or "
            "mask parts of predictions; map tasks of one kind, without padding"
        )
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
        regime="linear" if isinstance(view, Tangent) else "nonlinear",
        readouts=[study.objective(task, view).opened()[0] for task in pair],
        distance=study.objectives[pair[0]].distance,
        n_eval=n_eval,
        seed=study.seed,
        batch_size=study.batch_size,
        progress=view.passes and sys.stderr.isatty(),
        cached=cached,
    )


def mapped(study: Study, pair: tuple[str, str], split: str = "test") -> bool:
    """Whether two tasks can be mapped: one distance, and no part of a prediction is masked."""
    one, other = (study.objectives[task] for task in pair)
    return one.distance == other.distance and all(
        study.objectives[task].counts_all(study.split(task, split).targets) for task in pair
    )

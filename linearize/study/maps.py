"""A study's disentanglement error maps, asked through its views and objectives."""

import sys

import numpy as np
from jax.typing import ArrayLike

from linearize.disentangle import ErrorMap, disentanglement_error
from linearize.evaluate.view import Tangent, View
from linearize.objectives import Classify, Objective
from linearize.objectives.readout import Readout
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
        regime="linear" if isinstance(view, Tangent) else "nonlinear",
        readouts=[_readout(study.objective(task, view)) for task in pair],
        n_eval=n_eval,
        seed=study.seed,
        batch_size=study.batch_size,
        progress=view.passes and sys.stderr.isatty(),
        cached=cached,
    )


def _readout(objective: Objective) -> Readout:
    if not isinstance(objective, Classify):
        raise ValueError(f"{type(objective).__name__} has no maps yet: give Classify")
    return objective.readout

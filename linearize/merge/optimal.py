"""Coefficients by task of least cross-entropy, in views that are affine in them: with certificate.

To labels, or to the experts: what each task's own model predicts of its inputs, which needs no
labels and is as convex (:mod:`linearize.edit.optimal`).
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize.edit import OptimalCoefficients, optimal_coefficients
from linearize.evaluate import AffineOutputs
from linearize.evaluate.view import Tangent
from linearize.examples import Examples
from linearize.merge.leafwise import leafwise
from linearize.merge.merge import Merge
from linearize.merge.needed import logits, logits_of, of_tasks
from linearize.objectives import Classify
from linearize.study import Method, Study
from linearize.task_vector import TaskVector

log = logging.getLogger(__name__)

Targets = Callable[[Study, str, AffineOutputs, Examples], ArrayLike]
"""What a task's predictions are to be near: labels (N,), or probabilities (N, C)."""


class Fitted(dict[str, float]):
    """α by task, and what is known of the optimum."""

    def __init__(self, coefficients: Mapping[str, float], found: OptimalCoefficients) -> None:
        super().__init__(coefficients)
        self.found = found
        """The optimum."""


def optimal(
    taus: Mapping[str, TaskVector], seed: int = 0, *, statistics: Fitted | None = None
) -> dict[str, TaskVector]:
    """Σ α_t τ_t.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        statistics: α by task (:func:`fitted`).

    Returns:
        The direction, as ``{"optimal": τ}``, which remembers the ``gap`` of its coefficients: how
        many nats above the least cross-entropy they are, at most.

    Raises:
        ValueError: no vector, or statistics that are missing.
        StructureMismatch: vectors of other names, shapes or bases.
    """
    if taus:
        of_tasks("optimal", statistics, taus)
    told: Mapping[str, float] = statistics or {}
    alphas = np.array([told[task] for task in taus])
    direction = leafwise(taus, lambda _, leaves: np.tensordot(alphas, leaves, 1))
    gap = {"gap": statistics.found.gap} if isinstance(statistics, Fitted) else {}
    return {"optimal": replace(direction, meta={**direction.meta, **gap})}


def labels(study: Study, task: str, terms: AffineOutputs, examples: Examples) -> ArrayLike:
    """The examples' own."""
    return np.asarray(examples.labels)


def experts(study: Study, task: str, terms: AffineOutputs, examples: Examples) -> np.ndarray:
    """Class probabilities (N, C) of the task's own model, θ0 + τ_t."""
    own = np.array([float(name == task) for name in study.names])
    objective = study.objectives[task]
    assert isinstance(objective, Classify)
    return np.asarray(jax.nn.softmax(objective.logits(terms.at(own)), axis=-1), np.float64)


def fitted(
    study: Study, method: Method, *, targets: Targets = labels, split: str = "validation"
) -> Fitted:
    """The coefficients of least cross-entropy, mean over the tasks.

    Where heads do not normalise it is the optimum, certified; elsewhere the nearest local one.

    Args:
        study: of the data.
        method: whose vectors are merged.
        targets: what predictions are to be near.
        split: whose examples.

    Raises:
        ValueError: a view that is not affine in the coefficients; a task's objective has no class
            probabilities.
    """
    view = study.view(method)
    if not isinstance(view, Tangent):
        raise ValueError(
            f"method {method.name!r} is seen {view.name}, where outputs are not affine in the "
            "coefficients; take methods of the tangent view, such as 'linear' or 'posthoc'"
        )
    sets = [study.split(task, split) for task in study.names]
    terms = [view.terms(each) for each in sets]
    for task in study.names:
        logits_of(study, task, "optimal")
    wanted = [targets(study, *each) for each in zip(study.names, terms, sets, strict=True)]
    readouts = [getattr(study.objectives[task], "readout", None) for task in study.names]
    found = optimal_coefficients(terms, wanted, readouts)
    log.info("coefficients of %s: at most %.2g nats above the optimum", method.name, found.gap)
    return Fitted(dict(zip(study.names, map(float, found.coefficients), strict=True)), found)


OPTIMAL = Merge(
    "optimal",
    "Optimal α (labels)",
    optimal,
    statistics=fitted,
    takes="validation labels",
    by_task=False,
    affine=True,
    needs=partial(logits, "optimal"),
    about="A coefficient for each task, of least cross-entropy to validation labels: the optimum, "
    "with a certificate.",
)
"""On validation examples with their labels."""

EXPERTS = Merge(
    "optimal_experts",
    "Optimal α (experts)",
    optimal,
    statistics=partial(fitted, targets=experts),
    takes="validation inputs",
    by_task=False,
    affine=True,
    needs=partial(logits, "optimal"),
    about="A coefficient for each task, of least cross-entropy to what each task’s own model "
    "predicts, which needs no labels: the optimum, with a certificate.",
)
"""On validation inputs, without labels."""

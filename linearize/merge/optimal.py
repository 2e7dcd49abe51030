"""Coefficients of least cross-entropy, in views that are affine in them: with certificate.

By task; or by task and tensor, which is aTLAS (*Knowledge Composition using Task Vectors with
Learned Anisotropic Scaling*, Zhang et al. 2024), whose code descends on them in weight space from a
few labelled examples. In the tangent space outputs are as affine in these coefficients, and the
optimum is certified.

To labels, or to the experts: what each task's own model predicts of its inputs, which needs no
labels and is as convex (:mod:`linearize.edit.optimal`).
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize.choices import one_of
from linearize.edit import OptimalCoefficients, optimal_coefficients
from linearize.evaluate import AffineOutputs
from linearize.evaluate.view import Tangent
from linearize.examples import Examples
from linearize.merge.leafwise import leafwise, together
from linearize.merge.matrices import layers_of
from linearize.merge.merge import Merge
from linearize.merge.needed import logits, logits_of, of_tasks
from linearize.objectives import Classify
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.types import Array

log = logging.getLogger(__name__)

Targets = Callable[[Study, str, AffineOutputs, Examples], ArrayLike]
"""What a task's predictions are to be near: labels (N,), or probabilities (N, C)."""


By = Literal["task", "tensor"]

Coefficients = float | Mapping[str, np.ndarray]
"""A task's α; or by leaf, () or, one a layer, (L,)."""

Part = tuple[str, int | None]
"""A leaf, or, of one with an axis of layers, a layer of it."""

EXAMPLES = 256
"""Of a task, where there is a coefficient for each tensor: each is a tangent pass of all tasks."""
DECAY = 1e-3
"""l2 of a coefficient for each tensor, of which there are as many as labels, or more: without it
they grow without end."""


class Fitted(dict[str, Coefficients]):
    """α by task, or by task and leaf, and what is known of the optimum."""

    def __init__(
        self, coefficients: Mapping[str, Coefficients], found: OptimalCoefficients
    ) -> None:
        super().__init__(coefficients)
        self.found = found
        """The optimum."""


def optimal(
    taus: Mapping[str, TaskVector], seed: int = 0, *, statistics: Fitted | None = None
) -> dict[str, TaskVector]:
    """Σ α_t τ_t, leaf by leaf.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        statistics: α by task, or by task and leaf (:func:`fitted`).

    Returns:
        The direction, as ``{"optimal": τ}``, which remembers the ``gap`` of its coefficients: how
        many nats above the least cross-entropy they are, at most.

    Raises:
        ValueError: no vector, or statistics that are missing or say nothing of a leaf.
        StructureMismatch: vectors of other names, shapes or bases.
    """
    if taus:
        of_tasks("optimal", statistics, taus)
    told: Mapping[str, Coefficients] = statistics or {}

    def merged(name: str, leaves: np.ndarray) -> np.ndarray:
        alphas = np.stack([_at(told[task], task, name) for task in taus])
        if alphas.ndim == 1:
            return np.tensordot(alphas, leaves, 1)
        return np.einsum("tl,tl...->l...", alphas, leaves)

    direction = leafwise(taus, merged)
    gap = {"gap": statistics.found.gap} if isinstance(statistics, Fitted) else {}
    return {"optimal": replace(direction, meta={**direction.meta, **gap})}


def _at(alphas: Coefficients, task: str, name: str) -> np.ndarray:
    """A task's coefficients of a leaf."""
    if not isinstance(alphas, Mapping):
        return np.asarray(alphas, np.float64)
    if name not in alphas:
        raise ValueError(
            f"statistics[{task!r}] says nothing of {name}; measure them of these vectors"
        )
    return np.asarray(alphas[name], np.float64)


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
    study: Study,
    method: Method,
    *,
    by: By = "task",
    targets: Targets = labels,
    split: str = "validation",
    examples: int | None = None,
    l2: float = 0.0,
) -> Fitted:
    """The coefficients of least cross-entropy, mean over the tasks.

    Where heads do not normalise it is the optimum, certified; elsewhere the nearest local one.

    Args:
        study: of the data.
        method: whose vectors are merged.
        by: ``"task"``, or ``"tensor"``: one for each task and leaf, of a scanned block's leaf one
            for each layer.
        targets: what predictions are to be near.
        split: whose examples.
        examples: of a task, drawn by the study's seed; all by default.
        l2: weight of (l2 / 2) ‖α‖², which is part of what is lowered and certified.

    Raises:
        ValueError: another ``by``; a view that is not affine in the coefficients; a task's
            objective has no class probabilities; a negative ``l2``.
        StructureMismatch: vectors of other names or shapes, where each leaf has its own.
    """
    one_of("by", by, get_args(By))
    view = study.view(method)
    if not isinstance(view, Tangent):
        raise ValueError(
            f"method {method.name!r} is seen {view.name}, where outputs are not affine in the "
            "coefficients; take methods of the tangent view, such as 'linear' or 'posthoc'"
        )
    sets = [study.split(task, split) for task in study.names]
    if examples is not None:
        drawn = (study.some(task, examples, "optimal", split) for task in study.names)
        sets = [each for each, _ in drawn]
    for task in study.names:
        logits_of(study, task, "optimal")
    terms = [view.terms(each) for each in sets]
    wanted = [targets(study, *each) for each in zip(study.names, terms, sets, strict=True)]
    readouts = [getattr(study.objectives[task], "readout", None) for task in study.names]
    parts = _parts(study, method) if by == "tensor" else []
    if parts:
        terms = _by_part(study, method, parts, sets)
    found = optimal_coefficients(terms, wanted, readouts, l2=l2)
    log.info("coefficients of %s: at most %.2g nats above the optimum", method.name, found.gap)
    alphas = found.coefficients
    if not parts:
        return Fitted(dict(zip(study.names, map(float, alphas), strict=True)), found)
    rows = zip(study.names, alphas.reshape(len(study.names), -1), strict=True)
    return Fitted({task: _by_leaf(parts, row) for task, row in rows}, found)


def _parts(study: Study, method: Method) -> list[Part]:
    """What has a coefficient of its own in each task's vector."""
    leaves = together(study.vectors(method)).delta
    depths = {n: layers_of(n, np.shape(leaf), study.scanned) for n, leaf in leaves.items()}
    return [(n, i) for n, L in depths.items() for i in ([None] if L is None else range(L))]


def _by_part(
    study: Study, method: Method, parts: Sequence[Part], sets: Sequence[Examples]
) -> list[AffineOutputs]:
    """Each set's terms along the parts of the first vector, then along those of the next."""
    taus = study.vectors(method)
    zeros = {
        task: {name: jnp.zeros_like(leaf) for name, leaf in tau.delta.items()}
        for task, tau in taus.items()
    }
    found: list[list[AffineOutputs]] = [[] for _ in sets]
    for name, layer in parts:
        alone = {
            task: replace(tau, delta={**zeros[task], name: _only(tau.delta[name], layer)})
            for task, tau in taus.items()
        }
        view = study.view(method, alone)
        assert isinstance(view, Tangent)
        for each, examples in zip(found, sets, strict=True):
            each.append(view.terms(examples))
    return [
        AffineOutputs(
            each[0].f0,
            np.stack([np.asarray(terms.jvps) for terms in each], 1).reshape(
                -1, *np.shape(each[0].f0)
            ),
        )
        for each in found
    ]


def _only(leaf: Array, layer: int | None) -> Array:
    """The leaf, or one layer of it and zeros in the others' place."""
    if layer is None:
        return leaf
    return jnp.zeros_like(leaf).at[layer].set(leaf[layer])


def _by_leaf(parts: Sequence[Part], alphas: np.ndarray) -> dict[str, np.ndarray]:
    found: dict[str, list[float]] = {}
    for (name, _), alpha in zip(parts, alphas, strict=True):
        found.setdefault(name, []).append(alpha)
    whole = {name for name, layer in parts if layer is None}
    return {n: np.array(each[0] if n in whole else each) for n, each in found.items()}


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

OPTIMAL_TENSORS = Merge(
    "optimal_tensors",
    "aTLAS (labels)",
    optimal,
    statistics=partial(fitted, by="tensor", examples=EXAMPLES, l2=DECAY),
    takes="validation labels",
    by_task=False,
    affine=True,
    needs=partial(logits, "optimal"),
    about="A coefficient for each task and tensor, of least cross-entropy to validation labels and "
    "a decay: the optimum, with a certificate (aTLAS, Zhang et al. 2024).",
)
"""A coefficient for each task and tensor, of 256 validation examples a task."""

EXPERTS_TENSORS = Merge(
    "optimal_tensors_experts",
    "aTLAS (experts)",
    optimal,
    statistics=partial(fitted, by="tensor", targets=experts, examples=EXAMPLES, l2=DECAY),
    takes="validation inputs",
    by_task=False,
    affine=True,
    needs=partial(logits, "optimal"),
    about="A coefficient for each task and tensor, of least cross-entropy to what each task’s own "
    "model predicts, which needs no labels (aTLAS, Zhang et al. 2024).",
)
"""The same without labels."""

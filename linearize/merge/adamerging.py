"""AdaMerging: coefficients by task, or by task and tensor, of least entropy on unlabelled inputs.

(*AdaMerging: Adaptive Model Merging for Multi-Task Learning*, Yang et al. 2024, eq. 4 and 5.)

Entropy is not convex in the coefficients, in no view: where descent ends depends on where it began,
and nothing certifies it. Of cross-entropy to the experts' predictions, which needs no labels
either, the optimum is certified: :mod:`linearize.merge.optimal`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial

from linearize.choices import one_of
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.view import Tangent
from linearize.examples import as_arguments
from linearize.fields import integer
from linearize.merge.leafwise import leafwise
from linearize.merge.matrices import layers_of
from linearize.merge.merge import Merge
from linearize.merge.needed import logits, logits_of, of_tasks
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train.penalty import seed_of
from linearize.types import Apply, Array, Flat, Params, PyTree

By = Literal["task", "tensor"]

START, RATE, STEPS, BATCH = 0.3, 1e-3, 500, 16
"""As in the authors' code."""


def adamerging(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    statistics: Mapping[str, Mapping[str, Array]] | None = None,
) -> dict[str, TaskVector]:
    """Σ_t c_t τ_t, leaf by leaf.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        statistics: by task its coefficients by leaf, () or, one a layer, (L,) (:func:`learned`).

    Returns:
        The direction, as ``{"adamerging": τ}``.

    Raises:
        ValueError: no vector; statistics that are missing, or of other leaves.
        StructureMismatch: vectors of other names, shapes or bases.
    """
    if taus:
        of_tasks("adamerging", statistics, taus)
    told = statistics or {}

    def merged(name: str, leaves: np.ndarray) -> np.ndarray:
        found = {task: np.float64(told[task].get(name, np.nan)) for task in taus}
        for task, c in found.items():
            if np.isnan(c).any() or c.shape not in ((), leaves.shape[1:2]):
                raise ValueError(
                    f"statistics[{task!r}] has for {name} a coefficient of shape {c.shape}, or "
                    f"none; expected one, or {leaves.shape[1:2]} for its layers: learn them of "
                    "vectors of these leaves"
                )
        return np.asarray(_sum(np.stack(list(found.values())), leaves))

    return {"adamerging": leafwise(taus, merged)}


def _sum(coefficients: Any, leaves: Any) -> Any:
    """Σ_t c_t τ_t of coefficients (T,) or (T, L) and leaves (T, ...)."""
    apart = leaves.ndim - coefficients.ndim
    return (coefficients.reshape(*coefficients.shape, *[1] * apart) * leaves).sum(0)


def learned(
    study: Study,
    method: Method,
    *,
    by: By = "task",
    split: str = "validation",
    steps: int = STEPS,
    rate: float = RATE,
    batch_size: int = BATCH,
) -> dict[str, dict[str, np.ndarray]]:
    """Coefficients in [0, 1] that lower the mean entropy of all tasks' predictions, by Adam.

    A step takes a batch of each task's inputs and no labels. A coefficient that leaves [0, 1] is
    taken at its end, where it gets no gradient, as in the authors' code, which learns on test
    inputs.

    Args:
        study: of the data.
        method: whose vectors are merged.
        by: ``"task"``, or ``"tensor"``: one for each task and leaf, of a scanned block's leaf one
            for each layer; the paper's "layer-wise".
        split: whose inputs.
        steps: of Adam, from 0.3 each.
        rate: its learning rate.
        batch_size: examples of a task a step.

    Returns:
        By task, by leaf: () or (L,) float32.

    Raises:
        ValueError: another ``by``; a task's objective has no class probabilities.
    """
    one_of("by", by, get_args(By))
    integer("steps", steps, low=1)
    view, taus = study.view(method), study.vectors(method)
    stacked = {
        name: jnp.stack([tau.delta[name] for tau in taus.values()])
        for name in next(iter(taus.values())).delta
    }
    depths = {n: layers_of(n, leaf.shape[1:], study.scanned) for n, leaf in stacked.items()}
    c: Any = jnp.full(len(taus), START)
    if by == "tensor":
        c = {n: jnp.full((len(taus), *([L] if L else [])), START) for n, L in depths.items()}
    slopes = {}
    for task in taus:
        examples = study.split(task, split)
        read = logits_of(study, task, "adamerging")
        rng = np.random.default_rng(seed_of(study.seed, f"adamerging: {task}"))
        rows = _rows(len(examples), batch_size, rng)
        if by == "task" and isinstance(view, Tangent) and view.keeps(examples):
            terms = view.terms(examples)
            slopes[task] = partial(_of_terms, read, terms.f0, terms.jvps, rows)
        else:
            args = as_arguments(examples.inputs)
            f = current(study.model.f, study.model.params, *examples.alone)
            how = view.moving, f, study.model.params, stacked
            slopes[task] = partial(_of_inputs, read, how, args, rows)
    adam = optax.adam(rate)
    state = adam.init(c)
    for _ in range(steps):
        gradients = [slope(c) for slope in slopes.values()]
        total = jax.tree.map(lambda *each: sum(each), *gradients)
        updates, state = adam.update(total, state)
        c = optax.apply_updates(c, updates)
    c = jax.tree.map(lambda x: np.clip(np.asarray(x), 0, 1), c)
    by_leaf = _by_leaf(c, stacked)
    return {task: {n: leaf[t] for n, leaf in by_leaf.items()} for t, task in enumerate(taus)}


def _by_leaf(c: Any, stacked: Mapping[str, Array]) -> dict[str, Any]:
    return dict(c) if isinstance(c, dict) else dict.fromkeys(stacked, c)


def _rows(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of examples, each once before any comes again."""
    while True:
        order = rng.permutation(n)
        for start in range(0, max(n - size, 0) + 1, size):
            yield order[start : start + size]


def _of_terms(read: Partial, f0: Any, jvps: Any, rows: Iterator[np.ndarray], c: Array) -> Array:
    at = next(rows)
    return _along_terms(c, read, np.asarray(f0)[at], np.asarray(jvps)[:, at])


def _of_inputs(
    read: Partial,
    how: tuple[Callable[[Apply], Apply], Apply, Params, Flat],
    args: tuple[PyTree, ...],
    rows: Iterator[np.ndarray],
    c: Any,
) -> Any:
    at, (moving, f, params0, stacked) = next(rows), how
    batch = jax.tree.map(lambda leaf: np.asarray(leaf[at]), args)
    return _along_inputs(moving, f, c, read, params0, stacked, batch)


@jit
def _along_terms(c: Array, read: Partial, f0: Array, jvps: Array) -> Array:
    def entropy(c: Array) -> Array:
        precise = jax.lax.Precision.HIGHEST
        moved = jnp.tensordot(jnp.clip(c, 0, 1), jvps, 1, precision=precise)
        return _entropy(read(f0 + moved))

    return jax.grad(entropy)(c)


@partial(jit, static_argnums=(0, 1))
def _along_inputs(
    moving: Callable[[Apply], Apply],
    f: Apply,
    c: Any,
    read: Partial,
    params0: Params,
    stacked: Flat,
    batch: tuple[PyTree, ...],
) -> Any:
    def entropy(c: Any) -> Array:
        clipped = _by_leaf(jax.tree.map(lambda x: jnp.clip(x, 0, 1), c), stacked)
        tau = {n: _sum(clipped[n], leaf) for n, leaf in stacked.items()}
        return _entropy(read(moving(f)(params0, tau, *batch)))

    return jax.grad(entropy)(c)


def _entropy(logits: Array) -> Array:
    """Mean over examples, in nats."""
    logp = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -(jnp.exp(logp) * logp).sum(-1).mean()


ADAMERGING = Merge(
    "adamerging",
    "AdaMerging",
    adamerging,
    statistics=learned,
    takes="validation inputs",
    needs=partial(logits, "adamerging"),
    by_task=False,
    about="A coefficient for each task, of least entropy on inputs without labels (Yang et "
    "al. 2024).",
)
"""A coefficient for each task, on validation inputs without their labels."""

ADAMERGING_TENSORS = Merge(
    "adamerging_tensors",
    "AdaMerging by tensor",
    adamerging,
    statistics=partial(learned, by="tensor"),
    takes="validation inputs",
    needs=partial(logits, "adamerging"),
    by_task=False,
    about="A coefficient for each task and tensor, of least entropy on inputs without labels (Yang "
    "et al. 2024).",
)
"""One for each task and tensor."""

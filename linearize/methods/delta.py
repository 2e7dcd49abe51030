"""DELTA: a linear teacher and a non-linear student, trained together; the student is kept.

ICML 2026, in the code of *merge-and-rebase*. With τ_S of the student f(θ0 + τ_S) and τ_T of the
teacher f0 + Jτ_T, what is lowered is

    CE(f(θ0 + τ_S)) + CE(f0 + Jτ_T) + λ (τ_SᵀGτ_S + τ_TᵀGτ_T) + μ MSE(f(θ0 + ατ_S), f0 + αJτ_T)

where the last term moves the student alone, f are the model's outputs (features, before the head),
and α is drawn anew each step, between 0.5 and 2 in the code, 0.5 and 1 in the paper. So the student
is held near a function that is affine in α, and its vectors are what is added: the edited model is
θ0 + Σ α τ_S, and evaluating it takes no tangents. G is a reference set's, by Kronecker factors: of
ImageNet-21k there (C4 for text), which is no task's; here of the other tasks, as in TAK, of the
control task, or of a curvature card. μ and the λ of that code are not known to us: 1, and TAK's.
A step is 11 forward passes, and two products a layer for G: 3.7 times a non-linear step or more.

It takes no other penalty: what is lowered is a function of two vectors, and a penalty of one τ does
not say whether it means the student, which is kept and moves in f, or the teacher, in whose tangent
space it would hold and which is thrown away. What the pair is to leave alone is G's ``reference``.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial, wraps
from re import sub
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from linearize import taylor, tree
from linearize.current import current
from linearize.curvature import Card
from linearize.fields import number
from linearize.methods import tak
from linearize.methods.fine_tuning import check_smoothing, kept, recipe_of, run, smoothed, within
from linearize.methods.regimes import posthoc
from linearize.models import Model
from linearize.objectives import Objective
from linearize.objectives.distances import aligned
from linearize.study import Method, Study
from linearize.study.study import ASKED
from linearize.task_vector import TaskVector
from linearize.train import Penalty
from linearize.types import Apply, Array, Batch, Flat, Params, PyTree

STUDENT, TEACHER = ROLES = "student", "teacher"
BASE, ALPHA = "base", "alpha"

Reference = Literal["others", "control"] | Mapping[str, Card]
"""Whose curvature G is: the other tasks', the control task's, or cards by the names of their sets.
"""


def pair(f: Apply, params: Mapping[str, Any], alpha: Array, *inputs: PyTree) -> dict[str, PyTree]:
    """Outputs of student and teacher, and how far apart they are at α: one function of both.

    Args:
        f: the model.
        params: θ0 under ``base``; under ``student`` and ``teacher`` θ0 + τ by name of leaf, where
            it moves.
        alpha: ().
        *inputs: the model's other arguments.
    """
    params0 = params[BASE]
    base = tree.flatten(params0)
    tau = {
        role: {n: x - base[n].astype(x.dtype) for n, x in params[role].items()} for role in ROLES
    }
    f0, along = taylor.affine_terms(f, params0, [tau[TEACHER]], *inputs)

    def teacher(alpha: Array | float) -> PyTree:
        return jax.tree.map(
            lambda y, dy: y + alpha * dy[0] if tree.is_trainable(y) else y, f0, along
        )

    scaled = f(tree.add(params0, tau[STUDENT], alpha), *inputs)
    goal = jax.lax.stop_gradient(teacher(alpha))
    return {
        STUDENT: f(tree.add(params0, tau[STUDENT]), *inputs),
        TEACHER: teacher(1.0),
        "apart": jax.tree.map(jnp.subtract, scaled, goal),
    }


def _loss(objective: Objective, match: float, outputs: Mapping[str, PyTree], batch: Batch) -> Array:
    """(B,): the losses of both, and the mean square between them, of the outputs asked for."""
    own = [objective.loss(outputs[role], batch) for role in ROLES]
    apart = jax.tree.leaves(outputs["apart"])
    squares = _rows([jnp.square(x) for x in apart])
    if ASKED in batch:
        flags = _rows([jnp.broadcast_to(aligned(batch[ASKED], x), x.shape) for x in apart])
        between = jnp.sum(squares * flags, 1) / jnp.maximum(jnp.sum(flags, 1), 1)
    else:
        between = jnp.mean(squares, 1)
    return own[0] + own[1] + match * between.astype(jnp.float32)


def _rows(leaves: list[Array]) -> Array:
    return jnp.concatenate([x.reshape(len(x), -1) for x in leaves], 1)


def _drawn(low: float, high: float, key: Array, batch: Batch) -> Batch:
    """The batch with an α for all of it."""
    return {**batch, ALPHA: jax.random.uniform(key, (), minval=low, maxval=high)}


def curvature(f: Apply, params0: Params, tau: Flat, state: PyTree, key: Array) -> Array:
    """τ_SᵀGτ_S + τ_TᵀGτ_T, (): that of TAK of each."""
    each = [
        {n.removeprefix(f"{role}/"): x for n, x in tau.items() if n.startswith(f"{role}/")}
        for role in ROLES
    ]
    return jnp.stack([tak.curvature(f, params0, part, state, key) for part in each]).sum()


def of_reference(study: Study, task: str, reference: Reference, **how: Any) -> Penalty:
    """The penalty of both.

    Args:
        study: whose tasks.
        task: the one that is trained.
        reference: whose curvature.
        **how: as of :func:`linearize.methods.tak.of_others`.

    Raises:
        ValueError: the control task's, of a study that has none; and as there.
        StructureMismatch: as there.
    """
    if reference == "control":
        if study.control is None:
            raise ValueError("delta on the control task: give the study a control=")
        reference = {study.control: tak.card_of(study, study.control)}
    if reference == "others":
        study.others(task, "delta")  # refuses a study of one task
    cards = None if reference == "others" else reference
    return replace(tak.of_others(study, task, cards=cards, **how), name="delta", value=curvature)


def train_pair(
    study: Study,
    task: str,
    *,
    method: str = "delta",
    reference: Reference = "others",
    weight: float = tak.WEIGHT,
    match: float = 1.0,
    low: float = 0.5,
    high: float = 2.0,
    trainable: tree.Pattern = None,
    recipe: str | None = None,
) -> tuple[TaskVector, TaskVector]:
    """One task's vectors of student and teacher; a run that is finished is reused.

    Both are kept below ``pairs/`` in the study's store, as any fine-tuning is, and the student's in
    the method's own folder, as any task vector is.

    Args:
        study: of the model, the data and the objective.
        task: whose training examples are used.
        method: whose recipe is taken, or else that of non-linear fine-tuning; of both.
        reference: whose curvature G is.
        weight: λ.
        match: μ.
        low: the least α; one is drawn for each (micro-)batch.
        high: the largest.
        trainable: pattern of the leaves to train, among those that the study trains.
        recipe: the method whose recipe is taken where the study has none for ``method``.

    Raises:
        ValueError: no numbers 0 <= low <= high, or μ below 0; and as :func:`of_reference`.
    """
    low, high, match = number("low", low), number("high", high), number("match", match)
    if not 0 <= low <= high:
        raise ValueError(f"low={low}, high={high}; expected α between two numbers of 0 or more")
    if match < 0:
        raise ValueError(f"match={match}; expected 0 or more")
    params0, examples = study.model.params, study.split(task, "train")
    moving = tree.zeros(params0, within(study, trainable))
    start = {n: tree.flatten(params0)[n].astype(x.dtype) for n, x in moving.items()}
    f = Partial(pair, current(study.model.f, params0, *examples.alone))
    config, asked = recipe_of(study, task, method, recipe, "nonlinear"), study.asked(task)
    check_smoothing(study, config)
    found = run(
        study.but(
            model=Model(f, {BASE: params0, STUDENT: start, TEACHER: start}),
            objectives=study.objectives,
            store=study.store.under("pairs"),
        ),
        examples.arrays() | ({} if asked is None else {ASKED: asked}),
        config,
        (method, task),
        {"task": task},
        regime="nonlinear",
        inputs=(ALPHA, *examples.arguments),
        augment=Partial(_drawn, low, high),
        loss=Partial(_loss, _objective(study, task, config.label_smoothing), match),
        trainable=tree.exactly(f"{role}/{name}" for role in ROLES for name in start),
        penalties=[of_reference(study, task, reference, weight=weight)],
    ).tau
    student, teacher = (
        TaskVector(
            {n: found.delta[f"{role}/{n}"] for n in start}, tree.fingerprint(params0), found.meta
        )
        for role in ROLES
    )
    return kept(study, (method, task), student), teacher


def _objective(study: Study, task: str, smoothing: float) -> Objective:
    """The task's, smoothed as the recipe says, in the shape that all tasks share if it can be."""
    own = smoothed(study.objectives[task], smoothing)
    return own.alike(list(study.objectives.values()))


@wraps(train_pair, assigned=())
def fine_tune_student(study: Study, task: str, **how: Any) -> TaskVector:
    """The student's vector of :func:`train_pair`."""
    return train_pair(study, task, **how)[0]


def delta(reference: Reference = "others", **how: Any) -> Method:
    """A row, whose name and label say what the reference is, where it is not the other tasks.

    Args:
        reference: as :func:`train_pair` takes it.
        **how: its other arguments.

    >>> delta("control").label
    'DELTA on control'
    """
    where = reference if isinstance(reference, str) else " and ".join(reference)
    more = [] if reference == "others" else ["on", where]
    name = sub(r"\W+", "_", "_".join(["delta", *more]))
    train = partial(fine_tune_student, method=name, reference=reference, **how)
    controlled = reference == "control"
    of = {"others": "the other tasks", "control": "the control task"}.get(where, "given data")
    about = (
        "Non-linear fine-tuning of a student held near a linear teacher that is trained with it, "
        f"both by a penalty of TAK’s kind on {of}; the student’s vector is kept (ICML 2026)."
    )
    label = " ".join(["DELTA", *more])
    return Method(name, label, "displaced", train, controlled=controlled, about=about)


DELTA = delta()
DELTA_ON_CONTROL = delta("control")
"""With it negation is measured on what was trained on."""
DELTA_POSTHOC = posthoc(DELTA)

"""TAK: linear fine-tuning that keeps other tasks' features still, by Kronecker factors of theirs.

*merge-and-rebase* (ICLR 2026): + λ Σ_t′ τᵀG_t′τ with G_t′ = E[JᵀJ] of the normalized features of
task t′, by layer Σ tr(B ΔWᵀ A ΔW) (:mod:`linearize.curvature`). Only a card of each other task is
wanted, no example of it while training.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from linearize import tree
from linearize.curvature import Card, check_alike, measure, merge, quadratic
from linearize.curvature.blocks import Block
from linearize.methods.fine_tuning import fine_tune
from linearize.study import Method, Study
from linearize.train import Penalty
from linearize.types import Apply, Array, Flat, Params


def curvature(f: Apply, params0: Params, tau: Flat, state: list[list[Block]], key: Array) -> Array:
    """Σ τᵀGτ of several block-diagonal G, (): the penalty's value."""
    return jnp.stack([quadratic(blocks, tau) for blocks in state]).sum()


def card_of(
    study: Study,
    task: str,
    *,
    examples: int = 256,
    normalized: bool = True,
    probes: int | None = 1,
    parts: int = 1,
) -> Card:
    """A task's curvature card, of its training examples; kept in the study's store.

    Args:
        study: whose model and data.
        task: whose examples.
        examples: how many, drawn with the study's seed; all where there are fewer.
        normalized: whether features are taken at length 1.
        probes: Gaussian probes an example; None for their expectation.
        parts: diagonal blocks of B that are kept (:func:`linearize.curvature.measure`).
    """
    model, inputs = study.model, study.drawn(task, examples, "tak")
    how: dict[str, Any] = {"normalized": normalized, "probes": probes, "parts": parts}

    def made() -> Card:
        return measure(
            model.f,
            model.params,
            inputs,
            trainable=study.trainable,
            seed=study.seed,
            meta={"task": task, **study.meta},
            **how,
        )

    told = {"examples": examples, **how}
    return study.prepared(
        "curvature", task, told, made, save=lambda path, card: card.save(path), load=Card.load
    )


def of_others(
    study: Study,
    task: str,
    *,
    weight: float = 500.0,
    exact: bool = False,
    control: bool = False,
    cards: Mapping[str, Card] | None = None,
    dense: float = 10.0,
    scales: Mapping[str, float] | None = None,
    **how: Any,
) -> Penalty:
    """The penalty of a task: the curvature of all others.

    Args:
        study: whose tasks.
        task: the one that is trained.
        weight: λ; 500 in one of the public code bases, 100 in the other.
        exact: a term for each other task, in place of one for (Σ B) ⊗ (mean A), whose cost does not
            grow with the tasks.
        control: whether the control task counts among the others; negation is then measured on
            what was trained on, and the method's label is to say so.
        cards: in place of those that are measured, by name: of a reference set, say, in which case
            no example of another task is looked at.
        dense: how much more blocks of norms and class tokens count, as in the public code.
        scales: by pattern of leaves, how much more their blocks count: there 0.1 or 0.01 for the
            projection.
        **how: as of :func:`card_of`.

    Raises:
        ValueError: no other task, or no control task where it is asked for; cards of features at
            length 1 and as they are.
        StructureMismatch: a card of another base, or of other leaves than the study trains.
    """
    if cards is None:
        others = study.others(task, "tak", control=control)
        cards = {other: card_of(study, other, **how) for other in others}
    if not cards:
        raise ValueError("cards={}; give the curvature of a task or a reference set at least")
    moving = tree.select(study.model.params, study.trainable)
    for card in cards.values():
        card.check(study.model.params, moving)
    given = list(cards.values())
    check_alike(given)
    terms = given if exact else [merge(given)]
    state = [list(term.scaled(scales or {}, dense).blocks) for term in terms]
    return Penalty("tak", curvature, weight, state)


TAK = Method(
    "tak",
    "TAK",
    "tangent",
    partial(fine_tune, regime="linear", method="tak", penalties=[of_others]),
)
"""Linear fine-tuning, with the other tasks' merged curvature as penalty; λ 500."""

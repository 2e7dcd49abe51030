"""TAK: linear fine-tuning that keeps other tasks' features still, by Kronecker factors of theirs.

*merge-and-rebase* (ICLR 2026): + λ Σ_t′ τᵀG_t′τ with G_t′ = E[JᵀJ] of the normalized features of
task t′, by layer Σ tr(B ΔWᵀ A ΔW) (:mod:`linearize.curvature`). Only a card of each other task is
wanted, no example of it while training. Patch embedding and positions stay at θ0, as in that code:
where they move, nearly all that linear vectors do to other tasks comes through the former.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from linearize import tree
from linearize.curvature import Card, measure, merge, quadratic
from linearize.curvature.blocks import Block
from linearize.examples import as_arguments
from linearize.methods.fine_tuning import Leaves, bound, fine_tune, pattern_of, within
from linearize.study import Method, Study
from linearize.train import Penalty
from linearize.types import Apply, Array, Flat, Params

WEIGHT = 500.0
"""λ in one of the public code bases; 100 in the other."""
FROZEN = r"(?i)(^|/)(\w*patch_?embed\w*|(class_)?positions?|pos(ition(al)?)?_?embed\w*|wpe)(/|$)"
"""Finds patch embeddings and tables of positions in models of our own and of others."""


def stays(study: Study, task: str) -> list[str] | None:
    """Patch embedding and positions of a study's model, as a pattern; None where it has neither."""
    return tree.exactly(filter(tree.finder(FROZEN), tree.names(study.model.params))) or None


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
    """A task's curvature card, of its training examples; kept in the study's store as a file.

    Args:
        study: whose model and data.
        task: whose examples.
        examples: how many, drawn by the study's seed; all where there are fewer.
        normalized: whether features are taken at length 1.
        probes: Gaussian probes an example, drawn by the study's seed, the same of all tasks, so
            that their noise does not average over tasks; None for their expectation.
        parts: diagonal blocks of B that are kept (:func:`linearize.curvature.measure`).
    """
    model, (seen, asked) = study.model, study.some(task, examples, "tak")
    how: dict[str, Any] = {"normalized": normalized, "probes": probes, "parts": parts}

    def made() -> Card:
        return measure(
            model.f,
            model.params,
            as_arguments(seen.inputs),
            asked=asked,
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
    exact: bool = False,
    normalized: bool = True,
    control: bool = False,
    cards: Mapping[str, Card] | None = None,
    frozen: Leaves = None,
    weight: float = WEIGHT,
    dense: float = 10.0,
    scales: Mapping[str, float] | None = None,
    examples: int = 256,
    parts: int = 1,
) -> Penalty:
    """The penalty for one task; the switches are those of :func:`tak`.

    Args:
        study: whose tasks.
        task: the one that is trained.
        exact: a switch, as all up to ``frozen``.
        normalized: likewise.
        control: likewise.
        cards: likewise.
        frozen: likewise; here no leaf by default.
        weight: λ.
        dense: how much more blocks of norms and class tokens count, as in the public code.
        scales: by pattern of leaves, how much more their blocks count: there 0.1 or 0.01 for the
            projection.
        examples: training examples of a task that its card is made of.
        parts: diagonal blocks of B that are kept (:func:`linearize.curvature.measure`).

    Raises:
        ValueError: there is no other task, or no control task where it is asked for; no card but
            the task's own, or cards of features at length 1 and as they are; cards that are given
            and are not of what the switches say.
        StructureMismatch: a card of another base, or of other leaves than those that move.
    """
    _check_raw(cards, normalized)
    if cards is not None and control and study.control not in cards:
        raise ValueError(
            f"control=True beside cards of {', '.join(map(repr, cards))}: where cards are given "
            f"no other is measured; give one of the control task, {study.control!r}, too, or leave "
            "control out"
        )
    if cards is None:
        of = partial(card_of, study, examples=examples, normalized=normalized, parts=parts)
        cards = {other: of(other) for other in study.others(task, "tak", control=control)}
    elif set(cards) == {task}:
        raise ValueError(
            f"cards is of {task!r} alone, the task that is trained; give the card of another set"
        )
    cards = {name: card for name, card in cards.items() if name != task}
    moving = tree.select(study.model.params, within(study, None, pattern_of(frozen, study, task)))
    for card in cards.values():
        card.check(study.model.params, moving)
    given = list(cards.values())
    merged = merge(given)  # refuses those that cannot be added
    terms = given if exact else [merged]
    state = [list(term.scaled(scales or {}, dense).blocks) for term in terms]
    return Penalty("tak", curvature, weight, state)


def tak(
    *,
    exact: bool = False,
    normalized: bool = True,
    control: bool = False,
    cards: Mapping[str, Card] | None = None,
    frozen: Leaves = stays,
    **how: Any,
) -> Method:
    """A row, whose name and label say which switches are on.

    Args:
        exact: a term for each other task, in place of one for (Σ B) ⊗ (mean A), whose cost does not
            grow with the tasks.
        normalized: whether cards are of features at length 1, or as they are.
        control: the control task's card too, so that negation's control is trained on.
        cards: in place of those of the other tasks, by name: of a reference set, say, in which case
            no example of another task is looked at. One of a task's own name is not for its vector.
        frozen: pattern of the leaves that stay at θ0; patch embedding and positions by default, by
            the names that they have in models of our own and of others. None trains them too.
        **how: the other arguments of :func:`of_others`.

    Raises:
        ValueError: raw features, and ``cards`` of features at length 1.

    >>> tak(exact=True, normalized=False).label
    'TAK, exact, raw features'
    """
    _check_raw(cards, normalized)
    on = {
        "exact": exact,
        "raw features": not normalized,
        "with control": control,
        "given cards": cards is not None,
        "all leaves": frozen is None,
        "other leaves": frozen is not None and frozen is not stays,
    }
    words = ["TAK", *(word for word, is_on in on.items() if is_on)]
    name = "_".join(words).replace(" ", "_").lower()
    penalty = bound(
        of_others,
        exact=exact,
        normalized=normalized,
        control=control,
        cards=cards,
        frozen=frozen,
        **how,
    )
    train = partial(fine_tune, regime="linear", method=name, frozen=frozen, penalties=[penalty])
    of = "given data" if cards is not None else "other tasks" + " and the control task" * control
    about = (
        f"Linear fine-tuning with the penalty λ τᵀGτ, G of {of}, by Kronecker factors"
        f"{' for each of them' * exact}: how far the vector moves the "
        f"{'features, at length 1,' if normalized else 'features'} there"
        f"{'; patch embedding and positions stay at θ0' * (frozen is stays)} (TAK, ICLR 2026)."
    )
    return Method(name, ", ".join(words), "tangent", train, controlled=control, about=about)


def _check_raw(cards: Mapping[str, Card] | None, normalized: bool) -> None:
    other = [name for name, card in (cards or {}).items() if card.normalized]
    if other and not normalized:
        raise ValueError(
            f"normalized=False, and the cards of {', '.join(map(repr, other))} are of features at "
            "length 1; measure them with normalized=False, or leave it out"
        )


TAK = tak()
"""Linear fine-tuning, with the other tasks' merged curvature as penalty."""
VARIANTS = (tak(exact=True), tak(normalized=False), tak(control=True), tak(frozen=None))
"""One switch each."""

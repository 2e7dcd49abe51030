"""Fine-tuning by gradient steps, as a method's ``train``: the same loop for every one.

A method is a regime, a pattern, penalties and a mask, each a row of its own:

    TAU_JP = Method("tau_jp", "τJp", "tangent", partial(
        fine_tune, regime="linear", method="tau_jp", penalties=[interference]))
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from linearize import hosts, io, train, tree
from linearize.objectives import Classify, Objective
from linearize.study import Method, Study
from linearize.task_vector import TaskVector
from linearize.train import FineTuned, Penalty, RunMismatchError, TrainConfig
from linearize.types import Params, PyTree

T = TypeVar("T")
Leaves = tree.Pattern | Callable[[Study, str], tree.Pattern]
"""A pattern of leaves, or how it is made, of a study and the task that is trained."""


def fine_tune(
    study: Study,
    task: str,
    *,
    regime: Literal["nonlinear", "linear"],
    method: str | None = None,
    direction: Literal["descend", "ascend"] = "descend",
    trainable: Leaves = None,
    frozen: Leaves = None,
    penalties: Sequence[Penalty | Callable[[Study, str], Penalty]] = (),
    mask: PyTree | Callable[[Study, str], PyTree] | None = None,
    weight: float | None = None,
    recipe: str | None = None,
) -> TaskVector:
    """One task's vector, in the study's recipe for the method, or else for ``regime``.

    Args:
        study: of the model, the data and the objective.
        task: whose training examples are used.
        regime: what is differentiated.
        method: whose folder in the store it is; the regime's by default.
        direction: ``"ascend"`` climbs the loss.
        trainable: pattern of the leaves to train, among those that the study trains; or how that
            is made, of the study and the task.
        frozen: likewise of those that stay at θ0, whatever else finds them.
        penalties: what is added to the loss (:class:`linearize.train.Penalty`); or how that is
            made, of the study and the task: its state, its streams of other tasks' examples
            (:meth:`linearize.study.Study.stream`).
        mask: which entries move (:func:`linearize.train.fine_tune`); or how that is made, of the
            study and the task.
        weight: λ of the one penalty, in place of its own (:func:`weighted`).
        recipe: the method whose recipe is taken where the study has none for ``method``; so a row
            with options trains as the row does.

    Raises:
        ValueError: a pattern that finds none of the leaves that the study trains, or leaves none
            to train; a ``weight`` where there is not one penalty.
    """
    name = method or regime
    config = replace(recipe_of(study, task, name, recipe, regime), direction=direction)
    check_smoothing(study, config)
    examples = study.split(task, "train")
    objectives = study.objectives if config.label_smoothing else study.alike
    terms = of_task(penalties, study, task)
    if weight is not None:
        if len(terms) != 1:
            raise ValueError(
                f"method {name!r} has {len(terms)} penalties and weight={weight} is of one; say "
                "each penalty's own where it is made"
            )
        terms = [replace(terms[0], weight=weight)]
    return run(
        study,
        examples.arrays(),
        config,
        (name, task),
        {"task": task},
        regime=regime,
        inputs=examples.arguments,
        trainable=within(study, *(pattern_of(each, study, task) for each in (trainable, frozen))),
        penalties=terms,
        mask=mask(study, task) if callable(mask) else mask,
        **objectives[task].training(),
    ).tau


def bound(function: Callable[..., T], **how: Any) -> "partial[T]":
    """The function with some keywords, which it is asked about now and not when it is called.

    Raises:
        TypeError: one that it has not.
    """
    signature(function).bind_partial(**how)
    return partial(function, **how)


def of_task(
    penalties: Sequence[Penalty | Callable[[Study, str], Penalty]], study: Study, task: str
) -> list[Penalty]:
    """The penalties for one task, those that are made of a study and a task among them."""
    return [each if isinstance(each, Penalty) else each(study, task) for each in penalties]


def weighted(method: Method, weights: Mapping[str, float]) -> Method:
    """The same row with another λ of its one penalty, and so the row whose vectors it takes.

    Args:
        method: whose ``train`` is :func:`fine_tune` with a penalty.
        weights: λ by the method's name; what is not there keeps its own.

    Raises:
        ValueError: one of a method that knows no λ.
    """
    of = None if method.of is None else weighted(method.of, weights)
    if method.name in weights and method.train is not None:
        known = signature(method.train).parameters
        if "weight" not in known or ("penalties" in known and not known["penalties"].default):
            raise ValueError(f"weights[{method.name!r}]: the method has no penalty; leave it out")
        return replace(method, train=_with_weight(method.train, weights[method.name]), of=of)
    return method if of is method.of else replace(method, of=of)


@cache
def _with_weight(train: Callable[..., TaskVector], weight: float) -> partial:
    """One function of a λ, so that two rows of it are one method."""
    return partial(train, weight=weight)


def pattern_of(leaves: Leaves, study: Study, task: str) -> tree.Pattern:
    """The pattern."""
    return leaves(study, task) if callable(leaves) else leaves


def within(study: Study, pattern: tree.Pattern, frozen: tree.Pattern = None) -> tree.Pattern:
    """The leaves that a pattern finds among those that the study trains, but the frozen ones."""
    if pattern is None and frozen is None:
        return study.trainable
    trained = tree.select(study.model.params, study.trainable)
    found = [name for name in tree.select(study.model.params, pattern) if name in trained]
    if not found:
        raise ValueError(
            f"trainable={pattern!r} finds none of the leaves that the study trains, which are "
            f"those of {study.trainable!r}; widen one of the two"
        )
    still = () if frozen is None else tree.select(study.model.params, frozen)
    if not set(found) - set(still):
        raise ValueError(
            f"frozen={frozen!r} finds all leaves that would be trained, {', '.join(found)}; narrow "
            "it, or train more"
        )
    return tree.exactly(name for name in found if name not in still)


def moving(study: Study, method: Method) -> dict[str, tuple[int, ...]] | None:
    """Shapes of the leaves that a method will move, before it does; None where it trains otherwise.

    Of a row whose ``train`` is :func:`fine_tune` with patterns.
    """
    train: Any = method.trainer.train
    if getattr(train, "func", None) is not fine_tune:
        return None
    (task, *_), told = study.names, train.keywords
    patterns = (pattern_of(told.get(n), study, task) for n in ("trainable", "frozen"))
    flat = tree.flatten(study.model.params)
    return {name: np.shape(flat[name]) for name in tree.select(flat, within(study, *patterns))}


def recipe_of(study: Study, task: str, *names: str | None) -> TrainConfig:
    """The first of these recipes that the study has, for as long as the task wants."""
    told = (study.recipes[name] for name in filter(None, names) if name in study.recipes)
    recipe: TrainConfig = next(told, TrainConfig())
    return replace(recipe, epochs=study.epochs.get(task, recipe.epochs))


def check_smoothing(study: Study, recipe: TrainConfig) -> None:
    """Some task's objective is one that a recipe's label smoothing is for.

    Raises:
        ValueError: it would be passed over for all of them.
    """
    smoothing = recipe.label_smoothing
    given = study.objectives.values()
    if smoothing and all(smoothed(each, smoothing) is each for each in given):
        raise ValueError(
            f"label_smoothing={smoothing} is of classification without a smoothing of its own, "
            f"which no task's objective is ({', '.join(sorted({type(o).__name__ for o in given}))}"
            "); leave it 0"
        )


def smoothed(objective: Objective, smoothing: float) -> Objective:
    """Classification that has no smoothing of its own with a recipe's, and any other as it is."""
    if isinstance(objective, Classify) and not objective.smoothing:
        return replace(objective, smoothing=smoothing)
    return objective


def kept(study: Study, place: tuple[str, ...], tau: TaskVector) -> TaskVector:
    """A vector that was made of a run's, saved in its method's folder, where others look for it.

    Args:
        study: whose store.
        place: folders in it: the method's and the task's.
        tau: the vector; it forgets which run directory it is of.
    """
    tau = replace(tau, meta={name: said for name, said in tau.meta.items() if name != "run"})
    path = study.store.path(*place, "task_vector.safetensors")
    if path is not None:
        hosts.told(lambda: tau.save(path) and None)
    return tau


def run(
    study: Study,
    arrays: Mapping[str, Any],
    recipe: TrainConfig,
    place: tuple[str, ...],
    meta: Mapping[str, Any],
    *,
    start: Params = None,
    **how: Any,
) -> FineTuned:
    """``train.fine_tune`` with what a study fixes: model, seed, trained leaves, place in the store.

    Args:
        study: what is fixed.
        arrays: training examples by role.
        recipe: how to train; the seed is the study's.
        place: folders in the store.
        meta: what the vector is to remember beside the study's own notes.
        start: in place of θ0.
        how: the regime, the loss or readout, and whatever else it takes.

    Raises:
        RunMismatchError: its place, or that of another seed beside it, holds a vector that was
            trained otherwise, as an earlier version may have; one table is not made of both.
    """
    path = study.store.path(*place)
    if how.get("loss") is not None:  # which smooths labels itself
        recipe = replace(recipe, label_smoothing=0.0)
    try:
        found = train.fine_tune(
            study.model.f,
            study.model.params if start is None else start,
            study.feed(arrays),
            config=replace(recipe, seed=study.seed),
            run_dir=path,
            meta={**meta, **study.meta},
            **{"trainable": study.trainable, **how},
        )
    except RunMismatchError as error:
        raise RunMismatchError(
            f"{error}\nWhat lies in {study.store.root} was measured of it: move all of that away"
        ) from error
    if path is not None:
        _as_in_other_seeds(path, f"seed_{study.seed}")
    return found


def _as_in_other_seeds(path: Path, own: str) -> None:
    """Refuse a vector whose method was another one in a seed that lies beside its own."""
    if own not in path.parts:
        return
    at = len(path.parts) - 1 - path.parts[::-1].index(own)
    place, below = Path(*path.parts[:at]), Path(*path.parts[at + 1 :])
    now = _decided(path)
    for seed in sorted(place.glob("seed_*")):
        there = _decided(seed / below)
        differ = [
            f"{name}: there {said!r}, now {now.get(name)!r}"
            for name, said in there.items()
            if said != now.get(name)
        ]
        if differ:
            raise RunMismatchError(
                f"{seed / below} was trained otherwise than {path}, as an earlier version may "
                f"have; choose another directory than {place}, or move {seed.name} away, which is "
                "then measured anew. What differs:\n  " + "\n  ".join(differ)
            )


def _decided(path: Path) -> dict[str, Any]:
    """What a run directory says of its method, whatever the seed; nothing where there is none."""
    try:
        known = io.read_json(path / "config.json").get("identity", {})
    except (FileNotFoundError, io.CorruptFileError):
        return {}
    weights = {name: each["weight"] for name, each in known.get("penalties", {}).items()}
    same = ("regime", "trainable", "inputs", "loss")
    return {**{name: known[name] for name in same if name in known}, "penalties": weights}

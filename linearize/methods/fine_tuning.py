"""Fine-tuning by gradient steps, as a method's ``train``: the same loop for every one."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from linearize import train
from linearize.study import Study
from linearize.task_vector import TaskVector
from linearize.train import FineTuned, TrainConfig
from linearize.types import Params


def fine_tune(
    study: Study,
    task: str,
    *,
    regime: Literal["nonlinear", "linear"],
    method: str | None = None,
    direction: Literal["descend", "ascend"] = "descend",
) -> TaskVector:
    """One task's vector, in the study's recipe for ``regime``.

    Args:
        study: of the model, the data and the objective.
        task: whose training examples are used.
        regime: what is differentiated.
        method: whose folder in the store it is; the regime's by default.
        direction: ``"ascend"`` climbs the loss.
    """
    recipe: TrainConfig = study.recipe(regime, TrainConfig())
    examples = study.split(task, "train")
    objectives = study.objectives if recipe.label_smoothing else study.alike
    return run(
        study,
        examples.arrays(),
        replace(recipe, direction=direction, epochs=study.epochs.get(task, recipe.epochs)),
        (method or regime, task),
        {"task": task},
        regime=regime,
        inputs=examples.arguments,
        **objectives[task].training(),
    ).tau


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
        how: the regime, and the loss or readout.
    """
    return train.fine_tune(
        study.model.f,
        study.model.params if start is None else start,
        study.feed(arrays),
        config=replace(recipe, seed=study.seed),
        trainable=study.trainable,
        run_dir=study.store.path(*place),
        meta={**meta, **study.meta},
        **how,
    )

"""From a configuration to a study: tasks, model, frozen heads, recipes, and what is compared."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from linearize import comparison, data, models
from linearize import config as configuration
from linearize.comparison import Plan, Row
from linearize.config import (
    REGIMES,
    CompareConfig,
    DataConfig,
    ExactConfig,
    ModelConfig,
    StudyConfig,
)
from linearize.data import Task
from linearize.evaluate.view import VIEWS
from linearize.merge import MERGES
from linearize.methods import METHODS, NONLINEAR, weighted
from linearize.models.heads import Head
from linearize.objectives import Classify, Control, Objective
from linearize.study import FineTuning, Method, Store, Study
from linearize.study import fine_tunings as every_seed
from linearize.train import TrainConfig

log = logging.getLogger(__name__)

CONTROL_PER_CLASS = 50
"""Training images of the control task, on average, where ``data.train`` is None."""


def load_tasks(
    config: StudyConfig, *, control: bool = False, methods: Iterable[Method] = ()
) -> dict[str, Task]:
    """The configuration's tasks; splits are cut to size.

    Args:
        config: of the study.
        control: whether its control task is read too.
        methods: for whom it is read where one of them trains with it.
    """
    control = control or any(method.trainer.controlled for method in methods)
    names = (*config.data.tasks, config.data.control) if control else config.data.tasks
    log.info("reading tasks: %s", ", ".join(names))
    data.prefetch(names, config.data.image_size)
    return {name: load_task(config.data, name) for name in names}


def load_task(config: DataConfig, name: str) -> Task:
    """One task as configured."""
    return data.load_task(
        name,
        image_size=config.image_size,
        limit=limits(config, name),
        seed=config.seed,
        reading=reading(config),
    )


def reading(config: DataConfig) -> data.Reading:
    """How the papers' tasks are read from disk."""
    return data.Reading(config.data_dir, config.workers, config.on_bad_image)


def limits(config: DataConfig, name: str) -> data.Limits:
    """How many examples of a task each split keeps."""
    train = config.train
    if train is None and name == config.control and name in data.VISION:
        train = CONTROL_PER_CLASS * data.VISION[name].classes
    return data.Limits(train, config.validation, config.test)


_backbone = cache(ModelConfig.load)


def backbone(config: ModelConfig, seed: int) -> models.Backbone:
    """The model at θ0. Pretrained weights do not depend on the seed, random ones do."""
    return _backbone(config, 0 if config.pretrained else config.seed + seed)


def study(
    config: StudyConfig,
    tasks: Mapping[str, Task],
    seed: int,
    store: Store,
    *,
    heads: Mapping[str, Head | None] | None = None,
) -> Study:
    """One seed's study: the model at θ0, and a frozen head of each task.

    Args:
        config: of model, heads, recipes and evaluation.
        tasks: by name; the control task may be among them.
        seed: of heads and data order.
        store: where it is kept.
        heads: in place of those that the configuration describes; None reads outputs as logits.
    """
    model = backbone(config.model, seed)
    if heads is None:
        log.info("seed %d: heads of %d tasks", seed, len(tasks))
        heads = {name: make_head(config, model, task, seed) for name, task in tasks.items()}
    return Study(
        model,
        tasks,
        {name: Classify(head) for name, head in heads.items()},
        control=config.data.control if config.data.control in tasks else None,
        seed=seed,
        store=store,
        recipes=config.recipes,
        trainable=config.trainable,
        epochs=config.epochs,
        feed=partial(for_training, config.data),
        batch_size=config.batch_size,
        meta={"config": configuration.to_dict(config)},
    )


def fine_tunings(
    config: StudyConfig,
    store: Store,
    methods: Iterable[Method],
    names: Sequence[str],
    tasks: Callable[[], Mapping[str, Task]],
) -> list[FineTuning]:
    """Those of every seed's :func:`study` in a store, each apart from the others.

    Args:
        config: as there.
        store: of the run.
        methods: whose vectors, or those that they take of others.
        names: of the tasks that are trained.
        tasks: reads them, and the control task, as often as it is asked.
    """
    return every_seed(
        store,
        config.seeds,
        methods,
        names,
        lambda seed, place: study(config, tasks(), seed, place),
    )


def plan(config: CompareConfig) -> Plan:
    """What the configuration compares: regimes, but those it sets to None, and what it names."""
    edit, maps = config.edit, config.map
    regimes = [name for name in METHODS if name in REGIMES and getattr(config, name, True)]
    names = [*regimes, *config.methods, *(name for name in config.baselines if name in METHODS)]
    methods = [weighted(METHODS[name], config.weights) for name in names]
    added = [method for method in methods if method.stands == "regime"]
    merged = [Row(MERGES[name], method) for name in config.merges for method in added]
    return Plan(
        methods=methods,
        rows=[
            Row(MERGES[name], NONLINEAR, name, MERGES[name].label)
            for name in config.baselines
            if name in MERGES
        ]
        + [row for row in merged if comparison.fits(VIEWS, row.merge, row.method)],
        alphas=edit.alphas,
        sweep_test=edit.sweep_test,
        tolerance=Control(edit.retained),
        pairs=maps.pairs,
        map_alphas=maps.alphas,
        n_eval=maps.n_eval,
        search_box=maps.search_box,
    )


TUNED: Mapping[type, Callable[[Any, float], Any]] = {
    TrainConfig: lambda recipe, lr: replace(recipe, optim=replace(recipe.optim, lr=lr)),
    ExactConfig: lambda recipe, l2: replace(recipe, l2=l2),
}
"""By kind of recipe, the same with another value of what is tuned."""


def with_value(config: CompareConfig, method: str, value: float) -> CompareConfig:
    """The configuration with another λ of a method whose λ it says, else learning rate, or l2."""
    if method in config.weights:
        return replace(config, weights={**config.weights, method: value})
    recipe = config.recipes[method]
    changed: dict[str, Any] = {method: TUNED[type(recipe)](recipe, value)}
    return replace(config, **changed)


def head(objective: Objective) -> Head:
    """The head that an objective of :func:`study` reads features by."""
    assert isinstance(objective, Classify)
    assert isinstance(objective.readout, Head)
    return objective.readout


def make_head(config: StudyConfig, model: models.Backbone, task: Task, seed: int) -> Head:
    """The frozen head of one task, of the kind that the configuration names."""
    return head(config.head.heads(config.model, config.batch_size)(model, task, seed))


def for_training(config: DataConfig, examples: Mapping[str, Any]) -> Any:
    """Examples as ``train.fine_tune`` takes them."""
    return data.for_training(examples, augment=config.augment, workers=config.workers)


def describe_model(config: ModelConfig, seed: int) -> dict[str, Any]:
    """Name, input size and number of parameters."""
    model = backbone(config, seed)
    seen = {"name": model.name, "image_size": model.image_size}
    return seen | comparison.describe_model(model)

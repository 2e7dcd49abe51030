"""From a configuration to a study: tasks, model, frozen heads, recipes, and what is compared."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from linearize import config as configuration
from linearize import data, models, tree
from linearize.comparison import Plan, Row
from linearize.config import (
    CompareConfig,
    ConfigError,
    DataConfig,
    ExactConfig,
    HeadConfig,
    ModelConfig,
)
from linearize.data import Task
from linearize.merge import MERGES
from linearize.methods import METHODS, NONLINEAR
from linearize.models.heads import Head
from linearize.objectives import Classify, Control, Objective
from linearize.study import Store, Study
from linearize.study.heads import Probe, Prototypes
from linearize.train import TrainConfig

log = logging.getLogger(__name__)

CONTROL_PER_CLASS = 50
"""Training images of the control task, on average, where ``data.train`` is None."""


def load_tasks(config: CompareConfig, *, control: bool = False) -> dict[str, Task]:
    """The configuration's tasks, its control task too where asked for; splits are cut to size."""
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


def load_backbone(config: ModelConfig, seed: int) -> models.Backbone:
    """The model as configured, read anew; random weights are drawn from ``seed``."""
    log.info("reading model %s", config.name)
    with said_as_configuration("model"):
        return models.load(
            config.name,
            pretrained=config.pretrained,
            seed=seed,
            image_size=config.image_size,
            blocks=config.blocks,
            dtype=config.dtype,
            remat=config.remat,
            scan=config.scan,
            weights=config.weights if config.pretrained else None,
        )


_backbone = cache(load_backbone)


@contextmanager
def said_as_configuration(part: str) -> Iterator[None]:
    """What a loader refuses was written in the configuration: say so, without a traceback."""
    try:
        yield
    except models.WeightsError:
        raise
    except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
        raise ConfigError(f"{part}: {error}") from error


def backbone(config: ModelConfig, seed: int) -> models.Backbone:
    """The model at θ0. Pretrained weights do not depend on the seed, random ones do."""
    return _backbone(config, 0 if config.pretrained else config.seed + seed)


def study(
    config: CompareConfig,
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
        recipes=recipes(config),
        trainable=config.trainable,
        epochs=config.epochs,
        feed=partial(for_training, config.data),
        batch_size=config.batch_size,
        meta={"config": configuration.to_dict(config)},
    )


Recipe = TrainConfig | ExactConfig


def recipes(config: CompareConfig) -> dict[str, Recipe]:
    """How each method trains that is configured, by its name."""
    found = {name: getattr(config, name, None) for name in METHODS}
    return {name: recipe for name, recipe in found.items() if isinstance(recipe, Recipe)}


def plan(config: CompareConfig) -> Plan:
    """What the configuration compares: regimes, but those it sets to None, then its baselines."""
    edit, maps = config.edit, config.map
    regimes = [m for m in METHODS.values() if m.stands == "regime"]
    return Plan(
        methods=[m for m in regimes if getattr(config, m.name, m) is not None]
        + [METHODS[name] for name in config.baselines if name in METHODS],
        rows=[
            Row(MERGES[name], NONLINEAR, name, MERGES[name].label)
            for name in config.baselines
            if name in MERGES
        ],
        alphas=alphas(config),
        sweep_test=edit.sweep_test,
        tolerance=Control(edit.retained),
        pairs=maps.pairs,
        map_alphas=np.linspace(maps.low, maps.high, maps.points),
        n_eval=maps.n_eval,
        search_box=maps.search_box,
    )


TUNED: Mapping[type[Recipe], Callable[[Any, float], Recipe]] = {
    TrainConfig: lambda recipe, lr: replace(recipe, optim=replace(recipe.optim, lr=lr)),
    ExactConfig: lambda recipe, l2: replace(recipe, l2=l2),
}
"""By kind of recipe, the same with another value of what is tuned."""


def with_value(config: CompareConfig, method: str, value: float) -> CompareConfig:
    """The configuration with another learning rate, or l2, of one method that it has."""
    recipe = recipes(config)[method]
    changed: dict[str, Any] = {method: TUNED[type(recipe)](recipe, value)}
    return replace(config, **changed)


def head(objective: Objective) -> Head:
    """The head that an objective of :func:`study` reads features by."""
    assert isinstance(objective, Classify)
    assert isinstance(objective.readout, Head)
    return objective.readout


def make_head(config: CompareConfig, model: models.Backbone, task: Task, seed: int) -> Head:
    """The frozen head of one task, of the kind that the configuration names."""
    return HEADS[config.head.kind](config, model, task, seed)


def _text(config: CompareConfig, model: models.Backbone, task: Task, seed: int) -> Head:
    """Of class names, by the text tower beside the pretrained weights: the papers' head."""
    names, templates = sentences(config.head, task)
    with said_as_configuration("head"):
        text, tokenizer = _text_tower(config.model, config.head.tokenizer)
        check_widths(text, model.name, model.feature_dim)
        return models.text_head(text, tokenizer, task.name, names, templates)


def sentences(config: HeadConfig, task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a text head calls a task's classes, and its templates.

    Raises:
        ConfigError: there are none for these classes.
    """
    with said_as_configuration("head"):
        names = models.prompts.class_names(task.name, task.classes, config.class_names)
        return names, models.prompts.templates(task.name, config.templates)


def check_widths(text: models.TextEncoder, name: str, feature_dim: int) -> None:
    """Refuse a text tower that does not belong to the image encoder of that name.

    Raises:
        ConfigError: its features have another width.
    """
    if text.feature_dim != feature_dim:
        raise ConfigError(
            f"head.kind='text': the text tower's features are {text.feature_dim} wide and "
            f"{name}'s {feature_dim}; they are not of one CLIP"
        )


def load_text_tower(
    config: ModelConfig, tokenizer: str | None
) -> tuple[models.TextEncoder, models.Tokenizer]:
    """The text tower beside the weights, and its tokenizer."""
    text = models.load_text(config.name, weights=config.weights)
    where = tokenizer or config.weights
    return text, models.load_tokenizer(where, vocabulary=text.vocabulary)


_text_tower = cache(load_text_tower)


def _prototypes(config: CompareConfig, model: models.Backbone, task: Task, seed: int) -> Head:
    """Of a few training examples' features at θ0."""
    told = config.head
    made = Prototypes(told.shots, told.temperature, told.normalize, config.batch_size)
    return head(made(model, task, seed))


def _probe(config: CompareConfig, model: models.Backbone, task: Task, seed: int) -> Head:
    """A linear probe of all training examples' features at θ0."""
    return head(Probe(config.batch_size)(model, task, seed))


HEADS: Mapping[str, Callable[[CompareConfig, models.Backbone, Task, int], Head]] = {
    "text": _text,
    "prototype": _prototypes,
    "probe": _probe,
}
"""Kinds of frozen heads: of a configuration, the model at θ0, a task and a seed."""


def for_training(config: DataConfig, examples: Mapping[str, Any]) -> Any:
    """Examples as ``train.fine_tune`` takes them."""
    return data.for_training(examples, augment=config.augment, workers=config.workers)


def alphas(config: CompareConfig) -> np.ndarray:
    """The grid that the scaling coefficient is searched on."""
    return np.linspace(config.edit.low, config.edit.high, config.edit.points)


def describe_model(config: ModelConfig, seed: int) -> dict[str, Any]:
    """Name, input size and number of parameters."""
    model = backbone(config, seed)
    return {
        "name": model.name,
        "image_size": model.image_size,
        "blocks": len(model.blocks),
        "parameters": sum(np.size(leaf) for leaf in tree.flatten(model.params).values()),
    }

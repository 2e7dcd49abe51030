"""The steps that the experiments share: tasks, heads, task vectors, and accuracy at any α.

One record, :class:`Setting`, holds what a seed fixes; one class, :class:`Evaluator`, answers in
every regime the only question that editing asks: how accurate is θ0 + Σ α_t τ_t on this data?
"""

import dataclasses
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from linearize import config as configuration
from linearize import data, edit, evaluate, models, sealed, train, tree
from linearize.comparison import Plan, Row
from linearize.config import CompareConfig, ConfigError, DataConfig, HeadConfig, ModelConfig
from linearize.data import Task
from linearize.disentangle import ErrorMap, disentanglement_error
from linearize.examples import Examples
from linearize.merge import MERGES
from linearize.methods import EXACT, METHODS, NONLINEAR
from linearize.models.heads import (
    Head,
    apply_head,
    few_shot,
    linear_probe,
    pad_head,
    prototype_head,
)
from linearize.objectives import Classify, Control, Objective
from linearize.study import Store, Study
from linearize.task_vector import TaskVector
from linearize.types import Apply, Params

log = logging.getLogger(__name__)

CONTROL_PER_CLASS = 50
"""Training images of the control task, on average, where ``data.train`` is None."""

Regime = Literal["nonlinear", "posthoc", "linear", "exact"]
Trained = Literal["nonlinear", "linear", "exact"]
TRAINED: Mapping[Regime, Trained] = {
    "nonlinear": "nonlinear",
    "posthoc": "nonlinear",
    "linear": "linear",
    "exact": "exact",
}
"""Each regime's evaluation, and the regime in which its task vectors were trained."""


@dataclass(frozen=True)
class Setting:
    """One seed's fixed things: the model at θ0, the tasks, and a frozen head for each."""

    config: CompareConfig
    seed: int
    f: Apply
    params0: Params
    tasks: Mapping[str, Task]
    heads: Mapping[str, Head]

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks that are trained, in the table's order."""
        return self.config.data.tasks

    @cached_property
    def padded(self) -> dict[str, Head]:
        """The heads in one shape, so that all tasks share what is compiled for one."""
        most = max(head.kernel.shape[1] for head in self.heads.values())
        return {name: pad_head(head, most) for name, head in self.heads.items()}

    def split(self, task: str, split: str) -> Examples:
        """A task's ``train``, ``validation`` or ``test`` examples."""
        return self.tasks[task].split(split)


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


def prepare(config: CompareConfig, tasks: Mapping[str, Task], seed: int) -> Setting:
    """The model at θ0 and a frozen head per task."""
    model = backbone(config.model, seed)
    log.info("seed %d: heads of %d tasks", seed, len(tasks))
    heads = {name: make_head(config, model, task, seed) for name, task in tasks.items()}
    return Setting(config, seed, model.f, model.params, tasks, heads)


def study(
    config: CompareConfig,
    tasks: Mapping[str, Task],
    seed: int,
    store: Store,
    *,
    heads: Mapping[str, Head] | None = None,
) -> Study:
    """One seed's study: the model at θ0, and a frozen head of each task.

    Args:
        config: of model, heads, recipes and evaluation.
        tasks: by name; the control task may be among them.
        seed: of heads and data order.
        store: where it is kept.
        heads: in place of those that the configuration describes.
    """
    model = backbone(config.model, seed)
    if heads is None:
        log.info("seed %d: heads of %d tasks", seed, len(tasks))
        heads = {name: make_head(config, model, task, seed) for name, task in tasks.items()}
    recipes = {"nonlinear": config.nonlinear, "linear": config.linear, "exact": config.exact}
    return Study(
        model,
        tasks,
        {name: Classify(head) for name, head in heads.items()},
        control=config.data.control if config.data.control in tasks else None,
        seed=seed,
        store=store,
        recipes={name: recipe for name, recipe in recipes.items() if recipe is not None},
        trainable=config.trainable,
        epochs=config.epochs,
        feed=partial(for_training, config.data),
        batch_size=config.batch_size,
        meta={"config": configuration.to_dict(config)},
    )


def plan(config: CompareConfig) -> Plan:
    """What the configuration compares: its regimes, then its baselines."""
    regimes = [m for m in METHODS.values() if m.stands == "regime"]
    edit, maps = config.edit, config.map
    return Plan(
        methods=[m for m in regimes if m is not EXACT or config.exact is not None]
        + [METHODS[name] for name in config.baselines if name in METHODS],
        rows=[Row(MERGES[name], NONLINEAR, name) for name in config.baselines if name in MERGES],
        alphas=alphas(config),
        sweep_test=edit.sweep_test,
        tolerance=Control(edit.retained),
        pairs=maps.pairs,
        map_alphas=np.linspace(maps.low, maps.high, maps.points),
        n_eval=maps.n_eval,
    )


def with_value(config: CompareConfig, regime: str, value: float) -> CompareConfig:
    """The configuration with another learning rate, or l2, in one regime."""
    if regime == "exact":
        assert config.exact is not None
        return dataclasses.replace(config, exact=dataclasses.replace(config.exact, l2=value))
    recipe = getattr(config, regime)
    recipe = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, lr=value))
    return dataclasses.replace(config, **{regime: recipe})


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
    images, labels, classes = task.train.inputs, task.train.labels, len(task.classes)
    drawn = few_shot(jnp.asarray(labels), classes, shots=config.head.shots, seed=seed)
    features = evaluate.outputs(model.f, model.params, images[drawn], config.batch_size)
    return prototype_head(
        jnp.asarray(features),
        jnp.asarray(labels[drawn]),
        classes,
        shots=None,
        temperature=config.head.temperature,
        normalize=config.head.normalize,
    )


def _probe(config: CompareConfig, model: models.Backbone, task: Task, seed: int) -> Head:
    """A linear probe of all training examples' features at θ0."""
    features = evaluate.outputs(model.f, model.params, task.train.inputs, config.batch_size)
    return linear_probe(jnp.asarray(features), jnp.asarray(task.train.labels), len(task.classes))


HEADS: Mapping[str, Callable[[CompareConfig, models.Backbone, Task, int], Head]] = {
    "text": _text,
    "prototype": _prototypes,
    "probe": _probe,
}
"""Kinds of frozen heads: of a configuration, the model at θ0, a task and a seed."""


def task_vectors(setting: Setting, regime: Regime, run_dir: Path) -> dict[str, TaskVector]:
    """Fine-tune every task in one regime; vectors that a finished run left are reused."""
    vectors = {}
    for i, name in enumerate(setting.names, 1):
        where = f"task {i} of {len(setting.names)}"
        log.info("seed %d: %s fine-tuning on %s, %s", setting.seed, regime, name, where)
        vectors[name] = fine_tune(setting, regime, name, run_dir / regime / name)
    return vectors


def fine_tune(
    setting: Setting,
    regime: Regime,
    task: str,
    run_dir: Path,
    direction: Literal["descend", "ascend"] = "descend",
) -> TaskVector:
    """One task's vector in one regime; ``direction="ascend"`` is the gradient-ascent baseline."""
    split = setting.split(task, "train")
    recipe = getattr(setting.config, regime)
    passes = setting.config.epochs.get(task, recipe.epochs)
    heads = setting.heads if recipe.label_smoothing else setting.padded
    return train.fine_tune(
        setting.f,
        setting.params0,
        for_training(setting.config.data, split.arrays()),
        regime=regime,
        readout=Partial(apply_head, heads[task]),
        config=replace(recipe, seed=setting.seed, direction=direction, epochs=passes),
        trainable=setting.config.trainable,
        run_dir=run_dir,
        meta={"task": task, "config": configuration.to_dict(setting.config)},
    ).tau


def for_training(config: DataConfig, examples: Mapping[str, Any]) -> Any:
    """Examples as ``train.fine_tune`` takes them."""
    return data.for_training(examples, augment=config.augment, workers=config.workers)


def fine_tune_jointly(setting: Setting, run_dir: Path) -> TaskVector:
    """One non-linear fine-tuning on all tasks' examples together, each with its own head."""
    recipe = setting.config.nonlinear
    return train.fine_tune(
        setting.f,
        setting.params0,
        for_training(
            setting.config.data,
            edit.joint_examples([setting.split(name, "train") for name in setting.names]),
        ),
        regime="nonlinear",
        loss=edit.joint_loss([setting.heads[name] for name in setting.names]),
        config=replace(recipe, seed=setting.seed, steps=recipe.steps * len(setting.names)),
        trainable=setting.config.trainable,
        run_dir=run_dir,
        meta={"task": "joint", "config": configuration.to_dict(setting.config)},
    ).tau


class Evaluator:
    """Accuracy at θ0 + Σ α_t τ_t in one regime: affine algebra where exact, passes elsewhere.

    Args:
        setting: the model, tasks and heads.
        regime: ``"nonlinear"``, ``"posthoc"``, ``"linear"`` or ``"exact"``; the last three are
            evaluated alike.
        taus: task vectors by name; a coefficient is given by the same name.
    """

    def __init__(self, setting: Setting, regime: Regime, taus: Mapping[str, TaskVector]) -> None:
        self.setting = setting
        self.regime = regime
        self.taus = dict(taus)
        self._terms: dict[tuple[str, str], evaluate.AffineOutputs] = {}
        self._sums: dict[tuple[str, ...], TaskVector] = {}

    def __call__(self, alphas: Mapping[str, Any], task: str, split: str) -> np.ndarray:
        """Accuracy (A,) on one split of one task; each named coefficient is a number or (A,)."""
        columns = np.broadcast_arrays(*(np.atleast_1d(alphas.get(n, 0.0)) for n in self.taus))
        grid, setting = np.stack(columns, axis=-1), self.setting
        examples = setting.split(task, split)
        if self.regime != "nonlinear":
            return evaluate.grid_accuracy(
                self.terms(task, split), grid, setting.heads[task], examples.labels
            )
        directions, points = self._directions(grid)
        return evaluate.displaced_accuracy(
            setting.f,
            setting.params0,
            directions,
            examples.inputs,
            points,
            setting.padded[task],
            examples.labels,
            setting.config.batch_size,
        )

    def at(self, alphas: Mapping[str, float], task: str, split: str) -> float:
        """Accuracy at one point."""
        return float(self(alphas, task, split)[0])

    def terms(self, task: str, split: str) -> evaluate.AffineOutputs:
        """f0 and Jτ of every task vector on one split, computed once."""
        if (task, split) not in self._terms:
            self._terms[task, split] = evaluate.affine_outputs(
                self.setting.f,
                self.setting.params0,
                list(self.taus.values()),
                self.setting.split(task, split).inputs,
                batch_size=self.setting.config.batch_size,
            )
        return self._terms[task, split]

    def _directions(self, grid: np.ndarray) -> tuple[list[TaskVector], np.ndarray]:
        """The same points with fewer vectors: those that move alike are summed once and kept."""
        alike: dict[bytes, list[str]] = {}
        for name, column in zip(self.taus, grid.T, strict=True):
            if column.any():
                alike.setdefault(column.tobytes(), []).append(name)
        groups = [tuple(names) for names in alike.values()] or [(next(iter(self.taus)),)]
        for group in groups:
            if group not in self._sums:
                self._sums[group] = edit.add([self.taus[name] for name in group])
        columns = [list(self.taus).index(group[0]) for group in groups]
        return [self._sums[group] for group in groups], grid[:, columns]

    def error_map(self, pair: tuple[str, str]) -> ErrorMap:
        """Disentanglement error of two tasks over the configured grid, on test examples."""
        setting, config = self.setting, self.setting.config
        affine = self.regime != "nonlinear"
        heads = setting.heads if affine else setting.padded
        columns = [list(self.taus).index(task) for task in pair]
        return disentanglement_error(
            setting.f,
            setting.params0,
            [self.taus[task] for task in pair],
            [setting.split(task, "test").inputs for task in pair],
            alphas=np.linspace(config.map.low, config.map.high, config.map.points),
            regime="linear" if self.regime == "exact" else self.regime,
            readouts=[heads[task] for task in pair],
            n_eval=config.map.n_eval,
            seed=setting.seed,
            batch_size=config.batch_size,
            progress=not affine and sys.stderr.isatty(),
            cached=[self.terms(t, "test").tasks(columns) for t in pair] if affine else None,
        )


def alphas(config: CompareConfig) -> np.ndarray:
    """The grid that the scaling coefficient is searched on."""
    return np.linspace(config.edit.low, config.edit.high, config.edit.points)


EXPLORED = 500
"""Test examples a task that the report's sliders look at: all of the papers' eight would make a
page of 500 MB."""


def write_explorer(evaluator: Evaluator, path: Path) -> None:
    """What the report's sliders need: class scores at θ0 and along each τ, affine in α.

    Of :data:`EXPLORED` test examples a task, evenly spaced, or of all where there are fewer.
    """
    arrays: dict[str, np.ndarray] = {}
    for task in evaluator.setting.names:
        scores = evaluator.terms(task, "test").scores(evaluator.setting.heads[task])
        if scores is None:
            return
        labels = evaluator.setting.split(task, "test").labels
        shown = np.linspace(0, len(labels) - 1, min(EXPLORED, len(labels))).round().astype(int)
        arrays[f"{task}/logits0"] = np.asarray(scores.f0, np.float32)[shown]
        arrays[f"{task}/dlogits"] = np.asarray(scores.jvps, np.float32)[:, shown]
        arrays[f"{task}/labels"] = labels[shown]
    buffer = BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    sealed.write(path, buffer.getvalue())


def describe_model(config: ModelConfig, seed: int) -> dict[str, Any]:
    """Name, input size and number of parameters."""
    model = backbone(config, seed)
    return {
        "name": model.name,
        "image_size": model.image_size,
        "blocks": len(model.blocks),
        "parameters": sum(np.size(leaf) for leaf in tree.flatten(model.params).values()),
    }

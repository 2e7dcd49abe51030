"""Frozen heads of training examples, for models that give features: one objective a task."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from linearize import evaluate
from linearize.data import Task
from linearize.models import Model, TextEncoder, Tokenizer, prompts, text_head
from linearize.models.heads import few_shot, linear_probe, prototype_head
from linearize.objectives import Classify, Objective

Heads = Callable[[Model, Task, int], Objective]
"""A task's objective, of the model at θ0, the task and a seed."""


@dataclass(frozen=True)
class Prototypes:
    """Cosine similarity to the mean features of a few training examples of each class, at θ0.

    Raises:
        ValueError: labels are missing, or a class has fewer than ``shots`` training examples.
    """

    shots: int = 10
    temperature: float = 20.0
    normalize: bool = True
    """False makes logits affine in the features."""
    batch_size: int = 256

    def __call__(self, model: Model, task: Task, seed: int) -> Objective:
        """The head; ``seed`` draws the examples."""
        labels, classes = np.asarray(task.train.labels), count_classes(task)
        drawn = few_shot(jnp.asarray(labels), classes, shots=self.shots, seed=seed)
        features = evaluate.outputs(
            model.f, model.params, task.train.take(drawn).inputs, self.batch_size
        )
        return Classify(
            prototype_head(
                jnp.asarray(features),
                jnp.asarray(labels[drawn]),
                classes,
                shots=None,
                temperature=self.temperature,
                normalize=self.normalize,
            )
        )


@dataclass(frozen=True)
class Probe:
    """A linear probe of all training examples' features at θ0."""

    batch_size: int = 256

    def __call__(self, model: Model, task: Task, seed: int) -> Objective:
        """The head; ``seed`` decides nothing."""
        features = evaluate.outputs(model.f, model.params, task.train.inputs, self.batch_size)
        labels = jnp.asarray(task.train.labels)
        return Classify(linear_probe(jnp.asarray(features), labels, count_classes(task)))


def count_classes(task: Task) -> int:
    """Number of a task's classes: those that are named, or the largest label and one."""
    return len(task.classes) or int(np.asarray(task.train.labels).max()) + 1


def one_for_all(objective: Objective) -> Heads:
    """The same objective of every task: ``Classify()`` where a model's outputs are logits."""

    def given(model: Any, task: Any, seed: int) -> Objective:
        return objective

    return given


def sentences(
    task: Task, class_names: str | Path | None = None, templates: str | Path | None = None
) -> tuple[tuple[prompts.ClassName, ...], tuple[str, ...]]:
    """What a text head calls a task's classes, and its templates.

    Args:
        task: with its classes' names.
        class_names: a TOML file of one's own (:func:`linearize.models.prompts.class_names`).
        templates: another (:func:`linearize.models.prompts.templates`).

    Raises:
        PromptError: there are none for these classes.
    """
    names = prompts.class_names(task.name, task.classes, class_names)
    return names, prompts.templates(task.name, templates)


def check_width(text: TextEncoder, name: str, width: int) -> None:
    """Refuse a text tower that does not belong to the image encoder of that name.

    Raises:
        ValueError: its features have another width.
    """
    if text.feature_dim != width:
        raise ValueError(
            f"the text tower's features are {text.feature_dim} wide and {name}'s {width}; they "
            "are not of one CLIP: take both from the same weights"
        )


def words(
    text: TextEncoder,
    tokenizer: Tokenizer,
    class_names: str | Path | None = None,
    templates: str | Path | None = None,
) -> Heads:
    """The papers' zero-shot heads: sentences with the classes' names, read by a text tower.

    Args:
        text: the tower that belongs to the image encoder.
        tokenizer: its own.
        class_names: as :func:`sentences` takes it.
        templates: likewise.
    """

    def made(model: Model, task: Task, seed: int) -> Objective:
        check_width(text, model.name, model.about.get("feature_dim", text.feature_dim))
        said = sentences(task, class_names, templates)
        return Classify(text_head(text, tokenizer, task.name, *said))

    return made

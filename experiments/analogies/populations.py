"""Sub-populations: some classes of a task, as a task."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from experiments import protocol
from linearize import edit
from linearize.config import CompareConfig, ConfigError
from linearize.data import Task
from linearize.data.records import SPLITS
from linearize.examples import Examples
from linearize.models.heads import Head, join_heads


def of(task: Task, classes: Sequence[int]) -> Task:
    """A task's examples of some classes, in the task's order; labels are those of the whole task.

    Raises:
        ConfigError: a class that the task does not have.
        ValueError: a split without an example of these classes.
    """
    unknown = [c for c in classes if not 0 <= c < len(task.classes)]
    if unknown:
        raise ConfigError(
            f"classes {unknown} of {task.name}: it has the classes 0 to {len(task.classes) - 1}"
        )
    wholes = [task.split(split) for split in SPLITS]
    train, validation, test = (e.take(np.isin(e.labels, list(classes))) for e in wholes)
    return dataclasses.replace(
        task, train=train, validation=validation, test=test, every_class=False
    )


def joined(tasks: Sequence[Task]) -> Task:
    """Several tasks' examples in one, a task's classes after the other's."""
    offsets = np.cumsum([0, *(len(task.classes) for task in tasks)], dtype=np.int32)

    def split(name: str) -> Examples:
        whole = edit.joint_examples([task.split(name) for task in tasks])
        return Examples(whole["inputs"], {"labels": whole["labels"] + offsets[whole["task"]]})

    return Task(
        " + ".join(task.name for task in tasks),
        split("train"),
        split("validation"),
        split("test"),
        classes=tuple(f"{task.name}: {c}" for task in tasks for c in task.classes),
        every_class=all(task.every_class for task in tasks),
    )


def head(config: CompareConfig, seed: int, whole: Task, parts: Sequence[Task] = ()) -> Head:
    """The frozen head that a task's populations share.

    Args:
        config: of model and heads.
        seed: of the draw.
        whole: the task whose classes the head knows: by training examples at θ0, or by their names.
        parts: the tasks that ``whole`` was :func:`joined` of, whose own sentences name its classes.
    """
    model = protocol.backbone(config.model, seed)
    if parts and config.head.kind == "text":
        return join_heads([protocol.make_head(config, model, task, seed) for task in parts])
    return protocol.make_head(config, model, whole, seed)

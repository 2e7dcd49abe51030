"""Sub-populations: some classes of a task, as data that the experiments' protocol takes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from experiments import protocol
from experiments.protocol import Setting
from linearize import edit
from linearize.config import CompareConfig, ConfigError
from linearize.data import Split, Task
from linearize.models.heads import join_heads

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Population:
    """Three splits that hold some classes only; labels are those of the whole task."""

    train: Split
    validation: Split
    test: Split


def of(task: Task, classes: Sequence[int]) -> Population:
    """A task's examples of some classes, in the task's order.

    Raises:
        ConfigError: a class that the task does not have.
    """
    unknown = [c for c in classes if not 0 <= c < len(task.classes)]
    if unknown:
        raise ConfigError(
            f"classes {unknown} of {task.name}: it has the classes 0 to {len(task.classes) - 1}"
        )
    splits = (getattr(task, split) for split in SPLITS)
    return Population(*(s.take(np.isin(s.labels, list(classes))) for s in splits))


def joined(tasks: Sequence[Task]) -> Task:
    """Several tasks' examples in one, a task's classes after the other's."""
    offsets = np.cumsum([0, *(len(task.classes) for task in tasks)], dtype=np.int32)

    def split(name: str) -> Split:
        parts = [getattr(task, name) for task in tasks]
        whole = edit.joint_examples(parts)
        return Split(whole["inputs"], whole["labels"] + offsets[whole["task"]])

    classes = tuple(f"{task.name}: {c}" for task in tasks for c in task.classes)
    name = " + ".join(task.name for task in tasks)
    every = all(task.every_class for task in tasks)
    return Task(
        name, split("train"), split("validation"), split("test"), classes, every_class=every
    )


def prepare(
    config: CompareConfig,
    seed: int,
    head: Task,
    populations: Mapping[str, Population],
    parts: Sequence[Task] = (),
) -> Setting:
    """A setting whose tasks are populations, which share one head.

    Args:
        config: the whole tasks' setting.
        seed: of the head, and of all that follows.
        head: the task whose classes the head knows: by training examples at θ0, or by their names.
        populations: the tasks of the setting.
        parts: the tasks that ``head`` was :func:`joined` of, whose own sentences name its classes.
    """
    model = protocol.backbone(config.model, seed)
    if parts and config.head.kind == "text":
        made = join_heads([protocol.make_head(config, model, task, seed) for task in parts])
    else:
        made = protocol.make_head(config, model, head, seed)
    names = tuple(populations)
    data = dataclasses.replace(config.data, tasks=names)
    config = dataclasses.replace(
        config, data=data, map=dataclasses.replace(config.map, pairs=()), baselines=()
    )
    tasks = cast("Mapping[str, Any]", populations)  # of a Task, only its splits are asked for
    return Setting(config, seed, model.f, model.params, tasks, dict.fromkeys(names, made))

"""Sub-populations: some classes of a task, as data that the experiments' protocol takes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from experiments import protocol
from experiments.protocol import Setting
from linearize import edit
from linearize.config import CompareConfig, ConfigError, HeadConfig
from linearize.data import Split, Task
from linearize.models.heads import Head

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


def joined(tasks: Sequence[Task], head: HeadConfig | None = None) -> Task:
    """Several tasks' examples in one, a task's classes after the other's.

    A class is called by its task and its name; for a text head, by what sentences call it.

    Raises:
        ConfigError: a text head has no names for a task's classes.
    """
    text = head if head is not None and head.kind == "text" else None
    said = {t.name: protocol.sentences(text, t)[0] if text else t.classes for t in tasks}
    offsets = np.cumsum([0, *(len(task.classes) for task in tasks)], dtype=np.int32)

    def split(name: str) -> Split:
        parts = [getattr(task, name) for task in tasks]
        whole = edit.joint_examples(parts)
        return Split(whole["inputs"], whole["labels"] + offsets[whole["task"]])

    classes = tuple(f"{task.name}: {c}" for task in tasks for c in said[task.name])
    name = " + ".join(task.name for task in tasks)
    every = all(task.every_class for task in tasks)
    return Task(
        name, split("train"), split("validation"), split("test"), classes, every_class=every
    )


def prepare(
    config: CompareConfig, seed: int, head: Task, populations: Mapping[str, Population]
) -> Setting:
    """A setting whose tasks are populations, which share the head of one task.

    The head is made of that task's training examples at θ0: of all its classes, in its style.
    """
    model = protocol.backbone(config.model, seed)
    made: Head = protocol.make_head(config, model, head, seed)
    names = tuple(populations)
    data = dataclasses.replace(config.data, tasks=names)
    config = dataclasses.replace(
        config, data=data, map=dataclasses.replace(config.map, pairs=()), baselines=()
    )
    tasks = cast("Mapping[str, Any]", populations)  # of a Task, only its splits are asked for
    return Setting(config, seed, model.f, model.params, tasks, dict.fromkeys(names, made))

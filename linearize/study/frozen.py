"""Frozen blocks of a study's model, computed once for each of its examples."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from linearize import evaluate, tree
from linearize.data import Task
from linearize.data.records import SPLITS
from linearize.evaluate.batches import RESIDENT_BYTES
from linearize.examples import Examples, as_arguments
from linearize.models import Model
from linearize.models.frozen import Cut, cut
from linearize.single import Sample, example, forward, same_row, wide
from linearize.study.tokens import check_tokens


def computed_once(
    model: Model,
    tasks: Mapping[str, Task] | Iterable[Task],
    trainable: tree.Pattern,
    *,
    batch_size: int = 32,
    memory: int = RESIDENT_BYTES,
) -> tuple[Model, dict[str, Task]]:
    """The model above its frozen blocks, and tasks that hold what these give beside their inputs.

    A study of them is the same study: the same parameters, task vectors and numbers, to rounding,
    for as much less work as blocks are frozen. Whatever looks at the examples one after the other
    (training, evaluation, error maps, kernels of the trained leaves) goes on unchanged; what makes
    inputs anew (generation, augmentation) wants the whole model.

    Args:
        model: in blocks (:func:`linearize.models.frozen.cut`).
        tasks: its examples, in arrays.
        trainable: pattern of the leaves that will move.
        batch_size: examples at a time.
        memory: bytes that the outputs may take, of all tasks.

    Returns:
        Model and tasks; as they were given where nothing is frozen below a trained leaf, or the
        outputs take more.

    Raises:
        ValueError: tokens that a language model lacks.
        DisagreementError: a task's first example has other outputs by the two parts than by the
            whole.
    """
    given = dict(tasks) if isinstance(tasks, Mapping) else {task.name: task for task in tasks}
    for name, task in given.items():
        check_tokens(model, name, task)
    example_of = next(iter(given.values())).train
    found = cut(model, trainable, *example_of.alone)
    if found is None or _bytes(found, model, given) > memory:
        return model, given
    return found.above, {
        name: _with_outputs(found, model, task, batch_size) for name, task in given.items()
    }


def _bytes(found: Cut, model: Model, tasks: Mapping[str, Task]) -> int:
    """Of the frozen blocks' outputs, for all examples."""

    def of(examples: Examples) -> int:
        shapes = jax.eval_shape(found.below, model.params, *examples.alone)
        return len(examples) * sum(x.size * x.dtype.itemsize for x in shapes)

    return sum(of(task.split(split)) for task in tasks.values() for split in SPLITS)


def _with_outputs(found: Cut, model: Model, task: Task, batch_size: int) -> Task:
    def part(examples: Examples) -> Examples:
        below = evaluate.outputs(found.below, model.params, examples.inputs, batch_size)
        return Examples((*as_arguments(examples.inputs), *below), examples.targets)

    splits: dict[str, Any] = {split: part(task.split(split)) for split in SPLITS}
    _check(found, model, splits["train"], len(as_arguments(task.train.inputs)))
    return dataclasses.replace(task, **splits)


def _check(found: Cut, model: Model, examples: Examples, own: int) -> None:
    """The first example's outputs by both parts, beside the whole's."""
    both = example(as_arguments(examples.inputs), 0)
    parts = forward(found.above.f, model.params, both)
    whole = jax.tree.map(wide, forward(model.f, model.params, both[:own]))
    sample = Sample(
        whole,
        jax.tree.map(np.linalg.norm, whole),
        tuple(np.asarray(leaf).dtype for leaf in jax.tree.leaves(both) if tree.is_trainable(leaf)),
    )
    same_row(parts, sample, f"{model.name} above {found.block}", "of the first example")

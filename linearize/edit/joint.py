"""Joint multi-task training, the upper baseline of addition: one model, each task its own head."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize.evaluate import Readout
from linearize.examples import Examples
from linearize.objectives import Classify, Objective
from linearize.objectives.distances import aligned
from linearize.types import Array, Batch, PyTree


def joint_examples(splits: Sequence[Any]) -> dict[str, Any]:
    """All tasks' examples in one data set: ``inputs``, ``task``, the task's number, and targets.

    A target by role, such as ``labels`` (int32), is 0 for the tasks that have none of that role:
    :func:`joint_loss` shows each objective the targets of its own task alone.

    Args:
        splits: each task's examples (:meth:`linearize.Examples.of`), of one shape and dtype.

    Raises:
        ValueError: no task, inputs of different shapes or dtypes, targets of one role that differ
            in shape, or a role called ``task``.
    """
    if not len(splits):
        raise ValueError("splits is empty; give at least one task's examples")
    given = [Examples.of(split) for split in splits]
    kinds = {str(jax.tree.map(lambda x: (x.shape, str(x.dtype)), each.example)) for each in given}
    if len(kinds) != 1:
        raise ValueError(f"inputs have the shapes and dtypes {sorted(kinds)}; expected one kind")
    roles = dict.fromkeys(role for each in given for role in each.targets)
    if "task" in roles:
        raise ValueError("targets has the role 'task', which is the task's number; rename it")
    return {
        "inputs": jax.tree.map(lambda *parts: _joined(parts), *(each.inputs for each in given)),
        **{role: _targets(role, given) for role in roles},
        "task": np.repeat(np.arange(len(given), dtype=np.int32), [len(each) for each in given]),
    }


def _targets(role: str, given: Sequence[Examples]) -> np.ndarray:
    """One task's after the other's, 0 where there are none."""
    each = [
        (examples.labels if role == "labels" else examples.targets[role])
        if role in examples.targets
        else None
        for examples in given
    ]
    there = [np.asarray(part) for part in each if part is not None]
    if len(shapes := sorted({part.shape[1:] for part in there})) != 1:
        raise ValueError(f"targets {role!r} of one example have the shapes {shapes}; expected one")
    dtype = np.dtype(np.int32) if role == "labels" else np.result_type(*there)
    parts = [
        np.zeros((len(examples), *shapes[0]), dtype) if part is None else np.asarray(part, dtype)
        for examples, part in zip(given, each, strict=True)
    ]
    return np.concatenate(parts)


def _joined(inputs: Sequence[Any]) -> Any:
    """One after the other; inputs that stay on disk join themselves."""
    if all(hasattr(x, "joined") for x in inputs):
        return inputs[0].joined(inputs[1:])
    return np.concatenate([np.asarray(x) for x in inputs])


def joint_loss(
    objectives: Sequence[Objective | Readout], *, smoothing: float = 0.0
) -> Callable[[PyTree, Batch], Array]:
    """The loss of each example by its own task's objective: ``loss(outputs, batch) -> (B,)``.

    ``batch`` holds the targets of all tasks, by role, and ``task`` (B,), the number of the task in
    ``objectives``. Equal to each task's own loss: heads may have any numbers of classes. An example
    whose label or task is out of range has the loss NaN, which stops training. The result is a
    pytree that holds the objectives' arrays.

    Args:
        objectives: T objectives, or readouts to classify by: features (B, D) to logits (B, C_t).
        smoothing: of the latter, the share of the uniform distribution over the task's own classes
            in the target, in [0, 1).

    Raises:
        ValueError: no objective, or ``smoothing`` outside [0, 1).
    """
    each = [o if isinstance(o, Objective) else Classify(o, smoothing) for o in objectives]
    if not each:
        raise ValueError("objectives is empty; give one per task")
    return jax.tree_util.Partial(_joint, tuple(each))


def _joint(objectives: Sequence[Objective], outputs: PyTree, batch: Batch) -> Array:
    total = jnp.full(batch["task"].shape, jnp.nan, jnp.float32)
    for t, objective in enumerate(objectives):
        own = batch["task"] == t
        # another task's target may be none of this one's, which would make its derivative NaN
        targets = jax.tree.map(partial(_where, own), dict(batch))
        total = jnp.where(own, objective.loss(outputs, targets), total)
    return total


_joint.fingerprint = "joint_loss 2"  # type: ignore[attr-defined]


def _where(own: Array, target: Array) -> Array:
    return jnp.where(aligned(own, target), target, jnp.zeros_like(target))

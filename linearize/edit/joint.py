"""Joint multi-task training, the upper baseline of addition: one model, each task its own head."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize.evaluate import Readout, as_readout, examples
from linearize.losses import cross_entropy
from linearize.types import Array, Batch


def joint_examples(splits: Sequence[Any]) -> dict[str, Any]:
    """All tasks' examples in one data set: ``inputs``, ``labels`` and ``task``, the task's number.

    Args:
        splits: each task's examples (:func:`linearize.evaluate.examples`), of one shape and dtype.

    Raises:
        ValueError: no task, or inputs of different shapes or dtypes.
    """
    if not len(splits):
        raise ValueError("splits is empty; give at least one task's examples")
    pairs = [examples(split) for split in splits]
    kinds = {(np.shape(x)[1:], str(x.dtype)) for x, _ in pairs}
    if len(kinds) != 1:
        raise ValueError(f"inputs have the shapes and dtypes {sorted(kinds)}; expected one kind")
    return {
        "inputs": _joined([x for x, _ in pairs]),
        "labels": np.concatenate([y for _, y in pairs]).astype(np.int32),
        "task": np.repeat(np.arange(len(pairs), dtype=np.int32), [len(y) for _, y in pairs]),
    }


def _joined(inputs: Sequence[Any]) -> Any:
    """One after the other; inputs that stay on disk join themselves."""
    if all(hasattr(x, "joined") for x in inputs):
        return inputs[0].joined(inputs[1:])
    return np.concatenate([np.asarray(x) for x in inputs])


def joint_loss(
    heads: Sequence[Readout], *, smoothing: float = 0.0
) -> Callable[[Array, Batch], Array]:
    """The loss of each example under its own task's head: ``loss(features, batch) -> (B,)``.

    ``batch`` holds ``labels`` (B,) within each task's classes and ``task`` (B,), the number of the
    task in ``heads``. Equal to each task's own cross-entropy: heads may have any numbers of
    classes, and smoothing is over the task's own. An example whose label or task is out of range
    has the loss NaN, which stops training. The result is a pytree that holds the heads.

    Args:
        heads: T readouts, features (B, D) to logits (B, C_t).
        smoothing: share of the uniform distribution in the target, in [0, 1).

    Raises:
        ValueError: no head, or ``smoothing`` outside [0, 1).
    """
    reads = [as_readout(head) for head in heads]
    if not reads:
        raise ValueError("heads is empty; give one per task")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing={smoothing}; expected a share in [0, 1)")
    return jax.tree_util.Partial(_joint, tuple(reads), smoothing)


def _joint(
    reads: Sequence[jax.tree_util.Partial], smoothing: Array, features: Array, batch: Batch
) -> Array:
    total = jnp.full(batch["labels"].shape, jnp.nan, jnp.float32)
    for t, read in enumerate(reads):
        logits, labels = read(features), batch["labels"]
        # another task's head may have fewer classes
        known = (labels >= 0) & (labels < logits.shape[-1])
        own = cross_entropy(logits, jnp.where(known, labels, 0), jnp.asarray(smoothing))
        own = jnp.where(known, own, jnp.nan)
        total = jnp.where(batch["task"] == t, own, total)
    return total


_joint.fingerprint = "joint_loss 1"  # type: ignore[attr-defined]

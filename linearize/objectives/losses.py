"""Per-example losses and scores."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from linearize.objectives.predictions import predicted
from linearize.types import Array, Batch, PyTree

Loss = Callable[[PyTree, Batch], Array]
"""``loss(outputs, batch) -> (B,)``."""


def cross_entropy(logits: Array, labels: Array, smoothing: float = 0.0) -> Array:
    """Cross-entropy of each example, ``(B, C)`` and ``(B,)`` to ``(B,)``, in float32.

    Label smoothing mixes the target with the uniform distribution over all C classes.

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), smoothing=0.1).round(4)  # log 4
    Array([1.3863], dtype=float32)
    """
    logits = logits.astype(jnp.float32)
    true = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not smoothing:
        return true
    uniform = optax.softmax_cross_entropy(logits, jnp.full_like(logits, 1 / logits.shape[-1]))
    return (1 - smoothing) * true + smoothing * uniform


def correct(logits: Array, labels: Array) -> Array:
    """1.0 where the largest logit is the label's, else 0.0; shape (B,)."""
    return (predicted(logits) == labels).astype(jnp.float32)

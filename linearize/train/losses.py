"""Per-example losses and scores."""

from collections.abc import Callable

import jax.numpy as jnp

from linearize.evaluate import predicted
from linearize.losses import cross_entropy as cross_entropy
from linearize.types import Array, Batch, PyTree

Loss = Callable[[PyTree, Batch], Array]
"""``loss(outputs, batch) -> (B,)``."""


def correct(logits: Array, labels: Array) -> Array:
    """1.0 where the largest logit is the label's, else 0.0; shape (B,)."""
    return (predicted(logits) == labels).astype(jnp.float32)

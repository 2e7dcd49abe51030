"""What a model says of an example: the class of its largest logit, if that is a number."""

import jax.numpy as jnp
from jax.typing import ArrayLike

from linearize.types import Array

NO_CLASS = -2
"""What is predicted where a logit is NaN or infinite: no class, so it agrees with no label."""


def predicted(logits: ArrayLike) -> Array:
    """The class of the largest logit, int32; :data:`NO_CLASS` where that is not a finite number.

    A class that is masked by −∞ beside a finite one is merely not chosen.

    >>> predicted(jnp.array([[1.0, 2.0], [jnp.nan, 3.0], [-jnp.inf, 0.0]])).tolist()
    [1, -2, 1]
    """
    best = jnp.argmax(logits, -1).astype(jnp.int32)
    return jnp.where(jnp.isfinite(jnp.max(logits, -1)), best, NO_CLASS)


def accuracy(logits: Array, labels: Array) -> Array:
    """Share of examples whose largest logit is the label's; none is where a logit is NaN.

    Args:
        logits: (..., N, C), floating.
        labels: (N,), integer.

    Returns:
        (...), float32 in [0, 1].

    >>> float(accuracy(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([1, 1])))
    0.5
    """
    hits = predicted(logits)
    return jnp.mean(hits == jnp.broadcast_to(labels, hits.shape), axis=-1, dtype=jnp.float32)


def correct(logits: Array, labels: Array) -> Array:
    """1.0 where the largest logit is the label's, else 0.0; shape (B,), float32."""
    return (predicted(logits) == labels).astype(jnp.float32)

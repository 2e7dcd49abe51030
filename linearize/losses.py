"""Cross-entropy, defined once: training, exact optima, probes and joint tasks take it from here."""

import jax.numpy as jnp
import optax

from linearize.types import Array


def cross_entropy(logits: Array, labels: Array, smoothing: float | Array = 0.0) -> Array:
    """Cross-entropy of each example, ``(B, C)`` and ``(B,)`` to ``(B,)``, in float32 or wider.

    Label smoothing mixes the target with the uniform distribution over all C classes. A class whose
    logit is −∞ beside a finite one has no share in the sum; smoothed, it makes the loss infinite.

    >>> cross_entropy(jnp.zeros((1, 4)), jnp.array([2]), smoothing=0.1).round(4)  # log 4
    Array([1.3863], dtype=float32)
    """
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    true = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if isinstance(smoothing, int | float) and not smoothing:
        return true
    uniform = optax.softmax_cross_entropy(logits, jnp.full_like(logits, 1 / logits.shape[-1]))
    return (1 - smoothing) * true + smoothing * uniform

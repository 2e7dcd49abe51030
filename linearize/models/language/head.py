"""From hidden states to logits of the vocabulary, or of a few of its words."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from linearize.types import Array


def logits(hidden: Array, table: Array, words: Array | None, dtype: Any) -> Array:
    """Products of hidden states (..., D) with a table's rows (V, D), (..., V) float32.

    Of ``words (C,)`` alone (..., C): no other row is touched.
    """
    rows = table if words is None else table[words]
    return jnp.einsum(
        "...d,vd->...v",
        hidden.astype(dtype),
        rows.astype(dtype),
        preferred_element_type=jnp.float32,
    )


class Head(nn.Module):
    """A table of its own, ``kernel (D, V)``: :func:`logits` of its columns."""

    vocabulary: int
    dtype: Any

    @nn.compact
    def __call__(self, hidden: Array, words: Array | None = None) -> Array:
        shape = (hidden.shape[-1], self.vocabulary)
        kernel = self.param("kernel", nn.initializers.normal(0.02), shape)
        return logits(hidden, kernel.T, words, self.dtype)

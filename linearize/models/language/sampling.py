"""Which token comes next: the likeliest, or one drawn from a distribution and its part."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from linearize.fields import integer
from linearize.types import Array

_TINY = 1e-20
"""Below it a logit divided by the temperature may be beyond float32."""
_LEAST = float(jnp.finfo(jnp.float32).tiny)
"""What is smaller, devices take for 0."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn from logits; the three are applied in this order.

    Attributes:
        temperature: what logits are divided by; 0 takes the likeliest token, the first of several.
        top_k: only so many of the likeliest tokens; all by default.
        top_p: only the tokens than which likelier ones have less than this probability together
            (*The Curious Case of Neural Text Degeneration*, Holtzman et al. 2020); 1 for all.

    Tokens of one probability are taken or left together, so that a set may have more than
    ``top_k``, and no order of the vocabulary decides.

    Raises:
        ValueError: a temperature that is negative or not finite, a ``top_k`` that is no integer or
            below 1, a ``top_p`` not above 0 or above 1.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"temperature={self.temperature}; expected a number from 0, the likeliest token, on"
            )
        if self.top_k is not None:
            integer("top_k", self.top_k, low=1)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p={self.top_p}; expected a probability above 0 and at most 1. For the "
                "likeliest token alone: temperature=0"
            )

    def scores(self, logits: Array) -> Array:
        """Logits (..., V) float32 divided by the temperature, −∞ for tokens that are left out."""
        scores = logits / (self.temperature or 1)
        if 0 < self.temperature < _TINY:  # where quotients overflow, the likeliest stay 0
            most = jnp.max(logits, -1, keepdims=True)
            below = logits - jnp.where(jnp.isfinite(most), most, 0)
            scores = jnp.where(below == 0, 0, below / max(self.temperature, _LEAST))
        if self.top_k is not None:
            kept = _largest(scores, jnp.ones_like(scores), self.top_k)
            scores = jnp.where(kept, scores, -jnp.inf)
        if self.top_p is not None and self.top_p < 1:
            share = jax.nn.softmax(scores)
            scores = jnp.where(_largest(share, share, self.top_p), scores, -jnp.inf)
        return scores

    def draw(self, keys: Array, logits: Array) -> Array:
        """A token (B,) int32 of each row of logits (B, V), with a key (B,) of its own."""
        if not self.temperature:
            return jnp.argmax(logits, -1).astype(jnp.int32)
        return jax.vmap(jax.random.categorical)(keys, self.scores(logits)).astype(jnp.int32)


def _largest(values: Array, weights: Array, total: float) -> Array:
    """The fewest of the largest values (..., V) whose weights sum to ``total``, as booleans.

    Equal values are taken together; all are taken where the sum is never reached. Nothing is
    sorted: floats are in the order of integers made of their bits, and 32 halvings of these find
    the least that is taken.
    """
    bits = jax.lax.bitcast_convert_type(values.astype(jnp.float32), jnp.uint32)
    sign = jnp.uint32(1 << 31)
    order = jnp.where(values == 0, sign, jnp.where(bits < sign, bits | sign, ~bits))

    def halve(_: int, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = between
        middle = low + (high - low) // 2
        sums = jnp.sum(jnp.where(order >= middle, weights, 0), -1, keepdims=True)
        return jnp.where(sums >= total, middle, low), jnp.where(sums >= total, high, middle)

    most = jnp.max(order, -1, keepdims=True)
    low, _ = jax.lax.fori_loop(0, 32, halve, (jnp.zeros_like(most), most + 1))
    return order >= low

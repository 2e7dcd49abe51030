"""Which token comes next: the likeliest, or one drawn from a distribution and its part."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from linearize.types import Array


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
        ValueError: a temperature that is negative or not finite, a ``top_k`` below 1, a ``top_p``
            not above 0 or above 1.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(
                f"temperature={self.temperature}; expected a number from 0, the likeliest token, on"
            )
        if self.top_k is not None and (self.top_k < 1 or int(self.top_k) != self.top_k):
            raise ValueError(f"top_k={self.top_k}; expected tokens, 1 or more, or None for all")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(
                f"top_p={self.top_p}; expected a probability above 0 and at most 1. For the "
                "likeliest token alone: temperature=0"
            )

    def scores(self, logits: Array) -> Array:
        """Logits (..., V) float32 divided by the temperature, −∞ for tokens that are left out."""
        scores = logits / (self.temperature or 1)
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = jax.lax.top_k(scores, self.top_k)[0][..., -1:]
            scores = jnp.where(scores >= least, scores, -jnp.inf)
        if self.top_p is not None and self.top_p < 1:
            share = jax.nn.softmax(scores)
            scores = jnp.where(share >= _threshold(share, self.top_p), scores, -jnp.inf)
        return scores

    def draw(self, keys: Array, logits: Array) -> Array:
        """A token (B,) int32 of each row of logits (B, V), with a key (B,) of its own."""
        if not self.temperature:
            return jnp.argmax(logits, -1).astype(jnp.int32)
        return jax.vmap(jax.random.categorical)(keys, self.scores(logits)).astype(jnp.int32)


def _threshold(share: Array, mass: float) -> Array:
    """(..., 1): the largest number such that the shares from it on sum to ``mass``; 0 at least.

    Positive floats are ordered as their bits are: 31 halvings of these, and nothing is sorted.
    """
    bits = jax.lax.bitcast_convert_type(share.astype(jnp.float32), jnp.int32)

    def halve(_: int, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = between
        middle = low + (high - low) // 2
        enough = jnp.sum(jnp.where(bits >= middle, share, 0), -1, keepdims=True) >= mass
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    most = jnp.max(bits, -1, keepdims=True)
    low, _ = jax.lax.fori_loop(0, 31, halve, (jnp.zeros_like(most), most + 1))
    return jax.lax.bitcast_convert_type(low, jnp.float32)

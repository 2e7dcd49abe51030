"""Distances between predictions, as rows of a table."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from linearize.evaluate.choices import one_of
from linearize.types import Array

Compare = Callable[[Array, Array], Array]
"""Two batches of encoded predictions (N, ...) to distances (N,)."""


@dataclass(frozen=True)
class Distance:
    """A distance on logits, factored so that what is kept of a prediction is small."""

    name: str
    encode: Callable[[Array], Array]
    """Logits (N, C) to what is compared."""
    compare: Compare
    binary: bool = False
    """Every value is 0 or 1, so that a mean of them is a proportion."""
    ranks_only: bool = False
    """Only the largest logit matters."""


def _largest(logits: Array) -> Array:
    return jnp.argmax(logits, -1).astype(jnp.int32)


def _differ(a: Array, b: Array) -> Array:
    return (a != b).astype(jnp.float32)


def _same(logits: Array) -> Array:
    return logits


def _softmax(logits: Array) -> Array:
    return jax.nn.softmax(logits, -1)


def _half_l1(p: Array, q: Array) -> Array:
    return 0.5 * jnp.sum(jnp.abs(p - q), -1)


DISTANCES: Mapping[str, Distance] = {
    "argmax": Distance("argmax", _largest, _differ, binary=True, ranks_only=True),
    "total_variation": Distance("total_variation", _softmax, _half_l1),
}
"""``argmax``: 1 where the predicted classes differ (the paper's). ``total_variation``: between the
softmax distributions, in [0, 1]."""


def as_distance(distance: str | Compare) -> Distance:
    """A row of :data:`DISTANCES`, or a function ``(logits_a, logits_b) -> (N,)`` as one.

    Raises:
        ValueError: an unknown name; the nearest is suggested.
    """
    if callable(distance):
        return Distance(getattr(distance, "__name__", "distance"), _same, distance)
    return DISTANCES[one_of("distance", distance, DISTANCES)]

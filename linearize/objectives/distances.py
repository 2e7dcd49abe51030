"""Distances between predictions, as rows of a table."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import jax
import jax.numpy as jnp

from linearize.choices import one_of
from linearize.current import current
from linearize.objectives.predictions import NO_CLASS, predicted
from linearize.types import Array

Compare = Callable[[Array, Array], Array]
"""Two batches of encoded predictions (N, ...) to distances (N,)."""


def _has_largest(logits: Array) -> Array:
    return predicted(logits) != NO_CLASS


@dataclass(frozen=True)
class Distance:
    """A distance on predictions, factored so that what is kept of a prediction is small.

    A prediction that is not finite agrees with nothing, not even itself: its distance from any is
    ``farthest``.
    """

    name: str
    encode: Callable[[Array], Array]
    """Logits (N, C), or other outputs, to what is compared: floats, or classes of −1 and more."""
    compare: Compare
    farthest: float = math.nan
    """The largest value, where there is one."""
    binary: bool = False
    """Every value is 0 or 1, so that a mean of them is a proportion."""
    ranks_only: bool = False
    """Only the largest logit matters."""
    finite: Callable[[Array], Array] = _has_largest
    """Of outputs (N, ...), which predictions are numbers: bool (N,), or more axes of them."""

    def kept(self, logits: Array) -> Array:
        """What is kept of predictions (N, ...); of one that is not finite, −2 or NaN."""
        code = self.encode(logits)
        nothing = jnp.nan if jnp.issubdtype(code.dtype, jnp.inexact) else NO_CLASS
        return jnp.where(aligned(self.finite(logits), code), code, nothing)

    def between(self, a: Array, b: Array) -> Array:
        """Distances (N,) of what is kept of two predictions."""
        return jnp.where(missing(a) | missing(b), self.farthest, self.compare(a, b))


def missing(kept: Array) -> Array:
    """(N,) bool: of which predictions something is not kept, since it is not finite."""
    none = jnp.isnan(kept) if jnp.issubdtype(kept.dtype, jnp.inexact) else kept == NO_CLASS
    return none.reshape(len(kept), -1).any(1)


def aligned(flags: Array, like: Array) -> Array:
    """Flags with as many axes as an array whose first ones they are of."""
    return flags.reshape(flags.shape + (1,) * (like.ndim - flags.ndim))


def _largest(logits: Array) -> Array:
    return predicted(logits)


def _differ(a: Array, b: Array) -> Array:
    return (a != b).astype(jnp.float32)


def _same(logits: Array) -> Array:
    return logits


def _softmax(logits: Array) -> Array:
    return jax.nn.softmax(logits, -1)


def _half_l1(p: Array, q: Array) -> Array:
    return 0.5 * jnp.sum(jnp.abs(p - q), -1)


DISTANCES: Mapping[str, Distance] = {
    "argmax": Distance("argmax", _largest, _differ, 1.0, binary=True, ranks_only=True),
    "total_variation": Distance("total_variation", _softmax, _half_l1, 1.0),
}
"""``argmax``: 1 where the predicted classes differ (the paper's). ``total_variation``: between the
softmax distributions, in [0, 1]. Both are 1 where a prediction is not finite."""


def together(distances: Sequence[Distance]) -> Distance:
    """What the distances of several tasks are called where they are added up.

    Raises:
        ValueError: they have different units: neither one distance, nor of one largest value.
    """
    first, *_ = each = list(dict.fromkeys(distances))
    if len(each) > 1 and any(other.farthest != first.farthest for other in each):
        raise ValueError(
            f"the distances {', '.join(repr(other.name) for other in each)} have different units, "
            "so their sum says nothing; give all tasks' objectives one distance"
        )
    names = " and ".join(dict.fromkeys(other.name for other in each))
    return replace(first, name=names, binary=all(other.binary for other in each))


@lru_cache(maxsize=32)  # one object for one function, which compilations are remembered by
def _own(compare: Compare) -> Distance:
    return Distance(getattr(compare, "__name__", "distance"), _same, compare)


def as_distance(distance: "str | Distance | Compare") -> Distance:
    """A row of :data:`DISTANCES`, or a function ``(logits_a, logits_b) -> (N,)`` as one.

    Raises:
        ValueError: an unknown name; the nearest is suggested.
    """
    if isinstance(distance, Distance):
        return distance
    if callable(distance):
        return _own(current(distance))
    return DISTANCES[one_of("distance", distance, DISTANCES)]

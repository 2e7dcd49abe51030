"""Relative positions in buckets (*Exploring the Limits of Transfer Learning*, Raffel et al. 2020).

Distances have a bucket each up to a quarter of the buckets (half, where keys behind the query alone
are seen), then buckets that widen logarithmically, and one for all that are far.
"""

import math
from functools import lru_cache

import jax.numpy as jnp
import numpy as np

from linearize.models.attention import Bias
from linearize.types import Array


def bias(table: Array, farthest: int, *, directed: bool) -> Bias:
    """What is added to the scores of T5 and MPNet.

    Args:
        table: (buckets, H).
        farthest: distances from here on share a bucket.
        directed: whether keys stand before queries only, as in a decoder; otherwise half of the
            buckets are for keys behind the query.
    """

    def of(at: Array, place: Array) -> Array:
        found = bucket(place[None] - at[:, None], len(table), farthest, directed=directed)
        return jnp.asarray(table)[found].transpose(2, 0, 1)

    return of


def bucket(distance: Array, buckets: int, farthest: int, *, directed: bool) -> Array:
    """The bucket of each distance, position of the key minus position of the query.

    The logarithm is taken on the host, where whole powers are exact: a device that rounds one down
    would read another bucket.

    >>> bucket(jnp.array([0, -1, 1, -200]), 32, 128, directed=False).tolist()
    [0, 1, 17, 15]
    >>> bucket(jnp.array([0, -1, 1, -200]), 32, 128, directed=True).tolist()
    [0, 1, 0, 31]
    """
    side = buckets if directed else buckets // 2
    back = jnp.maximum(-distance, 0) if directed else jnp.abs(distance)
    own = jnp.asarray(_by_distance(side, farthest))[jnp.minimum(back, farthest)]
    return own if directed else own + jnp.where(distance > 0, side, 0)


@lru_cache
def _by_distance(side: int, farthest: int) -> np.ndarray:
    """The bucket of the distances 0 to ``farthest``, (farthest + 1,) int32."""
    near = side // 2
    if not 0 < near < farthest:
        raise ValueError(
            f"{side} buckets for distances up to {farthest}; expected 2 buckets or more, and at "
            "least as many distances as half of them"
        )
    far = np.arange(near, farthest + 1)
    steps = np.log(far / near) / math.log(farthest / near) * (side - near)
    wide = near + np.floor(steps + 1e-9).astype(np.int32)
    return np.concatenate([np.arange(near), np.minimum(wide, side - 1)]).astype(np.int32)

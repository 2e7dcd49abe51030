"""Keys and values of tokens that were seen, of every block, in arrays with room for more."""

from typing import Any

import jax
import jax.numpy as jnp

from linearize.types import Array, PyTree


def empty(depth: int, batch: int, length: int, heads: int, width: int, dtype: Any) -> PyTree:
    """Of no token yet: ``keys`` and ``values`` (depth, B, length, G, W), ``seen`` () int32."""
    zeros = jnp.zeros((depth, batch, length, heads, width), dtype)
    return {"keys": zeros, "values": zeros, "seen": jnp.zeros((), jnp.int32)}


def kept(cache: PyTree) -> PyTree:
    """The keys and values of a cache, if there is one."""
    return None if cache is None else {name: cache[name] for name in ("keys", "values")}


def written(kept: PyTree, new: PyTree, start: int | Array) -> PyTree:
    """Keys and values (B, K, ...) of one block with those of the tokens (B, S, ...) from start."""
    return jax.tree.map(
        lambda old, y: jax.lax.dynamic_update_slice_in_dim(old, y, start, axis=1), kept, new
    )


def grown(cache: PyTree, new: PyTree) -> PyTree:
    """A cache with the keys and values (depth, B, S, ...) of the next S tokens.

    They are written in one place, so that a loop that carries the cache need not copy it.
    """
    put = {
        name: jax.lax.dynamic_update_slice_in_dim(cache[name], y, cache["seen"], axis=2)
        for name, y in new.items()
    }
    return {**put, "seen": cache["seen"] + new["keys"].shape[2]}

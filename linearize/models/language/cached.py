"""Keys and values of tokens that were seen, of every block, in arrays with room for more.

A cache is named as the blocks' parameters are, ``blocks/keys`` where they are stacked and
``block_i/keys`` where they stand one by one, and is stacked and taken apart with them
(:func:`linearize.models.layers.unstack`). Heads stand before positions, as products read them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from linearize.models import layers
from linearize.models.attention import attend, recalled
from linearize.types import Array, PyTree

OWN = ("keys", "values")
"""What a block keeps of the tokens that went through it, (B, G, length, W) each."""


def empty(
    depth: int,
    batch: int,
    length: int,
    heads: int,
    width: int,
    dtype: Any,
    *,
    scan: bool,
    where: str = "",
) -> dict[str, Array]:
    """Of no token yet: each block's keys and values, and ``seen`` () int32.

    ``scan`` says whether blocks are stacked; ``where`` stands before their names.
    """
    zeros = jnp.zeros((depth, batch, heads, length, width), dtype)
    cache = {f"{where}blocks/{name}": zeros for name in OWN} | {"seen": jnp.zeros((), jnp.int32)}
    return cache if scan else layers.unstack(cache)


def kept(cache: PyTree, names: Sequence[str] = OWN, where: str = "") -> PyTree:
    """What a cache, if there is one, has of the blocks: stacked, or a list of one tree a block."""
    if cache is None:
        return None
    if layers.is_stacked(cache):
        return {name: cache[f"{where}blocks/{name}"] for name in names}
    depth = len(layers.blocks(cache))
    return [{name: cache[f"{where}block_{i}/{name}"] for name in names} for i in range(depth)]


def named(own: PyTree, where: str = "") -> dict[str, Array]:
    """The inverse of :func:`kept`."""
    if isinstance(own, list):
        return {f"{where}block_{i}/{n}": x for i, one in enumerate(own) for n, x in one.items()}
    return {f"{where}blocks/{name}": x for name, x in own.items()}


def written(kept: PyTree, new: PyTree, start: int | Array) -> PyTree:
    """Keys and values (..., B, G, K, W) with those (..., B, S, G, W) of the tokens from start."""

    def put(old: Array, y: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(
            old, y.swapaxes(-3, -2), start, axis=old.ndim - 2
        )

    return {name: put(kept[name], y) for name, y in new.items()}


def grown(cache: PyTree, new: PyTree, hidden: Array, where: str = "") -> PyTree:
    """A cache with the keys and values, of each block, of the next S tokens.

    They are written after all that was there has been read, so that a loop that carries the cache
    need not copy it: XLA for CPUs takes that order from data alone. So what is written depends on
    the tokens' hidden states (B, S, D), by a zero, and its derivative on theirs.
    """
    last = hidden[0, 0, 0]
    zero = jnp.where(last != last, last, 0)  # the NaN itself, which is no zero to a compiler
    new = jax.tree.map(lambda y: y + zero.astype(y.dtype), new)
    old = kept(cache, OWN, where)
    if isinstance(new, list):
        put = [written(o, y, cache["seen"]) for o, y in zip(old, new, strict=True)]
    else:
        put = written(old, new, cache["seen"])
    tokens = jax.tree.leaves(new)[0].shape[-3]
    return {**cache, **named(put, where), "seen": cache["seen"] + tokens}


def attended(query: Array, kept: PyTree, new: PyTree, start: int | Array, **options: Any) -> Array:
    """Causal attention (B, S, H, W) of the next tokens to themselves and to those before them.

    Args:
        query: (B, S, H, W).
        kept: keys and values of one block, or None where there is no cache.
        new: those of these tokens, (B, S, G, W).
        start: how many tokens there are before.
        options: of :func:`linearize.models.attention.attend`.
    """
    if kept is not None and query.shape[1] == 1:
        past = kept["keys"], kept["values"]
        return recalled(query, new["keys"], new["values"], past, start, **options)
    seen = new
    if kept is not None:
        seen = {name: x.swapaxes(1, 2) for name, x in written(kept, new, start).items()}
    return attend(query, seen["keys"], seen["values"], causal=True, start=start, **options)

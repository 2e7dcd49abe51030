"""Attention in blocks, whose memory grows linearly with the sequence, forward and backward.

A block of queries meets one block of keys after another, and keeps the softmax's running maximum
and sums (*Self-attention Does Not Need O(n²) Memory*, Rabe and Staats 2021; *Flash
Attention*, Dao et al. 2022). It is plain XLA, so that it has a forward mode and can be transposed:
the linearized step goes through it. For the backward pass a block of queries is computed again.
"""

import functools
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from linearize.types import Array

BLOCK = 128
"""Queries, and keys, of a block; shorter sequences are one block."""

Carry = tuple[Array, Array, Array]
"""Of the keys met so far: the largest score, Σ exp, and Σ exp · value."""

Bias = Callable[[Array, Array], Array]
"""Of positions (Q,) of queries and (K,) of keys: what is added to scores, (H, Q, K)."""


def attend(
    query: Array,
    key: Array,
    value: Array,
    *,
    causal: bool = False,
    mask: Array | None = None,
    bias: Bias | None = None,
    scale: float | None = None,
    cap: float | None = None,
    start: int | Array | None = None,
    window: int | Array | None = None,
    block: int = BLOCK,
) -> Array:
    """Softmax attention; a query that may see no key gives zero.

    Args:
        query: (B, Q, H, D).
        key: (B, K, G, D); G divides H, and H / G neighbouring heads share a key's.
        value: (B, K, G, E).
        causal: whether a query sees the keys up to its own position alone.
        mask: (B, K) booleans, the keys that may be seen, such as those that are no padding.
        bias: of relative positions (:data:`Bias`): it is asked for a block at a time, with
            positions that count from 0 in keys, and for queries from ``start``.
        scale: of the products; 1 / √D by default.
        cap: what scores stay below, before the bias (:func:`capped`); nothing by default.
        start: position of the first query among the keys; K − Q by default, so that the last query
            sees all of them. A cache of keys that is not full yet has a smaller one.
        window: how many keys a query sees at most where it is ``causal``, its own and those before
            it; all by default.
        block: queries, and keys, of a block.

    Returns:
        (B, Q, H, E) in the query's dtype; scores and sums are in float32 or wider.

    Raises:
        ValueError: shapes that do not belong together.

    >>> ones = jnp.ones((1, 3, 2, 4))
    >>> attend(ones, ones[:, :, :1], ones[:, :, :1], causal=True).shape
    (1, 3, 2, 4)
    """
    _check(query, key, value, mask, block)
    (B, Q, H, D), (K, G, E) = query.shape, value.shape[1:]
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scale = D**-0.5 if scale is None else scale
    add = partial(_scores, scale=scale, cap=cap, bias=bias, causal=causal, window=window)
    seen = jnp.ones((B, K), bool) if mask is None else mask
    grouped = query.reshape(B, Q, G, H // G, D)
    asked = jnp.arange(Q) + (K - Q if start is None else start)
    if Q == 1:  # its scores are few, and keys in blocks would be copies of a whole cache
        score = add(grouped, key, seen, asked, jnp.arange(K))
        return _joined((score, value)).reshape(B, Q, H, E).astype(query.dtype)
    rows, columns = -(-Q // min(block, Q)), -(-K // min(block, K))
    # in front: the number of the block
    queries, keys, values, seen = (
        _blocks(x, count)
        for x, count in ((grouped, rows), (key, columns), (value, columns), (seen, columns))
    )
    # JAX computes what depends on no data once for all layers of a scan, and keeps it: a mask of
    # Q × K. So positions depend on the data: this 0 does
    zero = 0 * (query[0, 0, 0, 0] != query[0, 0, 0, 0]).astype(jnp.int32)
    places = zero + jnp.arange(columns * keys.shape[2]).reshape(columns, -1)

    @partial(jax.checkpoint, prevent_cse=False)
    def of_queries(block: tuple[Array, Array]) -> Array:
        asked, at = block

        def step(carry: Carry, block: tuple[Array, ...]) -> tuple[Carry, None]:
            place = block[-1]
            hidden = causal & (place[0] > at[-1])  # the whole of it comes later
            if window is not None:
                hidden |= causal & (at[0] - place[-1] >= window)  # or was long before
            return jax.lax.cond(hidden, lambda carry, _: carry, met, carry, block), None

        def met(carry: Carry, block: tuple[Array, ...]) -> Carry:
            largest, total, moved = carry
            key, value, known, place = block
            score = add(asked, key, known, at, place)
            now = jnp.maximum(largest, jax.lax.stop_gradient(score).max(-1))
            # where nothing was seen yet, all is zero, and no infinities meet
            base = jnp.where(jnp.isfinite(now), now, 0)
            shrunk = jnp.exp(largest - base)
            share = jnp.exp(score - base[..., None])
            added = jnp.einsum(
                "bgrqk,bkge->bgrqe", share.astype(value.dtype), value, preferred_element_type=wide
            )
            return now, total * shrunk + share.sum(-1), moved * shrunk[..., None] + added

        shape = (B, G, H // G, asked.shape[1])
        start = (jnp.full(shape, -jnp.inf, wide), jnp.zeros(shape, wide))
        (_, total, moved), _ = jax.lax.scan(
            step, (*start, jnp.zeros((*shape, E), wide)), (keys, values, seen, places)
        )
        return moved / jnp.where(total > 0, total, 1)[..., None]

    asked = zero + jnp.arange(rows * queries.shape[2]).reshape(rows, -1)
    asked = asked + (K - Q if start is None else start)
    found = jax.lax.map(of_queries, (queries, asked))  # (rows, B, G, R, q, E)
    whole = found.transpose(1, 0, 4, 2, 3, 5).reshape(B, -1, H, E)
    return whole[:, :Q].astype(query.dtype)


def recalled(
    query: Array,
    key: Array,
    value: Array,
    kept: tuple[Array, Array],
    start: int | Array,
    *,
    bias: Bias | None = None,
    scale: float | None = None,
    cap: float | None = None,
    window: int | Array | None = None,
) -> Array:
    """Causal :func:`attend` of one token to itself and to those before it in a cache.

    The cache is read as it is, without the token, so that a loop can write the token to it in
    place: a cache that is written first, and then read, is copied.

    Args:
        query: (B, 1, H, D).
        key: (B, 1, G, D), the token's own.
        value: (B, 1, G, E), likewise.
        kept: the cache's keys (B, G, K, D) and values (B, G, K, E), heads before positions.
        start: how many of those there are.
        bias: as of :func:`attend`, and so are the others.

    Returns:
        (B, 1, H, E) in the query's dtype.
    """
    (B, _, H, D), (keys, values) = query.shape, (x.swapaxes(1, 2) for x in kept)
    (K, G, E), at = values.shape[1:], start + jnp.arange(1)
    grouped = query.reshape(B, 1, G, H // G, D)
    scale = D**-0.5 if scale is None else scale
    add = partial(
        _scores, grouped, at=at, scale=scale, cap=cap, bias=bias, causal=True, window=window
    )
    before = jnp.broadcast_to(jnp.arange(K) < start, (B, K))
    past = add(keys, before, place=jnp.arange(K)), values
    own = add(key, jnp.ones((B, 1), bool), place=at), value
    return _joined(past, own).reshape(B, 1, H, E).astype(query.dtype)


def _joined(*parts: tuple[Array, Array]) -> Array:
    """Values (B, k, G, E), each part's, by one softmax of all scores (B, G, R, Q, k)."""
    wide = parts[0][0].dtype
    tops = (jax.lax.stop_gradient(score).max(-1, keepdims=True) for score, _ in parts)
    largest = functools.reduce(jnp.maximum, tops)
    largest = jnp.where(jnp.isfinite(largest), largest, 0)
    shares = [jnp.exp(score - largest) for score, _ in parts]
    total = sum(share.sum(-1, keepdims=True) for share in shares)
    total = jnp.where(total > 0, total, 1)
    found = [
        jnp.einsum(
            "bgrqk,bkge->bqgre",
            (share / total).astype(value.dtype),
            value,
            preferred_element_type=wide,
        )
        for share, (_, value) in zip(shares, parts, strict=True)
    ]
    return sum(found[1:], found[0])


def capped(x: Array, cap: float | None) -> Array:
    """``cap · tanh(x / cap)`` (Gemma 2, arXiv 2408.00118), or x where there is no cap.

    >>> float(capped(jnp.asarray(1e6), 50.0))
    50.0
    """
    return x if cap is None else cap * jnp.tanh(x / cap)


def _scores(
    query: Array,
    key: Array,
    known: Array,
    at: Array,
    place: Array,
    *,
    scale: float,
    cap: float | None,
    bias: Bias | None,
    causal: bool,
    window: int | Array | None,
) -> Array:
    """(B, G, R, q, k), −∞ where a key is not to be seen."""
    wide = jnp.promote_types(query.dtype, jnp.float32)
    score = scale * jnp.einsum("bqgrd,bkgd->bgrqk", query, key, preferred_element_type=wide)
    score = capped(score, cap)
    if bias is not None:
        score = score + bias(at, place).astype(wide).reshape(1, *score.shape[1:])
    allowed = known[:, None, None, None]  # (B, 1, 1, 1, k)
    if causal:
        back = at[:, None] - place[None]  # (q, k)
        near = True if window is None else back < window
        allowed = allowed & ((back >= 0) & near)[None, None, None]
    return jnp.where(allowed, score, -jnp.inf)


def _blocks(x: Array, count: int) -> Array:
    """(B, T, ...) as (count, B, T / count, ...), with zeros behind where T is no multiple."""
    B, T, *rest = x.shape
    size = -(-T // count)
    padded = jnp.pad(x, ((0, 0), (0, count * size - T), *((0, 0) for _ in rest)))
    return padded.reshape(B, count, size, *rest).swapaxes(0, 1)


def _check(query: Array, key: Array, value: Array, mask: Array | None, block: int) -> None:
    shapes = f"query {query.shape}, key {key.shape}, value {value.shape}"
    if not query.ndim == key.ndim == value.ndim == 4 or key.shape[:3] != value.shape[:3]:
        raise ValueError(f"{shapes}; expected (B, Q, H, D), (B, K, G, D) and (B, K, G, E)")
    if query.shape[0] != key.shape[0] or query.shape[3] != key.shape[3]:
        raise ValueError(f"{shapes}; batch and width of a head differ")
    if not key.shape[2] or query.shape[2] % key.shape[2]:
        raise ValueError(f"{shapes}; {query.shape[2]} heads cannot share {key.shape[2]}")
    if not query.shape[1] or not key.shape[1]:
        raise ValueError(f"{shapes}; there is no token")
    if mask is not None and (mask.shape != key.shape[:2] or mask.dtype != bool):
        raise ValueError(
            f"mask has shape {mask.shape} and dtype {mask.dtype}; expected booleans {key.shape[:2]}"
        )
    if block < 1:
        raise ValueError(f"block={block}; expected 1 or more")

"""Attention in blocks, against the written-out softmax in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.models.attention import attend

QUICKLY = pytest.mark.usefixtures("quick_compilation")

B, Q, K, H, G, D, E = 2, 7, 10, 4, 2, 3, 5
DRAWN = np.random.default_rng(0)
SEEN = DRAWN.random((B, K)) > 0.4
TABLE = DRAWN.standard_normal((H, Q + K))


def relative(at, place):
    """As T5 has it: a number for each head and distance."""
    return jnp.asarray(TABLE)[:, at[:, None] - place[None, :] + K - 1]


def dense(
    query, key, value, *, causal=False, mask=None, bias=None, scale=D**-0.5, start=None, window=K
):
    key, value = (jnp.repeat(x, query.shape[2] // x.shape[2], axis=2) for x in (key, value))
    Q, K = query.shape[1], key.shape[1]
    at, place = jnp.arange(Q) + (K - Q if start is None else start), jnp.arange(K)
    score = scale * jnp.einsum("bqhd,bkhd->bhqk", query, key)
    if bias is not None:
        score = score + bias(at, place)[None]
    allowed = jnp.ones((1, 1, 1, K), bool) if mask is None else mask[:, None, None]
    if causal:
        back = at[:, None] - place[None]
        allowed = allowed & ((back >= 0) & (back < window))[None, None]
    share = jnp.where(allowed, jnp.exp(score), 0)
    total = share.sum(-1, keepdims=True)
    return jnp.einsum("bhqk,bkhe->bqhe", share / jnp.where(total > 0, total, 1), value)


def drawn(seed=0, dtype=jnp.float64):
    rng = np.random.default_rng(seed)
    shapes = (B, Q, H, D), (B, K, G, D), (B, K, G, E)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes)


def linearized(attention):
    """A loss of the linearized model, whose gradient goes through jvp and its transpose."""

    def loss(moved, at):
        y, along = jax.jvp(attention, at, moved)
        return jnp.sin(y + along).sum()

    return jax.grad(loss)


@QUICKLY
@pytest.mark.slow(but=["everything-4"])
@pytest.mark.parametrize("block", [1, 4, 64])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param({"causal": True}, id="causal"),
        pytest.param({"mask": SEEN}, id="padded"),
        pytest.param({"bias": relative, "scale": 1.0}, id="relative"),
        pytest.param({"causal": True, "start": 1, "window": 3}, id="cached window"),
        pytest.param({"causal": True, "mask": SEEN, "bias": relative}, id="everything"),
    ],
)
def test_it_is_dense_attention_and_so_are_its_derivatives(options, block):
    with jax.enable_x64(True):
        at, moved = drawn(), drawn(1)
        ours = jax.jit(lambda *x: attend(*x, block=block, **options))
        reference = jax.jit(lambda *x: dense(*x, **options))
        for got, expected in zip(
            jax.jvp(ours, at, moved), jax.jvp(reference, at, moved), strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13)
        both = linearized(ours)(moved, at), linearized(reference)(moved, at)
        for got, expected in zip(*both, strict=True):
            np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)


@QUICKLY
def test_a_query_that_sees_nothing_gives_zero_and_no_slope():
    at = drawn(dtype=jnp.float32)
    nothing = {"mask": jnp.zeros((B, K), bool), "block": 4}
    y, pull = jax.vjp(lambda *x: attend(*x, **nothing), *at)
    assert not np.asarray(y).any()
    assert not any(np.asarray(slope).any() for slope in pull(jnp.ones_like(y)))


@QUICKLY
def test_large_scores_do_not_overflow():
    query, key, value = drawn(dtype=jnp.float32)
    got = attend(1e4 * query, key, value, block=4)
    nearest = dense(query, key, jnp.ones_like(value), scale=0.0)  # finite weights that sum to 1
    np.testing.assert_allclose(attend(1e4 * query, key, jnp.ones_like(value)), nearest, rtol=1e-6)
    winner = jnp.einsum("bqhd,bkhd->bqhk", query, jnp.repeat(key, H // G, 2)).argmax(-1)
    each = jnp.repeat(value, H // G, 2).transpose(0, 2, 1, 3)
    taken = jnp.take_along_axis(each, winner.transpose(0, 2, 1)[..., None], 2)
    np.testing.assert_allclose(got, taken.transpose(0, 2, 1, 3), rtol=1e-5)


@QUICKLY
def test_low_precision_is_summed_in_float32():
    at = drawn(dtype=jnp.bfloat16)
    got = attend(*at, block=4)
    assert got.dtype == jnp.bfloat16
    with jax.enable_x64(True):
        expected = dense(*(jnp.asarray(x, jnp.float64) for x in at))
    np.testing.assert_allclose(np.float64(got), expected, atol=2e-2)


def layers(attention):
    """Two layers of it in one scan, whose positions depend on no layer."""

    def run(query, key, value):
        def layer(x, _):
            return attention(x, key, value), None

        return jax.lax.scan(layer, query, length=2)[0]

    return run


@pytest.mark.slow
@pytest.mark.parametrize("within", [lambda run: run, layers], ids=["alone", "scanned"])
@pytest.mark.parametrize("options", [{}, {"causal": True}], ids=["plain", "causal"])
def test_temporaries_grow_linearly(options, within):
    """Compiled bytes of the linearized step; dense attention's grow with the square."""

    def held(attention, tokens):
        x = (jax.ShapeDtypeStruct((1, tokens, 4, 32), jnp.float32),) * 3
        step = jax.jit(linearized(within(lambda *x: attention(*x, **options))))
        return step.lower(x, x).compile().memory_analysis().temp_size_in_bytes

    half, whole, double = (held(attend, tokens) for tokens in (512, 1024, 2048))
    assert whole < 2.1 * half
    assert double < 2.1 * whole
    assert held(dense, 2048) > 3.5 * held(dense, 1024) > 5 * whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": (B, K, 3, D)}, r"key \(2, 10, 3, 3\), value"),
        ({"key": (B, K, 3, D), "value": (B, K, 3, E)}, "4 heads cannot share 3"),
        ({"key": (B, K, G, D + 1)}, "width of a head differ"),
        ({"query": (B, 0, H, D)}, "there is no token"),
        ({"mask": (B, Q)}, r"mask has shape \(2, 7\) and dtype bool"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    query, key, value = drawn(dtype=jnp.float32)
    given = {"query": query, "key": key, "value": value}
    changed = {n: jnp.ones(shape, bool if n == "mask" else float) for n, shape in change.items()}
    with pytest.raises(ValueError, match=message):
        attend(**given | changed)
    with pytest.raises(ValueError, match="block=0"):
        attend(**given, block=0)

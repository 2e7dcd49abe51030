"""Attention-only and OrthoReg: which leaves they find, and the penalty's closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from linearize.functional import from_nnx
from linearize.methods import attention_only, ortho_reg
from linearize.models.vit import ViT

SMALL = {"image_size": 28, "depth": 2, "width": 12, "heads": 2, "hidden": 20, "grid": 2}


def vit(**fields):
    module = ViT(**SMALL, **fields)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 28, 28, 3), np.uint8))
    return module, shapes["params"]


class Plain(linen.Module):
    """Flax's own attention beside an MLP whose names resemble it."""

    @linen.compact
    def __call__(self, x):
        x = linen.MultiHeadDotProductAttention(num_heads=2, normalize_qk=True)(x)
        return linen.Dense(3, name="proj")(linen.Dense(5, name="mlp")(x))


class Own(nnx.Module):
    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.mlp = nnx.Linear(4, 4, rngs=rngs)

    def __call__(self, x):
        return self.mlp(self.attention(x))


def linen_leaves():
    return jax.eval_shape(Plain().init, jax.random.key(0), np.zeros((1, 3, 4)))["params"]


def nested(*names):
    """Leaves by name, matrices but for biases and scales."""
    ends = ("bias", "scale", "b_q")
    return {n: np.ones((2,) * (1 if n.endswith(ends) else 2), np.float32) for n in names}


BLOCK = "attention/{}/kernel"
FLAX = "MultiHeadDotProductAttention_0/{}/kernel"
MODELS = {
    "vit": (
        lambda: vit()[1],
        [f"block_{i}/{BLOCK.format(n)}" for i in (0, 1) for n in ("out", "qkv")],
    ),
    "scanned": (
        lambda: vit(scan=True)[1],
        ["blocks/attention/out/kernel", "blocks/attention/qkv/kernel"],
    ),
    "linen": (linen_leaves, [FLAX.format(n) for n in ("key", "out", "query", "value")]),
    "nnx": (
        lambda: from_nnx(Own(nnx.Rngs(0)))[1],
        [BLOCK.format(n) for n in ("key", "out", "query", "value")],
    ),
    "flax bert": (
        lambda: nested(
            *(f"layer/0/attention/self/{n}/kernel" for n in ("query", "key", "value")),
            "layer/0/attention/output/dense/kernel",
            "layer/0/attention/output/LayerNorm/scale",
            "layer/0/output/dense/kernel",
        ),
        [
            *(f"layer/0/attention/self/{n}/kernel" for n in ("query", "key", "value")),
            "layer/0/attention/output/dense/kernel",
        ],
    ),
    "gpt2": (
        lambda: nested("h/0/attn/c_attn/kernel", "h/0/attn/c_proj/kernel", "h/0/mlp/c_proj/kernel"),
        ["h/0/attn/c_attn/kernel", "h/0/attn/c_proj/kernel"],
    ),
    "t5": (
        lambda: nested(
            *(f"block/0/layer/0/SelfAttention/{n}/kernel" for n in "kovq"),
            "block/0/layer/0/SelfAttention/relative_attention_bias/embedding",
            "block/0/layer/1/DenseReluDense/wi/kernel",
            "shared/embedding",
        ),
        [f"block/0/layer/0/SelfAttention/{n}/kernel" for n in "kovq"],
    ),
    "without a module": (
        lambda: nested("b/w_q", "b/w_k", "b/w_v", "b/w_o", "b/b_q", "b/mlp/w", "head/out"),
        ["b/w_k", "b/w_o", "b/w_q", "b/w_v"],
    ),
    "a block called so": (
        lambda: nested(
            *(f"AttentionBlock_0/{n}/kernel" for n in ("q_proj", "k_proj", "v_proj", "o_proj")),
            "AttentionBlock_0/Dense_0/kernel",
        ),
        [f"AttentionBlock_0/{n}/kernel" for n in ("q_proj", "k_proj", "v_proj", "o_proj")],
    ),
}


@pytest.mark.parametrize("model", MODELS)
def test_the_matrices_of_attention_are_found_by_name(model):
    made, expected = MODELS[model]
    assert sorted(attention_only.leaves(made())) == sorted(expected)


def test_where_there_is_none_all_leaves_are_named():
    with pytest.raises(ValueError, match=r"no leaf's name says .* There are: conv/kernel, key"):
        attention_only.leaves(nested("conv/kernel", "key"))


@pytest.mark.slow(but=["(2, 4, 4)"])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 4, 4)], ids=str)
def test_the_penalty_s_gradient_is_its_closed_form(shape):
    """4 (ΔW ΔWᵀ ΔW − ΔW), for ΔW and for its transpose, one a matrix of a stack."""
    with jax.enable_x64(True):
        delta = np.random.default_rng(0).normal(size=shape)
        value = ortho_reg._value((("w", shape[-2:]),))
        found, slope = jax.value_and_grad(lambda tau: value(None, None, tau, (), None))(
            {"w": jnp.asarray(delta)}
        )
        several = delta.reshape(-1, *shape[-2:])
        turned = several.swapaxes(1, 2)
        expected = 4 * (several @ turned @ several - several)
        np.testing.assert_allclose(slope["w"].reshape(several.shape), expected, rtol=1e-12)
        squares = several @ turned if shape[-2] < shape[-1] else turned @ several
        np.testing.assert_allclose(found, ((squares - np.eye(min(shape[-2:]))) ** 2).sum())


def test_a_stack_is_its_matrices_and_a_kernel_by_heads_is_one():
    for scan in (False, True):
        module, params = vit(scan=scan)
        f = lambda params, x: module.apply({"params": params}, x)  # noqa: B023, E731
        images = jax.ShapeDtypeStruct((1, 28, 28, 3), np.uint8)
        found = ortho_reg.matrices(f, params, images)
        block = "blocks" if scan else "block_1"
        assert found[f"{block}/attention/qkv/kernel"] == (12, 36)
        assert found[f"{block}/mlp_out/kernel"] == (20, 12)
        assert not [n for n in found if "bias" in n or "position" in n or "norm" in n]
    f = lambda params, x: Plain().apply({"params": params}, x)  # noqa: E731
    found = ortho_reg.matrices(f, linen_leaves(), jax.ShapeDtypeStruct((1, 3, 4), np.float32))
    assert set(found.values()) == {(4, 4), (4, 5), (5, 3)}
    conv = {"kernel": np.zeros((3, 3, 8, 16)), "bias": np.zeros(16)}
    assert ortho_reg.matrices(lambda p, x: x, conv, np.zeros(1)) == {"kernel": (72, 16)}


def test_a_tau_without_a_matrix_is_refused():
    value = ortho_reg._value((("w", (2, 2)),))
    with pytest.raises(ValueError, match="τ has no weight matrix for ortho_reg; it has b"):
        value(None, None, {"b": jnp.ones(3)}, (), None)

"""The pre-norm transformer that every tower here is made of, written for forward mode.

Attention is plain XLA, which has a forward-mode derivative; the blocks run unrolled or as one
scanned block, with a choice of what is kept for the backward pass.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from linearize import activations
from linearize.types import Array, PyTree

REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What a block keeps for the backward pass: everything, matrix products, or its input alone."""


def added(default: Any) -> Any:
    """A field that a module did not have at first.

    At its default the module computes what it did then, and its fingerprint is that of then, so
    that such runs are gone on with.
    """
    return dataclasses.field(default=default, metadata={"added": True})


def gelu(x: Array) -> Array:
    """``x Φ(x)``, with Φ by the error function, as torch computes it.

    ``jax.nn.gelu`` takes erfc, which is exact further out where Φ is below a float32's rounding of
    1, and three times as long on CPUs, derivatives included.

    >>> float(gelu(jnp.asarray(0.0)))
    0.0
    """
    return 0.5 * x * (1 + jax.lax.erf(x * np.asarray(np.sqrt(0.5), x.dtype)))


def quick_gelu(x: Array) -> Array:
    """``x * sigmoid(1.702 x)``, OpenAI CLIP's stand-in for GELU.

    >>> float(quick_gelu(jnp.asarray(0.0)))
    0.0
    """
    return x * jax.nn.sigmoid(1.702 * x)


def swiglu(x: Array) -> Array:
    """``silu(a) * b`` of the two halves of the last axis (Shazeer 2020, arXiv 2002.05202).

    >>> swiglu(jnp.zeros((2, 6))).shape
    (2, 3)
    """
    gate, value = jnp.split(x, 2, axis=-1)
    return jax.nn.silu(gate) * value


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_new": nn.gelu,
    "gelu_pytorch_tanh": nn.gelu,
    "quick_gelu": quick_gelu,
    "relu": nn.relu,
    "silu": nn.silu,
    "swiglu": swiglu,
}
"""Non-linearities by the names that Hugging Face configurations call them."""


class Attention(nn.Module):
    """Multi-head self-attention, ``(B, T, D) -> (B, T, D)``; query, key and value in one kernel.

    With ``causal``, a token attends to itself and to those before it.
    """

    heads: int
    dtype: Any = jnp.float32
    causal: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, tokens, width = x.shape
        qkv = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        y = jax.nn.dot_product_attention(
            query, key, value, is_causal=self.causal, implementation="xla"
        )
        return nn.Dense(width, dtype=self.dtype, name="out")(y.reshape(batch, tokens, width))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        return x * scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class Block(nn.Module):
    """``x + s1 * attention(norm(x))``, then ``x + s2 * mlp(norm(x))``.

    Attributes:
        heads: of the attention.
        hidden: width between the two layers of the MLP.
        dtype: of the computation; parameters stay in float32.
        activation: a key of :data:`ACTIVATIONS`.
        eps: added to the variance in layer norms.
        layer_scale: whether there are s1 and s2, a factor per channel; otherwise both are 1.
        causal: whether a token sees those before it only.
    """

    heads: int
    hidden: int
    dtype: Any = jnp.float32
    activation: str = "gelu"
    eps: float = 1e-6
    layer_scale: bool = True
    causal: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = layer_norm(self.dtype, self.eps, "norm_1")(x)
        y = Attention(self.heads, self.dtype, self.causal, name="attention")(y)
        x = x + (LayerScale(name="scale_1")(y) if self.layer_scale else y)
        y = layer_norm(self.dtype, self.eps, "norm_2")(x)
        inner = self.hidden * (2 if self.activation == "swiglu" else 1)
        y = nn.Dense(inner, dtype=self.dtype, name="mlp_in")(y)
        y = ACTIVATIONS[self.activation](y)
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(y)
        return x + (LayerScale(name="scale_2")(y) if self.layer_scale else y)


def layer_norm(dtype: Any, eps: float, name: str) -> nn.LayerNorm:
    """Layer norm whose variance is computed in two passes, as torch does."""
    return nn.LayerNorm(epsilon=eps, dtype=dtype, use_fast_variance=False, name=name)


def blocks(x: Array, options: Mapping[str, Any], *, depth: int, scan: bool, remat: str) -> Array:
    """``depth`` blocks in the calling module, named ``block_i``, or ``blocks`` where scanned.

    Args:
        x: ``(B, T, D)``.
        options: fields of :class:`Block`.
        depth: number of blocks.
        scan: one scanned block with parameters stacked on axis 0.
        remat: a key of :data:`REMAT`.
    """

    def call(layer: Block, x: Array, _: None) -> tuple[Array, None]:
        return layer(x), None

    return chain(x, Block, options, call, depth=depth, scan=scan, remat=remat)[0]


def chain(
    x: PyTree,
    block: Callable[..., nn.Module],
    options: Mapping[str, Any],
    call: Callable[[Any, PyTree, PyTree], tuple[PyTree, PyTree]],
    each: PyTree = None,
    *,
    depth: int,
    scan: bool,
    remat: str,
    name: str = "block",
) -> tuple[PyTree, PyTree]:
    """Blocks of any class one after another, in the calling module: ``block_i`` or ``blocks``.

    Args:
        x: what goes from block to block.
        block: the class.
        options: its fields.
        call: ``call(layer, x, each_i) -> (x, out_i)``: how a block is called. What is
            differentiated goes through the arguments of ``layer``, where ``remat`` sees it.
        each: what each block has of its own: a tree of arrays (depth, ...) and, where blocks are
            not scanned, of lists of so many trees.
        depth: number of blocks.
        scan: one scanned block with parameters stacked on axis 0.
        remat: a key of :data:`REMAT`.
        name: of a block.

    Returns:
        x after the last block, and all ``out``: stacked on axis 0 where scanned, or a list.
    """

    def kept(layer: Any, x: PyTree, each: PyTree) -> tuple[PyTree, PyTree]:
        x, out = call(layer, activations.keep(x), each)
        return activations.keep(x), out

    policy = REMAT[remat]
    kind = block if policy is None else nn.remat(block, policy=policy, prevent_cse=not scan)
    if scan:
        return nn.scan(
            kept,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=depth,
        )(kind(**options, name=f"{name}s"), x, each)
    outs = []
    for i in range(depth):
        own = jax.tree.map(lambda of, i=i: of[i], each, is_leaf=lambda x: isinstance(x, list))
        x, out = kept(kind(**options, name=f"{name}_{i}"), x, own)
        outs.append(out)
    return x, outs

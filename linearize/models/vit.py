"""Vision Transformer as DINOv2 builds it (Oquab et al. 2023, arXiv 2304.07193).

Pre-norm blocks with layer scale; one class token; a square table of positions that is resized
bicubically to the image's grid of patches. Attention is plain XLA, which has a forward-mode
derivative; patches are embedded by one matrix product.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from linearize.models import images as image_ops
from linearize.types import Array

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
OUTPUTS = ("features", "class_token", "patch_mean")

REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What a block keeps for the backward pass: everything, matrix products, or its input alone."""


class Attention(nn.Module):
    """Multi-head self-attention, ``(B, T, D) -> (B, T, D)``; query, key and value in one kernel."""

    heads: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, tokens, width = x.shape
        qkv = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        y = jax.nn.dot_product_attention(query, key, value, implementation="xla")
        return nn.Dense(width, dtype=self.dtype, name="out")(y.reshape(batch, tokens, width))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        return x * scale.astype(x.dtype).reshape((1,) * (x.ndim - 1) + (-1,))


class Block(nn.Module):
    """``x + s1 * attention(norm(x))``, then ``x + s2 * mlp(norm(x))``."""

    heads: int
    hidden: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = _norm(self.dtype, "norm_1")(x)
        y = Attention(self.heads, self.dtype, name="attention")(y)
        x = x + LayerScale(name="scale_1")(y)
        y = _norm(self.dtype, "norm_2")(x)
        y = nn.Dense(self.hidden, dtype=self.dtype, name="mlp_in")(y)
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(nn.gelu(y, approximate=False))
        return x + LayerScale(name="scale_2")(y)


class ViT(nn.Module):
    """``(B, H, W, 3) uint8 -> (B, D) float32``.

    Attributes:
        image_size: side in pixels, a multiple of ``patch``.
        depth: number of blocks taken, before the final norm.
        output: ``"features"``: class token and mean of the patch tokens, concatenated (2 width);
            ``"class_token"`` or ``"patch_mean"``: one of them (width). After the final norm.
        grid: side of the table of positions, in patches.
        dtype: of the computation; parameters stay in float32, and so do the final norm and mean.
        scan: one scanned block with stacked parameters ``blocks/...`` instead of ``block_i/...``.
        remat: a key of :data:`REMAT`.
    """

    image_size: int
    depth: int = 12
    width: int = 384
    heads: int = 6
    hidden: int = 1536
    patch: int = 14
    grid: int = 37
    output: str = "features"
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = image_ops.prepare(images, self.image_size, MEAN, STD)
        x = nn.Dense(self.width, dtype=self.dtype, name="patch_embedding")(
            patches(x, self.patch).astype(self.dtype)
        )
        x = self._add_positions(x)
        block = (
            Block
            if REMAT[self.remat] is None
            else nn.remat(Block, policy=REMAT[self.remat], prevent_cse=not self.scan)
        )
        if self.scan:
            x, _ = nn.scan(
                lambda layer, carry, _: (layer(carry), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=self.depth,
            )(block(self.heads, self.hidden, self.dtype, name="blocks"), x, None)
        else:
            for i in range(self.depth):
                x = block(self.heads, self.hidden, self.dtype, name=f"block_{i}")(x)
        x = _norm(jnp.float32, "norm")(x)
        both = {"class_token": x[:, 0], "patch_mean": x[:, 1:].mean(axis=1)}
        if self.output == "features":
            return jnp.concatenate(list(both.values()), axis=-1)
        return both[self.output]

    def _add_positions(self, x: Array) -> Array:
        """The class token set before the patch tokens, and to each its position."""
        small = nn.initializers.truncated_normal(0.02)
        token = self.param("class_token", small, (self.width,))
        token_position = self.param("class_position", small, (self.width,))
        table = self.param("positions", small, (self.grid, self.grid, self.width))
        side = self.image_size // self.patch
        if side != self.grid:
            weights = jnp.asarray(bicubic(self.grid, side))
            table = jnp.einsum("ai,bj,ijd->abd", weights, weights, table, precision="highest")
        x = x + table.reshape(1, side * side, self.width).astype(x.dtype)
        first = (token + token_position).astype(x.dtype).reshape(1, 1, self.width)
        return jnp.concatenate([jnp.broadcast_to(first, (x.shape[0], 1, self.width)), x], axis=1)


def _norm(dtype: Any, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-6, dtype=dtype, use_fast_variance=False, name=name)


def patches(pixels: Array, side: int) -> Array:
    """Patches as rows: ``(B, H, W, C) -> (B, H W / side², side² C)``, row-major in each."""
    batch, height, width, channels = pixels.shape
    rows, columns = height // side, width // side
    x = pixels.reshape(batch, rows, side, columns, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * columns, side * side * channels)


@cache
def bicubic(old: int, new: int) -> np.ndarray:
    """Matrix ``(new, old)`` that resizes one axis by cubic convolution (Keys 1981), a = -0.75.

    Half-pixel centres, borders repeated, no antialiasing: what torch and ONNX mean by ``cubic``
    and the convention in which DINOv2's positions were trained.
    """
    a = -0.75
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int)
    t = centre - first
    matrix = np.zeros((new, old))
    for tap in (-1, 0, 1, 2):
        d = np.abs(t - tap)
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * (d**3 - 5 * d**2 + 8 * d - 4)
        np.add.at(
            matrix,
            (np.arange(new), np.clip(first + tap, 0, old - 1)),
            np.where(d <= 1, near, far),
        )
    return matrix.astype(np.float32)

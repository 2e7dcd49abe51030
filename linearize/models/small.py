"""Two small models for tests and the ``debug`` preset; they come with random weights only."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from linearize.models import images as image_ops
from linearize.types import Array

_MIDDLE = (127.5, 127.5, 127.5)


class MLP(nn.Module):
    """``(B, H, W, 3) uint8 -> (B, width) float32``: dense layers with GELU, the last one linear."""

    image_size: int
    depth: int = 2
    width: int = 64
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = image_ops.prepare(images, self.image_size, _MIDDLE, _MIDDLE).astype(self.dtype)
        x = x.reshape(x.shape[0], -1)
        for i in range(self.depth):
            x = nn.gelu(x) if i else x
            x = nn.Dense(self.width, dtype=self.dtype, name=f"block_{i}")(x)
        return x.astype(jnp.float32)


class CNN(nn.Module):
    """``(B, H, W, 3) uint8 -> (B, D) float32``: 3x3 convolutions, halving, averaged at the end.

    Attributes:
        image_size: side in pixels.
        depth: number of convolutions; the i-th has ``width * 2**i`` channels and stride 2.
        width: channels of the first.
        batch_norm: batch normalisation after each, in evaluation mode (initial statistics).
        dtype: of the computation.
    """

    image_size: int
    depth: int = 3
    width: int = 16
    batch_norm: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = image_ops.prepare(images, self.image_size, _MIDDLE, _MIDDLE).astype(self.dtype)
        for i in range(self.depth):
            x = ConvBlock(self.width * 2**i, self.batch_norm, self.dtype, name=f"block_{i}")(x)
        return x.astype(jnp.float32).mean(axis=(1, 2))


class ConvBlock(nn.Module):
    """Convolution, optional batch normalisation, GELU."""

    width: int
    batch_norm: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Conv(self.width, (3, 3), (2, 2), dtype=self.dtype, name="conv")(x)
        if self.batch_norm:
            x = nn.BatchNorm(use_running_average=True, dtype=self.dtype, name="norm")(x)
        return nn.gelu(x)

"""Vision Transformer (Dosovitskiy et al. 2021, arXiv 2010.11929); a family is a set of fields.

One class token; a square table of positions that is resized bicubically to the image's grid of
patches; patches are embedded by one matrix product. The fields' own values are DINOv2's (Oquab et
al. 2023, arXiv 2304.07193): layer scale, exact GELU, both the class token and the patches' mean.
"""

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from linearize.models import images as image_ops
from linearize.models import transformer
from linearize.types import Array

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
OUTPUTS = ("features", "class_token", "patch_mean")


class ViT(nn.Module):
    """``(B, H, W, 3) uint8 -> (B, D) float32``.

    Attributes:
        image_size: side in pixels, a multiple of ``patch``.
        depth: number of blocks taken, before the final norm.
        width: of a token.
        heads: of the attention.
        hidden: width inside the blocks' MLP.
        patch: side of a patch in pixels.
        grid: side of the table of positions, in patches.
        output: ``"features"``, which ``pooling`` and ``projection`` define; ``"class_token"`` or
            ``"patch_mean"``: one of them (width). After the final norm.
        pooling: what features are: ``"both"`` class token and mean of the patch tokens,
            concatenated (2 width), or the ``"class_token"`` or ``"patch_mean"`` alone.
        projection: width of a last linear map of the features without bias, as in CLIP; None for
            no such map.
        activation: a key of :data:`linearize.models.transformer.ACTIVATIONS`.
        eps: added to the variance in layer norms.
        layer_scale: whether the blocks have a learned factor per channel.
        pre_norm: whether tokens are normalised before the first block, as in CLIP.
        patch_bias: whether the patch embedding has a bias.
        mean: of the pixels' normalisation, three numbers on the scale 0 to 255.
        std: likewise.
        resample: how images of other sides are resized, ``bilinear`` or ``bicubic``.
        dtype: of the computation; parameters stay in float32, and so do the final norm, the mean
            and the projection.
        scan: one scanned block with stacked parameters ``blocks/...`` instead of ``block_i/...``.
        remat: a key of :data:`linearize.models.transformer.REMAT`.
    """

    image_size: int
    depth: int = 12
    width: int = 384
    heads: int = 6
    hidden: int = 1536
    patch: int = 14
    grid: int = 37
    output: str = "features"
    pooling: str = "both"
    projection: int | None = None
    activation: str = "gelu"
    eps: float = 1e-6
    layer_scale: bool = True
    pre_norm: bool = False
    patch_bias: bool = True
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    resample: str = "bilinear"
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = image_ops.prepare(images, self.image_size, self.mean, self.std, self.resample)
        x = nn.Dense(
            self.width, use_bias=self.patch_bias, dtype=self.dtype, name="patch_embedding"
        )(patches(x, self.patch).astype(self.dtype))
        x = self._add_positions(x)
        if self.pre_norm:
            x = transformer.layer_norm(self.dtype, self.eps, "pre_norm")(x)
        options = {
            "heads": self.heads,
            "hidden": self.hidden,
            "dtype": self.dtype,
            "activation": self.activation,
            "eps": self.eps,
            "layer_scale": self.layer_scale,
        }
        x = transformer.blocks(x, options, depth=self.depth, scan=self.scan, remat=self.remat)
        return self._readout(x)

    def _readout(self, x: Array) -> Array:
        """Features of the last block's tokens, in float32."""
        wanted = self.pooling if self.output == "features" else self.output
        if wanted == "class_token":
            x = x[:, :1]
        x = transformer.layer_norm(jnp.float32, self.eps, "norm")(x)
        parts = {"class_token": lambda: x[:, 0], "patch_mean": lambda: x[:, 1:].mean(axis=1)}
        if wanted == "both":
            features = jnp.concatenate([part() for part in parts.values()], axis=-1)
        else:
            features = parts[wanted]()
        if self.output != "features" or self.projection is None:
            return features
        return nn.Dense(self.projection, use_bias=False, name="projection")(features)

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

"""CLIP (Radford et al. 2021, arXiv 2103.00020): its image encoders' fields, and the text tower.

The image encoder is :class:`linearize.models.vit.ViT` with the fields of :data:`VISION`. The text
tower only makes classification heads; it has parameters of its own, so that no task vector holds
any of them.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from linearize.models import transformer
from linearize.types import Array

MEAN = (122.7709383, 116.7460125, 104.09373615)
STD = (68.5005327, 66.6321579, 70.32316305)


def vision(patch: int, grid: int, width: int, depth: int, projection: int) -> dict[str, Any]:
    """Fields of the image encoder; heads are 64 wide and the MLP is four times as wide."""
    return {
        "patch": patch,
        "grid": grid,
        "width": width,
        "heads": width // 64,
        "hidden": 4 * width,
        "depth": depth,
        "projection": projection,
        **FIELDS,
    }


FIELDS: dict[str, Any] = {
    "pooling": "class_token",
    "activation": "quick_gelu",
    "eps": 1e-5,
    "layer_scale": False,
    "pre_norm": True,
    "patch_bias": False,
    "mean": MEAN,
    "std": STD,
    "resample": "bicubic",
}
"""What makes a ViT a CLIP image encoder, whatever its size."""

VISION: dict[str, dict[str, Any]] = {
    "clip_vit_b32": vision(32, 7, 768, 12, 512),
    "clip_vit_b16": vision(16, 14, 768, 12, 512),
    "clip_vit_l14": vision(14, 16, 1024, 24, 768),
    "clip_vit_l14_336": vision(14, 24, 1024, 24, 768),
}

TEXT: dict[str, dict[str, Any]] = {
    name: {
        "width": fields["projection"],
        "heads": fields["projection"] // 64,
        "hidden": 4 * fields["projection"],
        "projection": fields["projection"],
    }
    for name, fields in VISION.items()
}
"""Fields of the text towers that belong to them; the others are the same in all."""


class TextTower(nn.Module):
    """``(B, T) integers -> (B, projection) float32``: features of sentences, not normalised.

    Attention is causal, so whatever follows the end token does not matter.

    Attributes:
        vocabulary: number of tokens.
        context: the largest T.
        depth: number of blocks.
        width: of a token.
        heads: of the attention.
        hidden: width inside the blocks' MLP.
        projection: width of the output.
        activation: a key of :data:`linearize.models.transformer.ACTIVATIONS`.
        eps: added to the variance in layer norms.
        end: the token whose place is read out, the first where there are several; None for the
            place of the largest token, which in CLIP's own vocabulary is the same.
        dtype: of the computation; parameters, the final norm and the projection are in float32.
        scan: one scanned block with stacked parameters ``blocks/...`` instead of ``block_i/...``.
        remat: a key of :data:`linearize.models.transformer.REMAT`.
    """

    vocabulary: int = 49408
    context: int = 77
    depth: int = 12
    width: int = 512
    heads: int = 8
    hidden: int = 2048
    projection: int = 512
    activation: str = "quick_gelu"
    eps: float = 1e-5
    end: int | None = None
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        self._check(tokens)
        small = nn.initializers.normal(0.02)
        table = self.param("token_embedding", small, (self.vocabulary, self.width))
        places = self.param("positions", small, (self.context, self.width))
        x = table[tokens] + places[: tokens.shape[1]][None]
        options = {
            "heads": self.heads,
            "hidden": self.hidden,
            "dtype": self.dtype,
            "activation": self.activation,
            "eps": self.eps,
            "layer_scale": False,
            "causal": True,
        }
        x = transformer.blocks(
            x.astype(self.dtype), options, depth=self.depth, scan=self.scan, remat=self.remat
        )
        ends = jnp.argmax(tokens if self.end is None else tokens == self.end, axis=1)
        last = jnp.take_along_axis(x, ends[:, None, None], axis=1)[:, 0]
        last = transformer.layer_norm(jnp.float32, self.eps, "norm")(last)
        return nn.Dense(self.projection, use_bias=False, name="projection")(last)

    def _check(self, tokens: Array) -> None:
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(
                f"tokens has shape {tokens.shape} and dtype {tokens.dtype}; expected (B, T) "
                "integers: a list of sentences, tokenised and padded to one length"
            )
        if not 0 < tokens.shape[1] <= self.context:
            raise ValueError(
                f"tokens has {tokens.shape[1]} a sentence; this tower takes 1 to {self.context}: "
                "truncate sentences, keeping the end token"
            )

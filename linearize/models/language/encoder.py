"""The bidirectional encoder that BERT, RoBERTa and MPNet are; a family is a set of fields.

Blocks are post-norm: each sum is normalised (Devlin et al. 2019, arXiv 1810.04805). RoBERTa's
positions begin after its pad token's number and follow the mask (Liu et al. 2019, arXiv
1907.11692); MPNet adds to all blocks' scores one bias by the bucket of a distance (Song et al.
2020, arXiv 2004.09297).
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from linearize.models import transformer
from linearize.models.attention import attend
from linearize.models.language import relative
from linearize.models.language.embedding import embedded
from linearize.types import Array

_FARTHEST = 128
"""Distances from this on share MPNet's last bucket."""


class Encoder(nn.Module):
    """``tokens (B, L), mask (B, L) -> hidden states (B, L, D) float32``.

    Attributes:
        vocabulary: V, number of tokens.
        positions: rows of the table of positions.
        depth: number of blocks.
        width: D, of a hidden state.
        heads: of the attention.
        hidden: width inside the blocks' MLP.
        activation: a key of :data:`linearize.models.transformer.ACTIVATIONS`.
        head_activation: likewise, of the head's transform.
        eps: added to the variance in layer norms.
        types: number of token types; 0 where there are none.
        pad: number of the pad token where the tokens that are seen have positions pad + 1, pad + 2,
            ... and padding has position pad, as in RoBERTa; None where positions are places.
        buckets: of relative positions, shared by all blocks; 0 for none.
        headed: whether there is a masked language model's head: a transform, a norm, and the token
            embedding as a decoder with a bias.
        pooler: whether there is a pooler, which :mod:`linearize.models.language.sentence` reads.
        dtype: of the computation; parameters and what is given are in float32.
        scan: one scanned block with stacked parameters ``blocks/...`` instead of ``block_i/...``.
        remat: a key of :data:`linearize.models.transformer.REMAT`.
    """

    vocabulary: int
    positions: int = 512
    depth: int = 12
    width: int = 768
    heads: int = 12
    hidden: int = 3072
    activation: str = "gelu"
    head_activation: str = "gelu"
    eps: float = 1e-12
    types: int = 2
    pad: int | None = None
    buckets: int = 0
    headed: bool = True
    pooler: bool = False
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    @property
    def context(self) -> int:
        """The largest L."""
        return self.positions - (0 if self.pad is None else self.pad + 1)

    def setup(self) -> None:
        small = nn.initializers.normal(0.02)
        self.token_embedding = self.param("token_embedding", small, (self.vocabulary, self.width))
        self.place = self.param("position_embedding", small, (self.positions, self.width))
        if self.types:
            self.kind = self.param("type_embedding", small, (self.types, self.width))
        if self.buckets:
            self.bias = self.param("relative_bias", small, (self.buckets, self.heads))
        if self.headed:
            self.head_transform = nn.Dense(self.width, dtype=self.dtype)
            self.head_norm = nn.LayerNorm(self.eps, dtype=self.dtype, use_fast_variance=False)
            self.head_bias = self.param(
                "head_bias", nn.initializers.zeros_init(), (self.vocabulary,)
            )

    @nn.compact
    def __call__(self, tokens: Array, mask: Array, types: Array | None = None) -> Array:
        """Hidden states; ``types`` (B, L) are 0 by default.

        Raises:
            ValueError: shapes or dtypes of no tokens, more of them than there are positions, or
                types of an encoder that has none.
        """
        self._check(tokens, mask)
        if types is not None and not self.types:
            raise ValueError("types are given, and this encoder has no token types; leave them out")
        x = embedded(self.token_embedding, tokens, mask) + self._places(mask)
        if types is not None:
            x = x + embedded(self.kind, types, mask, what="types")
        elif self.types:
            x = x + self.kind[:1][None]
        x = transformer.layer_norm(self.dtype, self.eps, "embedding_norm")(x)
        options = {
            name: getattr(self, name) for name in ("heads", "hidden", "activation", "eps", "dtype")
        }
        bias = self.bias if self.buckets else None
        x, _ = transformer.chain(
            x,
            Block,
            options,
            lambda layer, x, _: (layer(x, mask, bias), None),
            depth=self.depth,
            scan=self.scan,
            remat=self.remat,
        )
        x = x.astype(jnp.float32)
        if self.pooler:  # no part of what is returned
            nn.Dense(self.width, name="pooler")(x[:, 0])
        if self.headed and self.is_initializing():
            self.logits(x)
        return x

    def logits(self, hidden: Array, words: Array | None = None) -> Array:
        """Logits (..., V) float32 of hidden states (..., D); of ``words`` (C,) alone, (..., C)."""
        x = self.head_transform(hidden)
        x = self.head_norm(transformer.ACTIVATIONS[self.head_activation](x))
        table, bias = self.token_embedding, self.head_bias
        if words is not None:
            table, bias = table[words], bias[words]
        found = jnp.matmul(x, table.astype(x.dtype).T, preferred_element_type=jnp.float32)
        return found + bias.reshape((1,) * (found.ndim - 1) + (-1,))

    def _places(self, mask: Array) -> Array:
        if self.pad is None:
            return self.place[: mask.shape[1]][None]
        seen = mask.astype(jnp.int32)
        return self.place[jnp.cumsum(seen, axis=1) * seen + self.pad]

    def _check(self, tokens: Array, mask: Array) -> None:
        if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
            raise ValueError(
                f"tokens has shape {tokens.shape} and dtype {tokens.dtype}; expected (B, L) "
                "integers: texts, tokenised and padded to one length"
            )
        if mask.shape != tokens.shape or mask.dtype != bool:
            raise ValueError(
                f"mask has shape {mask.shape} and dtype {mask.dtype}; expected booleans "
                f"{tokens.shape}, true where a token is no padding"
            )
        if not 0 < tokens.shape[1] <= self.context:
            raise ValueError(
                f"tokens has {tokens.shape[1]} a text; this encoder takes 1 to {self.context}: cut "
                "texts, keeping their last token"
            )


class Block(nn.Module):
    """``norm(x + attention(x))``, then ``norm(x + mlp(x))``.

    Attributes:
        heads: of the attention.
        hidden: width between the two layers of the MLP.
        activation: a key of :data:`linearize.models.transformer.ACTIVATIONS`.
        eps: added to the variance in layer norms.
        dtype: of the computation; parameters stay in float32.
    """

    heads: int
    hidden: int
    activation: str
    eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, mask: Array, bias: Array | None) -> Array:
        y = Attention(self.heads, self.dtype, name="attention")(x, mask, bias)
        x = transformer.layer_norm(self.dtype, self.eps, "norm_1")(x + y)
        y = nn.Dense(self.hidden, dtype=self.dtype, name="mlp_in")(x)
        y = transformer.ACTIVATIONS[self.activation](y)
        y = nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(y)
        return transformer.layer_norm(self.dtype, self.eps, "norm_2")(x + y)


class Attention(nn.Module):
    """Self-attention ``(B, L, D) -> (B, L, D)`` over the tokens of a mask (B, L).

    Scores of distances in a bucket get that row of ``bias`` (buckets, heads), where it is given.
    """

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, mask: Array, bias: Array | None) -> Array:
        batch, length, width = x.shape
        query, key, value = (
            nn.Dense(width, dtype=self.dtype, name=name)(x).reshape(batch, length, self.heads, -1)
            for name in ("q", "k", "v")
        )
        added = None if bias is None else relative.bias(bias, _FARTHEST, directed=False)
        y = attend(query, key, value, mask=mask, bias=added)
        return nn.Dense(width, dtype=self.dtype, name="out")(y.reshape(batch, length, width))

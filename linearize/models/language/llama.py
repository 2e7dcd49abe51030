"""Llama-style decoders (Touvron et al. 2023, arXiv 2302.13971); a family is a set of fields.

RMS norms, rotary positions (Su et al. 2021, arXiv 2104.09864), keys shared by several heads
(Ainslie et al. 2023, arXiv 2305.13245), gated MLPs (Shazeer 2020, arXiv 2002.05202). Gemma's kind
scales the embedding, has norms behind too, and blocks that see a window only
(:mod:`linearize.models.language.gemma`).
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from linearize.models import transformer
from linearize.models.attention import capped
from linearize.models.hf import configs, schema, tables
from linearize.models.hf.table import KERNEL, SAME, Table
from linearize.models.language import cached, rotary
from linearize.models.language.decoder import Causal
from linearize.models.language.rotary import turned, turns
from linearize.types import Array, PyTree


def table(name: str, norms: Mapping[str, str]) -> Table:
    """Whose name is whose in a family of this kind.

    Args:
        name: of the dialect.
        norms: those in a block: theirs, and ours.
    """
    layer, block = "model.layers.{i}", "block_{i}"
    linear = {f"self_attn.{x}_proj": f"attention/{x}" for x in "qkv"}
    linear |= {"self_attn.o_proj": "attention/out"}
    linear |= {
        f"mlp.{x}_proj": f"mlp_{y}" for x, y in (("gate", "gate"), ("up", "in"), ("down", "out"))
    }
    return Table(
        name,
        rows=(
            ("model.embed_tokens.weight", "token_embedding", SAME),
            *(
                row
                for theirs, ours in linear.items()
                for row in tables.linear(f"{layer}.{theirs}", f"{block}/{ours}")
            ),
            *((f"{layer}.{x}.weight", f"{block}/{y}/scale", SAME) for x, y in norms.items()),
            ("model.norm.weight", "norm/scale", SAME),
            ("lm_head.weight", "head/kernel", KERNEL),
        ),
        dropped=(r".*rotary_emb\.inv_freq",),
        aliases=((r"^(?=(embed_tokens|layers|norm)\.)", "model."),),
    )


LLAMA = table(
    "transformers' Llama", {"input_layernorm": "norm_1", "post_attention_layernorm": "norm_2"}
)
REPEATED = {"lm_head.weight": "model.embed_tokens.weight"}

_KEYS = {
    "vocab_size": schema.size(32000, 2**24),
    "max_position_embeddings": schema.size(2048, 2**24),
    "hidden_size": schema.size(4096),
    "intermediate_size": schema.size(11008, 2**20),
    "num_hidden_layers": schema.size(32, schema.DEEPEST),
    "num_attention_heads": schema.size(32, 4096),
    "num_key_value_heads": schema.size(None, 4096),
    "head_dim": schema.size(None),
    "hidden_act": schema.choice("silu", configs.ACTIVATIONS),
    "rms_norm_eps": schema.number(1e-6, 0, 1),
    "tie_word_embeddings": schema.flag(False),
    "attention_bias": schema.flag(False),
    "mlp_bias": schema.flag(False),
    "pretraining_tp": schema.only(1),
    **rotary.KEYS,
    "rope_interleaved": schema.only(False),
}
_NO_INFLUENCE = configs.IGNORED | {"is_llama_config"}


def configure(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of :class:`Decoder` of a configuration whose ``model_type`` is ``"llama"``.

    Raises:
        WeightsError: a value or a key that no module here computes with, by name.
    """
    got = schema.read(config, _KEYS, _NO_INFLUENCE, where=where)
    return {
        **common(got, where),
        **rotary.configure(got, where),
        "activation": got["hidden_act"],
        "mlp_bias": got["mlp_bias"],
    }


def common(got: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields that all families of this kind tell in the same words.

    Raises:
        WeightsError: heads of which there cannot be so many, or of such a width.
    """
    heads, width = got["num_attention_heads"], got["hidden_size"]
    shared = got["num_key_value_heads"] or heads
    if heads % shared:
        schema.refuse(where, "num_key_value_heads", shared, f"expected a divisor of {heads}")
    head_width = got["head_dim"] or (schema.heads(width, heads, where) and width // heads)
    if head_width % 2:
        schema.refuse(where, "head_dim", head_width, "expected an even number")
    return {
        "vocabulary": got["vocab_size"],
        "context": got["max_position_embeddings"],
        "depth": got["num_hidden_layers"],
        "width": width,
        "heads": heads,
        "shared": shared,
        "head_width": head_width,
        "hidden": got["intermediate_size"],
        "eps": float(got["rms_norm_eps"]),
        "tied": got["tie_word_embeddings"],
        "attention_bias": got["attention_bias"],
        "out_bias": got["attention_bias"],
    }


_ALL = 2**30
"""A window that nothing is outside of."""


class Sight(NamedTuple):
    """What attention sees: the rotations of its tokens' positions, and how many tokens."""

    turns: Array
    window: int | Array | None


class Decoder(Causal):
    """``tokens (B, L) -> hidden states (B, L, D) float32``; ``logits`` of those (B, L, V) float32.

    Attributes:
        vocabulary: V.
        context: the largest L that the weights were made for.
        depth: number of blocks.
        width: D.
        heads: of the attention.
        shared: heads of keys and values; it divides ``heads``.
        head_width: of a head.
        hidden: width inside the blocks' MLP.
        theta: base of the rotary positions' wave lengths.
        eps: added to the mean square in norms.
        activation: of the MLP's gate, a key of :data:`linearize.models.transformer.ACTIVATIONS`.
        tied: whether the head is the embedding.
        attention_bias: whether queries, keys and values have biases.
        out_bias: whether the attention's output has one.
        mlp_bias: whether the MLP's three maps have.
        embedding_scale: factor of the embedding.
        attention_scale: factor of the attention's scores; 1 / √head_width where None.
        head_norms: whether queries and keys are normalised, head by head.
        post_norms: whether what attention and MLP add is normalised.
        window: how many tokens the blocks of ``local`` see, their own among them.
        local: of each block, whether it sees a window only; of none where it is empty.
        local_theta: base of the wave lengths in those; ``theta`` where None.
        stretch: of the wave lengths in all other blocks to longer texts.
        norm_offset: what is added to the norms' scales: Gemma's are what they differ from 1 by.
        attention_cap: what the attention's scores stay below; nothing where None.
        logit_cap: likewise logits.
        dtype: of the computation; parameters stay in float32, and so do norms and rotations.
        scan: one scanned block with stacked parameters ``blocks/...`` instead of ``block_i/...``.
        remat: a key of :data:`linearize.models.transformer.REMAT`.
    """

    vocabulary: int
    context: int
    depth: int
    width: int
    heads: int
    shared: int
    head_width: int
    hidden: int
    theta: float = 1e4
    eps: float = 1e-5
    activation: str = "silu"
    tied: bool = True
    attention_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    embedding_scale: float = 1.0
    attention_scale: float | None = None
    head_norms: bool = False
    post_norms: bool = False
    window: int | None = None
    local: tuple[bool, ...] = ()
    local_theta: float | None = None
    stretch: rotary.Stretch | None = transformer.added(None)
    norm_offset: float = transformer.added(0.0)
    attention_cap: float | None = transformer.added(None)
    logit_cap: float | None = transformer.added(None)
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    def logits(self, hidden: Array, words: Array | None = None) -> Array:
        """Of hidden states (..., D): (..., V) float32, or (..., C) of words (C,) alone."""
        return capped(super().logits(hidden, words), self.logit_cap)

    def cache(self, batch: int, length: int) -> PyTree:
        """An empty one for up to ``length`` tokens."""
        return cached.empty(
            self.depth,
            batch,
            length,
            self.shared,
            self.head_width,
            self.dtype,
            scan=self.scan,
        )

    @nn.compact
    def run(self, tokens: Array, cache: PyTree = None) -> tuple[Array, PyTree]:
        """Hidden states, and where there is a cache the keys and values of these tokens."""
        start = 0 if cache is None else cache["seen"]
        at = start + jnp.arange(tokens.shape[1])
        x = self.embed(tokens).astype(self.dtype)
        x = x * jnp.asarray(self.embedding_scale, self.dtype)
        local = jnp.asarray(self.local[: self.depth]) if any(self.local[: self.depth]) else None
        whole = turns(at, self.theta, self.head_width, self.stretch)
        far = Sight(whole, None if local is None else _ALL)
        near = Sight(turns(at, self.local_theta or self.theta, self.head_width), self.window)
        attention = {
            "heads": self.heads,
            "shared": self.shared,
            "head_width": self.head_width,
            "bias": self.attention_bias,
            "out_bias": self.out_bias,
            "scale": self.attention_scale,
            "cap": self.attention_cap,
            "norms": self.head_norms,
            "eps": self.eps,
            "offset": self.norm_offset,
            "dtype": self.dtype,
        }
        options = {
            "attends": attention,
            "hidden": self.hidden,
            "activation": self.activation,
            "bias": self.mlp_bias,
            "post_norms": self.post_norms,
            "eps": self.eps,
            "offset": self.norm_offset,
            "dtype": self.dtype,
        }

        def call(layer: Block, x: Array, own: PyTree) -> tuple[Array, PyTree]:
            own_sight = far
            if own["local"] is not None:
                own_sight = jax.tree.map(lambda a, b: jnp.where(own["local"], b, a), far, near)
            return layer(x, own_sight, start, own["kept"])

        kept = cached.kept(cache)
        x, new = transformer.chain(
            x,
            Block,
            options,
            call,
            {"local": local, "kept": kept},
            depth=self.depth,
            scan=self.scan and not isinstance(kept, list),
            remat=self.remat,
        )
        return RMSNorm(self.eps, self.norm_offset, name="norm")(x), new


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Attributes:
        attends: fields of :class:`Attention`.
        hidden: width inside the MLP.
        activation: of its gate.
        bias: whether its maps have biases.
        post_norms: whether what is added is normalised.
        eps: of the norms.
        offset: of their scales.
        dtype: of the computation.
    """

    attends: Any
    hidden: int
    activation: str
    bias: bool
    post_norms: bool
    eps: float
    offset: float
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Array, sight: Sight, start: int | Array, kept: PyTree
    ) -> tuple[Array, PyTree]:
        def norm(y: Array, name: str) -> Array:
            return RMSNorm(self.eps, self.offset, name=name)(y).astype(self.dtype)

        def dense(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, use_bias=self.bias, dtype=self.dtype, name=name)

        y, new = Attention(**self.attends, name="attention")(norm(x, "norm_1"), sight, start, kept)
        x = x + (norm(y, "post_norm_1") if self.post_norms else y)
        y = norm(x, "norm_2")
        gate = transformer.ACTIVATIONS[self.activation](dense(self.hidden, "mlp_gate")(y))
        y = dense(x.shape[-1], "mlp_out")(gate * dense(self.hidden, "mlp_in")(y))
        return x + (norm(y, "post_norm_2") if self.post_norms else y), new


class Attention(nn.Module):
    """Causal attention whose keys several heads share, ``(B, S, D) -> (B, S, D)``.

    Attributes:
        heads: of queries.
        shared: of keys and values.
        head_width: of a head.
        bias: whether queries, keys and values have biases.
        out_bias: whether the output has one.
        scale: factor of the scores; 1 / √head_width where None.
        cap: what they stay below; nothing where None.
        norms: whether queries and keys are normalised.
        eps: of those norms.
        offset: of their scales.
        dtype: of the computation.
    """

    heads: int
    shared: int
    head_width: int
    bias: bool
    out_bias: bool
    scale: float | None
    cap: float | None
    norms: bool
    eps: float
    offset: float
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Array, sight: Sight, start: int | Array, kept: PyTree
    ) -> tuple[Array, PyTree]:
        def heads(count: int, name: str) -> Array:
            y = nn.Dense(count * self.head_width, use_bias=self.bias, dtype=self.dtype, name=name)(
                x
            )
            return y.reshape(*x.shape[:2], count, self.head_width)

        def placed(y: Array, name: str) -> Array:
            if self.norms:
                y = RMSNorm(self.eps, self.offset, name=f"{name}_norm")(y)
            return turned(y, sight.turns).astype(self.dtype)

        query = placed(heads(self.heads, "q"), "q")
        new = {"keys": placed(heads(self.shared, "k"), "k"), "values": heads(self.shared, "v")}
        y = cached.attended(
            query, kept, new, start, scale=self.scale, cap=self.cap, window=sight.window
        )
        out = nn.Dense(x.shape[-1], use_bias=self.out_bias, dtype=self.dtype, name="out")
        return out(y.reshape(*x.shape[:2], -1)), None if kept is None else new


class RMSNorm(nn.Module):
    """``x / √(mean(x²) + eps) · (offset + scale)`` over the last axis, in float32."""

    eps: float
    offset: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.constant(1 - self.offset), (x.shape[-1],))
        x, scale = x.astype(jnp.float32), scale.reshape((1,) * (x.ndim - 1) + (-1,))
        scale = scale + self.offset if self.offset else scale
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps) * scale

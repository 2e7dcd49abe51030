"""Llama-style decoders (Touvron et al. 2023, arXiv 2302.13971); a family is a set of fields.

RMS norms, rotary positions (Su et al. 2021, arXiv 2104.09864), keys shared by several heads
(Ainslie et al. 2023, arXiv 2305.13245), gated MLPs (Shazeer 2020, arXiv 2002.05202). Gemma's kind
scales the embedding, has norms behind too, and blocks that see a window only.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from linearize.models import transformer
from linearize.models.attention import attend
from linearize.models.hf import configs, schema, tables
from linearize.models.hf.table import KERNEL, SAME, Table
from linearize.models.language import cached
from linearize.models.language.decoder import Causal
from linearize.types import Array, PyTree

LLAMA = Table(
    "transformers' Llama",
    rows=(
        ("model.embed_tokens.weight", "token_embedding", SAME),
        *(
            row
            for part, ours in {"q": "q", "k": "k", "v": "v", "o": "out"}.items()
            for row in tables.linear(
                f"model.layers.{{i}}.self_attn.{part}_proj", f"block_{{i}}/attention/{ours}"
            )
        ),
        *(
            row
            for part, ours in {"gate": "mlp_gate", "up": "mlp_in", "down": "mlp_out"}.items()
            for row in tables.linear(f"model.layers.{{i}}.mlp.{part}_proj", f"block_{{i}}/{ours}")
        ),
        ("model.layers.{i}.input_layernorm.weight", "block_{i}/norm_1/scale", SAME),
        ("model.layers.{i}.post_attention_layernorm.weight", "block_{i}/norm_2/scale", SAME),
        ("model.norm.weight", "norm/scale", SAME),
        ("lm_head.weight", "head/kernel", KERNEL),
    ),
    dropped=(r".*rotary_emb\.inv_freq",),
    aliases=((r"^(?=(embed_tokens|layers|norm)\.)", "model."),),
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
    "hidden_act": schema.choice("silu", sorted(transformer.ACTIVATIONS.keys() - {"swiglu"})),
    "rms_norm_eps": schema.number(1e-6, 0, 1),
    "tie_word_embeddings": schema.flag(False),
    "attention_bias": schema.flag(False),
    "mlp_bias": schema.flag(False),
    "pretraining_tp": schema.only(1),
    "rope_theta": schema.number(None, 1, 1e12),
    "rope_scaling": schema.part(),
    "rope_parameters": schema.part(),
    "rope_interleaved": schema.only(False),
}
_ROTATIONS = {
    "rope_type": schema.only("default"),
    "type": schema.only("default"),
    "rope_theta": schema.number(None, 1, 1e12),
}
_NO_INFLUENCE = configs.IGNORED | {"is_llama_config"}


def configure(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of :class:`Decoder` of a configuration whose ``model_type`` is ``"llama"``.

    Raises:
        WeightsError: a value or a key that no module here computes with, by name.
    """
    got = schema.read(config, _KEYS, _NO_INFLUENCE, where=where)
    heads, width = got["num_attention_heads"], got["hidden_size"]
    shared = got["num_key_value_heads"] or heads
    if heads % shared:
        schema.refuse(where, "num_key_value_heads", shared, f"expected a divisor of {heads}")
    turns = {
        name: value
        for part in ("rope_scaling", "rope_parameters")  # transformers 4 and 5
        for name, value in schema.read(
            got[part] or {}, _ROTATIONS, where=f"{where}: {part}"
        ).items()
        if value is not None
    }
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
        "theta": float(turns.get("rope_theta") or got["rope_theta"] or 1e4),
        "eps": float(got["rms_norm_eps"]),
        "activation": got["hidden_act"],
        "tied": got["tie_word_embeddings"],
        "attention_bias": got["attention_bias"],
        "out_bias": got["attention_bias"],
        "mlp_bias": got["mlp_bias"],
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
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    def cache(self, batch: int, length: int) -> PyTree:
        """An empty one for up to ``length`` tokens."""
        return cached.empty(self.depth, batch, length, self.shared, self.head_width, self.dtype)

    @nn.compact
    def run(self, tokens: Array, cache: PyTree = None) -> tuple[Array, PyTree]:
        """Hidden states, and where there is a cache the keys and values of these tokens."""
        start = 0 if cache is None else cache["seen"]
        at = start + jnp.arange(tokens.shape[1])
        x = self.token_embedding[tokens].astype(self.dtype)
        x = x * jnp.asarray(self.embedding_scale, self.dtype)
        local = jnp.asarray(self.local[: self.depth]) if any(self.local[: self.depth]) else None
        far = Sight(turns(at, self.theta, self.head_width), None if local is None else _ALL)
        near = Sight(turns(at, self.local_theta or self.theta, self.head_width), self.window)
        attention = {
            "heads": self.heads,
            "shared": self.shared,
            "head_width": self.head_width,
            "bias": self.attention_bias,
            "out_bias": self.out_bias,
            "scale": self.attention_scale,
            "norms": self.head_norms,
            "eps": self.eps,
            "dtype": self.dtype,
        }
        options = {
            "attends": attention,
            "hidden": self.hidden,
            "activation": self.activation,
            "bias": self.mlp_bias,
            "post_norms": self.post_norms,
            "eps": self.eps,
            "dtype": self.dtype,
        }

        def call(layer: Block, x: Array, own: PyTree) -> tuple[Array, PyTree]:
            own_sight = far
            if own["local"] is not None:
                own_sight = jax.tree.map(lambda a, b: jnp.where(own["local"], b, a), far, near)
            return layer(x, own_sight, start, own["kept"])

        x, new = transformer.chain(
            x,
            Block,
            options,
            call,
            {"local": local, "kept": cached.kept(cache)},
            depth=self.depth,
            scan=self.scan,
            remat=self.remat,
        )
        return RMSNorm(self.eps, name="norm")(x), new


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Attributes:
        attends: fields of :class:`Attention`.
        hidden: width inside the MLP.
        activation: of its gate.
        bias: whether its maps have biases.
        post_norms: whether what is added is normalised.
        eps: of the norms.
        dtype: of the computation.
    """

    attends: Any
    hidden: int
    activation: str
    bias: bool
    post_norms: bool
    eps: float
    dtype: Any

    @nn.compact
    def __call__(
        self, x: Array, sight: Sight, start: int | Array, kept: PyTree
    ) -> tuple[Array, PyTree]:
        def norm(y: Array, name: str) -> Array:
            return RMSNorm(self.eps, name=name)(y).astype(self.dtype)

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
        norms: whether queries and keys are normalised.
        eps: of those norms.
        dtype: of the computation.
    """

    heads: int
    shared: int
    head_width: int
    bias: bool
    out_bias: bool
    scale: float | None
    norms: bool
    eps: float
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
            y = RMSNorm(self.eps, name=f"{name}_norm")(y) if self.norms else y
            return turned(y, sight.turns).astype(self.dtype)

        query = placed(heads(self.heads, "q"), "q")
        new = {"keys": placed(heads(self.shared, "k"), "k"), "values": heads(self.shared, "v")}
        seen = new if kept is None else cached.written(kept, new, start)
        y = attend(
            query,
            seen["keys"],
            seen["values"],
            causal=True,
            scale=self.scale,
            start=start,
            window=sight.window,
        )
        out = nn.Dense(x.shape[-1], use_bias=self.out_bias, dtype=self.dtype, name="out")
        return out(y.reshape(*x.shape[:2], -1)), None if kept is None else new


class RMSNorm(nn.Module):
    """``x / √(mean(x²) + eps) · scale`` over the last axis, in float32."""

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones_init(), (x.shape[-1],))
        x, scale = x.astype(jnp.float32), scale.reshape((1,) * (x.ndim - 1) + (-1,))
        return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps) * scale


def turns(at: Array, theta: float, width: int) -> Array:
    """Cosines and sines (2, S, width / 2) of the angles of positions (S,), in float32.

    >>> turns(jnp.arange(3), 1e4, 8).shape
    (2, 3, 4)
    """
    waves = theta ** (-jnp.arange(0, width, 2, dtype=jnp.float32) / width)
    angles = at[:, None] * waves[None]
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)])


def turned(x: Array, by: Array) -> Array:
    """Of (B, S, H, W) the pairs (i, i + W / 2), each turned by its angle, in float32."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = by[:, None, :, None]
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

"""GPT-2 (Radford et al. 2019): pre-norm blocks with biases, learned positions, a tied head."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from linearize.models import transformer
from linearize.models.hf import configs, schema, tables
from linearize.models.hf.table import KERNEL, SAME, Row, Table
from linearize.models.language import cached
from linearize.models.language.decoder import Causal
from linearize.types import Array, PyTree

_LAYER = "transformer.h.{i}"


def _conv(theirs: str, ours: str) -> tuple[Row, ...]:
    """Of transformers' ``Conv1D``, whose weights are ``(in, out)`` as ours."""
    return (
        (f"{theirs}.weight", f"{ours}/kernel", SAME),
        (f"{theirs}.bias", f"{ours}/bias", SAME),
    )


GPT2 = Table(
    "transformers' GPT-2",
    rows=(
        ("transformer.wte.weight", "token_embedding", SAME),
        ("transformer.wpe.weight", "positions", SAME),
        *tables.norm(f"{_LAYER}.ln_1", "block_{i}/norm_1"),
        *_conv(f"{_LAYER}.attn.c_attn", "block_{i}/attention/qkv"),
        *_conv(f"{_LAYER}.attn.c_proj", "block_{i}/attention/out"),
        *tables.norm(f"{_LAYER}.ln_2", "block_{i}/norm_2"),
        *_conv(f"{_LAYER}.mlp.c_fc", "block_{i}/mlp_in"),
        *_conv(f"{_LAYER}.mlp.c_proj", "block_{i}/mlp_out"),
        *tables.norm("transformer.ln_f", "norm"),
        ("lm_head.weight", "head/kernel", KERNEL),
    ),
    dropped=(r"transformer\.h\.\d+\.attn\.(masked_)?bias",),  # which keys may be seen
    aliases=((r"^(?=(wte|wpe|h|ln_f)\.)", "transformer."),),
)
REPEATED = {"lm_head.weight": "transformer.wte.weight"}

_KEYS = {
    "vocab_size": schema.size(50257, 2**24),
    "n_positions": schema.size(1024, 2**24),
    "n_embd": schema.size(768),
    "n_layer": schema.size(12, schema.DEEPEST),
    "n_head": schema.size(12, 4096),
    "n_inner": schema.size(None, 2**20),
    "activation_function": schema.choice(
        "gelu_new", sorted(transformer.ACTIVATIONS.keys() - {"swiglu"})
    ),
    "layer_norm_epsilon": schema.number(1e-5, 0, 1),
    "tie_word_embeddings": schema.flag(True),
    "scale_attn_weights": schema.only(True),
    "scale_attn_by_inverse_layer_idx": schema.only(False),
    "reorder_and_upcast_attn": schema.only(False),
    "add_cross_attention": schema.only(False),
}
_NO_INFLUENCE = configs.IGNORED | {
    *("n_ctx", "resid_pdrop", "embd_pdrop", "attn_pdrop", "summary_type", "summary_use_proj"),
    *("summary_activation", "summary_proj_to_labels", "summary_first_dropout"),
}


def configure(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of :class:`GPT2Decoder` of a configuration whose ``model_type`` is ``"gpt2"``.

    Raises:
        WeightsError: a value or a key that no module here computes with, by name.
    """
    got = schema.read(config, _KEYS, _NO_INFLUENCE, where=where)
    schema.heads(got["n_embd"], got["n_head"], where)
    return {
        "vocabulary": got["vocab_size"],
        "context": got["n_positions"],
        "depth": got["n_layer"],
        "width": got["n_embd"],
        "heads": got["n_head"],
        "hidden": got["n_inner"] or 4 * got["n_embd"],
        "eps": float(got["layer_norm_epsilon"]),
        "activation": got["activation_function"],
        "tied": got["tie_word_embeddings"],
    }


class GPT2Decoder(Causal):
    """``tokens (B, L) -> hidden states (B, L, D) float32``; ``logits`` of those (B, L, V) float32.

    Attributes:
        vocabulary: V.
        context: the largest L, of the table of positions.
        depth: number of blocks.
        width: D.
        heads: of the attention.
        hidden: width inside the blocks' MLP.
        eps: added to the variance in layer norms.
        activation: a key of :data:`linearize.models.transformer.ACTIVATIONS`.
        tied: whether the head is the embedding.
        dtype: of the computation; parameters stay in float32, and so does the final norm.
        scan: one scanned block with stacked parameters ``blocks/...`` instead of ``block_i/...``.
        remat: a key of :data:`linearize.models.transformer.REMAT`.
    """

    vocabulary: int
    context: int
    depth: int
    width: int
    heads: int
    hidden: int
    eps: float = 1e-5
    activation: str = "gelu_new"
    tied: bool = True
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    def setup(self) -> None:
        super().setup()
        self.positions = self.param(
            "positions", nn.initializers.normal(0.02), (self.context, self.width)
        )

    def cache(self, batch: int, length: int) -> PyTree:
        """An empty one for up to ``length`` tokens."""
        width = self.width // self.heads
        return cached.empty(
            self.depth, batch, length, self.heads, width, self.dtype, scan=self.scan
        )

    @nn.compact
    def run(self, tokens: Array, cache: PyTree = None) -> tuple[Array, PyTree]:
        """Hidden states, and where there is a cache the keys and values of these tokens."""
        x = self.embed(tokens)
        start = 0 if cache is None else cache["seen"]
        place = self.positions.at[start + jnp.arange(tokens.shape[1])].get(mode="fill")
        x = (x + place[None]).astype(self.dtype)
        options = {
            "heads": self.heads,
            "hidden": self.hidden,
            "activation": self.activation,
            "eps": self.eps,
            "dtype": self.dtype,
        }

        def call(layer: Block, x: Array, own: PyTree) -> tuple[Array, PyTree]:
            return layer(x, start, own)

        kept = cached.kept(cache)
        x, new = transformer.chain(
            x,
            Block,
            options,
            call,
            kept,
            depth=self.depth,
            scan=self.scan and not isinstance(kept, list),
            remat=self.remat,
        )
        return transformer.layer_norm(jnp.float32, self.eps, "norm")(x), new


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Attributes:
        heads: of the attention.
        hidden: width inside the MLP.
        activation: of the MLP.
        eps: of the norms.
        dtype: of the computation.
    """

    heads: int
    hidden: int
    activation: str
    eps: float
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, start: int | Array, kept: PyTree) -> tuple[Array, PyTree]:
        y = transformer.layer_norm(self.dtype, self.eps, "norm_1")(x)
        y, new = Attention(self.heads, self.dtype, name="attention")(y, start, kept)
        x = x + y
        y = transformer.layer_norm(self.dtype, self.eps, "norm_2")(x)
        y = nn.Dense(self.hidden, dtype=self.dtype, name="mlp_in")(y)
        y = transformer.ACTIVATIONS[self.activation](y)
        return x + nn.Dense(x.shape[-1], dtype=self.dtype, name="mlp_out")(y), new


class Attention(nn.Module):
    """Causal attention, ``(B, S, D) -> (B, S, D)``; query, key and value in one kernel."""

    heads: int
    dtype: Any

    @nn.compact
    def __call__(self, x: Array, start: int | Array, kept: PyTree) -> tuple[Array, PyTree]:
        width = x.shape[-1]
        qkv = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(x)
        qkv = qkv.reshape(*x.shape[:2], 3, self.heads, width // self.heads)
        new = {"keys": qkv[:, :, 1], "values": qkv[:, :, 2]}
        y = cached.attended(qkv[:, :, 0], kept, new, start)
        out = nn.Dense(width, dtype=self.dtype, name="out")
        return out(y.reshape(*x.shape[:2], -1)), None if kept is None else new

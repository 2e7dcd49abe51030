"""T5 and T5-v1.1: an encoder, and a decoder that reads it (Raffel et al. 2020, arXiv 1910.10683).

Blocks are pre-norm with root-mean-square norms and no bias; scores are not scaled and get a bias by
relative position from a table that the blocks of a stack share. v1.1 gates the MLP and has a head
of its own (Shazeer 2020, arXiv 2002.05202).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from linearize.models import transformer
from linearize.models.attention import attend
from linearize.models.hf import configs, schema
from linearize.models.hf.table import KERNEL, SAME, Row, Table
from linearize.models.language import cached, relative
from linearize.models.language.embedding import embedded
from linearize.models.language.head import Head, logits
from linearize.models.language.model import LanguageFamily
from linearize.types import Array, PyTree

_MLP = {"wi": "mlp_in", "wi_0": "mlp_gate", "wi_1": "mlp_value", "wo": "mlp_out"}


def _block(stack: str) -> tuple[Row, ...]:
    """Names of one stack's blocks."""
    parts = {"SelfAttention": ("attention", "norm_1")}
    if stack == "decoder":
        parts["EncDecAttention"] = ("cross_attention", "cross_norm")
    theirs, ours = f"{stack}.block.{{i}}.layer", f"{stack}/block_{{i}}"
    last = f"{theirs}.{len(parts)}"
    return (
        *(
            (f"{theirs}.{n}.{part}.{x}.weight", f"{ours}/{name}/{y}/kernel", KERNEL)
            for n, (part, (name, _)) in enumerate(parts.items())
            for x, y in {"q": "q", "k": "k", "v": "v", "o": "out"}.items()
        ),
        *(
            (f"{theirs}.{n}.layer_norm.weight", f"{ours}/{norm}/scale", SAME)
            for n, norm in enumerate([*(norm for _, norm in parts.values()), "norm_2"])
        ),
        *(
            (f"{last}.DenseReluDense.{x}.weight", f"{ours}/{y}/kernel", KERNEL)
            for x, y in _MLP.items()
        ),
        (
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            f"{stack}/relative_bias",
            SAME,
        ),
        (f"{stack}.final_layer_norm.weight", f"{stack}/norm/scale", SAME),
    )


TABLE = Table(
    "transformers' T5",
    rows=(
        ("shared.weight", "token_embedding", SAME),
        ("lm_head.weight", "head/kernel", KERNEL),
        *_block("encoder"),
        *_block("decoder"),
    ),
    dropped=(r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",),
    aliases=((r"^transformer\.", ""),),
)
REPEATED = dict.fromkeys(
    ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    "shared.weight",
)
"""What files may hold of a tied model besides, and the tensor whose values it has."""
OPTIONAL = {"own_head": "lm_head.weight"}
"""transformers 5 leaves out a head that is tied, whatever it calls it in the configuration."""

_PLAIN = sorted(transformer.ACTIVATIONS.keys() - {"swiglu"})
_KEYS = {
    "vocab_size": schema.size(32128, 2**24),
    "d_model": schema.size(512),
    "d_kv": schema.size(64),
    "d_ff": schema.size(2048, 2**20),
    "num_layers": schema.size(6, schema.DEEPEST),
    "num_decoder_layers": schema.size(None, schema.DEEPEST),
    "num_heads": schema.size(8, 4096),
    "relative_attention_num_buckets": schema.size(32),
    "relative_attention_max_distance": schema.size(128, 2**20),
    "layer_norm_epsilon": schema.number(1e-6, 0, 1),
    "feed_forward_proj": schema.choice("relu", [*_PLAIN, *(f"gated-{name}" for name in _PLAIN)]),
    "dense_act_fn": schema.choice(None, _PLAIN),
    "is_gated_act": schema.choice(None, [True, False]),
    "tie_word_embeddings": schema.flag(True),
    "scale_decoder_outputs": schema.choice(None, [True, False]),
    "decoder_start_token_id": schema.token(0),
    "eos_token_id": schema.token(1),
}
_NO_INFLUENCE = (configs.IGNORED - _KEYS.keys()) | {
    *("dropout_rate", "classifier_dropout", "n_positions", "output_past"),
}


def configure(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of :class:`T5` of a configuration whose ``model_type`` is ``"t5"``.

    transformers 5 calls every head tied, and says apart whether its input is scaled; versions
    before say the first, and mean the second by it.

    Raises:
        WeightsError: a value or a key that no module here computes with, by name.
    """
    got = schema.read(config, _KEYS, _NO_INFLUENCE, where=where)
    buckets, farthest = (
        got[f"relative_attention_{name}"] for name in ("num_buckets", "max_distance")
    )
    if not 4 <= buckets < 2 * farthest:
        schema.refuse(
            where, "relative_attention_num_buckets", buckets, f"expected 4 to {2 * farthest - 1}"
        )
    told, tied = got["scale_decoder_outputs"], got["tie_word_embeddings"]
    scaled = tied if told is None else told
    kind = got["feed_forward_proj"]
    activation = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
    gated = got["is_gated_act"]
    return {
        "vocabulary": got["vocab_size"],
        "depth": got["num_layers"],
        "decoder_depth": got["num_decoder_layers"] or got["num_layers"],
        "width": got["d_model"],
        "heads": got["num_heads"],
        "head_width": got["d_kv"],
        "hidden": got["d_ff"],
        # what transformers makes of feed_forward_proj, unless the file says it too
        "activation": got["dense_act_fn"] or activation,
        "gated": kind.startswith("gated-") if gated is None else gated,
        "tied": tied and scaled,
        "scaled": scaled,
        "buckets": buckets,
        "farthest": farthest,
        "eps": float(got["layer_norm_epsilon"]),
        "start": got["decoder_start_token_id"],
        "end": got["eos_token_id"],
    }


Cache = dict[str, Array]
"""Of each block keys and values (B, H, T, d) of the answer so far and of the text
(:mod:`linearize.models.language.cached`), the text's ``mask``, and how many tokens of the answer
were ``seen``."""
_TEXT = ("text_keys", "text_values")
_WHERE = "decoder/"


class T5(nn.Module):
    """``tokens (B, L), mask (B, L), answer (B, A) -> hidden states (B, A, D) float32``.

    ``answer`` is what the decoder reads: the start token, then the answer without its last token
    (:func:`linearize.data.text.answers`). The hidden states are those after each of its tokens.

    Attributes:
        vocabulary: V, number of tokens.
        depth: number of blocks of the encoder.
        decoder_depth: number of blocks of the decoder.
        width: D, of a token.
        heads: H, of the attention.
        head_width: d, of a head; H d need not be D.
        hidden: width inside the blocks' MLP.
        activation: a key of :data:`linearize.models.transformer.ACTIVATIONS`.
        gated: whether the MLP's activation multiplies a second linear map, as in v1.1.
        tied: whether the head is the token embedding.
        own_head: whether the weights hold a head; without one it is tied.
        scaled: whether the head's input is multiplied by D^-1/2, as in T5 and not in v1.1.
        buckets: of relative positions.
        farthest: distances from here on share a bucket.
        eps: added to the mean square in norms.
        start: the token that every answer begins with.
        end: the token that a text ends with.
        dtype: of the computation; parameters, last norms and what is given are in float32.
        scan: one scanned block ``encoder/blocks/...`` in place of ``encoder/block_i/...``, and
            likewise of the decoder.
        remat: a key of :data:`linearize.models.transformer.REMAT`.
    """

    vocabulary: int = 32128
    depth: int = 6
    decoder_depth: int = 6
    width: int = 512
    heads: int = 8
    head_width: int = 64
    hidden: int = 2048
    activation: str = "relu"
    gated: bool = False
    tied: bool = True
    own_head: bool = True
    scaled: bool = True
    buckets: int = 32
    farthest: int = 128
    eps: float = 1e-6
    start: int = 0
    end: int = 1
    dtype: Any = jnp.float32
    scan: bool = False
    remat: str = "none"

    context = None
    """Positions are relative: there is no largest L."""

    def setup(self) -> None:
        shape = (self.vocabulary, self.width)
        self.token_embedding = self.param("token_embedding", nn.initializers.normal(1.0), shape)
        self.shared_head = self.tied or not self.own_head
        if not self.shared_head:
            self.head = Head(self.vocabulary, self.dtype)
        shared = {
            name: getattr(self, name)
            for name in ("heads", "head_width", "hidden", "activation", "gated", "dtype")
        }
        shared |= {"farthest": self.farthest, "eps": self.eps}
        same: dict[str, Any] = {"buckets": self.buckets, "scan": self.scan, "remat": self.remat}
        self.encoder = Stack({**shared, "crossed": False}, self.depth, **same)
        self.decoder = Stack({**shared, "crossed": True}, self.decoder_depth, **same)

    def __call__(self, tokens: Array, mask: Array, answer: Array) -> Array:
        """Hidden states after each token of the answer.

        Raises:
            ValueError: shapes or dtypes of no tokens.
        """
        encoded = self.encoded(tokens, mask)
        check_tokens(answer, "answer", len(tokens))
        x, _ = self.decoder(
            self._embedded(answer),
            lambda layer, x, table, _: (layer(x, table, mask, encoded)[0], None),
        )
        if self.is_initializing():
            self.logits(x)
        return x

    def encoded(self, tokens: Array, mask: Array) -> Array:
        """Hidden states of the text, (B, L, D) float32.

        Raises:
            ValueError: shapes or dtypes of no tokens.
        """
        check_tokens(tokens, "tokens")
        if mask.shape != tokens.shape or mask.dtype != bool:
            raise ValueError(
                f"mask has shape {mask.shape} and dtype {mask.dtype}; expected booleans "
                f"{tokens.shape}, true where a token is no padding"
            )
        x, _ = self.encoder(
            self._embedded(tokens, mask),
            lambda layer, x, table, _: (layer(x, table, mask)[0], None),
        )
        return x

    def logits(self, hidden: Array, words: Array | None = None) -> Array:
        """Logits (..., V) float32 of hidden states (..., D); of ``words`` (C,) alone, (..., C)."""
        x = hidden * self.width**-0.5 if self.scaled else hidden
        if self.shared_head:
            return logits(x, self.token_embedding, words, self.dtype)
        return self.head(x, words)

    def encode(self, tokens: Array, mask: Array, length: int) -> Cache:
        """A cache of the text, with room for ``length`` tokens of an answer."""
        encoded = self.encoded(tokens, mask)
        _, read = self.decoder(encoded, lambda layer, x, table, _: (x, layer.read(x)))
        size = (self.decoder_depth, len(tokens), length, self.heads, self.head_width)
        room = cached.empty(*size, self.dtype, scan=self.scan, where=_WHERE)
        return {**room, **cached.named(read, _WHERE), "mask": mask}

    def step(self, tokens: Array, cache: Cache) -> tuple[Array, Cache]:
        """Hidden states (B, S, D) after the next tokens (B, S) of the answer, and the cache."""
        x, new = self.decoder(
            self._embedded(tokens),
            lambda layer, x, table, own: layer(
                x, table, cache["mask"], kept=own, start=cache["seen"]
            ),
            cached.kept(cache, (*cached.OWN, *_TEXT), _WHERE),
        )
        return x, cached.grown(cache, new, x, _WHERE)

    def _embedded(self, tokens: Array, mask: Array | None = None) -> Array:
        return embedded(self.token_embedding, tokens, mask).astype(self.dtype)


class Stack(nn.Module):
    """The encoder's or the decoder's blocks, their table of relative positions, and the last norm.

    ``call(layer, x, table, each_i) -> (x, out_i)`` says how a block is called.
    """

    options: Mapping[str, Any]
    depth: int
    buckets: int
    scan: bool
    remat: str

    @nn.compact
    def __call__(
        self, x: Array, call: Callable[..., tuple[Array, PyTree]], each: PyTree = None
    ) -> tuple[Array, PyTree]:
        small = nn.initializers.normal(x.shape[-1] ** -0.5)
        table = self.param("relative_bias", small, (self.buckets, self.options["heads"]))
        x, out = transformer.chain(
            x,
            Block,
            self.options,
            lambda layer, x, own: call(layer, x, table, own),
            each,
            depth=self.depth,
            scan=self.scan and not isinstance(each, list),
            remat=self.remat,
        )
        return rms_norm(jnp.float32, self.options["eps"], "norm")(x), out


class Block(nn.Module):
    """Attention, where ``crossed`` attention to the text, and an MLP, each of a norm and added.

    Attributes:
        heads, head_width, hidden, activation, gated, farthest, eps: as of :class:`T5`.
        crossed: whether it is a decoder's: it sees no later token, and reads the text.
        dtype: of the computation; parameters stay in float32.
    """

    heads: int
    head_width: int
    hidden: int
    activation: str
    gated: bool
    crossed: bool
    farthest: int
    eps: float
    dtype: Any

    def setup(self) -> None:
        attention = (self.heads, self.head_width, self.dtype)
        self.norm_1 = rms_norm(self.dtype, self.eps)
        self.attention = Attention(*attention)
        if self.crossed:
            self.cross_norm = rms_norm(self.dtype, self.eps)
            self.cross_attention = Attention(*attention)
        self.norm_2 = rms_norm(self.dtype, self.eps)
        if self.gated:
            self.mlp_gate = linear(self.hidden, self.dtype)
            self.mlp_value = linear(self.hidden, self.dtype)
        else:
            self.mlp_in = linear(self.hidden, self.dtype)

    @nn.compact
    def __call__(
        self,
        x: Array,
        table: Array,
        seen: Array,
        encoded: Array | None = None,
        kept: Cache | None = None,
        start: int | Array = 0,
    ) -> tuple[Array, Cache]:
        """The next x, (B, T, D), and the keys and values (B, T, H, d) of its tokens.

        Args:
            x: (B, T, D).
            table: (buckets, H), of relative positions.
            seen: (B, L) booleans, which tokens of the text are no padding.
            encoded: (B, L, D), the text, of a decoder's block.
            kept: in its place, keys and values of the text and of the answer so far.
            start: the position of x in the answer, where they are kept.
        """
        y = self.norm_1(x)
        new = dict(zip(cached.OWN, self.attention.read(y), strict=True))
        bias = relative.bias(table, self.farthest, directed=self.crossed)
        if self.crossed:
            attends = partial(cached.attended, kept=kept, new=new, start=start, bias=bias)
        else:
            attends = partial(attend, key=new["keys"], value=new["values"], mask=seen, bias=bias)
        x = x + self.attention(y, attends)
        if self.crossed:
            text = kept
            if text is None:
                assert encoded is not None
                text = self.read(encoded)
            y = self.cross_norm(x)
            key, value = (text[name].swapaxes(1, 2) for name in _TEXT)
            x = x + self.cross_attention(y, partial(attend, key=key, value=value, mask=seen))
        y = self.norm_2(x)
        inner = self.mlp_gate(y) if self.gated else self.mlp_in(y)
        inner = transformer.ACTIVATIONS[self.activation](inner)
        inner = inner * self.mlp_value(y) if self.gated else inner
        x = x + linear(x.shape[-1], self.dtype, "mlp_out")(inner)
        return x, new

    def read(self, encoded: Array) -> Cache:
        """Keys and values (B, H, L, d) of the text."""
        own = self.cross_attention.read(encoded.astype(self.dtype))
        return {name: x.swapaxes(1, 2) for name, x in zip(_TEXT, own, strict=True)}


class Attention(nn.Module):
    """Attention ``attends`` of tokens (B, Q, D) to keys and values that :meth:`read` makes."""

    heads: int
    head_width: int
    dtype: Any

    def setup(self) -> None:
        whole = self.heads * self.head_width
        # 1 / √d as large as the others, since scores are not scaled
        small = nn.initializers.variance_scaling(1 / self.head_width, "fan_in", "truncated_normal")
        self.q = nn.Dense(whole, use_bias=False, dtype=self.dtype, kernel_init=small)
        self.k, self.v = linear(whole, self.dtype), linear(whole, self.dtype)

    def read(self, x: Array) -> tuple[Array, Array]:
        """Keys and values of tokens (B, K, D)."""
        key, value = self.k(x), self.v(x)
        shape = (*x.shape[:2], self.heads, self.head_width)
        return key.reshape(shape), value.reshape(shape)

    @nn.compact
    def __call__(self, x: Array, attends: Callable[..., Array]) -> Array:
        query = self.q(x).reshape(*x.shape[:2], self.heads, self.head_width)
        y = attends(query, scale=1.0)
        return linear(x.shape[-1], self.dtype, "out")(y.reshape(*x.shape[:2], -1))


def rms_norm(dtype: Any, eps: float, name: str | None = None) -> nn.RMSNorm:
    """A norm by the root mean square, in float32, and a scale."""
    return nn.RMSNorm(epsilon=eps, dtype=dtype, name=name)


def linear(width: int, dtype: Any, name: str | None = None) -> nn.Dense:
    """A linear map without a bias."""
    return nn.Dense(width, use_bias=False, dtype=dtype, name=name)


def check_tokens(tokens: Array, what: str, batch: int | None = None) -> None:
    """Tokens are integers (B, L).

    Raises:
        ValueError: they are not, there is none, or not one row an example.
    """
    if tokens.ndim != 2 or not tokens.shape[1] or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(
            f"{what} has shape {tokens.shape} and dtype {tokens.dtype}; expected (B, L) integers: "
            "tokens of texts, padded to one length"
        )
    if batch not in (None, len(tokens)):
        raise ValueError(f"{what} has {len(tokens)} rows, for {batch} texts; expected one each")


def _family(config: dict[str, Any], hub: str) -> LanguageFamily:
    return LanguageFamily(
        T5,
        configure,
        (TABLE,),
        "t5",
        config=config,
        repeated=REPEATED,
        optional=OPTIONAL,
        deep="num_layers",
        also={"decoder_depth": "num_decoder_layers"},
        inputs="tokens mask answer",
        builds="T5ForConditionalGeneration",
        hub=hub,
    )


def _size(width: int, hidden: int, depth: int, heads: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 32128,
        "d_model": width,
        "d_kv": 64,
        "d_ff": hidden,
        "num_layers": depth,
        "num_decoder_layers": depth,
        "num_heads": heads,
        **more,
    }


_V1_1: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}

FAMILIES: dict[str, LanguageFamily] = {
    "t5_small": _family(_size(512, 2048, 6, 8), "google-t5/t5-small"),
    "t5_base": _family(_size(768, 3072, 12, 12), "google-t5/t5-base"),
    "t5_large": _family(_size(1024, 4096, 24, 16), "google-t5/t5-large"),
    "t5_v1_1_small": _family(_size(512, 1024, 8, 6, **_V1_1), "google/t5-v1_1-small"),
    "t5_v1_1_base": _family(_size(768, 2048, 12, 12, **_V1_1), "google/t5-v1_1-base"),
    "t5_v1_1_large": _family(_size(1024, 2816, 24, 16, **_V1_1), "google/t5-v1_1-large"),
    "t5": _family({}, "google-t5/t5-base"),
    "toy_t5": _family(_size(16, 32, 2, 2, vocab_size=64, d_kv=8), ""),
}
"""The last is for tests and rehearsals, at random weights."""

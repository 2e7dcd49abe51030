"""Gemma (Mesnard et al. 2024, arXiv 2403.08295), Gemma 2 (arXiv 2408.00118) and the text models of
Gemma 3 (arXiv 2503.19786): Llama's kind of decoder, with fields of their own.

The embedding is scaled by √D, and the norms' scales are what they differ from 1 by. Gemma 2 has
norms behind attention and MLP too, caps scores and logits, and every other block sees a window
only; Gemma 3 normalises queries and keys, and five of six blocks see a window, with shorter waves.
"""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any

from linearize.models.hf import configs, schema
from linearize.models.hf.schema import Key
from linearize.models.hf.table import Table
from linearize.models.language import llama, rotary
from linearize.models.language.model import LanguageFamily

_NORMS = {
    "input_layernorm": "norm_1",
    "post_attention_layernorm": "post_norm_1",
    "pre_feedforward_layernorm": "norm_2",
    "post_feedforward_layernorm": "post_norm_2",
}
_HEAD_NORMS = {f"self_attn.{x}_norm": f"attention/{x}_norm" for x in "qk"}
GEMMA = dataclasses.replace(llama.LLAMA, name="transformers' Gemma")
GEMMA2 = llama.table("transformers' Gemma 2", _NORMS)
GEMMA3 = llama.table("transformers' Gemma 3", _NORMS | _HEAD_NORMS)

_TANH = "gelu_pytorch_tanh"
_NEAR, _FAR = "sliding_attention", "full_attention"
_LAYERS = Key(
    None,
    lambda v: isinstance(v, list | tuple) and all(x in (_NEAR, _FAR) for x in v),
    f"expected a list of {_NEAR!r} and {_FAR!r}, one a block",
)


def _cap(default: float | None) -> Key:
    one = schema.number(default, 1e-3, 1e6)
    return Key(default, lambda v: v is None or one.holds(v), f"{one.expected}, or null for none")


_GEMMA = {
    "vocab_size": schema.size(256000, 2**24),
    "max_position_embeddings": schema.size(8192, 2**24),
    "hidden_size": schema.size(3072),
    "intermediate_size": schema.size(24576, 2**20),
    "num_hidden_layers": schema.size(28, schema.DEEPEST),
    "num_attention_heads": schema.size(16, 4096),
    "num_key_value_heads": schema.size(16, 4096),
    "head_dim": schema.size(256),
    # early files say "gelu" and mean its approximation, which transformers takes
    "hidden_act": schema.choice(_TANH, configs.ACTIVATIONS),
    "hidden_activation": schema.choice(None, (_TANH,)),
    "rms_norm_eps": schema.number(1e-6, 0, 1),
    "tie_word_embeddings": schema.flag(True),
    "attention_bias": schema.flag(False),
    "use_bidirectional_attention": schema.only(None, False),
    **rotary.KEYS,
}
_WINDOWED = {
    **{name: key for name, key in _GEMMA.items() if name != "hidden_act"},
    "hidden_size": schema.size(2304),
    "intermediate_size": schema.size(9216, 2**20),
    "num_hidden_layers": schema.size(26, schema.DEEPEST),
    "num_attention_heads": schema.size(8, 4096),
    "num_key_value_heads": schema.size(4, 4096),
    "hidden_activation": schema.choice(_TANH, configs.ACTIVATIONS),
    "query_pre_attn_scalar": schema.number(256, 1e-3, 2**24),
    "sliding_window": schema.size(4096, 2**24),
    "layer_types": _LAYERS,
}
_GEMMA2 = {
    **_WINDOWED,
    "attn_logit_softcapping": _cap(50.0),
    "final_logit_softcapping": _cap(30.0),
}
_GEMMA3 = {
    **_WINDOWED,
    "vocab_size": schema.size(262208, 2**24),
    "max_position_embeddings": schema.size(131072, 2**24),
    "attn_logit_softcapping": schema.only(None),  # transformers passes over it
    "final_logit_softcapping": _cap(None),
    "sliding_window_pattern": schema.size(6, schema.DEEPEST),
    "rope_local_base_freq": schema.number(1e4, 1, 1e12),
}
_NO_INFLUENCE = configs.IGNORED | {"cache_implementation"}
_OF_WINDOWS = _NO_INFLUENCE | {"hidden_act", "_sliding_window_pattern"}


def _fields(got: Mapping[str, Any], activation: str, where: str) -> dict[str, Any]:
    """Those that all three have."""
    return {
        **llama.common(got, where),
        "activation": activation,
        "embedding_scale": got["hidden_size"] ** 0.5,
        "norm_offset": 1.0,
    }


def gemma(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of :class:`linearize.models.language.llama.Decoder` of a ``"gemma"``.

    Raises:
        WeightsError: a value or a key that no module here computes with, by name.
    """
    got = schema.read(config, _GEMMA, _NO_INFLUENCE, where=where)
    activation = _TANH if got["hidden_act"] == "gelu" else got["hidden_act"]
    return {**_fields(got, activation, where), **rotary.configure(got, where)}


def _windows(got: Mapping[str, Any], every: int, where: str) -> dict[str, Any]:
    """Fields of norms behind and of windows; ``every`` so many blocks one sees everything."""
    depth, layers = got["num_hidden_layers"], got["layer_types"]
    if layers is not None and len(layers) != depth:
        schema.refuse(where, "layer_types", layers, f"expected {depth}, num_hidden_layers")
    kinds = layers or [_NEAR if (i + 1) % every else _FAR for i in range(depth)]
    return {
        **_fields(got, got["hidden_activation"], where),
        "attention_scale": float(got["query_pre_attn_scalar"]) ** -0.5,
        "post_norms": True,
        "window": got["sliding_window"],
        "local": tuple(kind == _NEAR for kind in kinds),
        "logit_cap": got["final_logit_softcapping"],
    }


def gemma2(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Likewise of a ``"gemma2"``.

    Raises:
        WeightsError: likewise.
    """
    got = schema.read(config, _GEMMA2, _OF_WINDOWS, where=where)
    return {
        **_windows(got, 2, where),
        **rotary.configure(got, where),
        "attention_cap": got["attn_logit_softcapping"],
    }


def gemma3(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Likewise of a ``"gemma3_text"``.

    Raises:
        WeightsError: likewise.
    """
    got = schema.read(config, _GEMMA3, _OF_WINDOWS, where=where)
    parts = dict.fromkeys((_FAR, _NEAR), schema.part())
    told = schema.read(got["rope_parameters"] or {}, parts, where=f"{where}: rope_parameters")
    # what transformers 4 said is of the blocks that see everything, and has no word but rope_type
    whole = {"rope_type": "default", **(told[_FAR] or {}), **(got["rope_scaling"] or {})}
    theta, stretch = rotary.read(whole, got["max_position_embeddings"], f"{where}: {_FAR}")
    local, other = rotary.read(
        told[_NEAR] or {}, got["max_position_embeddings"], f"{where}: {_NEAR}"
    )
    if other is not None:
        schema.refuse(where, _NEAR, told[_NEAR], "only a rope_type of 'default' is supported")
    return {
        **_windows(got, got["sliding_window_pattern"], where),
        "head_norms": True,
        "theta": float(theta or got["rope_theta"] or 1e6),
        "stretch": stretch,
        "local_theta": float(local or got["rope_local_base_freq"]),
    }


def _row(configure: Any, names: Table, kind: str, **more: Any) -> LanguageFamily:
    return LanguageFamily(llama.Decoder, configure, (names,), kind, repeated=llama.REPEATED, **more)


_GEMMA3_ROW = partial(
    _row, gemma3, GEMMA3, "gemma3_text", each="layer_types", builds="Gemma3ForCausalLM"
)
_270M: dict[str, Any] = {
    "vocab_size": 262144,
    "max_position_embeddings": 32768,
    "hidden_size": 640,
    "intermediate_size": 2048,
    "num_hidden_layers": 18,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "sliding_window": 512,
}

FAMILIES: dict[str, LanguageFamily] = {
    "gemma": _row(gemma, GEMMA, "gemma", builds="GemmaForCausalLM", hub="google/gemma-2b"),
    "gemma2": _row(
        gemma2,
        GEMMA2,
        "gemma2",
        each="layer_types",
        builds="Gemma2ForCausalLM",
        hub="google/gemma-2-2b",
    ),
    "gemma3": _GEMMA3_ROW(hub="google/gemma-3-1b-pt"),
    "gemma3_270m": _GEMMA3_ROW(config=_270M, hub="google/gemma-3-270m"),
}
"""Rows of the table of language models."""

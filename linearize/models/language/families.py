"""The table of language models: what is built under which name, and whose weights it reads."""

from typing import Any

from linearize import choices
from linearize.models.language import llama
from linearize.models.language.model import LanguageFamily


def _llama(config: dict[str, Any], hub: str, packaged: str = "") -> LanguageFamily:
    return LanguageFamily(
        llama.Decoder,
        llama.configure,
        (llama.LLAMA,),
        "llama",
        config=config,
        repeated=llama.REPEATED,
        builds="LlamaForCausalLM",
        hub=hub,
        packaged=packaged,
    )


def _smollm2(width: int, hidden: int, depth: int, heads: int, shared: int) -> dict[str, Any]:
    return {
        "vocab_size": 49152,
        "max_position_embeddings": 8192,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e5 if width < 2048 else 1.3e5,
        "tie_word_embeddings": True,
    }


_SMOLLM2 = "HuggingFaceTB/SmolLM2-"

LANGUAGE: dict[str, LanguageFamily] = {
    "smollm2_135m": _llama(
        _smollm2(576, 1536, 30, 9, 3), f"{_SMOLLM2}135M-Instruct", "smollm2_135m"
    ),
    "smollm2_360m": _llama(_smollm2(960, 2560, 32, 15, 5), f"{_SMOLLM2}360M-Instruct"),
    "smollm2_1.7b": _llama(_smollm2(2048, 8192, 24, 32, 32), f"{_SMOLLM2}1.7B-Instruct"),
    "llama": _llama({}, f"{_SMOLLM2}135M"),
    "toy_decoder": _llama(
        {
            "vocab_size": 64,
            "max_position_embeddings": 64,
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "tie_word_embeddings": True,
        },
        "",
    ),
}
"""For ``smollm2_135m`` there are packaged weights. The others read weights of others, and a name
that is a kind's (``llama``) takes the architecture from the configuration beside them."""


def row(name: str) -> LanguageFamily:
    """The row of that name.

    Raises:
        ValueError: there is none; the message has a near one.
    """
    return choices.row("language model", name, LANGUAGE)

"""The table of language models: what is built under which name, and whose weights it reads."""

from typing import Any

from linearize import choices
from linearize.models.language import bert, gemma, gpt2, llama, mpnet, t5
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


def _gpt2(config: dict[str, Any], hub: str) -> LanguageFamily:
    return LanguageFamily(
        gpt2.GPT2Decoder,
        gpt2.configure,
        (gpt2.GPT2,),
        "gpt2",
        config=config,
        repeated=gpt2.REPEATED,
        deep="n_layer",
        builds="GPT2LMHeadModel",
        hub=hub,
    )


def _gpt2_size(width: int, depth: int, heads: int) -> dict[str, Any]:
    return {
        "vocab_size": 50257,
        "n_positions": 1024,
        "n_embd": width,
        "n_layer": depth,
        "n_head": heads,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
    }


_SMOLLM2 = "HuggingFaceTB/SmolLM2-"


LANGUAGE: dict[str, LanguageFamily] = {
    "smollm2_135m": _llama(
        _smollm2(576, 1536, 30, 9, 3), f"{_SMOLLM2}135M-Instruct", "smollm2_135m"
    ),
    "smollm2_360m": _llama(_smollm2(960, 2560, 32, 15, 5), f"{_SMOLLM2}360M-Instruct"),
    "smollm2_1.7b": _llama(_smollm2(2048, 8192, 24, 32, 32), f"{_SMOLLM2}1.7B-Instruct"),
    "llama": _llama({}, f"{_SMOLLM2}135M"),
    "gpt2_small": _gpt2(_gpt2_size(768, 12, 12), "openai-community/gpt2"),
    "gpt2_medium": _gpt2(_gpt2_size(1024, 24, 16), "openai-community/gpt2-medium"),
    "gpt2_large": _gpt2(_gpt2_size(1280, 36, 20), "openai-community/gpt2-large"),
    "gpt2_xl": _gpt2(_gpt2_size(1600, 48, 25), "openai-community/gpt2-xl"),
    "gpt2": _gpt2({}, "openai-community/gpt2"),
    **gemma.FAMILIES,
    **bert.FAMILIES,
    **mpnet.FAMILIES,
    **t5.FAMILIES,
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
"""For ``smollm2_135m``, ``minilm_l6`` and ``mpnet_base`` there are packaged weights. The others
read weights of others, and a name that is a kind's (``llama``, ``gemma2``, ``t5``) takes the
architecture from the configuration beside them."""


def row(name: str) -> LanguageFamily:
    """The row of that name.

    Raises:
        ValueError: there is none; the message has a near one.
    """
    return choices.row("language model", name, LANGUAGE)

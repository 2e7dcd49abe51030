"""BERT (Devlin et al. 2019, arXiv 1810.04805) and RoBERTa (Liu et al. 2019, arXiv 1907.11692).

Fields of :class:`linearize.models.language.encoder.Encoder`, what transformers says of them, and
their tensors' names.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from linearize.models.hf import configs, schema
from linearize.models.hf.schema import Key
from linearize.models.hf.table import SAME, Row, Table
from linearize.models.hf.tables import linear, norm
from linearize.models.language.encoder import Encoder
from linearize.models.language.model import LanguageFamily

COMMON: dict[str, Key] = {
    "vocab_size": schema.size(30522, 2**24),
    "hidden_size": schema.size(768),
    "num_hidden_layers": schema.size(12, schema.DEEPEST),
    "num_attention_heads": schema.size(12, 4096),
    "intermediate_size": schema.size(3072),
    "hidden_act": schema.choice("gelu", configs.ACTIVATIONS),
    "layer_norm_eps": schema.number(1e-12, 0, 1),
    "max_position_embeddings": schema.size(512),
    "tie_word_embeddings": schema.only(True),
    "is_decoder": schema.only(False),
    "architectures": Key(None, lambda v: isinstance(v, list), "expected a list"),
}
"""What transformers' configurations of these encoders share, with its defaults."""

_KEYS = COMMON | {
    "type_vocab_size": schema.size(2, 4096),
    "position_embedding_type": schema.only("absolute"),
}
BERT_KEYS = _KEYS | {"pad_token_id": schema.token(0)}
ROBERTA_KEYS = _KEYS | {"vocab_size": schema.size(50265, 2**24), "pad_token_id": schema.token(1)}
IGNORED = configs.IGNORED | {"classifier_dropout", "model_max_length"}

_HEADED = ("ForMaskedLM", "ForPreTraining", "WithLMHeadModel")


def read(
    config: Mapping[str, Any], keys: Mapping[str, Key], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values of a configuration, and the fields that all these encoders take from them.

    There is a head unless the configuration names classes that have none, and a pooler only where
    it is asked for.

    Raises:
        WeightsError: a value that is not admitted, or a key that is not understood.
    """
    got = schema.read(config, {**keys, **configs.PRUNED}, IGNORED, where=where)
    classes = got["architectures"] or ["ForMaskedLM"]
    width = got["hidden_size"]
    return got, {
        "vocabulary": got["vocab_size"],
        "positions": got["max_position_embeddings"],
        "depth": got["num_hidden_layers"],
        "width": width,
        "heads": schema.heads(width, got["num_attention_heads"], where),
        "hidden": got["intermediate_size"],
        "activation": got["hidden_act"],
        "eps": float(got["layer_norm_eps"]),
        "headed": any(str(name).endswith(_HEADED) for name in classes),
    }


def bert(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of the encoder that a ``config.json`` of BERT describes.

    Raises:
        WeightsError: it says what the encoder does not do.
    """
    got, fields = read(config, BERT_KEYS, where)
    return fields | {"types": got["type_vocab_size"], "head_activation": got["hidden_act"]}


def roberta(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Likewise of RoBERTa's, whose positions begin after its pad token's number.

    Raises:
        WeightsError: it says what the encoder does not do, or has no position for a token.
    """
    got, fields = read(config, ROBERTA_KEYS, where)
    pad = got["pad_token_id"]
    if got["max_position_embeddings"] <= pad + 1:
        schema.refuse(where, "max_position_embeddings", fields["positions"], f"over {pad}")
    return fields | {"types": got["type_vocab_size"], "pad": pad}


def table(
    name: str,
    prefix: str,
    attention: tuple[Row, ...],
    head: tuple[Row, ...],
    *more: Row,
    dropped: tuple[str, ...] = (),
) -> Table:
    """The names of one of these encoders, whose files differ in attention and head."""
    layer = f"{prefix}.encoder.layer.{{i}}"
    return Table(
        name,
        rows=(
            (f"{prefix}.embeddings.word_embeddings.weight", "token_embedding", SAME),
            (f"{prefix}.embeddings.position_embeddings.weight", "position_embedding", SAME),
            *more,
            *norm(f"{prefix}.embeddings.LayerNorm", "embedding_norm"),
            *attention,
            *linear(f"{layer}.intermediate.dense", "block_{i}/mlp_in"),
            *linear(f"{layer}.output.dense", "block_{i}/mlp_out"),
            *norm(f"{layer}.output.LayerNorm", "block_{i}/norm_2"),
            *linear(f"{prefix}.pooler.dense", "pooler"),
            *head,
        ),
        dropped=(rf"{prefix}\.embeddings\.position_ids", r"classifier\..*", *dropped),
        aliases=(
            (r"^(?=(embeddings|encoder|pooler)\.)", f"{prefix}."),
            (r"LayerNorm\.gamma$", "LayerNorm.weight"),
            (r"LayerNorm\.beta$", "LayerNorm.bias"),
        ),
    )


def lm_head(dense: str, norm_: str, bias: str) -> tuple[Row, ...]:
    """Rows of a masked language model's head, whose decoder is the token embedding."""
    return (*linear(dense, "head_transform"), *norm(norm_, "head_norm"), (bias, "head_bias", SAME))


def _attention(prefix: str) -> tuple[Row, ...]:
    layer = f"{prefix}.encoder.layer.{{i}}.attention"
    return (
        *linear(f"{layer}.self.query", "block_{i}/attention/q"),
        *linear(f"{layer}.self.key", "block_{i}/attention/k"),
        *linear(f"{layer}.self.value", "block_{i}/attention/v"),
        *linear(f"{layer}.output.dense", "block_{i}/attention/out"),
        *norm(f"{layer}.output.LayerNorm", "block_{i}/norm_1"),
    )


def _types(prefix: str) -> Row:
    return f"{prefix}.embeddings.token_type_embeddings.weight", "type_embedding", SAME


BERT = table(
    "Hugging Face's BERT",
    "bert",
    _attention("bert"),
    lm_head(
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.predictions.bias",
    ),
    _types("bert"),
    dropped=(r"cls\.seq_relationship\..*",),
)
ROBERTA = table(
    "Hugging Face's RoBERTa",
    "roberta",
    _attention("roberta"),
    lm_head("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    _types("roberta"),
)

_LARGE: dict[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
_ROBERTA: dict[str, Any] = {
    "architectures": ["RobertaForMaskedLM"],
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "layer_norm_eps": 1e-5,
}
_MINILM: dict[str, Any] = {
    "architectures": ["BertModel"],
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "intermediate_size": 1536,
}
_BERT_TIED = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}


_TOY: dict[str, Any] = {
    "architectures": ["BertForMaskedLM"],
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}
"""Of random weights, for runs that take seconds."""


def tied(prefix: str) -> dict[str, str]:
    """What files of RoBERTa's layout may hold once more."""
    return {
        "lm_head.decoder.weight": f"{prefix}.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    }


def parts(prefix: str) -> dict[str, str]:
    """What such files may hold or not."""
    return {"headed": "lm_head.bias", "pooler": f"{prefix}.pooler.dense.weight"}


_BERT = partial(
    LanguageFamily,
    Encoder,
    bert,
    (BERT,),
    "bert",
    inputs="tokens mask",
    repeated=_BERT_TIED,
    optional={"headed": "cls.predictions.bias", "pooler": "bert.pooler.dense.weight"},
    builds="BertForMaskedLM",
    bare="BertModel",
)
_OF_ROBERTA = partial(
    LanguageFamily,
    Encoder,
    roberta,
    (ROBERTA,),
    "roberta",
    inputs="tokens mask",
    repeated=tied("roberta"),
    optional=parts("roberta"),
    builds="RobertaForMaskedLM",
    bare="RobertaModel",
)

FAMILIES: dict[str, LanguageFamily] = {
    "bert": _BERT(),
    "bert_base": _BERT(
        config={"architectures": ["BertForMaskedLM"]}, hub="google-bert/bert-base-uncased"
    ),
    "minilm_l6": _BERT(
        config=_MINILM,
        hub="sentence-transformers/all-MiniLM-L6-v2",
        packaged="minilm_l6",
        tokens="minilm_l6_tokens",
    ),
    "toy_bert": _BERT(config=_TOY),
    "roberta": _OF_ROBERTA(),
    "roberta_base": _OF_ROBERTA(config=_ROBERTA, hub="FacebookAI/roberta-base"),
    "roberta_large": _OF_ROBERTA(config=_ROBERTA | _LARGE, hub="FacebookAI/roberta-large"),
}
"""Rows of the table of language models."""

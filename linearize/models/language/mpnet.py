"""MPNet (Song et al. 2020, arXiv 2004.09297): RoBERTa's layout, and relative positions.

All blocks share one bias of the scores by the bucket of a distance, of which there are 32: that is
what transformers reads, whatever the configuration's ``relative_attention_num_buckets``.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from linearize.models.hf import schema
from linearize.models.hf.table import SAME, Row
from linearize.models.hf.tables import linear, norm
from linearize.models.language import bert
from linearize.models.language.encoder import Encoder
from linearize.models.language.model import LanguageFamily

_PAD, _BUCKETS = 1, 32
KEYS = bert.COMMON | {
    "vocab_size": schema.size(30527, 2**24),
    "relative_attention_num_buckets": schema.only(_BUCKETS),
    "pad_token_id": schema.only(_PAD),
}
_FIELDS: dict[str, Any] = {"types": 0, "pad": _PAD, "buckets": _BUCKETS}


def mpnet(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fields of the encoder that a ``config.json`` of MPNet describes.

    Raises:
        WeightsError: it says what the encoder does not do.
    """
    return bert.read(config, KEYS, where)[1] | _FIELDS


_LAYER = "mpnet.encoder.layer.{i}.attention"
_ATTENTION: tuple[Row, ...] = (
    *linear(f"{_LAYER}.attn.q", "block_{i}/attention/q"),
    *linear(f"{_LAYER}.attn.k", "block_{i}/attention/k"),
    *linear(f"{_LAYER}.attn.v", "block_{i}/attention/v"),
    *linear(f"{_LAYER}.attn.o", "block_{i}/attention/out"),
    *norm(f"{_LAYER}.LayerNorm", "block_{i}/norm_1"),
)

MPNET = bert.table(
    "Hugging Face's MPNet",
    "mpnet",
    _ATTENTION,
    bert.lm_head("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
    ("mpnet.encoder.relative_attention_bias.weight", "relative_bias", SAME),
)

_MPNET = partial(
    LanguageFamily,
    Encoder,
    mpnet,
    (MPNET,),
    "mpnet",
    inputs="tokens mask",
    repeated=bert.tied("mpnet"),
    optional=bert.parts("mpnet"),
    builds="MPNetForMaskedLM",
    bare="MPNetModel",
)
_BASE: dict[str, Any] = {
    "architectures": ["MPNetModel"],
    "max_position_embeddings": 514,
    "layer_norm_eps": 1e-5,
}

FAMILIES: dict[str, LanguageFamily] = {
    "mpnet": _MPNET(),
    "mpnet_base": _MPNET(
        config=_BASE,
        hub="sentence-transformers/all-mpnet-base-v2",
        packaged="mpnet_base",
        tokens="mpnet_base_tokens",
    ),
}
"""Rows of the table of language models."""

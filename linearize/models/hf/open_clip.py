"""What an ``open_clip_config.json`` says, with the defaults of OpenCLIP 3."""

from collections.abc import Mapping
from typing import Any

from linearize.models import clip
from linearize.models.hf import processors, schema
from linearize.models.hf.schema import Key


def _kwargs(inner: Mapping[str, Key]) -> Key:
    """Keyword arguments of a layer, null or with admitted values."""
    return Key(
        None,
        lambda v: isinstance(v, Mapping) and all(k in inner and inner[k].holds(v[k]) for k in v),
        "expected null or "
        + ", ".join(f"{{{k!r}: x}} ({key.expected})" for k, key in inner.items()),
    )


_LAYERS = {
    "layers": schema.size(12, schema.DEEPEST),
    "mlp_ratio": schema.number(4.0, 1e-3, 256),
    "norm_kwargs": _kwargs({"eps": schema.number(1e-5, 0, 1)}),
    "act_kwargs": _kwargs({"approximate": schema.choice("none", ("none", "tanh"))}),
    "block_type": schema.only(None, "default"),
    **{
        name: schema.only(False)
        for name in (
            "qk_norm",
            "scaled_cosine_attn",
            "scale_heads",
            "scale_attn_inner",
            "scale_attn",
            "scale_fc",
        )
    },
}
VISION = {
    **_LAYERS,
    "width": schema.size(768),
    "head_width": schema.size(64),
    "patch_size": schema.side(16),
    "image_size": schema.side(224),
    "ls_init_value": Key(None, lambda v: type(v) in (int, float), "expected a number or null"),
    "attentional_pool": schema.only(False),
    "no_ln_pre": schema.flag(False),
    "pool_type": schema.choice("tok", ("tok", "avg")),
    "final_ln_after_pool": schema.flag(False),
    "global_average_pool": schema.only(False),
    "input_patchnorm": schema.only(False),
    "timm_model_name": schema.only(None),
    "pos_embed_type": schema.choice("learnable", ("learnable", "sin_cos_2d")),
}
TEXT = {
    **_LAYERS,
    "context_length": schema.size(77),
    "vocab_size": schema.size(49408, 2**24),
    "width": schema.size(512),
    "heads": schema.size(8, 4096),
    "ls_init_value": schema.only(None),
    "embed_cls": schema.only(False),
    "eos_id": schema.token(2),
    "no_causal_mask": schema.only(False),
    "pool_type": schema.choice("argmax", ("argmax", "eos")),
    "proj_bias": schema.only(False),
    "proj_type": schema.only("linear"),
    "hf_model_name": schema.only(None),
}
_MODEL = {
    "embed_dim": schema.size(None),
    "vision_cfg": schema.part(),
    "text_cfg": schema.part(),
    "quick_gelu": schema.flag(False),
    "multimodal_cfg": schema.only(None),
}
_PREPROCESS = {
    "mean": schema.channels(processors.FAMILIES["clip"][0], -1e6, 1e6),
    "std": schema.channels(processors.FAMILIES["clip"][1], 1e-9, 1e6),
    "mode": schema.only("RGB"),
    # "random" is of training; in evaluation it is bicubic
    "interpolation": schema.choice("bicubic", ("bicubic", "bilinear", "random")),
}
"""Keys that decide the function. Positions lie in the weights, however they were made."""

_IN_VISION = (
    "output_tokens",
    "patch_dropout",
    "attn_pooler_queries",
    "attn_pooler_heads",
    "timm_model_pretrained",
    "timm_pool",
    "timm_proj",
    "timm_proj_bias",
    "timm_drop",
    "timm_drop_path",
)
_IN_TEXT = (
    "output_tokens",
    "pad_id",
    # of the tokenizer, which linearize.models.tokenizer checks
    "hf_tokenizer_name",
    "tokenizer_mode",
    "tokenizer_kwargs",
    "hf_model_pretrained",
    "hf_proj_type",
    "hf_pooler_type",
    "final_ln_after_pool",
)
_IN_MODEL = (
    "custom_text",
    "init_logit_scale",
    "init_logit_bias",
    "nonscalar_logit_scale",
    "cast_dtype",
    "output_dict",
)
_IN_PREPROCESS = ("size", "resize_mode", "fill_color")
_TOP = {"model_cfg": schema.part(), "preprocess_cfg": schema.part()}
"""Keys of no influence on features: training alone, parts that are not there, what comes before
``f`` or after it."""


def vision(notes: Any, where: str) -> dict[str, Any]:
    """Fields of the image encoder, ``depth`` and ``image_size`` among them.

    Args:
        notes: the parsed file.
        where: its name, for messages.

    Raises:
        WeightsError: a value that is not admitted, or a key that is not understood.
    """
    model, preprocess = _parts(notes, where)
    got = schema.read(
        model["vision_cfg"] or {}, VISION, _IN_VISION, where=f"{where}: model_cfg.vision_cfg"
    )
    average = got["pool_type"] == "avg"
    if average and got["final_ln_after_pool"]:
        schema.refuse(
            f"{where}: model_cfg.vision_cfg", "final_ln_after_pool", True, "expected false"
        )
    pixels = schema.read(preprocess, _PREPROCESS, _IN_PREPROCESS, where=f"{where}: preprocess_cfg")
    bilinear = pixels["interpolation"] == "bilinear"
    return clip.FIELDS | {
        **schema.squares(got["image_size"], got["patch_size"], where),
        **_layers(got, model, where),
        "heads": schema.heads(got["width"], got["width"] // got["head_width"], where),
        "projection": model["embed_dim"],
        "layer_scale": got["ls_init_value"] is not None,
        "pre_norm": not got["no_ln_pre"],
        "pooling": "patch_mean" if average else "class_token",
        "resample": "bilinear" if bilinear else "bicubic",
        **processors.normalisation(pixels["mean"], pixels["std"]),
    }


def text(notes: Any, where: str) -> dict[str, Any]:
    """Fields of the text tower.

    Raises:
        WeightsError: as :func:`vision`.
    """
    model, _ = _parts(notes, where)
    got = schema.read(model["text_cfg"] or {}, TEXT, _IN_TEXT, where=f"{where}: model_cfg.text_cfg")
    return {
        "vocabulary": got["vocab_size"],
        "context": got["context_length"],
        **_layers(got, model, where),
        "heads": schema.heads(got["width"], got["heads"], where),
        "projection": model["embed_dim"],
        "end": got["eos_id"] if got["pool_type"] == "eos" else None,
    }


def _parts(notes: Any, where: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """``model_cfg`` and ``preprocess_cfg``; a file that is a ``model_cfg`` alone is one too."""
    alone = isinstance(notes, Mapping) and "model_cfg" not in notes and "embed_dim" in notes
    top = {"model_cfg": notes} if alone else schema.read(notes, _TOP, where=where)
    model = schema.read(top["model_cfg"], _MODEL, _IN_MODEL, where=f"{where}: model_cfg")
    if model["embed_dim"] is None:
        schema.refuse(f"{where}: model_cfg", "embed_dim", None, _MODEL["embed_dim"].expected)
    return model, top.get("preprocess_cfg") or {}


def _layers(got: Mapping[str, Any], model: Mapping[str, Any], where: str) -> dict[str, Any]:
    tanh = (got["act_kwargs"] or {}).get("approximate") == "tanh"
    if tanh and model["quick_gelu"]:
        schema.refuse(
            where, "act_kwargs", got["act_kwargs"], "expected null where quick_gelu is true"
        )
    gelu = "gelu_pytorch_tanh" if tanh else "gelu"
    return {
        "width": got["width"],
        "hidden": int(got["width"] * got["mlp_ratio"]),
        "depth": got["layers"],
        "activation": "quick_gelu" if model["quick_gelu"] else gelu,
        "eps": float((got["norm_kwargs"] or {}).get("eps", 1e-5)),
    }

"""What a configuration beside the weights says, as fields of our modules.

Keys that a file leaves out have the values that transformers gives them.
"""

from collections.abc import Mapping
from typing import Any

from linearize.models import clip, transformer, vit
from linearize.models.backbone import WeightsError

_CLIP_VISION: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 512,
}
_CLIP_TEXT: dict[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
    "projection_dim": 512,
}
_VIT = _CLIP_VISION | {
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "qkv_bias": True,
}
_DINOV2 = _VIT | {
    "patch_size": 14,
    "layer_norm_eps": 1e-6,
    "mlp_ratio": 4,
    "use_swiglu_ffn": False,
}
VIT_FIELDS: dict[str, Any] = {
    "pooling": "class_token",
    "eps": 1e-12,
    "layer_scale": False,
    "mean": (127.5, 127.5, 127.5),
    "std": (127.5, 127.5, 127.5),
}
"""What makes :class:`linearize.models.vit.ViT` a plain ViT as transformers has it."""
DINOV2_FIELDS: dict[str, Any] = {"mean": vit.MEAN, "std": vit.STD}

KINDS = {"clip": "clip", "clip_vision_model": "clip", "vit": "vit", "dinov2": "dinov2"}
"""``model_type`` of a configuration to the family that reads it."""


def kind(notes: Mapping[str, Any]) -> str | None:
    """The family that the files beside the weights name; None where they name none.

    Raises:
        WeightsError: they name one that is not known here.
    """
    config = notes.get("config.json", {})
    if "model_type" in config:
        found = config["model_type"]
        if found not in (*KINDS, "clip_text_model"):
            raise WeightsError(
                f"config.json is of a {found!r}; there are: {', '.join(sorted(set(KINDS)))}"
            )
        return KINDS.get(found, "clip")
    return "clip" if "open_clip_config.json" in notes else None


def vision(notes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields of the image encoder, ``depth`` and ``image_size`` among them; None for no files.

    Raises:
        WeightsError: the configuration has a feature that is not supported here.
    """
    family = kind(notes)
    if family is None:
        return None
    config = notes.get("config.json", {})
    if "model_type" not in config:
        return _open_clip_vision(notes["open_clip_config.json"])
    if family == "clip":
        got = _CLIP_VISION | _part(config, "vision_config")
        fields = clip.FIELDS | {"projection": config.get("projection_dim", got["projection_dim"])}
        if config.get("architectures") == ["CLIPVisionModel"]:
            fields["projection"] = None
    else:
        got = (_VIT if family == "vit" else _DINOV2) | config
        fields = dict(VIT_FIELDS if family == "vit" else DINOV2_FIELDS)
    if not got.get("qkv_bias", True) or got.get("num_channels", 3) != 3:
        raise WeightsError("config.json: qkv_bias=false and other than 3 channels are unsupported")
    patch, side = _one(got["patch_size"]), _one(got["image_size"])
    hidden = got["intermediate_size"]
    if family == "dinov2":
        hidden = int(got["hidden_size"] * got["mlp_ratio"])
        if got["use_swiglu_ffn"]:
            hidden = (int(hidden * 2 / 3) + 7) // 8 * 8
            got = got | {"hidden_act": "swiglu"}
    return fields | {
        "patch": patch,
        "grid": side // patch,
        "image_size": side // patch * patch,
        "hidden": hidden,
        **_common(got),
        **_normalisation(notes.get("preprocessor_config.json", {}), "image_mean", "image_std"),
    }


def text(notes: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields of CLIP's text tower; None where there is no configuration of it.

    Raises:
        WeightsError: as :func:`vision`.
    """
    family = kind(notes)
    if family != "clip":
        return None
    config = notes.get("config.json", {})
    if "model_type" not in config:
        return _open_clip_text(notes["open_clip_config.json"])
    got = _CLIP_TEXT | _part(config, "text_config")
    # transformers: a configuration that says 2 is an early one, whose end is the largest token
    end = got["eos_token_id"]
    return {
        "vocabulary": got["vocab_size"],
        "context": got["max_position_embeddings"],
        "hidden": got["intermediate_size"],
        "projection": config.get("projection_dim", got["projection_dim"]),
        "end": None if end == 2 else end,
        **_common(got),
    }


def _part(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """One tower's part of a CLIP configuration, or all of a configuration of that tower alone."""
    if config.get("model_type") != "clip":
        return dict(config)
    return {**(config.get(key) or {}), **(config.get(f"{key}_dict") or {})}


def _one(side: Any) -> int:
    sides = {side} if isinstance(side, int) else set(side)
    if len(sides) != 1:
        raise WeightsError(f"config.json: only squares are supported, not {side}")
    return int(sides.pop())


def _common(got: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "width": got["hidden_size"],
        "heads": got["num_attention_heads"],
        "depth": got["num_hidden_layers"],
        "activation": activation(got["hidden_act"]),
        "eps": float(got["layer_norm_eps"]),
    }


def activation(name: str) -> str:
    """The name, if there is such a non-linearity.

    Raises:
        WeightsError: there is none; the message says which there are.
    """
    if name not in transformer.ACTIVATIONS:
        known = ", ".join(map(repr, transformer.ACTIVATIONS))
        raise WeightsError(f"activation={name!r}; there are {known}")
    return name


def _normalisation(notes: Mapping[str, Any], mean: str, std: str) -> dict[str, Any]:
    return {
        ours: tuple(255.0 * x for x in notes[theirs])
        for ours, theirs in (("mean", mean), ("std", std))
        if notes.get(theirs)
    }


def _open_clip_vision(notes: Mapping[str, Any]) -> dict[str, Any]:
    model = notes["model_cfg"]
    got = model["vision_cfg"]
    if not isinstance(got.get("layers"), int) or "timm_model_name" in got:
        raise WeightsError("open_clip_config.json: only its own ViTs are supported")
    width, patch, side = got["width"], got["patch_size"], _one(got["image_size"])
    return clip.FIELDS | {
        "patch": patch,
        "grid": side // patch,
        "image_size": side,
        "width": width,
        "heads": width // got.get("head_width", 64),
        "hidden": int(width * got.get("mlp_ratio", 4.0)),
        "depth": got["layers"],
        "projection": model["embed_dim"],
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
        **_normalisation(notes.get("preprocess_cfg", {}), "mean", "std"),
    }


def _open_clip_text(notes: Mapping[str, Any]) -> dict[str, Any]:
    model = notes["model_cfg"]
    got = model["text_cfg"]
    return {
        "vocabulary": got.get("vocab_size", 49408),
        "context": got.get("context_length", 77),
        "width": got["width"],
        "heads": got["heads"],
        "hidden": int(got["width"] * got.get("mlp_ratio", 4.0)),
        "depth": got["layers"],
        "projection": model["embed_dim"],
        "activation": "quick_gelu" if model.get("quick_gelu") else "gelu",
        "eps": 1e-5,
        "end": None,
    }

"""What a configuration beside the weights says, as fields of our modules.

Keys that a file leaves out have the values that their publishers give them: transformers' of the
family, or OpenCLIP's. A key that is in no table here is refused by name.
"""

from collections.abc import Mapping
from typing import Any

from linearize.choices import one_of
from linearize.models import clip, transformer, vit
from linearize.models.backbone import WeightsError
from linearize.models.hf import open_clip, processors, schema
from linearize.models.hf.schema import Key

ACTIVATIONS = sorted(transformer.ACTIVATIONS.keys() - {"swiglu"})


def _blocks(width: int, heads: int, activation: str, eps: float) -> dict[str, Key]:
    return {
        "hidden_size": schema.size(width),
        "num_hidden_layers": schema.size(12, schema.DEEPEST),
        "num_attention_heads": schema.size(heads, 4096),
        "hidden_act": schema.choice(activation, ACTIVATIONS),
        "layer_norm_eps": schema.number(eps, 0, 1),
    }


def _patches(patch: int) -> dict[str, Key]:
    return {
        "image_size": schema.side(224),
        "patch_size": schema.side(patch),
        "num_channels": schema.only(3),
    }


CLIP = {"projection_dim": schema.size(512), "vision_config": schema.part()} | {
    key: schema.part() for key in ("text_config", "vision_config_dict", "text_config_dict")
}
CLIP_VISION = {
    **_blocks(768, 12, "quick_gelu", 1e-5),
    **_patches(32),
    "intermediate_size": schema.size(3072),
    "projection_dim": schema.size(512),
}
CLIP_TEXT = {
    **_blocks(512, 8, "quick_gelu", 1e-5),
    "intermediate_size": schema.size(2048),
    "projection_dim": schema.size(512),
    "vocab_size": schema.size(49408, 2**24),
    "max_position_embeddings": schema.size(77),
    "eos_token_id": schema.token(49407),
}
VIT = {
    **_blocks(768, 12, "gelu", 1e-12),
    **_patches(16),
    "intermediate_size": schema.size(3072),
    "qkv_bias": schema.only(True),
}
DINOV2 = {
    **_blocks(768, 12, "gelu", 1e-6),
    **_patches(14),
    "mlp_ratio": schema.number(4, 1e-3, 256),
    "use_swiglu_ffn": schema.flag(False),
    "qkv_bias": schema.only(True),
}
"""The keys of transformers' configurations that decide the function, with its defaults."""

_NO_INFLUENCE = """
    model_type architectures transformers_version transformers.js_config dtype torch_dtype
    _name_or_path name_or_path _commit_hash _attn_implementation _attn_implementation_autoset
    attn_implementation _from_model_config use_cache return_dict torchscript use_bfloat16
    tf_legacy_loss finetuning_task id2label label2id num_labels problem_type task_specific_params
    output_attentions output_hidden_states output_scores output_logits return_dict_in_generate
    chunk_size_feed_forward gradient_checkpointing is_encoder_decoder is_decoder
    add_cross_attention cross_attention_hidden_size tie_encoder_decoder tie_word_embeddings
    tokenizer_class prefix bos_token_id pad_token_id eos_token_id sep_token_id
    decoder_start_token_id max_length min_length do_sample early_stopping num_beams
    num_beam_groups diversity_penalty temperature top_k top_p typical_p repetition_penalty
    length_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size bad_words_ids
    num_return_sequences forced_bos_token_id forced_eos_token_id remove_invalid_values
    exponential_decay_length_penalty suppress_tokens begin_suppress_tokens
    initializer_range initializer_factor logit_scale_init_value
    dropout attention_dropout hidden_dropout_prob attention_probs_dropout_prob drop_path_rate
    encoder_stride pooler_output_size pooler_act
    layerscale_value apply_layernorm reshape_hidden_states use_mask_token
    stage_names out_features out_indices _out_features _out_indices
"""
IGNORED = frozenset(_NO_INFLUENCE.split())
"""Keys of no influence on features: notes, text generation, training alone (initial values,
dropout), and what is not read (poolers, decoders, mask tokens, heads, backbones' choices)."""

_OF_CLIP = {"intermediate_size", "projection_dim"}
"""Widths that other families have: where one matters here, it is among the keys that are read."""
PRUNED = {"pruned_heads": Key({}, lambda v: v in ({}, None), "only {} is supported")}

VIT_FIELDS: dict[str, Any] = {
    "pooling": "class_token",
    "eps": 1e-12,
    "layer_scale": False,
    "mean": (127.5, 127.5, 127.5),
    "std": (127.5, 127.5, 127.5),
}
"""What makes :class:`linearize.models.vit.ViT` a plain ViT as transformers has it."""
DINOV2_FIELDS: dict[str, Any] = {"mean": vit.MEAN, "std": vit.STD, "resample": "bicubic"}

KINDS = {"clip": "clip", "clip_vision_model": "clip", "vit": "vit", "dinov2": "dinov2"}
"""``model_type`` of a configuration to the family that reads it."""
_TEXT_ALONE, _VISION_ALONE = "clip_text_model", "clip_vision_model"
_UNPROJECTED = ("CLIPVisionModel", "CLIPForImageClassification")
_DESCRIBES = {"hidden_size", "num_hidden_layers", "hidden_act", "vision_config", "text_config"}
"""Keys by which a configuration is one of transformers', whatever else it lacks."""


def kind(notes: Mapping[str, Any], where: Any = "here") -> str | None:
    """The family that the files beside the weights name; None where they name none.

    Args:
        notes: parsed files by name.
        where: the folder, for messages.

    Raises:
        WeightsError: they name one that is not known here, or none of an architecture that they
            describe.
    """
    config = notes.get("config.json", {})
    if not isinstance(config, Mapping):
        raise WeightsError(f"{where}/config.json is {schema.said(config)}; expected an object")
    if "model_type" in config:
        found = config["model_type"]
        if not isinstance(found, str) or found not in (*KINDS, _TEXT_ALONE):
            raise WeightsError(
                f"{where}/config.json is of a {schema.said(found)}; there are: "
                + ", ".join(sorted(set(KINDS)))
            )
        return KINDS.get(found, "clip")
    described = sorted(_DESCRIBES & config.keys())
    if described:
        raise WeightsError(
            f"{where}/config.json has {', '.join(described[:4])} and no model_type; give it that "
            f"of its model: {', '.join(sorted(set(KINDS)))}"
        )
    return "clip" if "open_clip_config.json" in notes else None


def vision(notes: Mapping[str, Any], where: Any = "here") -> dict[str, Any] | None:
    """Fields of the image encoder, ``depth`` and ``image_size`` among them; None for no files.

    Args:
        notes: parsed files by name.
        where: the folder, for messages.

    Raises:
        WeightsError: a value that is not admitted, or a key that is not understood.
    """
    family = kind(notes, where)
    if family is None:
        return None
    config, file = notes.get("config.json", {}), f"{where}/config.json"
    if "model_type" not in config:
        return open_clip.vision(notes["open_clip_config.json"], f"{where}/open_clip_config.json")
    if family == "clip":
        got, projection = _clip_part(config, "vision", CLIP_VISION, _TEXT_ALONE, file)
        alone = config.get("architectures")
        projected = not (isinstance(alone, list) and alone and alone[0] in _UNPROJECTED)
        fields = clip.FIELDS | {"projection": projection if projected else None}
    else:
        keys, start = {"vit": (VIT, VIT_FIELDS), "dinov2": (DINOV2, DINOV2_FIELDS)}[family]
        got = schema.read(config, keys | PRUNED, IGNORED | _OF_CLIP, where=file)
        fields = dict(start)
    hidden, activation = got.get("intermediate_size"), got["hidden_act"]
    if family == "dinov2":
        hidden = int(got["hidden_size"] * got["mlp_ratio"])
        if got["use_swiglu_ffn"]:
            hidden, activation = (int(hidden * 2 / 3) + 7) // 8 * 8, "swiglu"
    made = {
        **fields,
        **schema.squares(got["image_size"], got["patch_size"], file),
        **_common(got, file),
        "hidden": hidden,
        "activation": activation,
    }
    return made | processors.of_transformers(notes, family, made["image_size"], str(where))


def text(notes: Mapping[str, Any], where: Any = "here") -> dict[str, Any] | None:
    """Fields of CLIP's text tower; None where there is no configuration of it.

    Raises:
        WeightsError: as :func:`vision`.
    """
    if kind(notes, where) != "clip":
        return None
    config, file = notes.get("config.json", {}), f"{where}/config.json"
    if "model_type" not in config:
        return open_clip.text(notes["open_clip_config.json"], f"{where}/open_clip_config.json")
    got, projection = _clip_part(config, "text", CLIP_TEXT, _VISION_ALONE, file)
    # transformers: a configuration that says 2 is an early one, whose end is the largest token
    end = got["eos_token_id"]
    return {
        "vocabulary": got["vocab_size"],
        "context": got["max_position_embeddings"],
        "hidden": got["intermediate_size"],
        "projection": projection,
        "activation": got["hidden_act"],
        "end": None if end == 2 else end,
        **_common(got, file),
    }


def _clip_part(
    config: Mapping[str, Any], tower: str, keys: Mapping[str, Key], other: str, file: str
) -> tuple[dict[str, Any], int]:
    """One tower's values and the width of the projection, of both towers' file or of its own."""
    if config["model_type"] == other:
        raise WeightsError(f"{file} is of a {other!r}, which has no {tower} tower")
    if config["model_type"] != "clip":
        got = schema.read(config, {**keys, **PRUNED}, IGNORED, where=file)
        return got, got["projection_dim"]
    whole = schema.read(config, CLIP | PRUNED, IGNORED, where=file)
    parts = [whole[f"{tower}_config{end}"] or {} for end in ("", "_dict")]
    # as transformers: early files say it twice, and the second time counts
    got = schema.read(
        {**parts[0], **parts[1]}, {**keys, **PRUNED}, IGNORED, where=f"{file}: {tower}_config"
    )
    return got, whole["projection_dim"]


def _common(got: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {
        "width": got["hidden_size"],
        "heads": schema.heads(got["hidden_size"], got["num_attention_heads"], where),
        "depth": got["num_hidden_layers"],
        "eps": float(got["layer_norm_eps"]),
    }


_FUNCTION = (
    "heads",
    "pooling",
    "activation",
    "eps",
    "layer_scale",
    "pre_norm",
    "patch_bias",
    "mean",
    "std",
    "resample",
)
"""Fields that no tensor's shape tells."""


def check_same(ours: Mapping[str, Any], notes: Mapping[str, Any], what: str) -> None:
    """The files make of the same weights the function that an architecture is.

    Args:
        ours: the architecture's fields.
        notes: parsed files by name.
        what: whose they are, for messages.

    Raises:
        WeightsError: they make another.
    """
    theirs = vision(notes, what) or {}
    wrong = [
        f"{name} is {theirs[name]!r} there and {ours[name]!r} here"
        for name in _FUNCTION
        if name in theirs and name in ours and theirs[name] != ours[name]
    ]
    if wrong:
        raise WeightsError(
            f"{what} would compute something else of these weights; nothing was done: "
            + "; ".join(wrong)
        )


def activation(name: str) -> str:
    """The name, if there is such a non-linearity.

    Raises:
        WeightsError: there is none; the message says which there are.
    """
    return one_of("activation", name, transformer.ACTIVATIONS, WeightsError)

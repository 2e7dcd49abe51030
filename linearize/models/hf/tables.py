"""Whose name is whose: CLIP as Hugging Face and as OpenAI write it, ViT, DINOv2."""

from linearize.models.hf.table import (
    BATCHED_POSITIONS,
    JOINED,
    JOINED_KERNEL,
    KERNEL,
    PATCHES,
    POSITIONS,
    SAME,
    SCALAR,
    TOKEN,
    Row,
    Table,
)


def linear(theirs: str, ours: str) -> tuple[Row, ...]:
    """Of a torch ``Linear``."""
    return (
        (f"{theirs}.weight", f"{ours}/kernel", KERNEL),
        (f"{theirs}.bias", f"{ours}/bias", SAME),
    )


def norm(theirs: str, ours: str) -> tuple[Row, ...]:
    """Of a torch ``LayerNorm``."""
    return (
        (f"{theirs}.weight", f"{ours}/scale", SAME),
        (f"{theirs}.bias", f"{ours}/bias", SAME),
    )


def _attention(theirs: str) -> tuple[Row, ...]:
    """Query, key and value under three names, which ``theirs`` spells with a choice."""
    return (
        (f"{theirs}.weight", "block_{i}/attention/qkv/kernel", JOINED_KERNEL),
        (f"{theirs}.bias", "block_{i}/attention/qkv/bias", JOINED),
    )


def _hugging_clip_block(tower: str) -> tuple[Row, ...]:
    layer = f"{tower}.encoder.layers.{{i}}"
    return (
        *norm(f"{layer}.layer_norm1", "block_{i}/norm_1"),
        *_attention(layer + ".self_attn.{q|k|v}_proj"),
        *linear(f"{layer}.self_attn.out_proj", "block_{i}/attention/out"),
        *norm(f"{layer}.layer_norm2", "block_{i}/norm_2"),
        *linear(f"{layer}.mlp.fc1", "block_{i}/mlp_in"),
        *linear(f"{layer}.mlp.fc2", "block_{i}/mlp_out"),
    )


CLIP_VISION = Table(
    "Hugging Face's CLIP",
    rows=(
        ("vision_model.embeddings.class_embedding", "class_token", SAME),
        (
            "vision_model.embeddings.position_embedding.weight",
            "{class_position|positions}",
            POSITIONS,
        ),
        (
            "vision_model.embeddings.patch_embedding.weight",
            "patch_embedding/kernel",
            PATCHES,
        ),
        *norm("vision_model.pre_layrnorm", "pre_norm"),
        *_hugging_clip_block("vision_model"),
        *norm("vision_model.post_layernorm", "norm"),
        ("visual_projection.weight", "projection/kernel", KERNEL),
    ),
    dropped=(
        *(r"text_model\..*", r"text_projection\.weight", "logit_scale", r".*\.position_ids"),
        r"classifier\..*",
    ),
    aliases=((r"^(?=(embeddings|encoder|pre_layrnorm|post_layernorm)\.)", "vision_model."),),
)

CLIP_TEXT = Table(
    "Hugging Face's CLIP",
    rows=(
        ("text_model.embeddings.token_embedding.weight", "token_embedding", SAME),
        ("text_model.embeddings.position_embedding.weight", "positions", SAME),
        *_hugging_clip_block("text_model"),
        *norm("text_model.final_layer_norm", "norm"),
        ("text_projection.weight", "projection/kernel", KERNEL),
        ("logit_scale", "logit_scale", SCALAR),
    ),
    dropped=(r"vision_model\..*", r"visual_projection\.weight", r".*\.position_ids"),
)


def _openai_block(prefix: str) -> tuple[Row, ...]:
    layer = f"{prefix}transformer.resblocks.{{i}}"
    return (
        *norm(f"{layer}.ln_1", "block_{i}/norm_1"),
        (f"{layer}.attn.in_proj_weight", "block_{i}/attention/qkv/kernel", KERNEL),
        (f"{layer}.attn.in_proj_bias", "block_{i}/attention/qkv/bias", SAME),
        *linear(f"{layer}.attn.out_proj", "block_{i}/attention/out"),
        *norm(f"{layer}.ln_2", "block_{i}/norm_2"),
        *linear(f"{layer}.mlp.c_fc", "block_{i}/mlp_in"),
        *linear(f"{layer}.mlp.c_proj", "block_{i}/mlp_out"),
    )


_OPENAI_TEXT = (
    r"transformer\..*",
    r"token_embedding\.weight",
    "positional_embedding",
    r"ln_final\..*",
    "text_projection",
    "logit_scale",
)
_OPENAI_NOTES = ("input_resolution", "context_length", "vocab_size", "attn_mask", "logit_bias")
_OPENAI_PREFIXES = (
    # DistributedDataParallel, the task-vector authors' ImageEncoder, OpenCLIP's CustomTextCLIP
    (r"^((state_dict|module|image_encoder|model)\.)+", ""),
    (r"^text\.", ""),
)

OPENAI_VISION = Table(
    "OpenAI's CLIP and OpenCLIP",
    rows=(
        ("visual.class_embedding", "class_token", SAME),
        ("visual.positional_embedding", "{class_position|positions}", POSITIONS),
        ("visual.conv1.weight", "patch_embedding/kernel", PATCHES),
        *norm("visual.ln_pre", "pre_norm"),
        *_openai_block("visual."),
        *(
            (
                f"visual.transformer.resblocks.{{i}}.ls_{n}.gamma",
                f"block_{{i}}/scale_{n}/scale",
                SAME,
            )
            for n in (1, 2)
        ),
        *norm("visual.ln_post", "norm"),
        ("visual.proj", "projection/kernel", SAME),
    ),
    dropped=(*_OPENAI_TEXT, *_OPENAI_NOTES),
    aliases=_OPENAI_PREFIXES,
)

OPENAI_TEXT = Table(
    "OpenAI's CLIP and OpenCLIP",
    rows=(
        ("token_embedding.weight", "token_embedding", SAME),
        ("positional_embedding", "positions", SAME),
        *_openai_block(""),
        *norm("ln_final", "norm"),
        ("text_projection", "projection/kernel", SAME),
        ("logit_scale", "logit_scale", SCALAR),
    ),
    dropped=(r"visual\..*", *_OPENAI_NOTES),
    aliases=_OPENAI_PREFIXES,
)

_LAYER = "encoder.layer.{i}"
_EMBEDDINGS: tuple[Row, ...] = (
    ("embeddings.cls_token", "class_token", TOKEN),
    ("embeddings.position_embeddings", "{class_position|positions}", BATCHED_POSITIONS),
    ("embeddings.patch_embeddings.projection.weight", "patch_embedding/kernel", PATCHES),
    ("embeddings.patch_embeddings.projection.bias", "patch_embedding/bias", SAME),
)
_SELF_ATTENTION: tuple[Row, ...] = (
    *_attention(_LAYER + ".attention.attention.{query|key|value}"),
    *linear(f"{_LAYER}.attention.output.dense", "block_{i}/attention/out"),
)
_RENAMED = tuple(
    (rf"^(encoder\.layer\.\d+)\.attention\.{short}\.", rf"\1.attention.{long}.")
    for short, long in (
        *((f"{word[0]}_proj", f"attention.{word}") for word in ("query", "key", "value")),
        ("o_proj", "output.dense"),
    )
)
"""Modules as transformers 5 calls them while they run, and so in adapters; files say otherwise."""
_RUNNING = (
    (r"\.attention\.attention\.([qkv])\w+$", r".attention.\1_proj"),
    (r"\.attention\.output\.dense$", ".attention.o_proj"),
    (r".*\.mlp\.weights_(in|out)$", ""),  # gate and up are two modules there
)
"""The way back; nothing where there is no module of a weight's own."""
_NOT_ENCODER = (r"pooler\..*", r"classifier\..*", r"embeddings\.mask_token", r"decoder\..*")

VIT = Table(
    "Hugging Face's ViT",
    rows=(
        *_EMBEDDINGS,
        *norm(f"{_LAYER}.layernorm_before", "block_{i}/norm_1"),
        *_SELF_ATTENTION,
        *norm(f"{_LAYER}.layernorm_after", "block_{i}/norm_2"),
        *linear(f"{_LAYER}.intermediate.dense", "block_{i}/mlp_in"),
        *linear(f"{_LAYER}.output.dense", "block_{i}/mlp_out"),
        *norm("layernorm", "norm"),
    ),
    dropped=_NOT_ENCODER,
    aliases=(
        (r"^vit\.", ""),
        (r"^layers\.", "encoder.layer."),
        *_RENAMED,
        (r"^(encoder\.layer\.\d+)\.mlp\.fc1\.", r"\1.intermediate.dense."),
        (r"^(encoder\.layer\.\d+)\.mlp\.fc2\.", r"\1.output.dense."),
    ),
    running=(
        *_RUNNING,
        (r"\.intermediate\.dense$", ".mlp.fc1"),
        (r"\.output\.dense$", ".mlp.fc2"),
        (r"^encoder\.layer\.", "layers."),
    ),
)


def _dinov2(name: str, mlp_in: str, mlp_out: str) -> Table:
    return Table(
        name,
        rows=(
            *_EMBEDDINGS,
            *norm(f"{_LAYER}.norm1", "block_{i}/norm_1"),
            *_SELF_ATTENTION,
            (f"{_LAYER}.layer_scale1.lambda1", "block_{i}/scale_1/scale", SAME),
            *norm(f"{_LAYER}.norm2", "block_{i}/norm_2"),
            *linear(f"{_LAYER}.mlp.{mlp_in}", "block_{i}/mlp_in"),
            *linear(f"{_LAYER}.mlp.{mlp_out}", "block_{i}/mlp_out"),
            (f"{_LAYER}.layer_scale2.lambda1", "block_{i}/scale_2/scale", SAME),
            *norm("layernorm", "norm"),
        ),
        dropped=_NOT_ENCODER,
        aliases=((r"^dinov2\.", ""), *_RENAMED),
        running=_RUNNING,
    )


DINOV2 = _dinov2("Hugging Face's DINOv2", "fc1", "fc2")
DINOV2_SWIGLU = _dinov2("Hugging Face's DINOv2 with SwiGLU", "weights_in", "weights_out")

"""What files beside the weights say: every field honoured as transformers does, or refused."""

import json

import numpy as np
import pytest

from linearize import models
from linearize.models import clip
from linearize.models.hf import configs, open_clip, processors, schema

CLIP = {"model_type": "clip_vision_model"}
FAMILIES = {
    "clip": ("CLIPVisionConfig", configs.CLIP_VISION),
    "clip_text": ("CLIPTextConfig", configs.CLIP_TEXT),
    "vit": ("ViTConfig", configs.VIT),
    "dinov2": ("Dinov2Config", configs.DINOV2),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_defaults_and_keys_are_those_of_transformers(family):
    transformers = pytest.importorskip("transformers")
    name, keys = FAMILIES[family]
    theirs = getattr(transformers, name)().to_dict()
    assert {k: key.default for k, key in keys.items()} == {k: theirs[k] for k in keys}
    assert theirs.keys() <= keys.keys() | configs.IGNORED
    whole = transformers.CLIPConfig().to_dict()
    assert whole["projection_dim"] == configs.CLIP["projection_dim"].default
    assert whole.keys() <= configs.CLIP.keys() | configs.IGNORED


def test_processors_defaults_are_those_of_transformers():
    transformers = pytest.importorskip("transformers")
    for name, published in processors.TYPES.items():
        made = getattr(transformers, f"{name}ImageProcessorPil")
        got = tuple(made.image_mean), tuple(made.image_std), int(made.resample)
        assert got == published, name


UNDERSTOOD = {
    "hidden_act": ["gelu", "quick_gelu", "relu", "gelu_new", "gelu_pytorch_tanh"],
    "layer_norm_eps": [1e-2, 0, 1],
    "num_attention_heads": [1, 4],
    "image_size": [48, [32, 32]],
}
WRONG = {
    "layer_norm_eps": [float("nan"), -1e-5, 2, "1e-5", True, None],
    "hidden_act": ["softplus", "swiglu", None, 3, ["gelu"]],
    "num_hidden_layers": [10**6, 0, -1, 2.0, "2", None, True],
    "num_attention_heads": [0, 3, 10**9, None],
    "hidden_size": [2**40, 33, "32", []],
    "image_size": [[32, 16], 0, 33, 8, 2**40, [32], {"height": 32}],
    "patch_size": [64, 0, None],
    "num_channels": [1, 4],
    "model_type": ["siglip_vision_model", None, 3, []],
    "use_register_tokens": [True, False, 4],
    "quantization_config": [{"bits": 4}],
    "auto_map": [{"AutoModel": "code.Model"}],
    "pruned_heads": [{"0": [1]}],
}


@pytest.mark.parametrize(("key", "value"), [(k, v) for k, vs in WRONG.items() for v in vs])
def test_a_value_that_nothing_computes_with_is_refused_by_name(key, value):
    sizes = {"hidden_size": 32, "image_size": 32, "patch_size": 16, "num_attention_heads": 4}
    with pytest.raises(models.WeightsError) as caught:
        configs.vision({"config.json": {**CLIP, **sizes, key: value}}, "folder")
    assert "folder/config.json" in str(caught.value)
    told = {"hidden_size": "width", "num_attention_heads": "heads"}
    assert key in str(caught.value) or told.get(key, "config.json is of a") in str(caught.value)


def test_all_faults_are_in_one_error_and_long_values_are_short():
    config = {**CLIP, "layer_norm_eps": "x" * 10**6, "odd": 1, "num_channels": 1}
    with pytest.raises(models.WeightsError, match=r"3 value\(s\)") as caught:
        configs.vision({"config.json": config})
    assert len(str(caught.value)) < 500


def test_notes_without_influence_are_passed_over():
    plain = configs.vision({"config.json": CLIP})
    noted = CLIP | {"torch_dtype": "float16", "id2label": {"0": "cat"}, "new_key": None}
    noted |= {"attention_dropout": 0.5, "use_cache": True, "transformers.js_config": {}}
    assert configs.vision({"config.json": noted}) == plain


def test_a_configuration_without_its_kind_is_no_configuration():
    with pytest.raises(models.WeightsError, match="has hidden_size and no model_type"):
        configs.kind({"config.json": {"hidden_size": 3}})
    assert configs.kind({"config.json": {"seeds": [0]}}) is None
    for text, other in ((configs.vision, "clip_text_model"), (configs.text, "clip_vision_model")):
        with pytest.raises(models.WeightsError, match=f"{other!r}, which has no"):
            text({"config.json": {"model_type": other}})


def test_the_projection_is_that_of_the_whole():
    """CLIPModel's is the top level's, 512 where it says nothing, whatever the towers have."""
    config = {"model_type": "clip", "vision_config": {"projection_dim": 24}, "text_config": None}
    assert configs.vision({"config.json": config})["projection"] == 512
    assert configs.text({"config.json": config})["projection"] == 512
    config["vision_config_dict"] = {"hidden_act": "gelu"}
    assert configs.vision({"config.json": config})["activation"] == "gelu"


# image processors

PROCESSORS = [
    {},
    {"image_mean": [0.5, 0.25, 0.75], "image_std": [0.5, 0.25, 0.125]},
    {"image_mean": 0.5, "image_std": 0.25},
    {"do_normalize": False},
    {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 60.0, 70.0]},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1e6, "image_mean": [1e5] * 3, "image_std": [0.5, 1e-3, 2.0]},
    {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
]


@pytest.mark.parametrize("family", ["clip", "vit", "dinov2"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("changed", PROCESSORS)
def test_pixels_equal_transformers(family, nested, changed):
    transformers = pytest.importorskip("transformers")
    name = {"clip": "CLIP", "vit": "ViT", "dinov2": "Bit"}[family]
    side = {"size": {"height": 8, "width": 8}} | (
        {} if family == "vit" else {"crop_size": {"height": 8, "width": 8}}
    )
    theirs = getattr(transformers, f"{name}ImageProcessorPil")(**changed, **side)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    expected = theirs(list(images), return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    note = json.loads(theirs.to_json_string())
    notes = {"processor_config.json": {"image_processor": note, "processor_class": "CLIPProcessor"}}
    notes = notes if nested else {"preprocessor_config.json": note}
    got = processors.of_transformers(notes, family, 8, "folder")
    pixels = (images - np.asarray(got["mean"])) / np.asarray(got["std"])
    np.testing.assert_allclose(pixels, expected, rtol=2e-6, atol=2e-6)


def test_absent_values_are_the_named_processors_or_else_the_familys():
    def mean(note, family="dinov2"):
        notes = {"preprocessor_config.json": note}
        return processors.of_transformers(notes, family, 224, "folder")["mean"][0] / 255

    assert mean({}) == pytest.approx(0.485)
    assert mean({"image_processor_type": "BitImageProcessor"}) == pytest.approx(0.48145466)
    assert mean({"feature_extractor_type": "ViTFeatureExtractor"}, "clip") == pytest.approx(0.5)
    assert mean({"image_processor_type": "CLIPImageProcessorFast"}, "vit") > 0.48
    assert mean({}, "clip") == pytest.approx(0.48145466)
    assert mean({}, "vit") == pytest.approx(0.5)


@pytest.mark.parametrize(
    "note",
    [
        {"image_std": [0.0, 1.0, 1.0]},
        {"image_mean": [0.5, 0.5]},
        {"image_mean": "half"},
        {"rescale_factor": 0},
        {"do_rescale": 1},
        {"resample": 0},
        {"resample": "bicubic"},
        {"do_pad": True},
        {"rescale_offset": True},
        {"do_flip_channel_order": True},
        {"crop_pct": 0.875},
        {"image_processor_type": "ConvNextImageProcessor"},
        [],
        3,
    ],
)
def test_processors_that_do_something_else_are_refused(note):
    for notes in (
        {"preprocessor_config.json": note},
        {"processor_config.json": {"image_processor": note}},
    ):
        with pytest.raises(models.WeightsError) as caught:
            configs.vision({"config.json": CLIP, **notes}, "folder")
        assert next(iter(notes)) in str(caught.value)
        assert not isinstance(note, dict) or next(iter(note)) in str(caught.value)


def test_of_two_processors_the_newer_files_is_taken_and_a_difference_said(caplog):
    new, old = {"image_mean": [0.5] * 3}, {"image_mean": [0.25] * 3}
    notes = {
        "config.json": CLIP,
        "processor_config.json": {"image_processor": new},
        "preprocessor_config.json": old,
    }
    assert configs.vision(notes)["mean"] == (127.5,) * 3
    assert "two image processors that differ" in caplog.text
    caplog.clear()
    notes["preprocessor_config.json"] = new | {"size": 3}
    assert configs.vision(notes)["mean"] == (127.5,) * 3
    assert not caplog.records
    notes["processor_config.json"] = {
        "processor_class": "CLIPProcessor"
    }  # as before transformers 5
    notes["preprocessor_config.json"] = old
    assert configs.vision(notes)["mean"] == (63.75,) * 3


@pytest.mark.parametrize("number", [2, 3])
def test_resizing_is_pillows(number):
    import jax.numpy as jnp
    from PIL import Image

    from linearize.models import images as image_ops

    notes = {"preprocessor_config.json": {"resample": number, "do_normalize": False}}
    got = processors.of_transformers(notes, "clip", 24, "folder")
    rough = np.random.default_rng(1).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    smooth = Image.fromarray(rough).resize((40, 40), Image.Resampling.BICUBIC)
    for side in (24, 60):
        pixels = np.asarray(smooth)[None]
        expected = np.asarray(smooth.resize((side, side), number))
        ours = image_ops.prepare(jnp.asarray(pixels), side, (0.0,) * 3, (1.0,) * 3, got["resample"])
        assert np.abs(np.asarray(ours[0]) - expected).max() <= 1.01  # Pillow rounds twice


# OpenCLIP

MODEL = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"width": 64, "heads": 1, "layers": 2},
}


def of_open_clip(read=open_clip.vision, preprocess=None, text=None, model=None, **vision):
    made = {**MODEL, **(model or {}), "vision_cfg": {**MODEL["vision_cfg"], **vision}}
    made["text_cfg"] = {**MODEL["text_cfg"], **(text or {})}
    return read({"model_cfg": made, "preprocess_cfg": preprocess or {}}, "open_clip_config.json")


@pytest.mark.parametrize(
    ("changed", "field", "value"),
    [
        ({"norm_kwargs": {"eps": 1e-2}}, "eps", 1e-2),
        ({"act_kwargs": {"approximate": "tanh"}}, "activation", "gelu_pytorch_tanh"),
        ({"model": {"quick_gelu": True}}, "activation", "quick_gelu"),
        ({"pool_type": "avg"}, "pooling", "patch_mean"),
        ({"no_ln_pre": True}, "pre_norm", False),
        ({"ls_init_value": 1e-4}, "layer_scale", True),
        ({"head_width": 32}, "heads", 2),
        ({"mlp_ratio": 2.5}, "hidden", 160),
        ({"preprocess": {"mean": [0.5] * 3}}, "mean", (127.5,) * 3),
        ({"preprocess": {"interpolation": "bilinear"}}, "resample", "bilinear"),
    ],
)
def test_open_clips_fields_are_honoured(changed, field, value):
    plain, got = of_open_clip(), of_open_clip(**changed)
    assert got[field] == value != plain[field]
    assert {k: v for k, v in got.items() if k != field} == {
        k: v for k, v in plain.items() if k != field
    }


@pytest.mark.parametrize(
    "changed",
    [
        {"pool_type": "none"},
        {"pool_type": "avg", "final_ln_after_pool": True},
        {"global_average_pool": True},
        {"attentional_pool": True},
        {"attentional_pool": "parallel"},
        {"input_patchnorm": True},
        {"norm_kwargs": {"eps": -1}},
        {"norm_kwargs": {"elementwise_affine": False}},
        {"act_kwargs": {"inplace": True}},
        {"qk_norm": True},
        {"scaled_cosine_attn": True},
        {"block_type": "custom"},
        {"timm_model_name": "vit_base_patch16"},
        {"layers": [3, 4, 6, 3]},
        {"layers": 10**6},
        {"image_size": [32, 16]},
        {"head_width": 65},
        {"new_field": 1},
        {"preprocess": {"mode": "L"}},
        {"preprocess": {"std": [0, 0, 0]}},
        {"model": {"embed_dim": None}},
        {"model": {"multimodal_cfg": {}}},
        {"model": {"new_field": 1}},
    ],
)
def test_open_clips_other_fields_are_refused_by_name(changed):
    with pytest.raises(models.WeightsError) as caught:
        of_open_clip(**changed)
    key = list(changed)[-1]
    inner = changed[key] if key in ("model", "preprocess") else {key: changed[key]}
    assert "open_clip_config.json" in str(caught.value)
    assert next(iter(inner)) in str(caught.value) or "heads" in str(caught.value)


def test_open_clips_text_fields():
    text = {"pool_type": "eos", "eos_id": 7, "norm_kwargs": {"eps": 1e-3}, "mlp_ratio": 2.0}
    got = of_open_clip(open_clip.text, text=text)
    assert (got["end"], got["eps"], got["hidden"]) == (7, 1e-3, 128)
    assert of_open_clip(open_clip.text)["end"] is None
    for wrong in (
        {"no_causal_mask": True},
        {"pool_type": "last"},
        {"embed_cls": True},
        {"proj_type": "none"},
        {"proj_bias": True},
        {"hf_model_name": "roberta-base"},
        {"ls_init_value": 1e-5},
        {"heads": 3},
        {"new": 1},
    ):
        with pytest.raises(models.WeightsError, match=next(iter(wrong))):
            of_open_clip(open_clip.text, text=wrong)
        of_open_clip(text=wrong)  # the image encoder has nothing to do with it


def test_a_schema_says_what_it_expects():
    keys = {"a": schema.size(3, 5), "b": schema.only("x")}
    assert schema.read({}, keys, where="f") == {"a": 3, "b": "x"}
    with pytest.raises(
        models.WeightsError, match=r"f: 2 (.|\n)*a=6; expected an integer from 1 to 5"
    ):
        schema.read({"a": 6, "b": None}, keys, where="f")


OPENAI = [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]]
PUBLISHED = {
    "openai/clip-vit-base-patch32": (
        {
            "architectures": ["CLIPModel"],
            "initializer_factor": 1.0,
            "logit_scale_init_value": 2.6592,
            "model_type": "clip",
            "projection_dim": 512,
            "text_config": {"dropout": 0.0, "eos_token_id": 2, "bos_token_id": 0, "prefix": None},
            "text_config_dict": None,
            "torch_dtype": "float32",
            "vision_config": {"dropout": 0.0, "pruned_heads": {}, "patch_size": 32, "top_p": 1.0},
            "vision_config_dict": None,
        },
        {
            "crop_size": 224,
            "do_center_crop": True,
            "do_normalize": True,
            "do_resize": True,
            "feature_extractor_type": "CLIPFeatureExtractor",
            "image_mean": OPENAI[0],
            "image_std": OPENAI[1],
            "resample": 3,
            "size": 224,
        },
        {**clip.VISION["clip_vit_b32"]},
    ),
    "google/vit-base-patch16-224": (
        {
            "architectures": ["ViTForImageClassification"],
            "attention_probs_dropout_prob": 0.0,
            "hidden_act": "gelu",
            "id2label": {"0": "tench, Tinca tinca"},
            "layer_norm_eps": 1e-12,
            "model_type": "vit",
            "qkv_bias": True,
        },
        {
            "do_normalize": True,
            "do_resize": True,
            "image_processor_type": "ViTFeatureExtractor",
            "resample": 2,
            "size": {"height": 224, "width": 224},
        },
        configs.VIT_FIELDS | {"patch": 16, "grid": 14, "width": 768, "resample": "bilinear"},
    ),
    "facebook/dinov2-base": (
        {
            "apply_layernorm": True,
            "architectures": ["Dinov2Model"],
            "drop_path_rate": 0.0,
            "image_size": 518,
            "layerscale_value": 1.0,
            "mlp_ratio": 4,
            "model_type": "dinov2",
            "out_features": ["stage12"],
            "out_indices": [12],
            "reshape_hidden_states": True,
            "stage_names": ["stem", "stage1"],
            "use_swiglu_ffn": False,
        },
        {
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "do_convert_rgb": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_processor_type": "BitImageProcessor",
            "image_std": [0.229, 0.224, 0.225],
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": 256},
        },
        configs.DINOV2_FIELDS | {"patch": 14, "grid": 37, "image_size": 518},
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_files_as_they_are_published_are_read(name):
    config, processor, expected = PUBLISHED[name]
    got = configs.vision({"config.json": config, "preprocessor_config.json": processor})
    assert {k: got[k] for k in expected} == expected


def test_a_processor_without_a_configuration_is_heeded_too(tmp_path):
    """A named architecture needs no config.json; the pixels may still be told."""
    from linearize.models import families, loading

    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    note = {"image_processor": {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}}
    (tmp_path / "processor_config.json").write_text(json.dumps(note))
    row = families.row("clip_vit_b32")
    family, _ = loading._resolve("clip_vit_b32", row, tmp_path, None, True)
    assert family.options["mean"] == family.options["std"] == (127.5,) * 3
    (tmp_path / "processor_config.json").unlink()
    assert (
        loading._resolve("clip_vit_b32", row, tmp_path, None, True)[0].options["mean"] == clip.MEAN
    )

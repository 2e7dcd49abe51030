"""Each field that decides the function, changed alone: ours equals transformers' on the folder."""

import json

import numpy as np
import pytest

from linearize import models, tree

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
CLIP = ("clip", "CLIPVisionModelWithProjection", SIZES | {"projection_dim": 6})
VIT = ("vit", "ViTModel", SIZES)
DINOV2 = (
    "dinov2",
    "Dinov2Model",
    {k: v for k, v in SIZES.items() if k != "intermediate_size"} | {"mlp_ratio": 2},
)
CHANGES = [
    (CLIP, {"hidden_act": "gelu", "layer_norm_eps": 1e-2}),
    (CLIP, {"hidden_act": "relu", "num_attention_heads": 4}),
    (VIT, {"hidden_act": "gelu_new", "layer_norm_eps": 1e-3}),
    (VIT, {"hidden_act": "quick_gelu", "num_attention_heads": 1, "patch_size": 4}),
    (DINOV2, {"mlp_ratio": 3, "layer_norm_eps": 1e-2}),
    (DINOV2, {"use_swiglu_ffn": True, "hidden_act": "relu"}),
]
PIXELS = {"image_mean": [0.3, 0.5, 0.7], "image_std": [0.5, 0.2, 0.3], "rescale_factor": 1 / 200}


def save(case, changes, folder):
    """A random model of transformers with its processor, as transformers 5 lays them out."""
    _, name, fields = case
    kind = getattr(transformers, name)
    torch.manual_seed(0)
    made = kind(kind.config_class(**{**fields, **changes}, attn_implementation="eager")).eval()
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape) * parameter.shape[-1] ** -0.5
    made.save_pretrained(folder)
    side = {"height": 16, "width": 16}
    processor = transformers.CLIPImageProcessorPil(size=side, crop_size=side, **PIXELS)
    note = {"image_processor": json.loads(processor.to_json_string())}
    (folder / "processor_config.json").write_text(json.dumps(note))
    return made, processor


def features(made, pixels):
    out = made(pixels)
    if "image_embeds" in out:
        return out.image_embeds
    tokens = out.last_hidden_state
    if made.config.model_type == "dinov2":
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=-1)
    return tokens[:, 0]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)


@pytest.mark.slow(but=["case1-changes1", "case2-changes2", "case4-changes4", "case5-changes5"])
@pytest.mark.parametrize(("case", "changes"), CHANGES)
def test_features_of_changed_fields(case, changes, images, tmp_path):
    made, processor = save(case, changes, tmp_path)
    with torch.no_grad():
        pixels = processor(list(images), return_tensors="pt")["pixel_values"]
        expected = features(made, pixels).numpy()
    ours = models.load(case[0], weights=tmp_path)
    got = np.asarray(ours.f(ours.params, images))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    # and so they do after a way there and back, without the folder
    again = models.load(case[0], weights=models.export(tmp_path / "alone", ours))
    assert again.architecture == ours.architecture
    assert tree.fingerprint(again.params) == tree.fingerprint(ours.params)


def test_exporting_like_a_folder_of_another_function_is_refused(tmp_path):
    (tmp_path / "one").mkdir()
    save(CLIP, {}, tmp_path / "one")
    ours = models.load("clip", weights=tmp_path / "one", activation="relu")
    with pytest.raises(models.WeightsError, match=r"activation is 'quick_gelu' there and 'relu'"):
        models.export(tmp_path / "two", ours, like=tmp_path / "one")
    plain = models.load("clip", weights=tmp_path / "one")
    (tmp_path / "one" / "processor_config.json").unlink()
    with pytest.raises(models.WeightsError, match=r"mean is .* there and .* here"):
        models.export(tmp_path / "two", plain, like=tmp_path / "one")
    assert not (tmp_path / "two").exists()


def test_exporting_like_a_folder_takes_its_processor_along(tmp_path):
    (tmp_path / "one").mkdir()
    save(CLIP, {}, tmp_path / "one")
    ours = models.load("clip", weights=tmp_path / "one")
    again = models.load(
        "clip", weights=models.export(tmp_path / "two", ours, like=tmp_path / "one")
    )
    assert again.architecture == ours.architecture


CLASSIFIERS = [
    ("clip", "CLIPForImageClassification", "CLIPConfig"),
    ("vit", "ViTForImageClassification", "ViTConfig"),
    ("dinov2", "Dinov2ForImageClassification", "Dinov2Config"),
]


@pytest.mark.parametrize(("family", "name", "config"), CLASSIFIERS)
def test_classifiers_give_their_tower(family, name, config, images, tmp_path):
    fields = {"clip": {"vision_config": SIZES}, "vit": SIZES, "dinov2": DINOV2[2]}[family]
    torch.manual_seed(0)
    made = getattr(transformers, name)(getattr(transformers, config)(**fields, num_labels=3)).eval()
    made.save_pretrained(tmp_path)
    ours = models.load(family, weights=tmp_path)
    tower = made.vision_model if family == "clip" else made.base_model
    pixels = torch.tensor(
        ((images - np.asarray(ours.architecture["mean"])) / np.asarray(ours.architecture["std"]))
        .transpose(0, 3, 1, 2)
        .astype(np.float32)
    )
    with torch.no_grad():
        out = tower(pixels)
        expected = out.pooler_output if family == "clip" else features(tower, pixels)
    np.testing.assert_allclose(ours.f(ours.params, images), expected.numpy(), atol=1e-5, rtol=0)

"""CLIP, ViT and DINOv2 at their base sizes against transformers on torch, at random weights.

Photographs go through each side's own preprocessing and sentences through each side's own
tokenizer; the weights go through the folder that transformers writes.
"""

import json
import math
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from linearize import models
from linearize.data import preprocess
from linearize.models import heads

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.slow  # test_hf.py has the same promises at small shapes

SIDE = 224
SENTENCES = [
    "a photo of a temple in Beijing.",
    "a blurry photo of a flower, 1,000 petals!",
    "it's naïve — 日本語 😀",
]
FLOAT32 = 1e-4
"""Largest absolute difference of a feature or logit."""
BFLOAT16 = math.sqrt(12) * 2**-8
"""Largest norm of the difference of features, in their own norm.

A rounding to bfloat16 is off by at most 2^-8, and by 0.4 of that in the mean square. A block rounds
numbers of its tokens' size about six times, which in squares is one 2^-8; so are twelve blocks.
"""

SQUARE = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
FAMILIES = {
    "clip_vit_b32": ("CLIPModel", "CLIPConfig", {}, "CLIPImageProcessor", {}),
    "vit_b16": ("ViTModel", "ViTConfig", {}, "ViTImageProcessor", {}),
    "dinov2_b14": (
        "Dinov2Model",
        "Dinov2Config",
        {"image_size": 518},  # the Hub's; its table of positions is resized to 224 px
        "BitImageProcessor",
        SQUARE | IMAGENET,
    ),
}


def draw(model):
    """Weights at which tokens are of size one, and attention and positions matter."""
    torch.manual_seed(0)
    for module in model.modules():
        for name, x in module.named_parameters(recurse=False):
            if x.ndim == 0:
                x.data.fill_(math.log(100))  # CLIP's temperature, where OpenAI's models ended
            elif isinstance(module, torch.nn.LayerNorm):
                x.data.normal_(mean=float(name == "weight"), std=0.3)
            elif isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
                x.data.normal_(std=0.3 if x.ndim == 1 else x[0].numel() ** -0.5)
            else:
                x.data.normal_()


def readout(family, model, pixels):
    if family == "clip_vit_b32":
        return model.get_image_features(pixels).pooler_output
    tokens = model(pixels).last_hidden_state
    if family == "vit_b16":
        return tokens[:, 0]
    return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=-1)


def relative(got, expected):
    """The largest over rows of the norm of a difference, in the expected row's norm."""
    off = np.linalg.norm(np.float64(got) - expected, axis=1)
    return (off / np.linalg.norm(expected, axis=1)).max()


@pytest.fixture(scope="module")
def photographs():
    datasets = pytest.importorskip("sklearn.datasets")
    return [Image.fromarray(x) for x in datasets.load_sample_images().images]


@pytest.fixture(scope="module")
def images(photographs):
    return np.stack([preprocess.clip_image(x, SIDE) for x in photographs])


@pytest.fixture(scope="module")
def made(tmp_path_factory, photographs, images):
    """By family: a folder of a random model, and its photographs as pixels and as features."""
    root, found = tmp_path_factory.mktemp("base"), {}

    def get(family):
        if family not in found:
            found[family] = make(family)
        return found[family]

    def make(family):
        model, config, fields, processor, options = FAMILIES[family]
        theirs = getattr(transformers, model)(getattr(transformers, config)(**fields)).eval()
        draw(theirs)
        theirs.save_pretrained(root / family)
        processor = getattr(transformers, processor)(**options)
        processor.save_pretrained(root / family)
        # ViT's processor squeezes where the others crop
        seen = [Image.fromarray(x) for x in images] if family == "vit_b16" else photographs
        pixels = processor(seen, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            return root / family, pixels, readout(family, theirs, pixels).numpy()

    yield get
    shutil.rmtree(root)  # gigabytes, of which pytest would keep the last three


@pytest.fixture(scope="module")
def spoken(made):
    """CLIP's folder with a tokenizer, its tokens, text features and logits of the photographs."""
    folder, pixels, _ = made("clip_vit_b32")
    words = json.loads(models.load_tokenizer().backend.to_str())["model"]
    tokenizer = transformers.CLIPTokenizer(
        vocab=words["vocab"], merges=[tuple(m) for m in words["merges"]], model_max_length=77
    )
    tokenizer.save_pretrained(folder)
    tokens = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    theirs = transformers.CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        features = theirs.get_text_features(**tokens).pooler_output.numpy()
        logits = theirs(**tokens, pixel_values=pixels).logits_per_image.numpy()
    return folder, tokens, features, logits


def image_features(family, folder, images, **options):
    ours = models.load(family, weights=folder, image_size=SIDE, **options)
    return np.asarray(jax.jit(ours.f)(ours.params, images))


@pytest.mark.parametrize("family", FAMILIES)
def test_image_features(made, images, family):
    folder, _, expected = made(family)
    assert relative(expected[:1], expected[1:]) > 0.1  # the photographs are told apart
    got = image_features(family, folder, images)
    np.testing.assert_allclose(got, expected, atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_image_features_in_bfloat16(made, images, family):
    folder, _, expected = made(family)
    got = image_features(family, folder, images, dtype="bfloat16", scan=True)
    assert 2**-11 < relative(got, expected) < BFLOAT16


@pytest.mark.network
def test_tokens_text_features_and_logits(spoken, images):
    folder, tokens, expected, logits = spoken
    ids = models.load_tokenizer(folder)(SENTENCES)
    mask = tokens["attention_mask"].numpy()
    np.testing.assert_array_equal(ids[:, : mask.shape[1]], tokens["input_ids"].numpy() * mask)
    assert not ids[:, mask.shape[1] :].any()
    assert relative(expected[:1], expected[1:2]) > 0.1
    text = models.load_text("clip_vit_b32", weights=folder)
    got = models.text_features(text, ids)
    np.testing.assert_allclose(got, expected, atol=FLOAT32, rtol=0)
    head = models.zero_shot_head([row[None] for row in got], text.logit_scale)
    features = image_features("clip_vit_b32", folder, images)
    assert np.ptp(logits) > 1
    np.testing.assert_allclose(heads.apply_head(head, features), logits, atol=FLOAT32, rtol=0)


@pytest.mark.network
def test_text_features_in_bfloat16(spoken):
    folder, _, expected, _ = spoken
    text = models.load_text("clip_vit_b32", weights=folder, dtype="bfloat16")
    got = models.text_features(text, models.load_tokenizer(folder)(SENTENCES))
    assert 2**-11 < relative(got, expected) < BFLOAT16

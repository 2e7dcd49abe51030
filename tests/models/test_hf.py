"""CLIP, ViT and DINOv2 against transformers on torch, both ways, at random weights."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from linearize import models, taylor, tree
from linearize.models import clip, heads

torch = pytest.importorskip("torch")

VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 24,
}
TEXT = {
    "hidden_size": 40,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 12,
    "projection_dim": 24,
    "bos_token_id": 98,
    "eos_token_id": 99,
}
PLAIN = {k: v for k, v in VISION.items() if k != "projection_dim"}
DINOV2 = {k: v for k, v in PLAIN.items() if k != "intermediate_size"} | {"mlp_ratio": 2}

CASES = {
    "clip": ("clip", "CLIPModel", "CLIPConfig", None),
    "clip_vision": ("clip", "CLIPVisionModel", "CLIPVisionConfig", VISION),
    "clip_projected": (
        "clip",
        "CLIPVisionModelWithProjection",
        "CLIPVisionConfig",
        VISION | {"hidden_act": "gelu"},
    ),
    "vit": ("vit", "ViTModel", "ViTConfig", PLAIN),
    "dinov2": ("dinov2", "Dinov2Model", "Dinov2Config", DINOV2),
    "dinov2_swiglu": ("dinov2", "Dinov2Model", "Dinov2Config", DINOV2 | {"use_swiglu_ffn": True}),
}


SLOW_TOO = [pytest.param(case, marks=pytest.mark.slow) for case in ("vit", "dinov2")]


class Saved:
    """A random model of transformers, its folder, and the same model here."""

    def __init__(self, case, folder):
        import transformers

        self.family, model, config, fields = CASES[case]
        if fields is None:
            fields = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 24}
        made = getattr(transformers, config)(**fields, attn_implementation="eager")
        torch.manual_seed(0)
        self.case, self.folder = case, folder / case
        self.torch = getattr(transformers, model)(made).eval()
        for parameter in self.torch.parameters():
            spread = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.3
            parameter.data = torch.randn(parameter.shape) * spread
        self.torch.save_pretrained(self.folder)
        self.ours = models.load(self.family, weights=self.folder)

    def pixels(self, images):
        mean, std = (np.asarray(self.ours.architecture[k]) for k in ("mean", "std"))
        return torch.tensor(((images - mean) / std).transpose(0, 3, 1, 2), dtype=torch.float32)

    def features(self, images, **options):
        return self.readout(self.torch, self.pixels(images), **options)

    def readout(self, module, pixels, **options):
        if self.case == "clip":
            return module.get_image_features(pixels, **options).pooler_output
        out = module(pixels, **options)
        if self.case == "clip_vision":
            return out.pooler_output
        if self.case == "clip_projected":
            return out.image_embeds
        tokens = out.last_hidden_state
        if self.family == "vit":
            return tokens[:, 0]
        return torch.cat([tokens[:, 0], tokens[:, 1:].mean(1)], dim=-1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("hugging"), {}

    def get(case):
        if case not in made:
            made[case] = Saved(case, folder)
        return made[case]

    return get


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def tokens():
    drawn = np.random.default_rng(1).integers(3, 98, (4, 12))
    drawn[[0, 1, 2, 3, 3], [5, 11, 2, 7, 9]] = 99  # the last sentence ends twice
    return drawn


@pytest.mark.parametrize("case", CASES)
def test_features_equal_transformers(saved, images, case):
    model = saved(case)
    with torch.no_grad():
        expected = model.features(images).numpy()
    got = np.asarray(model.ours.f(model.ours.params, images))
    assert got.shape == expected.shape == (3, model.ours.feature_dim)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["clip", "vit", "dinov2"])
def test_resized_positions_equal_transformers(saved, case):
    model = saved(case)
    images = np.random.default_rng(2).integers(0, 256, (1, 48, 48, 3), dtype=np.uint8)
    options = {} if case == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        expected = model.features(images, **options).numpy()
    ours = models.load(model.family, weights=model.folder, image_size=48)
    got = np.asarray(ours.f(ours.params, images))
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_text_features_and_logits_equal_transformers(saved, images, tokens):
    model = saved("clip")
    text = models.load_text("clip", weights=model.folder)
    with torch.no_grad():
        ids = torch.tensor(tokens)
        out = model.torch(input_ids=ids, pixel_values=model.pixels(images))
        expected = model.torch.get_text_features(ids).pooler_output.numpy()
    got = models.text_features(text, tokens, batch=3)
    assert got.shape == (4, text.feature_dim)
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    head = models.zero_shot_head([row[None] for row in got], text.logit_scale)
    logits = heads.apply_head(head, model.ours.f(model.ours.params, images))
    np.testing.assert_allclose(logits, out.logits_per_image.numpy(), atol=1e-4, rtol=0)


def test_a_head_is_the_mean_over_templates(saved, tokens):
    text = models.load_text("clip", weights=saved("clip").folder)
    features = np.asarray(models.text_features(text, tokens), np.float64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    means = np.stack([unit[:3].mean(0), unit[3]])
    expected = np.exp(text.logit_scale) * means / np.linalg.norm(means, axis=1, keepdims=True)
    head = models.zero_shot_head([features[:3], features[3:]], text.logit_scale)
    np.testing.assert_allclose(head.scale * head.kernel, expected.T, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["clip", *SLOW_TOO])
def test_linearized_loss_and_gradient_equal_torch(saved, images, case, tmp_path):
    """f_lin, the loss and its gradient with respect to τ, each to 1e-4 of its own size."""
    model = saved(case)
    params0 = model.ours.params
    rng = np.random.default_rng(3)
    flat = tree.flatten(params0)
    tau = {n: np.float32(0.05 * rng.normal(size=x.shape)) for n, x in flat.items()}
    labels = np.arange(3)

    def loss(tau):
        out = taylor.tangent(model.ours.f)(params0, tau, images)
        picked = jax.nn.log_softmax(out)[jnp.arange(3), labels]
        return -picked.mean(), out

    (value, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tau)

    # τ goes to torch, and torch's gradient comes back, as checkpoints: no names are told here
    models.export(tmp_path / "moved", model.ours, tree.add(params0, tau), like=model.folder)
    moved = type(model.torch).from_pretrained(tmp_path / "moved").state_dict()
    start = {f"inner.{n}": p.detach() for n, p in model.torch.named_parameters()}
    delta = {n: (moved[n.removeprefix("inner.")] - p).requires_grad_() for n, p in start.items()}
    call, pixels = Call(model), model.pixels(images)
    f0, pushed = torch.func.jvp(
        lambda params: torch.func.functional_call(call, params, (pixels,)), (start,), (delta,)
    )
    linear = f0 + pushed
    expected_loss = torch.nn.functional.cross_entropy(linear, torch.tensor(labels))
    back = copy.deepcopy(model.torch)
    gradients = torch.autograd.grad(expected_loss, list(delta.values()), allow_unused=True)
    for parameter, g in zip(back.parameters(), gradients, strict=True):
        parameter.data = torch.zeros_like(parameter) if g is None else g
    back.save_pretrained(tmp_path / "gradient")
    expected_gradient = models.load(model.family, weights=tmp_path / "gradient").params

    expected = linear.detach().numpy()
    assert np.abs(pushed.detach().numpy()).max() > 0.1
    assert np.abs(np.asarray(out) - expected).max() < 1e-4 * np.abs(expected).max()
    assert abs(float(value) - expected_loss.item()) < 1e-4 * expected_loss.item()
    difference = {n: g - tree.flatten(expected_gradient)[n] for n, g in gradient.items()}
    assert tree.norm(difference) < 1e-4 * tree.norm(expected_gradient)


class Call(torch.nn.Module):
    """One function of a model as a module, for ``functional_call``."""

    def __init__(self, model):
        super().__init__()
        self.inner, self.model = model.torch, [model]

    def forward(self, pixels):
        return self.model[0].readout(self.inner, pixels)


@pytest.mark.parametrize("case", ["dinov2_swiglu", "clip", *SLOW_TOO])
def test_every_part_has_a_jacobian(saved, images, case):
    ours = saved(case).ours
    weights = np.random.default_rng(4).normal(size=(3, ours.feature_dim))
    pulled = jax.jit(jax.grad(lambda params: jnp.vdot(ours.f(params, images), weights)))
    parts: dict[str, float] = {}
    for name, leaf in tree.flatten(pulled(ours.params)).items():
        part = name.split("/")[0]
        parts[part] = max(parts.get(part, 0.0), float(np.abs(leaf).max()))
    assert all(np.isfinite(size) and size > 1e-3 for size in parts.values()), parts
    assert set(ours.blocks) <= set(parts)


@pytest.mark.slow
def test_scan_and_remat_change_nothing(saved, images):
    model = saved("clip")
    other = models.load("clip", weights=model.folder, scan=True, remat="dots")
    plain = model.ours
    tau = jax.tree.map(lambda x: 0.1 * jnp.ones_like(x), tree.flatten(plain.params))

    def gradient(backbone, tau):
        f = taylor.tangent(backbone.f)
        value = jax.grad(lambda tau: jnp.sum(f(backbone.params, tau, images) ** 2))
        return tree.flatten(jax.jit(value)(tau))

    expected = models.stack(gradient(plain, tau))
    got = gradient(other, models.stack(tau))
    assert got.keys() == expected.keys()
    for name, value in got.items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(value, expected[name], atol=2e-5 * scale, err_msg=name)


@pytest.mark.slow
def test_scanned_and_bfloat16_text_towers(saved, tokens):
    model = saved("clip")
    text = models.load_text("clip", weights=model.folder)
    expected = np.asarray(models.text_features(text, tokens))
    tower = clip.TextTower(**text.architecture, scan=True, remat="dots")
    got = tower.apply({"params": models.stack(text.params)}, jnp.asarray(tokens))
    np.testing.assert_allclose(got, expected, atol=1e-5, rtol=0)
    rough = models.load_text("clip", weights=model.folder, dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(rough.params)} == {jnp.dtype(jnp.float32)}
    near = np.asarray(models.text_features(rough, tokens))
    assert 0 < np.abs(near - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.slow(but=["clip_vision", "clip_projected", "vit", "dinov2_swiglu"])
@pytest.mark.parametrize("case", CASES)
def test_round_trip_through_transformers(saved, case, tmp_path):
    """Ours written like theirs is theirs to the bit; and moved parameters come back moved."""
    model = saved(case)
    out = models.export(tmp_path / "same", model.ours, like=model.folder)
    stated = safetensors.numpy.load_file(model.folder / "model.safetensors")
    written = safetensors.numpy.load_file(out / "model.safetensors")
    assert written.keys() == stated.keys()
    for name, array in stated.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)

    moved = jax.tree.map(lambda x: x + 0.5, model.ours.params)
    alone = models.export(tmp_path / "alone", model.ours, moved)
    again = models.load(model.family, weights=alone)
    assert tree.fingerprint(again.params) == tree.fingerprint(moved)
    assert again.architecture == model.ours.architecture
    import transformers

    name = json.loads((alone / "config.json").read_text())["architectures"][0]
    options = {"add_pooling_layer": False} if name == "ViTModel" else {}
    opened, info = getattr(transformers, name).from_pretrained(
        alone, output_loading_info=True, **options
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    other = Saved.__new__(Saved)
    other.family = model.family
    other.case = "clip_projected" if case == "clip" else case
    images = np.random.default_rng(5).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.no_grad():
        expected = other.readout(opened.eval(), model.pixels(images)).numpy()
    np.testing.assert_allclose(again.f(moved, images), expected, atol=1e-4 * np.abs(expected).max())


def test_shards_and_half_precision(saved, tmp_path):
    model = saved("clip")
    model.torch.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    for where in (tmp_path / "shards", tmp_path / "shards" / "model.safetensors.index.json"):
        got = models.load("clip", weights=where)
        assert tree.fingerprint(got.params) == tree.fingerprint(model.ours.params)
    next((tmp_path / "shards").glob("*-00002-*")).unlink()
    with pytest.raises(models.WeightsError, match=r"00002-of.*fetch all shards"):
        models.load("clip", weights=tmp_path / "shards")

    import transformers

    half = transformers.CLIPModel.from_pretrained(model.folder).half()
    half.save_pretrained(tmp_path / "half")
    got = models.load("clip", weights=tmp_path / "half")
    for name, leaf in tree.flatten(got.params).items():
        exact = tree.flatten(model.ours.params)[name]
        assert leaf.dtype == jnp.float32
        np.testing.assert_array_equal(leaf, np.float32(np.float16(exact)))
    written = models.export(tmp_path / "wide", got, like=tmp_path / "half")
    assert json.loads((written / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.slow
def test_options_of_loading(saved, images):
    model = saved("clip")
    first = models.load("clip", weights=model.folder, blocks=1)
    assert first.blocks == ("block_0",)
    token = models.load("clip", weights=model.folder, output="class_token")
    assert "projection" not in token.params
    kernel = model.ours.params["projection"]["kernel"]
    np.testing.assert_allclose(
        token.f(token.params, images) @ kernel,
        model.ours.f(model.ours.params, images),
        atol=1e-5,
        rtol=0,
    )
    rough = models.load("clip", weights=model.folder, dtype="bfloat16")
    got, expected = (np.asarray(b.f(b.params, images)) for b in (rough, model.ours))
    assert got.dtype == np.float32
    assert 0 < np.abs(got - expected).max() < 0.05 * np.abs(expected).max()
    other = models.load("clip", weights=model.folder, activation="relu")
    assert np.abs(np.asarray(other.f(other.params, images)) - expected).max() > 1e-2

"""Weights of others: what is wrong is said once, and nothing is half-loaded."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from linearize import io, models, tree
from linearize.models import vit
from linearize.models.hf import configs, engine, sources, tables

CONFIG = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 16,
    "projection_dim": 24,
}


@pytest.fixture(scope="module")
def tensors():
    """A random CLIP image encoder under Hugging Face's names."""
    fields = configs.vision({"config.json": CONFIG})
    assert fields.pop("image_size") == 32
    module = vit.ViT(image_size=32, **fields)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.uint8))
    rng = np.random.default_rng(0)
    leaves = {
        n: np.float32(rng.normal(size=x.shape)) for n, x in tree.flatten(shapes["params"]).items()
    }
    return engine.export_leaves(leaves, tables.CLIP_VISION)


@pytest.fixture
def folder(tensors, tmp_path):
    def write(change=None, config=CONFIG):
        changed = {**tensors, **(change or {})}
        changed = {n: x for n, x in changed.items() if x is not None}
        safetensors.numpy.save_file(changed, tmp_path / "model.safetensors")
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


LAYER = "vision_model.encoder.layers"


def test_everything_wrong_is_in_one_error(folder):
    first, last = f"{LAYER}.0.self_attn.q_proj.weight", f"{LAYER}.2.mlp.fc1.bias"
    change = {
        first: None,
        last: np.zeros(48, np.float32),
        "visual_projection.weight": np.zeros((24, 31), np.float32),
        "vision_model.post_layernorm.bias": np.zeros(32, np.int64),
        "head.weight": np.zeros(3, np.float32),
        "text_model.final_layer_norm.weight": np.zeros(7, np.float32),
    }
    with pytest.raises(models.WeightsError) as caught:
        models.load("clip", weights=folder(change))
    lines = str(caught.value).split("\n  ")[1:]
    assert sorted(line.split(":")[0] for line in lines) == [
        "beyond this model",
        "mis-shaped",
        "missing",
        "not floating",
        "unknown",
    ]
    for part in (
        f"missing: {first}",
        f"beyond this model: {last}",
        "visual_projection.weight (24, 31) float32 makes projection/kernel (31, 24), expected (32",
        "unknown: head.weight",
        "5 problem(s), nothing was loaded",
    ):
        assert part in str(caught.value)


def test_no_tensor_is_read_in_vain(tensors):
    read = []
    lazy = {n: (lambda n=n: read.append(n) or tensors[n]) for n in tensors}
    lazy["text_model.huge"] = lambda: pytest.fail("read")
    shapes = {"norm/scale": np.zeros(32), "norm/bias": np.zeros(32)}
    wanted = [n for n in tensors if "post_layernorm" in n]
    known = {"projection/kernel", "class_token"}
    with pytest.raises(models.WeightsError, match="beyond this model"):
        engine.import_leaves(lazy, [tables.CLIP_VISION], shapes, known=known)
    assert sorted(read) == sorted(wanted)


def test_weights_of_another_family_are_told(folder, tensors):
    where = folder(config=CONFIG | {"model_type": "dinov2", "mlp_ratio": 4})
    with pytest.raises(models.WeightsError, match="load it by the name 'dinov2'"):
        models.load("clip", weights=where)
    with pytest.raises(models.WeightsError, match=r"none of its .* tensors has a name of .*DINOv2"):
        models.load("dinov2", weights=where)
    with pytest.raises(models.WeightsError, match="'resnet'; there are: clip"):
        models.load("clip", weights=folder(config={"model_type": "resnet"}))
    with pytest.raises(models.WeightsError, match="width is 32, expected 768"):
        models.load("clip_vit_b32", weights=folder())
    with pytest.raises(models.WeightsError, match="'softplus'; there are 'gelu'"):
        models.load("clip", weights=folder(config=CONFIG | {"hidden_act": "softplus"}))


def test_damaged_files_are_told(folder):
    where = folder()
    file = where / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(models.WeightsError, match=r"model\.safetensors .*truncated"):
        models.load("clip", weights=where)
    file.write_bytes(b"<html>404</html>" * 10)
    with pytest.raises(models.WeightsError, match="no safetensors file"):
        models.load("clip", weights=where)
    (where / "config.json").write_text('{"model_type": "cl')
    with pytest.raises(models.WeightsError, match=r"config\.json is no readable JSON"):
        models.load("clip", weights=where)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"holds none of model\.safetensors"):
        models.load("clip", weights=where)


def test_values_that_are_not_finite_are_named(folder, tensors):
    bad = tensors["visual_projection.weight"].copy()
    bad[0, 0] = np.inf
    with pytest.raises(tree.NonFiniteError, match="projection/kernel: 1 of"):
        models.load("clip", weights=folder({"visual_projection.weight": bad}))


def test_no_weights_and_no_architecture(folder, tmp_path):
    with pytest.raises(ValueError, match=r"clip_vit_b32 has no packaged weights.*pretrained=False"):
        models.load("clip_vit_b32")
    with pytest.raises(ValueError, match="repository on the Hub such as"):
        models.load("clip", pretrained=False)
    with pytest.raises(models.WeightsError, match="load it by the name of one: clip_vit_b32"):
        models.load("clip", weights=folder(config=None) / "model.safetensors")
    with pytest.raises(FileNotFoundError, match="no file and no folder"):
        models.load("clip", weights=tmp_path / "none" / "of" / "these")
    with pytest.raises(ValueError, match="activation='relu'; mlp has no choice"):
        models.load("mlp", activation="relu")
    with pytest.raises(ValueError, match="mlp has no text tower"):
        models.load_text("mlp", weights="x")
    with pytest.raises(ValueError, match="pass weights="):
        models.load_text("clip_vit_b32")
    with pytest.raises(ValueError, match="seed=4294967296; expected an integer from 0 to"):
        models.load_text("clip_vit_b32", seed=2**32)  # which would draw what 0 does


def test_a_repository_while_offline(monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    with pytest.raises(models.WeightsError, match=r"no route.*pass weights=FOLDER"):
        models.load("clip_vit_b32", weights="openai/clip-vit-base-patch32")


def test_a_repository_that_is_fetched(monkeypatch, folder, tensors):
    hub = pytest.importorskip("huggingface_hub")
    where = folder()

    def fetch(repository, file):
        assert repository == "some/clip"
        if not (where / file).is_file():
            raise hub.errors.EntryNotFoundError(file)
        return str(where / file)

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    source = sources.read("some/clip")
    assert source.path == where / "model.safetensors"
    assert source.tensors.keys() == tensors.keys()
    assert source.notes["config.json"] == CONFIG


def test_own_names_are_read_too_and_export_checks_its_input(folder, tmp_path):
    ours = models.load("clip", weights=folder())
    io.save_tree(tmp_path / "own.safetensors", ours.params)
    again = models.load("clip", weights=tmp_path / "own.safetensors")
    assert tree.fingerprint(again.params) == tree.fingerprint(ours.params)
    with pytest.raises(tree.StructureMismatch, match="missing: block_0"):
        models.export(tmp_path / "out", ours, {"norm": ours.params["norm"]})
    with pytest.raises(ValueError, match="mlp is no CLIP"):
        models.export(tmp_path / "out", models.load("mlp"))
    short = models.load("clip", weights=folder(), blocks=1)
    with pytest.raises(models.WeightsError, match=r"missing in params: .*layers\.1"):
        models.export(tmp_path / "out", short, like=folder())
    assert not (tmp_path / "out").exists()
    moved = models.export(tmp_path / "out", short)
    assert json.loads((moved / "config.json").read_text())["num_hidden_layers"] == 1


def test_tokens_are_checked(tmp_path):
    text = models.TextEncoder("t", lambda p, x: x, {}, 0.0, 5, 10, 3, {})
    for tokens, message in (
        (np.zeros((2, 3)), "expected .N, T. integers"),
        (np.full((2, 3), 10), "has 10: is this another model's tokenizer"),
        (np.zeros(3, int), "expected .N, T. integers"),
    ):
        with pytest.raises(ValueError, match=message):
            models.text_features(text, tokens)
    with pytest.raises(ValueError, match="two or more"):
        models.zero_shot_head([jnp.ones((1, 3))], 0.0)
    with pytest.raises(ValueError, match="two or more"):
        models.zero_shot_head([jnp.ones((1, 3)), jnp.ones((1, 4))], 0.0)

"""Loading: the table, its options, caching, and bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from linearize import assets, io, models, taylor, tree
from linearize.models import images as image_ops
from linearize.models import key_map, layers, loading, onnx_tensors, small

RANDOM = [
    ("mlp", {}),
    ("mlp", {"blocks": 3, "image_size": 14}),
    ("cnn", {}),
    ("cnn_bn", {"blocks": 2}),
    ("efficientnet_lite0", {"pretrained": False, "image_size": 32, "blocks": 2}),
    ("vit_s_focus", {"pretrained": False, "image_size": 14, "blocks": 2}),
    ("vit_s_focus", {"pretrained": False, "image_size": 14, "blocks": 2, "scan": True}),
]


@pytest.mark.slow(but=["mlp-options0", "mlp-options1", "cnn_bn-options3"])
@pytest.mark.parametrize(("name", "options"), RANDOM)
def test_random_models_follow_their_seed_and_keep_their_promise(digits, name, options):
    backbone = models.load(name, seed=1, **options)
    images = digits(3, 20)
    out = jax.jit(backbone.f)(backbone.params, images)
    assert out.shape == (3, backbone.feature_dim)
    assert out.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(backbone.params)} == {jnp.dtype(jnp.float32)}
    same, other = models.load(name, seed=1, **options), models.load(name, seed=2, **options)
    assert tree.fingerprint(same.params) == tree.fingerprint(backbone.params)
    assert tree.fingerprint(other.params) != tree.fingerprint(backbone.params)


@pytest.mark.parametrize("name", ["mlp", "cnn", "cnn_bn"])
def test_every_block_of_the_small_models_has_a_jacobian(digits, name):
    backbone = models.load(name)
    images = digits(2, 28)
    assert set(backbone.params) == set(backbone.blocks)
    rng = np.random.default_rng(0)
    flat = tree.flatten(backbone.params)
    push = jax.jit(lambda params, tau, x: taylor.affine_terms(backbone.f, params, [tau], x)[1])
    for block in backbone.blocks:
        tau = {
            n: np.float32(rng.normal(size=x.shape) * n.startswith(f"{block}/"))
            for n, x in flat.items()
        }
        moved = np.asarray(push(backbone.params, tau, images))
        assert np.isfinite(moved).all()
        assert np.abs(moved).max() > 1e-3, block


@pytest.mark.slow
def test_scanned_and_unrolled_models_hold_the_same_weights():
    options = {"pretrained": False, "image_size": 14, "blocks": 3}
    plain = models.load("vit_s_focus", **options)
    scanned = models.load("vit_s_focus", scan=True, **options)
    assert scanned.blocks == ("blocks",)
    assert tree.fingerprint(models.unstack(scanned.params)) == tree.fingerprint(plain.params)
    flat = tree.flatten(plain.params)
    assert tree.fingerprint(models.stack(flat)) == tree.fingerprint(scanned.params)
    assert models.unstack(models.stack(flat)).keys() == flat.keys()
    del flat["block_1/norm_1/bias"]
    with pytest.raises(tree.StructureMismatch, match="missing: block_1/norm_1/bias"):
        models.stack(flat)


def test_last_blocks_are_patterns():
    backbone = models.Model(lambda p: p, {}, name="x", blocks=("block_1", "block_10"))
    params = {"block_1": {"a": 1.0}, "block_10": {"a": 1.0}, "norm": {"a": 1.0}}
    assert tree.select(params, backbone.last(1)) == ("block_10/a",)
    assert tree.select(params, backbone.last(2)) == ("block_1/a", "block_10/a")
    with pytest.raises(ValueError, match=r"n=3; x has 2 block\(s\)"):
        backbone.last(3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_s_focas", {}, "did you mean 'vit_s_focus'"),
        ("zzz", {}, "there are: mlp, cnn"),
        ("vit_s_focus", {"image_size": 32}, "multiples of 14: try 28"),
        ("vit_s_focus", {"image_size": 3}, "try 14"),
        ("vit_s_focus", {"blocks": 13}, "from 1 to 12"),
        ("vit_s_focus", {"blocks": 0}, "from 1 to 12"),
        ("mlp", {"blocks": 0}, "1 or more"),
        (
            "vit_s_focus",
            {"output": "logits"},
            "not one of 'features', 'class_token', 'patch_mean'",
        ),
        ("efficientnet_lite0", {"output": "class_token"}, "is not one of 'features', 'logits'"),
        ("mlp", {"dtype": "int8"}, "expected float32 or bfloat16"),
        ("mlp", {"remat": "some"}, "remat='some' is not one of 'none', 'dots', 'full'"),
        ("cnn", {"scan": True}, "only the ViT"),
    ],
)
def test_bad_options_are_answered(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.load(name, **options)


@pytest.mark.parametrize(
    ("shape", "dtype", "error", "message"),
    [
        ((28, 28, 3), np.uint8, ValueError, r"images\[None\]"),
        ((2, 3, 28, 28), np.uint8, ValueError, "channels come last"),
        ((2, 28, 28), np.uint8, ValueError, "repeat a grey channel"),
        ((2, 28, 28, 1), np.uint8, ValueError, "repeat a grey channel"),
        ((2, 28, 28, 4), np.uint8, ValueError, r"expected \(B, H, W, 3\)"),
        ((2, 28, 0, 3), np.uint8, ValueError, r"expected \(B, H, W, 3\)"),
        ((2, 28, 28, 3), np.float32, TypeError, "expected uint8"),
        ((2, 28, 28, 3), np.int32, TypeError, "expected uint8"),
    ],
)
def test_wrong_images_are_refused(shape, dtype, error, message):
    backbone = models.load("mlp")
    with pytest.raises(error, match=message):
        jax.jit(backbone.f)(backbone.params, np.zeros(shape, dtype))


@pytest.mark.parametrize("side", [14, 28, 40])
def test_resizing_equals_pillow(digits, side):
    images = digits(3, 28)
    got = image_ops.prepare(jnp.asarray(images), side, (0.0,) * 3, (1.0,) * 3)
    expected = [np.asarray(Image.fromarray(x).resize((side, side), 2), float) for x in images]
    np.testing.assert_allclose(got, np.stack(expected), atol=1.01)  # Pillow rounds twice


def test_nothing_is_resized_when_the_side_fits():
    shape = jax.ShapeDtypeStruct((2, 28, 28, 3), jnp.uint8)
    for size, resized in ((28, False), (14, True)):
        jaxpr = jax.make_jaxpr(lambda x, s=size: image_ops.prepare(x, s, (0.0,) * 3, (1.0,) * 3))
        assert ("dot_general" in str(jaxpr(shape))) is resized


# A packaged model in small: an MLP whose "asset" is a text file with one number, its weight.


@pytest.fixture
def packaged(monkeypatch, tmp_path):
    source = tmp_path / "weights.txt"
    calls = []

    def convert(path):
        calls.append(path)
        value = np.float32(path.read_text())
        return {
            "block_0/kernel": np.full((4 * 4 * 3, 2), value, np.float32),
            "block_0/bias": np.zeros(2, np.float32),
            "block_7/unused": np.ones(1, np.float32),
        }

    row = loading.Family(small.MLP, 4, 1, convert=convert, options={"width": 2})
    asset = dataclasses.replace(assets.REGISTRY["vit_s_focus"], sha256="0" * 64)
    monkeypatch.setitem(loading.MODELS, "packaged", row)
    monkeypatch.setitem(assets.REGISTRY, "packaged", asset)
    monkeypatch.setattr(assets, "fetch", lambda name: source)
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path / "cache"))
    source.write_text("2.5")
    return source, calls, tmp_path


def test_packaged_weights_are_converted_once(packaged):
    source, calls, folder = packaged
    first = models.load("packaged")
    assert float(first.params["block_0"]["kernel"][0, 0]) == 2.5
    source.unlink()
    second = models.load("packaged")
    assert len(calls) == 1
    assert tree.fingerprint(first.params) == tree.fingerprint(second.params)
    (converted,) = (folder / "cache" / "converted").iterdir()
    damaged = bytearray(converted.read_bytes())
    damaged[-1] ^= 1
    converted.write_bytes(damaged)
    source.write_text("2.5")
    third = models.load("packaged")
    assert len(calls) == 2
    assert tree.fingerprint(third.params) == tree.fingerprint(first.params)


def test_a_cache_that_cannot_be_written_costs_only_time(packaged):
    _, calls, folder = packaged
    (folder / "cache").mkdir()
    (folder / "cache" / "converted").write_text("a file where the folder should be")
    models.load("packaged")
    models.load("packaged")
    assert len(calls) == 2


def test_nan_in_packaged_weights_is_named_and_not_cached(packaged):
    source, _, folder = packaged
    source.write_text("nan")
    with pytest.raises(tree.NonFiniteError, match=r"weights of packaged[\s\S]*block_0/kernel: 96"):
        models.load("packaged")
    assert not list(folder.glob("cache/converted/*"))


def test_weights_of_another_model_are_refused_whole(packaged):
    with pytest.raises(tree.StructureMismatch, match=r"mis-shaped: block_0/kernel"):
        models.load("packaged", image_size=5)


def test_own_weights(packaged):
    _, _, folder = packaged
    base = models.load("packaged")
    moved = jax.tree.map(lambda x: x + 1, base.params)
    path = folder / "own.safetensors"
    io.save_tree(path, moved)
    assert tree.fingerprint(models.load("packaged", weights=path).params) == tree.fingerprint(moved)

    io.save_tree(path, {"block_0": {"kernel": moved["block_0"]["kernel"]}, "blok_0": moved})
    with pytest.raises(tree.StructureMismatch, match=r"extra: blok_0[\s\S]*missing: block_0/bias"):
        models.load("packaged", weights=path)

    flat = {n: np.array(x) for n, x in tree.flatten(moved).items()}
    flat["block_0/bias"][1] = np.nan
    safetensors.numpy.save_file(flat, path)
    with pytest.raises(tree.NonFiniteError, match=r"block_0/bias: 1 of 2"):
        models.load("packaged", weights=path)


@pytest.mark.slow
def test_own_weights_keep_packaged_statistics_and_may_be_stacked(tmp_path):
    cnn = models.load("cnn_bn", seed=3)
    io.save_tree(tmp_path / "cnn", cnn.params)
    again = models.load("cnn_bn", seed=4, weights=tmp_path / "cnn")
    assert tree.fingerprint(again.params) == tree.fingerprint(cnn.params)
    assert tree.fingerprint(again.batch_stats) == tree.fingerprint(cnn.batch_stats)
    options = {"pretrained": False, "image_size": 14, "blocks": 2}
    scanned = models.load("vit_s_focus", scan=True, seed=3, **options)
    io.save_tree(tmp_path / "vit", scanned.params)
    plain = models.load("vit_s_focus", weights=tmp_path / "vit", **options)
    assert tree.fingerprint(models.stack(plain.params)) == tree.fingerprint(scanned.params)


def test_a_key_map_lists_all_failures():
    rules = [(r"a\.(\d)", r"x_\1", None), (r"b\.(\d)", r"x_\1", None), (r"drop", None, None)]
    tensors = {n: np.zeros(1) for n in ("a.0", "a.1", "b.0", "c.0", "c.1", "drop")}
    with pytest.raises(models.WeightsError) as caught:
        key_map.rename(tensors, rules)
    for part in ("3 of 6", "second tensor for x_0: b.0", "unknown: c.0", "unknown: c.1"):
        assert part in str(caught.value)


def test_nesting_is_the_inverse_of_flattening():
    params = models.load("cnn").params
    assert jax.tree.structure(layers.nest(tree.flatten(params))) == jax.tree.structure(params)


def test_onnx_tensors_take_their_users_names(tmp_path):
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    kernel, scale = (rng.normal(size=s).astype(np.float32) for s in ((3, 2), (2,)))
    node = onnx.helper.make_node
    value = onnx.helper.make_tensor_value_info

    def write(extra=()):
        graph = onnx.helper.make_graph(
            [
                node("MatMul", ["x", "onnx::MatMul_7"], ["y"], name="/net/layer.0/fc/MatMul"),
                node("Mul", ["y", "net.scale"], ["z"], name="/net/Mul"),
                *extra,
            ],
            "net",
            [value("x", onnx.TensorProto.FLOAT, [1, 3])],
            [value("z", onnx.TensorProto.FLOAT, [1, 2])],
            [
                onnx.numpy_helper.from_array(kernel, "onnx::MatMul_7"),
                onnx.numpy_helper.from_array(scale, "net.scale"),
            ],
        )
        onnx.save(onnx.helper.make_model(graph), str(tmp_path / "net.onnx"))

    write()
    got = onnx_tensors.read(tmp_path / "net.onnx")
    assert list(got) == ["net.layer.0.fc.MatMul", "net.scale"]
    np.testing.assert_array_equal(got["net.layer.0.fc.MatMul"], kernel)
    np.testing.assert_array_equal(got["net.scale"], scale)

    write([node("MatMul", ["x", "onnx::MatMul_7"], ["w"], name="/net/again/MatMul")])
    with pytest.raises(models.WeightsError, match=r"onnx::MatMul_7 is used by"):
        onnx_tensors.read(tmp_path / "net.onnx")
    (tmp_path / "net.onnx").write_bytes(b"not a protocol buffer")
    with pytest.raises(models.WeightsError, match="fetch it again"):
        onnx_tensors.read(tmp_path / "net.onnx")
    with pytest.raises(FileNotFoundError):
        onnx_tensors.read(tmp_path / "none.onnx")

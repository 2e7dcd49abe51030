"""The packaged ViT and EfficientNet: every pair of implementations gives the same kernel.

``"products"`` takes a pass per example and output, so N and C are small; the models are their first
blocks, at the smallest sizes that keep every kind of layer. Both compute in float32 within
(:func:`linearize.models.load` offers no float64), so that is the only precision compared.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import models, ntk, tree
from linearize.ntk.plan import IMPLEMENTATIONS

pytestmark = pytest.mark.network

N, OUTPUTS = 2, 2
CASES = {
    "vit_s_focus": {"image_size": 28, "blocks": 1},
    "efficientnet_lite0": {"image_size": 16, "blocks": 2},
}


@functools.cache
def case(name):
    """``f(params, images)`` with features projected to two outputs, its parameters, images."""
    backbone = models.load(name, **CASES[name])
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(backbone.feature_dim, OUTPUTS)) / backbone.feature_dim**0.5

    def f(params, images):
        features = backbone.f(params, images)
        return features @ jnp.asarray(matrix, features.dtype)

    images = rng.integers(0, 256, (N, backbone.image_size, backbone.image_size, 3), np.uint8)
    return f, backbone.params, images


@functools.cache
def kernels(name):
    f, params, images = case(name)
    return {i: ntk.kernel(f, params, images, implementation=i) for i in IMPLEMENTATIONS}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_pair_of_implementations_agrees_to_1e_5(name):
    found = kernels(name)
    scale = np.abs(found["jacobian"]).max()
    for one in found.values():
        assert one.dtype == np.float32
        for other in found.values():
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * scale)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_the_square_of_the_jacobian(name):
    """Against ``jax.jacrev`` of the whole batch, leaf by leaf, summed in float64."""
    f, params, images = case(name)
    rows = jax.jit(jax.jacrev(f))(params, images)
    expected = 0.0
    for leaf in tree.flatten(rows).values():
        J = np.asarray(leaf, np.float64).reshape(N * OUTPUTS, -1)
        expected = expected + J @ J.T
    expected = expected.reshape(N, OUTPUTS, N, OUTPUTS).transpose(0, 2, 1, 3)
    found = kernels(name)["structured"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

"""Programs that hold Jacobians, where the compiler of jaxlib 0.10 went wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import linearize as lz
from linearize.ntk.compiled import jit

N, OUTPUTS, TOKENS, WIDTH = 8, 10, 64, 64  # more than 2**18 numbers, 32,768 an example


@pytest.fixture(scope="module")
def normalized():
    """A LayerNorm, a mean and a dense layer, and the derivative in the inputs by hand."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, TOKENS, WIDTH))
    weights = rng.normal(size=(WIDTH, OUTPUTS))
    scale = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    unit = x / scale
    # d/dx of (x / rms(x)) · w: w / s − u (u · w) / (D s), over T tokens
    inner = np.einsum("ntd,dc->nct", unit, weights)[..., None]
    expected = weights.T[None, :, None, :] - unit[:, None] * inner / WIDTH
    return x, weights, expected / scale[:, None] / TOKENS


def test_the_derivative_of_a_root_mean_square_norm(normalized):
    x, weights, expected = normalized
    weights = jnp.asarray(weights, jnp.float32)

    def f(x):
        square = (x * x).mean(-1, keepdims=True)
        return (x * jax.lax.rsqrt(square + 1e-6)).mean(0) @ weights

    found = np.asarray(jit(jax.vmap(jax.jacrev(f)))(jnp.asarray(x, jnp.float32)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("implementation", ["jacobian", "structured"])
def test_the_kernel_of_inputs_before_a_layer_norm(implementation):
    """One learned offset at every input: the kernel is that of the derivative in the inputs."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, TOKENS, WIDTH)).astype(np.float32)
    weights = jnp.asarray(rng.normal(size=(WIDTH, OUTPUTS)), jnp.float32)
    norm = linen.LayerNorm(use_fast_variance=False)
    fixed = norm.init(jax.random.key(0), x[0])

    def f(params, x):
        return norm.apply(fixed, x + params["offset"][None]).mean(1) @ weights.astype(x.dtype)

    params = {"offset": jnp.zeros((TOKENS, WIDTH))}
    found = lz.ntk.kernel(f, params, x, implementation=implementation)
    with jax.enable_x64(True):
        wide = {"offset": jnp.zeros((TOKENS, WIDTH), jnp.float64)}
        expected = lz.ntk.kernel(f, wide, x.astype(np.float64), implementation="products")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

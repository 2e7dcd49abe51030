"""Keys, integers and flags among the parameters: constants of the model, everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import evaluate, tree

pytestmark = pytest.mark.usefixtures("quick_compilation")

RNG = np.random.default_rng(0)
FROZEN = {
    "key": jax.random.key(0),
    "old": jax.random.PRNGKey(1),
    "step": jnp.array(3),
    "flag": jnp.array(True),
    "host": np.arange(2),
}
FLOATS = {
    "w": jnp.asarray(RNG.normal(size=(3, 4)), jnp.float32),
    "v": jnp.asarray(RNG.normal(size=(4, 2)), jnp.float32),
}
PARAMS = FLOATS | FROZEN
TAU = {n: jnp.asarray(0.3 * RNG.normal(size=p.shape), jnp.float32) for n, p in FLOATS.items()}
X = jnp.asarray(RNG.normal(size=(5, 3)), jnp.float32)
Y = np.array([0, 1, 0, 1, 1])


def f(params, x):
    noise = jax.random.normal(params["key"], (1, 4))
    return jnp.tanh(x @ params["w"] + noise) @ params["v"] * params["step"]


def plain(params, x):
    """The same, knowing its frozen leaves by itself."""
    return f({**params, **FROZEN}, x)


def gradient_like():
    """What ``jax.grad(allow_int=True)`` gives: float0 in place of integers."""
    of = {n: leaf for n, leaf in PARAMS.items() if n != "key"}
    slopes = jax.grad(lambda p: f({**p, "key": FROZEN["key"]}, X).sum(), allow_int=True)(of)
    return slopes | TAU


WHOLE = {"the parameters' tree": PARAMS | TAU, "a gradient's tree": gradient_like()}


@pytest.mark.slow(but=["structured", "products"])
@pytest.mark.parametrize("implementation", ["jacobian", "structured", "products"])
def test_kernels(implementation):
    found = lz.ntk.kernel(f, PARAMS, X, implementation=implementation)
    J = jax.jacobian(plain)(FLOATS, X)
    expected = sum(jnp.einsum("nc...,md...->nmcd", j, j) for j in J.values())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_task_vectors_of_dual_solutions_and_products():
    c = np.asarray(RNG.normal(size=(5, 2)), np.float32)
    expected = jax.vjp(lambda p: plain(p, X), FLOATS)[1](jnp.asarray(-c))[0]
    found = lz.ntk.to_task_vector(f, PARAMS, X, c)
    assert sorted(found.delta) == sorted(FLOATS)
    for name, leaf in expected.items():
        np.testing.assert_allclose(found.delta[name], leaf, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tau", WHOLE.values(), ids=WHOLE)
def test_affine_passes_and_displaced_models(tau):
    expected = evaluate.affine_outputs(plain, FLOATS, [TAU], X)
    found = evaluate.affine_outputs(f, PARAMS, [tau], X)
    np.testing.assert_allclose(found.jvps, expected.jvps, rtol=1e-5, atol=1e-6)
    accuracies = [
        evaluate.displaced_accuracy(g, p, [t], X, [[0.0], [1.0], [-2.0]], None, Y)
        for g, p, t in ((plain, FLOATS, TAU), (f, PARAMS, tau))
    ]
    np.testing.assert_array_equal(*accuracies)
    moved = tree.add(PARAMS, tau)
    assert moved["key"] is PARAMS["key"]
    np.testing.assert_array_equal(moved["step"], 3)

"""Sums written otherwise: the same numbers, in loops too, and nothing else changed."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from linearize.row_sums import as_products
from linearize.train.mesh import MeshConfig, Placement

RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 25, 40)).astype(np.float32)
KERNEL = (RNG.normal(size=(40, 40)) / 7).astype(np.float32)
BIAS = RNG.normal(size=40).astype(np.float32)


def equations(jaxpr):
    """Of a program and all programs inside."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def program(function, *args):
    return list(equations(jax.make_jaxpr(function)(*args).jaxpr))


def over_rows(found):
    """Sums and products that XLA would do slowly."""
    sums = [e for e in found if e.primitive.name == "reduce_sum" and 0 in e.params["axes"]]
    dots = [e.params["dimension_numbers"][0] for e in found if e.primitive.name == "dot_general"]
    return [e for e in sums if e.outvars[0].aval.ndim and e.invars[0].aval.shape[0] > 32] + [
        axes for axes, _ in dots if len(axes) > 1
    ]


def layer(kernel, bias, x):
    return jnp.tanh(jnp.tensordot(x, kernel, 1) + jnp.broadcast_to(bias, x.shape))


def plain(kernel, bias, x):
    return (layer(kernel, bias, x) ** 2).sum()


def scanned(kernel, bias, x):
    def body(x, _):
        return jax.checkpoint(layer)(kernel, bias, x), None

    return (jax.lax.scan(body, x, None, length=3)[0] ** 2).sum()


def chosen(kernel, bias, x):
    args = kernel, bias, x
    return jax.lax.cond(x[0, 0, 0] > 9, lambda *args: plain(*args) * 0, plain, *args)


@pytest.mark.parametrize("loss", [plain, scanned, chosen])
def test_a_gradient_is_that_of_float64(loss):
    gradient = jax.grad(loss, argnums=(0, 1))
    got = jax.jit(as_products(gradient))(KERNEL, BIAS, X)
    with jax.enable_x64(True):
        wide = [jnp.asarray(a, jnp.float64) for a in (KERNEL, BIAS, X)]
        expected = jax.jit(gradient)(*wide)
    for mine, theirs in zip(got, expected, strict=True):
        assert mine.dtype == jnp.float32
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())
    assert over_rows(program(gradient, KERNEL, BIAS, X))
    assert not over_rows(program(as_products(gradient), KERNEL, BIAS, X))


def test_many_rows_round_less_than_added_one_after_another():
    x = RNG.normal(size=(3200, 32)).astype(np.float32)
    exact = x.astype(np.float64).sum(0)
    naive = np.abs(np.add.accumulate(x, axis=0, dtype=np.float32)[-1] - exact).max()
    ours = np.abs(np.asarray(jax.jit(as_products(lambda x: x.sum(0)))(x)) - exact).max()
    assert 0 < ours < naive / 2


LARGE = RNG.normal(size=(3, 1 << 10, 385)).astype(np.float32)


@pytest.mark.parametrize("loss", [lambda x: jnp.vdot(x, x), lambda x: jnp.tensordot(x, x, x.ndim)])
def test_an_inner_product_is_summed_in_pieces(loss):
    """And in none other: XLA would write out as many products as there are numbers."""
    exact = (LARGE.astype(np.float64) ** 2).sum()
    got = jax.jit(as_products(loss))(LARGE)
    assert got.dtype == jnp.float32
    assert abs(float(got) - exact) < 2e-7 * exact
    (loop,) = [e for e in program(as_products(loss), LARGE) if e.primitive.name == "scan"]
    largest = max(e.outvars[0].aval.size for e in equations(loop.params["jaxpr"].jaxpr))
    assert loop.params["length"] * largest == LARGE.size
    assert largest <= 1 << 17


def test_an_inner_product_in_float64_is_in_float64():
    with jax.enable_x64(True):
        x, y = jnp.asarray(LARGE, jnp.float64), jnp.asarray(LARGE[::-1], jnp.float64)
        got = as_products(lambda x, y: jnp.tensordot(x, y, 3))(x, y)
        assert got.dtype == jnp.float64
        expected = math.fsum((np.asarray(x) * np.asarray(y)).ravel())
        assert abs(float(got) - expected) < 1e-13 * LARGE.size


SAME = {
    "an inner product of few": lambda x: jnp.vdot(x, x),
    "of a prime number": lambda x: jnp.vdot(jnp.zeros(1299709), jnp.zeros(1299709)),
    "of half precision": lambda x: jnp.vdot(*[jnp.zeros((8, 1 << 18), jnp.bfloat16)] * 2),
    "of another precision than asked for": lambda x: jnp.vdot(
        *[jnp.zeros(1 << 21)] * 2, preferred_element_type=jnp.bfloat16
    ),
    "of axes in another order": lambda x: jnp.einsum(
        "ij,ji->", jnp.zeros((1 << 10, 1 << 11)), jnp.zeros((1 << 11, 1 << 10))
    ),
    "of complex numbers": lambda x: jnp.vdot(*[jnp.zeros(1 << 21, jnp.complex64)] * 2),
    "few rows": lambda x: x[:, 0].sum(0),
    "few columns": lambda x: x[:, :, :3].sum((0, 1)),
    "last axis": lambda x: x.sum(-1),
    "axis between": lambda x: x.sum(1),
    "everything": lambda x: x.sum(),
    "integers": lambda x: x.astype(jnp.int32).sum((0, 1)),
    "half precision": lambda x: jax.lax.reduce_sum(x.astype(jnp.bfloat16), axes=(0, 1)),
    "products over one axis": lambda x: x[0].T @ x[0],
    "products in a batch": lambda x: jnp.einsum("btd,bte->bde", x, x),
    "a prime number of rows": lambda x: jnp.zeros((9973, 40)).sum(0),
}


@pytest.mark.parametrize("function", SAME.values(), ids=SAME)
def test_everything_else_is_as_it_was(function):
    assert str(jax.make_jaxpr(as_products(function))(X)) == str(jax.make_jaxpr(function)(X))


def test_a_mesh_sums_as_xla_does():
    def gradient(x):
        return x.sum(0)

    assert Placement.make(None).summed(gradient) is not gradient
    assert Placement.make(MeshConfig()).summed(gradient) is gradient

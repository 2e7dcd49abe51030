"""The core on eight devices gives what it gives on one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from linearize import TaskVector, affine_terms, displaced, linearize, tangent, tree

CLOSE = {"rtol": 1e-5, "atol": 1e-5}
RULES = {"up": P(None, "model"), "down": P("model", None), "bias": P()}


def f(params, x):
    return jnp.tanh(x @ params["up"] + params["bias"][None]) @ params["down"]


def make(seed):
    up, down, bias = jax.random.split(jax.random.key(seed), 3)
    return {
        "up": jax.random.normal(up, (8, 16)) / 4,
        "down": jax.random.normal(down, (16, 4)) / 4,
        "bias": jax.random.normal(bias, (16,)),
    }


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)


@pytest.fixture
def place(mesh):
    def place(params):
        return {n: jax.device_put(p, NamedSharding(mesh, RULES[n])) for n, p in params.items()}

    return place


@pytest.fixture
def x(mesh):
    x = jax.random.normal(jax.random.key(7), (16, 8))
    return x, jax.device_put(x, NamedSharding(mesh, P("data", None)))


@pytest.mark.parametrize("method", ["auto", "double_vjp"])
def test_value_and_gradient(place, x, method):
    step = jax.jit(
        jax.value_and_grad(
            lambda t, p, x: jnp.mean(tangent(f, method=method)(p, t, x) ** 2), argnums=0
        )
    )
    params, tau = make(0), make(1)
    expected = step(tau, params, x[0])
    got = step(place(tau), place(params), x[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), got, expected)
    for n in ("up", "down"):  # where the compiler leaves the small bias is its own choice
        assert not got[1][n].sharding.is_fully_replicated


def test_outputs_stay_on_their_devices(place, x, mesh):
    out = jax.jit(tangent(f))(place(make(0)), place(make(1)), x[1])
    assert out.sharding.is_equivalent_to(NamedSharding(mesh, P("data", None)), 2)
    np.testing.assert_allclose(out, tangent(f)(make(0), make(1), x[0]), **CLOSE)


@pytest.mark.slow
def test_eager_and_other_entries(place, x):
    params0, params = make(0), make(1)
    for compute in (
        lambda put, x: linearize(f, put(params0))(put(params), x),
        lambda put, x: displaced(f)(put(params0), put(params), x),
        lambda put, x: affine_terms(f, put(params0), [put(params), put(params0)], x),
        lambda put, x: jax.jit(lambda p, a, b, x: affine_terms(f, p, [a, b], x))(
            put(params0), put(params), put(params0), x
        ),
    ):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **CLOSE),
            compute(place, x[1]),
            compute(lambda p: p, x[0]),
        )


def test_task_vectors(place, tmp_path):
    params0, params = make(0), make(1)
    assert tree.fingerprint(place(params0)) == tree.fingerprint(params0)
    tau = TaskVector.between(place(params0), place(params))
    for n, d in tau.delta.items():
        assert d.sharding.is_equivalent_to(place(params)[n].sharding, d.ndim)
    edited = tau.apply_to(place(params0), 0.5)
    plain = TaskVector.between(params0, params)
    for n, leaf in edited.items():
        assert leaf.sharding.is_equivalent_to(place(params)[n].sharding, leaf.ndim)
        np.testing.assert_allclose(leaf, plain.apply_to(params0, 0.5)[n], **CLOSE)
    np.testing.assert_allclose(tau.norm(), plain.norm(), rtol=1e-5)
    loaded = TaskVector.load(tau.save(tmp_path / "tau"))
    for n, d in plain.delta.items():
        np.testing.assert_array_equal(loaded.delta[n], d)


def test_inside_shard_map(x, mesh):
    """Data-parallel gradient written by hand: each device its examples, then the mean."""
    params, tau = make(0), make(1)

    def loss(t, p, x):
        return jnp.mean(tangent(f)(p, t, x) ** 2)

    def local(t, p, x):
        return jax.lax.pmean(jax.grad(loss)(t, p, x), ("data", "model"))

    sharded = jax.jit(
        jax.shard_map(
            local, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=P(), check_vma=False
        )
    )
    got, expected = sharded(tau, params, x[1]), jax.grad(loss)(tau, params, x[0])
    for n in tau:
        np.testing.assert_allclose(got[n], expected[n], **CLOSE)

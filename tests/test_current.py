"""Programs that are remembered are of the function as it is: of what it holds now, too."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import linearize as lz
from linearize.current import current, written
from linearize.evaluate import affine_outputs, outputs
from linearize.train import OptimConfig, Penalty, TrainConfig, fine_tune

X = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
PARAMS = {"w": np.float32([[1, 2, 0], [0, 1, 1]])}
TAU = {"w": np.ones((2, 3), np.float32)}
factor = 1.0


class Scaled:
    """A model that is an object with state."""

    def __init__(self, scale):
        self.inner = {"scale": [scale]}

    def __call__(self, params, x):
        return self.inner["scale"][0] * (x @ params["w"])

    def method(self, params, x):
        return self(params, x)


def closure():
    scale = np.ones((), np.float32)

    def f(params, x):
        return scale * (x @ params["w"])

    return f, lambda: scale.fill(3)


def rebound():
    scale = jnp.ones(())

    def f(params, x):
        return scale * (x @ params["w"])

    def change():
        nonlocal scale
        scale = jnp.full((), 3.0)

    return f, change


def inner():
    f, change = closure()
    return (lambda params, x: f(params, x)), change


def of_an_object():
    model = Scaled(1.0)
    return model, lambda: model.inner.update(scale=[3.0])


def method():
    model = Scaled(1.0)
    return model.method, lambda: model.inner.update(scale=[3.0])


def partial():
    options = {"scale": 1.0}

    def f(options, params, x):
        return options["scale"] * (x @ params["w"])

    return functools.partial(f, options), lambda: options.update(scale=3.0)


def of_the_module():
    def change():
        global factor
        factor = 3.0

    globals()["factor"] = 1.0
    return (lambda params, x: factor * (x @ params["w"])), change


def of_an_nnx_module():
    scale = nnx.Linear(1, 1, use_bias=False, rngs=nnx.Rngs(0))
    scale.kernel[...] = jnp.ones((1, 1))
    return (
        lambda params, x: scale(jnp.ones(1))[0] * (x @ params["w"]),
        lambda: nnx.update(scale, {"kernel": jnp.full((1, 1), 3.0)}),
    )


def of_a_mode_of_an_nnx_module():
    drop = nnx.Dropout(1.0, deterministic=True, rngs=nnx.Rngs(0))
    parts = nnx.Sequential(drop)  # what it drops is all
    return (
        lambda params, x: (3 - 2 * parts(jnp.ones(()))) * (x @ params["w"]),
        parts.train,
    )


CASES = (
    *(closure, rebound, inner, of_an_object, method, partial, of_the_module),
    *(of_an_nnx_module, of_a_mode_of_an_nnx_module),
)


@pytest.mark.parametrize("case", CASES)
def test_a_function_that_changed_is_computed_anew(case):
    f, change = case()
    before = outputs(f, PARAMS, X)
    change()
    np.testing.assert_allclose(outputs(f, PARAMS, X), 3 * before, rtol=1e-6)
    np.testing.assert_allclose(before, X @ PARAMS["w"], rtol=1e-6)


def kernel(f):
    return np.sqrt(np.diag(lz.ntk.kernel(f, PARAMS, X, output="trace")))


def trained(f):
    config = TrainConfig(optim=OptimConfig(name="sgd", lr=1.0, warmup=0), steps=1, batch_size=6)
    y = {"inputs": X, "targets": np.ones((6, 3), np.float32)}
    loss = lambda z, batch: (z * batch["targets"]).sum(-1)  # noqa: E731
    done = fine_tune(f, PARAMS, y, regime="linear", loss=loss, config=config, progress=False)
    return done.tau.delta["w"]


LINEAR = {
    "affine": lambda f: affine_outputs(f, PARAMS, [TAU], X).jvps,
    "kernel": kernel,
    "products": lambda f: lz.ntk.vector_product(f, PARAMS, X)(np.ones((6, 3), np.float32)) ** 0.5,
    "to_task_vector": lambda f: lz.ntk.to_task_vector(f, PARAMS, X, np.ones((6, 3))).delta["w"],
    "training": trained,
}


@pytest.mark.parametrize("way", [way for way in LINEAR if way != "products"])
def test_every_way_sees_the_change(way):
    f, change = closure()
    before = np.asarray(LINEAR[way](f))
    change()
    assert np.abs(before).max() > 0
    np.testing.assert_allclose(LINEAR[way](f), 3 * before, rtol=1e-5)


def test_what_is_the_same_program_stays_the_same_object():
    calls = []

    def f(params, x):
        calls.append(1)
        return x @ params["w"]

    assert current(f, PARAMS, X) is f
    calls.append(1)
    twice = current(f, PARAMS, X)
    calls.append(1)
    assert current(f, PARAMS, X) is twice
    held = jnp.ones(3)
    g = lambda params, x: held * (x @ params["w"])  # noqa: E731
    assert all(current(g, PARAMS, X) is g for _ in range(3))


def test_a_partial_stays_a_pytree_and_a_fingerprint_stays():
    scale = np.ones((), np.float32)

    def f(bias, params, x):
        return scale * (x @ params["w"]) + bias

    f.fingerprint = "scaled"
    given = jax.tree_util.Partial(f, jnp.ones((1, 3)))
    assert current(given, PARAMS, X) is given
    scale.fill(3)
    now = current(given, PARAMS, X)
    assert len(jax.tree.leaves(now)) == 1
    assert lz.identity.stated(now) == lz.identity.stated(given)
    np.testing.assert_allclose(now(PARAMS, X), 3 * X @ PARAMS["w"] + 1, rtol=1e-6)


def helper(x, by=1.0):
    return by * factor * x


def other(x):
    return x + 1


def calls(x):
    return helper(x)


@dataclasses.dataclass
class Given:
    function: object
    weight: float
    state: object = ()


def test_functions_are_known_by_how_they_are_written(monkeypatch):
    """To numbers and arrays that they are given, however deep, and by nothing of this library's."""
    step = functools.partial(lz.affine_terms, method="jvp", taus=[Given(helper, 0.5)])

    def given(*fields):
        return functools.partial(step, taus=[Given(*fields)])

    ways = [
        *((helper,), (other,), (helper, other), (calls,), (step,)),
        *((functools.partial(helper, by=by),) for by in (2.0, 3.0)),
        *((given(helper, 0.25),), (given(other, 0.5),)),
        *((given(helper, 0.5, made(2)),) for made in (np.ones, np.zeros, jnp.ones)),
        (functools.partial(step, method="double_vjp"),),
        *((Scaled(scale),) for scale in (1.0, 2.0)),
    ]
    before = [written(*way) for way in ways]
    assert len(set(before)) == len(ways)
    assert before == [written(*way) for way in ways]
    assert written(lz.affine_terms) == written() == ""
    monkeypatch.setitem(globals(), "factor", 2.0)  # which helper looks up
    after = [written(*way) for way in ways]
    assert [ways[i][0] for i in range(len(ways)) if before[i] == after[i]] == [
        *(other, ways[8][0], *(way[0] for way in ways[-2:]))
    ]


class Plain:
    """Of one's own, without state that others see."""

    def __init__(self, value):
        self.value = value

    def of(self, study, task):
        return self.value


def holding(value):
    return lambda: value


@pytest.mark.parametrize(
    "way",
    [
        lambda by: Plain(by).of,
        lambda by: holding(Plain(by)),
        lambda by: holding(Plain(Plain(by))),
        lambda by: holding(Plain(by).of),
        lambda by: holding(Penalty("ridge", helper, by)),
        lambda by: holding({"one", f"by {by}"}),
        lambda by: functools.partial(helper, by=Plain(by)),
        lambda by: functools.partial(helper, by={"one", f"by {by}"}),
        lambda by: eval(f"lambda: {by}"),
        lambda by: functools.partial(helper, by=nnx.State({"w": nnx.Param(jnp.zeros(5000) + by)})),
        lambda by: functools.partial(helper, by=jax.random.key(int(by))),
        lambda by: functools.partial(helper, by=jnp.sin if by < 1 else jnp.cos),
    ],
    ids=[
        *("method", "object", "nested", "bound", "penalty", "set", "partial", "items", "typed"),
        *("tree", "key", "of jax"),
    ],
)
def test_what_a_function_s_objects_hold_is_how_it_is_written(way):
    assert written(way(0.3)) == written(way(0.3)) != written(way(5.0))

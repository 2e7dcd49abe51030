"""Every optimizer offered does to τ what optax does to θ, in float64, step by step."""

import inspect
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from linearize import tangent
from linearize.train import cross_entropy
from linearize.train.mesh import Placement
from linearize.train.optim import OptimConfig, learning_rate, optimizers
from linearize.train.step import Callables, Recipe

STEPS = 5
NAMES = sorted(optimizers())
BY_SIZE = ("adafactor", "contrib.dog", "contrib.dowg", "fromage", "lamb", "lars")
"""Those whose steps depend on ‖θ‖, as their papers say."""
FREE_OF_RATES = ("contrib.dadapt_adamw", "contrib.dog", "contrib.dowg", "contrib.prodigy")
COMMON = ("adamw", "contrib.schedule_free_sgd", "fromage", "lion", "sgd")
"""One of each kind; the others' further settings are slow."""
OWN_DECAY_BY_SIZE = ("contrib.dog", "contrib.dowg", "lamb", "lars")


@pytest.fixture(scope="module", autouse=True)
def double_precision() -> Iterator[None]:
    """So that what differs by more than rounding shows, in steps as small as 1e-6 of θ too."""
    with jax.enable_x64(True):
        yield


def data():
    rng = np.random.default_rng(0)
    params0 = {"b": rng.normal(size=3), "w": rng.normal(size=(4, 3))}
    batch = {"inputs": rng.normal(size=(8, 4)), "labels": rng.integers(0, 3, 8)}
    return jax.tree.map(jnp.asarray, params0), jax.tree.map(jnp.asarray, batch)


def f(params, x):
    return jnp.tanh(x @ params["w"] + params["b"][None])


def mean_square(outputs, batch):
    return jnp.sum((outputs - jax.nn.one_hot(batch["labels"], 3)) ** 2, axis=-1)


def settings(name, **overrides):
    lr = 1.0 if name in FREE_OF_RATES else 0.05
    return OptimConfig(name=name, **{"lr": lr, "warmup": 2, "clip": None, **overrides})


def ours(config, regime="nonlinear"):
    """τ after some steps of :class:`Recipe`, run op by op."""
    params0, batch = data()
    split, arrays = Callables.of({"f": f, "loss": mean_square, "readout": None, "augment": None})
    recipe = Recipe(
        functions=split,
        regime=regime,
        inputs=("inputs",),
        optim=config,
        accumulate=1,
        label_smoothing=0.0,
        ascend=False,
        own_loss=True,
    )
    fixed = {"params0": params0, "arrays": arrays, "total": STEPS, "key": jax.random.key(0)}
    state = recipe.init(params0, STEPS, ("b", "w"))
    for _ in range(STEPS):
        state, _ = recipe.step(state, fixed, batch, Placement.make(None), in_place=False)
    return recipe.answer(params0, state)


def plain(config, start, gradient, **decay):
    """Optax's own loop from ``start``; where it evaluates an average, that."""
    transform = optimizers()[config.name](learning_rate(config, STEPS), **decay)
    clipping = optax.identity() if config.clip is None else optax.clip_by_global_norm(config.clip)
    x, state = start, transform.init(start)
    for _ in range(STEPS):
        clipped, _ = clipping.update(gradient(x), clipping.init(x))
        updates, state = transform.update(clipped, state, x)
        x = optax.apply_updates(x, updates)
    if "schedule_free" in config.name:
        x = optax.contrib.schedule_free_eval_params(state, x)
    return jax.tree.map(jnp.subtract, x, start)


@jax.grad
def gradient(params):
    _, batch = data()
    return jnp.mean(mean_square(f(params, batch["inputs"]), batch))


def at_theta0_plus(tau):
    return gradient(jax.tree.map(jnp.add, data()[0], tau))


def own_decay(name):
    return "weight_decay" in inspect.signature(optimizers()[name]).parameters


def assert_close(got, expected):
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(expected))
    assert scale > 0
    for name, leaf in expected.items():
        np.testing.assert_allclose(got[name], leaf, rtol=0, atol=1e-7 * scale)


def seldom(names):
    """All but the common ones are slow."""
    return [n if n in COMMON else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", seldom(NAMES))
def test_without_decay_it_is_optax_on_theta(name):
    off = {"weight_decay": 0.0} if own_decay(name) else {}
    assert_close(ours(settings(name)), plain(settings(name), data()[0], gradient, **off))


@pytest.mark.parametrize("name", seldom(NAMES))
def test_with_a_clipped_gradient_too(name):
    config = settings(name, clip=0.1)
    off = {"weight_decay": 0.0} if own_decay(name) else {}
    assert_close(ours(config), plain(config, data()[0], gradient, **off))


@pytest.mark.parametrize("name", seldom(NAMES))
def test_decay_of_theta_is_optax_with_decay(name):
    """Its own where it has one; else added to the gradient."""
    config = settings(name, weight_decay=0.3, decay="theta")
    if own_decay(name):
        expected = plain(config, data()[0], gradient, weight_decay=0.3)
    else:
        expected = plain(
            config, data()[0], lambda x: jax.tree.map(lambda g, p: g + 0.3 * p, gradient(x), x)
        )
    assert_close(ours(config), expected)


@pytest.mark.parametrize("name", seldom(sorted(set(NAMES) - set(OWN_DECAY_BY_SIZE))))
def test_decay_of_tau_is_optax_around_theta0(name):
    """As optax decays to 0 with the origin at θ0; what has no decay gets that of τ as gradient."""
    config = settings(name, weight_decay=0.3)
    params0 = data()[0]

    def with_decay(theta):
        return jax.tree.map(lambda g, p, p0: g + 0.3 * (p - p0), gradient(theta), theta, params0)

    if own_decay(name):
        zero = jax.tree.map(jnp.zeros_like, params0)
        expected = plain(config, zero, at_theta0_plus, weight_decay=0.3)
    else:
        expected = plain(config, params0, with_decay)
    assert_close(ours(config), expected)


@pytest.mark.parametrize("name", OWN_DECAY_BY_SIZE)
def test_decay_of_tau_is_refused_where_it_has_no_place(name):
    with pytest.raises(
        ValueError, match=r"optim\.weight_decay: the steps of .*optim\.decay='theta'"
    ):
        OptimConfig(name=name, weight_decay=0.1)


def test_an_option_that_decays_is_decay():
    with pytest.raises(ValueError, match=r"optim\.options: the steps of adafactor"):
        OptimConfig(name="adafactor", options={"weight_decay_rate": 0.1})
    OptimConfig(name="adafactor", options={"weight_decay_rate": 0.1}, decay="theta")
    assert not OptimConfig(name="contrib.muon", options={"adam_weight_decay": 0.1}).sees_theta


def test_who_is_given_theta():
    """And who τ, at the default: all whose papers do not speak of ‖θ‖."""
    assert tuple(name for name in NAMES if OptimConfig(name=name).sees_theta) == BY_SIZE
    assert all(OptimConfig(name=name, decay="theta").sees_theta for name in NAMES)


@pytest.mark.parametrize("name", ["adamw", "contrib.schedule_free_sgd", "lamb"])
def test_in_the_linear_regime_too(name):
    """Where f's gradient is that of the linearization at θ0."""
    params0, batch = data()

    @jax.grad
    def tangent_gradient(params):
        moved = jax.tree.map(jnp.subtract, params, params0)
        at = (lambda p: f(p, batch["inputs"])), (params0,), (moved,)
        out, change = jax.jvp(*at)
        return jnp.mean(mean_square(out + change, batch))

    config = settings(name)
    expected = plain(config, params0, tangent_gradient, weight_decay=0.0)
    assert_close(ours(config, "linear"), expected)


@pytest.mark.slow
def test_what_a_run_hands_out_is_what_its_optimizer_evaluates(problem):
    """The result, the vectors on the way and what validation sees: the average, not the iterate."""
    config = OptimConfig(name="contrib.schedule_free_sgd", lr=2.0, schedule="constant", clip=None)
    seen = {}

    def look(params0, tau):
        seen[len(seen)] = jax.tree.map(np.asarray, tau)
        return []

    got = problem.run(
        optim=config,
        steps=6,
        batch_size=len(problem.data["labels"]),
        save_vectors_at=(3,),
        validation=look,
        validate_every=3,
    )
    x, y = problem.data["inputs"], problem.data["labels"]

    @jax.grad
    def slope(tau):
        return jnp.mean(cross_entropy(tangent(problem.f)(problem.params0, tau, x), y))

    tau = jax.tree.map(jnp.zeros_like, got.tau.delta)
    transform = optax.contrib.schedule_free_sgd(2.0, b1=0.9)
    state = transform.init(tau)
    expected = {}
    for step in range(1, 7):
        updates, state = transform.update(slope(tau), state, tau)
        tau = optax.apply_updates(tau, updates)
        expected[step] = optax.contrib.schedule_free_eval_params(state, tau)
    for found, step in (
        (got.tau.delta, 6),
        (got.vectors[3].delta, 3),
        (seen[0], 3),
        (seen[1], 6),
    ):
        for name, leaf in expected[step].items():
            np.testing.assert_allclose(found[name], leaf, rtol=1e-4, atol=1e-5)
    assert max(float(jnp.abs(tau[n] - expected[6][n]).max()) for n in tau) > 1e-2

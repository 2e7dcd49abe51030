"""Optimizers by name, and their schedule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.train.optim import OptimConfig, learning_rate, optimizer, optimizers


@pytest.mark.parametrize("name", sorted(optimizers()))
def test_every_listed_optimizer_makes_a_step(name):
    transform = optimizer(OptimConfig(name=name, weight_decay=0.1, decay="theta"), total=10)
    params = {"kernel": jnp.ones((4, 3)), "bias": jnp.ones((3,))}

    def step(params):
        return transform.update(params, transform.init(params), params)[0]

    updates = jax.eval_shape(step, params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


@pytest.mark.parametrize("name", ["sgd", "lion", "adamw"])
def test_descends_a_bowl(name):
    transform = optimizer(OptimConfig(name=name, lr=0.05, clip=None), total=200)
    x = jnp.array([1.0, -2.0])
    state = transform.init(x)
    update = jax.jit(transform.update)
    for _ in range(200):
        step, state = update(2 * x, state, x)
        x = x + step
    assert jnp.abs(x).max() < 0.05


def test_options_reach_the_optimizer():
    plain = optimizer(OptimConfig(name="sgd", lr=1.0, schedule="constant"), 9)
    heavy = optimizer(
        OptimConfig(name="sgd", lr=1.0, schedule="constant", options={"momentum": 0.5}), 9
    )
    g, x = jnp.array([0.5]), jnp.zeros(1)
    state = heavy.init(x)
    _, state = heavy.update(g, state, x)
    second, _ = heavy.update(g, state, x)
    np.testing.assert_allclose(second, -(0.5 + 0.5 * 0.5))
    np.testing.assert_allclose(plain.update(g, plain.init(x), x)[0], -0.5)


def test_decay_without_one_of_its_own_is_added_to_the_gradient():
    config = OptimConfig(name="sgd", lr=0.1, weight_decay=0.3, schedule="constant", clip=None)
    transform, x = optimizer(config, 9), jnp.array([2.0])
    np.testing.assert_allclose(
        transform.update(jnp.array([1.0]), transform.init(x), x)[0], [-0.1 * (1 + 0.3 * 2)]
    )


def test_linear_schedule_ends_at_zero():
    rate = learning_rate(OptimConfig(lr=2.0, warmup=5, schedule="linear"), total=15)
    np.testing.assert_allclose([rate(0), rate(4), rate(10), rate(15)], [0.4, 2.0, 1.0, 0.0])


def test_paper_recipe():
    config = OptimConfig.paper()
    assert (config.name, config.lr, config.weight_decay, config.decay) == (
        "adamw",
        1e-5,
        0.1,
        "theta",
    )
    assert (config.schedule, config.clip) == ("cosine", 1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adamq"}, "did you mean"),
        ({"name": "lbfgs"}, "no optimizer"),
        ({"lr": -1.0}, "optim.lr=-1.0"),
        ({"lr": float("nan")}, "optim.lr=nan"),
        ({"clip": 0.0}, "optim.clip=0.0"),
        ({"decay": "both"}, "expected one of 'tau', 'theta'"),
        ({"schedule": "step"}, "expected one of 'cosine'"),
        ({"options": {"betas": 0.9}}, "no option of adamw, which takes b1"),
        ({"options": {"weight_decay": 0.9}}, "fields of their own"),
    ],
)
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        OptimConfig(**fields)

"""A gradient that a compiler got wrong stops the run at its first step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.agreement import DisagreementError
from linearize.train import OptimConfig, TrainConfig, fine_tune, step

RNG = np.random.default_rng(0)
DATA = {"inputs": RNG.normal(size=(12, 3)).astype(np.float32), "labels": np.arange(12) % 2}


def params(dtype=jnp.float32, scale=1.0):
    shapes = {"a": (3, 5), "c": (5, 2)}
    rng = np.random.default_rng(1)
    return {n: jnp.asarray(scale * rng.normal(size=s), dtype) for n, s in shapes.items()}


def f(params, x):
    return jnp.tanh(x @ params["a"]) @ params["c"]


def train(f, params, regime="linear", **options):
    config = {"steps": 3, "batch_size": 4, "tensorboard": False, **options}
    return fine_tune(f, params, DATA, regime=regime, config=TrainConfig(**config), progress=False)


@pytest.mark.slow(but=["1-linear", "2-nonlinear"])
@pytest.mark.parametrize("regime", ["linear", "nonlinear"])
@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_wrong_gradient(monkeypatch, regime, steps_per_call):
    right = step.Recipe._gradient

    def wrong(self, *args):
        grads, means = right(self, *args)
        return {**grads, "a": -grads["a"]}, means

    monkeypatch.setattr(step.Recipe, "_gradient", wrong)
    step.programs.cache_clear()
    with pytest.raises(
        DisagreementError, match=f"gradient of the first {regime} step .clipped"
    ) as caught:
        train(f, params(), regime, steps_per_call=steps_per_call)
    step.programs.cache_clear()
    assert caught.value.found != caught.value.expected


@pytest.mark.slow(
    but=[
        "linear-options2-bfloat16-1.0",
        "nonlinear-options3-float32-30",
        "nonlinear-options0-float32-1.0",
    ]
)
@pytest.mark.parametrize(
    ("options", "dtype", "scale"),
    [
        ({"accumulate": 2}, jnp.float32, 1.0),
        pytest.param({"direction": "ascend"}, jnp.float32, 1.0, marks=pytest.mark.slow),
        ({"optim": OptimConfig("sgd", lr=1e-3)}, jnp.bfloat16, 1.0),
        ({"optim": OptimConfig("lion", lr=1e-6, weight_decay=0.1, decay="theta")}, jnp.float32, 30),
        pytest.param({"steps_per_call": 3}, jnp.float32, 0.0, marks=pytest.mark.slow),
        pytest.param({"optim": OptimConfig(lr=0.0)}, jnp.float32, 1.0, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("regime", ["linear", "nonlinear"])
def test_no_false_alarm(options, dtype, scale, regime):
    train(f, params(dtype, scale), regime, **options)


def test_a_model_without_forward_mode_is_checked_in_reverse():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, ct: (2 * ct,))
    train(lambda p, x: double(f(p, x)), params())


def test_the_slope_is_gradient_times_update():
    """Of one step of plain descent it is −lr ‖∇L‖²."""
    seen = []
    check = step.agree

    def listen(found, expected, **rest):
        seen.append((float(found), expected))
        check(found, expected, **rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "agree", listen)
        optim = OptimConfig("sgd", lr=0.1, clip=None, schedule="constant")
        train(f, params(), optim=optim, batch_size=12)
    theta, x, labels = params(), DATA["inputs"], DATA["labels"]

    def loss(theta):
        return -jax.nn.log_softmax(f(theta, x))[np.arange(12), labels].mean()

    square = sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(loss)(theta)))
    np.testing.assert_allclose(seen, [[-0.1 * square] * 2], rtol=1e-5)

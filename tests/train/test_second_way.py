"""A gradient that a compiler got wrong stops the run at its first step."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.agreement import DisagreementError
from linearize.train import OptimConfig, TrainConfig, fine_tune, second_way, step
from linearize.train.mesh import Placement

RNG = np.random.default_rng(0)
DATA = {"inputs": RNG.normal(size=(12, 3)).astype(np.float32), "labels": np.arange(12) % 2}


def params(dtype=jnp.float32, scale=1.0):
    shapes = {"a": (3, 5), "c": (5, 2)}
    rng = np.random.default_rng(1)
    return {n: jnp.asarray(scale * rng.normal(size=s), dtype) for n, s in shapes.items()}


def f(params, x):
    return jnp.tanh(x @ params["a"]) @ params["c"]


def train(f, params, regime="linear", run_dir=None, validation=None, **options):
    config = TrainConfig(**{"steps": 3, "batch_size": 4, "tensorboard": False, **options})
    given = {"regime": regime, "config": config, "run_dir": run_dir, "validation": validation}
    return fine_tune(f, params, DATA, progress=False, **given)


@pytest.fixture
def wrong_gradient(monkeypatch):
    """A call of it makes the gradients of the programs to come wrong."""
    right = step.Recipe._gradient

    def wrong(self, *args):
        grads, means = right(self, *args)
        return {**grads, "a": -grads["a"]}, means

    step.programs.cache_clear()
    yield lambda: (
        step.programs.cache_clear(),
        monkeypatch.setattr(step.Recipe, "_gradient", wrong),
    )
    step.programs.cache_clear()


@pytest.fixture(params=[step._LARGE, 0], ids=["apart", "in place"])
def large(request, monkeypatch):
    """Bytes of a state from which on steps overwrite it."""
    monkeypatch.setattr(step, "_LARGE", request.param)


@pytest.mark.slow(but=["apart-1-linear", "in place-2-nonlinear"])
@pytest.mark.parametrize("regime", ["linear", "nonlinear"])
@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_wrong_gradient(wrong_gradient, large, regime, steps_per_call):
    wrong_gradient()
    with pytest.raises(
        DisagreementError, match=f"gradient of the first {regime} step .clipped"
    ) as caught:
        train(f, params(), regime, steps_per_call=steps_per_call)
    assert caught.value.found != caught.value.expected


@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_wrong_batch(monkeypatch, steps_per_call):
    right = step.feed.gather

    def shifted(data, order, *args):
        return right(data, (order + 1) % 12, *args)

    monkeypatch.setattr(step.feed, "gather", shifted)
    step.programs.cache_clear()
    with pytest.raises(DisagreementError, match="are not the data's in a batch"):
        train(f, params(), steps_per_call=steps_per_call)
    step.programs.cache_clear()


def stopped(**options):
    """A run that is killed after four of its six steps."""

    def validation(params0, tau):
        raise RuntimeError("stop")

    checkpoints = {"checkpoint_every": 2, "validate_every": 5}
    with pytest.raises(RuntimeError, match="stop"):
        train(f, params(), steps=6, validation=validation, **checkpoints, **options)


@pytest.mark.slow(but=["apart-1"])
@pytest.mark.parametrize("steps_per_call", [1, 2])
def test_a_wrong_gradient_of_a_run_that_goes_on(wrong_gradient, large, tmp_path, steps_per_call):
    options = {"run_dir": tmp_path / "run", "steps_per_call": steps_per_call}
    stopped(**options)
    wrong_gradient()
    options |= {"checkpoint_every": 2, "validate_every": 5, "steps": 6}
    with pytest.raises(DisagreementError, match="first linear step"):
        train(f, params(), **options)


def test_a_run_that_goes_on_is_the_same_run_after_its_rehearsal(large, tmp_path):
    stopped(run_dir=tmp_path / "run")
    step.programs.cache_clear()  # as in a new process
    options = {"steps": 6, "checkpoint_every": 2, "validate_every": 5}
    resumed = train(f, params(), run_dir=tmp_path / "run", **options)
    whole = train(f, params(), **options)
    assert resumed.resumed_from == 4
    for name, leaf in whole.tau.delta.items():
        np.testing.assert_array_equal(resumed.tau.delta[name], leaf)


def test_a_program_is_checked_once(monkeypatch):
    seen = []
    check = second_way.agree
    monkeypatch.setattr(
        second_way, "agree", lambda *args, **rest: seen.append(check(*args, **rest))
    )
    step.programs.cache_clear()
    for seed in range(3):
        train(f, params(), seed=seed)
    assert len(seen) == 1
    train(f, params(), batch_size=6)
    assert len(seen) == 2


def test_a_step_that_overwrites_its_state_holds_no_more_for_its_check():
    """Neither the step, beside state, gradient and update, nor the second way, beside τ."""
    weights = {f"w{i}": jnp.zeros((256, 256)) for i in range(4)}
    size = sum(leaf.nbytes for leaf in weights.values())

    def deep(params, x):
        for leaf in params.values():
            x = jnp.tanh(x @ leaf)
        return x

    split, arrays = step.Callables.of({"f": deep, "loss": None, "readout": None, "augment": None})
    recipe = step.Recipe(split, "linear", ("inputs",), OptimConfig(), 1, 0.0, False, False)
    place = Placement.make(None)
    state = recipe.init(weights, 5, tuple(weights))
    fixed = {"params0": weights, "arrays": arrays, "total": 5, "key": jax.random.key(0)}
    batch = {"inputs": jnp.zeros((4, 256)), "labels": jnp.zeros(4, jnp.int32)}
    one = jax.jit(recipe.step, static_argnums=(3, 4), donate_argnums=0)
    memory = one.lower(state, fixed, batch, place, True).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 3.1 * size
    memory = second_way._slope.lower(recipe, place, state["tau"], fixed, batch).compile()
    assert memory.memory_analysis().temp_size_in_bytes < 0.6 * size


def test_a_loss_with_noise_of_its_own_is_no_fault():
    rng = np.random.default_rng(0)

    def noisy(params, x):
        return f(params, x + rng.normal(size=(1, 3)).astype(np.float32))

    train(noisy, params())


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


def test_the_slope_is_gradient_times_update(large):
    """Of one step of plain descent it is −lr ‖∇L‖²."""
    seen = []
    check = second_way.agree

    def listen(found, expected, **rest):
        seen.append((float(found), expected))
        check(found, expected, **rest)

    step.programs.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(second_way, "agree", listen)
        optim = OptimConfig("sgd", lr=0.1, clip=None, schedule="constant")
        train(f, params(), optim=optim, batch_size=12)
    theta, x, labels = params(), DATA["inputs"], DATA["labels"]

    def loss(theta):
        return -jax.nn.log_softmax(f(theta, x))[np.arange(12), labels].mean()

    square = sum(jnp.sum(g**2) for g in jax.tree.leaves(jax.grad(loss)(theta)))
    np.testing.assert_allclose(seen, [[-0.1 * square] * 2], rtol=1e-5)


@pytest.mark.parametrize("size", [16.0, 20.0])
def test_a_loss_near_zero_is_no_fault(size):
    """Where p rounds to 1, p − y and all derivatives are rounding, and no compiler is to blame."""
    data = {"inputs": np.eye(3, dtype=np.float32), "labels": np.arange(3)}
    weights = {"w": size * jnp.eye(3)}
    config = TrainConfig(steps=2, batch_size=3, tensorboard=False)
    linear = fine_tune(
        lambda p, x: x @ p["w"], weights, data, regime="linear", config=config, progress=False
    )
    assert linear.steps == 2

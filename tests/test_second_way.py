"""Passes, grids and maps: numbers that a compiler got wrong are found, right ones let through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import ntk
from linearize.agreement import DisagreementError
from linearize.disentangle import affine_map, disentanglement_error, passes
from linearize.edit import optimal, optimal_coefficients, random_like, sweep, vectors
from linearize.evaluate import (
    AffineOutputs,
    affine,
    affine_outputs,
    batches,
    displace,
    displaced_accuracy,
    grid,
    grid_accuracy,
    grid_logits,
    outputs,
)
from linearize.models import heads
from linearize.ntk import objective
from linearize.task_vector import TaskVector

RNG = np.random.default_rng(0)
X = RNG.normal(size=(9, 4)).astype(np.float32)
LABELS = np.arange(9) % 3
ALPHAS = [[0.0], [0.5], [1.0]]


def model(dtype=jnp.float32, scale=1.0):
    rng = np.random.default_rng(1)
    shapes = {"a": (4, 6), "c": (6, 3)}
    params = {n: jnp.asarray(scale * rng.normal(size=s), dtype) for n, s in shapes.items()}
    return (lambda params, x: jnp.tanh(x @ params["a"]) @ params["c"]), params


def wrong(function, by=1.2):
    """The function with results that are off by a fifth."""
    return lambda *args: jax.tree.map(lambda y: by * y, function(*args))


def others(function):
    """The function with the results of the next class."""
    return lambda *args: (function(*args) + 1) % 3


def refused(match):
    return pytest.raises(DisagreementError, match=match)


def test_a_wrong_pass(monkeypatch):
    f, params = model()
    monkeypatch.setattr(batches, "forward", wrong(batches.forward))
    for _ in range(2):  # what was found wrong is not believed when it is asked again
        with refused("a pass of the model") as caught:
            outputs(f, params, X)
    assert caught.value.found == pytest.approx(1.2 * caught.value.expected, rel=1e-5)


def test_a_wrong_pass_over_a_batch_of_one(monkeypatch):
    f, params = model()
    monkeypatch.setattr(batches, "forward", wrong(batches.forward))
    with refused("a pass of the model"):
        outputs(f, params, X, batch_size=1)


def test_one_wrong_output_of_many(monkeypatch):
    f, params = model()
    both = lambda params, x: {"y": f(params, x), "z": f(params, 2 * x)}  # noqa: E731
    right = batches.forward
    monkeypatch.setattr(batches, "forward", lambda *args: {**right(*args), "z": jnp.zeros((16, 3))})
    with refused("output 'z'"):
        outputs(both, params, X)


def test_wrong_classes_of_displaced_models(monkeypatch):
    f, params = model()
    right = displace._statistics

    def missed(*args):
        found = right(*args)
        return {**found, "hits": 1 - found["hits"]}

    monkeypatch.setattr(displace, "_statistics", missed)
    with refused("the displaced model's statistics: hits"):
        displaced_accuracy(f, params, [params], X, ALPHAS, None, LABELS)


def test_a_wrong_displacement(monkeypatch):
    f, params = model()
    monkeypatch.setattr(displace, "displace", wrong(displace.displace))
    with refused("θ0 . Σ α τ in a"):
        displaced_accuracy(f, params, [params], X, ALPHAS, None, LABELS)


def test_a_wrong_sum_along_a_sweep(monkeypatch):
    f, params = model()
    monkeypatch.setattr(sweep, "combine", wrong(sweep.combine))
    with refused("Σ α τ in a"):
        sweep.regime_accuracies(f, params, [params], [(X, LABELS)], None, [0.0, 1.0], "linear")


def cached():
    f, params = model()
    return affine_outputs(f, params, [params], X)


def test_wrong_logits_of_a_grid(monkeypatch):
    monkeypatch.setattr(grid, "_logits", wrong(grid._logits))
    with refused("the logits of example"):
        grid_logits(cached(), [[0.25]])


def test_a_wrong_count_of_a_grid(monkeypatch):
    right = grid._totals

    def more(*args):
        found = right(*args)
        return {**found, "hits": found["hits"] + 1}

    monkeypatch.setattr(grid, "_totals", more)
    with refused("statistics of 9 examples: hits"):
        grid_accuracy(cached(), [[0.125]], None, LABELS)


def test_wrong_scores(monkeypatch):
    head = heads.Head(
        jnp.ones(3), jnp.asarray(RNG.normal(size=(3, 5)), jnp.float32), None, jnp.ones(()), True
    )
    monkeypatch.setattr(affine, "_project", wrong(affine._project))
    with refused("class scores"):
        cached().scores(head)


def tasks():
    f, params = model()
    taus = [jax.tree.map(lambda p, s=s: s * p, params) for s in (0.5, -1.0)]
    return f, params, taus, [X, X[:7]]


@pytest.mark.parametrize("distance", ["argmax", "total_variation"])
@pytest.mark.parametrize(
    ("part", "corrupted"),
    [
        ("_logits", lambda y: -y),
        ("_encoded", lambda y: y[..., ::-1] + (y.ndim == 1)),
        ("_distance", lambda y: y + 1),
    ],
)
def test_a_wrong_map_of_the_nonlinear_regime(monkeypatch, part, corrupted, distance):
    right = getattr(passes, part)
    monkeypatch.setattr(passes, part, lambda *args: corrupted(right(*args)))
    with refused("at α = "):
        disentanglement_error(*tasks(), alphas=[0.0, 1.0], distance=distance)


@pytest.mark.parametrize("distance", ["argmax", "total_variation"])
@pytest.mark.parametrize(
    ("part", "message"), [("_encode_at", "single point"), ("_distances", "of the map")]
)
def test_a_wrong_map_of_an_affine_regime(monkeypatch, part, message, distance):
    right = getattr(affine_map, part)
    by = {"_encode_at": others, "_distances": lambda g: lambda *args: g(*args) + 1}[part]
    monkeypatch.setattr(affine_map, part, by(right))
    f, params, taus, inputs = tasks()
    terms = [affine_outputs(f, params, taus, x) for x in inputs]
    with refused(message):
        options = {"alphas": [0.0, 0.7], "distance": distance, "regime": "linear"}
        disentanglement_error(None, None, None, None, cached=terms, **options)


def test_a_wrong_gradient_of_the_linear_objective(monkeypatch):
    f, params = model()
    slope = objective._slope

    def corrupted(*args):
        z, losses, gradient = slope(*args)
        return z, losses, jax.tree.map(lambda g: 1.2 * g, gradient)

    monkeypatch.setattr(objective, "_slope", corrupted)
    with refused("the gradient of an example"):
        ntk.linear_objective(f, params, params, X, LABELS)
    with refused("the gradient of an example"):
        ntk.gauss_newton(f, params, X, LABELS, l2=0.1)


def test_wrong_outputs_of_the_linear_objective(monkeypatch):
    f, params = model()
    slope = objective._slope
    monkeypatch.setattr(
        objective, "_slope", lambda *args: (1.2 * slope(*args)[0], *slope(*args)[1:])
    )
    with refused("f0 . J τ along"):
        ntk.linear_objective(f, params, params, X, LABELS)


def test_a_wrong_linear_probe(monkeypatch):
    right = heads._fit
    monkeypatch.setattr(heads, "_fit", lambda *args: (*right(*args)[:2], 1.2 * right(*args)[2]))
    with refused("linear probe"):
        heads.linear_probe(X, LABELS, 3, l2=0.1)


def test_a_random_tensor_of_another_norm(monkeypatch):
    monkeypatch.setattr(vectors, "_matched", wrong(vectors._matched))
    with refused("entry w"):
        random_like(TaskVector({"w": jnp.ones((3, 17))}), seed=0)


def every_evaluation(f, params, x=X):
    """All that returns numbers of a model."""
    taus = [jax.tree.map(lambda p, s=s: s * p, params) for s in (0.5, -1.0)]
    found = outputs(f, params, x)
    displaced_accuracy(f, params, taus, x, [[0.0, 0.0], [1.0, 1.0]], None, LABELS)
    disentanglement_error(f, params, taus, [x, x], alphas=[0.0, 1.0])
    return found


@pytest.mark.parametrize("scale", [0.0, 1e-22, 1.0, 1e15])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_no_false_alarm(dtype, scale):
    if dtype == jnp.float16 and scale > 1:
        scale = 100.0
    every_evaluation(*model(dtype, scale))


def test_examples_that_change_each_other():
    f, params = model()

    def normalized(params, x):
        y = f(params, x)
        return (y - y.mean(0, keepdims=True)) / y.std(0, keepdims=True)

    found = every_evaluation(normalized, params)
    padded = np.concatenate([X, np.repeat(X[-1:], 7, axis=0)])
    np.testing.assert_allclose(found, normalized(params, padded)[:9], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_mask_of_a_fixed_key_and_noise_of_pythons_own():
    f, params = model()
    counter = np.random.default_rng(0)

    def masked(params, x):
        return f(params, x * jax.random.bernoulli(jax.random.key(0), 0.5, x.shape))

    def noisy(params, x):
        return f(params, x + counter.normal(size=(1, 4)).astype(np.float32))

    for each in (masked, noisy):
        every_evaluation(each, params)
        affine_outputs(each, params, [params], X)


def test_a_model_that_takes_no_batch_of_one():
    f, params = model()

    def fixed(params, x):
        return f(params, x.reshape(3, -1, 4).swapaxes(0, 1).reshape(-1, 4))

    def asserts(params, x):
        assert len(x) > 1
        return f(params, x)

    every_evaluation(asserts, params)
    outputs(fixed, params, X, batch_size=9)


def test_what_little_is_left_of_large_terms():
    """Outputs that are rounding alone: there is nothing to hold them to."""
    f, params = model()
    near = jax.tree.map(lambda p: p * (1 + 1e-6), params)
    every_evaluation(lambda params, x: 100 * f(params, x) - 100 * f(near, x), params)


def test_routing_by_the_largest_of_near_equal_scores():
    _, params = model()

    def routed(params, x):
        scores = x @ params["a"]
        scores = scores - scores + 1e-7 * jnp.sin(1e6 * scores)  # decided by rounding
        expert = jnp.argmax(scores, -1)
        return params["c"][expert] * x.sum(-1, keepdims=True)

    every_evaluation(routed, params)


def test_models_that_know_no_reverse_mode_are_checked(monkeypatch):
    def f(params, x):
        return jax.lax.while_loop(
            lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] * params["w"]), (0, x)
        )[1]

    params = {"w": jnp.asarray(3.0)}
    affine_outputs(f, params, [{"w": 1.0}], X)
    step = affine.affine_step
    monkeypatch.setattr(affine, "affine_step", lambda *args: (step(*args)[0], 1.2 * step(*args)[1]))
    with refused("J τ of task vector 0"):
        affine_outputs(f, params, [{"w": 1.0}], X[:5])


def test_a_direction_that_nothing_depends_on():
    def f(params, x):
        y = (x + params["shift"]) @ params["c"]
        y = y - y.mean(-1, keepdims=True)
        return y / jnp.sqrt((y**2).mean(-1, keepdims=True) + 1e-6)

    rng = np.random.default_rng(3)
    equal = rng.normal(size=(4, 1)) @ np.ones((1, 6)) + 1e-3 * rng.normal(size=(4, 6))
    params = {"shift": jnp.zeros(()), "c": jnp.asarray(equal, jnp.float32)}
    affine_outputs(f, params, [{"shift": jnp.ones(())}], X)


def test_ties_and_overflow_on_a_grid():
    same = np.repeat(RNG.normal(size=(40, 1)), 3, axis=1).astype(np.float32)
    terms = AffineOutputs(same, same[None] * np.float32(0.3))
    kernel = jnp.asarray(np.repeat(RNG.normal(size=(3, 1)), 5, axis=1), jnp.float32)
    head = heads.Head(jnp.zeros(3), kernel, jnp.zeros(5), jnp.ones(()), False)
    for readout in (None, head, jnp.tanh):
        grid_accuracy(terms, [[0.1], [1e38]], readout, np.arange(40) % 3)
    grid_logits(terms, [[1e38]])


def test_complex_outputs():
    params = {"w": jnp.asarray(RNG.normal(size=(4, 3)) + 1j, jnp.complex64)}
    outputs(lambda params, x: {"z": x @ params["w"], "n": jnp.argmax(x, -1)}, params, X)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_wrong_derivatives_under_a_readout_of_ones_own(monkeypatch, part):
    right = optimal._derivatives

    def corrupted(*args):
        found = list(right(*args))
        found[part] = 1.2 * found[part]
        return found

    terms, readout = cached(), lambda z: jnp.tanh(z) * 3
    assert np.isfinite(optimal_coefficients([terms], [LABELS], readout, l2=0.1).objective)
    monkeypatch.setattr(optimal, "_derivatives", corrupted)
    with refused(("value", "slope", "curvature")[part]):
        optimal_coefficients([terms], [LABELS], lambda z: jnp.tanh(z) * 3, l2=0.1)

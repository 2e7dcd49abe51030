"""Complex parameters are pairs of reals: every number is that of the model written with pairs."""

import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import evaluate, ntk, taylor, tree
from linearize.edit import random_like
from linearize.train import OptimConfig, TrainConfig, fine_tune

pytestmark = pytest.mark.usefixtures("quick_compilation")

N, WIDTH, OUTPUTS = 6, 4, 2
RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


X, LABELS = normal(N, 3), np.arange(N) % OUTPUTS
PARAMS = {
    "w": jnp.asarray(normal(3, WIDTH) + 1j * normal(3, WIDTH)),
    "v": jnp.asarray(normal(2 * WIDTH, OUTPUTS)),
}
TAU = {
    "w": jnp.asarray(normal(3, WIDTH) + 1j * normal(3, WIDTH)),
    "v": jnp.asarray(normal(2 * WIDTH, OUTPUTS)),
}


def f(params, x):
    """Not holomorphic: features |z| and Re z² of z = x w."""
    z = x @ params["w"]
    return jnp.concatenate([jnp.abs(z), jnp.square(z).real], axis=-1) @ params["v"]


def pairs(flat):
    return {"re": flat["w"].real, "im": flat["w"].imag, "v": flat["v"]}


def joined(flat):
    return {"w": flat["re"] + 1j * flat["im"], "v": flat["v"]}


def f_pairs(params, x):
    return f(joined(params), x)


def close(found, expected, scale=None):
    found, expected = np.asarray(found), np.asarray(expected)
    level = np.abs(expected).max() if scale is None else scale
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * level)


def close_trees(found, expected):
    for name, leaf in pairs(tree.flatten(found)).items():
        close(leaf, tree.flatten(expected)[name])


@pytest.mark.slow(but=["full-jacobian", "mean-products", "diagonal-structured"])
@pytest.mark.parametrize("implementation", ["jacobian", "structured", "products"])
@pytest.mark.parametrize("output", ["full", "mean", "diagonal"])
def test_kernels(implementation, output):
    options = {"implementation": implementation, "output": output}
    found = ntk.kernel(f, PARAMS, X, X[:4], **options)
    assert found.dtype == np.float32
    close(found, ntk.kernel(f_pairs, pairs(PARAMS), X, X[:4], **options))


def test_the_kernel_is_the_real_part_of_j_times_its_adjoint():
    """Of a model that is linear in w: f = Re(x w), so J Jᴴ is x xᵀ."""
    found = ntk.kernel(lambda p, x: (x @ p["w"]).real, {"w": PARAMS["w"][:, :1]}, X)
    close(found[:, :, 0, 0], X @ X.T)


@pytest.mark.slow
def test_signs_products_features_and_approximations():
    moved = tree.add(PARAMS, TAU, 0.1)
    for call in (
        lambda f, to: ntk.kernel(f, to(PARAMS), X, optimizer="signgd"),
        lambda f, to: ntk.vector_product(f, to(PARAMS), X)(jnp.ones((N, OUTPUTS))),
        lambda f, to: ntk.feature_change(f, to(moved), to(PARAMS), X).per_point,
        lambda f, to: ntk.approximate_kernel(f, to(PARAMS), X).kernel,
    ):
        close(call(f, dict), call(f_pairs, pairs))


def test_task_vectors_of_dual_solutions():
    c = normal(N, OUTPUTS)
    found = ntk.to_task_vector(f, PARAMS, X, c)
    assert found.delta["w"].dtype == jnp.complex64
    close_trees(found, ntk.to_task_vector(f_pairs, pairs(PARAMS), X, c))
    # f0 + Jτ = f0 − K c
    moved = taylor.affine_terms(f, PARAMS, [found], jnp.asarray(X))[1][0]
    full = ntk.kernel(f, PARAMS, X)
    close(moved, -np.einsum("nmcd,md->nc", full, c))


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["dual", "gauss_newton"])
def test_exact_linear_fine_tuning(solver):
    options = {"l2": 0.3, "solver": solver, "tolerance": 1e-6}
    found = ntk.fine_tune_exactly(f, PARAMS, X, LABELS, **options)
    expected = ntk.fine_tune_exactly(f_pairs, pairs(PARAMS), X, LABELS, **options)
    assert found.reached.objective == pytest.approx(expected.reached.objective, abs=1e-5)
    assert found.reached.gap < 1e-5
    for name, leaf in pairs(found.tau.delta).items():
        close(leaf, expected.tau.delta[name], scale=100)


def test_regression_refuses_complex_numbers():
    with pytest.raises(ValueError, match="f0 has dtype complex"):
        ntk.regression(np.eye(2), np.ones((2, 1)) * 1j, np.ones((2, 1)))


def test_kernels_of_complex_outputs_are_refused():
    with pytest.raises(ValueError, match="output of f is complex64; a kernel needs floating"):
        ntk.kernel(lambda p, x: x @ p["w"], PARAMS, X, trainable="w")


@pytest.mark.slow(but=["linear-adamw", "nonlinear-contrib.schedule_free_sgd"])
@pytest.mark.parametrize(
    ("regime", "name"),
    [
        *(("linear", "sgd"), ("linear", "adamw"), ("nonlinear", "adamw"), ("nonlinear", "lion")),
        ("nonlinear", "contrib.schedule_free_sgd"),
    ],
)
def test_training(regime, name, tmp_path):
    """Several steps, the gradient clipped by its norm, θ decayed; kept in a run directory."""

    def train(f, params, run_dir=None):
        optim = OptimConfig(name, lr=0.05, schedule="constant", weight_decay=0.01, decay="theta")
        return fine_tune(
            f,
            params,
            {"inputs": X, "labels": LABELS},
            regime=regime,
            config=TrainConfig(steps=5, batch_size=N, optim=optim, log_every=1, checkpoint_every=2),
            run_dir=run_dir,
            progress=False,
        )

    found, expected = train(f, PARAMS, tmp_path / "run"), train(f_pairs, pairs(PARAMS))
    close_trees(found.tau, expected.tau)
    close([r["loss"] for r in found.history], [r["loss"] for r in expected.history])
    assert found.history[-1]["loss"] < found.history[0]["loss"]


def test_norms_and_angles_are_those_of_pairs(tmp_path):
    a, b = lz.TaskVector(dict(TAU)), lz.TaskVector(dict(PARAMS))
    real_a, real_b = lz.TaskVector(pairs(TAU)), lz.TaskVector(pairs(PARAMS))
    for found, expected in (
        (a.dot(b), real_a.dot(real_b)),
        (a.norm(), real_a.norm()),
        (a.cosine(b), real_a.cosine(real_b)),
        (tree.dot(TAU, PARAMS), tree.dot(pairs(TAU), pairs(PARAMS))),
    ):
        assert jnp.isrealobj(found)
        close(found, expected)
    close(a.norms()["w"], np.linalg.norm(np.asarray(TAU["w"])))
    loaded = lz.TaskVector.load(a.save(tmp_path / "a.safetensors"))
    np.testing.assert_array_equal(loaded.delta["w"], TAU["w"])
    drawn = random_like(a, seed=0)
    close(drawn.norms()["w"], a.norms()["w"])
    assert np.abs(drawn.delta["w"].imag).max() > 0
    moved = ntk.movement(tree.add(PARAMS, TAU), PARAMS)
    assert moved.total.distance == pytest.approx(float(a.norm()), rel=1e-5)


@pytest.mark.slow
def test_affine_passes_and_disentanglement():
    found = evaluate.affine_outputs(f, PARAMS, [TAU, PARAMS], X)
    expected = evaluate.affine_outputs(f_pairs, pairs(PARAMS), [pairs(TAU), pairs(PARAMS)], X)
    close(found.jvps, expected.jvps)
    maps = [
        lz.disentanglement_error(f, params, taus, [X, X + 1], alphas=[0.5, 1.0]).per_task
        for f, params, taus in (
            (f, PARAMS, [TAU, PARAMS]),
            (f_pairs, pairs(PARAMS), [pairs(TAU), pairs(PARAMS)]),
        )
    ]
    np.testing.assert_array_equal(maps[0], maps[1])


def test_complex_outputs_of_an_affine_pass():
    def g(params, x):
        return jnp.square(x @ params["w"])

    found = evaluate.affine_outputs(g, PARAMS, [TAU], X)
    expected = 2 * (X @ PARAMS["w"]) * (X @ TAU["w"])
    close(found.jvps[0], expected)
    close(found.along([[2.0]]).jvps[0], 2 * expected)


def test_a_complex_displacement_of_a_real_leaf_is_refused():
    with pytest.raises(tree.StructureMismatch, match="complex: v is complex64, expected float32"):
        tree.add(PARAMS, {"v": PARAMS["v"] * 1j})

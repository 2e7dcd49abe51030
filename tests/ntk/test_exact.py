"""Exact linear fine-tuning: two solvers against each other, scikit-learn and the definition."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import linearize as lz
from linearize import cost
from linearize.models import heads
from linearize.ntk import objective

N, WIDTH, CLASSES, L2 = 13, 5, 3, 1e-2


def mlp(params, x):
    return jnp.tanh(x @ params["in"]["w"] + params["in"]["b"][None]) @ params["out"]["w"]


@pytest.fixture(scope="module")
def data():
    """Parameters of a small network, inputs and labels, in float64."""
    rng = np.random.default_rng(0)
    params = {
        "in": {"w": rng.normal(size=(WIDTH, 8)) / 2, "b": rng.normal(size=8)},
        "out": {"w": rng.normal(size=(8, CLASSES)) / 2},
    }
    return params, rng.normal(size=(N, WIDTH)), rng.integers(0, CLASSES, N)


@pytest.fixture
def problem(data):
    with jax.enable_x64(True):
        yield data


@pytest.fixture
def narrow(data):
    params, x, labels = data
    return *jax.tree.map(np.float32, (params, x)), labels


@partial(jax.jit, static_argnames="l2")
def value(params, tau, x, labels, l2=L2):
    """The objective, written down."""
    logits = lz.linearize(mlp, params)(jax.tree.map(jnp.add, params, tau), x)
    losses = -jax.nn.log_softmax(logits)[jnp.arange(len(labels)), labels]
    penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(tau))
    return losses.mean() + l2 / 2 * penalty


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [64, 4])
def test_the_two_solvers_agree(problem, batch_size):
    params, x, labels = problem
    found = {
        solver: lz.ntk.fine_tune_exactly(
            mlp, params, x, labels, l2=L2, solver=solver, tolerance=1e-15, batch_size=batch_size
        )
        for solver in ("dual", "gauss_newton")
    }
    dual, primal = found["dual"], found["gauss_newton"]
    assert dual.reached.certified
    assert primal.reached.certified
    assert max(dual.reached.gap, primal.reached.gap) < 1e-13
    assert float((dual.tau - primal.tau).norm() / primal.tau.norm()) < 1e-6
    assert dual.reached.objective == pytest.approx(primal.reached.objective, abs=1e-12)
    assert dual.tau.base == primal.tau.base
    assert (dual.tau.meta["regime"], primal.tau.meta["solver"]) == ("linear", "gauss_newton")


def test_what_is_reached_is_the_definition(problem):
    params, x, labels = problem
    rng = np.random.default_rng(1)
    tau = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
    got = objective.linear_objective(mlp, params, tau, x, labels, l2=L2, batch_size=5)
    expected, gradient = jax.jit(jax.value_and_grad(value, argnums=1))(params, tau, x, labels)
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient)))
    assert got.objective == pytest.approx(float(expected), rel=1e-12)
    assert got.gradient_norm == pytest.approx(norm, rel=1e-10)
    assert got.loss == pytest.approx(float(value(params, tau, x, labels, l2=0.0)), rel=1e-12)


def test_the_bound_holds(problem):
    params, x, labels = problem
    least = lz.ntk.gauss_newton(mlp, params, x, labels, l2=L2, tolerance=1e-14).reached.objective
    rng = np.random.default_rng(2)
    for scale in (0.0, 0.1, 1.0):
        tau = jax.tree.map(lambda a, s=scale: jnp.asarray(s * rng.normal(size=a.shape)), params)
        here = lz.ntk.linear_objective(mlp, params, tau, x, labels, l2=L2)
        assert 0 < here.objective - least <= here.gap


@pytest.mark.parametrize("solver", ["dual", "gauss_newton"])
def test_a_linear_model_is_logistic_regression(problem, solver):
    from sklearn.linear_model import LogisticRegression

    _, x, labels = problem
    f = lambda params, x: x @ params["w"]  # noqa: E731
    found = lz.ntk.fine_tune_exactly(
        f, {"w": jnp.zeros((WIDTH, CLASSES))}, x, labels, l2=L2, solver=solver, tolerance=1e-15
    )
    oracle = LogisticRegression(C=1 / (N * L2), fit_intercept=False, tol=1e-12, max_iter=5000)
    np.testing.assert_allclose(
        found.tau.delta["w"], oracle.fit(x, labels).coef_.T, rtol=0, atol=2e-6
    )


def test_one_output_is_the_logit_of_class_one(problem):
    from sklearn.linear_model import LogisticRegression

    _, x, labels = problem
    binary = np.minimum(labels, 1)
    f = lambda params, x: x @ params["w"]  # noqa: E731
    params = {"w": jnp.zeros((WIDTH, 1))}
    found = lz.ntk.gauss_newton(f, params, x, binary, l2=L2, tolerance=1e-15)
    oracle = LogisticRegression(C=1 / (N * L2), fit_intercept=False, tol=1e-12, max_iter=5000)
    np.testing.assert_allclose(
        found.tau.delta["w"][:, 0], oracle.fit(x, binary).coef_[0], rtol=0, atol=2e-6
    )


def test_frozen_leaves_stay(problem):
    params, x, labels = problem
    found = [
        lz.ntk.fine_tune_exactly(
            mlp, params, x, labels, l2=L2, solver=s, trainable="in/", tolerance=1e-15
        ).tau
        for s in ("dual", "gauss_newton")
    ]
    assert set(found[0].delta) == set(found[1].delta) == {"in/w", "in/b"}
    assert float((found[0] - found[1]).norm() / found[0].norm()) < 1e-6


def test_a_warm_start_ends_at_the_same_optimum_sooner(problem):
    params, x, labels = problem
    cold = lz.ntk.gauss_newton(mlp, params, x, labels, l2=L2, tolerance=1e-13)
    with pytest.raises(lz.ntk.NotConvergedError, match="max_iterations") as stopped:
        lz.ntk.gauss_newton(mlp, params, x, labels, l2=L2, tolerance=1e-13, max_iterations=2)
    on_the_way = stopped.value.solution
    assert on_the_way.reached.objective > cold.reached.objective
    warm = lz.ntk.gauss_newton(mlp, params, x, labels, l2=L2, tolerance=1e-13, start=on_the_way.tau)
    assert warm.products < cold.products
    assert float((warm.tau - cold.tau).norm()) < 1e-5


def test_passes_are_counted_and_limited(problem):
    params, x, labels = problem
    with pytest.raises(lz.ntk.NotConvergedError, match="max_products") as stopped:
        lz.ntk.gauss_newton(mlp, params, x, labels, l2=1e-6, tolerance=1e-14, max_products=9)
    assert stopped.value.solution.products <= 9


def head(params, x, labels, normalize, temperature=20.0):
    features = np.asarray(jax.jit(mlp)(params, x), np.float32)
    return heads.prototype_head(
        features, labels, CLASSES, shots=None, temperature=temperature, normalize=normalize
    )


@pytest.mark.slow
def test_a_plain_head_is_affine_and_both_solvers_know_it(narrow):
    params, x, labels = narrow
    plain = head(params, x, labels, normalize=False)
    found = lz.ntk.fine_tune_exactly(mlp, params, x, labels, readout=plain, l2=L2)
    other = lz.ntk.gauss_newton(mlp, params, x, labels, readout=plain, l2=L2, tolerance=1e-8)
    assert found.solver == "dual"
    assert found.reached.certified
    assert found.reached.gap <= 1e-5
    assert set(found.tau.delta) == set(other.tau.delta)
    assert found.tau.base == other.tau.base
    assert float((found.tau - other.tau).norm() / other.tau.norm()) < 1e-3


@pytest.mark.slow
def test_a_head_that_normalises_ends_stationary(narrow):
    params, x, labels = narrow
    out = np.random.default_rng(5).normal(size=(8, 16)).astype(np.float32) / 2
    params = params | {"out": {"w": out}}
    normalising = head(params, x, labels, normalize=True)
    found = lz.ntk.fine_tune_exactly(mlp, params, x, labels, readout=normalising, l2=0.1)
    assert found.solver == "gauss_newton"
    assert not found.reached.certified
    assert found.reached.gap == np.inf
    f_tan = lz.taylor.tangent(mlp)

    @jax.jit
    @jax.grad
    def gradient(tau):
        logits = heads.apply_head(normalising, f_tan(params, tau, x))
        losses = -jax.nn.log_softmax(logits)[jnp.arange(N), labels]
        return losses.mean() + 0.1 / 2 * sum(jnp.sum(leaf**2) for leaf in tau.values())

    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in gradient(found.tau.delta).values()))
    assert norm <= 2 * np.sqrt(2 * 0.1 * 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_the_matrix_of_a_head_is_the_hessian(narrow, normalize):
    """Jᵀ ∇²(CE ∘ R) J + l2 I, built densely; with a plain head, of R'ᵀ (diag p − p pᵀ) R'."""
    params, x, labels = narrow
    readout = head(params, x, labels, normalize, temperature=2.0)
    passes = objective.TrainingSet.of(mlp, params, x, labels, readout, L2, 5, "auto")
    rng = np.random.default_rng(3)
    tau, d = (
        {n: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32) for n, leaf in flat.items()}
        for flat in 2 * [lz.tree.flatten(params)]
    )
    outputs, _, _ = passes.slope(tau)
    moved, got = passes.curvature(outputs, d)
    f_tan = lz.taylor.tangent(mlp)

    @jax.jit
    def dense(tau):
        z = f_tan(params, tau, x)
        J = jax.jacobian(lambda tau: f_tan(params, tau, x))(tau)
        if normalize:
            one = lambda z, y: -jax.nn.log_softmax(heads.apply_head(readout, z[None])[0])[y]  # noqa: E731
            H = jax.vmap(jax.hessian(one))(z, labels)
        else:
            p = jax.nn.softmax(heads.apply_head(readout, z))
            R = readout.scale * readout.kernel
            H = R @ (jax.vmap(jnp.diag)(p) - p[:, :, None] * p[:, None, :]) @ R.T
        return jnp.concatenate([leaf.reshape(N, CLASSES, -1) for leaf in J.values()], -1), H / N

    J, H = dense(tau)
    flat = np.concatenate([d[n].ravel() for n in tau])
    expected = np.einsum("ncp,nce,neq,q->p", J, H, J, flat) + L2 * flat
    whole = np.concatenate([got[n].ravel() for n in tau])
    np.testing.assert_allclose(whole, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    np.testing.assert_allclose(
        np.concatenate(moved)[:N], np.einsum("ncp,p->nc", J, flat), rtol=0, atol=1e-4
    )


def test_a_pass_costs_five_forward_passes():
    def wide(params, x):
        for w in params["w"]:
            x = jnp.tanh(x @ w)
        return x

    params = {"w": [jnp.zeros((64, 64))] * 4}
    x, labels = np.zeros((8, 64), np.float32), np.arange(8)
    passes = objective.TrainingSet.of(wide, params, x, labels, None, L2, 8, "auto")
    tau = lz.tree.zeros(params)
    (args, known, weights) = passes.batches[0]
    forward = cost.count_flops(wide, params, *args)
    common = ("auto", params, tau, tau, passes.readout, args)
    # static arguments first, as jit has them
    slope = cost.count_flops(lambda *a: objective._slope(wide, *common, *a), known, weights)
    z = jnp.zeros((8, 64))
    curve = cost.count_flops(lambda *a: objective._curve(wide, *common, *a), z, known, weights)
    assert max(slope, curve) <= 5.1 * forward


@pytest.mark.slow
def test_auto_takes_the_dual_for_few_examples_and_weights_for_many(narrow):
    params, x, labels = narrow
    few = lz.ntk.fine_tune_exactly(mlp, params, x, labels, l2=0.1)
    assert few.solver == "dual"
    many = np.random.default_rng(0).normal(size=(3000, WIDTH)).astype(np.float32)
    truth = many[:, :CLASSES].argmax(1)
    found = lz.ntk.fine_tune_exactly(mlp, params, many, truth, l2=0.1, batch_size=1000)
    assert found.solver == "gauss_newton"
    assert found.reached.gap <= 1e-6


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"l2": 0.0}, ValueError, "l2=0"),
        ({"l2": -1.0}, ValueError, "l2=-1"),
        ({"tolerance": 0.0}, ValueError, "tolerance=0"),
        ({"solver": "duel"}, ValueError, "did you mean 'dual'"),
        ({"labels": np.full(N, CLASSES)}, ValueError, "0 to 2"),
        ({"labels": np.zeros(N)}, ValueError, "integer class indices"),
        ({"labels": np.zeros(2, int)}, ValueError, "labels has shape"),
        ({"readout": jnp.tanh, "solver": "dual"}, ValueError, "readout=tanh"),
        ({"readout": lambda z: z[0]}, ValueError, "expected logits"),
        ({"trainable": "kernel"}, ValueError, "picks no trainable leaf"),
    ],
)
def test_bad_input_is_refused(narrow, change, error, says):
    params, x, labels = narrow
    given = {"labels": labels, "l2": L2} | change
    with pytest.raises(error, match=says):
        lz.ntk.fine_tune_exactly(mlp, params, x, given.pop("labels"), **given)


def test_a_start_of_another_model_is_refused(narrow):
    params, x, labels = narrow
    other = lz.TaskVector(lz.tree.zeros(params), base="0" * 64)
    with pytest.raises(lz.tree.StructureMismatch, match="another base"):
        lz.ntk.gauss_newton(mlp, params, x, labels, l2=L2, start=other)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
def test_a_loss_of_half_precision_is_the_mean_of_the_same_logits(kind):
    """Of 13 examples each weighs 1/13, a quarter of a per mille off in 8 bits; logits are exact."""
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.integers(-2, 3, (WIDTH, CLASSES)), kind)}
    x, labels = jnp.asarray(rng.integers(-2, 3, (N, WIDTH)), kind), rng.integers(0, CLASSES, N)
    logits = np.float64(linear(params, x))
    losses = scipy.special.logsumexp(logits, 1) - logits[np.arange(N), labels]
    tau = {"w": jnp.zeros((WIDTH, CLASSES))}
    found = lz.ntk.linear_objective(linear, params, tau, x, labels, batch_size=5)
    assert found.loss == pytest.approx(losses.mean(), rel=1e-6)
    how = {"l2": 0.1, "tolerance": 1e-3}
    half = lz.ntk.gauss_newton(linear, params, x, labels, **how)
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (params, x))
    assert half.reached.gap <= 1e-3
    expected = lz.ntk.gauss_newton(linear, *wide, labels, **how).reached.objective
    assert half.reached.objective == pytest.approx(expected, abs=0.01)


def linear(params, x):
    return x @ params["w"]


@pytest.mark.parametrize("solver", ["dual", "gauss_newton", "auto"])
def test_parameters_may_be_one_array(solver):
    x, labels = jnp.eye(3), [0, 1, 1]
    how = {"l2": 0.1, "solver": solver}
    found = lz.ntk.fine_tune_exactly(lambda w, x: x @ w, jnp.zeros((3, 2)), x, labels, **how)
    named = lz.ntk.fine_tune_exactly(linear, {"w": jnp.zeros((3, 2))}, x, labels, **how)
    assert found.tau.apply_to(jnp.zeros((3, 2))).tolist() == named.tau.delta["w"].tolist()

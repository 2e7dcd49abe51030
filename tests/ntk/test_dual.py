"""Cross-entropy in the dual against weight space, scikit-learn, scipy and finite differences."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from scipy.special import expit, log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from linearize.ntk.checks import NotConvergedError
from linearize.ntk.dual import cross_entropy, cross_entropy_descent
from linearize.ntk.regression import predict

N, C, P = 12, 3, 50
SCALE = 0.7


def problem(outputs=C, n=N, p=P, seed=0):
    """Jacobians (N, C, P), their full kernel, f0 and labels."""
    rng = np.random.default_rng(seed)
    jacobian = rng.normal(size=(n, outputs, p)) / np.sqrt(p)
    kernel = np.einsum("ncp,mdp->nmcd", jacobian, jacobian)
    labels = rng.permutation(np.arange(n) % max(outputs, 2))
    return jacobian, kernel, rng.normal(size=(n, outputs)), labels


def loss_and_slope(logits, labels):
    """Mean cross-entropy and its gradient with respect to the logits."""
    n = len(labels)
    if logits.shape[1] == 1:
        signs = 2 * labels[:, None] - 1
        return np.logaddexp(0, -signs * logits).mean(), (expit(logits) - labels[:, None]) / n
    slope = softmax(logits, axis=1)
    slope[np.arange(n), labels] -= 1
    return -log_softmax(logits, axis=1)[np.arange(n), labels].mean(), slope / n


def objective(tau, jacobian, f0, labels, l2):
    loss, slope = loss_and_slope(SCALE * f0 + jacobian @ tau, labels)
    gradient = np.einsum("ncp,nc->p", jacobian, slope) + l2 * tau
    return loss + l2 / 2 * tau @ tau, gradient


def to_tau(jacobian, c):
    return -np.einsum("ncp,...nc->...p", jacobian, c)


class TestDescent:
    @pytest.mark.parametrize("outputs", [1, 2, 3])
    @pytest.mark.parametrize(("momentum", "l2"), [(0.0, 0.0), (0.9, 0.0), (0.9, 0.05)])
    def test_equals_weight_space(self, outputs, momentum, l2):
        jacobian, kernel, f0, labels = problem(outputs)
        rates = 2.0 * np.cos(np.linspace(0, np.pi / 2, 300)) ** 2
        steps = [0, 1, 50, 300]
        dual = cross_entropy_descent(kernel, f0, labels, rates, momentum, l2, SCALE, steps=steps)
        tau = velocity = np.zeros(P)
        for k in range(301):
            value, gradient = objective(tau, jacobian, f0, labels, l2)
            if k in steps:
                row = steps.index(k)
                np.testing.assert_allclose(
                    to_tau(jacobian, dual.coefficients[row]), tau, atol=1e-11
                )
                np.testing.assert_allclose(dual.objective[row], value, rtol=1e-11)
                np.testing.assert_allclose(
                    dual.gradient_norm[row], np.linalg.norm(gradient), rtol=1e-8
                )
            if k < 300:
                velocity = momentum * velocity + gradient
                tau = tau - rates[k] * velocity

    def test_equals_optax(self):
        """Momentum and weight decay of optax, in float32 on the model itself."""
        jacobian, kernel, f0, labels = problem()
        J, start = jnp.asarray(jacobian, jnp.float32), jnp.asarray(f0, jnp.float32)
        optimiser = optax.chain(optax.add_decayed_weights(0.01), optax.sgd(0.5, momentum=0.9))

        @jax.jit
        def step(carry, _):
            tau, state = carry
            gradient = jax.grad(
                lambda t: optax.softmax_cross_entropy_with_integer_labels(
                    start + jnp.einsum("ncp,p->nc", J, t), labels
                ).mean()
            )(tau)
            updates, state = optimiser.update(gradient, state, tau)
            return (tau + updates, state), None

        tau = jnp.zeros(P)
        (tau, _), _ = jax.lax.scan(step, (tau, optimiser.init(tau)), length=100)
        dual = cross_entropy_descent(kernel, f0, labels, np.full(100, 0.5), 0.9, 0.01)
        np.testing.assert_allclose(to_tau(jacobian, dual.coefficients), tau, atol=2e-5)

    def test_layouts_agree(self):
        rng = np.random.default_rng(0)
        features = rng.normal(size=(N, 20))
        shared = features @ features.T / 20
        _, _, f0, labels = problem()
        kernels = {
            "shared": shared,
            "diagonal": np.repeat(shared[:, :, None], C, 2),
            "full": np.einsum("nm,cd->nmcd", shared, np.eye(C)),
        }
        found = [
            cross_entropy_descent(k, f0, labels, np.full(50, 1.0), 0.9, 0.01).coefficients
            for k in kernels.values()
        ]
        np.testing.assert_allclose(found[0], found[1], atol=1e-13)
        np.testing.assert_allclose(found[0], found[2], atol=1e-13)
        optima = [cross_entropy(k, f0, labels, 0.01).coefficients for k in kernels.values()]
        np.testing.assert_allclose(optima[0], optima[1], atol=1e-4)
        np.testing.assert_allclose(optima[0], optima[2], atol=1e-4)

    def test_long_descent_comes_to_the_optimum(self):
        _, kernel, f0, labels = problem()
        dual = cross_entropy_descent(kernel, f0, labels, np.full(3000, 1.0), 0.9, 0.05)
        best = cross_entropy(kernel, f0, labels, 0.05, tolerance=1e-16)
        np.testing.assert_allclose(dual.coefficients, best.coefficients, atol=1e-6)

    def test_bad_input(self):
        _, kernel, f0, labels = problem()
        for change, message in (
            ({"momentum": 1.0}, r"momentum=1\.0"),
            ({"l2": -0.1}, r"l2=-0\.1"),
            ({"learning_rates": [0.1, -0.1]}, r"its least is -0\.1"),
            ({"learning_rates": 0.1}, r"expected \(S,\)"),
            ({"steps": 3}, "from 0 to 2"),
            ({"steps": [0.5]}, "whole numbers"),
            ({"learning_rates": np.full(2000, 1e3), "l2": 1e3}, "overflowed; lower"),
        ):
            options = {"learning_rates": [0.1, 0.1], **change}
            with pytest.raises(ValueError, match=message):
                cross_entropy_descent(kernel, f0, labels, **options)


class TestOptimum:
    @pytest.mark.parametrize("l2", [1.0, 1e-2, 1e-4])
    @pytest.mark.parametrize("outputs", [1, 3])
    def test_equals_scikit_learn(self, outputs, l2):
        rng = np.random.default_rng(1)
        features, more = rng.normal(size=(40, 8)), rng.normal(size=(10, 8))
        labels = (features @ rng.normal(size=(8, max(outputs, 2)))).argmax(1)
        labels[:8] = rng.integers(0, labels.max() + 1, 8)
        peer = LogisticRegression(C=1 / (40 * l2), fit_intercept=False, tol=1e-12, max_iter=20000)
        peer.fit(features, labels)
        dual = cross_entropy(
            features @ features.T, np.zeros((40, outputs)), labels, l2, tolerance=1e-15
        )
        expected = peer.decision_function(more)
        np.testing.assert_allclose(
            predict(dual, more @ features.T, np.zeros((10, outputs))),
            expected[:, None] if outputs == 1 else expected,
            rtol=1e-4,
            atol=1e-5,
        )

    @pytest.mark.parametrize("l2", [0.1, 1e-3, 1e-5])
    @pytest.mark.parametrize("outputs", [1, 3])
    def test_equals_lbfgs_in_weight_space(self, outputs, l2):
        jacobian, kernel, f0, labels = problem(outputs)
        peer = scipy.optimize.minimize(
            objective,
            np.zeros(P),
            args=(jacobian, f0, labels, l2),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 20000, "maxfun": 40000, "ftol": 0, "gtol": 1e-11},
        )
        dual = cross_entropy(kernel, f0, labels, l2, SCALE, tolerance=1e-13)
        assert dual.objective <= peer.fun + 1e-13
        np.testing.assert_allclose(dual.objective, peer.fun, atol=1e-9)

    @pytest.mark.parametrize("outputs", [1, 3])
    @pytest.mark.parametrize("tolerance", [1e-2, 1e-5])
    def test_the_certificate(self, outputs, tolerance):
        """The norm is that of weight space, by differences; and bounds the gap to the optimum."""
        jacobian, kernel, f0, labels = problem(outputs)
        l2 = 0.02
        dual = cross_entropy(kernel, f0, labels, l2, SCALE, tolerance=tolerance)
        tau = to_tau(jacobian, dual.coefficients)
        eps = 1e-6
        differences = [
            (
                objective(tau + eps * e, jacobian, f0, labels, l2)[0]
                - objective(tau - eps * e, jacobian, f0, labels, l2)[0]
            )
            / (2 * eps)
            for e in np.eye(P)
        ]
        np.testing.assert_allclose(
            dual.gradient_norm, np.linalg.norm(differences), rtol=1e-3, atol=1e-9
        )
        best = cross_entropy(kernel, f0, labels, l2, SCALE, tolerance=1e-15)
        gap = dual.objective - best.objective
        assert 0 <= gap <= dual.gradient_norm**2 / (2 * l2) <= tolerance
        distance = np.linalg.norm(tau - to_tau(jacobian, best.coefficients))
        assert distance <= dual.gradient_norm / l2 + 1e-6

    @pytest.mark.parametrize("l2", [1e-3, 1e-6, 1e-9])
    @pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
    def test_hard_spectra(self, decay, l2):
        """Eigenvalues as k^(−decay), up to 1e4: the optimality condition l2 c = G, by itself."""
        rng = np.random.default_rng(0)
        basis = np.linalg.qr(rng.normal(size=(20 * C, 20 * C)))[0]
        matrix = (basis * (1e4 * np.arange(1.0, 20 * C + 1) ** -decay)) @ basis.T
        kernel = matrix.reshape(20, C, 20, C).transpose(0, 2, 1, 3)
        f0, labels = rng.normal(size=(20, C)), rng.integers(0, C, 20)
        dual = cross_entropy(kernel, f0, labels, l2, tolerance=1e-12)
        _, slope = loss_and_slope(predict(dual, kernel, f0), labels)
        h = (slope - l2 * dual.coefficients).ravel()
        assert h @ matrix @ h <= 2 * l2 * 1e-12 * 1.01

    def test_singular_kernel(self):
        """Equal examples with unequal labels: the best logits are those of their frequencies."""
        kernel, f0 = np.ones((4, 4)), np.zeros((4, 2))
        dual = cross_entropy(kernel, f0, [0, 0, 0, 1], l2=1e-8)
        odds = predict(dual, kernel, f0)
        np.testing.assert_allclose(softmax(odds, axis=1), np.full((4, 2), [0.75, 0.25]), atol=1e-4)

    def test_without_l2_there_is_no_optimum(self):
        _, kernel, f0, labels = problem()
        with pytest.raises(ValueError, match="l2=0: separable"):
            cross_entropy(kernel, f0, labels, l2=0.0)

    def test_what_did_not_converge_says_how_far_it_came(self):
        _, kernel, f0, labels = problem()
        with pytest.raises(NotConvergedError, match=r"max_iterations \(1\)") as caught:
            cross_entropy(kernel, f0, labels, l2=1e-6, max_iterations=1)
        reached = float(re.search(r"within ([\d.e+-]+) of", str(caught.value))[1])
        assert reached > 1e-10

    def test_indefinite_kernels_get_a_jitter_that_works(self):
        _, kernel, f0, labels = problem()
        kernel[0, 0] -= 3 * np.eye(C)
        with pytest.raises(ValueError, match="kernel is indefinite") as caught:
            cross_entropy(kernel, f0, labels, l2=0.1)
        with pytest.raises(ValueError, match="kernel is indefinite"):
            cross_entropy_descent(kernel, f0, labels, [0.1])
        jitter = float(re.search(r"add ([\d.e+-]+) to its diagonal", str(caught.value))[1])
        jittered = kernel + jitter * np.einsum("nm,cd->nmcd", np.eye(N), np.eye(C))
        assert cross_entropy(jittered, f0, labels, l2=0.1).gradient_norm < 1e-4

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0] * 11 + [3], r"labels\[11\] is 3; expected 0 to 2"),
            ([-1] + [0] * 11, r"labels\[0\] is -1"),
            ([0] * 11, r"labels has shape \(11,\); expected \(12,\)"),
            ([0.0] * 12, "dtype float64; expected integer"),
            (np.eye(C)[[0] * 12], r"labels has shape \(12, 3\)"),
        ],
    )
    def test_labels(self, labels, message):
        _, kernel, f0, _ = problem()
        with pytest.raises(ValueError, match=message):
            cross_entropy(kernel, f0, labels, l2=0.1)


def test_a_singular_float32_kernel_meets_the_tolerance_that_its_rounding_permits():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 4)).astype(np.float32)
    y = x[:, 0].argsort().argsort() * 3 // 200
    exact = x.astype(np.float64) @ x.T.astype(np.float64) + 1  # rank 5 of 200
    f0 = np.zeros((200, 3))
    found = cross_entropy(exact.astype(np.float32), f0, y, l2=1e-3)
    wide = cross_entropy(exact, f0, y, l2=1e-3)
    assert found.gradient_norm**2 / 2e-3 <= 1e-6
    np.testing.assert_allclose(found.objective, wide.objective, atol=2e-6)

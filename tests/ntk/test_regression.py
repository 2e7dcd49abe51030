"""Kernel regression against explicit weight space, an ODE solver and scikit-learn."""

import re

import ml_dtypes
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from sklearn.kernel_ridge import KernelRidge

from linearize.ntk import checks, layout
from linearize.ntk.regression import (
    Dual,
    gradient_descent,
    gradient_flow,
    max_learning_rate,
    predict,
    regression,
)

N, M, C, P = 6, 4, 3, 40
LAYOUTS = ("full", "diagonal", "shared")
SCALE = 0.7


class Model:
    """f(x) = s f0(x) + J(x) τ, with the Jacobians (N, C, P) that make a kernel of each layout."""

    def __init__(self, kind, n=N, m=M, c=C, p=P, seed=0):
        rng = np.random.default_rng(seed)
        jacobian = rng.normal(size=(n + m, c, p)) / np.sqrt(p)
        if kind == "diagonal":  # each output has parameters of its own
            jacobian = np.einsum("ncp,cd->ncdp", jacobian, np.eye(c)).reshape(n + m, c, c * p)
        elif kind == "shared":
            jacobian = np.einsum("np,cd->ncdp", jacobian[:, 0], np.eye(c)).reshape(n + m, c, c * p)
        self.train, self.test = jacobian[:n], jacobian[n:]
        self.f0, self.f0_test = rng.normal(size=(n, c)), rng.normal(size=(m, c))
        self.y = rng.normal(size=(n, c))
        self.kind = kind
        self.kernel, self.kernel_test = self.k(self.train), self.k(self.test)

    def k(self, rows):
        full = np.einsum("ncp,mdp->nmcd", rows, self.train)
        if self.kind == "diagonal":
            return np.einsum("nmcc->nmc", full)
        return full[:, :, 0, 0] if self.kind == "shared" else full

    def tau(self, c):
        return -np.einsum("ncp,nc->p", self.train, c)

    def f(self, tau, scale=SCALE):
        return scale * self.f0 + self.train @ tau

    def f_test(self, tau, scale=SCALE):
        return scale * self.f0_test + self.test @ tau

    def gradient(self, tau, ridge):
        return np.einsum("ncp,nc->p", self.train, self.f(tau) - self.y) + ridge * tau


@pytest.fixture(params=LAYOUTS)
def model(request):
    return Model(request.param)


def same_predictions(model, dual, tau):
    np.testing.assert_allclose(model.tau(dual.coefficients), tau, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(
        predict(dual, model.kernel_test, model.f0_test), model.f_test(tau), rtol=1e-8, atol=1e-10
    )


class TestClosedForms:
    @pytest.mark.parametrize("ridge", [0.0, 0.3])
    def test_gradient_descent_equals_the_loop_in_weight_space(self, model, ridge):
        rate = 0.9 * max_learning_rate(model.kernel, ridge)
        steps = [0, 1, 7, 60]
        dual = gradient_descent(model.kernel, model.f0, model.y, rate, steps, ridge, SCALE)
        tau, taus = np.zeros(model.train.shape[-1]), {}
        for k in range(61):
            taus[k] = tau
            tau = tau - rate * model.gradient(tau, ridge)
        for row, k in enumerate(steps):
            at = Dual(dual.coefficients[row], SCALE, dual.objective[row], dual.gradient_norm[row])
            same_predictions(model, at, taus[k])
            loss = (
                0.5 * ((model.f(taus[k]) - model.y) ** 2).sum() + ridge / 2 * (taus[k] ** 2).sum()
            )
            np.testing.assert_allclose(at.objective, loss, rtol=1e-9, atol=1e-15)
            norm = np.linalg.norm(model.gradient(taus[k], ridge))
            np.testing.assert_allclose(at.gradient_norm, norm, rtol=1e-8, atol=1e-12)

    @pytest.mark.parametrize("ridge", [0.0, 0.3])
    def test_gradient_flow_equals_an_ode_solver(self, model, ridge):
        times = np.array([0.0, 0.4, 3.0, 20.0])
        dual = gradient_flow(model.kernel, model.f0, model.y, times, ridge, SCALE)
        solved = solve_ivp(
            lambda _, tau: -model.gradient(tau, ridge),
            (0, 20),
            np.zeros(model.train.shape[-1]),
            t_eval=times,
            rtol=1e-10,
            atol=1e-12,
        )
        for row, tau in enumerate(solved.y.T):
            np.testing.assert_allclose(model.tau(dual.coefficients[row]), tau, atol=1e-7)
        np.testing.assert_allclose(
            predict(dual, model.kernel_test, model.f0_test),
            [model.f_test(tau) for tau in solved.y.T],
            atol=1e-7,
        )

    @pytest.mark.parametrize("ridge", [0.0, 0.3])
    def test_regression_equals_least_squares_in_weight_space(self, model, ridge):
        """The minimum-norm solution of the stacked system (J; √ρ I) τ = (y − s f0; 0)."""
        J = model.train.reshape(-1, model.train.shape[-1])
        rows = np.vstack([J, np.sqrt(ridge) * np.eye(J.shape[1])])
        right = np.concatenate([(model.y - SCALE * model.f0).ravel(), np.zeros(J.shape[1])])
        tau = np.linalg.lstsq(rows, right)[0]
        dual = regression(model.kernel, model.f0, model.y, ridge, SCALE)
        same_predictions(model, dual, tau)
        assert dual.gradient_norm < 1e-9

    def test_limits(self, model):
        """The ends t → ∞ and k → ∞ are the regression; with ridge → 0 the targets are met."""
        args = model.kernel, model.f0, model.y
        rate = max_learning_rate(model.kernel) / 2
        for ridge in (0.0, 0.2):
            exact = regression(*args, ridge, SCALE).coefficients
            for late in (np.inf, 1e9):
                flow = gradient_flow(*args, late, ridge, SCALE).coefficients
                np.testing.assert_allclose(flow, exact, rtol=1e-7, atol=1e-9)
                slow = gradient_descent(*args, rate / 2, late, ridge, SCALE).coefficients
                np.testing.assert_allclose(slow, exact, rtol=1e-7, atol=1e-9)
        for ridge in (1e-2, 1e-4, 1e-6):
            dual = regression(*args, ridge)
            gap = np.abs(predict(dual, model.kernel, model.f0) - model.y).max()
            assert gap <= ridge * np.abs(dual.coefficients).max() * (1 + 1e-6)

    def test_small_steps_are_the_flow(self, model):
        """The gap to the flow falls in proportion to the learning rate."""
        args = model.kernel, model.f0, model.y
        flow = gradient_flow(*args, 2.0).coefficients
        gaps = [
            np.abs(gradient_descent(*args, 2.0 / k, k).coefficients - flow).max()
            for k in (1000, 2000, 4000)
        ]
        np.testing.assert_allclose(np.divide(gaps[:-1], gaps[1:]), 2.0, rtol=0.01)

    @pytest.mark.parametrize("ridge", [0.1, 1.0])
    def test_scikit_learn(self, ridge):
        model = Model("shared")
        peer = KernelRidge(alpha=ridge, kernel="precomputed").fit(model.kernel, model.y)
        dual = regression(model.kernel, model.f0, model.y, ridge, f0_scale=0.0)
        np.testing.assert_allclose(
            predict(dual, model.kernel_test), peer.predict(model.kernel_test)
        )
        matrix = layout.as_matrix(Model("full").kernel)
        model = Model("full")
        peer = KernelRidge(alpha=ridge, kernel="precomputed").fit(matrix, model.y.ravel())
        dual = regression(model.kernel, model.f0, model.y, ridge, f0_scale=0.0)
        np.testing.assert_allclose(
            predict(dual, model.kernel_test).ravel(),
            peer.predict(layout.as_matrix(model.kernel_test)),
        )

    def test_singular_kernels_flow(self):
        """Two equal examples: the residual's part in the null space stays for ever."""
        kernel = np.ones((2, 2))
        flow = gradient_flow(kernel, np.zeros((2, 1)), [[1.0], [3.0]], [5.0, np.inf])
        mean = 2 * (1 - np.exp(-2 * 5.0))
        np.testing.assert_allclose(
            predict(flow, kernel, np.zeros((2, 1)))[..., 0], [[mean, mean], [2.0, 2.0]]
        )

    def test_tiny_eigenvalues_keep_their_digits(self):
        """(1 − (1 − η λ)^k) / λ → η k as λ → 0, and (1 − e^(−λ t)) / λ → t."""
        kernel, rest = np.diag([1.0, 1e-18]), (np.ones((2, 1)), np.zeros((2, 1)))
        np.testing.assert_allclose(gradient_flow(kernel, *rest, 3.0).coefficients[1], 3.0)
        np.testing.assert_allclose(gradient_descent(kernel, *rest, 0.5, 6).coefficients[1], 3.0)


class TestLayouts:
    def test_shared_is_kronecker(self):
        model = Model("shared")
        full = np.einsum("nm,cd->nmcd", model.kernel, np.eye(C))
        full_test = np.einsum("nm,cd->nmcd", model.kernel_test, np.eye(C))
        np.testing.assert_array_equal(layout.as_matrix(full), np.kron(model.kernel, np.eye(C)))
        for solve in (
            lambda k: regression(k, model.f0, model.y, 0.1),
            lambda k: gradient_flow(k, model.f0, model.y, [0.5, 2.0]),
            lambda k: gradient_descent(k, model.f0, model.y, 0.1, [1, 9]),
        ):
            np.testing.assert_allclose(
                predict(solve(model.kernel), model.kernel_test, model.f0_test),
                predict(solve(full), full_test, model.f0_test),
            )

    def test_a_matrix_holds_the_kernel_and_its_product(self):
        kernel = np.random.default_rng(0).normal(size=(3, 5, 2, 4))
        matrix = layout.as_matrix(kernel)
        assert matrix.shape == (6, 20)
        assert matrix[2 * 2 + 1, 4 * 4 + 3] == kernel[2, 4, 1, 3]
        back = matrix.reshape(3, 2, 5, 4).transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(back, kernel)
        vector = np.random.default_rng(1).normal(size=(5, 4))
        np.testing.assert_allclose(
            layout.product(kernel)(vector), np.einsum("nmcd,md->nc", kernel, vector)
        )

    def test_what_is_no_matrix(self):
        with pytest.raises(ValueError, match=r"kernel\[:, :, c\]"):
            layout.as_matrix(np.zeros((2, 2, 3)))

    @pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int32])
    def test_any_dtype_is_widened(self, dtype):
        """Powers of four, and their roots, are exact in all of them."""
        kernel = np.diag([1, 4, 16]).astype(dtype)
        dual = regression(kernel, np.zeros((3, 1), dtype), np.ones((3, 1), dtype))
        assert dual.coefficients.dtype == np.float64
        np.testing.assert_array_equal(dual.coefficients.ravel(), [-1, -1 / 4, -1 / 16])


class TestLearningRate:
    def test_the_bound_parts_convergence_from_divergence(self, model):
        bound = max_learning_rate(model.kernel)
        J = model.train.reshape(N * C, -1)
        np.testing.assert_allclose(bound, 2 / np.linalg.norm(J, 2) ** 2)

        def distance(rate):
            tau = np.zeros(model.train.shape[-1])
            for _ in range(2000):
                tau = tau - rate * model.gradient(tau, 0.0)
            return np.abs(model.f(tau) - model.y).max()

        assert distance(0.98 * bound) < 1
        assert distance(1.02 * bound) > 1e3
        with pytest.raises(ValueError, match=re.escape(f"{bound:.4g}")):
            gradient_descent(model.kernel, model.f0, model.y, 1.02 * bound, 10)

    def test_at_the_bound_there_is_no_limit(self):
        args = np.eye(1), [[1.0]], [[0.0]]
        np.testing.assert_allclose(
            gradient_descent(*args, 2.0, [1, 2]).coefficients.ravel(), [2, 0]
        )
        with pytest.raises(ValueError, match="not below the bound"):
            gradient_descent(*args, 2.0, np.inf)

    @pytest.mark.parametrize("rate", [0.0, -1.0, np.nan])
    def test_no_learning_rate(self, rate):
        with pytest.raises(ValueError, match="learning_rate="):
            gradient_descent(np.eye(1), [[1.0]], [[0.0]], rate, 1)

    def test_a_kernel_of_zeros(self):
        with pytest.raises(ValueError, match="no step moves any output"):
            max_learning_rate(np.zeros((2, 2)))


class TestBadInput:
    @pytest.mark.parametrize("kind", LAYOUTS)
    def test_indefinite_kernels_get_a_ridge_that_works(self, kind):
        model = Model(kind)
        kernel = model.kernel.copy()
        kernel[0, 0] -= 3 * (np.eye(C) if kind == "full" else 1.0)
        smallest = np.linalg.eigvalsh(layout.to_blocks(kernel)).min()
        rest = model.f0, model.y
        for solve in (
            lambda ridge: regression(kernel, *rest, ridge),
            lambda ridge: gradient_flow(kernel, *rest, 1.0, ridge),
            lambda ridge: gradient_descent(kernel, *rest, 0.01, 3, ridge),
        ):
            with pytest.raises(ValueError, match="kernel is indefinite") as caught:
                solve(0.0)
            assert f"smallest eigenvalue is {smallest:.1e}" in str(caught.value)
            solve(float(re.search(r"ridge=([\d.e+-]+) would", str(caught.value))[1]))

    @pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
    def test_singular_kernels_get_a_ridge_that_works(self, scale):
        features = np.random.default_rng(0).normal(size=(30, 5))
        args = scale * features @ features.T, np.zeros((30, 1)), np.ones((30, 1))
        with pytest.raises(ValueError, match="kernel is singular to rounding") as caught:
            regression(*args)
        ridge = float(re.search(r"ridge=([\d.e+-]+) would", str(caught.value))[1])
        assert ridge < 1e-3 * scale
        regression(*args, ridge)

    def test_rounding_is_no_indefiniteness(self):
        features = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
        kernel = features @ features.T
        assert np.linalg.eigvalsh(kernel.astype(np.float64)).min() < 0
        checks.check_semidefinite(checks.square_kernel(kernel))
        gradient_flow(kernel, np.zeros((50, 1)), np.ones((50, 1)), 1.0)

    @pytest.mark.parametrize("kind", LAYOUTS)
    def test_asymmetry(self, kind):
        kernel = Model(kind).kernel.copy()
        largest = np.abs(kernel).max()
        kernel[0, 1] += 0.5 * checks.ASYMMETRY * largest * (np.eye(C) if kind == "full" else 1)
        matrix = layout.to_blocks(checks.square_kernel(kernel))
        np.testing.assert_array_equal(matrix, np.swapaxes(matrix, -1, -2))
        kernel[0, 1] += 2 * checks.ASYMMETRY * largest * (np.eye(C) if kind == "full" else 1)
        with pytest.raises(ValueError, match="kernel is asymmetric"):
            checks.square_kernel(kernel)

    @pytest.mark.parametrize(
        ("kernel", "f0", "y", "message"),
        [
            (np.ones((3, 2)), np.ones((3, 1)), np.ones((3, 1)), r"kernel has shape \(3, 2\)"),
            (np.ones(3), np.ones((3, 1)), np.ones((3, 1)), r"kernel has shape \(3,\)"),
            (np.ones((3, 3, 2, 1)), np.ones((3, 2)), np.ones((3, 2)), "C1 = C2"),
            (np.ones((3, 3, 2)), np.ones((3, 4)), np.ones((3, 4)), "2 outputs, but f0 has 4"),
            (np.eye(3), np.ones((2, 1)), np.ones((2, 1)), r"f0 has shape \(2, 1\)"),
            (np.eye(3), np.ones(3), np.ones((3, 1)), r"reshape it to \(3, 1\)"),
            (np.eye(3), np.ones((3, 2)), np.ones((3, 1)), r"y has shape \(3, 1\).*\(3, 2\)"),
            (np.eye(3) * 1j, np.ones((3, 1)), np.ones((3, 1)), "kernel has dtype complex128"),
            (np.diag([1, np.nan, 1]), np.ones((3, 1)), np.ones((3, 1)), r"first at \(1, 1\)"),
            (np.eye(3), np.full((3, 1), np.inf), np.ones((3, 1)), "f0 holds NaN or infinity in 3"),
            (np.eye(3), np.ones((3, 1)), np.full((3, 1), np.nan), "y holds NaN"),
            (np.zeros((0, 0)), np.ones((0, 1)), np.ones((0, 1)), "is empty"),
        ],
    )
    def test_shapes_and_values(self, kernel, f0, y, message):
        with pytest.raises(ValueError, match=message):
            regression(kernel, f0, y)

    def test_numbers(self):
        args = np.eye(1), [[1.0]], [[0.0]]
        for name, value in (("ridge", -1.0), ("ridge", np.inf), ("f0_scale", np.nan)):
            with pytest.raises(ValueError, match=f"{name}={value}"):
                regression(*args, **{name: value})
        with pytest.raises(ValueError, match=r"times=-1\.0"):
            gradient_flow(*args, -1.0)
        with pytest.raises(ValueError, match=r"steps=\[1\.5\]"):
            gradient_descent(*args, 0.1, [1.5])

    def test_prediction(self):
        model = Model("full")
        dual = regression(model.kernel, model.f0, model.y)
        with pytest.raises(ValueError, match=r"adds f0 with the scale 1\.0"):
            predict(dual, model.kernel_test)
        with pytest.raises(ValueError, match=r"\(6, 3\) does not fit a kernel of shape \(4, 5"):
            predict(dual, model.kernel_test[:, :5], model.f0_test)
        with pytest.raises(ValueError, match=r"f0 has shape \(6, 3\); expected \(4, 3\)"):
            predict(dual, model.kernel_test, model.f0)

    def test_ids_that_overlap(self):
        checks.check_disjoint(np.arange(5), np.arange(5, 9))
        with pytest.raises(ValueError, match=r"overlap in 7: 3, 4, 5, 6, 7, \.\.\.; accuracy"):
            checks.check_disjoint(np.arange(10), np.arange(3, 20))
        with pytest.raises(ValueError, match="overlap in 1: 'b'"):
            checks.check_disjoint(["a", "b"], ["b", "c"])

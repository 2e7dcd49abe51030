"""Spectra against constructed ones, and matrix-free answers against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from linearize.ntk.checks import NotConvergedError
from linearize.ntk.layout import as_matrix
from linearize.ntk.matrix_free import conjugate_gradient, lanczos
from linearize.ntk.nystrom import nystrom, randomized_nystrom
from linearize.ntk.spectrum import effective_rank, eigenpairs, participation_ratio
from linearize.ntk.stochastic import log_determinant, trace

close = np.testing.assert_allclose


def with_spectrum(values, seed=0):
    """A symmetric matrix of given eigenvalues, and its eigenvectors."""
    values = np.asarray(values, float)
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return basis * values @ basis.T, basis


def full_kernel(n=4, c=3, p=20, seed=0):
    jacobian = np.random.default_rng(seed).normal(size=(n, c, p))
    return np.einsum("ncp,mdp->nmcd", jacobian, jacobian), jacobian


class TestEigenpairs:
    def test_finds_a_constructed_spectrum(self):
        values = [9.0, 5.0, 4.0, 1.0, 0.0]
        matrix, basis = with_spectrum(values)
        for k in (1, 3, 5, None):
            found = eigenpairs(matrix, k)
            close(found.values, values[:k], atol=1e-13)
            close(np.abs(np.sum(found.vectors * basis[:, :k], axis=0)), 1, atol=1e-12)
            assert found.residuals.max() < 1e-13
            assert (found.vectors.max(0) == np.abs(found.vectors).max(0)).all()

    def test_of_a_full_kernel_are_squared_singular_values(self):
        kernel, jacobian = full_kernel()
        found = eigenpairs(kernel, k=5)
        left, singular, _ = scipy.linalg.svd(jacobian.reshape(12, 20))
        close(found.values, singular[:5] ** 2, rtol=1e-12)
        assert found.vectors.shape == (4, 3, 5)
        close(np.abs(np.einsum("nck,nck->k", found.vectors, left[:, :5].reshape(4, 3, 5))), 1)

    def test_widens_half_precision(self):
        kernel = jnp.asarray([[2.0, 1.0], [1.0, 2.0]], jnp.bfloat16)
        close(eigenpairs(kernel).values, [3, 1], atol=1e-15)

    def test_bad_input(self):
        matrix, _ = with_spectrum([2.0, 1.0])
        for k in (0, 3):
            with pytest.raises(ValueError, match=f"k={k}; this kernel has 2"):
                eigenpairs(matrix, k)
        with pytest.raises(ValueError, match="asymmetric"):
            eigenpairs([[1.0, 0.5], [0.4, 1.0]])
        for shape in ((2, 3), (2, 2, 3), (2, 3, 1, 1)):
            with pytest.raises(ValueError, match="shape"):
                eigenpairs(np.ones(shape))
        with pytest.raises(ValueError, match="NaN"):
            eigenpairs([[np.nan, 0], [0, 1]])


class TestDimension:
    @settings(deadline=None, max_examples=50)
    @given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=20), st.floats(1e-6, 1e6))
    def test_order_bounds_and_scale(self, values, scale):
        """1 ≤ exp(H_2) ≤ exp(H_1) ≤ k (Rényi entropies fall with their order)."""
        ratio, rank = participation_ratio(values), effective_rank(values)
        assert 1 - 1e-9 <= ratio <= rank * (1 + 1e-9) <= len(values) * (1 + 2e-9)
        close([participation_ratio(np.multiply(values, scale))], [ratio], rtol=1e-9)
        close([effective_rank(np.multiply(values, scale))], [rank], rtol=1e-9)

    @pytest.mark.parametrize("k", [1, 4])
    def test_equal_eigenvalues_count(self, k):
        values = [3.0] * k + [0.0, -1e-8]
        close([participation_ratio(values), effective_rank(values)], k, rtol=1e-12)

    def test_of_a_geometric_spectrum(self):
        """λ = r^i for all i: (1 + r)/(1 − r), and exp of the geometric distribution's entropy."""
        r = 0.7
        values = r ** np.arange(400)
        close(participation_ratio(values), (1 + r) / (1 - r), rtol=1e-12)
        entropy = -np.log(1 - r) - r / (1 - r) * np.log(r)
        close(effective_rank(values), np.exp(entropy), rtol=1e-12)

    @pytest.mark.parametrize("measure", [participation_ratio, effective_rank])
    def test_refuses_what_is_no_spectrum(self, measure):
        for bad in ([0.0, 0.0], [-1.0, 2.0], [[1.0]], [np.nan], []):
            with pytest.raises(ValueError, match="eigenvalues"):
                measure(bad)


def ill_conditioned(n=120, seed=3):
    return with_spectrum(np.concatenate([np.logspace(4, 0, 20), np.full(n - 20, 1e-3)]), seed)[0]


class TestLanczos:
    def test_equals_dense_in_the_shape_given(self):
        kernel, jacobian = full_kernel(n=15, c=3, p=60)
        matrix = jacobian.reshape(45, 60)
        found = lanczos(lambda v: np.einsum("nmcd,md->nc", kernel, v), (15, 3), k=6)
        dense = eigenpairs(kernel, k=6)
        close(found.values, dense.values, rtol=1e-9)
        close(np.abs(np.einsum("nck,nck->k", found.vectors, dense.vectors)), 1, rtol=1e-9)
        images = np.einsum("nmcd,mdk->nck", kernel, found.vectors) - found.vectors * found.values
        close(found.residuals, np.linalg.norm(images, axis=(0, 1)), atol=1e-12)
        close(matrix @ matrix.T, as_matrix(kernel), rtol=1e-9, atol=1e-9)

    def test_through_products_in_float32(self):
        jacobian = jnp.asarray(np.random.default_rng(0).normal(size=(40, 90)), jnp.float32)
        product = jax.jit(lambda v: jacobian @ (jacobian.T @ v))
        exact = np.linalg.svd(np.asarray(jacobian, float), compute_uv=False)[:4] ** 2
        for tolerance in (1e-8, 0.0):
            found = lanczos(product, (40,), k=4, tolerance=tolerance)
            close(found.values, exact, rtol=2e-6)
            assert (found.residuals < 1e-5 * exact[0]).all()

    def test_seed_chooses_the_start(self):
        matrix, _ = with_spectrum(np.linspace(1, 2, 60))

        def run(seed):
            seen = []
            lanczos(lambda v: seen.append(v) or matrix @ v, (60,), k=2, seed=seed)
            return seen[2]

        np.testing.assert_array_equal(run(1), run(1))
        assert abs(run(1) - run(2)).max() > 0.01

    def test_bad_input(self):
        with pytest.raises(ValueError, match="k=3; Lanczos finds 1 to 2 of 3"):
            lanczos(lambda v: v, (3,), k=3)
        with pytest.raises(ValueError, match="not symmetric"):
            lanczos(lambda v: np.triu(np.ones((9, 9))) @ v, (9,), k=2)
        with pytest.raises(ValueError, match=r"gives shape \(2,\)"):
            lanczos(lambda v: v[:2], (9,), k=2)
        with pytest.raises(ValueError, match="NaN"):
            lanczos(lambda v: v * np.nan, (9,), k=2)
        matrix, _ = with_spectrum(1 + 1e-6 * np.arange(200))
        with pytest.raises(RuntimeError, match="raise the tolerance or max_restarts"):
            lanczos(lambda v: matrix @ v, (200,), k=3, tolerance=0, max_restarts=1)


class TestConjugateGradient:
    @pytest.mark.parametrize("ridge", [0.0, 0.5])
    @pytest.mark.parametrize("preconditioner", [None, 4])
    def test_equals_dense_solve(self, ridge, preconditioner):
        kernel, _ = full_kernel(n=5, c=3, p=40)
        b = np.random.default_rng(1).normal(size=(5, 3))
        found = conjugate_gradient(
            lambda v: np.einsum("nmcd,md->nc", kernel, v),
            b,
            ridge=ridge,
            preconditioner=preconditioner,
            tolerance=1e-12,
        )
        exact = np.linalg.solve(as_matrix(kernel) + ridge * np.eye(15), b.ravel())
        close(found.x, exact.reshape(5, 3), rtol=1e-8, atol=1e-10)
        assert found.residual <= 1e-11

    def test_preconditioner_saves_steps(self):
        matrix = ill_conditioned()
        b = np.random.default_rng(0).normal(size=120)
        steps = []
        plain = conjugate_gradient(lambda v: matrix @ v, b, tolerance=1e-8, callback=steps.append)
        assert steps == list(range(1, plain.steps + 1))
        sketch = randomized_nystrom(lambda v: matrix @ v, (120,), 40)
        columns = nystrom(matrix, 40)
        for low_rank in (sketch, columns, 40):
            fast = conjugate_gradient(
                lambda v: matrix @ v, b, preconditioner=low_rank, tolerance=1e-8
            )
            close(matrix @ fast.x, b, atol=1e-6)
            assert fast.steps < plain.steps / 3

    def test_exact_preconditioner_takes_one_step(self):
        """A rank-r kernel plus ridge, with the whole of it in the preconditioner."""
        matrix, _ = with_spectrum([5.0, 3.0, 3.0, *np.zeros(40)])
        b = np.ones(43)
        low_rank = randomized_nystrom(lambda v: matrix @ v, (43,), 4)
        found = conjugate_gradient(
            lambda v: matrix @ v, b, ridge=0.1, preconditioner=low_rank, tolerance=1e-6
        )
        assert found.steps <= 2
        close(found.x, np.linalg.solve(matrix + 0.1 * np.eye(43), b), rtol=1e-5, atol=1e-5)

    def test_zero_right_hand_side(self):
        found = conjugate_gradient(lambda v: v, np.zeros((2, 2)))
        np.testing.assert_array_equal(found.x, np.zeros((2, 2)))
        assert found.residual == 0

    def test_stopping_short_is_an_error_that_keeps_the_solution(self):
        matrix = ill_conditioned()
        b = np.ones(120)
        with pytest.raises(NotConvergedError, match="after 3 steps") as caught:
            conjugate_gradient(lambda v: matrix @ v, b, tolerance=1e-8, max_steps=3)
        found = caught.value.solution
        close(found.residual, np.linalg.norm(b - matrix @ found.x) / np.linalg.norm(b))

    def test_coarse_products_are_an_error(self):
        matrix = ill_conditioned()

        def coarse(v):
            return (matrix.astype(np.float32) @ v.astype(np.float32)).astype(np.float64)

        with pytest.raises(NotConvergedError, match=r"products are too coarse|raise max_steps"):
            conjugate_gradient(coarse, np.ones(120), ridge=1e-2, tolerance=1e-13)

    def test_bad_input(self):
        indefinite = np.diag([1.0, -2.0])
        with pytest.raises(ValueError, match=r"curvature -2.*ridge above 2"):
            conjugate_gradient(lambda v: indefinite @ v, [0.0, 1.0])
        with pytest.raises(ValueError, match="ridge=-1"):
            conjugate_gradient(lambda v: v, [1.0], ridge=-1)
        with pytest.raises(ValueError, match="tolerance=0"):
            conjugate_gradient(lambda v: v, [1.0], tolerance=0)
        with pytest.raises(ValueError, match="b holds NaN"):
            conjugate_gradient(lambda v: v, [np.nan])
        with pytest.raises(ValueError, match="b has 2 entries"):
            conjugate_gradient(lambda v: v, np.ones(2), preconditioner=nystrom(np.eye(3), 1))


def dense_nystrom(matrix, pivots):
    """K_{·S} K_SS⁺ K_{S·}, the textbook formula."""
    columns = matrix[:, pivots]
    return columns @ np.linalg.pinv(matrix[np.ix_(pivots, pivots)], hermitian=True) @ columns.T


def product_of(low_rank):
    basis = low_rank.vectors.reshape(-1, len(low_rank.values))
    return basis * low_rank.values @ basis.T


class TestNystrom:
    @pytest.mark.parametrize("pivoting", ["random", "greedy", "uniform"])
    def test_equals_the_formula_on_its_pivots(self, pivoting):
        kernel, _ = full_kernel(n=6, c=2, p=30)
        matrix = as_matrix(kernel)
        found = nystrom(kernel, 5, pivoting=pivoting, seed=2)
        expected = dense_nystrom(matrix, found.pivots)
        close(product_of(found), expected, atol=1e-10)
        close(found.error, np.trace(matrix - expected) / np.trace(matrix), rtol=1e-10)
        assert len(set(found.pivots.tolist())) == 5
        assert found.vectors.shape == (6, 2, 5)
        v = np.random.default_rng(0).normal(size=(6, 2))
        close(found.product(v).ravel(), expected @ v.ravel(), atol=1e-10)

    @pytest.mark.parametrize("rank", [3, 10])
    def test_of_a_low_rank_kernel_is_exact(self, rank):
        matrix, _ = with_spectrum([4.0, 2.0, 1.0, *np.zeros(17)])
        found = nystrom(matrix, rank)
        assert len(found.values) == 3
        close(found.values, [4, 2, 1], rtol=1e-10)
        close(product_of(found), matrix, atol=1e-10)
        assert found.error < 1e-10

    def test_error_falls_with_rank_and_never_beats_the_best(self):
        values = 0.7 ** np.arange(40)
        matrix, _ = with_spectrum(values)
        errors = [nystrom(matrix, r, seed=5).error for r in (5, 10, 20)]
        best = [values[r:].sum() / values.sum() for r in (5, 10, 20)]
        assert errors[0] > errors[1] > errors[2]
        assert all(e >= b for e, b in zip(errors, best, strict=True))

    def test_columns_by_function_each_asked_once(self):
        matrix, _ = with_spectrum(0.7 ** np.arange(20))
        asked = []

        def columns(index):
            asked.extend(index.tolist())
            return matrix[:, index]

        found = nystrom(columns, 4, diagonal=np.diag(matrix), seed=1)
        assert asked == found.pivots.tolist()
        close(product_of(found), product_of(nystrom(matrix, 4, seed=1)), atol=1e-12)

    def test_pivoting_follows_the_diagonal(self):
        """Random pivoting picks the heavy entry first as often as its share of the trace."""
        matrix = np.diag([8.0, 1.0, 1.0])
        first = [nystrom(matrix, 1, seed=s).pivots[0] for s in range(400)]
        share = np.mean(np.array(first) == 0)
        assert abs(share - 0.8) < 4 * np.sqrt(0.8 * 0.2 / 400)
        uniform = [nystrom(matrix, 1, pivoting="uniform", seed=s).pivots[0] for s in range(400)]
        assert abs(np.mean(np.array(uniform) == 0) - 1 / 3) < 4 * np.sqrt(2 / 9 / 400)
        assert nystrom(matrix[::-1, ::-1], 1, pivoting="greedy").pivots.tolist() == [2]

    def test_float32_kernel_of_low_rank(self):
        features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
        found = nystrom(features @ features.T, 20)
        exact = features.astype(float) @ features.T.astype(float)
        assert len(found.values) >= 4
        close(product_of(found), exact, atol=1e-4)

    def test_preconditioner_inverts_its_own_kernel(self):
        """P⁻¹ (U Λ Uᵀ + ridge) = (λ_r + ridge) on the span, and 1 outside (·ridge)."""
        low_rank = nystrom(with_spectrum([4.0, 2.0, 1.0, *np.zeros(5)])[0], 3)
        ridge, basis = 0.5, low_rank.vectors
        inside = basis @ [1.0, -2.0, 0.5]
        image = low_rank.product(inside) + ridge * inside
        close(low_rank.precondition(image, ridge), (low_rank.values[-1] + ridge) * inside)
        outside = np.ones(8) - basis @ (basis.T @ np.ones(8))
        close(low_rank.precondition(outside, ridge), outside, atol=1e-12)

    def test_bad_input(self):
        eye = np.eye(3)
        for rank in (0, 4):
            with pytest.raises(ValueError, match=f"rank={rank}"):
                nystrom(eye, rank)
            with pytest.raises(ValueError, match=f"rank={rank}"):
                randomized_nystrom(lambda v: v, (3,), rank)
        with pytest.raises(ValueError, match="pivoting='best'"):
            nystrom(eye, 1, pivoting="best")
        with pytest.raises(ValueError, match="diagonal is needed"):
            nystrom(lambda i: eye[:, i], 1)
        with pytest.raises(ValueError, match=r"diagonal has shape \(3, 3\)"):
            nystrom(lambda i: eye[:, i], 1, diagonal=eye)
        with pytest.raises(ValueError, match="give the diagonal of the same matrix"):
            nystrom(lambda i: eye[:, i], 1, diagonal=[2.0, 2.0, 2.0])
        with pytest.raises(ValueError, match=r"columns gives shape \(3,\)"):
            nystrom(lambda i: eye[0], 1, diagonal=np.ones(3))
        with pytest.raises(ValueError, match="not positive semi-definite"):
            nystrom([[1.0, 2.0], [2.0, 1.0]], 2)
        with pytest.raises(ValueError, match="diagonal spans"):
            nystrom(np.zeros((2, 2)), 1)


class TestRandomizedNystrom:
    def test_of_a_low_rank_kernel_is_exact(self):
        matrix, _ = with_spectrum([4.0, 2.0, 1.0, *np.zeros(17)])
        found = randomized_nystrom(lambda v: (matrix @ v.ravel()).reshape(10, 2), (10, 2), 5)
        close(found.values, [4, 2, 1, 0, 0], atol=1e-9)
        close(product_of(found), matrix, atol=1e-9)
        assert found.vectors.shape == (10, 2, 5)

    def test_equals_the_formula_on_its_sketch(self):
        matrix, _ = with_spectrum(0.8 ** np.arange(30))
        seen = []
        found = randomized_nystrom(lambda v: seen.append(v) or matrix @ v, (30,), 6, seed=4)
        sketch = np.stack(seen, axis=1)
        images = matrix @ sketch
        expected = images @ np.linalg.pinv(sketch.T @ images) @ images.T
        close(product_of(found), expected, atol=1e-9)

    def test_through_products_in_float32(self):
        features = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
        found = randomized_nystrom(
            lambda v: features @ (features.T @ v.astype(np.float32)), (60,), 12
        )
        exact = features.astype(float) @ features.T.astype(float)
        close(product_of(found), exact, atol=2e-3)

    def test_refuses_an_indefinite_kernel(self):
        with pytest.raises(ValueError, match="ridge above 1"):
            randomized_nystrom(lambda v: -v, (3,), 2)


SEEDS = range(8)


class TestTrace:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_within_four_standard_errors(self, seed):
        kernel, _ = full_kernel(n=10, c=3, p=50)
        found = trace(lambda v: np.einsum("nmcd,md->nc", kernel, v), (10, 3), probes=100, seed=seed)
        assert abs(found.value - np.trace(as_matrix(kernel))) < 4 * found.standard_error

    def test_standard_error_is_that_of_the_theory(self):
        """Var(zᵀKz) = 2 Σ_{i≠j} K_ij² for random signs."""
        matrix = full_kernel(n=10, c=3, p=50)[0]
        matrix = as_matrix(matrix)
        off = matrix - np.diag(np.diag(matrix))
        found = trace(lambda v: matrix @ v, (30,), probes=2000)
        close(found.standard_error, np.sqrt(2 * (off**2).sum() / 2000), rtol=0.1)

    def test_of_a_diagonal_kernel_is_exact(self):
        found = trace(lambda v: np.arange(5.0) * v, (5,), probes=2)
        assert (found.value, found.standard_error) == (10, 0)

    def test_seed_matters_and_repeats(self):
        matrix, _ = with_spectrum(np.arange(9.0))
        values = [trace(lambda v: matrix @ v, (9,), seed=s).value for s in (1, 1, 2)]
        assert values[0] == values[1] != values[2]

    def test_needs_two_probes(self):
        for estimate in (trace, log_determinant):
            with pytest.raises(ValueError, match="probes=1"):
                estimate(lambda v: v, (3,), probes=1)


class TestLogDeterminant:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_within_four_standard_errors(self, seed):
        matrix, _ = with_spectrum(np.linspace(0, 5, 60))
        found = log_determinant(
            lambda v: matrix @ v, (60,), ridge=0.3, probes=60, steps=30, seed=seed
        )
        exact = np.linalg.slogdet(matrix + 0.3 * np.eye(60))[1]
        assert abs(found.value - exact) < 4 * found.standard_error + found.truncation
        assert found.truncation < 0.01 * abs(exact)

    def test_truncation_brackets_exact_quadrature(self):
        """With the same probes, few steps against as many as there are dimensions."""
        matrix, _ = with_spectrum(np.linspace(0, 5, 40))

        def run(steps):
            return log_determinant(lambda v: matrix @ v, (40,), ridge=0.05, steps=steps, probes=4)

        exact, gaps = run(40), []
        assert exact.truncation < 1e-9
        for steps in (2, 4, 8, 16):
            found = run(steps)
            assert found.value - found.truncation <= exact.value <= found.value
            gaps.append(found.truncation)
        assert gaps[0] > gaps[1] > gaps[2] > gaps[3]

    def test_exact_quadrature_of_each_probe(self):
        """zᵀ log(A) z from the dense logarithm, for the signs that were drawn."""
        matrix, _ = with_spectrum([0.5, 1.0, 2.0, 7.0])
        logarithm = scipy.linalg.logm(matrix)
        found = log_determinant(lambda v: matrix @ v, (4,), probes=16, steps=4)
        signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(16, 4))
        samples = np.einsum("pi,ij,pj->p", signs, logarithm, signs)
        close(found.value, samples.mean(), rtol=1e-10)
        close(found.standard_error, samples.std(ddof=1) / 4, rtol=1e-10)
        assert found.truncation is None

    @pytest.mark.parametrize("steps", [1, 5, 100])
    def test_survives_an_exhausted_krylov_space(self, steps):
        """Multiples of the identity, and low rank plus ridge: few distinct eigenvalues."""
        found = log_determinant(lambda v: 2 * v, (50,), steps=steps, probes=2)
        close(found.value, 50 * np.log(2), rtol=1e-12)
        matrix, _ = with_spectrum([5.0, 3.0, *np.zeros(28)])
        if steps > 3:
            exact = np.log(5.01) + np.log(3.01) + 28 * np.log(0.01)
            found = log_determinant(lambda v: matrix @ v, (30,), ridge=0.01, steps=steps, probes=50)
            assert abs(found.value - exact) < 4 * found.standard_error + 1e-6
            assert abs(found.truncation) < 1e-3

    def test_bad_input(self):
        singular, _ = with_spectrum([3.0, 1.0, -0.5])
        with pytest.raises(ValueError, match=r"smallest Ritz value -0.5.*ridge above 0.5"):
            log_determinant(lambda v: singular @ v, (3,))
        with pytest.raises(ValueError, match="steps=0"):
            log_determinant(lambda v: v, (3,), steps=0)
        with pytest.raises(ValueError, match="ridge=-1"):
            log_determinant(lambda v: v, (3,), ridge=-1)


@pytest.mark.parametrize("kind", [jnp.bfloat16, jnp.float16])
def test_nystrom_of_half_precision_stops_at_its_rounding(kind):
    """Entries of a kernel of rank 3 are rounded each: what is left after 3 columns is that."""
    u = np.linalg.qr(np.random.default_rng(0).normal(size=(40, 3)))[0]
    kernel = jnp.asarray(u @ u.T, kind)
    found = nystrom(kernel, 20, pivoting="greedy")
    rounding = float(jnp.finfo(kind).eps) * np.abs(u @ u.T).max()
    left = np.asarray(kernel).astype(np.float64) - found.vectors * found.values @ found.vectors.T
    assert len(found.values) == 3
    assert np.abs(left).max() < 20 * rounding

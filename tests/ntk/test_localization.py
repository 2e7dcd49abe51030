"""Eigenfunctions and their energies against closed forms, and what no basis can change."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from linearize.ntk.localization import (
    Eigenfunctions,
    eigenfunctions,
    extend,
    local_energy,
    localization,
    target_coefficients,
)
from linearize.ntk.matrix_free import lanczos

close = np.testing.assert_allclose
N = 16
GRID = (np.arange(N) + 0.5) / N


def cosines(x):
    """1, √2 cos πx, √2 cos 2πx: orthonormal on the uniform grid (the DCT-II basis)."""
    return np.stack([np.ones_like(x), *(np.sqrt(2) * np.cos(np.pi * j * x) for j in (1, 2))], 1)


def cosine_kernel(x1, x2):
    return cosines(x1) * [3.0, 2.0, 1.0] @ cosines(x2).T


def random_kernel(n, seed, outputs=None):
    jacobian = np.random.default_rng(seed).normal(size=(n, outputs or 1, 3 * n))
    kernel = np.einsum("ncp,mdp->nmcd", jacobian, jacobian)
    return kernel if outputs else kernel[..., 0, 0]


class TestEigenfunctions:
    def test_of_a_cosine_kernel_are_the_cosines(self):
        found = eigenfunctions(cosine_kernel(GRID, GRID), k=3)
        close(found.values, [3, 2, 1], rtol=1e-12)
        signs = np.sign(np.sum(found.functions * cosines(GRID), axis=0))
        close(found.functions * signs, cosines(GRID), atol=1e-12)
        new = np.linspace(0, 1, 7)
        close(extend(found, cosine_kernel(new, GRID)) * signs, cosines(new), atol=1e-12)

    @pytest.mark.parametrize("outputs", [None, 3])
    def test_are_normalised_and_extend_to_themselves(self, outputs):
        kernel = random_kernel(6, seed=1, outputs=outputs)
        found = eigenfunctions(kernel, k=4)
        flat = found.functions.reshape(-1, 4)
        close(flat.T @ flat / 6, np.eye(4), atol=1e-12)
        close(extend(found, kernel), found.functions, atol=1e-10)

    def test_of_lanczos_pairs(self):
        kernel = random_kernel(9, seed=2, outputs=2)
        pairs = lanczos(lambda v: np.einsum("nmcd,md->nc", kernel, v), (9, 2), k=5)
        found, dense = eigenfunctions(pairs, k=3), eigenfunctions(kernel, k=3)
        close(found.values, dense.values, rtol=1e-9)
        close(found.functions, dense.functions, atol=1e-5)
        with pytest.raises(ValueError, match="k=6; 5 eigenpairs"):
            eigenfunctions(pairs, k=6)

    def test_extension_refuses(self):
        found = eigenfunctions(cosine_kernel(GRID, GRID), k=4)
        with pytest.raises(ValueError, match="extend the first k=3"):
            extend(found, cosine_kernel(GRID, GRID))
        for shape in ((3, N + 1), (3, N, 2, 2)):
            with pytest.raises(ValueError, match=r"expected \(M, N\)"):
                extend(found, np.ones(shape))


class TestLocalEnergy:
    def test_of_a_block_diagonal_kernel_is_in_its_block(self):
        """Energy 1/p in a region with a share p of the points, 0 elsewhere."""
        blocks = [random_kernel(n, seed=n) for n in (3, 5)]
        found = eigenfunctions(scipy.linalg.block_diag(*blocks))
        local = local_energy(found, np.repeat([0, 1], [3, 5]))
        home = [0 if np.abs(f[3:]).max() < 1e-9 else 1 for f in found.functions.T]
        assert sorted(home) == [0] * 3 + [1] * 5
        close(local.shares, [3 / 8, 5 / 8])
        expected = np.array([[8 / 3, 0] if h == 0 else [0, 8 / 5] for h in home]).T
        close(local.energy, expected, atol=1e-9)

    def test_of_cosines_on_the_left_quarter(self):
        """4 ∫_0^{1/4} 2 cos²(jπx) dx = 1 + sin(jπ/2) · 2/(jπ), as the grid grows fine."""
        x = (np.arange(4000) + 0.5) / 4000
        local = local_energy(cosines(x), x < 0.25)
        assert local.regions == (False, True)
        close(local.energy[1], [1, 1 + 2 / np.pi, 1], atol=1e-6)

    @settings(deadline=None, max_examples=25)
    @given(
        st.integers(0, 1000),
        st.sampled_from([None, 2]),
        st.lists(st.sampled_from("abc"), min_size=7, max_size=7),
    )
    def test_weighed_by_shares_sums_to_one(self, seed, outputs, labels):
        local = local_energy(eigenfunctions(random_kernel(7, seed, outputs)), labels)
        assert local.regions == tuple(sorted(set(labels)))
        close(local.shares @ local.energy, 1, atol=1e-10)
        assert local.shares.sum() == pytest.approx(1)

    def test_of_overlapping_masks(self):
        functions = np.array([[1.0], [2.0], [3.0]])
        local = local_energy(functions, np.array([[True, True, False], [True, True, True]]))
        close(local.energy, [[2.5], [14 / 3]])
        close(local.shares, [2 / 3, 1])
        assert local.regions == (0, 1)

    def test_bad_regions(self):
        functions = np.ones((3, 1))
        with pytest.raises(ValueError, match=r"regions\[1\] holds no point"):
            local_energy(functions, np.array([[True] * 3, [False] * 3]))
        for bad in (["a"], np.ones((2, 3)), np.ones((2, 4), bool)):
            with pytest.raises(ValueError, match="expected a label for each of the 3 points"):
                local_energy(functions, bad)
        with pytest.raises(ValueError, match=r"regions\[1\] is nan, as are 1 of 3 labels"):
            local_energy(functions, [0.0, np.nan, 1.0])


def rotated(found, columns, seed=0):
    """Another basis of the eigenspace that some columns span."""
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(columns), len(columns))))[0]
    functions = found.functions.copy()
    functions[..., columns] = functions[..., columns] @ turn
    return Eigenfunctions(found.values, functions)


class TestRepeatedEigenvalue:
    def test_sums_over_the_eigenspace_do_not_depend_on_the_basis(self):
        values = np.array([5.0, 2.0, 2.0, 2.0, 1.0, 0.5])
        basis = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))[0]
        kernel = basis * values @ basis.T
        found = eigenfunctions(kernel)
        other = rotated(found, [1, 2, 3])
        close((other.functions * other.values) @ other.functions.T, kernel, atol=1e-12)
        regions, target = [0, 0, 1, 1, 1, 2], np.array([1.0, -1, 0, 2, 0, 1])
        one, two = local_energy(found, regions).energy, local_energy(other, regions).energy
        assert np.abs(one - two).max() > 0.05
        close(one[:, 1:4].sum(1), two[:, 1:4].sum(1), rtol=1e-12)
        one, two = target_coefficients(found, target), target_coefficients(other, target)
        assert np.abs(one - two).max() > 0.05
        close((one[1:4] ** 2).sum(), (two[1:4] ** 2).sum(), rtol=1e-12)


class TestTarget:
    def test_coefficients_of_a_cosine_series(self):
        found = eigenfunctions(cosine_kernel(GRID, GRID), k=3)
        signs = np.sign(np.sum(found.functions * cosines(GRID), axis=0))
        series = np.array([[0.5, -1.0, 2.0], [0.0, 3.0, 0.0]])
        targets = cosines(GRID) @ series.T
        close(target_coefficients(found, targets) * signs[:, None], series.T, atol=1e-12)
        close(target_coefficients(found, targets[:, 0]) * signs, series[0], atol=1e-12)

    def test_along_vector_eigenfunctions_equals_shared_ones_of_a_kronecker_kernel(self):
        """K ⊗ I_C: squared coefficients, summed over each C-fold eigenspace, are those of K."""
        kernel = random_kernel(5, seed=4)
        full = np.einsum("nm,cd->nmcd", kernel, np.eye(2))
        target = np.random.default_rng(0).normal(size=(5, 2))
        shared = target_coefficients(eigenfunctions(kernel), target)
        vector = target_coefficients(eigenfunctions(full), target)
        assert shared.shape == (5, 2)
        assert vector.shape == (10,)
        close((vector.reshape(5, 2) ** 2).sum(1), (shared**2).sum(1), rtol=1e-9)

    def test_parseval(self):
        target = np.random.default_rng(0).normal(size=(6, 3))
        for outputs in (None, 3):
            found = eigenfunctions(random_kernel(6, 1, outputs))
            squares = (target_coefficients(found, target) ** 2).sum()
            close(squares, (target**2).sum() / 6, rtol=1e-12)

    def test_bad_shapes(self):
        scalar, vector = (eigenfunctions(random_kernel(4, 0, c)) for c in (None, 2))
        for found, shape in ((scalar, (5,)), (scalar, (4, 2, 1)), (vector, (4,)), (vector, (4, 3))):
            with pytest.raises(ValueError, match="target has shape"):
                target_coefficients(found, np.ones(shape))


class TestLocalization:
    def test_two_blocks_and_a_target_in_one(self):
        """Perfect localisation: energy 1/p on the task, 0 on the control."""
        kernel = scipy.linalg.block_diag(random_kernel(4, 0), random_kernel(6, 1))
        target = np.concatenate([[1.0, -1, 1, 1], np.zeros(6)])
        found = localization(kernel, target, ["task"] * 4 + ["control"] * 6)
        assert found.local.regions == ("control", "task")
        close(found.energy, [0, 10 / 4], atol=1e-9)
        close([found.weights.sum(), found.captured], 1, rtol=1e-12)

    def test_weighs_energies_by_the_coefficients(self):
        """Coefficients 1 : −2 of two cosines weigh them 1/5 : 4/5, and a third is not captured."""
        target = cosines(GRID) @ [1.0, -2.0, 2.0]
        found = localization(cosine_kernel(GRID, GRID), target, GRID < 0.25, k=2)
        close(found.weights, [0.2, 0.8], rtol=1e-12)
        close(found.captured, 5 / 9, rtol=1e-12)
        close(found.energy, local_energy(cosines(GRID)[:, :2], GRID < 0.25).energy @ [0.2, 0.8])
        again = localization(eigenfunctions(cosine_kernel(GRID, GRID)), target, GRID < 0.25, k=2)
        close(again.energy, found.energy, atol=1e-12)

    def test_one_hot_targets_of_full_and_shared_kernels_agree_on_k_kron_i(self):
        kernel = random_kernel(6, seed=3)
        full = np.einsum("nm,cd->nmcd", kernel, np.eye(2))
        target, regions = np.eye(2)[[0, 1, 0, 1, 1, 0]], [0, 0, 0, 1, 1, 1]
        shared, vector = (localization(k, target, regions) for k in (kernel, full))
        close(vector.weights.reshape(6, 2).sum(1), shared.weights, rtol=1e-9)

    @pytest.mark.parametrize("k", [-1, 0, 9, 1.5, True])
    @pytest.mark.parametrize("given", ["kernel", "functions"])
    def test_refuses_a_number_of_functions_that_there_is_not(self, given, k):
        kernel = np.diag([3.0, 2.0, 1.0])
        found = kernel if given == "kernel" else eigenfunctions(kernel)
        with pytest.raises(ValueError, match=f"k={k}; "):
            localization(found, [1.0, 1.0, 1.0], [0, 0, 1], k=k)

    def test_target_outside_the_span(self):
        with pytest.raises(ValueError, match="orthogonal to the 3 leading"):
            localization(cosine_kernel(GRID, GRID), np.cos(5 * np.pi * GRID), GRID < 0.5, k=3)
        with pytest.raises(ValueError, match="or zero"):
            localization(cosine_kernel(GRID, GRID), np.zeros(N), GRID < 0.5, k=3)

    def test_of_a_random_basis_has_energy_almost_one_everywhere(self):
        """The mean over Haar-random eigenfunctions on N points is N/(N + 2) off the target."""
        target, regions = np.r_[1.0, -1, 2, np.zeros(5)], [0] * 3 + [1] * 5
        rng, drawn = np.random.default_rng(0), []
        for _ in range(400):
            basis = scipy.stats.ortho_group.rvs(8, random_state=rng)
            found = Eigenfunctions(np.arange(8.0, 0, -1), basis * np.sqrt(8))
            drawn.append(localization(found, target, regions).energy[1])
        error = np.std(drawn, ddof=1) / np.sqrt(len(drawn))
        assert abs(np.mean(drawn) - 8 / 10) < 4 * error
        assert error < 0.01

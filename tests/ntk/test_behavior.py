"""Measures of kernel behaviour against definitions written out, and their invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

import linearize as lz
from linearize.ntk.behavior import (
    alignment,
    drift,
    fixed_features,
    linearization_gap,
    movement,
    target_alignment,
)
from linearize.tree import StructureMismatch

close = np.testing.assert_allclose


def features(seed, n=6, c=2, p=9):
    return np.random.default_rng(seed).normal(size=(n, c, p))


def gram(jacobian):
    return np.einsum("ncp,mdp->nmcd", jacobian, jacobian)


LAYOUTS = {
    "full": gram,
    "diagonal": lambda j: np.einsum("ncp,mcp->nmc", j, j),
    "trace": lambda j: np.einsum("ncp,mcp->nm", j, j),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())


class TestDrift:
    @layouts
    def test_of_a_scaled_kernel(self, layout):
        kernel = layout(features(0))
        close(drift(1.25 * kernel, kernel), 0.25, rtol=1e-12)
        assert drift(kernel, kernel) == 0

    def test_of_orthogonal_kernels(self):
        close(drift(np.diag([3.0, 0]), np.diag([0, 4.0])), 5 / 4)

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"kernel_t has shape \(2, 2\) and kernel_0 \(2,\)"):
            drift(np.ones((2, 2)), np.ones(2))
        with pytest.raises(ValueError, match="kernel_0 is zero"):
            drift(np.ones((2, 2)), np.zeros((2, 2)))
        with pytest.raises(ValueError, match="kernel_t holds NaN"):
            drift(np.full((2, 2), np.nan), np.ones((2, 2)))


class TestAlignment:
    @layouts
    def test_equals_that_of_centred_features(self, layout):
        one, two = features(0), features(1, p=4)
        still = [layout(j - j.mean(0)).ravel() for j in (one, two)]
        expected = still[0] @ still[1] / np.prod([np.linalg.norm(k) for k in still])
        close(alignment(layout(one), layout(two)), expected, rtol=1e-12)
        raw = [layout(j).ravel() for j in (one, two)]
        expected = raw[0] @ raw[1] / np.prod([np.linalg.norm(k) for k in raw])
        close(alignment(layout(one), layout(two), centered=False), expected, rtol=1e-12)

    @settings(deadline=None, max_examples=25)
    @given(st.integers(0, 1000), st.floats(0.01, 100), st.booleans())
    def test_range_symmetry_and_scale(self, seed, scale, centered):
        a, b = LAYOUTS["trace"](features(seed)), LAYOUTS["trace"](features(seed + 1, p=3))
        found = alignment(a, b, centered)
        assert 0 <= found <= 1
        close(alignment(b, scale * a, centered), found, rtol=1e-9)
        close(alignment(a, scale * a, centered), 1, rtol=1e-9)

    def test_centred_ignores_a_constant_feature(self):
        a, b = LAYOUTS["trace"](features(0)), LAYOUTS["trace"](features(1))
        close(alignment(a + 7, b), alignment(a, b), rtol=1e-9)
        assert abs(alignment(a + 7, b, centered=False) - alignment(a, b, centered=False)) > 0.01

    def test_bad_input(self):
        with pytest.raises(ValueError, match="kernel_b is zero, once centred"):
            alignment(np.eye(3), np.ones((3, 3)))
        with pytest.raises(ValueError, match="same N points"):
            alignment(np.ones((2, 3)), np.ones((2, 3)))


class TestTargetAlignment:
    @pytest.mark.parametrize("centered", [True, False])
    def test_of_the_labels_own_kernel_is_one(self, centered):
        labels = np.array([0, 1, 2, 1, 0])
        same_class = (labels[:, None] == labels[None]).astype(float)
        close(target_alignment(same_class, labels, centered), 1, rtol=1e-12)

    def test_of_the_identity(self):
        """⟨I, Y Yᵀ⟩ = N; ‖I‖ = √N; ‖Y Yᵀ‖² = Σ_c n_c²."""
        labels = np.array([0, 0, 0, 1])
        close(target_alignment(np.eye(4), labels, centered=False), 4 / (2 * np.sqrt(10)))

    def test_full_kernel_against_the_quadratic_form(self):
        """yᵀ K y / (‖K‖ ‖y‖²) for centred targets, which centring the kernel does not change."""
        jacobian = features(0)
        targets = np.random.default_rng(1).normal(size=(6, 2))
        kernel, y = gram(jacobian), targets.ravel()
        matrix = kernel.transpose(0, 2, 1, 3).reshape(12, 12)
        expected = y @ matrix @ y / (np.linalg.norm(matrix) * (y @ y))
        close(target_alignment(kernel, targets, centered=False), expected, rtol=1e-12)
        still = (jacobian - jacobian.mean(0)).reshape(12, 9)
        y = (targets - targets.mean(0)).ravel()
        expected = ((still.T @ y) ** 2).sum() / (np.linalg.norm(still @ still.T) * (y @ y))
        close(target_alignment(kernel, targets), expected, rtol=1e-12)

    def test_integers_are_one_hot_rows(self):
        labels = np.array([0, 1, 1, 0, 1, 0])
        for layout in ("full", "trace"):
            kernel = LAYOUTS[layout](features(3))
            close(target_alignment(kernel, labels), target_alignment(kernel, np.eye(2)[labels]))

    def test_bad_labels(self):
        with pytest.raises(ValueError, match="labels"):
            target_alignment(np.eye(3), [0, 1])
        with pytest.raises(ValueError, match="labels"):
            target_alignment(np.eye(3), [0.5, 1.0, 2.0])
        with pytest.raises(ValueError, match="labels"):
            target_alignment(gram(features(0)), np.ones((6, 3)))
        with pytest.raises(ValueError, match=r"labels\[1\] is 2"):
            target_alignment(gram(features(0)), [0, 2, 0, 0, 0, 0])
        with pytest.raises(ValueError, match=r"expected \(N, N\) or"):
            target_alignment(np.ones((6, 6, 2)), np.zeros(6, int))
        with pytest.raises(ValueError, match="kernel_b is zero, once centred"):
            target_alignment(np.eye(3), [1, 1, 1])


class TestLinearizationGap:
    def test_against_scikit_learn(self):
        rng = np.random.default_rng(0)
        f, f_lin, f0 = rng.normal(size=(3, 20, 4))
        labels = rng.integers(0, 4, 20)
        found = linearization_gap(f, f_lin, labels, f0)

        def loss(z):
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            return sklearn.metrics.log_loss(labels, p, labels=range(4))

        def accuracy(z):
            return sklearn.metrics.accuracy_score(labels, z.argmax(1))

        close(found.loss, loss(f) - loss(f_lin), rtol=1e-9)
        close(found.accuracy, accuracy(f) - accuracy(f_lin), rtol=1e-12)
        close(found.agreement, sklearn.metrics.accuracy_score(f.argmax(1), f_lin.argmax(1)))
        close(found.output, np.linalg.norm(f - f_lin) / np.linalg.norm(f))
        close(found.output_of_change, np.linalg.norm(f - f_lin) / np.linalg.norm(f - f0))

    def test_of_a_linear_model_is_none(self):
        f = np.random.default_rng(0).normal(size=(5, 3))
        found = linearization_gap(f, f, [0, 1, 2, 0, 1])
        assert (found.output, found.loss, found.accuracy, found.agreement) == (0, 0, 0, 1)
        assert found.output_of_change is None
        assert linearization_gap(f, f, [0] * 5, f).output_of_change == 0

    def test_of_large_logits_is_finite(self):
        found = linearization_gap([[1e4, 0.0]], [[0.0, 1e4]], [0])
        close(found.loss, -1e4)

    def test_bad_input(self):
        f = np.ones((2, 3))
        with pytest.raises(ValueError, match="f_lin_outputs"):
            linearization_gap(f, f[:1], [0, 0])
        with pytest.raises(ValueError, match="f0_outputs"):
            linearization_gap(f, f, [0, 0], f[:1])
        with pytest.raises(ValueError, match=r"expected \(N, C\)"):
            linearization_gap(f[0], f[0], [0, 0])
        for labels in ([0], [0, 3], [0.0, 1.0], [-1, 0]):
            with pytest.raises(ValueError, match="labels"):
                linearization_gap(f, f, labels)


OLD = {
    "body": {"a": {"kernel": np.array([3.0, 4.0])}, "b": {"kernel": np.zeros(2)}},
    "head": {"kernel": np.zeros((1, 2)), "step": np.array(3)},
}
NEW = {
    "body": {"a": {"kernel": np.array([3.0, 7.0])}, "b": {"kernel": np.array([4.0, 0.0])}},
    "head": {"kernel": np.zeros((1, 2)), "step": np.array(9)},
}


class TestMovement:
    def test_by_leading_names(self):
        found = movement(NEW, OLD)
        assert list(found.blocks) == ["body", "head"]
        body, head = found.blocks["body"], found.blocks["head"]
        assert (body.distance, body.relative, body.size) == (5, 1, 4)
        assert (head.distance, head.relative, head.size) == (0, 0, 2)
        assert (found.total.distance, found.total.relative, found.total.size) == (5, 1, 6)
        deeper = movement(NEW, OLD, blocks=2).blocks
        assert deeper["body/a"].relative == 3 / 5
        assert deeper["body/b"].relative == np.inf

    def test_by_patterns_which_may_overlap(self):
        found = movement(NEW, OLD, blocks={"kernels": "kernel", "b": "^body/b"}).blocks
        assert found["kernels"].distance == 5
        assert found["b"].distance == 4

    def test_small_changes_of_bfloat16_and_large_trees(self):
        old = {"w": jnp.ones(1000, jnp.bfloat16)}
        new = jax.tree.map(lambda w: w + jnp.asarray(2**-7, w.dtype), old)
        close(movement(new, old).total.distance, 2**-7 * np.sqrt(1000), rtol=1e-12)

    def test_squares_of_disjoint_blocks_sum_to_the_total(self):
        rng = np.random.default_rng(0)
        old, new = ({k: rng.normal(size=4) for k in "abc"} for _ in range(2))
        found = movement(new, old)
        close(sum(b.distance**2 for b in found.blocks.values()), found.total.distance**2)

    def test_bad_input(self):
        with pytest.raises(StructureMismatch, match="params_t"):
            movement({"w": np.ones(2)}, {"v": np.ones(2)})
        with pytest.raises(ValueError, match="picks no trainable leaf"):
            movement(NEW, OLD, blocks={"x": "nothing"})
        with pytest.raises(ValueError, match="blocks=0"):
            movement(NEW, OLD, blocks=0)


class TestFixedFeatures:
    @pytest.mark.parametrize("keep_outputs", [False, True])
    def test_equals_norms_of_gradients(self, keep_outputs):
        then, now = features(0), features(1)
        subscripts = "ncp,ncp->nc" if keep_outputs else "ncp,ncp->n"
        found = fixed_features(
            *(np.einsum(subscripts, a, b) for a, b in ((now, now), (then, then), (now, then)))
        )
        axes = 2 if keep_outputs else (1, 2)
        squares = ((now - then) ** 2).sum(axes) / (then**2).sum(axes)
        close(found.per_point, np.sqrt(squares), rtol=1e-10)
        close(found.mean, np.sqrt(squares).mean(), rtol=1e-10)

    def test_of_unchanged_gradients_is_none(self):
        assert fixed_features([2.0, 3.0], [2.0, 3.0], [2.0, 3.0]).mean == 0

    def test_bad_input(self):
        with pytest.raises(ValueError, match="do not belong"):
            fixed_features([1.0], [1.0], [1.1])
        with pytest.raises(ValueError, match="leave out points without a gradient"):
            fixed_features([1.0], [0.0], [0.0])
        with pytest.raises(ValueError, match="cross"):
            fixed_features([1.0], [1.0], [1.0, 1.0])


def test_statistics_of_the_start_and_of_the_end_are_two_drifts():
    """What the module's docstring says of batch norm: ``f`` holds the statistics it was given."""
    model = nnx.Sequential(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    x = np.random.default_rng(0).normal(size=(4, 2)).astype(np.float32)
    f_0, params_0 = lz.from_nnx(model)
    params_t = jax.tree.map(lambda p: 1.5 * p, params_0)
    lz.update_nnx(model, params_t)
    model.layers[1].var[...] = model.layers[1].var[...] * 4
    f_t, again = lz.from_nnx(model)
    jax.tree.map(np.testing.assert_array_equal, again, params_t)

    def kernel(f, params):
        return np.asarray(lz.ntk.kernel(f, params, x, implementation="jacobian", output="trace"))

    def by_hand(params, scale):
        """Z = (x W + b) γ / s + β: Σ over outputs of the four leaves' inner products."""
        W, b = (np.asarray(params["layers"][0][n], float) for n in ("kernel", "bias"))
        gamma = np.asarray(params["layers"][1]["scale"], float) / scale
        h = (x @ W + b) / scale
        return (x @ x.T + 1) * np.sum(gamma**2) + h @ h.T + 3

    s0, st = np.sqrt(1 + 1e-5), np.sqrt(4 + 1e-5)
    start = by_hand(params_0, s0)
    for f, scale in ((f_0, s0), (f_t, st)):
        now = by_hand(params_t, scale)
        expected = np.linalg.norm(now - start) / np.linalg.norm(start)
        np.testing.assert_allclose(
            lz.ntk.drift(kernel(f, params_t), kernel(f_0, params_0)), expected, rtol=1e-4
        )

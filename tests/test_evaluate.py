"""Whole data sets, affine outputs, grids and intervals against brute force and other libraries."""

import io
import itertools
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from linearize import evaluate, hosts, narration, taylor, tree
from linearize.disentangle import disentanglement_error
from linearize.evaluate import affine as affine_module
from linearize.evaluate import batches, grid
from linearize.models.heads import Head, apply_head
from linearize.objectives import Classify
from linearize.task_vector import TaskVector


def mlp(params, x):
    hidden = jnp.tanh(x @ params["first"])
    return hidden @ params["second"] + params["bias"][None]


def make(seed, tasks=3, n=13):
    rng = np.random.default_rng(seed)

    def weights(scale):
        return {
            "first": jnp.asarray(scale * rng.normal(size=(5, 9)), jnp.float32),
            "second": jnp.asarray(scale * rng.normal(size=(9, 6)), jnp.float32),
            "bias": jnp.asarray(scale * rng.normal(size=6), jnp.float32),
        }

    return weights(0.7), [weights(0.3) for _ in range(tasks)], rng.normal(size=(n, 5)).astype("f")


def head(seed, *, normalize, bias, scale=20.0, width=6, classes=4):
    rng = np.random.default_rng(seed)
    return Head(
        center=jnp.asarray(rng.normal(size=width), jnp.float32),
        kernel=jnp.asarray(rng.normal(size=(width, classes)), jnp.float32),
        bias=jnp.asarray(rng.normal(size=classes), jnp.float32) if bias else None,
        scale=jnp.asarray(scale, jnp.float32),
        normalize=normalize,
    )


def total(taus, alphas):
    return jax.tree.map(lambda *d: sum(a * x for a, x in zip(alphas, d, strict=True)), *taus)


# outputs


@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 20), batch_size=st.integers(1, 20))
def test_outputs_are_those_of_one_pass(n, batch_size):
    params, _, x = make(0, n=n)
    got = evaluate.outputs(mlp, params, x, batch_size)
    np.testing.assert_allclose(got, mlp(params, jnp.asarray(x)), atol=1e-5)


def test_one_trace_serves_all_batches_and_other_data_sets_of_the_batch_shape():
    params, _, x = make(0, n=21)
    traces = deque()  # which is not taken for what f computes with

    def f(params, x):
        traces.append(x.shape)
        return mlp(params, x)

    evaluate.outputs(f, params, x, 8)
    evaluate.outputs(f, jax.tree.map(lambda p: 2 * p, params), x[:17], 8)
    assert traces[0] == (8, 5)
    assert set(list(traces)[1:]) == {(1, 5)}  # one example of a program is computed a second way


def test_small_data_sets_share_power_of_two_batches():
    assert [len(batches.split_batches(np.zeros(n), 256).items[0][0]) for n in (1, 3, 200, 300)] == [
        1,
        4,
        256,
        256,
    ]
    assert len(batches.split_batches(np.zeros(200), 250).items[0][0]) == 250


@pytest.mark.parametrize("n", [1, 10, 11, 12, 25])
def test_balanced_batches_waste_less_than_one_example_a_batch(n):
    cut = batches.split_batches(np.arange(n), 10, balanced=True)
    sizes = {len(item[0]) for item in cut.items}
    assert len(sizes) == 1
    assert sizes.pop() * len(cut.items) - n < len(cut.items)
    np.testing.assert_array_equal(np.concatenate([i[0] for i in cut.items])[:n], np.arange(n))


def test_streamed_data_gives_what_resident_data_gives(monkeypatch):
    params, _, x = make(1, n=11)
    resident = evaluate.outputs(mlp, params, x, 4)
    monkeypatch.setattr(batches, "RESIDENT_BYTES", 0)
    np.testing.assert_array_equal(evaluate.outputs(mlp, params, x, 4), resident)
    np.testing.assert_array_equal(evaluate.outputs(mlp, params, jnp.asarray(x), 4), resident)


def test_several_inputs_and_outputs():
    x, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    got = evaluate.outputs(lambda p, a, b: {"s": p + a, "t": (b,)}, 1.0, (x, y), 2)
    np.testing.assert_array_equal(got["s"], x + 1)
    np.testing.assert_array_equal(got["t"][0], y)
    got = evaluate.outputs(lambda p, batch: batch["x"].sum(1), None, {"x": x, "y": y}, 2)
    np.testing.assert_array_equal(got, x.sum(1))


@pytest.mark.parametrize(("first", "drawn"), [(True, True), (False, False)])
def test_the_first_process_draws_a_progress_bar(monkeypatch, capsys, first, drawn):
    """On standard error: what a script prints may go to a file."""
    screen = io.StringIO()
    monkeypatch.setattr(
        narration, "Console", lambda stderr: Console(file=screen, force_terminal=True, width=100)
    )
    monkeypatch.setattr(hosts, "first", lambda: first)
    got = evaluate.outputs(lambda p, x: x, None, np.arange(5), 2, progress=True)
    np.testing.assert_array_equal(got, np.arange(5))
    assert ("evaluating" in screen.getvalue()) is drawn
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("inputs", "batch_size", "message"),
    [
        (np.zeros((0, 2)), 4, "no example"),
        (np.zeros((3, 2)), 0, "batch_size=0"),
        ((np.zeros(3), np.zeros(4)), 4, r"share axis 0"),
        (np.float32(1), 4, "share axis 0"),
    ],
)
def test_bad_data_sets(inputs, batch_size, message):
    with pytest.raises(ValueError, match=message):
        evaluate.outputs(lambda p, *x: x[0], None, inputs, batch_size)


def test_an_output_without_examples_is_named():
    with pytest.raises(ValueError, match=r"shape \(\) for 4 examples"):
        evaluate.outputs(lambda p, x: x.sum(), None, np.zeros((4, 2)))


# affine outputs


@pytest.mark.parametrize("n", [1, 13])
def test_affine_outputs_are_value_and_directional_derivatives(n):
    params, taus, x = make(2, n=n)
    affine = evaluate.affine_outputs(mlp, params, taus, x, batch_size=4)
    assert affine.jvps.shape == (3, n, 6)
    for tau, jvp in zip(taus, affine.jvps, strict=True):
        f0, expected = jax.jvp(lambda p: mlp(p, jnp.asarray(x)), (params,), (tau,))
        np.testing.assert_allclose(affine.f0, f0, atol=1e-5)
        np.testing.assert_allclose(jvp, expected, atol=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3))
def test_at_is_the_tangent_model(alphas):
    params, taus, x = make(3)
    affine = evaluate.affine_outputs(mlp, params, taus, x)
    expected = taylor.tangent(mlp)(params, total(taus, alphas), jnp.asarray(x))
    np.testing.assert_allclose(affine.at(alphas), expected, atol=2e-5)


def test_a_leaf_that_a_task_vector_lacks_counts_as_zero():
    params, taus, x = make(4, tasks=2)
    partial = [{"bias": taus[0]["bias"]}, {"first": taus[1]["first"], "second": taus[1]["second"]}]
    whole = [
        {**tree.zeros(params), **partial[0]},
        {**tree.zeros(params), **partial[1]},
    ]
    got = evaluate.affine_outputs(mlp, params, partial, x)
    expected = evaluate.affine_outputs(mlp, params, whole, x)
    np.testing.assert_allclose(got.jvps, expected.jvps, atol=1e-6)


def test_task_vectors_and_flat_mappings_agree_and_bases_are_checked():
    params, taus, x = make(5, tasks=1)
    vector = TaskVector.between(params, tree.add(params, taus[0]))
    flat = tree.flatten(vector)
    a = evaluate.affine_outputs(mlp, params, [vector], x)
    b = evaluate.affine_outputs(mlp, params, [flat], x)
    np.testing.assert_array_equal(a.jvps, b.jvps)
    other = jax.tree.map(lambda p: p + 1, params)
    with pytest.raises(tree.StructureMismatch, match=r"taus\[0\].*\n.*another base model"):
        evaluate.affine_outputs(mlp, other, [vector], x)
    with pytest.raises(tree.StructureMismatch, match="extra: thrid"):
        evaluate.affine_outputs(mlp, params, [{"thrid": np.zeros(2)}], x)
    with pytest.raises(ValueError, match="taus is empty"):
        evaluate.affine_outputs(mlp, params, [], x)
    with pytest.raises(ValueError, match="one array"):
        evaluate.affine_outputs(lambda p, x: (mlp(p, x),), params, [flat], x)


def test_numbers_that_are_not_finite_are_named():
    params, taus, x = make(5, tasks=2)
    bad = [taus[0], {**taus[1], "second": taus[1]["second"].at[0, 0].set(jnp.nan)}]
    with pytest.raises(tree.NonFiniteError, match=r"taus\[1\].*\n.*second: 1 of 54"):
        evaluate.affine_outputs(mlp, params, bad, x)
    base = {**params, "bias": params["bias"].at[2].set(jnp.inf)}
    with pytest.raises(tree.NonFiniteError, match=r"params0.*\n.*bias: 1 of 6"):
        evaluate.displaced_accuracy(mlp, base, taus, x, [[0, 0]], None, np.zeros(13, int))


def test_leaves_that_do_not_train_are_welcome():
    _, _, x = make(5)
    params = {"w": jnp.ones((5, 3), jnp.bfloat16), "step": jnp.array(3), "key": jax.random.key(0)}
    tau = {"w": jnp.full((5, 3), 0.5)}

    def f(params, x):
        return x.astype(params["w"].dtype) @ params["w"]

    affine = evaluate.affine_outputs(f, params, [tau], x)
    assert affine.jvps.dtype == np.float32
    np.testing.assert_allclose(affine.jvps[0, :, 0], 0.5 * x.sum(1), atol=0.05)
    got = evaluate.displaced_accuracy(f, params, [tau], x, [[1.0]], None, np.zeros(13, int))
    np.testing.assert_array_equal(got, [1.0])


def test_a_custom_vjp_is_no_obstacle():
    @jax.custom_vjp
    def square(x):
        return x**2

    square.defvjp(lambda x: (x**2, x), lambda x, ct: (2 * x * ct,))

    def f(params, x):
        return square(x @ params["w"])

    params, tau = {"w": jnp.ones((2, 3))}, {"w": jnp.arange(6.0).reshape(2, 3)}
    x = np.random.default_rng(0).normal(size=(5, 2)).astype("f")
    affine = evaluate.affine_outputs(f, params, [tau, tau], x, batch_size=2)
    np.testing.assert_allclose(affine.jvps[1], 2 * (x @ params["w"]) * (x @ tau["w"]), rtol=1e-5)


def test_the_primal_pass_is_shared_and_compiled_once():
    params, taus, x = make(6, n=16)
    seen = []

    def f(params, x):
        jax.debug.callback(lambda: seen.append(x.shape[0]))
        return mlp(params, x)

    evaluate.affine_outputs(f, params, taus, x, batch_size=8)
    jax.effects_barrier()
    assert seen == [8, 8, 1]  # and the example that is checked, alone


def test_choosing_tasks_and_examples():
    params, taus, x = make(7)
    affine = evaluate.affine_outputs(mlp, params, taus, x)
    pair = affine.tasks([2, 0])
    np.testing.assert_allclose(pair.at([1.0, 2.0]), affine.at([2.0, 0.0, 1.0]), atol=1e-6)
    rows = [3, 1]
    np.testing.assert_array_equal(
        affine.take(rows).at([1.0, 0, 0]), affine.at([1.0, 0, 0])[rows, :]
    )
    with pytest.raises(ValueError, match=r"alphas has shape \(2,\)"):
        affine.at([1.0, 2.0])


# grids

HEADS = {
    "cosine": {"normalize": True, "bias": False},
    "cosine, negative scale": {"normalize": True, "bias": False, "scale": -3.0},
    "cosine with bias": {"normalize": True, "bias": True},
    "linear": {"normalize": False, "bias": True, "scale": 0.7},
    "linear without bias": {"normalize": False, "bias": False},
}


@pytest.mark.parametrize("kind", HEADS)
def test_grid_logits_and_accuracy_are_those_of_each_point(kind):
    params, taus, x = make(8, n=40)
    readout = head(1, **HEADS[kind])
    labels = np.random.default_rng(2).integers(0, 4, 40)
    affine = evaluate.affine_outputs(mlp, params, taus, x)
    alphas = np.random.default_rng(3).uniform(-2, 2, size=(17, 3))
    expected = [
        apply_head(readout, taylor.tangent(mlp)(params, total(taus, a), jnp.asarray(x)))
        for a in alphas
    ]
    top = np.sort(expected, -1)
    assert (top[..., -1] - top[..., -2]).min() > 1e-4  # no near tie that rounding could turn
    logits = evaluate.grid_logits(affine, alphas, readout)
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    exact = [np.mean(np.asarray(y).argmax(-1) == labels) for y in expected]
    projected = evaluate.grid_accuracy(affine, alphas, readout, labels)
    opaque = evaluate.grid_accuracy(affine, alphas, lambda z: apply_head(readout, z), labels)
    np.testing.assert_array_equal(projected, exact)
    np.testing.assert_array_equal(opaque, exact)


@pytest.mark.parametrize("kind", HEADS)
def test_scores_rank_classes_as_the_head_does(kind):
    params, taus, x = make(9)
    readout = head(2, **HEADS[kind])
    affine = evaluate.affine_outputs(mlp, params, taus, x)
    scores = affine.scores(readout)
    if kind == "cosine with bias":
        assert scores is None
        return
    assert scores.f0.shape == (13, 4)
    assert scores.jvps.shape == (3, 13, 4)
    for alpha in ([0.0, 0.0, 0.0], [1.0, -2.0, 0.5]):
        logits = apply_head(readout, affine.at(alpha))
        got = scores.at(alpha)
        np.testing.assert_array_equal(np.argsort(got, -1), np.argsort(logits, -1))
        if not readout.normalize:
            np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-4)


def test_the_explorers_numbers_are_the_scores_of_a_cosine_head():
    params, taus, x = make(10)
    readout = head(3, normalize=True, bias=False)
    affine = evaluate.affine_outputs(mlp, params, taus, x)
    scores = affine.scores(readout)
    kernel, center = np.asarray(readout.kernel), np.asarray(readout.center)
    np.testing.assert_allclose(scores.f0, (affine.f0 - center) @ kernel, atol=1e-5)
    np.testing.assert_allclose(scores.jvps, affine.jvps @ kernel, atol=1e-5)


def test_logits_need_no_readout():
    affine = evaluate.AffineOutputs(np.array([[1.0, 0.0]], "f"), np.array([[[0.0, 1.0]]], "f"))
    got = evaluate.grid_accuracy(affine, [[0.0], [0.9], [1.1]], None, [1])
    np.testing.assert_array_equal(got, [0, 0, 1])
    np.testing.assert_allclose(evaluate.grid_logits(affine, [[2.0]]), [[[1.0, 2.0]]])


def test_a_grid_in_chunks_is_the_grid_at_once(monkeypatch):
    params, taus, x = make(11)
    affine = evaluate.affine_outputs(mlp, params, taus, x)
    alphas = np.random.default_rng(0).normal(size=(11, 3))
    whole = evaluate.grid_logits(affine, alphas, jnp.tanh)
    monkeypatch.setattr(grid, "CHUNK_FLOATS", 4 * affine.f0.size)
    assert grid.chunk(affine) == 4
    np.testing.assert_allclose(evaluate.grid_logits(affine, alphas, jnp.tanh), whole, atol=1e-6)


def test_a_grid_compiles_once_for_all_heads_of_a_shape():
    params, taus, x = make(12)
    affine = evaluate.affine_outputs(mlp, params, taus, x)
    alphas, labels = np.ones((5, 3)), np.zeros(13, int)
    grid._totals.clear_cache()
    affine_module._project.clear_cache()
    for seed in range(3):
        for bias in (True, False):
            evaluate.grid_accuracy(affine, alphas, head(seed, normalize=True, bias=bias), labels)
    assert grid._totals._cache_size() == 2
    assert affine_module._project._cache_size() == 1


@pytest.mark.parametrize(
    ("alphas", "labels", "message"),
    [
        (np.ones(3), np.zeros(13, int), r"expected \(G, 3\)"),
        (np.ones((2, 2)), np.zeros(13, int), r"expected \(G, 3\)"),
        (np.ones((0, 3)), np.zeros(13, int), r"expected \(G, 3\)"),
        (np.full((1, 3), np.nan), np.zeros(13, int), "finite"),
        (np.ones((2, 3)), np.full(13, 6), r"run from 6 to 6; .* 0 to 5"),
        (np.ones((2, 3)), np.full(13, -1), "run from -1"),
        (np.ones((2, 3)), np.zeros(12, int), r"expected \(13,\)"),
        (np.ones((2, 3)), np.zeros(13), "integers"),
    ],
)
def test_bad_grids_and_labels(alphas, labels, message):
    params, taus, x = make(13)
    affine = evaluate.affine_outputs(mlp, params, taus, x)
    with pytest.raises(ValueError, match=message):
        evaluate.grid_accuracy(affine, alphas, None, labels)
    with pytest.raises(ValueError, match=message):
        evaluate.displaced_accuracy(mlp, params, taus, x, alphas, None, labels)


def test_a_readout_is_a_function_a_head_or_nothing():
    with pytest.raises(TypeError, match="readout is a str"):
        evaluate.as_readout("softmax")


def test_displaced_accuracy_is_that_of_each_displaced_model():
    params, taus, x = make(14, n=23)
    readout, labels = head(4, normalize=True, bias=False), np.arange(23) % 4
    alphas = np.random.default_rng(5).uniform(-2, 2, size=(9, 3))
    expected = []
    for a in alphas:
        logits = apply_head(readout, mlp(tree.add(params, total(taus, a)), jnp.asarray(x)))
        expected.append(np.mean(np.asarray(logits).argmax(-1) == labels))
    got = evaluate.displaced_accuracy(mlp, params, taus, x, alphas, readout, labels, batch_size=8)
    np.testing.assert_allclose(got, expected, atol=1e-12)


# splits


def test_inputs_and_labels_of_a_split():
    x, y = np.zeros((3, 2)), np.array([0, 1, 2], np.uint8)
    inputs, labels = evaluate.examples({"inputs": x, "labels": y, "task": y})
    assert inputs is x
    np.testing.assert_array_equal(labels, y)
    with pytest.raises(ValueError, match=r"labels have shape \(3, 1\); expected \(3,\)"):
        evaluate.examples((x, y[:, None]))


# metrics


def test_accuracy_over_leading_axes():
    logits = np.random.default_rng(0).normal(size=(4, 7, 5))
    labels = np.arange(7) % 5
    expected = (logits.argmax(-1) == labels).mean(-1)
    np.testing.assert_allclose(
        evaluate.accuracy(jnp.asarray(logits), jnp.asarray(labels)), expected
    )


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 30), (3, 17), (17, 17), (250, 500)])
def test_the_binomial_interval_is_scipys_wilson_interval(k, n, level):
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    got = evaluate.binomial_interval(k, n, level)
    np.testing.assert_allclose(got, (k / n, expected.low, expected.high), atol=1e-12)


def test_seed_interval_is_scipys_t_interval():
    values = np.random.default_rng(0).normal(size=(5, 3, 2))
    got = evaluate.seed_interval(values, 0.9)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    np.testing.assert_allclose(got.mean, values.mean(0))
    np.testing.assert_allclose((got.low, got.high), (expected.low, expected.high))


def test_one_seed_says_nothing_of_spread():
    mean, low, high = evaluate.seed_interval([[0.5, 0.7]])
    np.testing.assert_array_equal(mean, [0.5, 0.7])
    assert np.isnan([low, high]).all()


def test_bad_statistics():
    with pytest.raises(ValueError, match="level=95"):
        evaluate.seed_interval([1.0, 2.0], 95)
    with pytest.raises(ValueError, match="one entry per seed"):
        evaluate.seed_interval([])
    with pytest.raises(ValueError, match="n=0"):
        evaluate.binomial_interval(0, 0)
    with pytest.raises(ValueError, match="successes"):
        evaluate.binomial_interval([1, 5], 4)


class TestRankCorrelation:
    """Spearman's ρ over pairs of tasks, with the jackknife over tasks."""

    @staticmethod
    def symmetric(seed, T=8):
        drawn = np.random.default_rng(seed).normal(size=(T, T))
        return drawn + drawn.T

    def test_of_monotone_measures_is_one(self):
        a = self.symmetric(0)
        for b, sign in ((np.exp(a), 1), (-(a**3), -1)):
            np.testing.assert_allclose(
                list(evaluate.rank_correlation(a, b)), [sign] * 3, atol=1e-12
            )

    def test_of_symmetric_matrices_is_that_over_unordered_pairs(self):
        a, b = self.symmetric(0), self.symmetric(1)
        upper = np.triu_indices(8, 1)
        expected = stats.spearmanr(a[upper], b[upper]).statistic
        np.testing.assert_allclose(evaluate.rank_correlation(a, b).mean, expected, rtol=1e-12)

    def test_interval_is_the_jackknifes_over_tasks(self):
        a, b = self.symmetric(2, T=6), self.symmetric(3, T=6)
        pairs = list(itertools.combinations(range(6), 2))

        def over(kept):
            return stats.spearmanr(*zip(*((a[p], b[p]) for p in kept), strict=True)).statistic

        without = np.array([over([p for p in pairs if t not in p]) for t in range(6)])
        half = stats.t.ppf(0.95, 5) * np.sqrt(5 * without.var())
        mean, low, high = evaluate.rank_correlation(a, b, level=0.9)
        np.testing.assert_allclose(
            [low, high], [max(mean - half, -1), min(mean + half, 1)], rtol=1e-12
        )

    def test_does_not_depend_on_the_order_of_tasks_or_the_diagonal(self):
        a, b = (np.random.default_rng(s).normal(size=(7, 7)) for s in (0, 1))
        order = np.random.default_rng(2).permutation(7)
        first = evaluate.rank_correlation(a, b)
        np.fill_diagonal(a, np.nan)
        np.testing.assert_allclose(
            list(evaluate.rank_correlation(a[order][:, order], b[order][:, order])), list(first)
        )

    def test_interval_covers_zero_where_measures_are_independent(self):
        covered = 0
        for seed in range(100):
            _, low, high = evaluate.rank_correlation(
                self.symmetric(seed), self.symmetric(1000 + seed)
            )
            covered += low <= 0 <= high
        assert covered >= 90

    def test_few_tasks_have_no_interval_and_a_constant_no_correlation(self):
        a = self.symmetric(0, T=3)
        mean, low, high = evaluate.rank_correlation(a, a)
        assert mean == 1
        assert np.isnan([low, high]).all()
        assert np.isnan(list(evaluate.rank_correlation(self.symmetric(0), np.ones((8, 8))))).all()

    @pytest.mark.parametrize(
        ("a", "b", "message"),
        [
            (np.ones((3, 2)), np.ones((3, 2)), "expected \\(T, T\\)"),
            (np.ones((3, 3)), np.ones((4, 4)), "expected \\(T, T\\)"),
            (np.ones((1, 1)), np.ones((1, 1)), "T >= 2"),
            (np.ones((3, 3)), np.full((3, 3), np.nan), "b holds NaN"),
        ],
    )
    def test_bad_input(self, a, b, message):
        with pytest.raises(ValueError, match=message):
            evaluate.rank_correlation(a, b)
        with pytest.raises(ValueError, match="level=1"):
            evaluate.rank_correlation(np.eye(4), np.eye(4), level=1)


class TestNotFinite:
    """NaN is no class: argmax would call it class 0, and class 0 right."""

    logits = np.array([[np.nan, 1.0], [np.inf, 0.0], [-np.inf, 0.0], [2.0, 1.0]], np.float32)

    def test_no_label_is_met(self):
        assert evaluate.predicted(self.logits).tolist() == [-2, -2, 1, 0]
        assert float(evaluate.accuracy(self.logits, jnp.array([0, 0, 1, 0]))) == 0.5

    def test_a_displaced_model_is_wrong_where_it_is_not_finite(self):
        f = lambda params, x: x / (1 - params["w"])  # noqa: E731
        x, labels = np.array([[3.0, 1], [2, 1], [5, 0]], np.float32), np.zeros(3, int)
        tau = {"w": jnp.ones(())}
        found = evaluate.displaced_accuracy(
            f, {"w": jnp.zeros(())}, [tau], x, [[0.0], [0.5], [1.0]], None, labels
        )
        assert found.tolist() == [1, 1, 0]

    def test_inputs_caches_and_outputs_are_named(self):
        f = lambda params, x: jnp.log(x) * params["w"]  # noqa: E731
        x, labels = np.array([[1.0, 2], [-1, 2]], np.float32), np.zeros(2, int)
        tau, params = {"w": jnp.ones(())}, {"w": jnp.ones(())}
        with pytest.raises(tree.NonFiniteError, match=r"1 of 2 examples \(the first is 1\) at θ0"):
            evaluate.affine_outputs(f, params, [tau], x)
        cache = evaluate.AffineOutputs(np.log(np.abs(x)), np.full((1, 2, 2), np.nan, np.float32))
        for use in (
            lambda: evaluate.grid_accuracy(cache, [[1.0]], None, labels),
            lambda: evaluate.grid_logits(cache, [[1.0]]),
        ):
            with pytest.raises(tree.NonFiniteError, match=r"2 of 2 .* task vector 0"):
                use()
        with pytest.raises(tree.NonFiniteError, match=r"inputs hold NaN .* 1 of 2"):
            evaluate.displaced_accuracy(
                f, params, [tau], x * [[np.nan], [1]], [[1.0]], None, labels
            )

    @pytest.mark.parametrize("where", ["params0", "taus"])
    def test_vectors_beyond_float32_are_refused(self, where):
        f = lambda params, x: x * params["w"]  # noqa: E731
        params, tau = {"w": np.float64(1)}, {"w": np.float64(1)}
        ({"params0": params, "taus": tau}[where])["w"] = np.float64(1e39)
        for use in (
            lambda: evaluate.affine_outputs(f, params, [tau], np.ones((2, 2))),
            lambda: evaluate.displaced_accuracy(
                f, params, [tau], np.ones((2, 2)), [[1.0]], None, np.zeros(2, int)
            ),
        ):
            with pytest.raises(tree.NonFiniteError, match=f"{where}.*float32"):
                use()


@pytest.mark.parametrize("f", [lambda p, x: (x @ p["w"]).T, lambda p, x: jnp.sum(x @ p["w"])])
def test_outputs_without_examples_on_axis_0_are_refused(f):
    """Before anything is measured, in every view, kept or not."""
    params, x = {"w": jnp.ones((4, 3))}, np.ones((5, 4), np.float32)
    labels, taus = np.zeros(5, int), [{"w": jnp.ones((4, 3))}]
    data = x, [[1.0]], Classify(), {"labels": labels}
    for ask in (
        lambda: evaluate.outputs(f, params, x),
        lambda: evaluate.affine_outputs(f, params, taus, x),
        lambda: evaluate.displaced_values(f, params, taus, *data),
        lambda: evaluate.streamed_values(f, params, taus, *data),
        lambda: disentanglement_error(f, params, 2 * taus, [x, x]),
        lambda: disentanglement_error(f, params, 2 * taus, [x, x], regime="linear"),
    ):
        with pytest.raises(ValueError, match="expected examples on axis 0"):
            ask()

"""Error maps against a pass per grid point, closed forms, and their own properties."""

import itertools
import json
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from linearize import io, taylor, tree
from linearize.disentangle import ErrorMap, chebyshev, disentanglement_error
from linearize.disentangle import grid as grids
from linearize.evaluate import affine_outputs
from linearize.models.heads import Head, apply_head
from linearize.task_vector import TaskVector

REGIMES = ("nonlinear", "posthoc", "linear")
pytestmark = pytest.mark.usefixtures("quick_compilation")


def mlp(params, x):
    return jnp.tanh(x @ params["first"]) @ params["second"]


def make(seed, tasks=2, sizes=(11, 9, 7), classes=4):
    rng = np.random.default_rng(seed)

    def weights(scale):
        return {
            "first": jnp.asarray(scale * rng.normal(size=(5, 8)), jnp.float32),
            "second": jnp.asarray(scale * rng.normal(size=(8, 6)), jnp.float32),
        }

    def head(n_classes):
        return Head(
            center=jnp.asarray(rng.normal(size=6), jnp.float32),
            kernel=jnp.asarray(rng.normal(size=(6, n_classes)), jnp.float32),
            bias=None,
            scale=jnp.asarray(20.0),
            normalize=True,
        )

    inputs = [rng.normal(size=(n, 5)).astype("f") for n in sizes[:tasks]]
    heads = [head(classes + t) for t in range(tasks)]
    return weights(0.7), [weights(0.2) for _ in range(tasks)], inputs, heads


def disagreement(a, b):
    return (jnp.argmax(a, -1) != jnp.argmax(b, -1)).astype(jnp.float32)


def squared(a, b):
    return jnp.sum((a - b) ** 2, -1)


def pass_per_point(f, params0, taus, inputs, readouts, axes, regime, compare):
    """The definition, a pass per prediction; and the least gap between the two largest logits."""
    model = taylor.displaced(f) if regime == "nonlinear" else taylor.tangent(f)

    @jax.jit
    def predict(alphas, x, t):
        delta = jax.tree.map(lambda *d: sum(a * y for a, y in zip(alphas, d, strict=True)), *taus)
        return model(params0, delta, x)

    margin = np.inf
    errors = np.zeros((len(taus), *map(len, axes)))
    for index in itertools.product(*map(range, map(len, axes))):
        alphas = np.array([axis[i] for axis, i in zip(axes, index, strict=True)], np.float32)
        for t, x in enumerate(inputs):
            alone = np.where(np.arange(len(taus)) == t, alphas, 0).astype(np.float32)
            pair = [readouts[t](predict(a, jnp.asarray(x), t)) for a in (alone, alphas)]
            errors[(t, *index)] = np.mean(np.asarray(compare(*pair), np.float64))
            ranked = np.sort(pair, -1)
            margin = min(margin, (ranked[..., -1] - ranked[..., -2]).min())
    return errors, margin


def reference(setting, axes, regime, compare=disagreement):
    params, taus, inputs, heads = setting
    reads = [lambda z, h=h: apply_head(h, z) for h in heads]
    return pass_per_point(mlp, params, taus, inputs, reads, axes, regime, compare)


AXES = {
    "one axis": (np.linspace(-3, 3, 7),) * 2,
    "two axes": (np.linspace(-3, 3, 5), np.linspace(0.5, 2, 4)),
    "three tasks": (np.array([-1.5, 0.0, 2.0]), np.array([0.0, 1.0]), np.array([-2.0, 0.3, 0.0])),
}


@pytest.mark.slow(
    but=["one axis-nonlinear", "two axes-linear", "three tasks-posthoc", "three tasks-linear"]
)
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("kind", AXES)
def test_a_map_is_the_pass_per_point_to_the_last_example(kind, regime):
    axes = AXES[kind]
    setting = params, taus, inputs, heads = make(0, tasks=len(axes))
    expected, margin = reference(setting, axes, regime)
    assert margin > 3e-4  # logits are within 20: no tie that float32's rounding could turn
    assert len(np.unique(expected)) > 5
    got = disentanglement_error(
        mlp, params, taus, inputs, alphas=list(axes), regime=regime, readouts=heads, batch_size=4
    )
    np.testing.assert_allclose(got.per_task, expected, atol=1e-12)
    np.testing.assert_allclose(got.total, expected.sum(0), atol=1e-12)
    assert [a.tolist() for a in got.alphas] == [a.tolist() for a in axes]
    np.testing.assert_array_equal(got.n, [len(x) for x in inputs])


@pytest.mark.slow(
    but=[
        "squared-nonlinear",
        "total_variation-posthoc",
        "total_variation-linear",
        "<lambda>-linear",
    ]
)
@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("distance", [squared, "total_variation", lambda a, b: 1.5 + a[:, 0] * 0])
def test_any_distance_gives_what_a_pass_per_point_gives(regime, distance):
    axes = AXES["one axis"]
    setting = params, taus, inputs, heads = make(1)

    def half_l1(a, b):
        return 0.5 * jnp.abs(jax.nn.softmax(a) - jax.nn.softmax(b)).sum(-1)

    compare = half_l1 if distance == "total_variation" else distance
    expected, _ = reference(setting, axes, regime, compare)
    got = disentanglement_error(
        mlp, params, taus, inputs, alphas=axes[0], regime=regime, readouts=heads, distance=distance
    )
    np.testing.assert_allclose(got.per_task, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.slow(but=["linear"])
@pytest.mark.parametrize("regime", ["posthoc", "linear"])
def test_cached_outputs_and_opaque_readouts_give_the_same_map(regime):
    params, taus, inputs, heads = make(2, tasks=3)
    cached = [affine_outputs(mlp, params, taus, x) for x in inputs]
    pair = [cached[t].tasks([2, 0]) for t in (2, 0)]
    direct = disentanglement_error(
        mlp,
        params,
        [taus[2], taus[0]],
        [inputs[2], inputs[0]],
        readouts=[heads[2], heads[0]],
        regime=regime,
    )
    from_cache = disentanglement_error(
        None, None, None, None, cached=pair, readouts=[heads[2], heads[0]], regime=regime
    )
    opaque = [lambda z, h=h: apply_head(h, z) for h in (heads[2], heads[0])]
    general = disentanglement_error(
        None, None, None, None, cached=pair, readouts=opaque, regime=regime
    )
    assert direct.total.shape == (25, 25)
    np.testing.assert_array_equal(from_cache.per_task, direct.per_task)
    np.testing.assert_array_equal(general.per_task, direct.per_task)
    assert (direct.passes, from_cache.passes) == (10, 0)


def test_the_default_grid_is_the_papers_range():
    np.testing.assert_allclose(grids.CoefficientGrid.of(None, 2).axes[1], np.linspace(-3, 3, 25))


# closed forms


@pytest.mark.parametrize("regime", REGIMES)
def test_weights_that_do_not_meet_are_disentangled(regime):
    """Each task's inputs live in a block of features that only its own weights read."""

    def f(params, x):
        return jnp.tanh(x[:, :3] @ params["a"]) + jnp.tanh(x[:, 3:] @ params["b"])

    rng = np.random.default_rng(0)
    params = {k: jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for k in "ab"}
    taus = [{k: jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)} for k in "ab"]
    x = rng.normal(size=(2, 30, 3)).astype("f")
    inputs = [np.pad(x[0], ((0, 0), (0, 3))), np.pad(x[1], ((0, 0), (3, 0)))]
    found = disentanglement_error(f, params, taus, inputs, regime=regime)
    np.testing.assert_array_equal(found.total, np.zeros((25, 25)))


@pytest.mark.parametrize("regime", REGIMES)
def test_a_linear_model_errs_by_the_other_tasks_product(regime):
    """With f = θ·x and a squared distance, ξ_1 is α_2² E‖τ_2 x‖² whatever θ0, τ_1 and α_1."""
    rng = np.random.default_rng(1)
    base, one, two = (rng.normal(size=(4, 3)).astype("f") for _ in range(3))
    inputs = [rng.normal(size=(n, 4)).astype("f") for n in (10, 15)]
    alphas = [np.linspace(-2, 2, 5), np.linspace(0, 3, 4)]
    got = disentanglement_error(
        lambda params, x: x @ params["w"],
        {"w": base},
        [{"w": one}, {"w": two}],
        inputs,
        alphas=alphas,
        regime=regime,
        distance=squared,
        batch_size=4,
    )
    other = [np.square(x @ w).sum(1).mean() for x, w in zip(inputs, (two, one), strict=True)]
    first = np.broadcast_to(alphas[1][None] ** 2 * other[0], (5, 4))
    second = np.broadcast_to(alphas[0][:, None] ** 2 * other[1], (5, 4))
    np.testing.assert_allclose(got.per_task, [first, second], rtol=1e-4, atol=1e-5)


def test_regimes_differ_where_the_model_is_curved():
    params, taus, inputs, heads = make(3)
    nonlinear, linear = (
        disentanglement_error(mlp, params, taus, inputs, readouts=heads, regime=r, alphas=[2.0, 3])
        for r in ("nonlinear", "linear")
    )
    assert not np.array_equal(nonlinear.total, linear.total)


# properties


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 100),
    regime=st.sampled_from(REGIMES),
    alphas=st.lists(st.floats(-3, 3, width=16), min_size=3, max_size=3, unique=True),
)
def test_a_task_alone_has_no_error(seed, regime, alphas):
    """ξ_t vanishes where all other coefficients do, and the total lies in [0, T]."""
    params, taus, inputs, heads = make(seed)
    axis = [0.0, *alphas]
    found = disentanglement_error(
        mlp, params, taus, inputs, alphas=axis, readouts=heads, regime=regime
    )
    assert (found.per_task[0][:, 0] == 0).all()
    assert (found.per_task[1][0, :] == 0).all()
    assert ((found.total >= 0) & (found.total <= 2)).all()


def test_a_coefficient_within_rounding_of_zero_is_zero():
    axis = np.linspace(-0.7, 0.7, 15) + 1e-17
    assert (grids.CoefficientGrid.of(axis, 2).axes[0] == 0).sum() == 1


def test_tasks_in_another_order_transpose_the_map():
    params, taus, inputs, heads = make(4)
    axis = np.linspace(-2, 2, 5)
    for regime in ("nonlinear", "linear"):
        there = disentanglement_error(
            mlp, params, taus, inputs, alphas=axis, readouts=heads, regime=regime
        )
        back = disentanglement_error(
            mlp, params, taus[::-1], inputs[::-1], alphas=axis, readouts=heads[::-1], regime=regime
        )
        np.testing.assert_array_equal(back.total, there.total.T)


def test_the_mean_is_the_sum_over_the_number_of_tasks():
    params, taus, inputs, heads = make(5, tasks=3)
    common = {"alphas": [0.0, 1.0, 3.0], "readouts": heads, "regime": "linear"}
    summed = disentanglement_error(mlp, params, taus, inputs, **common)
    mean = disentanglement_error(mlp, params, taus, inputs, reduction="mean", **common)
    np.testing.assert_allclose(mean.total, summed.total / 3)
    assert (summed.reduction, mean.reduction) == ("sum", "mean")


def test_task_vectors_of_another_base_are_refused():
    params, taus, inputs, heads = make(6)
    vectors = [TaskVector.between(params, tree.add(params, tau)) for tau in taus]
    same = disentanglement_error(mlp, params, vectors, inputs, alphas=[0.0, 1.0], readouts=heads)
    assert same.total.shape == (2, 2)
    other = jax.tree.map(lambda p: p + 1, params)
    for regime in REGIMES:
        with pytest.raises(tree.StructureMismatch, match="another base"):
            disentanglement_error(mlp, other, vectors, inputs, readouts=heads, regime=regime)
    bad = [taus[0], {"third": np.zeros(3)}]
    with pytest.raises(tree.StructureMismatch, match=r"taus\[1\].*\n.*extra: third"):
        disentanglement_error(mlp, params, bad, inputs, readouts=heads)


# cost


def counting():
    seen = deque()  # which is not taken for what f computes with

    def f(params, x):
        jax.debug.callback(lambda: seen.append(x.shape[0]))
        return mlp(params, x)

    def examples():
        jax.effects_barrier()
        return sum(seen)

    return f, examples


@pytest.mark.parametrize("axis", [np.linspace(-1, 1, 5), np.linspace(0.5, 1, 4)])
def test_each_distinct_nonlinear_prediction_is_made_once(axis):
    """With 0 on the axes single-task points lie on the grid: G² passes a task, else G² + G."""
    params, taus, inputs, heads = make(7, sizes=(12, 8))
    f, examples = counting()
    found = disentanglement_error(
        f, params, taus, inputs, alphas=axis, readouts=heads, batch_size=4
    )
    per_task = len(axis) ** 2 + (0 if 0 in axis else len(axis))
    checks = 2 * (4 + 2 * 4 + 1)  # two heads: prediction, two distances, and an example alone
    assert examples() == per_task * (12 + 8) + checks
    assert found.passes == 2 * per_task


def test_an_affine_map_passes_each_example_once_whatever_the_grid():
    params, taus, inputs, heads = make(8, sizes=(12, 8))
    f, examples = counting()
    disentanglement_error(f, params, taus, inputs, readouts=heads, batch_size=4, regime="linear")
    assert examples() == 12 + 8 + 1  # one example of a program is computed a second way


def test_a_nonlinear_map_compiles_the_model_once_a_task_and_use():
    params, taus, inputs, heads = make(9, sizes=(12, 8))
    traces = deque()

    def f(params, x):
        traces.append(x.shape)
        return mlp(params, x)

    disentanglement_error(f, params, taus, inputs, alphas=[0.0, 1, 2], readouts=heads, batch_size=4)
    first = len(traces)
    assert first <= 7  # prediction and distance, for two heads; one example, its dtypes; shapes
    disentanglement_error(f, params, taus, inputs, alphas=[1.0, 2], readouts=heads, batch_size=4)
    assert len(traces) == first


# sub-samples and intervals


@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
def test_n_eval_draws_examples_by_seed(regime):
    params, taus, inputs, heads = make(10, sizes=(40, 12))

    def measure(**more):
        return disentanglement_error(
            mlp, params, taus, inputs, alphas=[0.0, 2], readouts=heads, regime=regime, **more
        )

    some, again, other = measure(n_eval=15), measure(n_eval=15), measure(n_eval=15, seed=1)
    np.testing.assert_array_equal(some.n, [15, 12])
    np.testing.assert_array_equal(some.per_task, again.per_task)
    np.testing.assert_array_equal(some.per_task[1], measure().per_task[1])
    assert not np.array_equal(some.per_task[0], other.per_task[0])
    np.testing.assert_array_equal(measure(n_eval=99).per_task, measure().per_task)
    counts = some.per_task[0] * 15
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)


def test_a_cache_is_sampled_as_the_data_are():
    params, taus, inputs, heads = make(11, sizes=(40, 30))
    cached = [affine_outputs(mlp, params, taus, x) for x in inputs]
    common = {"regime": "linear", "readouts": heads, "n_eval": 9, "seed": 3}
    direct = disentanglement_error(mlp, params, taus, inputs, **common)
    again = disentanglement_error(None, None, None, None, cached=cached, **common)
    np.testing.assert_array_equal(again.per_task, direct.per_task)


def a_map(per_task, n, **more):
    per_task = np.asarray(per_task, float)
    axes = tuple(np.arange(g, dtype=float) for g in per_task.shape[1:])
    fields = {
        "regime": "linear",
        "distance": "argmax",
        "reduction": "sum",
        "binary": True,
        "passes": 0,
        **more,
    }
    total = per_task.sum(0) if fields["reduction"] == "sum" else per_task.mean(0)
    return ErrorMap(alphas=axes, per_task=per_task, total=total, n=np.asarray(n), **fields)


def test_the_interval_is_scipys_at_each_point():
    counts, n = np.array([[[0, 3], [7, 10]], [[1, 20], [8, 0]]]), np.array([10, 20])
    found = a_map(counts / n[:, None, None], n).interval(0.9)
    for index in np.ndindex(counts.shape):
        ci = stats.binomtest(counts[index], n[index[0]]).proportion_ci(0.9, method="wilson")
        np.testing.assert_allclose(
            [found.low[index], found.high[index]], [ci.low, ci.high], atol=1e-12
        )


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_totals_interval_covers_as_often_as_it_says(reduction):
    rng, p, n = np.random.default_rng(0), np.array([0.1, 0.4]), np.array([60, 90])
    drawn = rng.binomial(n[:, None, None], p[:, None, None], size=(2, 4000, 1))
    found = a_map(drawn / n[:, None, None], n, reduction=reduction)
    truth = p.sum() if reduction == "sum" else p.mean()
    mean, low, high = found.total_interval(0.95)
    assert 0.94 < ((low <= truth) & (truth <= high)).mean() < 0.97
    np.testing.assert_array_equal(mean, found.total)


def test_no_binomial_interval_for_other_distances():
    with pytest.raises(ValueError, match="squared"):
        a_map(np.ones((2, 1, 1)), [3, 3], distance="squared", binary=False).interval()


# the preview


def test_chebyshev_weights_reproduce_polynomials_and_nodes():
    x = chebyshev.nodes(-2.0, 3.0, 5)
    np.testing.assert_allclose(x, 0.5 - 2.5 * np.cos(np.pi * np.arange(5) / 4))
    at = np.linspace(-2, 3, 17)
    polynomial = np.polynomial.Polynomial([1.0, -2, 0.5, 3, -1])
    np.testing.assert_allclose(chebyshev.weights(x, at) @ polynomial(x), polynomial(at), atol=1e-10)
    np.testing.assert_allclose(chebyshev.weights(x, x), np.eye(5), atol=1e-12)


def test_a_preview_of_a_polynomial_model_is_exact(capsys):
    """Two linear layers: logits are of degree 2 in each coefficient, so 3 nodes a side suffice."""

    def f(params, x):
        return x @ params["first"] @ params["second"]

    params, taus, inputs, _ = make(12, sizes=(30, 20))
    common = {"alphas": np.linspace(-2, 2, 9)}
    exact = disentanglement_error(f, params, taus, inputs, **common)
    rough = disentanglement_error(f, params, taus, inputs, preview=3, **common)
    assert len(np.unique(exact.total)) > 5
    np.testing.assert_array_equal(rough.per_task, exact.per_task)
    assert (rough.preview.nodes, rough.preview.held_out) == (3, 16)
    assert (rough.preview.mean_error, rough.preview.max_error) == (0, 0)
    assert rough.passes == 2 * 9 + 2 * (9 + 16)
    assert str(rough.preview) in capsys.readouterr().out
    assert "held-out" in str(rough.preview)


@pytest.mark.slow
def test_a_preview_tells_its_own_error():
    params, taus, inputs, heads = make(13, sizes=(60, 50))
    common = {"alphas": [np.linspace(-3, 3, 6), np.linspace(-3, 2, 5)], "readouts": heads}
    exact = disentanglement_error(mlp, params, taus, inputs, **common)
    errors = []
    for m in (3, 9):
        rough = disentanglement_error(mlp, params, taus, inputs, preview=m, **common)
        gap = np.abs(rough.total - exact.total)
        assert np.isclose(gap, rough.preview.max_error, rtol=0, atol=1e-15).any()
        assert 0 < rough.preview.mean_error <= rough.preview.max_error <= gap.max() + 1e-15
        errors.append(gap.mean())
    assert errors[1] < errors[0] / 2
    # no single-task point holds an approximation
    np.testing.assert_array_equal(rough.per_task[0][:, 3], exact.per_task[0][:, 3])


# files


def test_a_saved_map_comes_back(tmp_path):
    params, taus, inputs, heads = make(14)
    for name, more in {"exact": {}, "preview": {"preview": 2}}.items():
        found = disentanglement_error(
            mlp, params, taus, inputs, alphas=[[0.0, 1, 2], [0.5, 2]], readouts=heads, **more
        )
        path = found.save(tmp_path / f"{name}.npz")
        back = ErrorMap.load(path)
        for field in ("per_task", "total", "n"):
            np.testing.assert_array_equal(getattr(back, field), getattr(found, field))
        assert [a.tolist() for a in back.alphas] == [[0, 1, 2], [0.5, 2]]
        for field in ("regime", "distance", "reduction", "binary", "passes", "preview"):
            assert getattr(back, field) == getattr(found, field)
        with np.load(path, allow_pickle=False) as file:
            assert all(array.dtype != object for array in file.values())


def test_a_damaged_file_says_so(tmp_path):
    path = a_map(np.ones((2, 3, 3)), [4, 4]).save(tmp_path / "map.npz")
    whole = path.read_bytes()
    for n, content in enumerate((b"", whole[:-40], b"not a map", whole[:300] + whole[340:])):
        (tmp_path / f"{n}.npz").write_bytes(content)
        with pytest.raises(io.CorruptFileError, match="measure anew"):
            ErrorMap.load(tmp_path / f"{n}.npz")
    np.savez(tmp_path / "other.npz", notes=np.array(json.dumps({"kind": "else"})))
    with pytest.raises(io.CorruptFileError, match="no error map"):
        ErrorMap.load(tmp_path / "other.npz")


def test_no_flipped_bit_passes_for_a_map(tmp_path):
    found = a_map(np.linspace(0, 1, 18).reshape(2, 3, 3), [4, 4])
    whole = found.save(tmp_path / "map.npz").read_bytes()
    path, silent = tmp_path / "flipped.npz", 0
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            back = ErrorMap.load(path)
        except io.CorruptFileError:
            continue
        silent += 1  # a date in the archive, say
        np.testing.assert_array_equal(back.total, found.total)
        np.testing.assert_array_equal(back.alphas, found.alphas)
        assert back.regime == found.regime
    assert silent < len(whole) / 6


# bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regime": "post-hoc"}, "did you mean 'posthoc'"),
        ({"distance": "argmx"}, "did you mean 'argmax'"),
        ({"reduction": "average"}, "reduction='average'"),
        ({"alphas": np.ones((2, 2))}, "1-D"),
        ({"alphas": 1.0}, "1-D"),
        ({"alphas": []}, "1-D, not empty"),
        ({"alphas": [0.0, np.inf]}, "finite"),
        ({"alphas": [[0.0], [1.0], [2.0]]}, "3 axes for 2 tasks"),
        ({"n_eval": 0}, "n_eval=0"),
        ({"n_eval": 2, "seed": -1}, "seed=-1; expected an integer, 0 or more"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"readouts": [None]}, "readouts has 1 entries for 2 tasks"),
        ({"preview": 1}, "preview=1; expected an integer, 2 or more"),
        ({"preview": 2.5}, "preview=2.5; expected an integer"),
        ({"preview": True}, "preview=True; expected an integer"),
        ({"preview": 4, "regime": "linear"}, "exact and cheap"),
        ({"cached": []}, "nonlinear"),
        ({"cached": [], "regime": "linear"}, "numbers of tasks differ"),
    ],
)
def test_bad_arguments(change, message):
    params, taus, inputs, _ = make(15)
    with pytest.raises(ValueError, match=message):
        disentanglement_error(mlp, params, taus, inputs, **{"alphas": [0.0, 1.0], **change})


@pytest.mark.parametrize("regime", REGIMES)
def test_bad_tasks(regime):
    params, taus, inputs, _ = make(16)
    for bad_taus, bad_inputs, message in [
        (taus, inputs[:1], "numbers of tasks differ"),
        (taus[:1], inputs[:1], r"1 task\(s\) given"),
        ([], [], "taus is empty"),
        (taus, [inputs[0], inputs[1][:0]], "no example"),
        (None, inputs, "needed"),
    ]:
        with pytest.raises(ValueError, match=message):
            disentanglement_error(mlp, params, bad_taus, bad_inputs, regime=regime)


@pytest.mark.parametrize("distance", ["argmax", "total_variation", disagreement])
@pytest.mark.parametrize("regime", REGIMES)
def test_inputs_and_predictions_that_are_not_finite_are_no_agreement(regime, distance):
    params0, taus, inputs, heads = make(0)
    given = {"alphas": [0.0, 1.0], "regime": regime, "distance": distance}
    bad = [inputs[0], inputs[1].copy()]
    bad[1][[2, 5], 0] = np.nan, np.inf
    with pytest.raises(tree.NonFiniteError, match=r"inputs\[1\] hold NaN.* 2 of 9 examples"):
        disentanglement_error(mlp, params0, taus, bad, readouts=heads, **given)
    wide = [inputs[0], inputs[1].astype(np.float64)]
    wide[1][3, 0] = 1e39  # finite until it is float32
    with pytest.raises(tree.NonFiniteError, match=r"inputs\[1\].* 1 of 9 examples"):
        disentanglement_error(mlp, params0, taus, wide, readouts=heads, **given)

    def undefined(params, x):
        return mlp(params, x) + jnp.log(x[:, :1])  # NaN where x < 0

    count = int((inputs[0][:, 0] < 0).sum())
    with pytest.raises(tree.NonFiniteError, match=rf"task 0: .* {count} of 11 examples"):
        disentanglement_error(undefined, params0, taus, inputs, **given)


@pytest.mark.parametrize("distance", ["argmax", "total_variation", disagreement])
@pytest.mark.parametrize("kind", ["nonlinear", "linear", "preview"])
def test_a_point_that_is_displaced_too_far_agrees_with_nothing(kind, distance):
    """A head that divides by 1 − a: not finite at α₁ = 1, where all is as far apart as can be."""

    def f(params, x):
        return x * params["w"][None]

    def readout(z):
        return z / (2 - z[:, :1])  # x is 1, so z is 1 + α₁

    params0 = {"w": jnp.ones(3)}
    taus = [{"w": jnp.ones(3)}, {"w": jnp.zeros(3)}]
    x = np.ones((4, 3), np.float32)
    found = disentanglement_error(
        f, params0, taus, [x, x], alphas=[0.0, 0.5, 1.0], readouts=readout, distance=distance,
        regime="linear" if kind == "linear" else "nonlinear",
        preview=3 if kind == "preview" else None,
    )  # fmt: skip
    worst = 1.0 if isinstance(distance, str) else np.nan
    np.testing.assert_array_equal(found.per_task[0][2], [worst] * 3)  # α₁ = 1: its own examples
    np.testing.assert_array_equal(found.per_task[1][2][1:], [worst] * 2)
    if kind != "preview":
        np.testing.assert_array_equal(found.per_task[:, :2], 0)


def test_a_cache_that_is_not_finite_is_named():
    params0, taus, inputs, heads = make(0)
    cached = [affine_outputs(mlp, params0, taus, x) for x in inputs]
    cached[1].jvps[0, 4, 2] = np.inf
    with pytest.raises(
        tree.NonFiniteError,
        match=r"cached\[1\].* 1 of 9 examples \(the first is 4\) along task vector 0",
    ):
        disentanglement_error(
            None, None, None, None, cached=cached, readouts=heads, regime="linear"
        )


def test_coefficients_beyond_float32_are_refused():
    params0, taus, inputs, heads = make(0)
    with pytest.raises(ValueError, match="float32"):
        disentanglement_error(mlp, params0, taus, inputs, readouts=heads, alphas=[0.0, 1e39])

"""Task arithmetic, searches and baselines against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp

import linearize as lz
from linearize import edit, taylor, tree
from linearize.evaluate import affine_outputs
from linearize.models.heads import Head, apply_head
from linearize.objectives import Classify, Squared
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.usefixtures("quick_compilation")

# vectors


def vectors(number, seed=0):
    rng = np.random.default_rng(seed)
    params = {"a": {"kernel": jnp.ones((30, 40))}, "bias": jnp.ones(50), "step": jnp.array(3)}
    moved = [
        tree.update(
            params,
            {
                "a/kernel": jnp.asarray(rng.normal(size=(30, 40)), jnp.float32),
                "bias": jnp.asarray(1e-3 * rng.normal(size=50), jnp.float32),
            },
        )
        for _ in range(number)
    ]
    meta = {"regime": "linear"}
    return params, [TaskVector.between(params, p, meta=meta) for p in moved]


def same(a, b):
    return all(np.allclose(a.delta[n], b.delta[n], atol=1e-6) for n in a.delta)


def test_addition_and_negation_are_inverse_and_keep_the_base():
    params, (a, b, c) = vectors(3)
    merged = edit.add([a, b, c])
    assert same(edit.add(iter([merged, edit.negate(b)])), a + c)
    assert merged.base == tree.fingerprint(params)
    assert same(edit.add([a]), a)


def test_an_analogy_carries_the_difference_over():
    _, (a, difference, c) = vectors(3)
    assert same(edit.analogy(a, a + difference, c), c + difference)
    assert same(edit.analogy(a, c, a), c)


def test_vectors_that_do_not_fit_are_refused():
    _, (a,) = vectors(1)
    with pytest.raises(ValueError, match="taus is empty"):
        edit.add([])
    with pytest.raises(tree.StructureMismatch, match="another base"):
        edit.add([a, TaskVector(a.delta, base="f" * 64)])
    with pytest.raises(tree.StructureMismatch, match="bias"):
        edit.analogy(a, a, a.select("kernel"))


def test_a_random_vector_has_each_tensors_norm_and_no_direction():
    _, (tau,) = vectors(1)
    drawn = [edit.random_like(tau, seed) for seed in range(20)]
    for vector in drawn:
        assert vector.delta.keys() == tau.delta.keys()
        assert vector.base == tau.base
        assert vector.meta["regime"] == "linear"
        for name, leaf in vector.delta.items():
            assert leaf.dtype == tau.delta[name].dtype
            np.testing.assert_allclose(
                np.linalg.norm(leaf), np.linalg.norm(tau.delta[name]), rtol=1e-5
            )
    cosines = [float(vector.cosine(tau)) for vector in drawn]
    assert np.std(cosines) < 2 / np.sqrt(1250)
    assert len(set(cosines)) == 20
    entries = np.asarray(drawn[0].delta["a/kernel"]).ravel()
    assert abs(np.mean(entries**4) / np.mean(entries**2) ** 2 - 3) < 0.6  # a normal's kurtosis


@pytest.mark.parametrize("seed", [2**32, -1, 1.5, True])
def test_a_seed_that_would_draw_what_another_one_draws_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed={seed}; expected an integer"):
        edit.random_like(TaskVector({"w": jnp.ones(2)}), seed)


def test_a_random_vector_is_fixed_by_seed_and_names():
    _, (tau,) = vectors(1)
    whole = edit.random_like(tau, 7)
    part = edit.random_like(tau.select("bias"), 7)
    np.testing.assert_array_equal(part.delta["bias"], whole.delta["bias"])
    zero = edit.random_like(0.0 * tau, 7)
    assert all((leaf == 0).all() for leaf in zero.delta.values())
    with pytest.raises(tree.NonFiniteError):
        edit.random_like(float("nan") * tau, 7)


# searches

accuracies = st.integers(0, 20).map(lambda k: k / 20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=12))
def test_the_scale_search_finds_the_first_best(rows):
    table, single = np.array(rows), np.array([0.8, 0.9])
    alphas = np.linspace(0, 1, len(rows))
    found = edit.search_scale(table, single, alphas)
    scores = [(row / single).mean() for row in table]
    assert scores[found.index] >= max(scores) - 1e-12
    assert all(score < max(scores) - 1e-12 for score in scores[: found.index])
    assert found.alpha == alphas[found.index]
    np.testing.assert_allclose(found.normalized, table / single)
    np.testing.assert_array_equal(found.accuracy, table)


def test_the_scale_search_asks_each_candidate_once():
    asked = []

    def evaluate(alpha):
        asked.append(alpha)
        return [0.5 + 0.4 * alpha, 0.9 - 0.8 * alpha]

    found = edit.search_scale(evaluate, [0.9, 0.3])
    np.testing.assert_allclose(asked, np.linspace(0, 1, 21))
    # the weight of task 2 is threefold, so its loss counts more
    assert found.alpha == 0
    assert edit.search_scale(evaluate, [0.3, 0.9]).alpha == 1


def test_a_tie_goes_to_the_coefficient_nearest_zero():
    flat = np.full((4, 2), 0.5)
    assert edit.search_scale(flat, [0.5, 0.5], [1.0, 0.7, 0.2, 0.4]).alpha == 0.2
    assert edit.search_scale(flat, [0.5, 0.5], [-1.0, 0.7, -0.2, 0.4]).alpha == -0.2
    # 0.1 / 0.3 + 0.7 / 0.3 and 0.8 / 0.3 differ in the last place only
    table = [[0.8, 0.0], [0.1, 0.7]]
    assert edit.search_scale(table, [0.3, 0.3], [0.0, 1.0]).alpha == 0
    assert edit.search_scale(table[::-1], [0.3, 0.3], [0.0, 1.0]).alpha == 0


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=12),
    accuracies,
    st.sampled_from([0.0, 0.5, 0.95, 1.0]),
)
def test_the_negation_search_forgets_most_within_its_bounds(rows, pretrained, retained):
    target, control = np.array(rows).T
    alphas = np.linspace(0, 1, len(rows))
    found = edit.search_negation(
        target, control, alphas, retained=retained, control_pretrained=pretrained
    )
    allowed = [i for i, c in enumerate(control) if c >= retained * pretrained - 1e-12]
    assert bool(found.qualified) == bool(allowed)
    if not allowed:
        assert (found.alpha, found.index) == (0, -1)
        assert np.isnan([found.target, found.control]).all()
        return
    best = min(allowed, key=lambda i: (target[i], alphas[i]))
    assert (found.index, found.alpha) == (best, alphas[best])
    assert (found.target, found.control) == (target[best], control[best])


def test_negation_task_by_task_from_tables_and_functions():
    alphas = np.array([0.0, 0.5, 1.0])
    target = np.array([[0.9, 0.8], [0.4, 0.3], [0.1, 0.2]])
    control = np.array([[0.6, 0.6], [0.58, 0.5], [0.57, 0.1]])  # 0.57 is 95 % of 0.6
    table = edit.search_negation(target, control, alphas)
    np.testing.assert_array_equal(table.alpha, [1.0, 0.0])
    np.testing.assert_array_equal(table.target, [0.1, 0.8])
    np.testing.assert_array_equal(table.control, [0.57, 0.6])
    assert table.qualified.all()
    called = edit.search_negation(
        lambda a: target[int(2 * a)], lambda a: control[int(2 * a)], alphas
    )
    np.testing.assert_array_equal(called.alpha, table.alpha)
    strict = edit.search_negation(target, control, alphas, retained=0.96)
    np.testing.assert_array_equal(strict.alpha, [0.5, 0.0])


def test_normalized_accuracy_is_a_ratio_per_task():
    merged = np.array([[0.4, 0.9], [0.8, 0.45]])
    np.testing.assert_allclose(edit.normalized_accuracy(merged, [0.8, 0.9]), [[0.5, 1], [1, 0.5]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: edit.normalized_accuracy([0.5, 0.5], [0.5, 0.0]), "task 1 is 0"),
        (
            lambda: edit.search_scale([[0.5, 0.5]], [0.5, 0.0], [1.0], names=["a", "b"]),
            "^task 'b': the single-task accuracy is 0: nothing can be divided by it",
        ),
        (lambda: edit.normalized_accuracy([0.5, 0.5], [0.5]), r"\(\.\.\., T\) and \(T,\)"),
        (lambda: edit.normalized_accuracy([50.0], [0.5]), "between 0 and 1"),
        (lambda: edit.search_scale([[np.nan]], [0.5], [1.0]), "between 0 and 1"),
        (lambda: edit.search_scale([[0.5]], [0.5], []), "alphas="),
        (lambda: edit.search_scale([[0.5]], [0.5], [np.inf]), "finite"),
        (lambda: edit.search_scale([[0.5]], [0.5], [0.0, 1.0]), r"expected \(2, T\)"),
        (lambda: edit.search_scale([[0.5, 0.1]], [0.5], [0.0]), r"and \(T,\)"),
        (lambda: edit.search_negation([0.5], [0.5], [0.3]), "alphas lacks 0"),
        (lambda: edit.search_negation([0.5], [0.5], [0.0], retained=95), "retained=95"),
        (lambda: edit.search_negation([0.5], [[0.5, 0.5]], [0.0]), "one each"),
        (
            lambda: edit.search_negation([[0.5]], [[0.5]], [0.0], control_pretrained=[0.5, 0.5]),
            "control_pretrained has shape",
        ),
    ],
)
def test_bad_tables(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_rounding_keeps_from_0_is_0():
    """As the third of 14 numbers from −0.3 to 1, by ``np.linspace``."""
    alphas = np.linspace(-0.3, 1, 14)
    found = edit.search_negation(0.9 - 0.1 * alphas, 0.8 - 0.3 * alphas**2, alphas, retained=1.0)
    assert found.alpha == found.alphas[3] == 0.0
    assert edit.search_scale(lambda a: [0.5 - 0.3 * a**2], [0.9], alphas).alpha == 0.0


# sweeps


def mlp(params, x):
    return jnp.tanh(x @ params["first"]) @ params["second"]


def setting(seed=0, sizes=(31, 22, 17)):
    rng = np.random.default_rng(seed)

    def weights(scale):
        return {
            "first": jnp.asarray(scale * rng.normal(size=(5, 8)), jnp.float32),
            "second": jnp.asarray(scale * rng.normal(size=(8, 6)), jnp.float32),
        }

    heads = [
        Head(
            jnp.asarray(rng.normal(size=6), jnp.float32),
            jnp.asarray(rng.normal(size=(6, 3 + t)), jnp.float32),
            None,
            jnp.asarray(20.0),
            normalize=True,
        )
        for t in range(len(sizes))
    ]
    splits = [
        (rng.normal(size=(n, 5)).astype("f"), rng.integers(0, 3 + t, n))
        for t, n in enumerate(sizes)
    ]
    return weights(0.7), [weights(0.3) for _ in sizes], splits, heads


@pytest.mark.slow(but=["None-linear", "None-nonlinear", "direction2-posthoc"])
@pytest.mark.parametrize("regime", ["nonlinear", "posthoc", "linear"])
@pytest.mark.parametrize("direction", [None, [0.0, 1.0, 0.0], [0.0, 0.0, -1.0]])
def test_a_sweep_is_the_accuracy_of_each_edited_model(regime, direction):
    """All tasks added, one task alone, one negated."""
    params, taus, splits, heads = setting()
    alphas = [0.0, 0.3, 1.0]
    model = taylor.displaced(mlp) if regime == "nonlinear" else taylor.tangent(mlp)
    weights = np.ones(3) if direction is None else direction
    expected = np.empty((3, 3))
    for i, alpha in enumerate(alphas):
        delta = jax.tree.map(
            lambda *d, a=alpha: sum(a * w * y for w, y in zip(weights, d, strict=True)), *taus
        )
        for t, ((x, y), head) in enumerate(zip(splits, heads, strict=True)):
            logits = np.asarray(apply_head(head, model(params, delta, jnp.asarray(x))))
            expected[i, t] = (logits.argmax(-1) == y).mean()
    got = edit.regime_accuracies(
        mlp, params, taus, splits, heads, alphas, regime, direction=direction, batch_size=8
    )
    np.testing.assert_allclose(got, expected, atol=1e-12)
    assert len(np.unique(got)) > 3
    if regime != "nonlinear":
        cached = [affine_outputs(mlp, params, taus, x) for x, _ in splits]
        again = edit.regime_accuracies(
            None, None, None, splits, heads, alphas, regime, direction=direction, cached=cached
        )
        np.testing.assert_allclose(again, expected, atol=1e-12)


def test_one_vector_needs_no_list_and_its_base_is_checked():
    params, taus, splits, heads = setting()
    vector = TaskVector.between(params, tree.add(params, taus[0]))
    one = edit.regime_accuracies(mlp, params, vector, splits, heads, [1.0], "linear")
    listed = edit.regime_accuracies(mlp, params, [vector], splits, heads, [1.0], "linear")
    np.testing.assert_array_equal(one, listed)
    other = jax.tree.map(lambda p: p + 1, params)
    with pytest.raises(tree.StructureMismatch, match="another base"):
        edit.regime_accuracies(mlp, other, vector, splits, heads, [1.0], "nonlinear")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regime": "tangnt"}, "did you mean 'tangent'"),
        ({"alphas": 0.5}, r"expected \(A,\)"),
        ({"alphas": []}, "expected"),
        ({"alphas": [np.nan]}, "finite"),
        ({"direction": [1.0]}, r"expected \(3,\) finite"),
        ({"direction": [1.0, np.nan, 0.0]}, r"expected \(3,\) finite"),
        ({"readouts": [None]}, "readouts has 1 entries for 3 splits"),
        ({"cached": []}, "cached has 0 entries for 3 splits"),
        ({"cached": [], "regime": "nonlinear"}, "cannot use"),
        ({"f": None}, "f is needed"),
        ({"splits": []}, "splits is empty"),
        ({"splits": [(np.zeros((2, 5), "f"), np.array([0, 9]))] * 3}, "run from 0 to 9"),
    ],
)
def test_bad_sweeps(change, message):
    params, taus, splits, heads = setting()
    given = {
        "f": mlp,
        "params0": params,
        "taus": taus,
        "splits": splits,
        "readouts": heads,
        "alphas": [0.0, 1.0],
        "regime": "linear",
        **change,
    }
    with pytest.raises(ValueError, match=message):
        edit.regime_accuracies(**given)


# joint training


@pytest.mark.slow(but=["0.1"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_joint_loss_is_each_tasks_own(smoothing):
    """The classes of the tasks differ in number, and so do the targets' uniform parts."""
    _, _, splits, heads = setting()
    batch = edit.joint_examples(splits)
    order = np.random.default_rng(0).permutation(70)
    mixed = {role: jnp.asarray(rows[order]) for role, rows in batch.items()}
    features = np.random.default_rng(1).normal(size=(70, 6)).astype("f")
    loss = jax.jit(edit.joint_loss(heads, smoothing=smoothing))
    got = np.asarray(loss(jnp.asarray(features), mixed))
    for t, head in enumerate(heads):
        rows = np.asarray(mixed["task"]) == t
        logits = np.asarray(apply_head(head, jnp.asarray(features[rows])), np.float64)
        nats = logsumexp(logits, axis=1, keepdims=True) - logits
        labels = np.asarray(mixed["labels"])[rows]
        own = (1 - smoothing) * nats[np.arange(len(labels)), labels] + smoothing * nats.mean(1)
        assert own.shape == splits[t][1].shape
        rounding = 4 * np.finfo(np.float32).eps * np.abs(logits).max()
        np.testing.assert_allclose(got[rows], own, rtol=1e-5, atol=rounding)


def test_the_joint_loss_has_each_tasks_gradient():
    _, _, splits, heads = setting()
    batch = edit.joint_examples(splits)
    features = jnp.asarray(np.random.default_rng(1).normal(size=(70, 6)), jnp.float32)
    got = jax.jit(jax.grad(lambda z: edit.joint_loss(heads)(z, batch).sum()))(features)
    own = []
    for t, head in enumerate(heads):
        rows = batch["task"] == t

        def total(z, head=head, labels=batch["labels"][rows]):
            logits = apply_head(head, z)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()

        own.append(jax.jit(jax.grad(total))(features[rows]))
    np.testing.assert_allclose(got, np.concatenate(own), rtol=1e-4, atol=1e-5)


def test_an_example_of_no_task_or_class_poisons_its_loss_alone():
    _, _, _, heads = setting()
    batch = {"labels": jnp.array([0, 3, 3, -1, 0]), "task": jnp.array([0, 0, 1, 2, 3])}
    found = jax.jit(edit.joint_loss(heads))(jnp.ones((5, 6)), batch)
    np.testing.assert_array_equal(np.isnan(found), [False, True, False, True, True])


def test_joint_examples_name_their_task():
    first = (np.zeros((2, 3), np.uint8), np.array([1, 0]))
    second = {"inputs": np.ones((1, 3), np.uint8), "labels": np.array([4])}
    joint = edit.joint_examples([first, second])
    np.testing.assert_array_equal(joint["inputs"].sum(1), [0, 0, 3])
    np.testing.assert_array_equal(joint["labels"], [1, 0, 4])
    np.testing.assert_array_equal(joint["task"], [0, 0, 1])
    assert joint["inputs"].dtype == np.uint8
    with pytest.raises(ValueError, match="one kind"):
        edit.joint_examples([first, (np.zeros((2, 4), np.uint8), np.array([1, 0]))])
    with pytest.raises(ValueError, match="splits is empty"):
        edit.joint_examples([])


def test_joint_examples_hold_what_each_tasks_objective_asks_for():
    first = lz.Examples(np.zeros((2, 3)), {"labels": np.array([1, 0])})
    second = lz.Examples(np.ones((1, 3)), {"targets": np.float32([[1, 2, 3]])})
    joint = edit.joint_examples([first, second])
    outputs = jnp.array([[0.0, 1.0, 0.0], [2.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    found = edit.joint_loss([Classify(), Squared()])(outputs, joint)
    np.testing.assert_allclose(found[:2], Classify().loss(outputs[:2], first.targets))
    np.testing.assert_allclose(found[2], (0 + 4 + 9) / 3, rtol=1e-6)
    third = lz.Examples(np.ones((1, 3)), {"targets": np.float32([[1, 2]])})
    with pytest.raises(ValueError, match=r"'targets'.*\(2,\), \(3,\)"):
        edit.joint_examples([second, third])
    with pytest.raises(ValueError, match="role 'task'"):
        edit.joint_examples([lz.Examples(np.ones((1, 3)), {"task": np.zeros(1)})])


def test_bad_joint_losses():
    with pytest.raises(ValueError, match="objectives is empty"):
        edit.joint_loss([])
    with pytest.raises(ValueError, match="smoothing=1"):
        edit.joint_loss([None], smoothing=1.0)


@pytest.mark.parametrize("size", [1e-35, 1e-30, 1.0, 1e25, 1e35, 5e37])
def test_a_random_direction_has_the_norm_of_tensors_of_any_size(size):
    tau = TaskVector({"a": jnp.full((20,), size), "b": jnp.zeros(3)})
    drawn = edit.random_like(tau, 3)
    leaf = np.asarray(drawn.delta["a"], np.float64)
    np.testing.assert_allclose(np.linalg.norm(leaf), size * np.sqrt(20), rtol=1e-5)
    assert not np.any(drawn.delta["b"])
    plain = edit.random_like(TaskVector({"a": jnp.ones(20)}), 3)  # the direction does not depend
    np.testing.assert_allclose(leaf / size, plain.delta["a"], rtol=1e-5)


def test_a_random_direction_that_the_dtype_has_not_is_refused():
    one = TaskVector({"a": jnp.array([3e38])})
    np.testing.assert_allclose(np.abs(edit.random_like(one, 3).delta["a"]), [3e38], rtol=1e-5)
    with pytest.raises(tree.NonFiniteError, match="the random vector"):
        edit.random_like(TaskVector({"a": jnp.full(20, 3e38)}), 3)

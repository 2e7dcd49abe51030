"""Optimal coefficients against logistic regression, scipy, and any other coefficients."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from linearize import edit
from linearize.edit.optimal import suboptimality
from linearize.evaluate import AffineOutputs, affine_outputs
from linearize.models.heads import Head, prototype_head
from linearize.tree import NonFiniteError

close = np.testing.assert_allclose


def problem(seed, directions=3, sizes=(40, 25), classes=(4, 3)):
    """Data sets whose labels the coefficients (1, 2, ...) explain better than chance."""
    rng = np.random.default_rng(seed)
    terms, labels = [], []
    for n, c in zip(sizes, classes, strict=True):
        f0, jvps = rng.normal(size=(n, c)), rng.normal(size=(directions, n, c))
        drawn = f0 + np.tensordot(np.arange(1, directions + 1), jvps, 1) + rng.gumbel(size=f0.shape)
        terms.append(AffineOutputs(f0.astype(np.float32), jvps.astype(np.float32)))
        labels.append(drawn.argmax(1))
    return terms, labels


def cross_entropy(terms, labels, alphas, l2=0.0):
    """By its definition, in float64."""
    values = []
    for each, y in zip(terms, labels, strict=True):
        logits = each.f0.astype(float) + np.tensordot(alphas, each.jvps.astype(float), 1)
        values.append((logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean())
    return np.mean(values) + l2 / 2 * np.sum(np.square(alphas))


def test_it_is_multinomial_logistic_regression():
    rng = np.random.default_rng(0)
    x, y, l2 = rng.normal(size=(90, 4)), rng.integers(0, 3, 90), 0.05
    directions = [np.outer(x[:, d], np.eye(3)[c]) for c in range(3) for d in range(4)]
    terms = AffineOutputs(np.zeros((90, 3)), np.array(directions))
    found = edit.optimal_coefficients([terms], [y], l2=l2)
    reference = LogisticRegression(C=1 / (l2 * 90), fit_intercept=False, tol=1e-10, max_iter=1000)
    close(found.coefficients.reshape(3, 4), reference.fit(x, y).coef_, atol=1e-6)
    assert found.gap < 1e-12


@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_it_is_what_a_derivative_free_search_of_the_definition_finds(l2):
    terms, labels = problem(1)
    found = edit.optimal_coefficients(terms, labels, l2=l2)
    searched = minimize(
        lambda a: cross_entropy(terms, labels, a, l2), np.zeros(3), method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 5000},
    )  # fmt: skip
    close(found.coefficients, searched.x, atol=1e-5)
    close(found.objective, cross_entropy(terms, labels, found.coefficients, l2), rtol=1e-12)
    assert abs(found.objective - searched.fun) < 1e-10


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 200),
    st.lists(st.floats(-4, 4), min_size=3, max_size=3),
    st.sampled_from([0.0, 1e-2]),
)
def test_no_coefficients_are_better_and_every_certificate_holds(seed, alphas, l2):
    terms, labels = problem(seed)
    best = edit.optimal_coefficients(terms, labels, l2=l2)
    other = cross_entropy(terms, labels, np.array(alphas), l2)
    assert best.gap < 1e-10
    assert best.curvature > 0
    assert other >= best.objective - best.gap - 1e-12
    near = best.coefficients + 0.02 * np.array(alphas)
    there = edit.certify(terms, labels, coefficients=near, l2=l2)
    close(there.objective, cross_entropy(terms, labels, near, l2), rtol=1e-12)
    assert there.objective - best.objective <= there.gap + 1e-12


def test_the_bound_is_tight_for_the_function_it_is_derived_from():
    """φ(t) = −g t + m (exp(−R t) + R t − 1) / R², whose φ''' = −R φ''."""
    g, m, R = 0.3, 1.5, 2.0
    t = np.linspace(0, 5, 200_001)
    lowest = (-g * t + m * (np.exp(-R * t) + R * t - 1) / R**2).min()
    close(suboptimality(g, m, R), -lowest, rtol=1e-6)
    close(suboptimality(1e-6, m, R), 1e-12 / (2 * m), rtol=1e-5)
    assert suboptimality(m / R, m, R) == np.inf


def test_ties_are_sums_of_directions():
    terms, labels = problem(2)
    tied = [each.along(np.ones((3, 1))) for each in terms]
    one = edit.optimal_coefficients(tied, labels)
    line = minimize(
        lambda a: cross_entropy(terms, labels, np.full(3, a[0])), [0.0], method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13},
    )  # fmt: skip
    close(one.coefficients[0], line.x[0], atol=1e-4)
    assert edit.optimal_coefficients(terms, labels).objective < one.objective
    with pytest.raises(ValueError, match=r"basis has shape \(2, 1\); expected \(3, G\)"):
        terms[0].along(np.ones((2, 1)))


def test_separable_examples_have_no_optimum_and_say_so():
    terms = AffineOutputs(np.zeros((2, 2)), np.array([[[0.0, 1], [1, 0]]]))
    found = edit.optimal_coefficients([terms], [np.array([1, 0])], max_iterations=20)
    assert found.coefficients[0] > 5
    assert not found.attained
    assert 0 <= found.objective <= found.gap + 1e-16
    assert edit.optimal_coefficients([terms], [np.array([1, 0])], l2=1e-3).gap < 1e-10


def one_set(seed, jvps, n=30, dtype=np.float64):
    rng = np.random.default_rng(seed)
    f0, made = rng.normal(size=(n, 3)), rng.normal(size=(jvps, n, 3))
    return f0.astype(dtype), made.astype(dtype), rng.integers(0, 3, n)


def fitted(f0, jvps, y, **given):
    return edit.optimal_coefficients([AffineOutputs(f0, np.stack(jvps))], [y], **given)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_all_optima_it_is_the_one_of_least_norm(dtype):
    """Zero, repeated, multiple, dependent, class-constant directions beside the plain optimum."""
    f0, (a, b), y = one_set(0, 2, dtype=dtype)
    best = fitted(f0, [a, b], y)
    x, z = best.coefficients
    constant = np.repeat(np.linspace(0.1, 0.7, 30, dtype=dtype)[:, None], 3, 1)  # no logit moves
    cases = (
        ([a, b, 0 * a], (x, z, 0)),
        ([a, constant, b], (x, 0, z)),
        ([a, b, a], (x / 2, z, x / 2)),
        ([a, 3 * b], (x, z / 3)),
        ([a, b, 2 * b], (x, z / 5, 2 * z / 5)),  # min s² + t² on s + 2 t = z
        ([a, b, a + b], None),
    )
    for jvps, expected in cases:
        found = fitted(f0, jvps, y)
        if expected is None:  # least norm on the plane (s + u, t + u) = (x, z)
            expected = np.linalg.pinv([[1.0, 0, 1], [0, 1, 1]]) @ [x, z]
        close(found.coefficients, expected, atol=3e-6 if dtype == np.float32 else 1e-9)
        assert abs(found.objective - best.objective) < 1e-7
        assert found.gap < 1e-9
        assert found.attained
    started = fitted(f0, [a, b, 0 * a], y, start=[1.0, 2.0, 7.0])
    close(started.coefficients, (x, z, 0), atol=1e-8)


def test_what_a_layer_norm_takes_back_is_no_direction():
    rng = np.random.default_rng(3)
    params = {"w": rng.normal(size=(4, 6)), "head": rng.normal(size=(6, 3))}
    params = {n: jnp.asarray(p, jnp.float32) for n, p in params.items()} | {"b": jnp.zeros(6)}

    def f(p, x):
        z = x @ p["w"] + p["b"][None]
        z = z - z.mean(-1, keepdims=True)
        return z / jnp.sqrt((z**2).mean(-1, keepdims=True) + 1e-6) @ p["head"]

    x, y = rng.normal(size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    moved = {"w": jnp.asarray(rng.normal(size=(4, 6)), jnp.float32)}
    terms = affine_outputs(f, params, [moved, {"b": jnp.full(6, 0.37)}], x)
    found = edit.optimal_coefficients([terms], [y])
    alone = edit.optimal_coefficients([terms.tasks(0)], [y])
    close(found.coefficients, [alone.coefficients[0], 0.0], atol=1e-9)


@pytest.mark.parametrize("l2", [0.0, 1e-2])
def test_scales_of_directions_do_not_matter(l2):
    """With α_k s_k in place of α_k, whatever s; the penalty is kept by scaling it as well."""
    f0, jvps, y = one_set(1, 3)
    plain = fitted(f0, jvps, y, l2=l2)
    for scales in ((1e-6,) * 3, (1e6,) * 3, (1e-6, 1.0, 1e6), (1e6, 1e-6, 1e-3), (1e-12, 1, 1e12)):
        s = np.array(scales)
        if l2 and len(set(scales)) > 1:
            continue
        found = fitted(f0, jvps * s[:, None, None], y, l2=l2 * s[0] ** 2)
        close(found.coefficients * s, plain.coefficients, rtol=1e-7)
        close(found.objective, plain.objective, rtol=1e-12)
        assert found.gap < 1e-12
        assert found.attained


@pytest.mark.parametrize("seed", range(12))
def test_random_scales_and_dependent_directions(seed):
    """No better than BFGS finds, and nothing along a combination that moves no logit."""
    rng = np.random.default_rng(seed)
    f0, base, y = one_set(seed, 3)
    mixed = [np.tensordot(m, base, 1) for m in rng.integers(-1, 2, (2, 3)).astype(float)]
    scales = 10 ** rng.uniform(-6, 6, 5)
    jvps = scales[:, None, None] * np.concatenate([base, mixed])
    found = fitted(f0, list(jvps), y)
    whole = [AffineOutputs(f0, base)]
    reference = minimize(lambda a: cross_entropy(whole, [y], a), np.zeros(3), method="BFGS")
    close(found.objective, reference.fun, rtol=1e-9)
    assert found.gap < 1e-12
    columns = (jvps - jvps.mean(-1, keepdims=True)).reshape(5, -1).T
    lengths = np.linalg.norm(columns, axis=0)
    sizes = np.where(lengths > 0, lengths, 1)
    _, s, v = np.linalg.svd(columns / sizes, full_matrices=False)
    for vain in v[s < 1e-10] / sizes:
        along = abs(vain @ found.coefficients) / np.linalg.norm(vain)
        assert along < 1e-6 * np.linalg.norm(found.coefficients)


def test_a_penalty_beside_scales_against_newton_in_long_precision():
    f0, jvps, y = one_set(4, 3)
    s, l2 = np.array([1e-3, 1.0, 1e3]), 0.1
    found = fitted(f0, jvps * s[:, None, None], y, l2=l2)
    at = np.zeros(3)  # in α s, with the penalty's diagonal l2 / s²
    for _ in range(30):
        logits = f0 + np.tensordot(at, jvps, 1)
        p = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
        centred = jvps - (jvps * p).sum(-1, keepdims=True)
        gradient = -centred[:, np.arange(30), y].mean(1) + l2 * at / s**2
        rows = (centred * np.sqrt(p)).reshape(3, -1)
        at -= np.linalg.solve(rows @ rows.T / 30 + np.diag(l2 / s**2), gradient)
    close(found.coefficients * s, at, rtol=1e-8, atol=1e-12)


def test_a_direction_that_counts_as_nothing_is_named(caplog):
    f0, jvps, y = one_set(3, 3, dtype=np.float32)
    sizes = np.float32([1e-12, 1, 1e12])[:, None, None]
    best = fitted(f0, jvps, y)
    assert not caplog.text
    found = fitted(f0, jvps * sizes, y)
    assert found.coefficients[0] == 0
    assert found.objective > best.objective + 1e-4
    assert "directions [0] change outputs by less than the rounding" in caplog.text


def test_one_class_leaves_nothing_to_fit():
    terms = AffineOutputs(np.ones((4, 1)), np.ones((2, 4, 1)))
    found = edit.optimal_coefficients([terms], [np.zeros(4, int)])
    assert found.coefficients.tolist() == [0.0, 0.0]
    assert found.objective == found.gap == 0
    assert found.attained


def test_a_start_far_out_where_all_is_flat():
    f0, jvps, y = one_set(5, 2)
    best = fitted(f0, jvps, y)
    for start in ([300.0, -200.0], [1e5, 1e5]):
        found = fitted(f0, jvps, y, start=start)
        close(found.coefficients, best.coefficients, atol=1e-8)


@pytest.mark.slow
def test_a_normalising_head_sees_no_scale_and_no_copy_either():
    terms, y = features()
    head = prototype_head(jnp.asarray(terms.f0), jnp.asarray(y), 3, temperature=4.0)
    best = edit.optimal_coefficients([terms], [y], head)
    for s in (1e-6, 1e6):
        jvps = np.concatenate([s * terms.jvps, s * terms.jvps[:1], 0 * terms.jvps[:1]])
        many = AffineOutputs(terms.f0, jvps.astype(np.float32))
        found = edit.optimal_coefficients([many], [y], head)
        x, z = best.coefficients
        close(s * found.coefficients, [x / 2, z, x / 2, 0], atol=2e-3)
        close(found.objective, best.objective, atol=1e-6)


def test_a_certificate_holds_off_the_span_too():
    f0, (a,), y = one_set(6, 1)
    terms = AffineOutputs(f0, np.stack([a, a]))
    best = edit.optimal_coefficients([terms], [y])
    x = best.coefficients[0]
    there = edit.certify([terms], [y], coefficients=[2 * x + 5, -5])
    assert there.gap < 1e-12
    far = edit.certify([terms], [y], coefficients=[40.0, 40.0])
    assert far.objective - best.objective <= far.gap < np.inf


def test_terms_that_are_not_finite_are_named():
    terms, labels = problem(0)
    terms[1].jvps[1, 2, 0] = np.nan
    with pytest.raises(NonFiniteError, match=r"terms\[1\].*\n.*jvps: 1 of"):
        edit.optimal_coefficients(terms, labels)


def features(seed=0):
    rng = np.random.default_rng(seed)
    z, jvps = rng.normal(size=(60, 5)), rng.normal(size=(2, 60, 5))
    y = rng.integers(0, 3, 60)
    return AffineOutputs(z.astype(np.float32), jvps.astype(np.float32)), y


@pytest.mark.parametrize("normalize", [False, True])
def test_heads(normalize):
    """An affine head is certified; a normalising one ends in a stationary point of its own loss."""
    terms, y = features()
    head = prototype_head(
        jnp.asarray(terms.f0), jnp.asarray(y), 3, temperature=4.0, normalize=normalize
    )
    found = edit.optimal_coefficients([terms], [y], head)

    def loss(alphas):
        z = terms.at(alphas) - head.center[None]
        if normalize:
            z = z / np.linalg.norm(z, axis=1, keepdims=True)
        logits = np.asarray(float(head.scale) * z @ head.kernel, np.float64)
        return (logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean()

    close(found.objective, loss(found.coefficients), rtol=1e-5)
    steps = 0.05 * np.eye(2)
    assert all(loss(found.coefficients + s) > found.objective for s in (*steps, *-steps))
    assert found.gap == found.objective if normalize else found.gap < 1e-10
    assert found.gradient < 1e-4


def test_what_does_not_fit_is_refused():
    terms, labels = problem(0)
    for wrong, message in (
        ({"terms": []}, "terms has 0 entries"),
        ({"labels": labels[:1]}, "labels 1; one each"),
        ({"terms": [terms[0], terms[1].tasks([0, 1])]}, r"\[2, 3\] directions"),
        ({"labels": [labels[0], labels[1] + 9]}, "labels run from 9"),
        ({"l2": -1.0}, "l2=-1"),
        ({"start": [0.0, np.nan, 0.0]}, "start has shape"),
        ({"readouts": [None]}, "readouts has 1 entries"),
    ):
        given = {"terms": terms, "labels": labels} | wrong
        with pytest.raises(ValueError, match=message):
            edit.optimal_coefficients(**given)
    with pytest.raises(ValueError, match="coefficients has shape"):
        edit.certify(terms, labels, coefficients=[1.0])


def test_head_is_a_pytree_argument():
    """Heads of one shape share a compilation: the arrays are arguments."""
    terms, y = features()
    plain = Head(jnp.zeros(5), jnp.eye(5, 3), jnp.zeros(3), jnp.ones(()), normalize=True)
    other = Head(jnp.zeros(5), jnp.eye(5, 3)[:, ::-1], jnp.zeros(3), jnp.ones(()), normalize=True)
    found = [edit.optimal_coefficients([terms], [y], head).objective for head in (plain, other)]
    assert found[0] != found[1]

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
from linearize.evaluate import AffineOutputs
from linearize.models.heads import Head, prototype_head

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


def test_separable_examples_have_no_optimum_and_no_certificate():
    terms = AffineOutputs(np.zeros((2, 2)), np.array([[[0.0, 1], [1, 0]]]))
    found = edit.optimal_coefficients([terms], [np.array([1, 0])], max_iterations=20)
    assert found.coefficients[0] > 5
    assert edit.optimal_coefficients([terms], [np.array([1, 0])], l2=1e-3).gap < 1e-10


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
    assert found.gap == np.inf if normalize else found.gap < 1e-10
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

"""Solvers by name against scikit-learn and against one another."""

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, SVR

from linearize.ntk.regression import predict, regression
from linearize.ntk.solvers import SOLVERS, fit

N, M, C, P = 30, 9, 3, 12


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    labels, test_labels = np.arange(N) % C, np.arange(M) % C
    means = rng.normal(size=(C, P))
    features = means[labels] + 0.5 * rng.normal(size=(N, P))
    more = means[test_labels] + 0.5 * rng.normal(size=(M, P))
    return features, more, labels, test_labels


def diagonal(features, more):
    """A kernel of its own for each output: other weights of the features."""
    weights = np.random.default_rng(1).uniform(0.5, 2, size=(C, P))
    return np.einsum("np,mp,cp->nmc", features, more, weights)


def full(features, more):
    mix = np.random.default_rng(2).normal(size=(C, C))
    return np.einsum("nm,cd->nmcd", features @ more.T, mix @ mix.T + np.eye(C))


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_row_classifies(data, solver):
    features, more, labels, test_labels = data
    kernels = [lambda a, b: a @ b.T]
    if solver != "logistic_rows":
        kernels.append(diagonal)
    if solver in ("least_squares", "asymmetric_least_squares", "logistic"):
        kernels.append(full)
    for kernel in kernels:
        options = {"ridge": 0.1} if "least_squares" in solver else {}
        dual = fit(kernel(features, features), labels, solver, **options)
        logits = predict(dual, kernel(more, features))
        assert logits.shape == (M, C)
        np.testing.assert_array_equal(logits.argmax(1), test_labels)


@pytest.mark.parametrize("f0_scale", [0.0, 1.0, 2.5])
def test_least_squares_is_regression_on_one_hot_targets(data, f0_scale):
    features, more, labels, _ = data
    rng = np.random.default_rng(3)
    f0, f0_test = rng.normal(size=(N, C)), rng.normal(size=(M, C))
    kernel, kernel_test = full(features, features), full(more, features)
    one_hot = (labels[:, None] == np.arange(C)).astype(float)
    np.testing.assert_allclose(
        predict(fit(kernel, labels, f0=f0, f0_scale=f0_scale, ridge=0.2), kernel_test, f0_test),
        predict(regression(kernel, f0, one_hot, 0.2, f0_scale), kernel_test, f0_test),
    )


def test_logistic_equals_scikit_learn(data):
    features, more, labels, _ = data
    peer = LogisticRegression(C=1 / (N * 0.03), fit_intercept=False, tol=1e-10, max_iter=5000)
    peer.fit(features, labels)
    dual = fit(features @ features.T, labels, "logistic", l2=0.03)
    np.testing.assert_allclose(
        predict(dual, more @ features.T), peer.decision_function(more), atol=1e-4
    )


@pytest.mark.parametrize("cost", [0.1, 10.0])
def test_svm_equals_one_machine_against_the_rest(data, cost):
    features, more, labels, _ = data
    dual = fit(diagonal(features, features), labels, "svm", C=cost, tol=1e-8)
    logits = predict(dual, diagonal(more, features))
    weights = np.random.default_rng(1).uniform(0.5, 2, size=(C, P))
    for k in range(C):  # in feature space, by a linear kernel
        scaled = np.sqrt(weights[k])
        peer = SVC(kernel="linear", C=cost, tol=1e-8).fit(features * scaled, labels == k)
        np.testing.assert_allclose(logits[:, k], peer.decision_function(more * scaled), atol=1e-5)


def test_a_binary_svm_of_one_output(data):
    features, more, labels, _ = data
    binary = (labels == 1).astype(int)
    dual = fit(features @ features.T, binary, "svm", f0=np.zeros((N, 1)), f0_scale=0.0, tol=1e-8)
    peer = SVC(kernel="linear", tol=1e-8).fit(features, binary)
    np.testing.assert_allclose(
        predict(dual, more @ features.T)[:, 0], peer.decision_function(more), atol=1e-5
    )


def test_svr_regresses_what_f0_leaves(data):
    features, more, labels, _ = data
    rng = np.random.default_rng(3)
    f0, f0_test = rng.normal(size=(N, C)), rng.normal(size=(M, C))
    dual = fit(features @ features.T, labels, "svr", f0=f0, f0_scale=0.5, C=0.3, tol=1e-8)
    logits = predict(dual, more @ features.T, f0_test)
    for k in range(C):
        peer = SVR(kernel="linear", C=0.3, tol=1e-8).fit(features, (labels == k) - 0.5 * f0[:, k])
        expected = peer.predict(more) + 0.5 * f0_test[:, k]
        np.testing.assert_allclose(logits[:, k], expected, atol=1e-5)


def test_one_output_is_signed(data):
    features, _, labels, _ = data
    binary = (labels == 1).astype(int)
    kernel = features @ features.T
    dual = fit(kernel, binary, f0=np.zeros((N, 1)), ridge=1e-3)
    np.testing.assert_array_equal(predict(dual, kernel, np.zeros((N, 1)))[:, 0] > 0, binary == 1)


def test_bad_input(data):
    features, _, labels, _ = data
    kernel, f0 = features @ features.T, np.zeros((N, C))
    with pytest.raises(ValueError, match="solver='svn' is not one of 'least_squares'"):
        fit(kernel, labels, "svn")
    with pytest.raises(ValueError, match="the hinge loss has no offset"):
        fit(kernel, labels, "svm", f0=f0)
    for solver in ("svm", "svr"):
        with pytest.raises(ValueError, match="give the diagonal"):
            fit(full(features, features), labels, solver)
        with pytest.raises(ValueError, match="kernel is indefinite"):
            fit(kernel - 10 * np.eye(N), labels, solver)
    with pytest.raises(ValueError, match="output 2 0 of 30 examples"):
        fit(diagonal(features, features), labels % 2, "svm")
    with pytest.raises(ValueError, match="kernel is singular to rounding"):
        fit(kernel, labels)  # 12 features, 30 examples
    with pytest.raises(ValueError, match=r"labels has shape \(29,\)"):
        fit(kernel, labels[:-1], ridge=1.0)
    with pytest.raises(ValueError, match=r"labels\[0\] is -1"):
        fit(kernel, labels - 1, ridge=1.0)


def test_without_scikit_learn(data, monkeypatch):
    features, _, labels, _ = data
    kernel = features @ features.T
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    with pytest.raises(ImportError, match=r'pip install "linearize\[kernel\]"'):
        fit(kernel, labels, "svm")
    fit(kernel, labels, "logistic", l2=0.1)  # needs none


@pytest.mark.parametrize("layout", [lambda a, b: a @ b.T, diagonal, full])
def test_a_ridge_in_units_of_the_operator_norm(data, layout):
    features, _, labels, _ = data
    kernel = layout(features, features)
    blocks = [kernel] if kernel.ndim == 2 else list(np.moveaxis(kernel, -1, 0))
    if kernel.ndim == 4:
        blocks = [kernel.transpose(0, 2, 1, 3).reshape(N * C, N * C)]
    norm = max(np.linalg.eigvalsh(block).max() for block in blocks)
    np.testing.assert_allclose(
        fit(kernel, labels, share=0.03).coefficients,
        fit(kernel, labels, ridge=0.03 * norm).coefficients,
        rtol=1e-6,
    )


def test_an_asymmetric_kernel_is_solved_as_it_predicts(data):
    """Of features and their signs: the solution is that of weights along the signs."""
    features, more, labels, _ = data
    f0 = np.random.default_rng(3).normal(size=(N, C))
    with pytest.raises(ValueError, match="asymmetric"):
        fit(features @ np.sign(features).T, labels, f0=f0, ridge=0.1)
    own, other = (side @ np.sign(features).T for side in (features, more))
    dual = fit(own, labels, "asymmetric_least_squares", f0, f0_scale=0.5, ridge=3.0)
    expected = np.linalg.solve(own + 3 * np.eye(N), np.eye(C)[labels] - 0.5 * f0)
    np.testing.assert_allclose(-dual.coefficients, expected, atol=1e-9)
    weights = np.sign(features).T @ expected
    found = predict(dual, other, np.zeros((len(more), C)))
    np.testing.assert_allclose(found, more @ weights, atol=1e-9)
    symmetric = fit(features @ features.T, labels, ridge=0.1).coefficients
    again = fit(features @ features.T, labels, "asymmetric_least_squares", ridge=0.1)
    np.testing.assert_allclose(again.coefficients, symmetric, atol=1e-8)


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_rows_are_logistic_regression_on_rows(data, classes):
    features, more, labels, _ = data
    kernel, other = (side @ features.T for side in (features, more))
    labels = labels % classes
    machine = LogisticRegression(C=0.1, max_iter=10_000).fit(kernel, labels)
    found = predict(fit(kernel, labels, "logistic_rows", C=0.1), other)
    spread = found - found.max(1, keepdims=True)
    share = np.exp(spread) / np.exp(spread).sum(1, keepdims=True)
    np.testing.assert_allclose(share, machine.predict_proba(other), atol=1e-6)


def test_logistic_rows_have_no_place_for_f0(data):
    features, _, labels, _ = data
    with pytest.raises(ValueError, match="leave f0 out"):
        fit(features @ features.T, labels, "logistic_rows", np.zeros((N, C)))


@pytest.mark.parametrize(
    ("kernel", "f0", "says"),
    [
        (np.eye(3), np.zeros((4, 2)), r"f0 has shape \(4, 2\); expected \(3, C\)"),
        (np.ones((3, 3, 3)), np.zeros((3, 2)), r"f0 has shape \(3, 2\); expected \(3, 3\)"),
        (np.ones((3, 3, 2, 3)), np.zeros((3, 2)), r"kernel has shape \(3, 3, 2, 3\).*C1 = C2"),
    ],
)
def test_an_asymmetric_kernel_of_other_examples_or_outputs_is_refused(kernel, f0, says):
    with pytest.raises(ValueError, match=says):
        fit(kernel, np.arange(len(f0)) % 2, "asymmetric_least_squares", f0)


@pytest.mark.parametrize("labels", [["a", "b", "a"], [0.0, 1.0, 0.0]])
def test_labels_that_are_no_integers_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels has dtype .*; expected integer class indices"):
        fit(np.eye(3), labels)

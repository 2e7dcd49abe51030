"""A trace kernel beside a ridge: C times less regularisation, said aloud."""

import jax.numpy as jnp
import numpy as np
import pytest

from linearize import ntk
from linearize.ntk.provenance import traced_outputs

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype(np.float32)
F0, Y, LABELS = np.zeros((6, 3)), RNG.normal(size=(6, 3)), np.arange(6) % 3


def f(params, x):
    """Three outputs that share no weight: the full kernel is K ⊗ I, and so is the mean."""
    return x @ params["w"]


def kernel(output):
    return ntk.kernel(f, {"w": jnp.ones((4, 3))}, X, output=output)


SOLVED = {
    "regression": lambda k: ntk.regression(k, F0, Y, ridge=0.5),
    "gradient_flow": lambda k: ntk.gradient_flow(k, F0, Y, times=2.0, ridge=0.5),
    "gradient_descent": lambda k: ntk.gradient_descent(k, F0, Y, 0.01, steps=9, ridge=0.5),
    "cross_entropy": lambda k: ntk.cross_entropy(k, F0, LABELS, l2=0.1),
    "cross_entropy_descent": lambda k: ntk.cross_entropy_descent(k, F0, LABELS, [0.1], l2=0.1),
    "least_squares": lambda k: ntk.fit(k, LABELS, f0=F0, ridge=0.5),
    "logistic": lambda k: ntk.fit(k, LABELS, "logistic", l2=0.1),
    "svr": lambda k: ntk.fit(k, LABELS, "svr", f0=F0),
}


@pytest.mark.parametrize("name", SOLVED)
def test_the_mean_solves_what_the_full_kernel_does_and_the_trace_warns(name):
    if name == "svr":
        pytest.importorskip("sklearn")
    else:
        expected = SOLVED[name](kernel("full")).coefficients
        found = SOLVED[name](kernel("mean")).coefficients
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    with pytest.warns(ntk.TraceKernelWarning, match="trace over 3 outputs.*regularises 3 times"):
        SOLVED[name](kernel("trace"))


STOPPED = {
    "gradient_flow": lambda k: ntk.gradient_flow(k, F0, Y, times=2.0),
    "gradient_descent": lambda k: ntk.gradient_descent(k, F0, Y, 0.01, steps=9),
    "cross_entropy_descent": lambda k: ntk.cross_entropy_descent(k, F0, LABELS, [0.1] * 3),
}


@pytest.mark.parametrize("name", STOPPED)
def test_an_end_in_time_regularises_as_a_ridge_does(name):
    expected = STOPPED[name](kernel("full")).coefficients
    np.testing.assert_allclose(
        STOPPED[name](kernel("mean")).coefficients, expected, atol=1e-4 * np.abs(expected).max()
    )
    with pytest.warns(
        ntk.TraceKernelWarning, match=r"(times=2|steps=9|steps=3) regularises 3 times"
    ) as caught:
        STOPPED[name](kernel("trace"))
    assert {warning.filename for warning in caught} == {__file__}


def test_a_trace_beside_a_solution_of_another_kernel_warns():
    found = ntk.regression(kernel("mean"), F0, Y, ridge=0.5)
    expected = ntk.predict(ntk.regression(kernel("full"), F0, Y, ridge=0.5), kernel("full"), F0)
    np.testing.assert_allclose(ntk.predict(found, kernel("mean"), F0), expected, atol=1e-4)
    with pytest.warns(ntk.TraceKernelWarning, match="move 3 times too far"):
        ntk.predict(found, kernel("trace"), F0)
    for solve in (STOPPED["gradient_flow"], STOPPED["cross_entropy_descent"], SOLVED["logistic"]):
        with pytest.warns(ntk.TraceKernelWarning, match="regularises"):
            own = solve(kernel("trace"))
        ntk.predict(own, kernel("trace"), F0)  # of one layout: nothing more is said


def test_weights_of_a_solution_on_a_trace_move_too_little_and_that_is_said():
    """Three examples of four inputs: all but the trace's weights reach the targets."""
    params, x, y = {"w": jnp.ones((4, 3))}, X[:3], Y[:3]
    f0 = np.asarray(f(params, x))

    def share(output):
        dual = ntk.regression(ntk.kernel(f, params, x, output=output), f0, y)
        moved = f(ntk.to_task_vector(f, params, x, dual).apply_to(params), x)
        return (np.asarray(moved) - f0) / (y - f0)

    for output in ("full", "mean"):
        np.testing.assert_allclose(share(output), 1, atol=1e-3)
    with pytest.warns(ntk.TraceKernelWarning, match="over 3 outputs.*move 3 times too lit") as said:
        np.testing.assert_allclose(share("trace"), 1 / 3, atol=1e-3)
    assert {warning.filename for warning in said} == {__file__}


def test_what_is_known_to_be_a_trace():
    trace = kernel("trace")
    assert traced_outputs(trace) == traced_outputs(trace[:3, 2:].T) == 3
    for other in (kernel("mean"), kernel("full"), trace / 3, trace.copy(), None, 1.0):
        assert traced_outputs(other) is None
    approximate = ntk.approximate_kernel(f, {"w": jnp.ones((4, 3))}, X)
    assert traced_outputs(approximate.kernel) == 3


def test_no_ridge_and_one_output_are_no_matter():
    ntk.gradient_flow(kernel("trace"), F0, Y, times=[0.0, np.inf])
    single = ntk.kernel(f, {"w": jnp.ones((4, 1))}, X, output="trace")
    ntk.regression(single, F0[:, :1], Y[:, :1], ridge=0.5)

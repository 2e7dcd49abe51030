"""Numbers that a compiler got wrong are found at run time, and right ones are let through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize import ntk
from linearize.agreement import DisagreementError
from linearize.evaluate import affine, affine_outputs
from linearize.ntk import approximate, contract, features, jacobian, objective, products, programs
from linearize.ntk.products import pull


@pytest.fixture
def fresh():
    """No program of another test, and none of this one's wrong programs for the next."""
    programs._programs.clear()
    yield
    programs._programs.clear()
    jax.clear_caches()


def model(scale=1.0, dtype=jnp.float32, n=9):
    rng = np.random.default_rng(0)
    params = {
        "a": jnp.asarray(rng.normal(size=(4, 6)), dtype),
        "c": jnp.asarray(scale * rng.normal(size=(6, 3)), dtype),
    }

    def f(params, x):
        return jnp.tanh(x @ params["a"]) @ params["c"]

    return f, params, jnp.asarray(rng.normal(size=(n, 4)), dtype)


def wrong(function, by=1.2):
    """The function with a result that is off by a fifth."""
    return lambda *args, **kwargs: jax.tree.map(lambda y: by * y, function(*args, **kwargs))


SEEN_SELDOM = [pytest.param(output, marks=pytest.mark.slow) for output in ("trace", "mean")]


@pytest.mark.slow(but=["structured-diagonal"])
@pytest.mark.parametrize("output", ["full", "diagonal", *SEEN_SELDOM])
@pytest.mark.parametrize("implementation", ["jacobian", "structured"])
def test_a_wrong_contraction(fresh, monkeypatch, implementation, output, tmp_path):
    monkeypatch.setitem(contract.LAYOUTS, output, wrong(contract.LAYOUTS[output]))
    monkeypatch.setitem(contract._FACTORED, output, wrong(contract._FACTORED[output]))
    options = {"implementation": implementation, "output": output}
    with pytest.raises(
        DisagreementError, match=rf"{output} kernel by .*{implementation}"
    ) as caught:
        ntk.kernel(*model(), **options)
    assert caught.value.found == pytest.approx(1.2 * caught.value.expected, rel=1e-4)
    with pytest.raises(DisagreementError):
        ntk.kernel(*model(), **options, out=tmp_path / "k")


def test_a_kernel_off_the_diagonal_alone(fresh, monkeypatch):
    right = contract.contract

    def contract_blocks(left, other, output):
        found = right(left, other, output)
        return found if left is other else 0 * found

    monkeypatch.setattr(jacobian, "contract", contract_blocks)
    f, params, x = model()
    ntk.kernel(f, params, x, implementation="jacobian")
    with pytest.raises(DisagreementError):
        ntk.kernel(f, params, x, implementation="jacobian", batch_size=3)


def test_a_kernel_that_overflows_by_the_compiler_alone(fresh, monkeypatch):
    monkeypatch.setitem(contract.LAYOUTS, "full", wrong(contract.full, by=jnp.inf))
    with pytest.raises(DisagreementError):
        ntk.kernel(*model(), implementation="jacobian")


def test_wrong_products(fresh, monkeypatch):
    f, params, x = model()
    monkeypatch.setattr(products, "push", wrong(products.push))
    with pytest.raises(DisagreementError, match="products"):
        ntk.kernel(f, params, x, implementation="products")
    with pytest.raises(DisagreementError, match="product with a vector"):
        ntk.vector_product(f, params, x)(jnp.ones((9, 3)))


def forgetful(right):
    """A pull that leaves the last of several examples out."""

    def forgets(point, params, inputs, v, at_once):
        several = jnp.any(v != 0, axis=1).sum() > 1
        last = jnp.arange(len(v)) == len(v) - 1
        return right(point, params, inputs, jnp.where((several & last)[:, None], 0, v), at_once)

    return forgets


def test_a_product_that_leaves_rows_out(fresh, monkeypatch):
    """Of one example at a time it is right; so are trace and log-determinant made of it stopped."""
    f, params, x = model()
    monkeypatch.setattr(products, "pull", forgetful(products.pull))
    for estimate in (ntk.trace, ntk.log_determinant):
        with pytest.raises(DisagreementError, match="in another order"):
            estimate(ntk.vector_product(f, params, x), (9, 3))


def test_a_wrong_task_vector(fresh, monkeypatch):
    monkeypatch.setattr("linearize.ntk.weights.pull", wrong(pull))
    with pytest.raises(DisagreementError, match=r"of example \d alone"):
        ntk.to_task_vector(*model(), np.ones((9, 3)))


def test_a_task_vector_that_leaves_rows_out(fresh, monkeypatch):
    monkeypatch.setattr("linearize.ntk.weights.pull", forgetful(pull))
    with pytest.raises(DisagreementError, match="begun in the middle"):
        ntk.to_task_vector(*model(), np.ones((9, 3)))


def test_a_task_vector_whose_terms_cancel_is_no_fault(fresh):
    f, params, x = model()
    twice = np.concatenate([x, x])
    signs = np.repeat([1.0, -1.0], len(x))[:, None] * np.ones((1, 3))
    assert float(ntk.to_task_vector(f, params, twice, signs).norm()) < 1e-4


def test_wrong_feature_changes(fresh, monkeypatch):
    f, params, x = model()
    monkeypatch.setattr(features, "_squares", wrong(features._squares))
    with pytest.raises(DisagreementError, match="feature_change"):
        features.feature_change(f, jax.tree.map(lambda p: 1.1 * p, params), params, x)


@pytest.mark.slow(but=["pntk"])
@pytest.mark.parametrize("method", ["pntk", "sketch"])
def test_wrong_approximations(fresh, monkeypatch, method):
    monkeypatch.setattr(approximate, "over_examples", wrong(approximate.over_examples))
    with pytest.raises(DisagreementError, match="approximate_kernel"):
        ntk.approximate_kernel(*model(), method=method)


@pytest.mark.parametrize("part", [0, 1])
def test_a_wrong_affine_pass(monkeypatch, part):
    f, params, x = model()
    step = affine.affine_step

    def corrupted(*args):
        terms = list(step(*args))
        terms[part] = 1.2 * terms[part]
        return tuple(terms)

    monkeypatch.setattr(affine, "affine_step", corrupted)
    with pytest.raises(DisagreementError, match=("f0", "J τ")[part]):
        affine_outputs(f, params, [params], x)


@pytest.mark.parametrize("part", [0, 1])
def test_a_wrong_gauss_newton_pass(monkeypatch, part):
    f, params, x = model()
    curve = objective._curve

    def corrupted(*args):
        terms = list(curve(*args))
        terms[part] = jax.tree.map(lambda y: 1.2 * y, terms[part])
        return tuple(terms)

    monkeypatch.setattr(objective, "_curve", corrupted)
    with pytest.raises(DisagreementError):
        ntk.gauss_newton(f, params, x, np.arange(9) % 3, l2=0.1)


@pytest.mark.slow(but=["0.0-float32"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("scale", [0.0, 1e-22, 1.0, 1e15])
def test_no_false_alarm(scale, dtype):
    f, params, x = model(scale, dtype)
    for output in ("full", "mean", "diagonal"):
        for optimizer in jacobian.RULES:
            ntk.kernel(f, params, x, x[:4], output=output, optimizer=optimizer, batch_size=3)
    ntk.to_task_vector(f, params, x, np.ones((9, 3)))
    ntk.vector_product(f, params, x)(jnp.ones((9, 3)))
    affine_outputs(f, params, [params, params], x)


def test_examples_that_change_each_other_are_no_fault():
    """The affine pass takes what a batch gives; a single example of it gives something else."""
    f, params, x = model(n=8)

    def normalized(params, x):
        out = f(params, x)
        return out - out.mean(0, keepdims=True)

    found = affine_outputs(normalized, params, [params], x, batch_size=8)
    moved = jax.jvp(lambda p: normalized(p, x), (params,), (params,))[1]
    np.testing.assert_allclose(found.jvps[0], moved, rtol=1e-4, atol=1e-4)


def test_a_model_without_reverse_mode_has_an_affine_pass():
    def f(params, x):
        return jax.lax.while_loop(
            lambda c: c[0] < 2, lambda c: (c[0] + 1, c[1] * params["w"]), (0, x)
        )[1]

    found = affine_outputs(f, {"w": 3.0}, [{"w": 1.0}], np.arange(3.0, dtype=np.float32))
    assert found.jvps.tolist() == [[0.0, 6.0, 12.0]]  # d(w² x) = 2 w x


def test_the_mean_is_the_trace_divided_by_the_number_of_outputs():
    f, params, x = model()
    trace = ntk.kernel(f, params, x, output="trace")
    for implementation in ("jacobian", "structured", "products"):
        mean = ntk.kernel(f, params, x, output="mean", implementation=implementation)
        np.testing.assert_allclose(mean, trace / 3, rtol=1e-5, atol=1e-6)
    sketch = {"method": "pntk", "checked": 9}
    pair = [ntk.approximate_kernel(f, params, x, output=o, **sketch) for o in ("trace", "mean")]
    np.testing.assert_allclose(pair[1].kernel, pair[0].kernel / 3, rtol=1e-6)
    assert pair[1].error == pytest.approx(pair[0].error, rel=1e-4)

"""Programs of which XLA's default options, or those taken before, made wrong numbers."""

import ast
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

import linearize as lz
from linearize import cost, tree
from linearize.compiled import jit
from linearize.ntk import contract
from linearize.ntk.contract import Factors

N, OUTPUTS, TOKENS, WIDTH = 8, 10, 64, 64  # more than 2**18 numbers, 32,768 an example


@pytest.fixture(scope="module")
def normalized():
    """A LayerNorm, a mean and a dense layer, and the derivative in the inputs by hand."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, TOKENS, WIDTH))
    weights = rng.normal(size=(WIDTH, OUTPUTS))
    scale = np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
    unit = x / scale
    # d/dx of (x / rms(x)) · w: w / s − u (u · w) / (D s), over T tokens
    inner = np.einsum("ntd,dc->nct", unit, weights)[..., None]
    expected = weights.T[None, :, None, :] - unit[:, None] * inner / WIDTH
    return x, weights, expected / scale[:, None] / TOKENS


def test_the_derivative_of_a_root_mean_square_norm(normalized):
    x, weights, expected = normalized
    weights = jnp.asarray(weights, jnp.float32)

    def f(x):
        square = (x * x).mean(-1, keepdims=True)
        return (x * jax.lax.rsqrt(square + 1e-6)).mean(0) @ weights

    found = np.asarray(jit(jax.vmap(jax.jacrev(f)))(jnp.asarray(x, jnp.float32)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow(but=["structured"])
@pytest.mark.parametrize("implementation", ["jacobian", "structured"])
def test_the_kernel_of_inputs_before_a_layer_norm(implementation):
    """One learned offset at every input: the kernel is that of the derivative in the inputs."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(N, TOKENS, WIDTH)).astype(np.float32)
    weights = jnp.asarray(rng.normal(size=(WIDTH, OUTPUTS)), jnp.float32)
    norm = linen.LayerNorm(use_fast_variance=False)
    fixed = norm.init(jax.random.key(0), x[0])

    def f(params, x):
        return norm.apply(fixed, x + params["offset"][None]).mean(1) @ weights.astype(x.dtype)

    params = {"offset": jnp.zeros((TOKENS, WIDTH))}
    found = lz.ntk.kernel(f, params, x, implementation=implementation)
    with jax.enable_x64(True):
        wide = {"offset": jnp.zeros((TOKENS, WIDTH), jnp.float64)}
        expected = lz.ntk.kernel(f, wide, x.astype(np.float64), implementation="products")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def expected_kernel(left, right, output):
    full = np.einsum("ncp,mdp->nmcd", left, right)
    return {
        "full": full,
        "diagonal": np.einsum("nmcc->nmc", full),
        "trace": np.einsum("nmcc->nm", full),
        "mean": np.einsum("nmcc->nm", full) / full.shape[-1],
    }[output]


@pytest.mark.slow(but=["1-full", "7-trace", "16-diagonal", "33-diagonal"])
@pytest.mark.parametrize("output", ["full", "diagonal", "trace"])
@pytest.mark.parametrize("n", [1, 2, 7, 16, 33])
def test_contractions_of_any_number_of_examples_and_outputs(n, output):
    """Fusions of products alone made the diagonal wrong from 16 examples on, in 0.10 and 0.12."""
    for outputs in (1, 2, 3, 5):
        rng = np.random.default_rng(outputs)
        rows = rng.normal(size=(n, outputs, 48))
        inputs, slopes = rng.normal(size=(n, 1, 6)), rng.normal(size=(n, outputs, 1, 8))
        whole = np.einsum("ntk,nctm->nckm", inputs, slopes).reshape(n, outputs, -1)

        def both(rows, inputs, slopes):
            factors = Factors(inputs, slopes)
            return (
                contract.contract(rows, rows, output),
                contract.contract(factors, factors, output),
            )

        narrow = [jnp.asarray(a, jnp.float32) for a in (rows, inputs, slopes)]
        for found, jacobian in zip(jit(both)(*narrow), (rows, whole), strict=True):
            expected = expected_kernel(jacobian, jacobian, output)
            np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


IMPLEMENTATIONS = ("jacobian", "structured", "products")
FEW = {(1, 1), (7, 3), (16, 2)}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("n", "outputs", "output"),
    [
        pytest.param(n, c, o, marks=[] if (n, c) in FEW and o == "diagonal" else pytest.mark.slow)
        for n in (1, 2, 7, 16, 33)
        for c in (1, 2, 3, 5)
        for o in ("full", "diagonal", "trace", "mean")
    ],
)
def test_the_kernel_of_a_tanh_network(n, outputs, output, implementation):
    rng = np.random.default_rng(0)
    a, c, x = rng.normal(size=(6, 8)), rng.normal(size=(8, outputs)), rng.normal(size=(n, 6))
    hidden = np.tanh(x @ a)
    slopes = (1 - hidden**2)[:, None] * c.T
    in_a = np.einsum("nk,ncm->nckm", x, slopes).reshape(n, outputs, -1)
    in_c = np.einsum("nk,cd->nckd", hidden, np.eye(outputs)).reshape(n, outputs, -1)
    rows = np.concatenate([in_a, in_c], axis=2)
    found = lz.ntk.kernel(
        lambda params, x: jnp.tanh(x @ params["a"]) @ params["c"],
        {"a": jnp.asarray(a, jnp.float32), "c": jnp.asarray(c, jnp.float32)},
        x.astype(np.float32),
        output=output,
        implementation=implementation,
    )
    expected = expected_kernel(rows, rows, output)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_sums_over_many_products_of_a_matrix_and_a_row():
    """jax-ml/jax#39103: rows beyond the first 2**15 were wrong by 0.2 %."""
    rows = np.stack([np.arange(32_769.0), np.zeros(32_769), np.zeros(32_769)], axis=1)
    squares = jit(lambda x: jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2))(x))
    found = squares(jnp.asarray(rows, jnp.float32))
    np.testing.assert_allclose(found, rows[:, 0] ** 2, rtol=1e-6)


def test_every_program_of_the_library_is_compiled_with_these_options():
    """A call of ``jax.jit`` elsewhere would take XLA's default options."""
    root = Path(lz.__file__).parent
    files = [f for f in root.rglob("*.py") if f != root / "compiled.py"]
    code = {f: re.sub(r'""".*?"""', "", f.read_text(), flags=re.DOTALL) for f in files}
    assert not [str(f.relative_to(root)) for f, text in code.items() if "jax.jit" in text]
    assert sum("from linearize.compiled import jit" in text for text in code.values()) > 15


PRODUCTS = {"dot", "vdot", "inner", "matmul", "einsum", "tensordot", "dot_general"}


def products(text):
    """Lines of JAX's inner products, and whether each asks for a precision."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = ast.unparse(node.func.value)
            if of in ("jnp", "lax", "jax.lax", "jax.numpy") and node.func.attr in PRODUCTS:
                yield node.lineno, "precision" in {word.arg for word in node.keywords}


def test_inner_products_that_decide_a_number_say_how_precise_they_are():
    """By default GPUs and TPUs round float32 factors to 10 or 7 bits; a model's own may be so."""
    root, asked, silent = Path(lz.__file__).parent, 0, []
    for file in root.rglob("*.py"):
        where = file.relative_to(root)
        if where.parts[0] != "models":
            for line, precise in products(file.read_text()):
                asked += precise
                silent += [] if precise else [f"{where}:{line}"]
    assert not silent
    assert asked > 15


@pytest.mark.parametrize(
    "of", [tree.dot, tree.cosine, lambda a, _: tree.norm(a)], ids=["dot", "cosine", "norm"]
)
def test_products_of_trees_are_of_the_highest_precision(of):
    x = {"w": jnp.ones((3, 2)), "b": jnp.ones(2, jnp.bfloat16)}
    found = [
        equation.params["precision"]
        for equation in cost.equations(jax.make_jaxpr(of)(x, x).jaxpr)
        if equation.primitive.name == "dot_general"
    ]
    assert found
    assert set(found) == {(jax.lax.Precision.HIGHEST,) * 2}


def test_a_program_is_inlined_where_it_is_traced():
    double = jit(lambda x: 2 * x)
    outer = jit(lambda x: double(x) + 1)
    assert outer(jnp.ones(3)).tolist() == [3.0, 3.0, 3.0]
    assert jax.grad(lambda x: double(x).sum())(jnp.ones(2)).tolist() == [2.0, 2.0]
    assert jax.vmap(double)(jnp.ones(2)).tolist() == [2.0, 2.0]
    known = jnp.ones(2)  # an argument that is no tracer, in a program that is traced
    assert jax.jit(lambda x: x + double(known))(jnp.ones(2)).tolist() == [3.0, 3.0]
    assert jax.eval_shape(lambda: double(known)).shape == (2,)
    assert jax.grad(lambda x: (x * double(known)).sum())(jnp.ones(2)).tolist() == [2.0, 2.0]
    assert double._cache_size() == 1  # as itself it was called once: grad traces no program


def test_a_program_may_be_called_while_another_is_traced():
    double = jit(lambda x: 2 * x)

    @jax.jit
    def outer(x):
        with jax.ensure_compile_time_eval():
            return x + float(double(jnp.ones(())))

    assert outer(jnp.ones(())) == 3

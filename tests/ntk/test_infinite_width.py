"""The recursion against quadrature, against wide random networks, and its homogeneity."""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import dblquad, quad
from scipy.stats import norm

from linearize.ntk.infinite_width import mlp_kernel

close = np.testing.assert_allclose
X = np.array([[1.0, 0.0, 2.0], [0.5, -1.0, 1.0], [-1.0, 0.3, -0.5]])


def quadrature(cov, f):
    """E[f(u) f(v)] of a centred Gaussian pair, by adaptive quadrature over u, v > 0."""
    inverse, root = np.linalg.inv(cov), 2 * np.pi * np.sqrt(np.linalg.det(cov))

    def integrand(v, u):
        z = np.array([u, v])
        return f(u) * f(v) * np.exp(-0.5 * z @ inverse @ z) / root

    bound = 9 * np.sqrt(np.diag(cov))
    return dblquad(integrand, 0, bound[0], 0, bound[1], epsabs=1e-9, epsrel=1e-9)[0]


@pytest.mark.parametrize(("depth", "bias_std"), [(1, None), (1, 0.4), (3, 0.4)])
def test_recursion_equals_quadrature(depth, bias_std):
    w2, b2 = 1.3**2, (bias_std or 0) ** 2
    found = mlp_kernel(X[:2], X[1:], depth=depth, weight_std=1.3, bias_std=bias_std)
    x, y = X[0], X[1]
    cov = w2 / 3 * np.array([[x @ x, x @ y], [x @ y, y @ y]]) + b2
    ntk = cov[0, 1]
    for _ in range(depth):
        active, slopes = (quadrature(cov, f) for f in (lambda u: u, lambda u: 1.0))
        own = [
            quad(lambda u, s=s: u**2 * norm.pdf(u, scale=s), 0, 12 * s)[0]
            for s in np.sqrt(np.diag(cov))
        ]
        cov = w2 * np.array([[own[0], active], [active, own[1]]]) + b2
        ntk = cov[0, 1] + w2 * slopes * ntk
    close(found.nngp[0, 0], cov[0, 1], rtol=1e-7)
    close(found.ntk[0, 0], ntk, rtol=1e-7)


def test_without_hidden_layers_is_the_inner_product():
    found = mlp_kernel(X, depth=0, weight_std=2.0, bias_std=0.5)
    close(found.nngp, 4 * X @ X.T / 3 + 0.25, rtol=1e-12)
    close(found.ntk, found.nngp, rtol=1e-12)


def test_diagonal_of_he_networks():
    """σ_w² = 2 keeps variances: nngp(x, x) = 2 |x|²/d at any depth L, and ntk(x, x) = (L + 1) ×."""
    norms = 2 * (X**2).sum(1) / 3
    for depth in (1, 2, 30):
        found = mlp_kernel(X, depth=depth)
        close(np.diag(found.nngp), norms, rtol=1e-12)
        close(np.diag(found.ntk), (depth + 1) * norms, rtol=1e-12)


@settings(deadline=None, max_examples=25)
@given(
    a=st.floats(0.01, 100),
    b=st.floats(0.01, 100),
    depth=st.integers(0, 5),
    parametrization=st.sampled_from([{}, {"parametrization": "standard", "width": 64}]),
)
def test_homogeneous_without_biases(a, b, depth, parametrization):
    kernel = partial(mlp_kernel, depth=depth, weight_std=1.2, **parametrization)
    scaled, plain = kernel(a * X, b * X[::-1]), kernel(X, X[::-1])
    close(scaled.nngp, a * b * plain.nngp, rtol=1e-6, atol=1e-9 * a * b)
    close(scaled.ntk, a * b * plain.ntk, rtol=1e-6, atol=1e-7 * a * b)


@pytest.mark.parametrize("bias_std", [None, 0.3])
def test_symmetric_positive_and_equal_on_parts(bias_std):
    x = np.random.default_rng(0).normal(size=(12, 5))
    found = mlp_kernel(x, depth=3, bias_std=bias_std)
    part = mlp_kernel(x[:4], x[4:], depth=3, bias_std=bias_std)
    for name in ("nngp", "ntk"):
        whole = getattr(found, name)
        close(whole, whole.T, rtol=1e-12)
        assert np.linalg.eigvalsh(whole).min() > 1e-6
        close(getattr(part, name), whole[:4, 4:], rtol=1e-12)


def test_zero_input_without_biases_is_zero():
    found = mlp_kernel(np.zeros((1, 3)), X, depth=2)
    for kernel in (found.nngp, found.ntk):
        np.testing.assert_array_equal(kernel, np.zeros((1, 3)))


WEIGHT_STD, BIAS_STD = 1.4, 0.3


def init(rng, width, depth, ntk):
    """Weights of unit variance in "ntk", of variance σ²/n in "standard"."""
    sizes = [3, *[width] * depth, 1]
    params = [(rng.normal(size=(n, m)), rng.normal(size=m)) for n, m in pairwise(sizes)]
    if ntk:
        return params
    return [(WEIGHT_STD / len(w) ** 0.5 * w, BIAS_STD * b) for w, b in params]


def apply(params, x, ntk):
    for layer, (w, b) in enumerate(params):
        x = jax.nn.relu(x) if layer else x
        x = WEIGHT_STD / len(w) ** 0.5 * (x @ w) + BIAS_STD * b if ntk else x @ w + b
    return x[0]


def forward(params):
    """As :func:`apply` in the "ntk" parametrization at all of X, without JAX: (3,)."""
    x = X
    for layer, (w, b) in enumerate(params):
        x = np.maximum(x, 0) if layer else x
        x = WEIGHT_STD / len(w) ** 0.5 * (x @ w) + BIAS_STD * b
    return x[:, 0]


def samples(width, depth, seeds, ntk=True):
    """Kernels at X of random networks, (seeds, 3, 3)."""

    @jax.jit
    def kernel(params):
        jacobian = jax.vmap(jax.grad(apply), (None, 0, None))(params, jnp.asarray(X), ntk)
        rows = [j.reshape(3, -1) for j in jax.tree.leaves(jacobian)]
        return sum(row @ row.T for row in rows)

    rng = np.random.default_rng(width)
    draws = (jax.tree.map(np.float32, init(rng, width, depth, ntk)) for _ in range(seeds))
    return np.array([kernel(params) for params in draws], np.float64)


class TestWideNetworks:
    def test_one_hidden_layer_within_standard_errors(self):
        """Unbiased at any width: units are independent."""
        drawn = samples(2048, 1, seeds=16)
        exact = mlp_kernel(X, depth=1, weight_std=WEIGHT_STD, bias_std=BIAS_STD).ntk
        error = drawn.std(0, ddof=1) / 4
        assert (np.abs(drawn.mean(0) - exact) < 4 * error).all()
        assert (error < 0.02 * np.abs(exact).max()).all()

    @pytest.mark.parametrize(
        ("depth", "ntk"), [(2, True), (2, False), (3, True)], ids=["ntk", "standard", "deeper"]
    )
    def test_deeper_within_standard_errors_and_one_over_width(self, depth, ntk):
        width = 256
        drawn = samples(width, depth, seeds=64, ntk=ntk)
        kind = {} if ntk else {"parametrization": "standard", "width": width}
        exact = mlp_kernel(X, depth=depth, weight_std=WEIGHT_STD, bias_std=BIAS_STD, **kind).ntk
        error = drawn.std(0, ddof=1) / 8
        allowed = 4 * error + 3 * depth / width * np.abs(exact).max()
        assert (np.abs(drawn.mean(0) - exact) < allowed).all()
        assert (allowed < 0.15 * np.abs(exact).max()).all()

    def test_error_falls_as_the_root_of_width(self):
        exact = mlp_kernel(X, depth=2, weight_std=WEIGHT_STD, bias_std=BIAS_STD).ntk
        widths = [32, 96, 288]
        errors = [np.sqrt(np.mean((samples(w, 2, seeds=64) - exact) ** 2)) for w in widths]
        slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
        assert -0.65 < slope < -0.35

    def test_outputs_have_the_nngp_covariance(self):
        rng = np.random.default_rng(0)
        outputs = np.array([forward(init(rng, 64, 2, True)) for _ in range(2000)])
        products = np.einsum("si,sj->sij", outputs, outputs)
        error = products.std(0, ddof=1) / np.sqrt(2000)
        exact = mlp_kernel(X, depth=2, weight_std=WEIGHT_STD, bias_std=BIAS_STD).nngp
        assert (np.abs(products.mean(0) - exact) < 4 * error).all()


def test_biases_at_zero_train_in_the_standard_parametrization_only():
    standard = partial(mlp_kernel, X, depth=0, parametrization="standard", width=1)
    close(standard(bias_std=0.0).ntk, standard().ntk + 1)
    close(mlp_kernel(X, depth=2, bias_std=0.0).ntk, mlp_kernel(X, depth=2).ntk, rtol=0)


def test_bad_input():
    with pytest.raises(ValueError, match=r"x1 has shape \(3,\)"):
        mlp_kernel(X[0], depth=1)
    with pytest.raises(ValueError, match="x1 has 3 features and x2 2"):
        mlp_kernel(X, X[:, :2], depth=1)
    with pytest.raises(ValueError, match="depth=-1"):
        mlp_kernel(X, depth=-1)
    with pytest.raises(ValueError, match="parametrization='mup'"):
        mlp_kernel(X, depth=1, parametrization="mup")
    with pytest.raises(ValueError, match="width=None"):
        mlp_kernel(X, depth=1, parametrization="standard")
    with pytest.raises(ValueError, match="width=8"):
        mlp_kernel(X, depth=1, width=8)

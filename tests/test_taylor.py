"""The expansion against closed forms, finite differences in float64, and its own algebra."""

from functools import partial

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from linearize import affine_terms, displaced, linearize, tangent, taylor_expand, tree

CLOSE = partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def mlp(params, x, xp=jnp):
    """Two layers, written once for JAX and once for NumPy's float64."""
    hidden = xp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"][None])
    return hidden @ params["out"]["kernel"]


def draw(shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def params0():
    return jax.tree.map(
        jnp.asarray,
        {
            "in": {"kernel": draw((3, 4), 0), "bias": draw(4, 1)},
            "out": {"kernel": draw((4, 2), 2)},
        },
    )


@pytest.fixture(scope="module")
def tau():
    shapes = {"in/kernel": (3, 4), "in/bias": (4,), "out/kernel": (4, 2)}
    return {n: jnp.asarray(draw(s, 10 + i)) for i, (n, s) in enumerate(shapes.items())}


X = jnp.asarray(draw((5, 3), 3))


def finite_difference(params, tau, x, h=1e-5):
    """d/dt f(θ0 + tτ) at t = 0 by central differences in float64, without JAX."""
    wide = {n: np.asarray(v, np.float64) for n, v in tree.flatten(params).items()}

    def at(t):
        moved = {n: v + t * np.asarray(tau.get(n, 0), np.float64) for n, v in wide.items()}
        nested = {"in": {}, "out": {}}
        for n, v in moved.items():
            nested[n.split("/")[0]][n.split("/")[1]] = v
        return mlp(nested, np.asarray(x, np.float64), np)

    return (at(h) - at(-h)) / (2 * h)


class TestDerivative:
    @pytest.mark.parametrize("method", ["auto", "jvp", "double_vjp"])
    def test_equals_finite_differences_in_float64(self, params0, tau, method):
        moved = tangent(mlp, method=method)(params0, tau, X) - mlp(params0, X)
        CLOSE(moved, finite_difference(params0, tau, X), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("pattern", ["in", "out", "bias", ["bias", "^out"]])
    def test_of_some_leaves_leaves_the_others_at_the_base(self, params0, tau, pattern):
        some = {n: tau[n] for n in tree.select(params0, pattern)}
        params = tree.add(params0, tau)
        f_lin = linearize(mlp, params0, trainable=pattern)
        expected = mlp(params0, X) + finite_difference(params0, some, X)
        CLOSE(f_lin(params, X), expected, rtol=1e-4, atol=1e-5)
        CLOSE(tangent(mlp)(params0, some, X), expected, rtol=1e-4, atol=1e-5)

    def test_gradient_is_the_transposed_dense_jacobian(self, params0, tau):
        """∇_τ of a linear functional of f_tan, against a Jacobian built column by column."""
        weight = draw((5, 2), 20)
        gradient = jax.grad(lambda t: jnp.vdot(weight, tangent(mlp)(params0, t, X)))(tau)
        for name, leaf in tau.items():
            for index in np.ndindex(*leaf.shape):
                unit = np.zeros(leaf.shape)
                unit[index] = 1
                column = finite_difference(params0, {name: unit}, X)
                CLOSE(gradient[name][index], np.sum(weight * column), rtol=2e-4, atol=2e-4)

    def test_accepts_a_tree_a_mapping_and_a_subset(self, params0, tau):
        as_tree = tree.update(params0, tau)
        CLOSE(tangent(mlp)(params0, as_tree, X), tangent(mlp)(params0, tau, X), atol=0, rtol=0)


numbers = st.floats(-2, 2, width=32)


class TestAffine:
    """f_lin is affine in θ, and equals f at θ0."""

    def test_equals_f_at_the_base(self, params0):
        np.testing.assert_array_equal(linearize(mlp, params0)(params0, X), mlp(params0, X))

    @settings(max_examples=25, deadline=None)
    @given(a=numbers, b=numbers, seed=st.integers(0, 10_000))
    def test_is_linear_in_tau(self, params0, a, b, seed):
        one, two = (tree.update(params0, self.random_like(params0, seed + k)) for k in (0, 1))
        both = jax.tree.map(lambda u, v: a * u + b * v, one, two)
        f0 = mlp(params0, X)
        linear = JITTED(params0, both, X) - f0
        parts = a * (JITTED(params0, one, X) - f0) + b * (JITTED(params0, two, X) - f0)
        CLOSE(linear, parts, rtol=1e-4, atol=2e-4)

    @settings(max_examples=15, deadline=None)
    @given(alphas=st.lists(numbers, min_size=1, max_size=3), seed=st.integers(0, 10_000))
    def test_terms_give_f_lin_at_any_coefficients(self, params0, alphas, seed):
        taus = [self.random_like(params0, seed + t) for t in range(len(alphas))]
        f0, jvps = affine_terms(mlp, params0, taus, X)
        params = params0
        for alpha, tau in zip(alphas, taus, strict=True):
            params = tree.add(params, tau, alpha)
        expected = linearize(mlp, params0)(params, X)
        CLOSE(f0 + np.tensordot(alphas, jvps, 1), expected, rtol=1e-4, atol=2e-4)

    def test_terms_take_vectors_of_different_leaves(self, params0, tau):
        taus = [{"in/bias": tau["in/bias"]}, {"out/kernel": tau["out/kernel"]}]
        f0, jvps = affine_terms(mlp, params0, taus, X)
        for t in (0, 1):
            CLOSE(f0 + jvps[t], tangent(mlp)(params0, taus[t], X))

    def test_terms_need_a_vector(self, params0):
        with pytest.raises(ValueError, match="taus is empty"):
            affine_terms(mlp, params0, [], X)

    @staticmethod
    def random_like(params0, seed):
        rng = np.random.default_rng(seed)
        return {
            n: jnp.asarray(rng.normal(size=leaf.shape).astype(np.float32))
            for n, leaf in tree.flatten(params0).items()
        }


JITTED = jax.jit(tangent(mlp))


def rich(params, batch):
    """Pytrees in and out, integers, a key, an auxiliary output."""
    noise = jax.random.normal(params["key"], (4,))
    hidden = jnp.sin(params["layers"][0] * batch["x"][0]) + noise
    out = {
        "logits": hidden * params["layers"][1],
        "parts": (hidden, [jnp.sum(hidden**2)]),
        "choice": jnp.argmax(hidden),
        "count": params["step"] + 1,
    }
    return out, {"seen": params["step"], "mean": hidden.mean()}


@pytest.fixture(scope="module")
def rich_params():
    return {
        "layers": [jnp.asarray(draw(4, 0)), jnp.asarray(draw(4, 1))],
        "step": jnp.array(7),
        "flag": jnp.array(True),
        "key": jax.random.key(3),
    }


class TestPytrees:
    BATCH = {"x": (jnp.asarray(draw(4, 2)), None)}

    @pytest.mark.parametrize("method", ["auto", "jvp", "double_vjp"])
    @pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
    def test_every_kind_of_leaf_and_output(self, rich_params, method, wrap):
        moved = {**rich_params, "layers": [2 * a for a in rich_params["layers"]]}
        moved["step"] = jnp.array(100)  # stays at 7 in the linearization
        f_lin = wrap(linearize(rich, rich_params, has_aux=True, method=method))
        out, aux = f_lin(moved, self.BATCH)

        w0, w1 = rich_params["layers"]
        x, noise = self.BATCH["x"][0], jax.random.normal(rich_params["key"], (4,))
        hidden, slope = jnp.sin(w0 * x) + noise, jnp.cos(w0 * x) * x * w0
        CLOSE(out["logits"], hidden * w1 + slope * w1 + hidden * w1)
        CLOSE(out["parts"][0], hidden + slope)
        CLOSE(out["parts"][1][0], jnp.sum(hidden**2) + 2 * jnp.sum(hidden * slope))
        assert out["choice"] == jnp.argmax(hidden)
        assert out["count"] == 8
        assert out["count"].dtype == rich_params["step"].dtype
        assert aux["seen"] == 7
        CLOSE(aux["mean"], hidden.mean())

    @pytest.mark.parametrize("method", ["jvp", "double_vjp"])
    def test_affine_terms_of_integers_are_zero(self, rich_params, method):
        taus = [{"layers/0": jnp.ones(4)}, {"layers/1": jnp.ones(4), "step": jnp.array(5)}]
        f0, jvps, aux = affine_terms(
            rich, rich_params, taus, self.BATCH, has_aux=True, method=method
        )
        assert f0["count"] == 8
        assert aux["seen"] == 7
        np.testing.assert_array_equal(jvps["count"], np.zeros(2))
        np.testing.assert_array_equal(jvps["choice"], np.zeros(2))
        both = tangent(rich, has_aux=True)(
            rich_params, {"layers/0": 0.5 * jnp.ones(4), "layers/1": -2 * jnp.ones(4)}, self.BATCH
        )[0]
        sums = jax.tree.map(lambda y, dy: y + np.tensordot([0.5, -2.0], dy, 1), f0, jvps)
        jax.tree.map(CLOSE, sums, both)

    def test_displaced_leaves_integers_alone(self, rich_params):
        tau = {"layers/0": jnp.ones(4), "step": jnp.array(5)}
        (out, _) = displaced(rich)(rich_params, tau, self.BATCH)
        expected = rich(
            {**rich_params, "layers": [rich_params["layers"][0] + 1, rich_params["layers"][1]]},
            self.BATCH,
        )
        jax.tree.map(CLOSE, out, expected[0])

    def test_other_names_are_one_error(self, params0, tau):
        wrong = {"in/kernal": tau["in/kernel"], "out/kernel": jnp.ones((2, 2))}
        for call in (
            lambda: tangent(mlp)(params0, wrong, X),
            lambda: displaced(mlp)(params0, wrong, X),
            lambda: affine_terms(mlp, params0, [tau, wrong], X),
        ):
            with pytest.raises(tree.StructureMismatch) as caught:
                call()
            assert "extra: in/kernal; did you mean 'in/kernel'?" in str(caught.value)
            assert "mis-shaped: out/kernel is (2, 2), expected (4, 2)" in str(caught.value)

    def test_unknown_method(self, params0, tau):
        with pytest.raises(ValueError, match="method='vjp' is not one of 'auto'"):
            tangent(mlp, method="vjp")(params0, tau, X)


class TestPrecision:
    def test_bfloat16_base_with_float32_tau(self):
        f = lambda p, x: p["w"] * x  # noqa: E731
        params0, tau = {"w": jnp.array([10.0], jnp.bfloat16)}, {"w": jnp.array([0.02])}
        x = jnp.ones(1, jnp.bfloat16)
        out = tangent(f)(params0, tau, x)
        assert out.dtype == jnp.float32
        CLOSE(out, [10.02], rtol=1e-5)  # bfloat16 would answer 10
        gradient = jax.grad(lambda t: tangent(f)(params0, t, x).sum())(tau)
        assert gradient["w"].dtype == jnp.float32
        f0, jvps = affine_terms(f, params0, [tau], x)
        assert f0.dtype == jvps.dtype == jnp.float32

    def test_mixed_dtypes_of_leaves(self):
        params0 = {"a": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(3, jnp.float16), "c": jnp.ones(3)}
        f = lambda p, x: (p["a"] * x).astype(jnp.float32) * p["b"] + p["c"]  # noqa: E731
        tau = tree.zeros(params0)
        assert all(t.dtype == jnp.float32 for t in tau.values())
        gradient = jax.grad(lambda t: tangent(f)(params0, t, 2.0).sum())(tau)
        for name, slope in {"a": 2.0, "b": 2.0, "c": 1.0}.items():
            CLOSE(gradient[name], np.full(3, slope))
            assert gradient[name].dtype == jnp.float32

    def test_complex_leaves(self):
        params0, tau = {"w": jnp.array([1 + 2j])}, {"w": jnp.array([0.5 - 1j])}
        f = lambda p: p["w"] ** 2  # noqa: E731
        for method in ("jvp", "double_vjp"):
            out = tangent(f, method=method)(params0, tau)
            CLOSE(out, params0["w"] ** 2 + 2 * params0["w"] * tau["w"])


# A model whose forward pass holds a custom_vjp, in a scan, under remat, inside jit; and its twin.


def attention(q, k, v):
    return jax.nn.softmax(q @ k.T / 2.0) @ v


fused = jax.custom_vjp(attention)
fused.defvjp(
    lambda q, k, v: jax.vjp(attention, q, k, v),
    lambda pullback, ct: pullback(ct),
)


def tower(kernel, params, x):
    @jax.checkpoint
    def block(x, w):
        return x + kernel(x @ w["q"], x @ w["k"], x @ w["v"]), None

    return jax.jit(lambda params, x: jax.lax.scan(block, x, params)[0])(params, x)


plain_tower, fused_tower = partial(tower, attention), partial(tower, fused)
T_PARAMS = {n: 0.5 * jnp.asarray(draw((2, 4, 4), i)) for i, n in enumerate("qkv")}
T_TAU = {n: 0.5 * jnp.asarray(draw((2, 4, 4), 5 + i)) for i, n in enumerate("qkv")}
T_X = jnp.asarray(draw((3, 4), 9))


def loss(out):
    return jnp.sum(jnp.sin(out))


CONTEXTS = {
    "eager": lambda f: tangent_of(f)(T_TAU),
    "jit": lambda f: jax.jit(tangent_of(f))(T_TAU),
    "grad": lambda f: jax.grad(lambda t: loss(tangent_of(f)(t)))(T_TAU),
    "jit of grad": lambda f: jax.jit(jax.grad(lambda t: loss(tangent_of(f)(t))))(T_TAU),
    "grad of remat": lambda f: jax.grad(lambda t: loss(jax.checkpoint(tangent_of(f))(t)))(T_TAU),
    "vmap over examples": lambda f: jax.vmap(tangent(f), (None, None, 0))(
        T_PARAMS, T_TAU, jnp.stack([T_X, 2 * T_X])
    ),
    "vmap over tau": lambda f: jax.vmap(tangent_of(f))(
        {n: jnp.stack([t, -t]) for n, t in T_TAU.items()}
    ),
    "scan over tau": lambda f: jax.lax.scan(
        lambda c, a: (c + a, tangent_of(f)({n: a * t for n, t in T_TAU.items()})),
        0.0,
        jnp.array([0.5, 2.0]),
    )[1],
    "gradient of inputs": lambda f: jax.grad(lambda x: loss(tangent(f)(T_PARAMS, T_TAU, x)))(T_X),
    "gradient of the base": lambda f: jax.grad(lambda p: loss(tangent(f)(p, T_TAU, T_X)))(T_PARAMS),
    "affine terms": lambda f: affine_terms(f, T_PARAMS, [T_TAU, T_PARAMS], T_X),
    "jit of affine terms": lambda f: jax.jit(
        lambda p, a, b, x: affine_terms(f, p, [a, b], x)
    )(T_PARAMS, T_TAU, T_PARAMS, T_X),
    "second order": lambda f: taylor_expand(f, T_PARAMS, 2)(tree.add(T_PARAMS, T_TAU), T_X),
}  # fmt: skip


def tangent_of(f):
    return lambda tau: tangent(f)(T_PARAMS, tau, T_X)


FAST = ("eager", "grad", "scan over tau", "affine terms")


class TestCustomVjp:
    @pytest.mark.parametrize(
        "context",
        [c if c in FAST else pytest.param(c, marks=pytest.mark.slow) for c in CONTEXTS],
    )
    def test_auto_equals_the_jvp_of_the_twin(self, context):
        compute = CONTEXTS[context]
        jax.tree.map(CLOSE, compute(fused_tower), compute(plain_tower))

    def test_by_argument(self):
        expected = tangent_of(plain_tower)(T_TAU)
        CLOSE(tangent(fused_tower, method="double_vjp")(T_PARAMS, T_TAU, T_X), expected)
        f_lin = linearize(fused_tower, T_PARAMS, method="double_vjp")
        CLOSE(f_lin(tree.add(T_PARAMS, T_TAU), T_X), expected, rtol=1e-4, atol=1e-4)

    def test_jvp_by_argument_is_refused_by_jax(self):
        with pytest.raises(TypeError, match="custom_vjp"):
            tangent(fused_tower, method="jvp")(T_PARAMS, T_TAU, T_X)

    def test_forward_mode_stays_where_the_custom_vjp_has_no_tangent(self):
        """A custom_vjp of data alone, or of untrained leaves, forbids nothing."""
        f = lambda p, x: p["w"] * fused(x, x, x) + fused(x, x, p["v"])  # noqa: E731
        x = T_X[:, :3]
        params0 = {"w": jnp.ones((3, 3)), "v": x}
        out = tangent(f, method="jvp")(params0, {"w": 2 * jnp.ones((3, 3))}, x)
        CLOSE(out, 4 * attention(x, x, x))

    def test_under_while_and_cond(self):
        def f(p, x):
            return jax.lax.cond(x.sum() > 0, lambda: fused(x, p, x), lambda: p)

        def twin(p, x):
            return jax.lax.cond(x.sum() > 0, lambda: attention(x, p, x), lambda: p)

        for x in (jnp.ones((3, 3)), -jnp.ones((3, 3))):
            args = (jnp.eye(3), jnp.asarray(draw((3, 3), 1)), x)
            CLOSE(jax.jit(tangent(f))(*args), tangent(twin)(*args))


class TestTransforms:
    @pytest.mark.slow(but=["jvp-dots", "double_vjp-none"])
    @pytest.mark.parametrize(
        "policy",
        [
            None,
            jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            jax.checkpoint_policies.everything_saveable,
        ],
        ids=["none", "dots", "everything"],
    )
    @pytest.mark.parametrize("method", ["jvp", "double_vjp"])
    def test_scan_over_rematerialised_blocks(self, policy, method):
        def block(x, w):
            return x + attention(x @ w["q"], x @ w["k"], x @ w["v"]), None

        def f(params, x):
            return jax.lax.scan(jax.checkpoint(block, policy=policy), x, params)[0]

        value, gradient = jax.value_and_grad(
            lambda t: loss(tangent(f, method=method)(T_PARAMS, t, T_X))
        )(T_TAU)
        expected = jax.value_and_grad(lambda t: loss(tangent_of(plain_tower)(t)))(T_TAU)
        jax.tree.map(CLOSE, (value, gradient), expected)

    def test_grad_of_vmap_of_scan(self, params0, tau):
        """Per-example gradients inside a scan, against a Python loop."""

        def step(t, x):
            g = jax.grad(lambda t: jnp.sum(tangent(mlp)(params0, t, x[None]) ** 2))(t)
            return jax.tree.map(lambda a, b: a - 0.01 * b, t, g), g

        _, scanned = jax.lax.scan(step, tau, X)
        t = tau
        for i, x in enumerate(X):
            t, g = step(t, x)
            jax.tree.map(CLOSE, jax.tree.map(lambda a, i=i: a[i], scanned), g)


class TestTaylorExpand:
    @pytest.mark.parametrize("order", range(6))
    def test_polynomial_is_truncated_exactly(self, order):
        """(1 + d)^4 = Σ binomial(4, k) d^k."""
        f_k = taylor_expand(lambda p, x: p["w"] ** 4 * x, {"w": jnp.ones(2)}, order)
        d = np.array([0.5, -1.5])
        expected = sum(c * d**k for k, c in enumerate([1, 4, 6, 4, 1][: order + 1]))
        CLOSE(f_k({"w": jnp.asarray(1 + d, jnp.float32)}, 2.0), 2 * expected)

    def test_exponential_of_several_leaves(self):
        """e^(a+b) at 0 along (da, db): Σ (da + db)^k / k!."""
        f = lambda p: {"y": jnp.exp(p["a"] + p["b"])}  # noqa: E731
        f_3 = taylor_expand(f, {"a": 0.0, "b": 0.0}, order=3)
        s = 0.7 - 0.2
        CLOSE(f_3({"a": 0.7, "b": -0.2})["y"], 1 + s + s**2 / 2 + s**3 / 6)

    def test_first_order_is_linearize(self, params0, tau):
        params = tree.add(params0, tau)
        for pattern in (None, "in"):
            CLOSE(
                taylor_expand(mlp, params0, 1, trainable=pattern)(params, X),
                linearize(mlp, params0, trainable=pattern)(params, X),
            )

    def test_error_falls_with_the_power_of_the_step(self, params0, tau):
        def error(order, t):
            params = tree.add(params0, tau, t)
            return float(
                jnp.abs(taylor_expand(mlp, params0, order)(params, X) - mlp(params, X)).max()
            )

        for order in (1, 2):
            ratio = error(order, 0.2) / error(order, 0.1)
            assert 2 ** (order + 0.5) < ratio < 2 ** (order + 1.5)

    @pytest.mark.parametrize("method", ["auto", "double_vjp"])
    def test_integers_and_aux(self, rich_params, method):
        moved = {**rich_params, "layers": [2 * a for a in rich_params["layers"]]}
        f_2 = taylor_expand(rich, rich_params, 2, has_aux=True, method=method)
        out, aux = jax.jit(f_2)(moved, TestPytrees.BATCH)
        assert out["count"] == 8
        assert aux["seen"] == 7
        w0, x = rich_params["layers"][0], TestPytrees.BATCH["x"][0]
        noise = jax.random.normal(rich_params["key"], (4,))
        u = w0 * x  # along w0: sin(u + t u)
        CLOSE(out["parts"][0], jnp.sin(u) + noise + u * jnp.cos(u) - u**2 * jnp.sin(u) / 2)

    @pytest.mark.parametrize("order", [-1, 1.5])
    def test_an_order_that_is_none(self, params0, order):
        with pytest.raises(ValueError, match=f"order={order}; expected an integer, 0 or more"):
            taylor_expand(mlp, params0, order)

    def test_vectors_without_a_leaf_that_moves_change_nothing(self):
        f = lambda params, x: params["w"] * x * params["n"]  # noqa: E731
        out, moved = affine_terms(f, {"w": 2.0, "n": 3}, [{"n": 5}, {}], jnp.ones(2))
        CLOSE(out, np.full(2, 6.0))
        CLOSE(moved, np.zeros((2, 2)))

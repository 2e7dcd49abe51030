"""Counted operations: against hand counts, against XLA, and the price of the linear regime."""

import jax
import jax.numpy as jnp
import pytest

from linearize import affine_terms, displaced, tangent, tree
from linearize.cost import count_flops, equations


def spec(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def xla(f, *args):
    return jax.jit(f).lower(*args).compile().cost_analysis()["flops"]


class TestCount:
    def test_matrix_product(self):
        assert count_flops(lambda x, w: x @ w, spec(8, 3), spec(3, 5)) == 2 * 8 * 3 * 5

    def test_batched_contraction_of_several_axes(self):
        f = lambda x, w: jnp.einsum("bijk,bjkl->bil", x, w)  # noqa: E731
        assert count_flops(f, spec(7, 2, 3, 4), spec(7, 3, 4, 5)) == 2 * 7 * 2 * 3 * 4 * 5

    @pytest.mark.parametrize(
        ("strides", "padding", "dilation", "groups"),
        [
            ((1, 1), "VALID", (1, 1), 1),
            ((2, 1), "SAME", (1, 2), 3),
            ((2, 2), ((3, 0), (1, 2)), (1, 1), 6),
        ],
    )
    def test_convolution_and_its_gradients_as_xla_counts_them(
        self, strides, padding, dilation, groups
    ):
        def f(w, x):
            return jax.lax.conv_general_dilated(
                x,
                w,
                strides,
                padding,
                rhs_dilation=dilation,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=groups,
            )

        w, x = spec(3, 2, 6 // groups, 12), spec(4, 9, 8, 6)
        forward = count_flops(f, w, x)
        assert forward == xla(f, w, x)
        ct = jax.eval_shape(f, w, x)
        for which in (0, 1):
            gradient = lambda w, x, ct, k=which: jax.vjp(f, w, x)[1](ct)[k]  # noqa: E731
            assert count_flops(gradient, w, x, ct) == forward

    def test_loops_and_wrappers(self):
        w, x = spec(4, 4), spec(3, 4)
        one = 2 * 3 * 4 * 4

        @jax.custom_jvp
        def custom(x, w):
            return x @ w

        custom.defjvp(lambda p, t: (custom(*p), t[0] @ p[1] + p[0] @ t[1]))
        fused = jax.custom_vjp(lambda x, w: x @ w)
        fused.defvjp(lambda x, w: (fused(x, w), (x, w)), lambda r, g: (g @ r[1].T, r[0].T @ g))
        programs = {
            "jit": (lambda x, w: jax.jit(jnp.matmul)(x, w), one),
            "remat": (lambda x, w: jax.checkpoint(jnp.matmul)(x, w), one),
            "custom_jvp": (custom, one),
            "custom_vjp": (fused, one),
            "scan": (
                lambda x, w: jax.lax.scan(lambda c, _: (c @ w, None), x, length=5)[0],
                5 * one,
            ),
            "nested scan": (
                lambda x, w: jax.lax.scan(
                    lambda c, _: jax.lax.scan(lambda d, _: (d @ w, None), c, length=3), x, length=5
                )[0],
                15 * one,
            ),
            "map": (lambda x, w: jax.lax.map(lambda row: row @ w, x), one),
            "while, once": (
                lambda x, w: jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: c @ w, x),
                one,
            ),
            "cond, dearest": (
                lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w),
                2 * one,
            ),
            "unused": (lambda x, w: (x @ w, x @ w @ w)[0], one),
        }
        for name, (f, expected) in programs.items():
            assert count_flops(f, x, w) == expected, name

    def test_gradient_of_a_matrix_product(self):
        f = lambda x, w: (x @ w).sum()  # noqa: E731
        both = jax.grad(f, (0, 1))
        assert count_flops(both, spec(8, 3), spec(3, 5)) == 2 * (2 * 8 * 3 * 5)

    def test_equations_reach_every_level(self):
        def f(x):
            body = jax.checkpoint(lambda c, _: (jnp.sin(c), None))
            return jax.lax.cond(
                True, lambda: jax.lax.scan(body, x, length=2)[0], lambda: jax.jit(jnp.cos)(x)
            )

        names = [e.primitive.name for e in equations(jax.make_jaxpr(f)(1.0).jaxpr)]
        assert {"cond", "scan", "sin", "cos"} <= set(names)
        assert "exp" not in names


# The ViT of NUMERICS.md: width 192, 6 blocks, 64 tokens, batch 64. Nothing here is ever run.

WIDTH, DEPTH, TOKENS, BATCH, HEADS, PATCH = 192, 6, 64, 64, 3, 48


def norm(x, scale):
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def block(x, p):
    b, n, d = x.shape
    q, k, v = (
        (norm(x, p["norm1"]) @ p["attn"]["qkv"] + p["attn"]["qkv_bias"])
        .reshape(b, n, 3, HEADS, -1)
        .transpose(2, 0, 3, 1, 4)
    )
    weights = jax.nn.softmax(q @ k.swapaxes(-1, -2) / (d // HEADS) ** 0.5)
    x = x + (weights @ v).transpose(0, 2, 1, 3).reshape(b, n, d) @ p["attn"]["out"]
    hidden = jax.nn.gelu(norm(x, p["norm2"]) @ p["mlp"]["up"] + p["mlp"]["up_bias"])
    return x + hidden @ p["mlp"]["down"]


def block_params(*lead):
    d = WIDTH
    shapes = {
        "norm1": (d,),
        "norm2": (d,),
        "attn": {"qkv": (d, 3 * d), "qkv_bias": (3 * d,), "out": (d, d)},
        "mlp": {"up": (d, 4 * d), "up_bias": (4 * d,), "down": (4 * d, d)},
    }
    return jax.tree.map(lambda s: spec(*lead, *s), shapes, is_leaf=lambda s: isinstance(s, tuple))


@pytest.fixture(autouse=True)
def _ranks():
    with jax.numpy_rank_promotion("allow"):
        yield


def unrolled(params, x):
    x = x @ params["embed"]
    for p in params["blocks"]:
        x = block(x, p)
    return x.mean(1)


def scanned(params, x, remat=False, policy=None):
    step = jax.checkpoint(block, policy=policy) if remat else block
    x, _ = jax.lax.scan(lambda x, p: (step(x, p), None), x @ params["embed"], params["blocks"])
    return x.mean(1)


UNROLLED = {"embed": spec(PATCH, WIDTH), "blocks": [block_params() for _ in range(DEPTH)]}
SCANNED = {"embed": spec(PATCH, WIDTH), "blocks": block_params(DEPTH)}
X = spec(BATCH, TOKENS, PATCH)


def specs(params, pattern=None):
    return jax.eval_shape(lambda p: tree.zeros(p, pattern), params)


def price(step, f, params, pattern=None):
    """Operations of the gradient with respect to τ, in forward passes."""
    gradient = jax.grad(lambda tau, p, x: jnp.sum(step(p, tau, x) ** 2))
    return count_flops(gradient, specs(params, pattern), params, X) / count_flops(f, params, X)


class TestPrice:
    """The table of NUMERICS.md; F is one forward pass."""

    def test_ordinary_gradient(self):
        assert 2.97 < price(displaced(unrolled), unrolled, UNROLLED) <= 3.0

    @pytest.mark.slow(
        but=["unrolled-params0-jvp", "scanned-params1-double_vjp", "scanned-params1-auto"]
    )
    @pytest.mark.parametrize("method", ["auto", "jvp", "double_vjp"])
    @pytest.mark.parametrize(("f", "params"), [(unrolled, UNROLLED), (scanned, SCANNED)])
    def test_linearized_gradient(self, f, params, method):
        assert 4.9 < price(tangent(f, method=method), f, params) <= 5.1

    def test_differentiating_the_base_too_would_show(self):
        both = jax.grad(
            lambda tau, p, x: jnp.sum(tangent(unrolled)(p, tau, x) ** 2), argnums=(0, 1)
        )
        flops = count_flops(both, specs(UNROLLED), UNROLLED, X)
        assert flops / count_flops(unrolled, UNROLLED, X) > 8

    @pytest.mark.parametrize("method", ["jvp", "double_vjp"])
    @pytest.mark.parametrize("tasks", [1, 4, 8])
    def test_affine_terms_share_the_primal(self, tasks, method):
        terms = lambda p, taus, x: affine_terms(unrolled, p, taus, x, method=method)  # noqa: E731
        flops = count_flops(terms, UNROLLED, [specs(UNROLLED)] * tasks, X)
        assert flops / count_flops(unrolled, UNROLLED, X) <= (1 + 2 * tasks) * 1.02

    @pytest.mark.parametrize(
        ("pattern", "linear", "ordinary"),
        [
            ("attn", 3.65, 2.32),
            ("qkv", 3.49, 2.25),
            ("bias|norm", 3.10, 2.05),
            (r"blocks/[45]/", 2.33, 1.66),
        ],
    )
    def test_untrained_leaves_cost_no_tangent(self, pattern, linear, ordinary):
        """Prices of NUMERICS.md, measured there on another ViT of the same size."""
        assert price(tangent(unrolled), unrolled, UNROLLED, pattern) <= linear + 0.01
        assert price(displaced(unrolled), unrolled, UNROLLED, pattern) <= ordinary + 0.01

    @pytest.mark.parametrize(
        ("policy", "most"),
        [(None, 5.75), (jax.checkpoint_policies.dots_with_no_batch_dims_saveable, 5.1)],
    )
    def test_rematerialised_scan(self, policy, most):
        f = lambda p, x: scanned(p, x, remat=True, policy=policy)  # noqa: E731
        assert price(tangent(f), f, SCANNED) <= most

    def test_a_custom_vjp_costs_no_more(self):
        softmax = jax.custom_vjp(lambda s: jax.nn.softmax(s))
        softmax.defvjp(lambda s: jax.vjp(jax.nn.softmax, s), lambda pullback, ct: pullback(ct))

        def f(params, x):
            for p in params["blocks"]:
                q = x @ p["attn"]["out"]
                x = x + softmax(q @ x.swapaxes(-1, -2)) @ x @ p["attn"]["out"]
            return x

        params = {"blocks": UNROLLED["blocks"]}
        tau = specs(params, "attn/out")
        gradient = jax.grad(lambda t, p, x: jnp.sum(tangent(f)(p, t, x) ** 2))
        x = spec(BATCH, TOKENS, WIDTH)
        assert count_flops(gradient, tau, params, x) / count_flops(f, params, x) <= 5.1

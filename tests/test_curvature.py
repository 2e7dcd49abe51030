"""Kronecker factors by layer: where they are exact, against Jacobians; elsewhere against loops."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import linearize as lz
from linearize import tree
from linearize.compiled import jit
from linearize.curvature import measure
from linearize.curvature.blocks import Kronecker


@pytest.fixture(autouse=True)
def wide():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape)


def doubled(params):
    return jax.tree.map(lambda x: jnp.asarray(normal(*x.shape, seed=7) / 2), params)


class Normed(nn.Module):
    """Every layer meets one row an example."""

    @nn.compact
    def __call__(self, ids):
        x = nn.Embed(5, 4, param_dtype=float)(ids)
        x = nn.LayerNorm(param_dtype=float)(x)
        x = jnp.tanh(nn.Dense(3, param_dtype=float)(x)).reshape(-1, 3, 1)
        return nn.Conv(2, (3,), padding="VALID", param_dtype=float)(x)[:, 0]


class Deep(nn.Module):
    """Scanned and recomputed blocks."""

    @nn.compact
    def __call__(self, x):
        class Step(nn.Module):
            @nn.compact
            def __call__(self, x, _):
                y = nn.LayerNorm(param_dtype=float)(x)
                return x + jnp.tanh(nn.Dense(3, param_dtype=float)(y)), None

        scanned = nn.scan(
            nn.remat(Step), variable_axes={"params": 0}, split_rngs={"params": True}, length=2
        )
        return scanned()(x, None)[0]


class Own(nnx.Module):
    def __init__(self):
        given = {"rngs": nnx.Rngs(0), "param_dtype": jnp.float64}
        self.norm, self.up = nnx.LayerNorm(3, **given), nnx.Linear(3, 4, **given)
        self.heads = nnx.LinearGeneral(4, (2, 2), **given)
        self.down = nnx.LinearGeneral((2, 2), 3, axis=(-2, -1), **given)

    def __call__(self, x):
        return self.down(jnp.tanh(self.heads(jnp.tanh(self.up(self.norm(x))))))


def transposed(params, x):
    y = jnp.tanh(x @ params["a"].T + params["c"][None])
    return jnp.einsum("hdo,bo->bhd", params["b"].reshape(2, 2, 4), y).reshape(-1, 4)


def of_linen(module, x):
    f, params = lz.from_linen(module, module.init(jax.random.key(0), x))
    return f, doubled(params), x


def of_nnx(module, x):
    f, params = lz.from_nnx(module)
    return f, doubled(params), x


ONE_ROW = {
    "linen": lambda: of_linen(Normed(), np.array([3])),
    "scan": lambda: of_linen(Deep(), normal(1, 3)),
    "nnx": lambda: of_nnx(Own(), normal(1, 3)),
    "plain": lambda: (
        transposed,
        {"a": normal(4, 3), "b": normal(4, 4), "c": normal(4)},
        normal(1, 3),
    ),
}
LAYERS = {
    "linen": ({"Embed_0/embedding"}, {"Dense_0/kernel", "Conv_0/kernel"}),
    "scan": (set(), {"Step_0/Dense_0/kernel"}),
    "nnx": (set(), {"up/kernel", "heads/kernel", "down/kernel"}),
    "plain": (set(), {"a", "b"}),
}


def unit(f):
    return lambda params, *x: (lambda y: y / jnp.linalg.norm(y, axis=-1, keepdims=True))(
        f(params, *x)
    )


def response(f, params, tau, *x):
    """Mean ‖J(x)τ‖² over examples."""
    moved = lz.affine_terms(f, params, [tau], *x)[1][0]
    return float((moved**2).sum() / len(moved))


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize("case", ONE_ROW)
def test_of_one_row_of_one_example_each_block_is_exact(case, normalized):
    f, params, x = ONE_ROW[case]()
    card = measure(f, params, x, normalized=normalized, probes=None)
    g = unit(f) if normalized else f
    assert set(card.leaves) == set(tree.names(params))
    looked_up, weighed = LAYERS[case]
    kinds = {
        block.layout.weight: (block.a.ndim, block.layout.bias)
        for block in card.blocks
        if isinstance(block, Kronecker)
    }
    assert set(kinds) == looked_up | weighed
    assert {n for n, (ndim, _) in kinds.items() if ndim == 2} == looked_up
    base = tree.flatten(params)
    for block in card.blocks:
        tau = {n: jnp.asarray(normal(*base[n].shape, seed=3)) for n in block.leaves}
        slices = range(base[block.leaves[0]].shape[0]) if case == "scan" else [...]
        total = 0.0
        for at in slices:  # of a scan, each slice is a layer
            one = {n: jnp.zeros_like(t).at[at].set(t[at]) for n, t in tau.items()}
            exact = response(g, params, one, x)
            np.testing.assert_allclose(card.value(one), exact, rtol=1e-9)
            total += exact
        np.testing.assert_allclose(card.value(tau), total, rtol=1e-9)


def test_biases_are_folded_in():
    f, params, x = ONE_ROW["nnx"]()
    blocks = {b.leaves: b for b in measure(f, params, x).blocks}
    assert blocks["heads/kernel", "heads/bias"].a.shape == (1, 5, 5)
    assert ("norm/bias",) in blocks


# --- several rows and examples: explicit loops over rows of dense derivatives


def top(h):
    return jnp.tanh(h).sum(0) ** 2


def dense(params, x):  # (N, T, K)
    return jax.vmap(lambda x: top(x @ params["w"] + params["b"]))(x)


def looked_up(params, ids):
    return jax.vmap(lambda i: top(params["w"][i]))(ids)


def convolved(params, x):  # (N, L, C)
    z = jax.lax.conv_general_dilated(
        x, params["w"], (2,), [(1, 0)], dimension_numbers=("NLC", "LIO", "NLC")
    )
    return jax.vmap(top)(z + params["b"])


def shared(params, x):
    return jax.vmap(lambda x: top(jnp.tanh(x @ params["w"]) @ params["w"]))(x)


def recurrent(params, x):
    step = lambda h, _: (jnp.tanh(h @ params["w"]), None)  # noqa: E731
    return jax.vmap(lambda x: top(jax.lax.scan(step, x, None, length=2)[0]))(x)


def rows_of(case, params, x):
    """Of one example: rows a, and what comes of displacements of each row's z."""
    w, b = params["w"], params.get("b", 0)
    if case == "dense":
        return x, lambda d: top(x @ w + b + d)
    if case == "looked_up":
        return np.eye(len(w))[x], lambda d: top(w[x] + d)
    if case == "convolved":
        padded = np.concatenate([np.zeros((1, x.shape[1])), x])
        a = np.stack([padded[2 * i : 2 * i + 3].ravel() for i in range(len(x) // 2)])
        return a, lambda d: top(a @ w.reshape(-1, w.shape[-1]) + b + d)
    h = np.tanh(x @ w)
    a = np.concatenate([x, h])
    last = jnp.tanh if case == "recurrent" else lambda z: z
    T = len(x)
    return a, lambda d: top(last(jnp.tanh(x @ w + d[:T]) @ w + d[T:]))


SEVERAL = {
    "dense": (dense, {"w": normal(2, 3), "b": normal(3)}, normal(3, 4, 2)),
    "looked_up": (looked_up, {"w": normal(5, 2)}, np.array([[0, 3, 3], [1, 0, 2], [4, 4, 4]])),
    "convolved": (convolved, {"w": normal(3, 2, 3), "b": normal(3)}, normal(3, 6, 2)),
    "shared": (shared, {"w": normal(3, 3)}, normal(3, 2, 3)),
    "recurrent": (recurrent, {"w": normal(3, 3)}, normal(3, 2, 3)),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_factors_are_means_over_rows_and_sums_of_outer_products(case):
    f, params, x = SEVERAL[case]
    card = measure(f, params, x, normalized=False, probes=None, batch_size=2)
    (block,) = card.blocks
    A, B = 0, 0
    M = params["w"].shape[-1]
    for example in x:
        a, of = rows_of(case, params, example)
        jac = np.asarray(jax.jacrev(of)(jnp.zeros((len(a), M))))  # (C, T, M)
        ones = np.ones((len(a), 1 if "b" in params else 0))
        a = np.concatenate([a, ones], axis=1)
        A = A + a.T @ a / len(a) / len(x)
        B = B + np.einsum("ctm,ctn->mn", jac, jac) / len(x)
    found = np.asarray(block.a[0])
    np.testing.assert_allclose(np.diag(found) if found.ndim == 1 else found, A, rtol=1e-9)
    np.testing.assert_allclose(block.b[0], B, rtol=1e-9)
    tau = {n: jnp.asarray(normal(*p.shape, seed=5)) for n, p in params.items()}
    W = np.concatenate([t.reshape(-1, M) for t in tau.values()][::-1])
    np.testing.assert_allclose(card.value(tau), np.trace(B @ W.T @ A @ W), rtol=1e-9)

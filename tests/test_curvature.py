"""Kronecker factors by layer: where they are exact, against Jacobians; elsewhere against loops."""

from functools import partial

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

import linearize as lz
from linearize import curvature, train, tree
from linearize.cost import count_flops
from linearize.curvature import Card, NotSemidefiniteError, measure, merge
from linearize.curvature.blocks import Dense, Kronecker, Layout
from linearize.curvature.measure import _groups, _sums
from linearize.data import split_task
from linearize.disentangle import interference
from linearize.io import CorruptFileError
from linearize.methods import METHODS, delta, tak
from linearize.ntk.layers import trace_uses
from linearize.ntk.pointwise import Pointwise
from linearize.objectives import Classify
from linearize.tree import NonFiniteError, StructureMismatch

pytestmark = pytest.mark.usefixtures("quick_compilation")


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
        return scanned(name="steps")(x, None)[0]


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
    "scan": (set(), {"steps/Dense_0/kernel"}),
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "normalized"),
    [("linen", True), ("scan", False), ("nnx", True), ("plain", False)],
)
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


@pytest.mark.slow
def test_biases_are_folded_in():
    f, params, x = ONE_ROW["nnx"]()
    blocks = {b.leaves: b for b in measure(f, params, x).blocks}
    assert blocks["heads/kernel", "heads/bias"].a.shape == (1, 5, 5)
    assert ("norm/bias",) in blocks


# --- several rows and examples: explicit loops over rows of dense derivatives


def top(h):
    return jnp.tanh(h).sum(0) ** 2


def dense(params, x):  # (N, T, K)
    return jax.vmap(lambda x: top(x @ params["w"] + params["b"][None]))(x)


def looked_up(params, ids):
    return jax.vmap(lambda i: top(params["w"][i]))(ids)


def convolved(params, x):  # (N, L, C)
    z = jax.lax.conv_general_dilated(
        x, params["w"], (2,), [(1, 0)], dimension_numbers=("NLC", "LIO", "NLC")
    )
    return jax.vmap(top)(z + params["b"][None, None])


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


@pytest.mark.slow(but=["dense"])
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
    W = np.concatenate([t.reshape(-1, M) for t in tau.values()])
    np.testing.assert_allclose(card.value(tau), np.trace(B @ W.T @ A @ W), rtol=1e-9)


def padded(params, ids):
    looked = params["w"].at[ids].get(mode="fill", fill_value=0)
    return jax.vmap(top)(looked)


def test_padding_out_of_the_vocabulary_is_no_row():
    w, ids = normal(5, 2), np.array([[0, 3, 5], [1, 5, -9]])
    card = measure(padded, {"w": w}, ids, normalized=False, probes=None)
    (block,) = card.blocks
    np.testing.assert_allclose(block.a[0], np.array([1, 1, 0, 1, 0]) / 3, rtol=1e-9)
    B = 0
    for tokens in (w[[0, 3]], w[[1]]):  # rows of zeros add nothing to what top sums
        jac = np.asarray(jax.jacrev(top)(tokens))
        B = B + np.einsum("ctm,ctn->mn", jac, jac) / 2
    np.testing.assert_allclose(block.b[0], B, rtol=1e-9)
    last = {"w": jnp.zeros((5, 2)).at[4].set(1.0)}
    assert card.value(last) == response(padded, {"w": w}, last, ids) == 0


def packed(params, x):  # (N, T, 2): a kernel of two heads' queries, keys and values
    z = (x @ params["w"] + params["b"][None, None]).reshape(*x.shape[:2], 3, 2, 2)
    return attended(z[:, :, 0], z[:, :, 1], z[:, :, 2])


def apart(params, x):
    z = (x @ params[f"w{i}"] + params[f"b{i}"][None, None] for i in range(3))
    return attended(*(each.reshape(*x.shape[:2], 2, 2) for each in z))


def attended(q, k, v):
    weights = jax.nn.softmax(jnp.einsum("nthd,nshd->nhts", q, k))
    return jnp.einsum("nhts,nshd->nhd", weights, v).reshape(len(q), -1)


def gated(params, x):
    gate, value = jnp.split(x @ params["w"], 2, axis=-1)
    return (jax.nn.silu(gate) * value).sum(1)


@pytest.mark.slow
def test_layers_of_one_kernel_have_the_blocks_that_they_have_apart():
    w, b, x = normal(2, 12), normal(12), normal(3, 4, 2)
    split = {f"w{i}": each for i, each in enumerate(np.split(w, 3, 1))}
    split |= {f"b{i}": each for i, each in enumerate(np.split(b, 3))}
    one = measure(packed, {"w": w, "b": b}, x, seed=2)
    three = measure(apart, split, x, seed=2)
    (block,) = one.blocks
    assert block.b.shape == (1, 3, 4, 4)
    for i, each in enumerate(sorted(three.blocks, key=lambda each: each.leaves)):
        np.testing.assert_allclose(block.a, each.a, rtol=1e-9)
        np.testing.assert_allclose(block.b[:, i], each.b, rtol=1e-9)
    (block,) = measure(gated, {"w": normal(2, 6)}, x).blocks
    assert block.b.shape == (1, 2, 3, 3)
    halves = measure(packed, {"w": w, "b": b}, x, parts=2, seed=2).blocks[0]
    np.testing.assert_allclose(halves.b[:, 2], one.blocks[0].b[:, 1, :2, :2], rtol=1e-9)


@pytest.mark.slow
def test_a_tied_embedding_has_a_block_for_each_of_its_ways():
    ids, w = np.array([2]), jnp.asarray(normal(4, 3))
    f = lambda p, i: jnp.tanh(p["w"][i]) @ p["w"].T  # noqa: E731
    card = measure(f, {"w": w}, ids, normalized=False, probes=None)
    tau = {"w": jnp.asarray(normal(4, 3, seed=2))}
    assert len(card.blocks) == 2
    looked = jax.jvp(lambda v: jnp.tanh(v[ids]) @ w.T, (w,), (tau["w"],))[1]
    read = jax.jvp(lambda v: jnp.tanh(w[ids]) @ v.T, (w,), (tau["w"],))[1]
    np.testing.assert_allclose(card.value(tau), (looked**2).sum() + (read**2).sum(), rtol=1e-9)


@pytest.mark.slow
def test_probes_are_unbiased_and_one_has_rank_one():
    f, params, x = SEVERAL["dense"]
    (exact,), (one,), (many,) = (
        measure(f, params, x[:1, :1], normalized=False, probes=probes, seed=3).blocks
        for probes in (None, 1, 4000)
    )
    B, found = np.asarray(exact.b[0]), np.asarray(many.b[0])
    deviation = np.sqrt((np.outer(np.diag(B), np.diag(B)) + B**2) / 4000)
    assert (np.abs(found - B) < 5 * deviation).all()
    assert np.linalg.matrix_rank(one.b[0], tol=1e-9) == 1


def card(seed=0, **options):
    f, params, x = SEVERAL["dense"]
    x = normal(3, 4, 2, seed=seed)
    return measure(f, params, x, **{"probes": None, **options}), params


def semidefinite(*shape):
    root = normal(*shape)
    return jnp.asarray(root @ root.swapaxes(-1, -2))


def test_the_form_is_differentiated_at_the_price_of_its_value_and_twice():
    layout = Layout("w", (2, 3), 0, (), 2, 3, "b", (3,))
    blocks = (
        Kronecker(semidefinite(1, 3, 3), semidefinite(1, 3, 3), layout),
        Dense(semidefinite(2, 2, 2), "norms", (2, 2)),
    )
    tau = {n: jnp.asarray(normal(*shape)) for b in blocks for n, shape in b.shapes.items()}
    flat, unravel = jax.flatten_util.ravel_pytree(tau)
    value = lambda t: Card(blocks).value(unravel(t))  # noqa: E731
    G = jax.hessian(value)(flat) / 2
    np.testing.assert_allclose(value(flat), flat @ G @ flat, rtol=1e-9)
    np.testing.assert_allclose(jax.grad(value)(flat), 2 * G @ flat, rtol=1e-9)
    np.testing.assert_array_equal(jax.grad(value)(jnp.zeros_like(flat)), 0)
    both = count_flops(jax.value_and_grad(value), flat)
    assert both <= 1.1 * count_flops(value, flat) + 4 * flat.size


@pytest.mark.slow
def test_merged_cards_sum_b_and_average_a():
    cards = [card(seed)[0] for seed in (1, 2)]
    (one,), (two,), (both,) = (c.blocks for c in (*cards, merge(cards)))
    np.testing.assert_allclose(both.a, (one.a + two.a) / 2)
    np.testing.assert_allclose(both.b, one.b + two.b)
    with pytest.raises(ValueError, match=r"cards\[1\] is of features with normalized=False"):
        merge([cards[0], card(normalized=False)[0]])
    f, params, x = SEVERAL["dense"]
    moved = measure(f, {**params, "b": params["b"] + 1}, x)
    with pytest.raises(StructureMismatch, match="another base model"):
        merge([cards[0], moved])
    fewer = measure(f, params, x, trainable="w")
    with pytest.raises(StructureMismatch, match="missing: 0, w and b"):
        merge([cards[0], fewer])
    with pytest.raises(ValueError, match="cards is empty"):
        merge([])


def test_a_card_comes_back_whole_and_knows_its_base(tmp_path):
    f, params, x = SEVERAL["dense"]
    made = measure(f, params, x, probes=None, meta={"task": "one"})
    read = Card.load(made.save(tmp_path / "one.safetensors"), params)
    assert read.meta["task"] == "one"
    assert read.normalized is True
    assert jax.tree.structure(read.blocks) == jax.tree.structure(made.blocks)
    jax.tree.map(np.testing.assert_array_equal, read.blocks, made.blocks)
    other = jax.tree.map(lambda leaf: leaf + 1, params)
    with pytest.raises(StructureMismatch, match="another base model"):
        Card.load(tmp_path / "one.safetensors", other)
    with pytest.raises(StructureMismatch, match="missing: w2"):
        read.check(params, ["w2"])
    with pytest.raises(ValueError, match="says nothing of strange"):
        read.value({"strange": jnp.ones(2)})
    path = lz.TaskVector({"w": jnp.ones(2)}).save(tmp_path / "tau.safetensors")
    with pytest.raises(CorruptFileError, match="no curvature card"):
        Card.load(path)


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        (np.diag([1.0, -0.5]), "is not positive semidefinite: its lowest eigenvalue is -0.5"),
        (np.array([[1.0, 0.5], [0.0, 1.0]]), "is not symmetric"),
        (np.array([1.0, -1.0]), "has a negative entry, -1"),
    ],
)
def test_factors_that_are_no_curvature_are_refused(tmp_path, factor, message):
    layout = Layout("w", (2, 2), 0, (), 2, 2)
    block = Kronecker(jnp.asarray(factor)[None], jnp.eye(2)[None], layout)
    made = Card((block,))
    path = made.save(tmp_path / "card.safetensors")
    with pytest.raises(NotSemidefiniteError, match=f"a of w {message}"):
        Card.load(path)
    with pytest.raises(NotSemidefiniteError, match=f"the curvature card's a of w {message}"):
        made.check({"w": np.eye(2)}, ["w"])


@pytest.mark.parametrize("row", [lambda cards: tak.tak(cards=cards), delta.delta])
def test_cards_in_memory_are_looked_at_before_anything_is_trained(row):
    """As those of files are; NaN, too, is named before a step."""
    params, layout = {"w": np.eye(2)}, Layout("w", (2, 2), 0, (), 2, 2)
    tasks = [split_task(n, normal(24, 2), np.arange(24) % 2) for n in ("one", "two")]
    study = lz.Study((lambda p, x: x @ p["w"], params), tasks, Classify())
    for factor, error in (
        (np.diag([1.0, -0.5]), NotSemidefiniteError),
        (np.full((2, 2), np.nan), NonFiniteError),
    ):
        given = Card((Kronecker(jnp.eye(2)[None], jnp.asarray(factor)[None], layout),))
        with pytest.raises(error, match="b of w"):
            row({"reference": given}).train(study, "one")


def test_tak_exact_is_the_dense_sum_of_each_task_s_kronecker_terms():
    """vec(ΔW)ᵀ (A ⊗ B) vec(ΔW) by task and layer, A by hand; TAK itself has one for all tasks."""
    shapes = {"a/kernel": (3, 4), "a/bias": (4,), "b/kernel": (4, 2)}
    params = {n: normal(*s) for n, s in shapes.items()}

    def hidden(p, x):
        return jnp.tanh(x @ p["a/kernel"] + p["a/bias"][None])

    names = ("one", "two", "three")
    tasks = [split_task(n, normal(40, 3, seed=i), np.arange(40) % 2) for i, n in enumerate(names)]
    study = lz.Study((lambda p, x: hidden(p, x) @ p["b/kernel"], params), tasks, Classify())
    tau = {n: normal(*s, seed=5) for n, s in shapes.items()}
    layers = {
        "a/kernel": np.concatenate([tau["a/kernel"], tau["a/bias"][None]]),
        "b/kernel": tau["b/kernel"],
    }
    a, b = {}, {}
    for task in names[1:]:
        (x,) = study.drawn(task, 256, "tak")
        a[task, "a/kernel"] = np.concatenate([x, np.ones((len(x), 1))], 1)
        a[task, "b/kernel"] = np.asarray(hidden(params, x))
        for block in tak.card_of(study, task).blocks:
            b[task, block.leaves[0]] = block.b[0]
    a = {key: rows.T @ rows / len(rows) for key, rows in a.items()}

    def form(layer, left, right):
        return layers[layer].ravel() @ np.kron(left, right) @ layers[layer].ravel()

    exact = sum(form(n, a[t, n], b[t, n]) for t in names[1:] for n in layers)
    merged = sum(
        form(n, (a["two", n] + a["three", n]) / 2, b["two", n] + b["three", n]) for n in layers
    )
    for row, expected in (("tak_exact", exact), ("tak", merged)):
        (make,) = METHODS[row].train.keywords["penalties"]
        penalty = make(study, "one")
        found = penalty.value(None, params, tau, penalty.state, None)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert abs(exact - merged) > 1e-3 * exact


def test_tak_costs_a_tenth_of_the_linear_step_at_most():
    """CLIP's ViT-B/32 at batch 128, shapes alone; patches frozen, as in the public code."""
    from linearize.models.vit import ViT

    module = ViT(
        width=768, depth=12, heads=12, hidden=3072, image_size=224, patch=32, grid=7, scan=True
    )
    images = jax.ShapeDtypeStruct((128, 224, 224, 3), np.uint8)
    with jax.enable_x64(False):
        params = jax.eval_shape(module.init, jax.random.key(0), images)["params"]

        def f(params, images):
            return module.apply({"params": params}, images)

        names = tuple(n for n in tree.names(params) if n.startswith("blocks/"))
        spec = (jax.ShapeDtypeStruct(images.shape[1:], images.dtype),)
        point = Pointwise(f, params, names, spec)
        traced = trace_uses(point)
        sums = jax.eval_shape(
            partial(_sums, point, traced, _groups(point, traced), 1, curvature.WIDEST, 1),
            params, (images,), jax.random.key(0), np.arange(128), np.ones(128),
        )  # fmt: skip
        groups = _groups(point, traced)
        blocks = [Kronecker(sums[n]["a"], sums[n]["b"], k) for n, (k, _) in groups.items()]
        blocks += [Dense(sums[n]["g"], n, point.named[n].shape) for n in traced.rest]
        tau = {n: jax.ShapeDtypeStruct(k.shape, np.float32) for n, k in point.named.items()}

        def step(params, tau, images):
            return jax.grad(lambda t: (lz.tangent(f)(params, t, images) ** 2).sum())(tau)

        def penalty(tau, blocks):
            return jax.value_and_grad(lambda t: curvature.quadratic(blocks, t))(tau)

        assert {k.weight for k, _ in groups.values()} == {
            f"blocks/{n}/kernel" for n in ("attention/qkv", "attention/out", "mlp_in", "mlp_out")
        }
        assert count_flops(penalty, tau, blocks) <= 0.1 * count_flops(step, params, tau, images)


# --- the method


def small(**options):
    with jax.enable_x64(False):
        rng = np.random.default_rng(0)
        params = {
            "a": {"kernel": rng.normal(size=(4, 6)) / 2, "bias": np.zeros((1, 6))},
            "b": {"kernel": rng.normal(size=(6, 3)) / 2},
        }
        tasks = []
        for name, n in (("one", 60), ("two", 70), ("three", 80)):
            x = rng.normal(size=(n, 4)).astype(np.float32)
            tasks.append(lz.data.split_task(name, x, (x @ rng.normal(size=(4, 3))).argmax(1)))
        recipe = train.TrainConfig(
            optim=train.OptimConfig(lr=0.03), steps=12, batch_size=8, tensorboard=False
        )
        params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
        given = {"recipes": {"linear": recipe}, **options}
        return lz.Study((network, params), tasks, lz.Classify(), **given)


def network(params, x):
    y = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    return y @ params["b"]["kernel"]


@pytest.mark.slow
def test_tak_keeps_other_tasks_still_and_their_cards(tmp_path, monkeypatch):
    with jax.enable_x64(False):
        made = small(store=tmp_path)
        tune = partial(lz.METHODS["tak"].train, penalties=[partial(tak.of_others, weight=30.0)])
        plain = lz.METHODS["linear"].train(made, "one")
        kept = tune(made, "one")
        features = unit(network)
        for other in ("two", "three"):
            x = made.split(other, "test").inputs
            params = made.model.params
            assert response(features, params, kept, x) < 0.5 * response(features, params, plain, x)
        cards = {path.name.split("-")[0] for path in tmp_path.glob("curvature/*.safetensors")}
        assert cards == {"two", "three"}
        monkeypatch.setattr(tak, "measure", None)
        again = tak.of_others(small(store=tmp_path), "one")
        merged, exact = again.state, tak.of_others(made, "one", exact=True).state
        assert (len(merged), len(exact)) == (1, 2)


@pytest.mark.slow
def test_tak_without_other_tasks_or_with_a_foreign_card_is_refused():
    made = small()
    (alone,) = (made.but(tasks=[made.tasks["one"]]),)
    with pytest.raises(ValueError, match="tak leaves other tasks alone"):
        tak.of_others(alone, "one")
    with pytest.raises(StructureMismatch, match="missing: a/kernel"):
        tak.of_others(made, "one", cards={"reference": card()[0]})


def test_a_card_of_the_task_s_own_name_does_not_hinder_its_vector():
    params, x = {"w": jnp.eye(2)}, np.random.default_rng(0).normal(size=(20, 2))
    own, other = (Card((Dense(by * jnp.eye(4)[None], leaf="w", shape=(2, 2)),)) for by in (1, 2))
    tasks = [lz.data.split_task("one", x, (x[:, 0] > 0).astype(int))]
    study = lz.Study((lambda p, x: x @ p["w"], params), tasks, lz.Classify())
    both = tak.of_others(study, "one", cards={"one": own, "two": other}, dense=1.0)
    np.testing.assert_allclose(both.state[0][0].g[0], 2 * np.eye(4))
    with pytest.raises(ValueError, match="cards is of 'one' alone"):
        tak.of_others(study, "one", cards={"one": own})
    with pytest.raises(ValueError, match=r"control=True beside cards of 'two': .*control"):
        tak.of_others(study, "one", cards={"two": other}, control=True)
    unit = {"two": Card(other.blocks, meta={"normalized": True})}
    for made in (tak.tak, partial(tak.of_others, study, "one")):
        with pytest.raises(ValueError, match="normalized=False, and the cards of 'two' are of"):
            made(cards=unit, normalized=False)
    for options in ({"scales": {"w": -1.0}}, {"dense": -1.0}):
        with pytest.raises(ValueError, match="expected 0 or more"):
            tak.of_others(study, "one", cards={"two": other}, **options)


# --- exactly, and by part


def stacked(params, x):
    return jnp.tanh(jnp.tanh(x @ params["w"][0]) @ params["w"][1]) + params["b"][None] ** 2


STACKED = {"w": normal(2, 3, 3), "b": normal(3)}


def test_interference_is_the_jacobians_by_part_and_slice():
    x = normal(5, 3)
    taus = [{n: normal(*p.shape, seed=s) for n, p in STACKED.items()} for s in (1, 2)]
    del taus[1]["b"]
    parts = {"second": {"w": (1,), "b": ()}, "b": {"b": ()}, "all": {"w": (), "b": ()}}
    found = interference(stacked, STACKED, taus, x, parts, batch_size=2)
    assert found.shape == (2, 3, 5)
    jac = {n: np.asarray(j) for n, j in jax.jacrev(stacked)(STACKED, x).items()}
    for t, tau in enumerate(taus):
        each = {n: np.einsum("...p,p->...", jac[n].reshape(5, 3, -1), tau[n].ravel()) for n in tau}
        second = np.einsum("ncij,ij->nc", jac["w"][:, :, 1], tau["w"][1])
        b = each.get("b", 0 * second)
        for p, moved in enumerate((second + b, b, each["w"] + b)):
            np.testing.assert_allclose(found[t, p], (moved**2).sum(-1), rtol=1e-9)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "parts is empty"),
        ({"one": {"weight": ()}}, "θ0 has no leaf weight"),
        ({"one": {"w": (2,)}}, r"has shape \(2, 3, 3\) and no slice \(2,\)"),
        ({"one": {"w": (-1,)}}, r"no slice \(-1,\)"),
    ],
)
def test_parts_that_are_not_there_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        interference(stacked, STACKED, [STACKED], normal(5, 3), parts)


@pytest.mark.slow
def test_a_card_by_part_sums_up_and_is_exact_of_one_row():
    f, params, x = ONE_ROW["scan"]()
    made = measure(f, params, x, probes=None)
    tau = {n: jnp.asarray(normal(*p.shape, seed=3)) for n, p in tree.flatten(params).items()}
    found = made.by_part(tau)
    np.testing.assert_allclose(found.sum(), made.value(tau), rtol=1e-9)
    exact = interference(unit(f), params, [tau], x, made.parts)
    np.testing.assert_allclose(found, exact[0, :, 0], rtol=1e-9)


def test_a_vector_that_is_not_the_card_s_is_refused(tmp_path):
    params = {"l": {"w": normal(3, 4), "b": normal(4)}}
    card = measure(lambda p, x: x @ p["l"]["w"] + p["l"]["b"][None], params, normal(5, 3))
    tau = {n: normal(*p.shape, seed=3) for n, p in tree.flatten(params).items()}
    for form in (card.value, card.by_part):
        with pytest.raises(StructureMismatch, match=r"l/w is \(4, 3\), the card is of \(3, 4\)"):
            form({**tau, "l/w": tau["l/w"].T})
        with pytest.raises(ValueError, match="says nothing of other, which would move"):
            form({**tau, "other": normal(2)})
    path = lz.TaskVector(tau).save(tmp_path / "tau.safetensors")
    opened = lz.TaskVector.open(path)
    np.testing.assert_allclose(card.value(opened.delta), card.value(tau), rtol=1e-9)
    np.testing.assert_allclose(card.by_part(opened.delta), card.by_part(tau), rtol=1e-9)


def test_a_bias_is_scaled_with_its_weight_and_not_alone():
    params = {"l": {"w": normal(3, 4), "b": normal(4)}}
    card = measure(lambda p, x: x @ p["l"]["w"] + p["l"]["b"][None], params, normal(5, 3))
    bias = {"l/b": normal(4, seed=3)}
    np.testing.assert_allclose(card.scaled({"/w$": 0.5}).value(bias), card.value(bias) / 2)
    with pytest.raises(ValueError, match=r"scales\['/b\$'\] finds l/b, which .* name the weight"):
        card.scaled({"/b$": 0.0})


def test_cards_of_two_bases_are_not_added_behind_one_of_none():
    card = measure(lambda p, x: x @ p["w"], {"w": normal(3, 4)}, normal(5, 3))
    none, one, two = (Card(card.blocks, base, card.meta) for base in ("", "a" * 64, "b" * 64))
    assert merge([none, one, one]).base == "a" * 64
    with pytest.raises(StructureMismatch, match="another base model"):
        merge([none, one, two])

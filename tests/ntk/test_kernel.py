"""Every way to a kernel against the dense product of whole-batch Jacobians, on many models."""

import collections
import dataclasses
import functools
import importlib
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import linearize as lz
from linearize import ntk, tree
from linearize.ntk.approximate import sketch_features
from linearize.ntk.jacobian import RULES, Part
from linearize.ntk.plan import BUDGET, Computation, choose
from linearize.ntk.pointwise import pointwise
from linearize.ntk.store import Disk

kernels = importlib.import_module("linearize.ntk.kernel")  # the package's name is the function's

EXACT = ("jacobian", "structured", "products")


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def as_layout(full, output):
    if output == "full":
        return full
    own = np.einsum("nmcc->nmc", full)
    return own if output == "diagonal" else own.sum(-1)


def dense(f, params, x1, x2, pattern=None):
    """J Jᵀ from two whole-batch Jacobians, forward mode, no batching tricks."""
    same = x1 is x2
    x1, x2 = (x if isinstance(x, tuple) else (x,) for x in (x1, x2))
    named = {n: tree.flatten(params)[n] for n in tree.select(params, pattern)}

    def jacobian(x):
        def outputs(named):
            out = jax.tree.leaves(f(tree.update(params, named), *x))
            return jnp.concatenate([y.reshape(len(y), -1) for y in out], axis=1)

        rows = jax.jit(jax.jacfwd(outputs))(named)
        return np.concatenate(
            [np.asarray(r, np.float64).reshape(*r.shape[:2], -1) for r in rows.values()], axis=2
        )

    rows = jacobian(x1)
    return np.einsum("ncp,mdp->nmcd", rows, rows if same else jacobian(x2))


class BatchNormCNN(linen.Module):
    @linen.compact
    def __call__(self, x, train=False):
        x = linen.Conv(5, (3, 3), strides=(2, 2))(x)
        x = linen.BatchNorm(use_running_average=not train)(x)
        x = linen.relu(x)
        x = linen.Conv(6, (3, 3), feature_group_count=1, padding="VALID")(x)
        x = linen.Conv(6, (2, 2), feature_group_count=6)(x)  # depthwise
        return linen.Dense(3)(linen.gelu(x).mean((1, 2)))


class Block(linen.Module):
    @linen.compact
    def __call__(self, x, _=None):
        y = linen.LayerNorm()(x)
        x = x + linen.MultiHeadDotProductAttention(num_heads=2)(y)
        return x + linen.Dense(x.shape[-1])(linen.gelu(linen.Dense(12)(x))), None


class Scanned(linen.Module):
    remat: bool = False

    @linen.compact
    def __call__(self, x):
        block = linen.remat(Block, prevent_cse=False) if self.remat else Block
        x = linen.Dense(8)(x)
        x, _ = linen.scan(
            block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2
        )()(x, None)
        return linen.Dense(2)(x.mean(1))


class Remat(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Dense(8)(x)
        x, _ = linen.remat(Block)()(x)
        return linen.Dense(2)(x[:, 0])


class Words(linen.Module):
    """A look-up, a tied read-out, and two kinds of output."""

    @linen.compact
    def __call__(self, ids, scale):
        embed = linen.Embed(11, 6)
        table = linen.Embed(4, 6, name="tied")
        h = embed(ids).sum(1) * scale[:, None] + table(ids[:, 0] % 4)
        return {"logits": table.attend(h), "value": linen.Dense(1)(jnp.tanh(h))}


def multiplied(params, x):
    """A product of two weights, one of them read in another order and shape."""
    y = jnp.tanh(x @ (params["down"] @ params["up"].T))
    return y @ params["out"].reshape(2, 6).T


def linen_case(module, *x, **kwargs):
    variables = module.init(jax.random.key(0), *x)
    variables = jax.tree.map(
        lambda v: v + 0.1 * jnp.sin(jnp.arange(v.size).reshape(v.shape)), variables
    )
    return lz.from_linen(module, variables, **kwargs)


class NnxMLP(nnx.Module):
    def __init__(self, rngs):
        self.a = nnx.Linear(5, 7, rngs=rngs)
        self.norm = nnx.LayerNorm(7, rngs=rngs)
        self.b = nnx.Linear(7, 3, rngs=rngs)

    def __call__(self, x):
        return self.b(nnx.relu(self.norm(self.a(x))))


def cases():
    image, tokens = draw((7, 8, 8, 2)), draw((7, 4, 5))
    ids = np.random.default_rng(3).integers(0, 11, (7, 5))
    return {
        "linen mlp": lambda: (
            *linen_case(
                linen.Sequential([linen.Dense(6), jnp.tanh, linen.Dense(3)]), image[:, 0, 0]
            ),
            (image[:, 0, 0],),
        ),
        "nnx mlp": lambda: (*lz.from_nnx(NnxMLP(nnx.Rngs(0))), (tokens[:, 0],)),
        "cnn": lambda: (*linen_case(BatchNormCNN(), image), (image,)),
        "scan": lambda: (*linen_case(Scanned(), tokens), (tokens,)),
        "scan remat": lambda: (*linen_case(Scanned(remat=True), tokens), (tokens,)),
        "remat": lambda: (*linen_case(Remat(), tokens), (tokens,)),
        "multiplied": lambda: (
            multiplied,
            {"down": draw((5, 2)), "up": draw((6, 2)), "out": draw((3, 4))},
            (tokens[:, 0],),
        ),
        "words": lambda: (*linen_case(Words(), ids, tokens[:, 0, 0]), (ids, tokens[:, 0, 0])),
    }


SLOW = ("nnx mlp", "words", "cnn", "scan", "scan remat", "remat")
"""Whose programs take long to compile; the others are in every run."""


def of_each(*outputs, models=None):
    """Parameters (model, layout) over all models of :func:`cases`."""
    return [
        pytest.param(name, output, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in models or cases()
        for output in outputs
    ]


@functools.cache
def case(name):
    """A model in float64, seven inputs, and its dense kernel."""
    with jax.enable_x64(True):
        f, params, inputs = cases()[name]()
        params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
        inputs = tuple(jnp.asarray(x) for x in inputs)
        return f, params, inputs, dense(f, params, inputs, inputs)


@pytest.mark.parametrize("implementation", EXACT)
@pytest.mark.parametrize(
    ("name", "output"),
    [*of_each("full"), *of_each("trace", "diagonal", models=("linen mlp", "words"))],
)
def test_every_implementation_equals_the_dense_product(name, output, implementation):
    f, params, inputs, reference = case(name)
    options = {"implementation": implementation, "output": output}
    with jax.enable_x64(True):
        found = ntk.kernel(f, params, inputs, **options)
    scale = np.abs(reference).max()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, as_layout(reference, output), rtol=0, atol=1e-10 * scale)


@pytest.mark.parametrize("implementation", EXACT)
def test_two_different_sides(implementation):
    f, params, inputs, reference = case("words")
    with jax.enable_x64(True):
        few = tuple(x[:4] for x in inputs)
        found = ntk.kernel(f, params, few, inputs, batch_size=3, implementation=implementation)
    np.testing.assert_allclose(found, reference[:4], rtol=0, atol=1e-10 * np.abs(reference).max())


def small(n=7, outputs=3, dtype=jnp.float32):
    """A two-layer network in NumPy-sized pieces, and inputs."""
    params = {
        "in": {
            "kernel": jnp.asarray(draw((4, 6), 1), dtype),
            "bias": jnp.asarray(draw(6, 2), dtype),
        },
        "out": {"kernel": jnp.asarray(draw((6, outputs), 3), dtype)},
    }

    def f(params, x):
        hidden = jnp.tanh(x @ params["in"]["kernel"] + params["in"]["bias"][None])
        return hidden @ params["out"]["kernel"]

    return f, params, draw((n, 4), 4).astype(np.float32)


def test_float32_implementations_agree_to_1e_5():
    f, params, x = small(n=20)
    found = [ntk.kernel(f, params, x, implementation=i) for i in (*EXACT, "auto")]
    scale = np.abs(found[0]).max()
    for other in found[1:]:
        assert other.dtype == np.float32
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(found[0], dense(f, params, x, x), rtol=0, atol=1e-5 * scale)


@pytest.mark.slow(but=["full-3", "trace-1", "diagonal-2", "full-50"])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("output", ["full", "trace", "diagonal"])
def test_blocks_of_any_size_give_the_same_kernel(batch_size, output):
    f, params, x = small()
    whole = ntk.kernel(f, params, x, output=output)
    blocks = ntk.kernel(f, params, x, output=output, batch_size=batch_size)
    np.testing.assert_allclose(blocks, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_a_small_memory_splits_leaves_and_examples_but_changes_no_number():
    f, params, x = small(n=30)
    whole = ntk.kernel(f, params, x, implementation="jacobian")
    for memory in (1, 2000, 10_000):
        tight = ntk.kernel(f, params, x, implementation="jacobian", memory=memory)
        np.testing.assert_allclose(tight, whole, rtol=1e-5, atol=1e-5)


def test_the_filter_leaves_other_leaves_out():
    f, params, x = small()
    last = ntk.kernel(f, params, x, trainable="out", output="full")
    hidden = np.tanh(x @ params["in"]["kernel"] + params["in"]["bias"][None])
    expected = np.einsum("nm,cd->nmcd", hidden @ hidden.T, np.eye(3))  # NNGP-like: h·h' ⊗ I
    np.testing.assert_allclose(last, expected, rtol=1e-5, atol=1e-5)


@pytest.fixture
def calls(monkeypatch):
    """Counts the calls of each compiled function of a kernel's parts."""
    counted = collections.Counter()
    compiled = kernels._compile

    def counting(part, mesh):
        inner = dataclasses.asdict(compiled(part, mesh))
        return Part(
            **{
                n: f and (lambda *args, n=n, f=f: counted.update([n]) or f(*args))
                for n, f in inner.items()
            }
        )

    monkeypatch.setattr(kernels, "_compile", counting)
    return counted


def test_a_symmetric_kernel_computes_each_pair_of_blocks_once(calls):
    f, params, x = small(n=8)
    ntk.kernel(f, params, x, batch_size=2, implementation="products")
    assert calls == {"block": 4 * 5 // 2}
    calls.clear()
    ntk.kernel(f, params, x, x, batch_size=2, implementation="products")
    assert calls == {"block": 16}


@pytest.mark.parametrize("implementation", ["jacobian", "structured"])
def test_a_row_of_blocks_shares_its_derivatives(calls, implementation):
    f, params, x = small(n=8)
    whole = ntk.kernel(f, params, x, implementation=implementation)
    assert calls == {"block": 1}
    calls.clear()
    split = ntk.kernel(f, params, x, implementation=implementation, batch_size=3)
    assert calls == {"derive": 3, "meet": 6}
    np.testing.assert_allclose(split, whole, rtol=1e-5, atol=1e-5)


def test_sign_kernels_by_hand():
    f, params, x = small()

    def gradients(x):
        rows = jax.jacrev(lambda p: f(p, x))(params)
        return np.concatenate(
            [np.asarray(r).reshape(7, 3, -1) for r in tree.flatten(rows).values()], 2
        )

    J = gradients(x)
    signed = ntk.kernel(f, params, x, optimizer="signgd")
    np.testing.assert_allclose(
        signed, np.einsum("ncp,mdp->nmcd", np.sign(J), np.sign(J)), atol=1e-4
    )
    mixed = ntk.kernel(f, params, x, optimizer="asymmetric_signgd", batch_size=3)
    np.testing.assert_allclose(
        mixed, np.einsum("ncp,mdp->nmcd", J, np.sign(J)), rtol=1e-4, atol=1e-4
    )


WORDS = np.array([3, 1])


def prompted(params, tokens):
    """Label words of a tied table, and of one whose words are columns, after looked-up tokens."""
    h = jnp.tanh(params["table"][tokens].sum(1) @ params["kernel"])
    bias = params["bias"][WORDS][None]
    return h @ params["table"][WORDS].T + h @ params["columns"][:, WORDS] + bias


def a_prompt(vocabulary, seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"table": (vocabulary, 4), "kernel": (4, 4), "columns": (4, vocabulary)}
    params = {n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()}
    params["bias"] = np.zeros(vocabulary, np.float32)
    tokens = np.array([[3, 3, 5, 1], [6, 5, 5, 5], [0, 1, 2, 1]], np.int32)  # words, and repeats
    return params, tokens


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", RULES)
def test_tables_are_met_row_by_row_under_every_rule(optimizer):
    params, tokens = a_prompt(9)
    rows = jax.jit(jax.jacrev(prompted))(params, tokens)
    J = np.concatenate([np.asarray(r, np.float64).reshape(3, 2, -1) for r in rows.values()], 2)
    left, right = (np.asarray(factor(J)) for factor in RULES[optimizer])
    expected = np.einsum("ncp,mdp->nmcd", left, right)
    options = {"optimizer": optimizer, "implementation": "jacobian"}
    found = ntk.kernel(prompted, params, tokens, tokens[::-1], **options)
    np.testing.assert_allclose(found, expected[:, ::-1], rtol=1e-5, atol=1e-5)


def by_nnx(params, ids):
    embed = nnx.Embed(*params["table"].shape, rngs=nnx.Rngs(0))
    embed.embedding = nnx.Param(params["table"])
    return embed(ids)


LOOK_UPS = {
    "plain": lambda params, ids: params["table"][ids],
    "a scan's step": lambda params, ids: jnp.swapaxes(
        jax.lax.scan(lambda _, i: (None, params["table"].at[i].get(mode="fill")), None, ids.T)[1],
        0,
        1,
    ),
    "columns": lambda params, ids: jnp.moveaxis(
        params["table"].T.at[:, ids].get(mode="fill", fill_value=2), 0, -1
    ),
    "not wrapped": lambda params, ids: (
        params["table"].at[ids].get(mode="fill", fill_value=0, wrap_negative_indices=False)
    ),
    "linen": lambda params, ids: linen.Embed(*params["table"].shape).apply(
        {"params": {"embedding": params["table"]}}, ids
    ),
    "nnx": by_nnx,
    **{
        f"get {mode}": lambda params, ids, mode=mode: params["table"].at[ids].get(mode=mode)
        for mode in (None, "fill", "drop", "clip", "promise_in_bounds")
    },
    **{
        f"take {mode}": lambda params, ids, mode=mode: jnp.take(
            params["table"], ids, axis=0, mode=mode
        )
        for mode in (None, "fill", "clip", "wrap")
    },
}
"""Rows by integers of which some are out of range, NaN where a fill says so."""

BROKEN_PROMISES = {"plain", "get None", "get promise_in_bounds"}
"""Their forward and reverse mode differ out of range, so there is no product of both."""

TOKENS = np.array([[0, 1, 5, 5], [-1, 4, 5, 9], [4, 4, -6, 5], [3, 0, -7, -5]], np.int32)


@pytest.mark.slow(but=["plain", "get fill", "get clip", "linen"])
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("look_up", LOOK_UPS)
def test_a_look_up_out_of_range_moves_with_the_row_that_its_mode_says(look_up):
    """Beside reverse mode, by which vectors are trained; fewer positions than rows, and more."""

    def f(params, ids):
        rows = LOOK_UPS[look_up](params, ids)
        return jnp.tanh(jnp.where(jnp.isnan(rows), 0.5, rows).sum(1)) @ params["out"]

    params = {"table": draw((5, 3)).astype(np.float32), "out": draw((3, 2)).astype(np.float32)}
    few, many = TOKENS, np.concatenate([TOKENS, TOKENS[::-1]], 1)
    for implementation, ids in zip(EXACT, (few, many, few), strict=True):
        if implementation == "products" and look_up in BROKEN_PROMISES:
            continue
        J = jax.jit(jax.jacrev(f))(params, ids)
        J = np.concatenate([np.asarray(r, np.float64).reshape(4, 2, -1) for r in J.values()], 2)
        found = ntk.kernel(f, params, ids, implementation=implementation)
        expected = np.einsum("ncp,mdp->nmcd", J, J)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_narrow_integers_look_up_a_table_of_more_rows_than_they_count():
    params = {"table": draw((300, 2)).astype(np.float32)}
    ids = np.array([[0, 255], [255, 7]], np.uint8)
    f = lambda params, ids: params["table"][ids].sum(1)  # noqa: E731
    found = ntk.kernel(f, params, ids, implementation="structured", output="trace")
    np.testing.assert_array_equal(found, [[4, 2], [2, 4]])  # words in common, times two outputs


@pytest.mark.slow(but=["signgd"])
@pytest.mark.parametrize("optimizer", RULES)
def test_derivatives_do_not_grow_with_the_vocabulary(optimizer):
    def planned(vocabulary):
        params, tokens = a_prompt(vocabulary)
        point = pointwise(prompted, params, (tokens,))
        rule, dtype = RULES[optimizer], jnp.dtype("float32")
        return choose(Computation(point, "full", rule, dtype, 3, 3, True, BUDGET), "jacobian", None)

    plan = planned(10_000)
    assert plan.bytes == planned(9).bytes
    params, tokens = a_prompt(10_000)
    memory = jax.jit(plan.parts[0].derive).lower(params, (tokens,)).compile().memory_analysis()
    held = memory.temp_size_in_bytes + memory.output_size_in_bytes
    assert held < 40_000  # a gradient of one example and word in one table is 160,000


def test_low_precision_weights_are_summed_in_float32():
    f, params, x = small(dtype=jnp.bfloat16)
    found = ntk.kernel(f, params, jnp.asarray(x, jnp.bfloat16))
    assert found.dtype == np.float32
    wide = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    reference = dense(
        f,
        wide,
        jnp.asarray(x, jnp.bfloat16).astype(jnp.float32),
        jnp.asarray(x, jnp.bfloat16).astype(jnp.float32),
    )
    assert np.abs(found - reference).max() < 0.03 * np.abs(reference).max()


def test_on_disk_and_resumed_after_a_kill(tmp_path, monkeypatch):
    f, params, x = small()
    whole = ntk.kernel(f, params, x, batch_size=2)
    note, written = Disk.note, []

    def notes(self, blocks):
        written.extend(blocks)
        note(self, blocks)

    def dies(self, blocks):
        if len(written) >= 5:
            raise KeyboardInterrupt
        notes(self, blocks)

    monkeypatch.setattr(Disk, "note", dies)
    with pytest.raises(KeyboardInterrupt):
        ntk.kernel(f, params, x, batch_size=2, out=tmp_path / "k")
    monkeypatch.setattr(Disk, "note", notes)
    stored = ntk.kernel(f, params, x, batch_size=2, out=tmp_path / "k")
    assert len(written) == 16  # none noted twice, none left out
    assert len(set(written)) == 16
    np.testing.assert_array_equal(np.asarray(stored), whole)
    np.testing.assert_array_equal(
        np.asarray(ntk.open_kernel(tmp_path / "k")[:3].read().result()), whole[:3]
    )
    with pytest.raises(FileExistsError, match=r"another kernel.*params"):
        ntk.kernel(f, jax.tree.map(lambda p: 2 * p, params), x, batch_size=2, out=tmp_path / "k")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match="other files"):
        ntk.kernel(f, params, x, out=tmp_path / "mine")
    with pytest.raises(FileNotFoundError, match="holds no kernel"):
        ntk.open_kernel(tmp_path / "mine")


def test_arrays_that_a_model_holds_are_part_of_a_kernel_on_disk(tmp_path):
    """A fingerprint leaves them out."""
    _, params, x = small()

    def scaled(scale, params, x):
        return scale * small()[0](params, x)

    scaled.fingerprint = "scaled"
    once, twice = (jax.tree_util.Partial(scaled, jnp.float32(s)) for s in (1, 2))
    found = ntk.kernel(once, params, x, output="trace", out=tmp_path / "k")
    np.testing.assert_array_equal(
        found, ntk.kernel(once, params, x, output="trace", out=tmp_path / "k")
    )
    with pytest.raises(FileExistsError, match=r"another kernel.*arrays"):
        ntk.kernel(twice, params, x, output="trace", out=tmp_path / "k")


@pytest.mark.slow
def test_spread_over_eight_devices():
    f, params, x = small(n=11)
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    for implementation in EXACT:
        one = ntk.kernel(f, params, x, implementation=implementation)
        many = ntk.kernel(f, params, x, implementation=implementation, mesh=mesh, batch_size=5)
        np.testing.assert_allclose(many, one, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_structured_multiplies_factors_apart_where_that_is_cheaper():
    wide = linen.Sequential(
        [linen.Dense(64), linen.relu, linen.Dense(64), linen.relu, linen.Dense(4)]
    )
    x = draw((8, 16)).astype(np.float32)
    f, params = linen_case(wide, x)

    def flops(implementation):
        point = pointwise(f, params, (x,))
        task = Computation(point, "full", RULES["sgd"], jnp.dtype("float32"), 8, 8, True, BUDGET)
        plan = choose(task, implementation, None)
        return plan.implementation, plan.flops(task)

    assert flops("structured")[1] < flops("jacobian")[1] / 4
    assert flops("auto")[0] == "structured"


def test_vector_product_is_the_kernel_times_a_vector():
    f, params, x = small()
    K = ntk.kernel(f, params, x, x[:4])
    v = draw((4, 3), 9).astype(np.float32)
    expected = np.einsum("nmcd,md->nc", K, v)
    for batch_size in (None, 1, 3, 4):
        product = ntk.vector_product(f, params, x, x[:4], batch_size=batch_size)
        np.testing.assert_allclose(product(v), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match=r"v has shape \(4,\); expected \(4, 3\)"):
        product(v[:, 0])


def test_a_custom_vjp_has_a_kernel_too():
    @jax.custom_vjp
    def double(x):
        return 2 * x

    double.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
    f, params, x = small()
    for implementation in EXACT:
        K = ntk.kernel(lambda p, x: double(f(p, x)), params, x, implementation=implementation)
        np.testing.assert_allclose(K, 4 * ntk.kernel(f, params, x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"implementation": "structural"}, "did you mean 'structured'"),
        ({"output": "sum"}, "output='sum' is not one of"),
        ({"optimizer": "sign"}, "did you mean 'signgd'"),
        ({"optimizer": "signgd", "implementation": "products"}, "never forms the Jacobian"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"dtype": np.int32}, "dtype=.*int32.*expected a floating dtype"),
        ({"dtype": bool}, "dtype=.*bool.*floating"),
        ({"dtype": "complex64"}, "dtype='complex64'; expected a floating"),
        ({"dtype": "flaot32"}, "dtype='flaot32'; expected a floating"),
        (
            {"dtype": np.float64},
            "dtype=.*float64.*: JAX sums in float32 here",
        ),
        ({"trainable": "attn"}, "picks no trainable leaf"),
        ({"x2": np.ones((3, 5), np.float32)}, "expected those of x1"),
        ({"x1": np.ones((0, 4), np.float32)}, "hold no example"),
        ({"f": lambda p, x: (x @ p["in"]["kernel"]).argmax(-1)}, "the output of f is int32"),
        ({"f": lambda p, x: {"y": x @ p["in"]["kernel"], "n": 1}}, "a kernel needs"),
        ({"f": lambda p, x: ()}, "f has no output"),
        (
            {
                "f": lambda p, x: (
                    x @ p["in"]["kernel"] - (x @ p["in"]["kernel"]).mean(0, keepdims=True)
                )
            },
            "another output alone",
        ),
    ],
)
def test_bad_input_is_named(change, message):
    f, params, x = small()
    given = {"f": f, "params": params, "x1": x} | change
    with pytest.raises(ValueError, match=message):
        ntk.kernel(given.pop("f"), given.pop("params"), given.pop("x1"), **given)


def test_nan_in_a_jacobian_names_leaf_and_example():
    f, params, x = small()

    def square_root(p, x):  # infinite slope at 0
        return f({"in": {**p["in"], "bias": jnp.sqrt(p["in"]["bias"])}, "out": p["out"]}, x)

    zero = {"in": {**params["in"], "bias": jnp.zeros(6)}, "out": params["out"]}
    with pytest.raises(ValueError, match=r"example 0 of x1 .* 1 of 3 leaves, first in in/bias"):
        ntk.kernel(square_root, zero, x)


def test_too_little_memory_is_said_before_starting(monkeypatch):
    f, params, x = small()
    monkeypatch.setattr(kernels, "available_bytes", lambda device: 100)
    with pytest.raises(MemoryError, match="out=FOLDER"):
        ntk.kernel(f, params, x)
    with pytest.raises(MemoryError, match="batch_size=1 fits"):
        ntk.kernel(f, params, x, batch_size=7, out="/nowhere", implementation="jacobian")


def test_a_dual_solution_becomes_weights():
    f, params, x = small()
    c = draw((7, 3), 8).astype(np.float32)
    tau = ntk.to_task_vector(f, params, x, c, batch_size=3, meta={"task": "toy"})
    tests = draw((5, 4), 11).astype(np.float32)
    moved = lz.affine_terms(f, params, [tau], tests)[1][0]
    expected = -np.einsum("nmcd,md->nc", ntk.kernel(f, params, tests, x), c)
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-4)
    assert tau.meta["regime"] == "linear"
    tau.apply_to(params)  # knows its base
    with pytest.raises(ValueError, match="a column per output"):
        ntk.to_task_vector(f, params, x, c[:, :2])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pntk", "sketch"])
def test_an_approximation_states_its_error(method):
    f, params, x = small(n=12)
    exact = ntk.kernel(f, params, x, output="trace")
    found = ntk.approximate_kernel(f, params, x, method=method, size=4096, checked=12)
    error = np.linalg.norm(found.kernel - exact) / np.linalg.norm(exact)
    assert found.error == pytest.approx(error, rel=1e-3)
    assert 0 < error < (0.1 if method == "sketch" else 1.0)
    other = ntk.approximate_kernel(f, params, x, method=method, size=4096, checked=12, seed=1)
    assert (other.error == found.error) == (method == "pntk")  # which draws nothing


def test_an_approximation_of_nothing_is_exact():
    """No share of zero can be told; nor can a correlation of what does not vary."""
    _, params, x = small(n=5)
    found = ntk.approximate_kernel(lambda p, x: 0 * x @ p["in"]["kernel"], params, x)
    assert found.error == 0
    assert np.isnan(found.correlation)
    np.testing.assert_array_equal(found.kernel, np.zeros((5, 5)))
    with pytest.raises(ValueError, match="checked=0; expected an integer, 1 or more"):
        ntk.approximate_kernel(lambda p, x: x @ p["in"]["kernel"], params, x, checked=0)


def test_kernels_of_a_model_at_many_points_share_their_programs():
    """F is not looked at again, and the new point is what counts."""
    calls = deque()  # which is not taken for what f computes with

    def f(params, x):
        calls.append(0)
        return jnp.tanh(x @ params["w"])

    x = draw((5, 3)).astype(np.float32)
    points = [{"w": draw((3, 2), seed).astype(np.float32)} for seed in (1, 2)]
    found = ntk.kernel(f, points[0], x)
    before = len(calls)
    again = ntk.kernel(f, points[1], x)
    assert len(calls) == before
    for kernel, params in zip((found, again), points, strict=True):
        np.testing.assert_allclose(kernel, dense(f, params, x, x), rtol=1e-5, atol=1e-5)
    before = len(calls)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, points[1])
        assert ntk.kernel(f, wide, x.astype(np.float64)).dtype == np.float64
    ntk.kernel(f, points[1], x, output="trace")
    assert len(calls) > before


def test_pntk_is_the_kernel_of_the_summed_outputs():
    f, params, x = small()
    full = ntk.kernel(f, params, x)
    found = ntk.approximate_kernel(f, params, x, method="pntk").kernel
    np.testing.assert_allclose(found, full.sum((2, 3)), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_sketches_are_unbiased():
    f, params, x = small(n=4)
    exact = ntk.kernel(f, params, x)
    features = sketch_features(pointwise(f, params, (x,)), size=64)

    @jax.jit
    @jax.vmap
    def sketched(key):
        rows = jax.vmap(lambda x: features(params, key, (x,)))(x)
        return jnp.einsum("nck,mdk->nmcd", rows, rows)

    draws = np.asarray(sketched(jax.random.split(jax.random.key(0), 400)))
    z = (draws.mean(0) - exact) / (draws.std(0, ddof=1) / np.sqrt(400) + 1e-9)
    assert np.abs(z).max() < 4.5  # 144 entries
    assert draws.std(0).max() > 0.01


def test_spectrum_and_solution_without_the_kernel():
    f, params, x = small()
    product = ntk.vector_product(f, params, x)
    matrix = ntk.kernel(f, params, x).astype(np.float64).transpose(0, 2, 1, 3).reshape(21, 21)
    found = ntk.lanczos(product, (7, 3), k=3, tolerance=1e-5)
    np.testing.assert_allclose(found.values, np.linalg.eigvalsh(matrix)[::-1][:3], rtol=1e-4)
    b = draw((7, 3), 12)
    solved = ntk.conjugate_gradient(product, b, ridge=1.0, tolerance=1e-5)
    exact = np.linalg.solve(matrix + np.eye(21), b.ravel())
    np.testing.assert_allclose(solved.x.ravel(), exact, rtol=0, atol=1e-3)

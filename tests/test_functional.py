"""Flax models as functions: every kind of layer and state, in linen and in nnx."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import core, linen, nnx

import linearize as lz
from linearize import functional, tree

X = jax.random.normal(jax.random.key(9), (4, 3))
KEY = jax.random.key(0)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


# linen


class Plain(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(2)(jnp.tanh(linen.Dense(3)(x)))


class Normed(linen.Module):
    @linen.compact
    def __call__(self, x, train):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.5)(linen.Dense(5)(x))
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=not train)(x))


class Dropped(linen.Module):
    @linen.compact
    def __call__(self, x, deterministic: bool = True):
        return linen.Dense(2)(linen.Dropout(0.5, deterministic=deterministic)(x))


class Tied(linen.Module):
    def setup(self):
        self.embed = linen.Embed(7, 3)

    def __call__(self, tokens):
        return self.embed.attend(jnp.sin(self.embed(tokens)))

    def encode(self, tokens, scale=1.0):
        return scale * self.embed(tokens)


class Block(linen.Module):
    @linen.compact
    def __call__(self, x, _):
        return x + linen.Dense(3)(jnp.tanh(x)), None


class Deep(linen.Module):
    @linen.compact
    def __call__(self, x):
        blocks = linen.scan(
            linen.remat(Block, prevent_cse=False),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
        )
        return blocks()(x, None)[0]


class Attentive(linen.Module):
    deterministic: bool | None = None

    @linen.compact
    def __call__(self, x, deterministic=None):
        off = linen.merge_param("deterministic", self.deterministic, deterministic)
        return linen.MultiHeadDotProductAttention(1, dropout_rate=0.5)(x, deterministic=off)


def linen_cases():
    tokens = jnp.array([1, 5, 2])
    normed = Normed()
    variables = normed.init(KEY, X, train=False)
    stats = jax.tree.map(lambda s: s + 0.5, variables["batch_stats"])
    variables = {**variables, "batch_stats": stats}
    return {
        "plain": (Plain(), Plain().init(KEY, X), (X,), {}, {}),
        "batch norm and dropout": (normed, variables, (X,), {}, {"train": False}),
        "mode given": (normed, variables, (X,), {"train": False}, {"train": False}),
        "mode among the inputs": (normed, variables, (X, False), {}, {}),
        "tied": (Tied(), Tied().init(KEY, tokens), (tokens,), {}, {}),
        "scanned and remat'ed": (Deep(), Deep().init(KEY, X), (X,), {}, {}),
        "attention": (
            Attentive(),
            Attentive().init(KEY, X, deterministic=True),
            (X,),
            {},
            {"deterministic": True},
        ),
        "mode as a field": (
            Attentive(deterministic=True),
            Attentive(deterministic=True).init(KEY, X),
            (X,),
            {},
            {},
        ),
        "dropout with a key": (
            Dropped(),
            Dropped().init(KEY, X),
            (X,),
            {"deterministic": False, "rngs": {"dropout": KEY}},
            {"deterministic": False, "rngs": {"dropout": KEY}},
        ),
    }


# nnx


class NnxNormed(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(3, 5, rngs=rngs)
        self.norm = nnx.BatchNorm(5, momentum=0.5, rngs=rngs)
        self.norm.mean[...] = self.norm.mean[...] + 0.5
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(self.norm(self.first(x))))

    def encode(self, x, scale=1.0):
        return scale * self.first(x)


class NnxTied(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
        self.tail = self.layers[0]

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        return self.tail(x)


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return x + self.dense(jnp.tanh(x))


class NnxDeep(nnx.Module):
    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def create(rngs):
            return NnxBlock(rngs)

        self.blocks = create(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(block, x):
            return nnx.remat(lambda block, x: block(x))(block, x)

        return forward(self.blocks, x)


class NnxFlagged(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train):
        return self.dropout(self.dense(x), deterministic=not train)


NNX_CASES = {
    "plain": (lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)), {}),
    "batch norm and dropout": (lambda: NnxNormed(nnx.Rngs(0)), {}),
    "tied": (lambda: NnxTied(nnx.Rngs(0)), {}),
    "scanned and remat'ed": (lambda: NnxDeep(nnx.Rngs(0)), {}),
    "mode as an argument": (lambda: NnxFlagged(nnx.Rngs(0)), {"train": False}),
}


def assert_works(f, params, inputs, expected):
    """Equal to the model; linearization against finite differences; gradient; no NaN on the way."""
    np.testing.assert_array_equal(f(params, *inputs), expected)
    arrays = [a for a in inputs if not isinstance(a, bool)]
    modes = [a for a in inputs if isinstance(a, bool)]

    def g(params, *arrays):
        return f(params, *arrays, *modes)

    np.testing.assert_allclose(jax.jit(g)(params, *arrays), expected, **CLOSE)
    rng = np.random.default_rng(0)
    tau = {
        n: jnp.asarray(rng.normal(size=np.shape(leaf)), jnp.float32)
        for n, leaf in tree.flatten(params).items()
    }
    moved = jax.jit(lz.tangent(g))(params, tau, *arrays) - expected
    h = 1e-3
    difference = (g(tree.add(params, tau, h), *arrays) - g(tree.add(params, tau, -h), *arrays)) / (
        2 * h
    )
    np.testing.assert_allclose(moved, difference, rtol=2e-2, atol=5e-3)
    assert np.abs(moved).max() > 0.01
    weight = jnp.ones_like(expected)
    gradient = jax.jit(jax.grad(lambda t: jnp.vdot(weight, lz.tangent(g)(params, t, *arrays))))(tau)
    along = sum(jnp.vdot(gradient[n], tau[n]) for n in tau)
    np.testing.assert_allclose(along, jnp.sum(moved), rtol=1e-3, atol=1e-3)
    f_lin = lz.linearize(g, params)
    np.testing.assert_allclose(f_lin(params, *arrays), expected, **CLOSE)
    with jax.debug_nans(True):
        jax.block_until_ready(lz.tangent(g)(params, tau, *arrays))


class TestLinen:
    @pytest.mark.slow(
        but=[
            "plain",
            "batch norm and dropout",
            "mode given",
            "mode among the inputs",
            "mode as a field",
            "tied",
        ]
    )
    @pytest.mark.parametrize("case", linen_cases())
    def test_equals_the_module_and_linearizes(self, case):
        module, variables, inputs, kwargs, mode = linen_cases()[case]
        f, params = lz.from_linen(module, variables, **kwargs)
        assert_works(f, params, inputs, module.apply(variables, *inputs, **mode))

    def test_frozen_in_plain_out(self):
        variables = core.freeze(Plain().init(KEY, X))
        f, params = lz.from_linen(Plain(), variables)
        assert type(params) is dict
        assert type(params["Dense_0"]) is dict
        assert tree.names(params) == (
            "Dense_0/bias",
            "Dense_0/kernel",
            "Dense_1/bias",
            "Dense_1/kernel",
        )
        np.testing.assert_array_equal(f(params, X), Plain().apply(variables, X))
        np.testing.assert_array_equal(f(core.freeze(params), X), Plain().apply(variables, X))

    def test_partitioning_metadata_is_taken_off(self):
        init = linen.with_partitioning(linen.initializers.lecun_normal(), ("in", "out"))
        module = linen.Dense(2, kernel_init=init)
        f, params = lz.from_linen(module, module.init(KEY, X))
        assert tree.names(params) == ("bias", "kernel")
        assert f(params, X).shape == (4, 2)

    def test_training_mode_by_argument(self):
        module = Normed()
        variables = module.init(KEY, X, train=False)
        f, params = lz.from_linen(
            module, variables, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )
        expected = module.apply(
            variables, X, train=True, rngs={"dropout": KEY}, mutable=["batch_stats"]
        )
        jax.tree.map(np.testing.assert_array_equal, f(params, X), expected)
        out, state = jax.jit(lz.tangent(f, has_aux=True))(params, tree.zeros(params), X)
        np.testing.assert_allclose(out, expected[0], **CLOSE)
        new = state["batch_stats"]["BatchNorm_0"]["mean"]
        hidden = X @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"][None]
        np.testing.assert_allclose(new, 0.5 * hidden.mean(0), **CLOSE)

    def test_another_method(self):
        tokens = jnp.array([1, 5])
        variables = Tied().init(KEY, tokens)
        table = variables["params"]["embed"]["embedding"]
        for method in ("encode", Tied.encode):
            f, params = lz.from_linen(Tied(), variables, method=method, scale=2.0)
            np.testing.assert_array_equal(f(params, tokens), 2 * table[tokens])

    def test_tied_parameters_are_one_leaf_with_both_derivatives(self):
        tokens = jnp.array([1, 5])
        f, params = lz.from_linen(Tied(), Tied().init(KEY, tokens))
        assert tree.names(params) == ("embed/embedding",)
        table = params["embed"]["embedding"]
        tau = jnp.ones_like(table)
        e = table[tokens]
        expected = jnp.sin(e) @ table.T + (jnp.cos(e) * tau[tokens]) @ table.T + jnp.sin(e) @ tau.T
        np.testing.assert_allclose(
            lz.tangent(f)(params, {"embed/embedding": tau}, tokens), expected, **CLOSE
        )

    def test_way_back(self):
        variables = Plain().init(KEY, X)
        f, params = lz.from_linen(Plain(), variables)
        edited = jax.tree.map(lambda p: 2 * p, params)
        np.testing.assert_array_equal(
            Plain().apply({**variables, "params": edited}, X), f(edited, X)
        )

    def test_no_params(self):
        with pytest.raises(ValueError, match=r"collections \['Dense_0', 'Dense_1'\]"):
            lz.from_linen(Plain(), Plain().init(KEY, X)["params"])

    def test_variables_are_not_changed(self):
        variables = Normed().init(KEY, X, train=False)
        before = tree.fingerprint(variables)
        f, params = lz.from_linen(Normed(), variables)
        params["Dense_0"]["kernel"] = params["Dense_0"]["kernel"] * 0
        f(params, X)
        assert tree.fingerprint(variables) == before


class TestNnx:
    @pytest.mark.parametrize("case", NNX_CASES)
    def test_equals_the_model_and_linearizes(self, case):
        make, kwargs = NNX_CASES[case]
        model, reference = make(), make()
        before = tree.fingerprint(nnx.to_pure_dict(nnx.state(model)))
        reference.eval()
        f, params = lz.from_nnx(model)
        assert_works(f, params, (X,), reference(X, **kwargs))
        assert tree.fingerprint(nnx.to_pure_dict(nnx.state(model))) == before

    def test_names_are_key_paths(self):
        _, params = lz.from_nnx(NnxTied(nnx.Rngs(0)))
        assert tree.names(params) == (
            "layers/0/bias",
            "layers/0/kernel",
            "layers/1/bias",
            "layers/1/kernel",
        )

    def test_the_model_keeps_its_mode_and_state(self):
        model = NnxNormed(nnx.Rngs(0))
        f, params = lz.from_nnx(model)
        f(params, X)
        assert not model.norm.use_running_average
        assert not model.dropout.deterministic
        model.norm.mean[...] = model.norm.mean[...] + 100  # later changes do not reach f
        reference = NnxNormed(nnx.Rngs(0))
        reference.eval()
        np.testing.assert_array_equal(f(params, X), reference(X))

    def test_training_mode_with_its_statistics(self):
        model, reference = NnxNormed(nnx.Rngs(0)), NnxNormed(nnx.Rngs(0))
        before = tree.fingerprint(nnx.to_pure_dict(nnx.state(model)))
        f, params = lz.from_nnx(model, train=True, mutable=nnx.BatchStat)
        expected = reference(X)
        for call in (f, f, jax.jit(f)):  # the same mask in each call
            out, state = call(params, X)
            np.testing.assert_allclose(out, expected, **CLOSE)
            np.testing.assert_allclose(state["norm"]["mean"], reference.norm.mean[...], **CLOSE)
        out, state = jax.jit(lz.tangent(f, has_aux=True))(params, tree.zeros(params), X)
        np.testing.assert_allclose(out, expected, **CLOSE)
        np.testing.assert_allclose(state["norm"]["var"], reference.norm.var[...], **CLOSE)
        assert tree.fingerprint(nnx.to_pure_dict(nnx.state(model))) == before

    def test_another_method(self):
        model = NnxNormed(nnx.Rngs(0))
        for method in ("encode", lambda model, x, scale: scale * model.first(x)):
            f, params = lz.from_nnx(model, method=method, scale=2.0)
            np.testing.assert_array_equal(f(params, X), 2.0 * model.first(X))

    def test_way_back(self):
        model = NnxTied(nnx.Rngs(0))
        f, params = lz.from_nnx(model)
        tau = lz.TaskVector.between(params, jax.tree.map(lambda p: 2 * p, params))
        edited = tau.apply_to(params, 0.5)
        lz.update_nnx(model, edited)
        np.testing.assert_array_equal(model(X), f(edited, X))
        assert model.tail is model.layers[0]

    def test_other_names_are_refused_and_nothing_written(self):
        model = NnxTied(nnx.Rngs(0))
        f, params = lz.from_nnx(model)
        wrong = {"layers": {0: params["layers"][0], 1: {"kernal": jnp.ones((3, 3))}}}
        before = tree.fingerprint(nnx.to_pure_dict(nnx.state(model)))
        for call in (lambda: f(wrong, X), lambda: lz.update_nnx(model, wrong)):
            with pytest.raises(tree.StructureMismatch, match=r"kernal; did you mean"):
                call()
        assert tree.fingerprint(nnx.to_pure_dict(nnx.state(model))) == before


def test_docs_say_what_training_mode_means():
    assert "training mode" in inspect.getmodule(lz.from_nnx).__doc__


# modes by any name


def linen_flagged(argument, *, where="keyword", required=False):
    """Dropout under a mode argument of that name, which says training by default."""
    evaluation = functional._EVALUATION[argument]
    default = inspect.Parameter.empty if required else not evaluation

    class Flagged(linen.Module):
        @linen.compact
        def __call__(self, *args, **kwargs):
            given = signature.bind(self, *args, **kwargs)
            given.apply_defaults()
            x = linen.Dense(2)(given.args[1] if where != "after inputs" else sum(given.args[1:]))
            off = given.arguments[argument] == evaluation
            return linen.Dropout(0.5, deterministic=off)(x)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    inputs = [inspect.Parameter("x", kind)]
    if where == "after inputs":
        inputs = [inspect.Parameter("inputs", inspect.Parameter.VAR_POSITIONAL)]
    if where != "positional":
        kind = inspect.Parameter.KEYWORD_ONLY
    mode = inspect.Parameter(argument, kind, default=default)
    signature = inspect.Signature(
        [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD), *inputs, mode]
    )
    Flagged.__call__.__signature__ = signature
    return Flagged(), {argument: evaluation}


@pytest.mark.parametrize("argument", sorted(functional._EVALUATION))
def test_every_name_of_a_mode_is_set_in_linen(argument):
    module, mode = linen_flagged(argument)
    variables = module.init(KEY, X, **mode)
    f, params = lz.from_linen(module, variables)
    np.testing.assert_array_equal(f(params, X), module.apply(variables, X, **mode))


class Summed(linen.Module):
    @linen.compact
    def __call__(self, *inputs, is_train):
        return linen.Dropout(0.5, deterministic=not is_train)(linen.Dense(2)(sum(inputs)))

    def encode(self, x, *, train=True):
        return self(x, is_train=train)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_mode_after_any_number_of_inputs_linen(count):
    variables = Summed().init(KEY, X, is_train=False)
    f, params = lz.from_linen(Summed(), variables)
    inputs = (X,) * count
    expected = Summed().apply(variables, *inputs, is_train=False)
    np.testing.assert_array_equal(f(params, *inputs), expected)
    bound, _ = lz.from_linen(Summed(), variables, method=Summed().encode)
    np.testing.assert_array_equal(bound(params, X), Summed().apply(variables, X, is_train=False))


@pytest.mark.parametrize("transform", [linen.jit, linen.remat])
def test_a_mode_that_a_transform_wants_static(transform):
    module = transform(Normed, static_argnums=(2,))()
    variables = Normed().init(KEY, X, train=False)
    f, params = lz.from_linen(module, variables)
    np.testing.assert_allclose(f(params, X), Normed().apply(variables, X, False), **CLOSE)


class NnxSummed(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, *inputs, is_train):
        return self.dropout(self.dense(sum(inputs)), deterministic=not is_train)

    def encode(self, x, training=True):
        return self(x, is_train=training)

    @nnx.jit
    def compiled(self, x, training: bool = True):
        return jax.lax.cond(training, lambda: 0 * self.dense(x), lambda: self.dense(x))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_mode_after_any_number_of_inputs_nnx(count):
    model = NnxSummed(nnx.Rngs(0))
    f, params = lz.from_nnx(model)
    np.testing.assert_allclose(f(params, *(X,) * count), model.dense(count * X), **CLOSE)


@pytest.mark.parametrize("method", ["encode", "compiled", "bound", "unbound", "partial"])
def test_a_mode_of_a_method_given_in_any_way(method):
    model = NnxSummed(nnx.Rngs(0))
    given = {
        "bound": model.encode,
        "unbound": NnxSummed.encode,
        "partial": functools.partial(NnxSummed.__call__),
    }.get(method, method)
    f, params = lz.from_nnx(model, method=given)
    np.testing.assert_allclose(f(params, X), model.dense(X), **CLOSE)
    moved = jax.tree.map(lambda p: 2 * p, params)  # of the given parameters, not the model's own
    np.testing.assert_allclose(f(moved, X), 2 * model.dense(X), **CLOSE)


class OwnMode(nnx.Module):
    def __init__(self, rngs):
        self.dense, self.training = nnx.Linear(3, 2, rngs=rngs), True

    def __call__(self, x):
        return self.dense(x) + (100 if self.training else 0)


def test_a_mode_attribute_of_ones_own_is_set_in_nnx():
    model = nnx.Sequential(OwnMode(nnx.Rngs(0)))
    f, params = lz.from_nnx(model)
    np.testing.assert_allclose(f(params, X), model(X) - 100, **CLOSE)
    f, params = lz.from_nnx(model, train=True)
    np.testing.assert_allclose(f(params, X), model(X), **CLOSE)


class Stateful(nnx.Module):
    """A layer that is in training mode whatever it is told."""

    def __init__(self, kind, rngs):
        self.dense = nnx.Linear(3, 2, rngs=rngs)
        self.spectral = nnx.SpectralNorm(nnx.Linear(2, 2, rngs=rngs), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.kind = kind

    def __call__(self, x):
        x = self.dense(x)
        return {
            "spectral": lambda: self.spectral(x, update_stats=True),
            "batch": lambda: self.norm(x, use_running_average=False),
            "dropout": lambda: self.dropout(x, deterministic=False),
            "none": lambda: self.dropout(self.norm(self.spectral(x))),
        }[self.kind]()


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("spectral", "spectral/batch_stats"),
        ("batch", "norm/mean, norm/var"),
        ("dropout", "dropout/rngs/count"),
    ],
)
def test_a_call_that_changes_the_state_is_refused(kind, words, traced):
    model = Stateful(kind, nnx.Rngs(0))
    f, params = lz.from_nnx(model)
    call = jax.jit(f) if traced else f
    with pytest.raises(ValueError, match=rf"changes the model's .*{words}.*train=True"):
        call(params, X)
    f, params = lz.from_nnx(model, train=True)
    (jax.jit(f) if traced else f)(params, X)
    f, params = lz.from_nnx(model, mutable=nnx.BatchStat)
    assert len((jax.jit(f) if traced else f)(params, X)) == 2


class Own(nnx.Variable):
    pass


class Centred(nnx.Module):
    """It subtracts the mean of the batch at hand, which it keeps in one way or another."""

    def __init__(self, kind, rngs):
        self.dense, self.kind = nnx.Linear(3, 2, rngs=rngs), kind
        self.own, self.cache = Own(jnp.zeros(2)), nnx.Cache(jnp.zeros(2))
        self.pair, self.bare = Own({"mean": jnp.zeros(2)}), nnx.data(jnp.zeros(2))

    def __call__(self, x):
        x = self.dense(x)
        mean = x.mean(0)
        if self.kind == "own":
            self.own[...] = mean
        elif self.kind == "cache":
            self.cache[...] = mean
        elif self.kind == "pair":
            self.pair.set_value({"mean": mean})
        else:
            self.bare = mean
        return x - mean[None]


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kind", ["own", "cache", "pair", "bare"])
def test_state_of_any_kind_is_watched(kind, traced):
    f, params = lz.from_nnx(Centred(kind, nnx.Rngs(0)))
    with pytest.raises(ValueError, match=rf"changes the model's {kind} .*mutable="):
        (jax.jit(f) if traced else f)(params, X)


@pytest.mark.parametrize("traced", [False, True])
def test_random_numbers_that_are_not_used_change_nothing(traced):
    """A recurrent layer draws keys for a carry of zeros."""
    model = nnx.RNN(nnx.SimpleCell(3, 2, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
    f, params = lz.from_nnx(model)
    got = (jax.jit(f) if traced else f)(params, X[None])
    np.testing.assert_allclose(got, nnx.clone(model)(X[None]), **CLOSE)


class Noisy(nnx.Module):
    def __init__(self, rngs):
        self.dense, self.rngs = nnx.Linear(3, 2, rngs=rngs), rngs

    def __call__(self, x):
        return self.dense(x) + jax.random.normal(self.rngs.noise(), (1, 2))


def test_random_numbers_that_are_used_are_refused():
    f, params = lz.from_nnx(Noisy(nnx.Rngs(0)))
    with pytest.raises(ValueError, match=r"changes the model's rngs/\w+/count"):
        f(params, X)


def test_a_mode_that_is_left_to_the_call_is_evaluation():
    model = nnx.MultiHeadAttention(2, 4, dropout_rate=0.5, decode=False, rngs=nnx.Rngs(0))
    f, params = lz.from_nnx(model)
    x = jnp.ones((1, 3, 4))
    np.testing.assert_allclose(f(params, x), model(x, deterministic=True), **CLOSE)
    assert model.deterministic is None


def test_a_spectral_norm_in_evaluation_mode_is_one_fixed_function():
    model = Stateful("none", nnx.Rngs(0))
    f, params = lz.from_nnx(model)
    first = f(params, X)
    np.testing.assert_array_equal(f(params, X), first)
    np.testing.assert_allclose(jax.jit(f)(params, X), first, **CLOSE)


def test_linen_layers_that_write_are_refused_with_what_to_set():
    class Writes(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.BatchNorm(use_running_average=False)(linen.Dense(2)(x))

    f, params = lz.from_linen(Writes(), Writes().init(KEY, X))
    with pytest.raises(ValueError, match=r"changes its variables.*mutable="):
        f(params, X)


def test_linen_layers_that_draw_are_told_what_to_set():
    class Draws(linen.Module):
        @linen.compact
        def __call__(self, x, phase="train"):
            return linen.Dropout(0.5, deterministic=phase != "train")(linen.Dense(2)(x))

    variables = Draws().init({"params": KEY, "dropout": KEY}, X)
    f, params = lz.from_linen(Draws(), variables)
    with pytest.raises(ValueError, match=r"draws random numbers.*'?dropout.*evaluation, or rngs="):
        f(params, X)
    f, params = lz.from_linen(Draws(), variables, phase="eval")
    np.testing.assert_array_equal(
        f(params, X), linen.Dense(2).apply({"params": params["Dense_0"]}, X)
    )


# what is trainable


class Scale(nnx.Variable):
    pass


class Scaled(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(3, 2, rngs=rngs)
        self.scale = Scale(jnp.full(2, 3.0))

    def __call__(self, x):
        return self.dense(x) * self.scale[...][None]


def test_wrt_says_what_is_trainable():
    model = Scaled(nnx.Rngs(0))
    assert tree.names(lz.from_nnx(model)[1]) == ("dense/bias", "dense/kernel")
    f, params = lz.from_nnx(model, wrt=Scale)
    assert tree.names(params) == ("scale",)
    np.testing.assert_allclose(jax.jacobian(f)(params, X)["scale"].sum(-1), model.dense(X), **CLOSE)
    both, params = lz.from_nnx(model, wrt=nnx.Any(nnx.Param, Scale))
    assert tree.names(params) == ("dense/bias", "dense/kernel", "scale")
    np.testing.assert_array_equal(both(params, X), model(X))
    lz.update_nnx(model, {"scale": jnp.zeros(2)}, wrt=Scale)
    assert not np.any(model(X))


def test_a_model_without_anything_to_train_is_refused():
    class Bare(nnx.Module):
        def __init__(self):
            self.scale = Scale(jnp.ones(2))

        def __call__(self, x):
            return x * self.scale[...]

    with pytest.raises(ValueError, match=r"wrt=Param.*it has Scale: name what is trainable"):
        lz.from_nnx(Bare())
    with pytest.raises(ValueError, match="no floating leaf"):
        lz.from_linen(linen.Dense(2), {"params": {"steps": jnp.arange(3)}})

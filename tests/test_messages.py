"""What is said where something else was meant."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from flax.training import train_state

import linearize as lz
from linearize import evaluate
from linearize.config import CompareConfig, ConfigError, DataConfig
from linearize.config.compare import MapConfig
from linearize.edit import regime_accuracies
from linearize.train import TrainConfig, fine_tune

X, Y = np.ones((4, 3), np.float32), np.array([0, 1, 0, 1])
PARAMS = {"kernel": jnp.ones((3, 2)), "bias": jnp.zeros(2)}
TAU = {"kernel": jnp.ones((3, 2))}
CONFIG = TrainConfig(steps=1, batch_size=2)


def foreign(package, name, base=object):
    """An object of a class of another package, which need not be installed."""
    kind = type(name, (base,), {"__module__": f"{package}.inner", "__call__": lambda *_: None})
    return type("Mine", (kind,), {"__module__": "__main__"})()


def state():
    module = linen.Dense(2)
    variables = module.init(jax.random.key(0), X)
    return train_state.TrainState.create(
        apply_fn=module.apply, params=variables["params"], tx=optax.sgd(0.1)
    )


MODELS = {
    "linen": (lambda: linen.Dense(2), "from_linen"),
    "nnx": (lambda: nnx.Linear(3, 2, rngs=nnx.Rngs(0)), "from_nnx"),
    "a train state": (state, "apply_fn"),
    "torch": (
        lambda: foreign("torch.nn.modules", "Module"),
        "Flax model that holds the same weights",
    ),
    "equinox": (lambda: foreign("equinox", "Module"), "partition"),
    "keras": (lambda: foreign("keras.src.layers", "Layer"), "stateless_call"),
    "parameters": (lambda: PARAMS, r"f is a dict; expected a function f\(params, \*inputs\)$"),
}
DOORS = {
    "linearize": lambda f: lz.linearize(f, PARAMS),
    "tangent": lambda f: lz.tangent(f),
    "displaced": lambda f: lz.displaced(f),
    "affine_terms": lambda f: lz.affine_terms(f, PARAMS, [TAU], X),
    "taylor_expand": lambda f: lz.taylor_expand(f, PARAMS, 2),
    "outputs": lambda f: evaluate.outputs(f, PARAMS, X),
    "affine_outputs": lambda f: evaluate.affine_outputs(f, PARAMS, [TAU], X),
    "displaced_accuracy": lambda f: evaluate.displaced_accuracy(
        f, PARAMS, [TAU], X, [[1.0]], None, Y
    ),
    "regime_accuracies": lambda f: regime_accuracies(
        f, PARAMS, TAU, [(X, Y)], None, [1.0], "linear"
    ),
    "view": lambda f: evaluate.view.Tangent(f, PARAMS, {"tau": lz.TaskVector(TAU)}),
    "disentanglement_error": lambda f: lz.disentanglement_error(f, PARAMS, [TAU, TAU], [X, X]),
    "fine_tune": lambda f: fine_tune(
        f, PARAMS, {"inputs": X, "labels": Y}, regime="linear", config=CONFIG
    ),
    "kernel": lambda f: lz.ntk.kernel(f, PARAMS, X),
    "to_task_vector": lambda f: lz.ntk.to_task_vector(f, PARAMS, X, np.ones((4, 2))),
    "vector_product": lambda f: lz.ntk.vector_product(f, PARAMS, X),
    "feature_change": lambda f: lz.ntk.feature_change(f, PARAMS, PARAMS, X),
    "approximate_kernel": lambda f: lz.ntk.approximate_kernel(f, PARAMS, X),
    "fine_tune_exactly": lambda f: lz.ntk.fine_tune_exactly(f, PARAMS, X, Y, l2=0.1),
    "linear_objective": lambda f: lz.ntk.linear_objective(f, PARAMS, TAU, X, Y, l2=0.1),
}


@pytest.mark.parametrize("door", DOORS)
def test_a_model_in_place_of_a_function_is_told_the_way(door):
    for make, words in MODELS.values():
        with pytest.raises(TypeError, match=words):
            DOORS[door](make())


def test_a_model_of_the_other_flax_is_told_its_function():
    module, model = linen.Dense(2), nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"flax.nnx, not Dense.*: use from_linen"):
        lz.from_nnx(module)
    with pytest.raises(TypeError, match=r"flax.linen, not .*: use from_nnx"):
        lz.from_linen(model, {"params": PARAMS})
    with pytest.raises(TypeError, match="not the class Linear: make an instance"):
        lz.from_nnx(nnx.Linear)


def test_functions_of_any_kind_are_welcome():
    module = linen.Dense(2)
    for f in (
        lambda params, x: x @ params["kernel"],
        jax.tree_util.Partial(lambda params, x: x @ params["kernel"]),
        types.MethodType(lambda self, params, x: x @ params["kernel"], object()),
        lambda params, x: module.apply({"params": params}, x),
    ):
        assert lz.linearize(f, PARAMS)(PARAMS, X).shape == (4, 2)


def test_a_mistyped_trainable_is_refused_at_once():
    f = lambda params, x: x @ params["kernel"]  # noqa: E731
    for make in (lz.linearize, lambda f, p, **k: lz.taylor_expand(f, p, 2, **k)):
        with pytest.raises(ValueError, match="pattern='kernal' picks no trainable leaf"):
            make(f, PARAMS, trainable="kernal")


@pytest.mark.parametrize("data", [(X, Y), [X, Y], X, None])
def test_data_that_are_no_mapping_are_told_what_is(data):
    f = lambda params, x: x @ params["kernel"]  # noqa: E731
    with pytest.raises(ValueError, match=r"data is a \w+; expected a mapping .*'inputs': x, 'lab"):
        fine_tune(f, PARAMS, data, regime="linear", config=CONFIG)


@pytest.mark.parametrize(
    ("y", "f0", "words"),
    [
        (Y, np.zeros((4, 2)), r"class labels: give np\.eye\(2\)\[y\], a one-hot row each"),
        (Y.astype(float), np.zeros((4, 1)), r"reshape it to \(4, 1\)"),
        (Y, np.zeros((4, 1)), r"reshape it to \(4, 1\)"),
        (Y.astype(float), np.zeros((4, 2)), r"expected \(4, 2\), one row.*examples$"),
    ],
)
def test_targets_of_regression(y, f0, words):
    for solve in (lz.ntk.regression, lambda k, f, y: lz.ntk.gradient_flow(k, f, y, times=1.0)):
        with pytest.raises(ValueError, match=words):
            solve(np.eye(4), f0, y)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {
                "data": DataConfig(tasks=("mnsit", "letters")),
                "map": MapConfig((("mnist", "letters"),)),
            },
            r"data\.tasks='mnsit': no task of this name; did you mean 'mnist'\? \(map\.pairs has",
        ),
        (
            {"data": DataConfig(tasks=("mnist", "leters")), "epochs": {"letters": 2.0}},
            r"data\.tasks='leters'.*'letters'\? \(epochs has 'letters'\)",
        ),
        (
            {
                "data": DataConfig(tasks=("mnist", "letters")),
                "map": MapConfig((("mnsit", "letters"),)),
            },
            r"map\.pairs='mnsit': not one of data\.tasks; did you mean 'mnist'\?",
        ),
    ],
)
def test_the_mistyped_name_is_the_one_that_is_blamed(given, words):
    with pytest.raises(ConfigError, match=words):
        CompareConfig(**given)


WEIGHTS, POINTS = {"w": np.ones((4, 3), np.float32)}, np.eye(4, dtype=np.float32)
MOVE = lz.TaskVector({"w": 0.1 * WEIGHTS["w"]})


def linear(params, x):
    return x @ params["w"]


def spread(batch_size):
    taus = [MOVE, -MOVE]
    return lz.disentanglement_error(linear, WEIGHTS, taus, [POINTS] * 2, batch_size=batch_size)


COUNTS = {
    "batch_size": [
        lambda n: lz.ntk.kernel(linear, WEIGHTS, POINTS, batch_size=n),
        lambda n: lz.ntk.vector_product(linear, WEIGHTS, POINTS, batch_size=n),
        lambda n: lz.evaluate.outputs(linear, WEIGHTS, POINTS, batch_size=n),
        spread,
    ],
    "k": [
        lambda n: lz.ntk.eigenpairs(np.eye(4), n),
        lambda n: lz.ntk.lanczos(lambda v: v, (4,), n),
        lambda n: lz.ntk.eigenfunctions(lz.ntk.eigenpairs(np.eye(4)), n),
    ],
    "rank": [lambda n: lz.ntk.randomized_nystrom(lambda v: v, (4,), rank=n)],
    "probes": [lambda n: lz.ntk.trace(lambda v: v, (4,), probes=n)],
    "size": [lambda n: lz.ntk.approximate_kernel(linear, WEIGHTS, POINTS, method="sketch", size=n)],
}


@pytest.mark.parametrize("value", [2.5, 2.0, np.float32(2), "2", True, (2,)], ids=repr)
@pytest.mark.parametrize("argument", COUNTS)
def test_what_counts_is_an_integer(argument, value):
    """``eigenpairs(k=2.5)`` gave three pairs."""
    for call in COUNTS[argument]:
        with pytest.raises(ValueError, match=re.escape(f"{argument}={value!r}; expected an int")):
            call(value)


@pytest.mark.parametrize("value", [np.nan, np.inf, "x", None, True, 1j, np.ones(3)], ids=repr)
def test_what_measures_is_one_finite_number(value):
    """An array of three would have scaled each column by another number."""
    for argument, call in (
        ("scale", lambda: MOVE.apply_to(WEIGHTS, scale=value)),
        ("l2", lambda: lz.ntk.cross_entropy(np.eye(2), np.zeros((2, 2)), [0, 1], l2=value)),
    ):
        with pytest.raises(ValueError, match=re.escape(f"{argument}={value!r}; expected a finite")):
            call()


def test_integers_and_numbers_of_any_kind_are_welcome():
    for two in (2, np.int8(2), np.array(2), jnp.int32(2)):
        assert lz.ntk.eigenpairs(np.eye(4), two).values.shape == (2,)
        for scale in (two, np.float16(two), jnp.bfloat16(two)):
            moved = MOVE.apply_to(WEIGHTS, scale=scale)["w"]
            np.testing.assert_allclose(moved, 1.2, rtol=1e-6)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ([[1.0, 2.0], [3.0, 4.0]], r"is a list; .*np\.asarray\(data\['x'\]\)"),
        (np.array([[1, "a"], [2, "b"]], object), "has dtype object; expected numbers"),
        (np.array(["cat", "dog"]), "has dtype <U3; .*np.unique"),
        ({"a": {1, 2}}, "is a set; expected an array"),
    ],
)
def test_data_that_are_no_arrays_of_numbers_are_told_what_is(entry, words):
    data = {"x": entry, "labels": np.arange(2)}
    with pytest.raises(ValueError, match=rf"data\['x'\] {words}"):
        fine_tune(linear, WEIGHTS, data, regime="linear", inputs=("x",))

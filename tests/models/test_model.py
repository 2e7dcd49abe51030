"""A model of any kind as a function, its parameters and a few facts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import linearize as lz
from linearize import models


class Net(nnx.Module):
    """A model with state: in evaluation mode it normalises by the stored statistics."""

    def __init__(self, rngs):
        self.norm = nnx.BatchNorm(3, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.out = nnx.Linear(3, 2, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(self.norm(x)))


X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def test_a_model_in_any_form():
    f, params = (lambda p, x: x @ p["w"]), {"w": np.ones((3, 2))}
    model = lz.Model.of((f, params))
    assert (model.f, model.params, model.name) == (f, params, "model")
    assert lz.Model.of(model) is model

    net = Net(nnx.Rngs(0))
    ours = lz.Model.of(net)
    net.eval()
    np.testing.assert_allclose(ours.f(ours.params, X), net(X), rtol=1e-5, atol=1e-6)
    assert ours.name == "Net"

    dense = linen.Dense(2)
    variables = dense.init(jax.random.key(0), X)
    ours = lz.Model.of((dense, variables))
    np.testing.assert_array_equal(ours.f(ours.params, X), dense.apply(variables, X))
    assert ours.name == "Dense"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (linen.Dense(2), "the model is a Dense; expected a linearize.Model"),
        (lambda p, x: x, r"expected .*\(f, params\)"),
        ((3, {}), "f is a int"),
        (None, "the model is a NoneType"),
    ],
)
def test_what_is_no_model(given, message):
    with pytest.raises(TypeError, match=message):
        lz.Model.of(given)


def test_a_fake_batch_is_what_the_example_says():
    shape = jax.ShapeDtypeStruct
    example = (
        {"pixels": shape((2, 2, 3), np.uint8), "tokens": shape((5,), np.int32)},
        shape((), jnp.bfloat16),
        shape((6,), bool),
    )
    model = lz.Model(lambda p, *x: x, {}, example=example)
    batch = model.fake_batch(70, seed=1)
    assert jax.tree.map(lambda x: shape(x.shape[1:], x.dtype), batch) == example
    assert lz.Examples(batch).example == example
    assert set(np.unique(batch[0]["tokens"])) == {0, 1}
    assert batch[0]["pixels"].max() > 200
    for ours, again, other in zip(
        *(jax.tree.leaves(model.fake_batch(70, seed=s)) for s in (1, 1, 2)), strict=True
    ):
        np.testing.assert_array_equal(ours, again)
        assert not np.array_equal(ours, other)
    with pytest.raises(ValueError, match="has no example"):
        lz.Model.of((lambda p, x: x, {})).fake_batch(1)


def test_no_block_to_choose_from():
    with pytest.raises(ValueError, match=r"n=1; model has 0 block\(s\)$"):
        lz.Model(lambda p, x: x, {}).last(1)


def test_what_is_loaded_is_a_model():
    loaded = models.load("vit_s_focus", pretrained=False, image_size=14, blocks=1)
    assert isinstance(loaded, lz.Model)
    assert isinstance(loaded, models.Backbone)
    assert loaded.example == jax.ShapeDtypeStruct((14, 14, 3), np.uint8)
    assert loaded.image_size == 14
    np.testing.assert_array_equal(
        loaded.fake_batch(2, 3), np.random.default_rng(3).integers(0, 256, (2, 14, 14, 3), np.uint8)
    )
    outputs = jax.eval_shape(loaded.f, loaded.params, loaded.fake_batch(2))
    assert outputs.shape == (2, loaded.feature_dim)


def test_the_nouns_are_at_the_top():
    assert lz.Task is lz.data.Task
    assert lz.Model is models.Model

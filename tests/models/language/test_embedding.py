"""Tokens that a model lacks are no number, and no study takes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from linearize.data import split_task
from linearize.models import Model, load_language
from linearize.models.language.embedding import embedded
from linearize.objectives import Classify
from linearize.study import Study


def test_rows_are_the_product_with_one_hot_vectors_and_others_no_number():
    rng = np.random.default_rng(0)
    table, moved = rng.normal(size=(2, 5, 3)).astype(np.float32)
    numbers = np.array([[0, 4, -1], [5, 2, 2]])
    seen = (numbers >= 0) & (numbers < 5)
    expected = np.where(seen[..., None], np.eye(6)[numbers][..., :5] @ table, np.nan)
    np.testing.assert_allclose(embedded(table, numbers), expected, rtol=1e-6)
    _, push = jax.jvp(lambda t: embedded(t, numbers), (table,), (moved,))
    np.testing.assert_allclose(push[seen], (np.eye(6)[numbers][..., :5] @ moved)[seen], rtol=1e-6)
    assert np.isfinite(embedded(table, numbers, seen)).all()
    with pytest.raises(ValueError, match=r"tokens has shape \(3,\) .*expected \(B, L\) integers"):
        embedded(table, np.arange(3))
    with pytest.raises(ValueError, match="dtype float32; expected"):
        embedded(table, jnp.ones((1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["toy_decoder", "toy_bert", "toy_t5"])
def test_no_family_takes_a_token_for_another(name):
    model = load_language(name, pretrained=False)
    tokens, seen = np.array([[1, 2, 3]] * 3), np.ones((3, 3), bool)
    tokens[1, 1], tokens[2, 1] = model.vocabulary, -1
    inputs = {"toy_decoder": (tokens,), "toy_bert": (tokens, seen)}
    out = model.f(model.params, *inputs.get(name, (tokens, seen, tokens[:1].repeat(3, 0))))
    assert np.isfinite(out).all((1, 2)).tolist() == [True, False, False]
    if name == "toy_t5":
        out = model.f(model.params, tokens[:1].repeat(3, 0), seen, tokens)
        assert np.isfinite(out).all((1, 2)).tolist() == [True, False, False]
    if name == "toy_bert":
        out = model.f(model.params, tokens[:1], seen[:1], np.array([[0, 2, 1]]))
        assert not np.isfinite(out).any()


def test_a_study_of_another_model_s_tokens_names_the_first():
    tokens = np.arange(60).reshape(20, 3) % 7
    tasks = [split_task("mail", tokens, np.arange(20) % 2)]
    params = {"table": np.ones((6, 2), np.float32)}
    model = Model(
        lambda p, x: embedded(p["table"], x).sum(1), params, name="small", about={"vocabulary": 6}
    )
    with pytest.raises(ValueError, match=r"task 'mail', train example \d+: the token 6, and small"):
        Study(model, tasks, Classify())
    tasks = [split_task("mail", tokens.clip(0, 5), np.arange(20) % 2)]
    assert Study(model, tasks, Classify()).names == ("mail",)
    hidden = split_task("mail", (tokens, tokens < 6), np.arange(20) % 2)
    assert Study(model, [hidden], Classify()).names == ("mail",)

"""What pads an example changes neither its curvature nor what a vector does to it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import tree
from linearize.curvature import measure
from linearize.merge.regmean import grams
from linearize.methods import METHODS, diag_ggn, tak, tau_jp
from linearize.objectives import CausalLM

pytestmark = pytest.mark.usefixtures("quick_compilation")

close = partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-7)
rng = np.random.default_rng(0)
N, L, PAD, CLASSES = 4, 3, 2, 5
THETA0 = {
    "embed": rng.normal(size=(7, 4)).astype("f4"),
    "a": {"kernel": rng.normal(size=(4, 4)).astype("f4"), "bias": np.zeros(4, "f4")},
    "b": rng.normal(size=(4, CLASSES)).astype("f4"),
}
TAU = {n: 0.1 * rng.normal(size=x.shape).astype("f4") for n, x in tree.flatten(THETA0).items()}


def hidden(params, tokens):
    return jnp.tanh(
        params["embed"][tokens] @ params["a"]["kernel"] + params["a"]["bias"][None, None]
    )


def causal(params, tokens):
    """(B, L, V), each position of those before it and its own."""
    return jnp.cumsum(hidden(params, tokens), 1) @ params["b"]


def pooled(params, tokens, mask):
    """(B, C): attention over what the mask keeps."""
    h = hidden(params, tokens)
    weights = jax.nn.softmax(jnp.where(mask, h.sum(-1), -jnp.inf), axis=1)
    return jnp.einsum("bl,blk->bk", weights, h) @ params["b"]


def texts(pad):
    """Tokens and labels, with so many places behind that are not asked for."""
    draw = np.random.default_rng(1)
    tokens, labels = draw.integers(0, 6, (2, N, L))
    behind = partial(np.pad, pad_width=((0, 0), (0, pad)))
    return behind(tokens, constant_values=6), behind(labels % CLASSES, constant_values=-1)


def study(pad):
    tokens, labels = texts(pad)
    tasks = [lz.data.Task(n, *[lz.Examples(tokens, {"labels": labels})] * 3) for n in "xy"]
    recipe = lz.train.TrainConfig(steps=2, batch_size=2, checkpoint_every=0, tensorboard=False)
    recipes = dict.fromkeys(("linear", "nonlinear"), recipe)
    return lz.Study((causal, THETA0), tasks, CausalLM(), recipes=recipes)


@pytest.fixture(scope="module")
def both():
    return study(0), study(PAD)


def alike(plain, padded):
    for one, other in zip(plain, padded, strict=True):
        assert one.leaves == other.leaves
        for name, array in one.arrays.items():
            close(other.arrays[name], array, err_msg=f"{name} of {one.leaves}")


@pytest.mark.parametrize("kind", ["causal", pytest.param("pooled", marks=pytest.mark.slow)])
def test_factors_are_those_of_what_is_asked_for(kind):
    def card(pad):
        tokens, labels = texts(pad)
        how = {"normalized": False, "probes": None}
        if kind == "causal":
            return measure(causal, THETA0, tokens, asked=labels >= 0, **how)
        return measure(pooled, THETA0, (tokens, labels >= 0), **how)

    alike(card(0).blocks, card(PAD).blocks)


@pytest.mark.slow
def test_cards_diagonals_and_grams_of_a_study_are(both, monkeypatch):
    monkeypatch.setattr(tak, "measure", partial(tak.measure, probes=None))
    cards = [tak.card_of(each, "x", normalized=False, probes=None) for each in both]
    alike(*(card.blocks for card in cards))
    one, other = (diag_ggn.diagonal(s, "x", of="features", probes=None) for s in both)
    for name, entries in one.items():
        close(other[name], entries)
    known = lz.Method("known", "Known", "tangent", lambda study, task: lz.TaskVector(TAU))
    for name, gram in grams(both[0], known)["x"].items():
        close(grams(both[1], known)["x"][name].values, gram.values)


@pytest.mark.parametrize("how", ["each step", pytest.param("kept", marks=pytest.mark.slow)])
def test_tau_jp_sees_what_is_asked_for(both, how):
    def value(each):
        penalty = tau_jp.of_others(each, "x", kept=how == "kept", batch_size=N)
        state = penalty.state
        if how == "each step":
            (stream,) = state
            state = [tuple(jnp.asarray(stream.data[role]) for role in stream.roles)]
        return penalty.value(causal, THETA0, TAU, state, jax.random.key(0))

    plain, padded = map(value, both)
    close(padded, plain)
    moved = lz.affine_terms(causal, THETA0, [TAU], texts(0)[0])[1][0]
    close(plain, np.linalg.norm(np.asarray(moved).reshape(N, -1), axis=1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tau_jp", "delta"])
def test_vectors_are_those_of_what_is_asked_for(both, name, monkeypatch):
    monkeypatch.setattr(tak, "measure", partial(tak.measure, probes=None))
    plain, padded = (METHODS[name].train(each, "x").delta for each in both)
    for leaf, moved in plain.items():
        close(padded[leaf], moved, atol=1e-6)


def test_tasks_of_other_shapes_are_not_seen_in_turn():
    tokens, labels = texts(0)
    few = lz.Examples(tokens[:, :2], {"labels": labels[:, :2]})
    tasks = [*study(0).tasks.values(), lz.data.Task("z", few, few, few)]
    made = lz.Study((causal, THETA0), tasks, CausalLM())
    with pytest.raises(
        ValueError, match=r"\(16, 3\).* of 'y', .*\(16, 2\).* of 'z'; take 'tau_jp', "
    ):
        tau_jp.of_others(made, "x", in_turn=True)


class FirstToken(CausalLM):
    """Of a text only the token after its first."""

    def asked(self, batch):
        return super().asked(batch) & (np.arange(L) == 0)[None]


@pytest.mark.parametrize("kind", ["diagonal", pytest.param("card", marks=pytest.mark.slow)])
def test_what_is_kept_of_a_task_is_of_what_an_objective_asks_for(kind, tmp_path):
    def measured(objective, store):
        made = lz.Study((causal, THETA0), list(study(0).tasks.values()), objective, store=store)
        if kind == "diagonal":
            return diag_ggn.diagonal(made, "x", of="features", probes=None)["b"]
        card = tak.card_of(made, "x", normalized=False, probes=None)
        return np.asarray(next(block.b for block in card.blocks if block.leaves == ("b",)))

    whole, first = measured(CausalLM(), tmp_path), measured(FirstToken(), tmp_path)
    np.testing.assert_array_equal(measured(CausalLM(), tmp_path), whole)
    close(first, measured(FirstToken(), None))
    assert np.abs(first - whole).max() > 0.1 * np.abs(whole).max()

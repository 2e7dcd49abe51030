"""TaLoS against dense Jacobians in float64, its rounds once more by hand, and its masks kept."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import linearize as lz
from linearize import tree
from linearize.examples import Examples
from linearize.methods import TALOS, talos
from linearize.objectives import Classify, Squared
from linearize.train import OptimConfig, TrainConfig
from linearize.train.penalty import seed_of

pytestmark = pytest.mark.usefixtures("quick_compilation")

RECIPE = TrainConfig(
    optim=OptimConfig(lr=0.03, weight_decay=0.1, decay="theta"),
    steps=4,
    batch_size=8,
    checkpoint_every=0,
    tensorboard=False,
)


def network(params, x):
    hidden = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    return hidden @ params["b"]["kernel"]


def parameters(dtype):
    rng = np.random.default_rng(0)
    made = {
        "a": {"kernel": rng.normal(size=(4, 5)), "bias": rng.normal(size=(1, 5))},
        "b": {"kernel": rng.normal(size=(5, 3))},
    }
    return jax.tree.map(lambda leaf: leaf.astype(dtype), made)


def study(dtype=np.float32, seed=0, **options):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(50, 4)).astype(np.float32)
    y = (x @ rng.normal(size=(4, 3))).argmax(1)
    tasks = [lz.data.split_task(name, x + i, y) for i, name in enumerate(("one", "two"))]
    given = {"objectives": Classify(), "recipes": {"nonlinear": RECIPE}, "seed": seed, **options}
    return lz.Study((network, parameters(dtype)), tasks, **given)


def dense(params, x, key, score="log_probability"):
    """Scores by name, of the Jacobian of all logits, (N, C, P) float64, and of nothing else."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    logits = np.asarray(network(params, x))
    jacobian = np.asarray(jax.jacfwd(lambda flat: network(unravel(flat), x))(flat))
    drawn = [
        int(jax.random.categorical(jax.random.fold_in(key, i), jnp.asarray(row)))
        for i, row in enumerate(logits)
    ]
    slopes = jacobian[np.arange(len(x)), drawn]
    if score == "log_probability":
        shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        slopes = slopes - (shares[:, :, None] * jacobian).sum(1)
    return {n: np.asarray(s) for n, s in tree.flatten(unravel((slopes**2).sum(0))).items()}


@pytest.mark.slow
@pytest.mark.parametrize("score", talos.SCORES)
@pytest.mark.parametrize("batch_size", [3, 16])
def test_scores_are_squared_gradients_of_each_example(score, batch_size):
    """However the seven are batched, and padded."""
    with jax.enable_x64(True):
        x, key = np.random.default_rng(2).normal(size=(7, 4)), jax.random.key(5)
        params = jax.tree.map(jnp.asarray, parameters(np.float64))
        got = talos.sensitivity(
            network,
            params,
            Examples(x),
            tree.names(params),
            key,
            score=score,
            batch_size=batch_size,
        )
        expected = dense(params, jnp.asarray(x), key, score)
    assert got.keys() == expected.keys()
    for name, leaf in expected.items():
        assert got[name].dtype == np.float64
        np.testing.assert_allclose(got[name], leaf, rtol=1e-10)


@pytest.mark.slow
def test_a_head_is_part_of_what_is_differentiated_and_a_frozen_leaf_is_not_scored():
    with jax.enable_x64(True):
        x, key = np.random.default_rng(2).normal(size=(5, 4)), jax.random.key(1)
        kernel = np.random.default_rng(3).normal(size=(3, 3))
        head = Partial(lambda kernel, z: 2.0 * (z @ kernel), jnp.asarray(kernel))
        params = jax.tree.map(jnp.asarray, parameters(np.float64))
        got = talos.sensitivity(network, params, Examples(x), ["a/bias"], key, readout=head)
        whole = {**params, "b": {"kernel": params["b"]["kernel"] @ (2.0 * kernel)}}
        expected = dense(whole, jnp.asarray(x), key)
    assert list(got) == ["a/bias"]
    np.testing.assert_allclose(got["a/bias"], expected["a/bias"], rtol=1e-10)


def rounds_again(made, task, sparsity, rounds, shrunk):
    """The kept entries as a sorted list of (score, place), round by round."""
    theta, unravel = jax.flatten_util.ravel_pytree(made.model.params)
    theta, x = np.asarray(theta), jnp.asarray(made.split(task, "validation").inputs, jnp.float64)
    left = set(range(theta.size))
    for r in range(rounds):
        at = np.array([t if j in left else shrunk * t for j, t in enumerate(theta)])
        key = jax.random.key(seed_of(made.seed, f"talos/{r}"))
        scores = dense(unravel(jnp.asarray(at)), x, key)
        flat = np.concatenate([scores[n].ravel() for n in tree.names(made.model.params)])
        best = sorted(left, key=lambda j: flat[j])
        left = set(best[: round((1 - sparsity) ** ((r + 1) / rounds) * theta.size)])
    return np.isin(np.arange(theta.size), list(left))


@pytest.mark.slow(but=["0.6-2-0.5"])
@pytest.mark.parametrize(("sparsity", "rounds", "shrunk"), [(0.9, 4, 0.1), (0.6, 2, 0.5)])
def test_what_is_kept_is_what_a_dense_implementation_keeps(sparsity, rounds, shrunk):
    how = {"sparsity": sparsity, "rounds": rounds, "shrunk": shrunk}
    with jax.enable_x64(True):
        made = study(np.float64)
        got = talos.least_sensitive(made, "one", **how)
        expected = rounds_again(made, "one", **how)
        once = rounds_again(made, "one", sparsity, 1, shrunk)
    flat = np.concatenate([got[name].ravel() for name in tree.names(made.model.params)])
    np.testing.assert_array_equal(flat, expected)
    assert flat.sum() == round((1 - sparsity) * flat.size)
    assert (expected != once).any()  # the rounds matter here


@pytest.mark.slow
def test_validation_inputs_decide_and_nothing_else_of_the_data():
    made, mask = study(), talos.least_sensitive(study(), "one")
    task = made.tasks["one"]

    def with_splits(**splits):
        tasks = {**made.tasks, "one": dataclasses.replace(task, **splits)}
        return talos.least_sensitive(made.but(tasks=tasks, objectives=Classify()), "one")

    seen = task.validation
    relabelled = Examples(seen.inputs, {"labels": 2 - np.asarray(seen.labels)})
    same = with_splits(train=task.test, validation=relabelled)
    other = with_splits(validation=Examples(np.asarray(seen.inputs)[::-1], seen.targets))
    assert all((mask[n] == same[n]).all() for n in mask)
    assert any((mask[n] != other[n]).any() for n in mask)


@pytest.mark.slow
def test_what_is_dropped_stays_exactly_where_it_was_under_decay_of_theta(tmp_path):
    made = study(store=tmp_path)
    for task, tau in made.vectors(TALOS).items():
        mask = talos.least_sensitive(made, task)
        assert sum(int(m.sum()) for m in mask.values()) == 4  # a tenth of 40
        for name, leaf in tau.delta.items():
            np.testing.assert_array_equal(np.asarray(leaf)[~mask[name]], 0)
        assert sum(np.count_nonzero(leaf) for leaf in tau.delta.values()) == 4
    assert made.view(TALOS).passes


@pytest.mark.slow
def test_entries_that_nothing_feels_are_told(caplog):
    params = {**parameters(np.float32), "unused": np.ones(60, np.float32)}
    made = study().but(model=(network, params), objectives=Classify())
    mask = talos.least_sensitive(made, "one", rounds=1)
    assert mask["unused"].all()
    assert not mask["b/kernel"].any()
    assert "talos on one: its predictions" in caplog.text
    assert f"feel 60 of {60 + 4 * 5 + 5 + 5 * 3} entries" in caplog.text


def test_a_mask_is_found_once_and_again_where_something_else_is_asked(tmp_path, monkeypatch):
    calls = []
    real = talos.sensitivity
    monkeypatch.setattr(talos, "sensitivity", lambda *a, **k: calls.append(1) or real(*a, **k))

    def asked(**options):
        how = {n: options.pop(n) for n in ("sparsity", "trainable") if n in options}
        before = len(calls)
        mask = talos.least_sensitive(study(store=tmp_path, **options), "one", **how)
        return mask, len(calls) - before

    first, passes = asked()
    again, none = asked()
    assert (passes, none) == (4, 0)
    assert first.keys() == again.keys()
    assert all((first[n] == again[n]).all() for n in first)
    for other in (
        {"sparsity": 0.5},
        {"seed": 1},
        {"trainable": "kernel"},
        {"objectives": Classify(lambda z: 3.0 * z)},
    ):
        assert asked(**other)[1] == 4
    file = sorted(tmp_path.glob("masks/*.safetensors"))[0]
    file.write_bytes(file.read_bytes()[:-1])
    assert (
        sum(
            asked(**o)[1]
            for o in (
                {},
                {"sparsity": 0.5},
                {"seed": 1},
                {"trainable": "kernel"},
                {"objectives": Classify(lambda z: 3.0 * z)},
            )
        )
        == 4
    )


REFUSED = {
    "nothing kept": ({"sparsity": 1.0}, r"sparsity=1.0; expected a share in \[0, 1\)"),
    "too few": ({"sparsity": 0.99}, "sparsity=0.99 keeps none of the 40 entries"),
    "no number": ({"sparsity": "most"}, "sparsity='most'; expected a finite number"),
    "no round": ({"rounds": 0}, "rounds=0; expected an integer, 1 or more"),
    "a score": ({"score": "logits"}, "score='logits' is not one of .*; did you mean 'logit'"),
    "no leaf": ({"trainable": "gamma"}, "gamma.*picks no trainable leaf"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_keeps_nothing_is_refused_by_name(case):
    how, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        talos.least_sensitive(study(), "one", **how)


def test_another_objective_is_refused_and_scores_that_overflow():
    with pytest.raises(ValueError, match=r"objectives\['one'\] is Squared; TaLoS draws classes"):
        talos.least_sensitive(study(objectives=Squared()), "one")
    examples, w = Examples(np.ones((2, 4), np.float32)), np.zeros((4, 3), np.float32)
    with pytest.raises(
        tree.NonFiniteError, match=r"(?s)the sensitivity holds NaN or inf.*w: 12 of"
    ):
        talos.sensitivity(
            lambda params, x: 1e25 * (x @ params["w"]), {"w": w}, examples, ["w"], jax.random.key(0)
        )

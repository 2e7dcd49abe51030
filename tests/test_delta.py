"""DELTA's steps against dense Jacobians in float64, its α, its reference sets, and as a method."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

import linearize as lz
from linearize import tree
from linearize.cost import count_flops
from linearize.curvature import Card
from linearize.curvature.blocks import Dense
from linearize.methods import DELTA, METHODS, delta, tak
from linearize.objectives import Classify
from linearize.train import NonFiniteLossError, OptimConfig, TrainConfig, loop

pytestmark = pytest.mark.usefixtures("quick_compilation")

SGD = TrainConfig(
    optim=OptimConfig("sgd", lr=0.25, schedule="constant", clip=None),
    steps=3,
    batch_size=32,
    checkpoint_every=2,
    tensorboard=False,
)
"""Of all training examples of a task, so that their order is no matter."""
WEIGHT, MATCH = 0.5, 4.0


def network(params, x):
    hidden = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    return hidden @ params["b"]["kernel"]


def parameters(dtype=np.float32):
    rng = np.random.default_rng(0)
    made = {
        "a": {"kernel": rng.normal(size=(4, 5)), "bias": rng.normal(size=(1, 5))},
        "b": {"kernel": rng.normal(size=(5, 3))},
    }
    return jax.tree.map(lambda leaf: leaf.astype(dtype), made)


def study(dtype=np.float32, **options):
    rng, tasks = np.random.default_rng(1), []
    for name in ("one", "two", "three"):
        x = [rng.normal(size=(32, 4)).astype(dtype) for _ in range(3)]
        turn = rng.normal(size=(4, 3))
        train, validation, test = ((each, (each @ turn).argmax(1)) for each in x)
        tasks.append(lz.Task(name, train, validation, test))
    given = {"recipes": {"nonlinear": SGD}, "control": "three", **options}
    return lz.Study((network, parameters(dtype)), tasks, Classify(), **given)


def card(dtype=np.float32, seed=0, **meta):
    """Of a reference set: a whole block of each leaf."""
    rng, blocks = np.random.default_rng(seed), []
    for name, leaf in tree.flatten(parameters()).items():
        root = rng.normal(size=(leaf.size, leaf.size)) / leaf.size
        g = jnp.asarray((root @ root.T)[None], dtype)
        blocks.append(Dense(g, leaf=name, shape=leaf.shape))
    return Card(tuple(blocks), meta=meta)


def dense(made, task, reference, factor, low=0.5, high=2.0):
    """Three steps of both, of a ravelled θ, its Jacobian and G as one matrix, by name of leaf."""
    theta, unravel = jax.flatten_util.ravel_pytree(made.model.params)
    examples = made.split(task, "train")
    x, hot = examples.inputs, np.eye(3)[examples.labels]
    parts = [np.asarray(block.g[0]) * factor for block in reference.blocks]
    G = scipy.linalg.block_diag(*parts)

    def f(theta):
        return network(unravel(theta), x)

    def ce(logits):
        return -jnp.mean((jax.nn.log_softmax(logits) * hot).sum(-1))

    @jax.jit
    def moved(both, key):
        f0, J = f(theta), jax.jacfwd(f)(theta)
        alpha = jax.random.uniform(key, (), minval=low, maxval=high)
        goal = f0 + alpha * (J @ both[1])

        def objective(both):
            s, t = both
            held = WEIGHT * (s @ G @ s + t @ G @ t)
            apart = jnp.mean((f(theta + alpha * s) - goal) ** 2)
            return ce(f(theta + s)) + ce(f0 + J @ t) + held + MATCH * apart

        return [
            tau - 0.25 * grad for tau, grad in zip(both, jax.grad(objective)(both), strict=True)
        ]

    both = [jnp.zeros_like(theta)] * 2
    for step in range(SGD.steps):
        both = moved(both, jax.random.fold_in(jax.random.key(made.seed), step))
    return [tree.flatten(unravel(tau)) for tau in both]


def test_steps_are_those_of_dense_jacobians_in_float64():
    """Of student and teacher; blocks that are no layer's count tenfold, as in TAK."""
    with jax.enable_x64(True):
        made, reference = study(np.float64, seed=3), card(np.float64)
        how = {"reference": {"r": reference}, "weight": WEIGHT, "match": MATCH}
        found = delta.train_pair(made, "one", **how)
        expected = dense(made, "one", reference, factor=10.0)
        base = tree.fingerprint(made.model.params)
    for tau, leaves in zip(found, expected, strict=True):
        assert tau.delta.keys() == leaves.keys()
        for name, leaf in leaves.items():
            assert tau.delta[name].dtype == np.float64
            np.testing.assert_allclose(tau.delta[name], leaf, rtol=1e-6, atol=1e-9)
        assert tau.base == base
    apart = [float(np.linalg.norm(found[0].delta[n] - found[1].delta[n])) for n in expected[0]]
    assert min(apart) > 1e-3  # two models, not one


@pytest.fixture(scope="module")
def method():
    return delta.delta({"wide set": card()}, weight=WEIGHT, match=MATCH)


@pytest.mark.slow
def test_a_run_that_goes_on_is_bitwise_the_same(method, tmp_path, monkeypatch):
    whole = study(store=tmp_path / "whole").vectors(method)
    advance = loop._Run._advance

    def dying(self, at):
        if at >= 2:
            raise KeyboardInterrupt
        return advance(self, at)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "_advance", dying)
        with pytest.raises(KeyboardInterrupt):
            study(store=tmp_path / "cut").vectors(method)
    again = study(store=tmp_path / "cut").vectors(method)
    lent = study(borrowed=tmp_path / "whole").vectors(method)
    other = study(seed=1).vectors(method)
    for task, tau in whole.items():
        assert float((again[task] - tau).norm()) == 0 == float((lent[task] - tau).norm())
        assert float((other[task] - tau).norm()) > 1e-4 * float(tau.norm())  # the α alone
        assert tau.meta["penalties"] == {"delta": WEIGHT}
    assert (tmp_path / "cut" / "pairs" / method.name / "one" / "metrics.jsonl").exists()


def test_what_g_is_of_is_said_and_is_what_is_used(method):
    assert (method.name, method.label) == ("delta_on_wide_set", "DELTA on wide set")
    assert {"delta", "delta_on_control", "delta_posthoc"} <= METHODS.keys()
    assert METHODS["delta_posthoc"].trainer is DELTA
    made, cards = study(), {name: card(seed=i) for i, name in enumerate(("one", "two", "three"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tak, "card_of", lambda study, task, **how: cards[task])
        others, control = (
            delta.of_reference(made, "one", reference) for reference in ("others", "control")
        )
    for penalty, name in ((others, "two"), (control, "three")):
        (blocks,) = penalty.state
        for mine, whole in zip(blocks, cards[name].blocks, strict=True):
            np.testing.assert_allclose(mine.g, 10 * whole.g, rtol=1e-6)


REFUSED = {
    "one task": ({}, "one", {"control": None}, "delta leaves other tasks alone"),
    "no control": ({"reference": "control"}, "two", {"control": None}, "give the study a control="),
    "no interval": ({"low": 2.0, "high": 1.0}, "two", {}, "low=2.0, high=1.0; expected"),
    "a sign": ({"match": -1.0}, "two", {}, "match=-1.0; expected 0 or more"),
    "no number": ({"high": np.inf}, "two", {}, "high=inf; expected a finite number"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_train_is_refused_by_name(case):
    how, tasks, options, message = REFUSED[case]
    made = study(**options)
    if tasks == "one":
        made = made.but(tasks={"one": made.tasks["one"]}, objectives=Classify())
    with pytest.raises(ValueError, match=message):
        delta.train_pair(made, "one", **how)


@pytest.mark.slow
def test_a_run_that_diverges_says_at_which_step(method):
    wild = replace(SGD, optim=replace(SGD.optim, lr=1e30))
    with pytest.raises(NonFiniteLossError, match="step 1 is not finite"):
        study(recipes={"nonlinear": wild}).vectors(method)


@pytest.mark.slow
def test_the_recipe_s_label_smoothing_is_not_dropped():
    made = study(recipes={"nonlinear": replace(SGD, label_smoothing=0.3)})
    smoothed = replace(made.objectives["one"], smoothing=0.3)
    same = study()
    objectives = {**same.objectives, "one": smoothed}
    how = {"reference": {"r": card()}, "weight": WEIGHT}
    told = delta.train_pair(made, "one", **how)
    own = delta.train_pair(same.but(objectives=objectives), "one", **how)
    plain = delta.train_pair(same, "one", **how)
    assert float((told[0] - own[0]).norm()) == 0 < float((told[0] - plain[0]).norm())


def test_a_step_costs_eleven_forward_passes():
    """Three of the student, five of the teacher, three of the student at α: 11 ÷ 3 = 3.7 times."""
    params = {f"layer{i}": np.eye(64, dtype=np.float32) for i in range(9)}
    x = np.ones((8, 64), np.float32)

    def f(params, x):
        for name in sorted(params):
            x = jnp.tanh(x @ params[name])
        return x

    def loss(moving, x):
        outputs = delta.pair(f, {delta.BASE: params, **moving}, 1.5, x)
        return sum(jnp.square(y).sum() for y in jax.tree.leaves(outputs))

    moving = dict.fromkeys(delta.ROLES, params)
    cost = count_flops(jax.grad(loss), moving, x) / count_flops(f, params, x)
    assert 10 < cost <= 11

"""The loop: what it optimises, in which order, at what cost."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.tree_util import Partial

from linearize import taylor, tree
from linearize.cost import count_flops
from linearize.train import OptimConfig, TrainConfig, cross_entropy, feed, fine_tune, step
from linearize.train.mesh import Placement

REGIMES = ("nonlinear", "linear")


def distance(a, b):
    """Relative distance of two task vectors."""
    a, b = tree.flatten(a), tree.flatten(b)
    return float(tree.norm({n: a[n] - b[n] for n in a}) / tree.norm(b))


@pytest.mark.slow(but=["linear"])
@pytest.mark.parametrize("regime", REGIMES)
def test_equals_plain_optax_on_the_written_out_loss(problem, regime):
    config = TrainConfig(
        optim=OptimConfig(lr=1e-2, weight_decay=0.1, warmup=3), steps=7, batch_size=16
    )
    got = fine_tune(problem.f, problem.params0, problem.data, regime=regime, config=config)

    def objective(tau, x, y):
        if regime == "linear":
            logits, moved = jax.jvp(lambda p: problem.f(p, x), (problem.params0,), (tau,))
            logits = logits + moved
        else:
            logits = problem.f(jax.tree.map(jnp.add, problem.params0, tau), x)
        log_p = jax.nn.log_softmax(logits)
        return -jnp.mean(log_p[jnp.arange(len(y)), y])

    def rate(count):  # the papers' schedule, from its formula
        warm, rest = (count + 1) / 3, (count - 3) / (7 - 3)
        return 1e-2 * jnp.where(count < 3, warm, 0.5 * (1 + jnp.cos(jnp.pi * rest)))

    adamw = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.1))
    tau = jax.tree.map(jnp.zeros_like, problem.params0)
    state = adamw.init(tau)
    gradient = jax.jit(jax.grad(objective))
    for index in feed.rows(50, 16, seed=0, first=0, count=7):
        grads = gradient(tau, problem.data["inputs"][index], problem.data["labels"][index])
        updates, state = adamw.update(grads, state, tau)
        tau = optax.apply_updates(tau, updates)
    assert distance(got.tau, tau) < 1e-5


@pytest.mark.parametrize("regime", REGIMES)
def test_it_learns(problem, regime):
    got = problem.run(regime, steps=150, steps_per_call=50)
    assert got.history[0]["loss"] > 1.0
    assert got.history[-1]["loss"] < 0.3 * got.history[0]["loss"]
    assert got.history[-1]["accuracy"] > 0.9
    f_run = step.REGIMES[regime](problem.f)
    logits = f_run(problem.params0, got.tau, problem.data["inputs"])
    assert np.mean(np.argmax(logits, 1) == problem.data["labels"]) > 0.9


@pytest.mark.parametrize("decay", ["tau", "theta"])
def test_decay_acts_on_what_it_says(problem, decay):
    """One AdamW step with a zero gradient leaves τ = −lr wd θ0, or nothing to decay."""
    optim = OptimConfig(
        lr=0.5, weight_decay=0.2, decay=decay, schedule="constant", options={"eps": 1e30}
    )
    got = problem.run(steps=1, optim=optim)
    for name, theta0 in tree.flatten(problem.params0).items():
        expected = -0.5 * 0.2 * theta0 if decay == "theta" else np.zeros_like(theta0)
        np.testing.assert_allclose(got.tau.delta[name], expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize(("regime", "own"), [("nonlinear", False), ("linear", True)])
def test_accumulation_equals_the_big_batch(problem, regime, own):
    loss = (lambda out, batch: cross_entropy(out, batch["labels"])) if own else None
    # plain descent: Adam would divide rounding differences by themselves
    settings = {"optim": OptimConfig(name="sgd", lr=0.5, clip=None), "loss": loss}
    whole = problem.run(regime, **settings)
    parts = problem.run(regime, accumulate=4, **settings)
    assert distance(parts.tau, whole.tau) < 1e-6
    np.testing.assert_allclose(
        [row["loss"] for row in parts.history], [row["loss"] for row in whole.history], rtol=1e-6
    )


def test_label_smoothing_against_dense_targets():
    rng = np.random.default_rng(1)
    logits = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    labels = jnp.asarray(rng.integers(5, size=6))
    targets = 0.8 * np.eye(5)[labels] + 0.2 / 5
    expected = -np.sum(targets * np.asarray(jax.nn.log_softmax(logits)), axis=1)
    np.testing.assert_allclose(cross_entropy(logits, labels, 0.2), expected, rtol=1e-5)


def test_ascent_climbs_where_descent_falls(problem):
    down = problem.run(steps=30)
    up = problem.run(steps=30, direction="ascend")
    assert down.history[-1]["loss"] < down.history[0]["loss"]
    assert up.history[-1]["loss"] > up.history[0]["loss"]
    assert up.history[0]["loss"] == down.history[0]["loss"]


def test_only_the_picked_leaves_are_trained(problem):
    got = problem.run(trainable="second")
    assert tuple(got.tau.delta) == ("second/kernel",)
    with pytest.raises(ValueError, match="picks no trainable leaf"):
        problem.run(trainable="third")


def test_frozen_head_is_part_of_the_loss_and_not_of_tau(problem):
    head = jnp.asarray(np.random.default_rng(2).normal(size=(4, 4)), jnp.float32)
    apply = Partial(lambda kernel, features: features @ kernel, head)
    as_head = problem.run(readout=apply)
    inside = problem.run(loss=lambda out, batch: cross_entropy(out @ head, batch["labels"]))
    assert distance(as_head.tau, inside.tau) < 1e-5
    assert set(as_head.tau.delta) == set(tree.names(problem.params0))


def test_loss_of_ones_own_sees_the_whole_batch(problem):
    """Two tasks in one run: each example goes through the head of its task."""
    heads = jnp.asarray(np.random.default_rng(3).normal(size=(2, 4, 3)), jnp.float32)
    data = {
        "inputs": problem.data["inputs"],
        "labels": problem.data["labels"] % 3,
        "task": np.arange(50, dtype=np.int32) % 2,
    }

    def joint(heads, features, batch):
        logits = jnp.einsum("bd,bdc->bc", features, heads[batch["task"]])
        return cross_entropy(logits, batch["labels"])

    got = problem.run("nonlinear", data=data, loss=Partial(joint, heads), steps=100)
    assert got.history[-1]["loss"] < 0.7 * got.history[0]["loss"]
    assert "accuracy" not in got.history[0]


@pytest.mark.parametrize("steps_per_call", [1, 7])
def test_one_compilation_and_no_transfers(problem, steps_per_call, monkeypatch):
    """After the first call, dispatching steps moves nothing from the host."""
    step.programs.cache_clear()
    made = []
    original = step.programs.__wrapped__

    def record(*args):
        made.append(original(*args))
        return made[-1]

    from linearize.train import loop

    monkeypatch.setattr(loop, "programs", record)
    advance = loop._Run._advance
    guarded = []

    def guard(self, at):
        self.feed.window(at)
        if steps_per_call > 1:
            self._count(min(steps_per_call, self._until_event(at)))
        if at == 0:
            return advance(self, at)
        guarded.append(at)
        with jax.transfer_guard_host_to_device("disallow"):
            return advance(self, at)

    monkeypatch.setattr(loop._Run, "_advance", guard)
    problem.run(steps=20, steps_per_call=steps_per_call)
    (program,) = made
    used = program.step if steps_per_call == 1 else program.steps
    assert used._cache_size() == 1
    assert len(guarded) == (19 if steps_per_call == 1 else 3)  # the first step, which is checked


def test_runs_share_one_compilation(problem):
    """Another head, data set, length, seed and base model are arguments, not new programs."""
    step.programs.cache_clear()
    rng = np.random.default_rng(4)

    def apply(kernel, features):
        return features @ kernel

    for run in range(3):
        data = {name: leaf[: 30 + run] for name, leaf in problem.data.items()}
        head = Partial(apply, jnp.asarray(rng.normal(size=(4, 4)), jnp.float32))
        problem.run(data=data, readout=head, steps=5 + run, seed=run)
    assert step.programs.cache_info().misses == 1


def test_steps_per_call_changes_nothing_but_rounding(problem):
    one = problem.run(steps=23)
    many = problem.run(steps=23, steps_per_call=10)
    assert distance(many.tau, one.tau) < 1e-5
    assert [row["step"] for row in many.history] == list(range(1, 24))
    np.testing.assert_allclose(
        [row["loss"] for row in many.history], [row["loss"] for row in one.history], rtol=1e-4
    )


def test_streamed_data_gives_the_resident_result(problem):
    resident = problem.run()
    streamed = problem.run(device_bytes=0)
    for name, delta in resident.tau.delta.items():
        np.testing.assert_array_equal(streamed.tau.delta[name], delta)


def test_every_epoch_has_its_own_order_and_each_example_once():
    order = feed.rows(10, 4, seed=0, first=0, count=10).reshape(4, 10)
    for epoch in order:
        assert sorted(epoch) == list(range(10))
    assert len({tuple(epoch) for epoch in order}) == 4
    np.testing.assert_array_equal(feed.rows(10, 4, 0, first=3, count=4), order.reshape(10, 4)[3:7])
    assert not np.array_equal(feed.rows(10, 4, seed=1, first=0, count=10), order.reshape(10, 4))
    small = feed.rows(3, 8, seed=0, first=0, count=3).reshape(8, 3)
    assert all(sorted(epoch) == [0, 1, 2] for epoch in small)


@given(st.integers(1, 300), st.integers(0, 2**40), st.integers(0, 1000))
def test_an_epochs_order_is_a_permutation_and_repeatable(examples, seed, epoch):
    order = feed.permutation.__wrapped__(examples, seed, epoch)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(examples))
    np.testing.assert_array_equal(order, feed.permutation.__wrapped__(examples, seed, epoch))


def test_the_seed_decides_everything(problem):
    first, again, other = problem.run(), problem.run(), problem.run(seed=1)
    assert distance(first.tau, again.tau) == 0
    assert distance(first.tau, other.tau) > 1e-3


@pytest.mark.slow
def test_augmentation_draws_from_seed_and_step(problem):
    def noise(key, batch):
        moved = batch["inputs"] + 0.1 * jax.random.normal(key, batch["inputs"].shape)
        return {**batch, "inputs": moved}

    plain, first = problem.run(), problem.run(augment=noise)
    again, other = problem.run(augment=noise), problem.run(augment=noise, seed=5)
    assert distance(first.tau, plain.tau) > 1e-3
    assert distance(first.tau, again.tau) == 0
    assert distance(first.tau, other.tau) > 1e-3
    in_parts = problem.run(augment=noise, accumulate=2)
    assert distance(in_parts.tau, first.tau) > 1e-4


@pytest.mark.parametrize("device_bytes", [1 << 20, 0])
def test_an_example_may_have_a_key_of_its_own(problem, device_bytes):
    keys = jax.random.split(jax.random.key(5), len(problem.data["labels"]))
    x = problem.data["inputs"]
    noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))

    def augment(key, batch):
        return {**batch, "inputs": batch["inputs"] + noise(batch["keys"])}

    drawn = problem.run(
        data={**problem.data, "keys": keys}, augment=augment, device_bytes=device_bytes, steps=4
    )
    given = problem.run(data={**problem.data, "inputs": np.asarray(x + noise(keys))}, steps=4)
    for name, leaf in given.tau.delta.items():
        np.testing.assert_allclose(drawn.tau.delta[name], leaf, rtol=1e-5, atol=1e-8)


def test_learning_rate_counts_optimizer_steps(problem):
    got = problem.run(steps=12, accumulate=4)
    expected = [0.01 * (s + 1) / 3 for s in range(3)] + [
        0.005 * (1 + np.cos(np.pi * (s - 3) / 9)) for s in range(3, 12)
    ]
    np.testing.assert_allclose([row["lr"] for row in got.history], expected, rtol=1e-5)


def test_epochs_give_the_number_of_steps(problem):
    assert problem.run(epochs=4, batch_size=10).steps == 20


def test_intermediate_vectors_are_those_of_the_path(problem):
    config = OptimConfig(lr=1e-2, schedule="constant")
    got = problem.run(optim=config, save_vectors_at=(3, 20))
    short = problem.run(optim=config, steps=3)
    assert distance(got.vectors[3], short.tau) == 0
    assert distance(got.vectors[20], got.tau) == 0
    assert got.vectors[3].meta["steps"] == 3


def test_validation_is_called_with_the_present_tau(problem):
    seen = []

    def validation(params0, tau):
        seen.append(float(tree.norm(tau)))
        yield "norm", seen[-1]

    got = problem.run(steps=10, validate_every=4, validation=validation)
    rows = {row["step"]: row["validation/norm"] for row in got.history if "validation/norm" in row}
    assert list(rows) == [4, 8, 10]
    norms = {row["step"]: row["tau_norm"] for row in got.history if "tau_norm" in row}
    for at, value in rows.items():
        assert value == pytest.approx(norms[at], rel=1e-6)


@pytest.mark.parametrize(("regime", "limit"), [("linear", 5.1), ("nonlinear", 3.1)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_operations_of_a_step(regime, limit, accumulate):
    """θ0 is not differentiated: 5F and 3F, where F is a forward pass (NUMERICS: the bug is 9F)."""
    rng = np.random.default_rng(0)
    sizes = [64] * 9 + [10]
    params0 = {
        f"layer{i}": rng.normal(size=(a, b)).astype(np.float32)
        for i, (a, b) in enumerate(itertools.pairwise(sizes))
    }

    def f(params, x):
        for name in sorted(params):
            x = jnp.tanh(x @ params[name])
        return x

    batch = {
        "inputs": rng.normal(size=(32, 64)).astype(np.float32),
        "labels": np.zeros(32, np.int32),
    }
    split, arrays = step.Callables.of({"f": f, "loss": None, "readout": None, "augment": None})
    recipe = step.Recipe(
        split, regime, ("inputs",), OptimConfig(), accumulate, 0.0, ascend=False, own_loss=False
    )
    fixed = {"params0": params0, "arrays": arrays, "total": jnp.int32(9), "key": jax.random.key(0)}
    place = Placement.make(None)
    state = recipe.init(params0, 9, tree.names(params0))
    cost = count_flops(lambda *a: recipe.step(*a, place), state, fixed, batch)
    forward = count_flops(f, params0, batch["inputs"])
    assert (limit - 1) * forward < cost <= limit * forward


def _update(f, params0, regime, **optim):
    """``step(state, batch, in_place)`` without data, and the first state."""
    split, arrays = step.Callables.of({"f": f, "loss": None, "readout": None, "augment": None})
    config = OptimConfig(**optim)
    recipe = step.Recipe(split, regime, ("inputs",), config, 1, 0.0, ascend=False, own_loss=False)
    fixed = {"params0": params0, "arrays": arrays, "total": jnp.int32(9), "key": jax.random.key(0)}
    place = Placement.make(None)

    def run(state, batch, in_place):
        return recipe.step(state, fixed, batch, place, in_place)

    return run, recipe.init(params0, 9, tree.names(params0))


@pytest.mark.slow(but=["linear-tau", "nonlinear-theta"])
@pytest.mark.parametrize("decay", ["tau", "theta"])
@pytest.mark.parametrize("regime", ["linear", "nonlinear"])
def test_a_step_in_place_is_the_same_step(problem, regime, decay):
    run, start = _update(problem.f, problem.params0, regime, lr=0.01, weight_decay=0.1, decay=decay)
    ends = []
    for in_place in (True, False):
        state = start
        for _ in range(4):
            state, _ = jax.jit(run, static_argnums=2)(state, problem.data, in_place)
        ends.append(state)
    assert int(ends[0]["step"]) == 4
    for ours, theirs in zip(*map(jax.tree.leaves, ends), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_step_that_is_not_finite_changes_nothing(problem, in_place):
    run, state = _update(problem.f, problem.params0, "linear", lr=0.01)
    compiled = jax.jit(run, static_argnums=2)
    before, _ = compiled(state, problem.data, in_place)
    broken = problem.data | {"inputs": problem.data["inputs"] * np.nan}
    after, metrics = compiled(before, broken, in_place)
    further, _ = compiled(after, problem.data, in_place)
    assert int(metrics["bad"]) == 2
    assert np.isnan(np.asarray(further["bad_metrics"])[0])
    for name in ("tau", "opt", "step"):
        for old, new in zip(*map(jax.tree.leaves, (before[name], further[name])), strict=True):
            np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize("decay", ["tau", "theta"])
@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_donated_state_is_overwritten(clip, decay):
    """Beside it there are the gradient and the update, and no third array of τ's size."""
    params0 = {f"layer_{i}": jnp.ones((512, 512)) for i in range(4)}

    def f(params, x):
        for name in sorted(params):
            x = jnp.tanh(x @ params[name])
        return x

    run, state = _update(f, params0, "linear", clip=clip, decay=decay, weight_decay=0.1)
    batch = {"inputs": np.ones((2, 512), np.float32), "labels": np.zeros(2, np.int32)}
    donating = jax.jit(run, static_argnums=2, donate_argnums=0)
    memory = donating.lower(state, batch, True).compile().memory_analysis()
    tau = 4 * 512 * 512 * 4
    assert memory.alias_size_in_bytes >= 3 * tau
    assert memory.temp_size_in_bytes < 2.5 * tau


def test_a_large_state_is_overwritten_on_cpu_too():
    place = Placement.make(None)
    half = jax.ShapeDtypeStruct((64 << 20,), jnp.float32)
    assert [step.overwritten(place, [half] * n) for n in (1, 2)] == [False, True]


@pytest.mark.parametrize("on_cpu", [False, True])
def test_a_small_state_is_donated_but_on_cpu(problem, on_cpu):
    step.programs.cache_clear()
    from linearize.train import loop

    kept = []
    advance = loop._Run._advance

    def keep(self, at):
        kept.append(self.state["tau"]["first/kernel"])
        return advance(self, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "_advance", keep)
        patch.setattr(Placement, "on_cpu", on_cpu)
        problem.run(steps=5)
    step.programs.cache_clear()
    assert [old.is_deleted() for old in kept] == [not on_cpu] * 5


@pytest.mark.slow
def test_bfloat16_base_with_float32_tau(problem):
    params0 = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), problem.params0)
    got = dataclasses.replace(problem, params0=params0).run(steps=60)
    assert all(delta.dtype == jnp.float32 for delta in got.tau.delta.values())
    assert got.history[-1]["loss"] < got.history[0]["loss"]


def test_the_vector_remembers_its_making(problem):
    got = problem.run("linear", meta={"task": "toy"})
    assert got.tau.base == tree.fingerprint(problem.params0)
    assert got.tau.meta["regime"] == "linear"
    assert got.tau.meta["task"] == "toy"
    assert got.tau.meta["steps"] == 20
    assert got.tau.meta["config"]["optim"]["lr"] == 1e-2
    moved = got.tau.apply_to(problem.params0)
    f_lin = taylor.linearize(problem.f, problem.params0)
    x = problem.data["inputs"][:3]
    np.testing.assert_allclose(
        f_lin(moved, x), taylor.tangent(problem.f)(problem.params0, got.tau, x), rtol=1e-4
    )


BAD = {
    "regime": ({"regime": "lineal"}, "did you mean 'linear'"),
    "posthoc": ({"regime": "posthoc"}, "evaluates a 'nonlinear' vector"),
    "empty": ({"data": {"inputs": np.zeros((0, 8)), "labels": np.zeros(0, int)}}, "no example"),
    "ragged": (
        {"data": {"inputs": np.zeros((3, 8)), "labels": np.zeros(2, int)}},
        "inputs: 3, labels: 2",
    ),
    "no labels": ({"data": {"inputs": np.zeros((3, 8), np.float32)}}, "no entry 'labels'"),
    "label range": (
        {"data": {"inputs": np.zeros((3, 8), np.float32), "labels": np.array([0, 4, 1])}},
        "lie in 0..4, but the logits have 4 classes",
    ),
    "label type": (
        {"data": {"inputs": np.zeros((3, 8), np.float32), "labels": np.zeros(3)}},
        "expected one integer an example",
    ),
    "loss shape": ({"loss": lambda out, batch: jnp.mean(out)}, r"expected one value\s+an example"),
    "loss and readout": ({"loss": lambda out, b: out[:, 0], "readout": lambda z: z}, "readout"),
    "loss and smoothing": (
        {"loss": lambda out, b: out[:, 0], "label_smoothing": 0.1},
        r"label_smoothing=0\.1 belongs to the default loss",
    ),
    "warm-up": ({"steps": 3}, "leaves nothing of 3"),
    "vectors": ({"save_vectors_at": (99,)}, r"\[99\] lie outside 1..20"),
    "accumulate": ({"accumulate": 3}, "does not divide batch_size=16"),
    "batch": ({"batch_size": 0}, "batch_size=0; expected 1 or more"),
    "smoothing": ({"label_smoothing": 1.0}, "label_smoothing=1.0"),
    "seed": ({"seed": 2**32}, "seed=4294967296; expected an integer from 0 to 4294967295"),
    "direction": ({"direction": "up"}, "expected one of 'descend', 'ascend'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_says_what_to_do(problem, case):
    overrides, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        problem.run(**overrides)


def test_nan_in_weights_is_refused(problem):
    params0 = {**problem.params0, "second": {"kernel": np.full((16, 4), np.nan, np.float32)}}
    with pytest.raises(tree.NonFiniteError, match="second/kernel"):
        dataclasses.replace(problem, params0=params0).run()

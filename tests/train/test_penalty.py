"""Penalties beside the loss: dense references, identity, resumption, meshes, checks, cost."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import linearize as lz
from linearize.agreement import DisagreementError
from linearize.cost import count_flops
from linearize.train import (
    MeshConfig,
    NonFiniteLossError,
    OptimConfig,
    Penalty,
    RunMismatchError,
    Stream,
    feed,
    penalty,
    step,
)
from linearize.train.mesh import Placement

RNG = np.random.default_rng(3)
OTHERS = [RNG.normal(size=(n, 8)).astype(np.float32) for n in (20, 31)]
SHAPES = {"first/bias": np.zeros(16), "first/kernel": np.zeros((8, 16))}
SHAPES["second/kernel"] = np.zeros((16, 4))
FACTORS = {
    name: tuple(m @ m.T for m in (RNG.normal(size=(n, n)).astype(np.float32) for n in shape))
    for name, shape in {"first/kernel": (8, 16), "second/kernel": (16, 4)}.items()
}
SGD = OptimConfig("sgd", lr=0.05, clip=None, schedule="constant")


def interference(f, params0, tau, state, key):
    """Mean over other tasks of mean over their examples of ‖J(x)τ‖²."""

    def square(batch):
        _, moved = lz.affine_terms(f, params0, [tau], *batch)
        return jnp.mean(jnp.sum(moved[0] ** 2, -1))

    return sum(map(square, state)) / len(state)


def kronecker(f, params0, tau, state, key):
    """Σ over kernels of tr(B ΔWᵀ A ΔW)."""
    return sum(jnp.sum((a @ tau[n] @ b) * tau[n]) for n, (a, b) in state.items())


def ridge(f, params0, tau, state, key):
    return lz.tree.dot(tau, tau)


def scaled_ridge(scale, f, params0, tau, state, key):
    return scale * lz.tree.dot(tau, tau)


def noise(f, params0, tau, state, key):
    """Another direction each step."""
    return sum(jnp.sum(t * jax.random.normal(key, t.shape)) for t in tau.values())


def tau_jp(weight=0.5, batch_size=4, others=OTHERS):
    return Penalty(
        "tau_jp", interference, weight, [Stream({"inputs": x}, batch_size) for x in others]
    )


def tak(weight=0.01, factors=FACTORS):
    return Penalty("tak", kronecker, weight, factors)


def column(result, name):
    return [row[f"penalty/{name}"] for row in result.history if f"penalty/{name}" in row]


def assert_same(got, expected):
    assert list(got.delta) == list(expected.delta)
    for name, delta in expected.delta.items():
        np.testing.assert_array_equal(got.delta[name], delta)


def dense(problem, penalised, steps, weight):
    """τ and penalties of plain descent in float64: f's Jacobians at θ0 are arrays."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), problem.params0)
        flat, unravel = jax.flatten_util.ravel_pytree(wide)
        outputs = lambda flat, x: problem.f(unravel(flat), x)  # noqa: E731

        def jacobian(x):
            return np.asarray(jax.jacfwd(outputs)(flat, jnp.asarray(x, jnp.float64)))

        x, labels = problem.data["inputs"], problem.data["labels"]
        f0, jac = np.asarray(outputs(flat, jnp.asarray(x, jnp.float64))), jacobian(x)
        tau, values = np.zeros(flat.size), []
        for at in range(steps):
            (rows,) = feed.rows(len(x), 16, 0, at, 1)
            logits = f0[rows] + jac[rows] @ tau
            p = np.exp(logits - logits.max(1, keepdims=True))
            p = p / p.sum(1, keepdims=True) - np.eye(4)[labels[rows]]
            value, slope = penalised(tau, at, jacobian)
            tau = tau - 0.05 * (np.einsum("nc,ncp->p", p, jac[rows]) / 16 + weight * slope)
            values.append(value)
        return lz.tree.flatten(jax.tree.map(np.asarray, unravel(jnp.asarray(tau)))), values


def test_interference_follows_dense_jacobians(problem):
    def penalised(tau, at, jacobian):
        value, slope = 0.0, 0.0
        for number, others in enumerate(OTHERS):
            seed = penalty.seed_of(0, f"penalty 'tau_jp': state/{number}")
            (rows,) = feed.rows(len(others), 4, seed, at, 1)
            jac = jacobian(others[rows])
            moved = jac @ tau
            value += (moved**2).sum(1).mean() / 2
            slope += 2 * np.einsum("nc,ncp->p", moved, jac) / 4 / 2
        return value, slope

    expected, values = dense(problem, penalised, steps=4, weight=0.5)
    got = problem.run(optim=SGD, steps=4, penalties=[tau_jp()])
    for name, leaf in got.tau.delta.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=2e-4, atol=1e-7)
    np.testing.assert_allclose(column(got, "tau_jp"), values, rtol=1e-5, atol=1e-12)
    assert values[-1] > 1e-4


@pytest.mark.slow
def test_a_kronecker_factored_curvature_is_exact_for_one_layer_and_one_example():
    """tr(B ΔWᵀ A ΔW) of A = x xᵀ, B = 1 is τᵀ JᵀJ τ, and its gradient the dense one's."""
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(1, 3)).astype(np.float32), {"w": rng.normal(size=(3, 2))}
    jac = np.einsum("i,cd->cid", x[0], np.eye(2)).reshape(2, 6)
    data = {"inputs": np.eye(3, dtype=np.float32), "labels": np.array([0, 1, 1])}
    config = lz.train.TrainConfig(optim=SGD, steps=3, batch_size=3, tensorboard=False)
    run = {"regime": "linear", "config": replace(config, log_every=1), "progress": False}
    f = lambda params, x: x @ params["w"]  # noqa: E731
    state = {"w": (x.T @ x, np.eye(2, dtype=np.float32))}
    got = lz.train.fine_tune(f, w, data, penalties=[Penalty("g", kronecker, 0.7, state)], **run)
    tau, values = np.zeros(6), []
    for _ in range(3):
        logits = w["w"] + tau.reshape(3, 2)
        p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(2)[data["labels"]]
        values.append(tau @ jac.T @ jac @ tau)
        tau = tau - 0.05 * (p.ravel() / 3 + 0.7 * 2 * jac.T @ jac @ tau)
    np.testing.assert_allclose(got.tau.delta["w"], tau.reshape(3, 2), rtol=1e-5)
    np.testing.assert_allclose(column(got, "g"), values, rtol=1e-5)


@pytest.mark.parametrize(
    ("regime", "direction"),
    [("linear", "ascend"), pytest.param("nonlinear", "descend", marks=pytest.mark.slow)],
)
def test_penalties_add_up_whichever_way_the_loss_goes_and_once_a_step(problem, regime, direction):
    """0.1 ‖τ‖² and 0.05 ‖τ‖² beside the loss are a decay of 0.3, of the same plain descent."""
    shared = {"steps": 5, "direction": direction, "accumulate": 2}
    parts = [Penalty("a", ridge, 0.1), Penalty("b", ridge, 0.05)]
    got = problem.run(regime, penalties=parts, optim=SGD, **shared)
    same = problem.run(regime, optim=replace(SGD, weight_decay=0.3), **shared)
    for name, leaf in got.tau.delta.items():
        np.testing.assert_allclose(leaf, same.tau.delta[name], rtol=1e-5, atol=1e-8)
    assert column(got, "a") == column(got, "b")
    assert column(got, "a")[1] > 0
    assert got.tau.meta["penalties"] == {"a": 0.1, "b": 0.05}


def killed(problem, run_dir, **how):
    """A run that dies after twelve of its steps, the last checkpoint at ten."""

    def validation(params0, tau):
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        problem.run(run_dir=run_dir, validation=validation, validate_every=12, **how)


class Made:
    """A loader of examples of another task."""

    def __init__(self, inputs):
        self.inputs, self.examples, self.columns = inputs, len(inputs), {}
        self.spec = {"inputs": (inputs.shape[1:], inputs.dtype)}
        self.fingerprint = str(inputs.sum())

    def batches(self, batch_size, seed, first):
        for at in itertools.count(first):
            yield {"inputs": self.inputs[feed.rows(self.examples, batch_size, seed, at, 1)[0]]}


def loaded():
    return replace(tau_jp(), state=[Stream(Made(x), 4) for x in OTHERS])


def in_turn():
    return replace(tau_jp(), state=[Stream([{"inputs": x} for x in OTHERS], 4)])


@pytest.mark.slow(but=["in turn"])
@pytest.mark.parametrize(
    ("made", "how"),
    [
        pytest.param(lambda: [tau_jp(), Penalty("noise", noise, 0.1)], {}, id="streams"),
        pytest.param(lambda: [in_turn()], {"device_bytes": 0}, id="in turn"),
        pytest.param(lambda: [loaded(), tak()], {"steps_per_call": 4}, id="loader"),
        pytest.param(lambda: [tak(), Penalty("n", noise, 0.1)], {"steps_per_call": 4}, id="loop"),
    ],
)
def test_a_run_that_goes_on_is_bitwise_the_same(problem, tmp_path, made, how):
    whole = problem.run(penalties=made(), **how)
    killed(problem, tmp_path / "run", penalties=made(), **how)
    step.programs.cache_clear()  # as in a new process
    resumed = problem.run(penalties=made(), run_dir=tmp_path / "run", **how)
    assert resumed.resumed_from == 10
    assert_same(resumed.tau, whole.tau)
    names = [name for name in whole.history[0] if name.startswith("penalty/")]
    assert names
    for name in names:
        assert [r[name] for r in resumed.history] == [r[name] for r in whole.history]


@pytest.mark.slow
def test_where_the_examples_of_a_penalty_lie_decides_nothing(problem):
    whole = problem.run(penalties=[tau_jp()])
    assert_same(problem.run(penalties=[tau_jp()], device_bytes=0).tau, whole.tau)
    assert_same(problem.run(penalties=[loaded()]).tau, whole.tau)
    size = sum(x.nbytes for x in problem.data.values())
    apart = problem.run(penalties=[tau_jp()], device_bytes=size + OTHERS[0].nbytes)
    assert_same(apart.tau, whole.tau)


@pytest.mark.slow
def test_sets_in_turn_are_each_seen_in_its_turn():
    stream = Stream([{"inputs": x, "labels": x} for x in OTHERS], 4)
    assert [list(each) for each in stream.sets] == [["inputs"], ["inputs"]]
    place = Placement.make(None)
    feeds = [feed.Streamed(each, 4, 7, place) for each in stream.sets]
    turns = feed.Turns(feeds, stream.roles)
    for at in range(6):
        (rows,) = feed.rows(len(OTHERS[at % 2]), 4, 7, at // 2, 1)
        np.testing.assert_array_equal(turns.batch(at)[0], OTHERS[at % 2][rows])
        turns.prepare(at + 1)


def other_interference(f, params0, tau, state, key):
    return 1.5 * interference(f, params0, tau, state, key)


CHANGES = {
    "weight": lambda: [tau_jp(weight=0.4), tak()],
    "batch": lambda: [tau_jp(batch_size=2), tak()],
    "data": lambda: [tau_jp(others=[OTHERS[0] + 1e-6, OTHERS[1]]), tak()],
    "fewer sets": lambda: [tau_jp(others=OTHERS[:1]), tak()],
    "in turn": lambda: [in_turn(), tak()],
    "another order": lambda: [tau_jp(others=OTHERS[::-1]), tak()],
    "function": lambda: [replace(tau_jp(), value=other_interference), tak()],
    "name": lambda: [replace(tau_jp(), name="mine"), tak()],
    "state": lambda: [
        tau_jp(),
        tak(factors={**FACTORS, "first/kernel": (FACTORS["first/kernel"][0], np.eye(16))}),
    ],
    "fewer leaves": lambda: [tau_jp(), tak(factors={"first/kernel": FACTORS["first/kernel"]})],
    "one less": lambda: [tau_jp()],
    "none": list,
}


@pytest.fixture(scope="module")
def finished(problem, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    problem.run(penalties=[tau_jp(), tak()], run_dir=run_dir, steps=4)
    return run_dir


@pytest.mark.parametrize("change", CHANGES)
def test_another_penalty_is_another_run(problem, finished, change):
    with pytest.raises(RunMismatchError):
        problem.run(penalties=CHANGES[change](), run_dir=finished, steps=4)


def test_the_same_penalties_in_any_order_are_the_same_run(problem, finished):
    again = problem.run(penalties=[tak(), tau_jp()], run_dir=finished, steps=4)
    assert again.reused
    assert again.history[-1]["penalty/tau_jp"] > 0


@pytest.mark.slow
def test_a_function_that_holds_something_else_by_now_is_another(problem, tmp_path):
    scale = np.ones(1, np.float32)

    def scaled(f, params0, tau, state, key):
        return scale[0] * lz.tree.dot(tau, tau)

    made = [Penalty("scaled", scaled, 0.3)]
    problem.run(penalties=made, steps=4, run_dir=tmp_path / "run")
    one = problem.run(penalties=made, steps=4)
    scale[:] = 5
    five = problem.run(penalties=made, steps=4)
    assert column(five, "scaled")[1] == pytest.approx(5 * column(one, "scaled")[1], rel=1e-5)
    with pytest.raises(RunMismatchError, match="penalty/scaled"):
        problem.run(penalties=made, steps=4, run_dir=tmp_path / "run")


@pytest.mark.slow
def test_weights_states_and_data_are_arguments_of_one_program(problem):
    step.programs.cache_clear()
    for run in range(2):
        factors = {n: tuple(run * m for m in pair) for n, pair in FACTORS.items()}
        others = [x[run:] + run for x in OTHERS]
        held = Penalty("held", Partial(scaled_ridge, jnp.float32(run)))
        made = [tau_jp(0.1 * run, others=others), tak(run, factors), held]
        got = problem.run(penalties=made, steps=4, seed=run)
    assert step.programs.cache_info().misses == 1
    assert column(got, "tak")[-1] > 0
    assert column(got, "held")[-1] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "mesh", [MeshConfig.data_parallel(), MeshConfig.fsdp()], ids=["whole", "split"]
)
def test_on_a_mesh_penalties_are_what_they_are_alone(problem, mesh, monkeypatch):
    from linearize.train import loop

    made, seen = [tau_jp(batch_size=8), replace(tak(), state={**FACTORS})], {}
    diagonal = {"first/kernel": np.ones((8, 16), np.float32), "x": np.ones(3, np.float32)}
    made.append(
        Penalty(
            "ggn",
            lambda f, p, tau, s, key: (s["first/kernel"] * tau["first/kernel"] ** 2).sum(),
            0.1,
            diagonal,
        )
    )
    alone = problem.run(penalties=made, optim=SGD)
    prepare = loop._Run._prepare

    def look(self):
        prepare(self)
        seen["terms"] = self.setting.recipe.functions.join(self.setting.arrays)
        seen["drawn"] = self.streams[0].batch(0)

    monkeypatch.setattr(loop._Run, "_prepare", look)
    got = problem.run(penalties=made, optim=SGD, mesh=mesh)
    for name, leaf in alone.tau.delta.items():
        np.testing.assert_allclose(got.tau.delta[name], leaf, rtol=1e-4, atol=1e-7)
    for name in ("tau_jp", "tak", "ggn"):
        np.testing.assert_allclose(column(got, name), column(alone, name), rtol=1e-4, atol=1e-9)
    assert len({str(s.index) for s in seen["drawn"][0].addressable_shards}) == 8
    shards = seen["terms"]["penalty/ggn"].state["first/kernel"].addressable_shards
    assert {s.data.shape for s in shards} == {(8, 2) if mesh.rules else (8, 16)}
    with pytest.raises(ValueError, match="8 devices, which do not divide penalty 'tau_jp'"):
        problem.run(penalties=[tau_jp(batch_size=4)], mesh=mesh)


@pytest.mark.slow(but=["gradient-1", "value-2"])
@pytest.mark.parametrize("steps_per_call", [1, 2])
@pytest.mark.parametrize("wrong", ["gradient", "value", "batch"])
def test_a_program_that_computes_a_penalty_wrongly_is_found(
    problem, monkeypatch, wrong, steps_per_call
):
    right = step.Recipe._added

    def broken(self, functions, fixed, state, drawn):
        if wrong == "batch":  # memory that nobody wrote
            drawn = [jax.tree.map(lambda x: x.at[0].set(7.0), batch) for batch in drawn]
        grads, values = right(self, functions, fixed, state, drawn)
        if wrong == "gradient":
            grads = jax.tree.map(lambda g: -g, grads)
        if wrong == "value":
            values = {n: 1.5 * v for n, v in values.items()}
        return grads, values

    monkeypatch.setattr(step.Recipe, "_added", broken)
    step.programs.cache_clear()
    made = [tau_jp()] if wrong == "batch" else [tak()]
    with pytest.raises(DisagreementError, match="of the second linear step"):
        problem.run(penalties=made, steps_per_call=steps_per_call)
    step.programs.cache_clear()


@pytest.mark.slow
def test_a_penalty_that_pulls_at_once_is_checked_with_the_first_step(problem, monkeypatch):
    right = step.Recipe._added

    def broken(self, *args):
        grads, values = right(self, *args)
        return jax.tree.map(lambda g: -g, grads), values

    made = [Penalty("pull", lambda f, p, tau, s, key: sum(jnp.sum(t) for t in tau.values()))]
    problem.run(penalties=made, steps=4)
    monkeypatch.setattr(step.Recipe, "_added", broken)
    step.programs.cache_clear()
    with pytest.raises(DisagreementError, match="gradient of the first linear step"):
        problem.run(penalties=made, steps=4)
    step.programs.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_the_form_that_overwrites_the_state_is_the_same_and_checked(
    problem, monkeypatch, steps_per_call
):
    """As on an accelerator: the second way looks at τ before the step that overwrites it."""
    mask = {n: np.arange(x.size).reshape(x.shape) % 3 > 0 for n, x in SHAPES.items()}
    made = [tau_jp(), tak()] if steps_per_call == 1 else [tak()]
    how = {"penalties": made, "mask": mask, "steps_per_call": steps_per_call, "steps": 8}
    apart = problem.run(**how)
    monkeypatch.setattr(step, "_LARGE", 0)
    got = problem.run(**how)
    for name, leaf in apart.tau.delta.items():
        np.testing.assert_allclose(got.tau.delta[name], leaf, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(got.tau.delta[name][~mask[name]], 0)
    np.testing.assert_allclose(column(got, "tak"), column(apart, "tak"), rtol=1e-4)
    right = step.Recipe._added
    monkeypatch.setattr(
        step.Recipe, "_added", lambda *a: (jax.tree.map(jnp.negative, right(*a)[0]), right(*a)[1])
    )
    step.programs.cache_clear()
    with pytest.raises(DisagreementError, match="gradient of the penalties of the second"):
        problem.run(**how)
    step.programs.cache_clear()


@pytest.mark.slow
def test_examples_of_others_that_a_program_mixes_up_are_found(problem, monkeypatch):
    right = feed.gather

    def shifted(data, order, *rest):
        return right(data, order if "labels" in data else (order + 1) % 20, *rest)

    monkeypatch.setattr(feed, "gather", shifted)
    step.programs.cache_clear()
    with pytest.raises(DisagreementError, match="are not the data's in a batch"):
        problem.run(penalties=[tau_jp()])
    step.programs.cache_clear()


@pytest.mark.slow
def test_a_run_that_goes_on_is_checked_too(problem, monkeypatch, tmp_path):
    right = step.Recipe._added
    killed(problem, tmp_path / "run", penalties=[tak()])
    monkeypatch.setattr(
        step.Recipe,
        "_added",
        lambda *a: (right(*a)[0], jax.tree.map(lambda v: v + 1, right(*a)[1])),
    )
    step.programs.cache_clear()
    with pytest.raises(DisagreementError, match="penalty/tak of the second"):
        problem.run(penalties=[tak()], run_dir=tmp_path / "run")
    step.programs.cache_clear()


@pytest.mark.slow
def test_a_norm_without_a_gradient_at_zero_is_named(problem):
    norm = Penalty("norm", lambda f, p, tau, s, key: jnp.sqrt(lz.tree.dot(tau, tau)))
    with pytest.raises(
        NonFiniteLossError, match=r"penalty/norm has no finite gradient.*a norm has"
    ):
        problem.run(penalties=[norm])

    def later(f, params0, tau, state, key):
        return jnp.where(lz.tree.dot(tau, tau) > 0.01, jnp.inf, 0.0) + 0 * lz.tree.dot(tau, tau)

    with pytest.raises(NonFiniteLossError, match="penalty/later is inf before that step"):
        problem.run(penalties=[Penalty("later", later)])
    missing = tau_jp(others=[OTHERS[0], np.full_like(OTHERS[1], np.nan)])
    with pytest.raises(
        NonFiniteLossError, match="'tau_jp': state/1: entry '0' not finite in 4 of 4"
    ):
        problem.run(penalties=[missing])


WRONG = {
    "one, not a sequence": (lambda: Penalty("x", ridge), TypeError, r"penalties=\[Penalty"),
    "no penalty": (lambda: [ridge], TypeError, "a function where a sequence of Penalty"),
    "twice": (lambda: [tak(), tak()], ValueError, r"\['tak'\] are there twice"),
    "no name": (lambda: [Penalty("", ridge)], ValueError, "expected a name"),
    "no function": (lambda: [Penalty("x", 3.0)], ValueError, "expected a function value"),
    "weight": (lambda: [Penalty("x", ridge, -1.0)], ValueError, "weight=-1.0; expected 0 or more"),
    "beyond float32": (lambda: [Penalty("x", ridge, 1e39)], ValueError, "0 or more, in float32"),
    "nan": (lambda: [Penalty("x", ridge, float("nan"))], ValueError, "expected a finite number"),
    "vector": (
        lambda: [Penalty("x", lambda f, p, tau, s, k: tau["first/bias"])],
        ValueError,
        r"penalty/x gives float32\[16\]; expected one real",
    ),
    "nothing": (lambda: [Penalty("x", lambda *a: None)], ValueError, "penalty/x gives None"),
    "state": (lambda: [Penalty("x", ridge, 1.0, {"a": "text"})], ValueError, "holds a str at 'a'"),
    "infinite": (
        lambda: [Penalty("x", ridge, 1.0, {"a": np.array([np.inf])})],
        ValueError,
        "penalty 'x': state holds NaN",
    ),
    "no set": (lambda: [Penalty("x", ridge, 1.0, Stream([], 4))], ValueError, "empty sequence"),
    "role": (
        lambda: [Penalty("x", ridge, 1.0, Stream({"images": OTHERS[0]}, 4))],
        ValueError,
        "no entry 'inputs'; it has 'images'",
    ),
    "role, not a sequence": (
        lambda: [Penalty("x", ridge, 1.0, Stream({"inputs": OTHERS[0]}, 4, "inputs"))],
        ValueError,
        r"roles='inputs'; expected a sequence of names, such as \['inputs'\]",
    ),
    "batch": (lambda: [tau_jp(batch_size=0)], ValueError, "batch_size=0; expected an integer"),
    "shapes in turn": (
        lambda: [
            Penalty(
                "x", ridge, 1.0, Stream([{"inputs": OTHERS[0]}, {"inputs": OTHERS[0][:, 1:]}], 4)
            )
        ],
        ValueError,
        "a Stream of its own",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_said(problem, case):
    made, error, message = WRONG[case]
    with pytest.raises(error, match=message):
        problem.run(penalties=made())


def deep(params, x):
    for name in sorted(params):
        x = jnp.tanh(x @ params[name])
    return x


@pytest.mark.parametrize("fixed_set", [False, True])
def test_operations_of_a_step_with_examples_of_others(fixed_set):
    """New examples cost 5 b/B passes, as the loss's own do; a fixed set's residuals save the first.

    Forward at θ0, tangent (2), its transpose (2): the same floor as for the loss.
    """
    rng = np.random.default_rng(0)
    params0 = {f"layer{i}": rng.normal(size=(64, 64)).astype(np.float32) for i in range(9)}
    size, few = 32, 8
    x = rng.normal(size=(size, 64)).astype(np.float32)
    if fixed_set:
        _, push = jax.linearize(lambda params: deep(params, x[:few]), params0)

        def square(f, params0, tau, state, key):
            return jnp.mean(jnp.sum(state(tau) ** 2, -1))

        made, passes = [Penalty("tau_jp", square, 0.5, push)], 4
    else:
        made, passes = [tau_jp(batch_size=few, others=[x])], 5
    _, terms, _ = penalty.take_apart(made)
    named = {"f": deep, "loss": None, "readout": None, "augment": None}
    counts = []
    for given in (named, named | terms):
        split, arrays = step.Callables.of(given)
        names = tuple(name for name in given if name not in named)
        recipe = step.Recipe(
            split, "linear", ("inputs",), OptimConfig(), 1, 0.0, False, False, names
        )
        fixed = {"params0": params0, "arrays": arrays, "total": 9, "key": jax.random.key(0)}
        fixed |= {"weights": jnp.ones(1), "keys": jax.random.split(jax.random.key(0), 1)}
        state = recipe.init(params0, 9, tuple(params0))
        batch = {"inputs": x, "labels": np.zeros(size, np.int32)}
        drawn = [(x[:few],)] * (bool(names) and not fixed_set)
        place = Placement.make(None)
        taken = lambda *a: recipe.step(*a, place, True, drawn)  # noqa: B023, E731
        counts.append(count_flops(taken, state, fixed, batch))
    forward = count_flops(deep, params0, x)
    plain, whole = (count / forward for count in counts)
    assert plain <= 5
    assert (passes - 1) * few / size < whole - plain <= passes * few / size


@pytest.mark.slow
def test_a_state_may_hold_a_plain_function(problem):
    def through(f, params0, tau, state, key):
        return ridge(f, params0, tau, (), key) * state["by"](2.0)

    held = [Penalty("ridge", through, 0.1, {"by": by}) for by in (jnp.square, Partial(jnp.square))]
    one, two = (problem.run(optim=SGD, steps=2, penalties=[each]) for each in held)
    assert_same(one.tau, two.tau)

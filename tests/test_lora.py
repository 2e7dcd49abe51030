"""LoRA and L-LoRA against explicit layers and dense Jacobians in (A, B), and as methods."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import taylor, train, tree
from linearize.comparison import Plan
from linearize.methods import L_LORA, LORA, METHODS, lora, named, talos, tau_jp, weighted
from linearize.methods.ortho_reg import of_matrices
from linearize.models import Adapter, stack
from linearize.models.lora import adapted
from linearize.objectives import Classify
from linearize.study import Method
from linearize.train import OptimConfig, Penalty, RunMismatchError, TrainConfig, step

pytestmark = pytest.mark.usefixtures("quick_compilation")

SGD = TrainConfig(
    optim=OptimConfig("sgd", lr=0.5, schedule="constant", clip=None),
    steps=3,
    batch_size=32,
    checkpoint_every=0,
    tensorboard=False,
)
"""Of all training examples of a task, so that their order is no matter."""


def network(params, x):
    hidden = jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    return hidden @ params["b"]["kernel"]


def parameters(dtype=np.float32):
    rng = np.random.default_rng(0)
    made = {
        "a": {"kernel": rng.normal(size=(4, 6)), "bias": rng.normal(size=(1, 6))},
        "b": {"kernel": rng.normal(size=(6, 3))},
    }
    return jax.tree.map(lambda leaf: leaf.astype(dtype), made)


def study(**options):
    rng = np.random.default_rng(1)
    tasks = []
    for name in ("one", "two", "three"):
        x = [rng.normal(size=(32, 4)).astype(np.float32) for _ in range(3)]
        turn = rng.normal(size=(4, 3))
        train, validation, test = ((each, (each @ turn).argmax(1)) for each in x)
        tasks.append(lz.Task(name, train, validation, test))
    given = {"recipes": {"nonlinear": SGD, "linear": SGD}, **options}
    return lz.Study((network, parameters()), tasks, Classify(), **given)


def explicit(params, factors, scale, x):
    """The network with adapters as a layer has them: x W + s (x A) B."""
    a, b = ((*factors[n],) for n in ("a/kernel", "b/kernel"))
    hidden = x @ params["a"]["kernel"] + scale * (x @ a[0]) @ a[1] + params["a"]["bias"]
    hidden = jnp.tanh(hidden)
    return hidden @ params["b"]["kernel"] + scale * (hidden @ b[0]) @ b[1]


def drawn(rng, adapter):
    return {
        f"{n}/{part}": rng.normal(size=x.shape)
        for part, factors in (("lora_a", adapter.a), ("lora_b", adapter.b))
        for n, x in factors.items()
    }


@pytest.mark.slow(but=["2"])
@pytest.mark.parametrize("rank", [1, 2, 9])
def test_linearized_is_the_explicit_jacobian_in_a_and_b(rank):
    """In float64, along displacements of both; J is 0 in A, where B is 0."""
    with jax.enable_x64(True):
        rng, params = np.random.default_rng(2), parameters(np.float64)
        x = jnp.asarray(rng.normal(size=(5, 4)))
        start = Adapter.start(params, rank=rank, alpha=3.0)
        assert start.a["a/kernel"].dtype == np.float64
        moved = drawn(rng, start)
        of_b = {n: d for n, d in moved.items() if n.endswith("lora_b")}
        deltas = [start.moved(each).delta() for each in (of_b, moved)]
        first, there = (
            {n: (each.a[n], each.b[n]) for n in start.a} for each in (start, start.moved(moved))
        )
        f, joined = adapted(network, params, start.scale), start.joined(params)

        @jax.jit
        def everything(deltas):
            def layers(factors):
                return explicit(params, factors, 3.0 / rank, x)

            tangents = (
                taylor.tangent(f)(joined, moved, x),
                lz.tangent(network)(params, deltas[0], x),
            )
            points = taylor.displaced(f)(joined, moved, x), network(tree.add(params, deltas[1]), x)
            return jax.jacfwd(layers)(first), network(params, x), tangents, points, layers(there)

        jac, expected, tangents, points, reached = everything(deltas)
        for name, (in_a, in_b) in jac.items():
            assert not np.any(in_a)
            expected = expected + np.tensordot(in_b, moved[f"{name}/lora_b"], 2)
        for got in tangents:
            np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
        for got in points:
            np.testing.assert_allclose(got, reached, rtol=1e-11, atol=1e-12)


@pytest.fixture(scope="module")
def trained():
    made = study()
    how = {"lora": "nonlinear", "l_lora": "linear"}
    return made, {
        name: {
            task: lora.train_adapter(made, task, regime=regime, method=name, rank=2, alpha=3.0)
            for task in ("one", "two")
        }
        for name, regime in how.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "l_lora"])
def test_training_is_descent_on_a_and_b_of_the_explicit_layers(trained, name):
    """Three steps on the whole batch, written down once more; of the linear one by dense J."""
    made, found = trained
    params = made.model.params
    for task, (adapter, tau) in found[name].items():
        start = Adapter.start(params, rank=2, alpha=3.0, seed=made.seed)
        factors = first = {n: (start.a[n], start.b[n]) for n in start.a}
        examples = made.split(task, "train")
        x, hot = jnp.asarray(examples.inputs), jax.nn.one_hot(examples.labels, 3)

        def outputs(factors, x=x, first=first):
            if name == "lora":
                return explicit(params, factors, 1.5, x)
            jac = jax.jacfwd(lambda at: explicit(params, at, 1.5, x))(first)
            moved = jax.tree.map(jnp.subtract, factors, first)
            parts = jax.tree.map(lambda j, d: jnp.tensordot(j, d, 2), jac, moved)
            return sum(jax.tree.leaves(parts), start=network(params, x))

        def loss(factors, outputs=outputs, hot=hot):
            return -jnp.mean((jax.nn.log_softmax(outputs(factors)) * hot).sum(-1))

        for _ in range(SGD.steps):
            grads = jax.grad(loss)(factors)
            factors = jax.tree.map(lambda w, g: w - 0.5 * g, factors, grads)
        for leaf, (a, b) in factors.items():
            np.testing.assert_allclose(adapter.a[leaf], a, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(adapter.b[leaf], b, rtol=1e-4, atol=1e-6)
            delta = np.float64(tau.delta[leaf])
            np.testing.assert_allclose(delta, 1.5 * np.float64(a) @ b, rtol=1e-3, atol=1e-5)
            assert np.linalg.matrix_rank(delta, tol=1e-6 * np.linalg.norm(delta)) == 2
        assert set(tau.delta) == {"a/kernel", "b/kernel"}
        assert tau.base == tree.fingerprint(params)
        assert tau.meta["lora"] == {"rank": 2, "alpha": 3.0}
        assert (tau.meta["task"], tau.meta["steps"]) == (task, 3)


@pytest.mark.slow
def test_penalties_take_the_factors_too():
    """A model that holds a function, here that of the adapted one, beside a penalty's state."""
    params, start = parameters(), Adapter.start(parameters(), rank=2)
    ridge = Penalty("ridge", lambda f, params0, tau, state, key: tree.dot(tau, tau), 0.1)
    data = study().split("one", "train").arrays()
    found = train.fine_tune(
        *(adapted(network, params, start.scale), start.joined(params), data),
        regime="linear",
        config=SGD,
        trainable="/lora_b$",
        penalties=[ridge],
    )
    assert set(found.tau.delta) == {f"{name}/lora_b" for name in start.b}
    assert found.history[-1]["penalty/ridge"] > 0


def cross_entropy(outputs, labels):
    return -jnp.mean((jax.nn.log_softmax(outputs) * jax.nn.one_hot(labels, 3)).sum(-1))


def felt(made, task, delta):
    """Mean ‖J(x) ΔW‖ over the other tasks' examples, by a dense Jacobian; at 0 without a slope."""
    moved = []
    for other in made.names:
        if other != task:
            x = jnp.asarray(made.split(other, "train").inputs)
            flat = tree.flatten(jax.jacfwd(network)(made.model.params, x))
            moved.append(sum(jnp.tensordot(flat[n], d, d.ndim) for n, d in delta.items()))
    squares = jnp.square(jnp.concatenate(moved)).sum(-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0).mean()


def far_from_orthonormal(made, task, delta):
    return sum(jnp.square(d.T @ d - jnp.eye(d.shape[1])).sum() for d in delta.values())


PENALISED = {
    "l_lora-tau_jp": ("linear", partial(tau_jp.of_others, batch_size=32), felt),
    "lora-ortho_reg": ("nonlinear", of_matrices, far_from_orthonormal),
    "lora-tau_jp": ("nonlinear", partial(tau_jp.of_others, batch_size=32), felt),
}


@pytest.mark.slow(but=["l_lora-tau_jp"])
@pytest.mark.parametrize("case", PENALISED)
def test_a_penalty_of_adapters_is_that_of_the_matrices_that_they_make(case):
    """Three steps of descent on the explicit layers and a dense penalty of s A B, at θ0."""
    regime, penalty, value = PENALISED[case]
    made, weight = study(), 0.05
    how = {"regime": regime, "method": "mine", "rank": 2, "alpha": 3.0}
    train_with = partial(lora.train_adapter, made, "one", **how)
    adapter, _ = train_with(penalties=[penalty], weight=weight)
    params, start = made.model.params, Adapter.start(parameters(), rank=2, alpha=3.0, seed=0)
    factors = first = {n: (start.a[n], start.b[n]) for n in start.a}
    examples = made.split("one", "train")

    def outputs(factors):
        layers = partial(explicit, params, scale=1.5, x=jnp.asarray(examples.inputs))
        if regime == "nonlinear":
            return layers(factors=factors)
        moved = jax.tree.map(jnp.subtract, factors, first)
        return sum(jax.jvp(lambda at: layers(factors=at), (first,), (moved,)))

    def objective(factors):
        delta = {n: 1.5 * a @ b for n, (a, b) in factors.items()}
        return cross_entropy(outputs(factors), examples.labels) + weight * value(made, "one", delta)

    rates = 0.0 if regime == "linear" else 0.5, 0.5  # of A, which the linear one leaves, and of B
    for _ in range(SGD.steps):
        slopes = jax.grad(objective)(factors)
        factors = {
            n: tuple(w - by * g for w, by, g in zip(each, rates, slopes[n], strict=True))
            for n, each in factors.items()
        }
    for leaf, (a, b) in factors.items():
        np.testing.assert_allclose(adapter.a[leaf], a, rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(adapter.b[leaf], b, rtol=1e-3, atol=1e-5)
    free, _ = train_with(penalties=())
    assert max(np.abs(free.b[n] - adapter.b[n]).max() for n in free.b) > 1e-3


def test_a_penalty_of_talos_is_of_what_moves():
    """Three steps of descent, of the entries that are kept, on the loss and a dense penalty."""
    made, weight = study(), 0.05
    tau = talos.fine_tune_least_sensitive(
        made, "one", sparsity=0.5, rounds=1, trainable="kernel", penalties=[of_matrices],
        weight=weight,
    )  # fmt: skip
    mask = talos.least_sensitive(made, "one", sparsity=0.5, rounds=1, trainable="kernel")
    examples, params = made.split("one", "train"), made.model.params

    def objective(delta):
        outputs = network(tree.add(params, delta), jnp.asarray(examples.inputs))
        return cross_entropy(outputs, examples.labels) + weight * far_from_orthonormal(
            made, "one", delta
        )

    delta = {n: jnp.zeros(m.shape) for n, m in mask.items()}
    for _ in range(SGD.steps):
        delta = {n: d - 0.5 * mask[n] * jax.grad(objective)(delta)[n] for n, d in delta.items()}
    for name, expected in delta.items():
        np.testing.assert_allclose(tau.delta[name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_tasks_share_one_compiled_step():
    step.programs.cache_clear()
    how = {"regime": "linear", "method": "l_lora", "rank": 2, "alpha": 3.0}
    for task in ("one", "two"):
        lora.train_adapter(study(), task, **how)
    assert step.programs.cache_info().currsize == 1
    for task in ("one", "two"):
        lora.train_adapter(study(), task, penalties=[tau_jp.of_others], **how)
    assert step.programs.cache_info().currsize == 2


def test_a_scanned_stack_is_its_blocks_and_numbered_parts_are_no_stack():
    rng = np.random.default_rng(3)
    blocks = {
        f"block_{i}/{part}": rng.normal(size=shape).astype(np.float32)
        for i in range(3)
        for part, shape in (("mlp/kernel", (4, 5)), ("mlp/bias", (5,)))
    }
    apart, stacked = (Adapter.start(p, rank=2, pattern=None) for p in (blocks, stack(blocks)))
    assert set(stacked.a) == {"blocks/mlp/kernel"}
    assert stacked.a["blocks/mlp/kernel"].shape == (3, 4, 2)
    moved = {f"{n}/lora_b": rng.normal(size=x.shape) for n, x in apart.b.items()}
    as_stack = {"blocks/mlp/kernel/lora_b": np.stack(list(moved.values()))}
    expected, got = apart.moved(moved).delta(), stacked.moved(as_stack).delta()
    for i in range(3):
        np.testing.assert_array_equal(
            got["blocks/mlp/kernel"][i], expected[f"block_{i}/mlp/kernel"]
        )
    f = partial(adapted, lambda params, x: tree.flatten(params)["blocks/mlp/kernel"])
    scanned = {"blocks": {"mlp": {"kernel": stack(blocks)["blocks/mlp/kernel"]}}}
    there = stacked.moved(as_stack)
    whole = f(scanned, there.scale)(there.joined(scanned), 0)
    kernel = scanned["blocks"]["mlp"]["kernel"] + got["blocks/mlp/kernel"]
    np.testing.assert_allclose(whole, kernel, rtol=1e-5, atol=1e-6)
    parts = {"blocks": [{"kernel": np.ones((4, 5))}, {"einsum_kernel": np.ones((2, 4, 5))}]}
    assert set(Adapter.start(parts).a) == {"blocks/0/kernel"}


@pytest.mark.slow
def test_runs_are_kept_resumed_and_told_apart(tmp_path):
    made = study(store=tmp_path)
    taus = {m.name: made.vectors(m) for m in (LORA, L_LORA)}
    for name, by_task in taus.items():
        for task, tau in by_task.items():
            stored = lz.TaskVector.load(tmp_path / name / task / "task_vector.safetensors")
            for leaf, x in tau.delta.items():
                np.testing.assert_array_equal(stored.delta[leaf], x)
            assert stored.base == tree.fingerprint(made.model.params)
    again = study(store=tmp_path).vectors(LORA)
    assert all(float((again[t] - tau).norm()) == 0 for t, tau in taus["lora"].items())
    lent = study(borrowed=tmp_path).vectors(L_LORA)
    assert all(float((lent[t] - tau).norm()) == 0 for t, tau in taus["l_lora"].items())
    other = partial(lora.fine_tune_adapter, regime="nonlinear", method="lora", rank=3)
    with pytest.raises(RunMismatchError, match="base: there"):
        study(store=tmp_path).vectors(Method("lora", "LoRA", "displaced", other))


@pytest.mark.slow
def test_kernels_that_are_no_matrices_are_named(monkeypatch, caplog):
    params = {**parameters(), "heads": {"kernel": np.ones((4, 2, 3), np.float32)}}
    made = study().but(
        model=(
            lambda p, x: network(p, x) + jnp.einsum("bi,ijk->bk", x, p["heads"]["kernel"]),
            params,
        ),
        objectives=Classify(),
    )
    monkeypatch.setattr(lora, "fine_tune", lambda *_, **__: lz.TaskVector({}))
    _, tau = lora.train_adapter(made, "one", regime="nonlinear", method="lora")
    assert "heads/kernel" not in tau.delta
    assert "lora of one: heads/kernel stay at θ0" in caplog.text


def test_adapters_are_of_the_leaves_that_the_study_trains():
    how = {"regime": "linear", "method": "l_lora"}
    (tau,) = named("lora:rank=3", METHODS).train(study(trainable="^a/"), "one").delta.values()
    assert np.linalg.matrix_rank(tau, tol=1e-6) == 3
    _, tau = lora.train_adapter(study(trainable="^a/"), "one", **how)
    assert set(tau.delta) == {"a/kernel"}
    with pytest.raises(ValueError, match="finds none of the leaves that the study trains"):
        lora.train_adapter(study(trainable="^a/"), "one", pattern="^b/", **how)


REFUSED = {
    "no rank": ({"rank": 0}, "rank=0; expected an integer, 1 or more"),
    "half a rank": ({"rank": 1.5}, "rank=1.5; expected an integer"),
    "no scale": ({"alpha": 0.0}, "alpha=0.0 makes every ΔW zero"),
    "no number": ({"alpha": np.inf}, "alpha=inf; expected a finite number"),
    "no leaf": ({"pattern": "gamma"}, "pattern='gamma' picks no trainable leaf"),
    "no matrix": ({"pattern": "bias"}, r"finds no real matrix to adapt; it finds b/bias \(6,\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_adapted_is_refused_by_name(case):
    how, message = REFUSED[case]
    params = {"a": {"kernel": np.ones((4, 6), "f4")}, "b": {"bias": np.ones(6, "f4")}}
    with pytest.raises(ValueError, match=message):
        Adapter.start(params, **how)


@pytest.mark.parametrize("name", ["lora", "talos_posthoc", "exact", "joint", "linear"])
def test_a_weight_of_no_penalty_is_refused_by_name(name):
    method = METHODS[name]
    with pytest.raises(ValueError, match=rf"weights\['{method.trainer.name}'\]: the method has no"):
        weighted(method, {method.trainer.name: 0.3})
    assert weighted(METHODS["delta_posthoc"], {"delta": 2.0}).of is not METHODS["delta"]
    train = partial(METHODS["l_lora"].train, penalties=[tau_jp.of_others])
    both = Method("l_lora", "L-LoRA, τJp", "tangent", train)
    assert weighted(both, {"l_lora": 2.0}).train.keywords["weight"] == 2.0


def test_options_of_a_row_are_told_in_a_word():
    found, plain = (named(told, METHODS) for told in ("lora:rank=3,alpha=6.5", "lora"))
    assert (found.name, found.label) == ("lora_rank_3_alpha_6.5", "LoRA, rank 3, alpha 6.5")
    assert plain is LORA
    assert named("lora_posthoc:rank=3", METHODS).of is named("lora:rank=3", METHODS)
    told = {"talos": "sparsity=0.5", "delta": "low=0,high=1", "attention_only": "trainable=^a/"}
    for name, options in told.items():
        assert named(f"{name}:{options}", METHODS).view == METHODS[name].view


@pytest.mark.slow
def test_they_enter_a_comparison_its_tables_and_its_page(tmp_path):
    names = ["talos", "lora", "l_lora", "delta"]
    plan = Plan(alphas=np.arange(2.0), map_alphas=np.array([-1.0, 0.0, 1.0]), n_eval=8)
    made = study(store=tmp_path, control="three")
    found = lz.compare(made, names, merges=["ties"], plan=plan)
    for table in ("single", "addition", "negation"):
        assert set(names) <= set(found.record[table])
    page = found.report().read_text()
    assert all(label in page for label in ("TaLoS", "LoRA", "L-LoRA", "DELTA"))
    assert (
        lz.compare(made, names, merges=["ties"], plan=plan).record["single"]
        == (found.record["single"])
    )

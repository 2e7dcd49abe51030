"""τJp and the diagonal of the Gauss-Newton matrix: penalties of other tasks' outputs."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import tree
from linearize.comparison import Plan
from linearize.cost import count_flops
from linearize.methods import DIAG_GGN, METHODS, TAU_JP, diag_ggn, tau_jp, weighted
from linearize.methods.diag_ggn import diagonal
from linearize.methods.fine_tuning import fine_tune
from linearize.objectives import Classify, Squared
from linearize.train import OptimConfig, TrainConfig, step

pytestmark = pytest.mark.usefixtures("quick_compilation")

FEW = TrainConfig(
    optim=OptimConfig(lr=0.03), steps=4, batch_size=8, checkpoint_every=0, tensorboard=False
)
RNG = np.random.default_rng(0)
PARAMS = {
    "attn": {"qkv": {"kernel": RNG.normal(size=(4, 6)) / 2}},
    "mlp": {"kernel": RNG.normal(size=(6, 3)) / 2, "bias": RNG.normal(size=(1, 3))},
}
NARROW = jax.tree.map(np.float32, PARAMS)


def network(params, x):
    """Features (B, 3) of sets of any number of points, (B, n, 4)."""
    hidden = jnp.tanh(x @ params["attn"]["qkv"]["kernel"]).mean(1)
    return hidden @ params["mlp"]["kernel"] + params["mlp"]["bias"]


def study(tasks=("one", "two", "three"), objectives=None, **options):
    rng = np.random.default_rng(1)
    made = []
    for i, name in enumerate(tasks):
        x = rng.normal(size=(60 + i, 2, 4)).astype(np.float32)
        made.append(lz.data.split_task(name, x, (x.mean(1) @ rng.normal(size=(4, 3))).argmax(1)))
    given = {"recipes": {"linear": FEW, "nonlinear": FEW}, **options}
    return lz.Study((network, NARROW), made, objectives or Classify(), **given)


def jacobian(params, x, through=lambda y: y):
    """(B, C, P), with P in the order of the leaves."""
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.jacfwd(lambda flat: jax.vmap(through)(network(unravel(flat), x)))(flat))


# --- τJp


@pytest.mark.slow(but=["False-two shapes"])
@pytest.mark.parametrize("points", [(2, 2), (2, 5)], ids=["one shape", "two shapes"])
@pytest.mark.parametrize("squared", [False, True])
def test_its_value_and_gradient_are_those_of_dense_jacobians(squared, points):
    value = tau_jp.squares if squared else tau_jp.norms
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, PARAMS)
        batches = [(jnp.asarray(RNG.normal(size=(3, n, 4))),) for n in points]
        tau = {n: jnp.asarray(RNG.normal(size=x.shape)) for n, x in tree.flatten(params).items()}
        along = np.concatenate([np.ravel(tau[n]) for n in tree.names(params)])
        expected, slope = 0.0, 0.0
        for (x,) in batches:
            jac = jacobian(params, x)
            moved = jac @ along
            norm = np.linalg.norm(moved, axis=1)
            expected += (norm ** (1 + squared)).mean() / 2
            by = 2 * moved if squared else moved / norm[:, None]
            slope += np.einsum("bc,bcp->p", by, jac) / 3 / 2
        kept = [tau_jp.keep(network, params, None, *batch) for batch in batches]
        for state in (batches, kept):
            found = partial(value, network, params, state=state, key=None)
            assert float(found(tau)) == pytest.approx(expected, rel=1e-12)
            grads = jax.grad(found)(tau)
            got = np.concatenate([np.ravel(grads[n]) for n in tree.names(params)])
            np.testing.assert_allclose(got, slope, rtol=1e-10, atol=1e-13)
        at_zero = jax.grad(partial(value, network, params, state=batches, key=None))
        for leaf in at_zero(jax.tree.map(jnp.zeros_like, tau)).values():
            np.testing.assert_array_equal(leaf, 0)


def deep(params, x):
    for name in sorted(params):
        x = jnp.tanh(x @ params[name])
    return x


def test_new_examples_cost_five_passes_and_kept_ones_four():
    params = {f"layer{i}": RNG.normal(size=(64, 64)).astype(np.float32) for i in range(9)}
    batches = [(RNG.normal(size=(8, 64)).astype(np.float32),) for _ in range(3)]
    tau = {n: 0.1 * leaf for n, leaf in params.items()}
    forward = count_flops(deep, params, np.zeros((24, 64), np.float32))

    def gradient(tau, state):
        return jax.grad(lambda tau: tau_jp.norms(deep, params, tau, state, None))(tau)

    kept = [tau_jp.keep(deep, params, None, *batch) for batch in batches]
    assert 4 < count_flops(gradient, tau, batches) / forward <= 5
    assert 3 < count_flops(gradient, tau, kept) / forward <= 4


def test_the_switches_say_which_examples_and_the_row_says_the_switches():
    made = study(control="three")
    (stream,) = tau_jp.of_others(made, "one").state
    assert stream.batch_size == 16
    assert len(tau_jp.of_others(made, "one", control=True).state) == 2
    (stream,) = tau_jp.of_others(made, "one", control=True, in_turn=True, batch_size=3).state
    assert [len(data["inputs"]) for data in stream.sets] == [
        len(made.split(name, "train")) for name in ("two", "three")
    ]
    row = tau_jp.tau_jp(squared=True, control=True)
    assert (row.name, row.label) == (
        "tau_jp_squared_with_control",
        "τJp, squared, with control",
    )
    assert {"tau_jp", "tau_jp_squared", "tau_jp_in_turn", "tau_jp_with_control"} <= set(METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("row", [TAU_JP, METHODS["tau_jp_kept"]], ids=lambda row: row.name)
def test_all_tasks_share_one_program(row):
    made = study()
    step.programs.cache_clear()
    taus = made.vectors(row)
    assert step.programs.cache_info().misses == 1
    assert all(tau.meta["penalties"] == {"tau_jp": 0.1} for tau in taus.values())


def test_what_it_needs_is_said():
    with pytest.raises(ValueError, match="tau_jp leaves other tasks alone, and the study trains"):
        study(tasks=("one",)).vectors(TAU_JP)
    with pytest.raises(ValueError, match="diag_ggn leaves other tasks alone"):
        study(tasks=("one",)).vectors(DIAG_GGN)
    with pytest.raises(ValueError, match="tau_jp with the control task: give the study a control="):
        study().vectors(METHODS["tau_jp_with_control"])
    with pytest.raises(ValueError, match="kept=True, in_turn=True"):
        tau_jp.tau_jp(kept=True, in_turn=True)


# --- the diagonal


def softmax_hessian(z):
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    return np.diag(p) - np.outer(p, p)


@pytest.mark.slow(but=["logits"])
@pytest.mark.parametrize("of", ["features", "normalized", "logits"])
def test_a_diagonal_without_probes_is_that_of_the_dense_matrix(of):
    by = RNG.normal(size=(3, 5)).astype(np.float32)
    made = study(objectives=Classify(lambda features: features @ by))
    found = diagonal(made, "two", of=of, examples=10, probes=None)
    through = {
        "features": lambda y: y,
        "normalized": lambda y: y / jnp.linalg.norm(y),
        "logits": lambda y: y @ by,
    }[of]
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, jax.tree.map(np.float64, NARROW))
        (x,) = made.drawn("two", 10, "diag_ggn")
        jac = jacobian(params, jnp.asarray(x, jnp.float64), through)
        outputs = np.asarray(jax.vmap(through)(network(params, jnp.asarray(x, jnp.float64))))
    hessians = [softmax_hessian(z) if of == "logits" else np.eye(len(z)) for z in outputs]
    expected = np.einsum("bcp,bcd,bdp->p", jac, np.stack(hessians), jac) / 10
    got = np.concatenate([np.ravel(found[n]) for n in tree.names(PARAMS)])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_normalized_is_of_each_token_s_features_as_factors_have_it():
    """Of outputs (n, 3) each row has length 1, and not all of them together."""
    x = RNG.normal(size=(12, 2, 4)).astype(np.float32)
    params = {"w": RNG.normal(size=(4, 3)).astype(np.float32)}
    tasks = [lz.data.split_task(name, x, np.arange(12) % 2) for name in ("one", "two")]
    made = lz.Study((lambda params, x: x @ params["w"], params), tasks, Squared())
    (seen,) = made.drawn("one", 4, "diag_ggn")
    found = diagonal(made, "one", examples=4, probes=None)["w"]
    with jax.enable_x64(True):

        def rows(w):
            y = jnp.asarray(seen, float) @ w
            return y / jnp.linalg.norm(y, axis=-1, keepdims=True)

        slopes = np.asarray(jax.jacfwd(rows)(jnp.asarray(params["w"], float)))
    np.testing.assert_allclose(found, (slopes**2).sum((0, 1, 2)) / 4, rtol=1e-4)


def test_a_diagonal_wants_a_whole_number_of_probes():
    for probes in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"probes.*{probes}"):
            diagonal(study(), "one", probes=probes)


def test_kept_examples_serve_rows_that_train_some_leaves():
    """As if the other leaves moved by 0."""
    x = jnp.asarray(RNG.normal(size=(3, 2, 4)), jnp.float32)
    kept = tau_jp.keep(network, NARROW, None, x)
    tau = {
        n: jnp.asarray(RNG.normal(size=p.shape), jnp.float32)
        for n, p in tree.flatten(NARROW).items()
    }
    few = {"mlp/bias": tau["mlp/bias"]}
    expected = jnp.broadcast_to(tau["mlp/bias"], (3, 3))
    np.testing.assert_allclose(kept(few), expected, rtol=1e-6)
    made = study()
    row = lz.methods.named("tau_jp_kept:trainable=mlp", METHODS)
    assert sorted(made.train(row, "one").delta) == ["mlp/bias", "mlp/kernel"]


@pytest.mark.slow
@pytest.mark.parametrize("of", ["normalized", "logits"])
def test_probes_are_right_on_average(of):
    made = study()
    exact, drawn = (
        diagonal(made, "two", of=of, examples=4, probes=probes) for probes in (None, 4000)
    )
    for name, leaf in exact.items():
        # the standard deviation of a mean of 4000 is below 3 % of an entry
        np.testing.assert_allclose(drawn[name], leaf, rtol=0.15, atol=1e-3 * leaf.max())


@pytest.mark.slow
def test_the_penalty_is_of_the_other_tasks_and_of_each_weight():
    made = study()
    penalty = diag_ggn.of_others(made, "one")
    two, three = (diagonal(made, other) for other in ("two", "three"))
    tau = {n: jnp.asarray(RNG.normal(size=x.shape), jnp.float32) for n, x in two.items()}
    expected = sum(((two[n] + three[n]) / 2 * np.asarray(tau[n]) ** 2).sum() for n in two)
    found = penalty.value(network, NARROW, tau, penalty.state, None)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.slow
def test_a_diagonal_is_computed_once_a_store_and_of_what_it_is_asked_of(tmp_path, monkeypatch):
    places = {"memory": None, "disk": tmp_path}
    for place in places.values():
        made = study(store=place)
        first = diagonal(made, "two")
        again = made if place is None else study(store=place)
        with monkeypatch.context() as patched:
            patched.setattr(diag_ggn, "pointwise", None)
            for name, leaf in diagonal(again, "two").items():
                np.testing.assert_array_equal(leaf, first[name])
            for other in ({"of": "features"}, {"examples": 9}, {"probes": 2}):
                with pytest.raises(TypeError):
                    diagonal(again, "two", **other)
            with pytest.raises(TypeError):
                diagonal(again, "three")
            with pytest.raises(TypeError):
                diagonal(again.but(trainable="mlp"), "two")
    heads = [Classify(lambda z: z @ np.eye(3)), Classify(lambda z: z @ (2 * np.eye(3)))]
    plain, doubled = (
        diagonal(study(store=tmp_path, objectives=head), "two", of="logits") for head in heads
    )
    assert not np.allclose(plain["mlp/bias"], doubled["mlp/bias"])
    for file in tmp_path.glob("diagonals/two-*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    for name, leaf in diagonal(study(store=tmp_path), "two").items():
        np.testing.assert_array_equal(leaf, first[name])


def test_logits_are_classification_s():
    made = study(objectives=Squared())
    with pytest.raises(ValueError, match=r"objectives\['two'\] is Squared, which has none"):
        diagonal(made, "two", of="logits")
    with pytest.raises(ValueError, match=r"of='logit' is not one of .*did you mean 'logits'"):
        diag_ggn.diag_ggn("logit")


# --- among the others

ROWS = ("linear", "tau_jp", "tau_jp_with_control", "diag_ggn", "ortho_reg", "attention_only")
ROWS += ("attention_only_posthoc",)


@pytest.mark.slow
def test_rows_enter_the_comparison_its_tables_and_its_page(tmp_path):
    made = study(control="three", store=tmp_path)
    found = lz.compare(made, ROWS, maps=[], plan=Plan(alphas=np.arange(3.0)))
    for table in ("single", "addition", "negation"):
        assert set(ROWS) <= set(found.record[table])
    page = found.report().read_text()
    for name in ROWS:
        assert METHODS[name].label in page
    taus = made.vectors(METHODS["attention_only"])
    assert all(set(tau.delta) == {"attn/qkv/kernel"} for tau in taus.values())


@pytest.mark.slow
def test_a_row_s_weight_is_another_s_by_name():
    made = study()
    heavy = made.vectors(weighted(TAU_JP, {"tau_jp": 2.0}))["one"]
    assert heavy.meta["penalties"] == {"tau_jp": 2.0}
    posthoc = weighted(METHODS["ortho_reg_posthoc"], {"ortho_reg": 0.5})
    assert made.vectors(posthoc)["one"].meta["penalties"] == {"ortho_reg": 0.5}
    assert weighted(TAU_JP, {"another": 1.0}) is TAU_JP
    assert weighted(METHODS["ortho_reg"], {"ortho_reg": 0.5}) == posthoc.of
    with pytest.raises(ValueError, match=r"weights\['linear'\]: the method has no penalty"):
        weighted(METHODS["linear"], {"linear": 1.0})
    with pytest.raises(ValueError, match=r"method 'linear' has 0 penalties and weight=1\.0"):
        fine_tune(made, "one", regime="linear", weight=1.0)


@pytest.mark.slow
def test_two_penalties_on_one_step_are_the_sum_of_their_gradients():
    """By plain descent from τ = 0, whose second step has both; a diagonal's is 2 d τ."""
    sgd = OptimConfig("sgd", lr=0.5, schedule="constant", clip=None)
    made = study(recipes={"linear": replace(FEW, optim=sgd, steps=2)})

    def trained(*penalties):
        return fine_tune(made, "one", regime="linear", method="both", penalties=penalties).delta

    kept = partial(tau_jp.of_others, kept=True, weight=0.5)
    curved = partial(diag_ggn.of_others, of="features", probes=None, weight=3.0)
    plain, one, two, both = trained(), trained(kept), trained(curved), trained(kept, curved)
    for name, leaf in both.items():
        assert not np.allclose(leaf, one[name], atol=1e-5)
        np.testing.assert_allclose(leaf, one[name] + two[name] - plain[name], atol=1e-6)
    first = trained_once(made)
    slope = 2 * np.asarray(curved(made, "one").state["mlp/kernel"]) * first["mlp/kernel"]
    expected = plain["mlp/kernel"] - 0.5 * 3.0 * slope
    np.testing.assert_allclose(two["mlp/kernel"], expected, atol=1e-6)


def trained_once(made):
    """τ after the first step, which no penalty of τ = 0 changes."""
    recipe = replace(made.recipes["linear"], steps=1)
    return fine_tune(made.but(recipes={"linear": recipe}), "one", regime="linear").delta

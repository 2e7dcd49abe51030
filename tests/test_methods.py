"""Methods of one's own, a file and a row each: with penalties of other tasks, factors, a mask."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from linearize import comparison, train, tree
from linearize.comparison import Plan
from linearize.config import ExactConfig
from linearize.curvature import measure
from linearize.merge import MERGES
from linearize.methods import GRADIENT_ASCENT, LINEAR, METHODS, exact, moving, tak
from linearize.methods.fine_tuning import fine_tune, within
from linearize.models.heads import Head
from linearize.objectives import Classify
from linearize.study import Method
from linearize.train import OptimConfig, Penalty, RunMismatchError, TrainConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")

RECIPE = TrainConfig(
    optim=OptimConfig(lr=0.03), steps=12, batch_size=8, checkpoint_every=0, tensorboard=False
)


def network(params, x):
    return jnp.tanh(x @ params["a"]["kernel"] + params["a"]["bias"]) @ params["b"]["kernel"]


def study(*, tasks=None, **options):
    rng = np.random.default_rng(0)
    params = {
        "a": {"kernel": rng.normal(size=(4, 6)) / 2, "bias": np.zeros((1, 6))},
        "b": {"kernel": rng.normal(size=(6, 3)) / 2},
    }
    made = []
    for name, n in (("one", 60), ("two", 70), ("three", 80)):
        x = rng.normal(size=(n, 4)).astype(np.float32)
        made.append(lz.data.split_task(name, x, (x @ rng.normal(size=(4, 3))).argmax(1)))
    given = {"control": "three", "recipes": {"linear": RECIPE, "nonlinear": RECIPE}, **options}
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    return lz.Study((network, params), made if tasks is None else tasks, Classify(), **given)


# --- τJp: the response of the other tasks' examples, new ones each step


def interference(f, params0, tau, state, key):
    moved = [lz.affine_terms(f, params0, [tau], *batch)[1][0] for batch in state]
    return jnp.stack([jnp.mean(jnp.sum(each**2, -1)) for each in moved]).mean()


def of_others(study, task, weight=1.0):
    others = [study.stream(other, 4) for other in study.names if other != task]
    return Penalty("tau_jp", interference, weight, others)


TAU_JP = Method(
    "tau_jp",
    "τJp",
    "tangent",
    partial(fine_tune, regime="linear", method="tau_jp", penalties=[of_others]),
)

# --- Kronecker factors of the other tasks' curvature, one pair a kernel


def quadratic(f, params0, tau, state, key):
    return sum(jnp.sum((a @ tau[name] @ b) * tau[name]) for name, (a, b) in state.items())


def of_curvature(study, task):
    x = np.concatenate([study.split(n, "train").inputs for n in study.names if n != task])
    params = study.model.params
    hidden = np.tanh(x @ params["a"]["kernel"] + params["a"]["bias"])
    slope = (1 - hidden**2)[:, :, None] * params["b"]["kernel"]
    inner = np.einsum("nhc,nkc->hk", slope, slope) / len(x)
    factors = {
        "a/kernel": (x.T @ x / len(x), inner),
        "b/kernel": (hidden.T @ hidden / len(x), np.eye(3)),
    }
    return Penalty("curvature", quadratic, 1.0, factors)


KRONECKER = Method(
    "kronecker",
    "Kronecker",
    "tangent",
    partial(fine_tune, regime="linear", method="kronecker", penalties=[of_curvature]),
)

# --- the entries to which the task's own examples are least sensitive


def least_sensitive(study, task, keep=0.4):
    f, params, examples = study.model.f, study.model.params, study.split(task, "validation")
    drawn = jax.random.categorical(jax.random.key(study.seed), f(params, examples.inputs))

    def logit(params, x, label):
        return jax.nn.log_softmax(f(params, x[None])[0])[label]

    slopes = jax.vmap(jax.grad(logit), (None, 0, 0))(params, examples.inputs, drawn)
    scores = jax.tree.map(lambda g: (g**2).sum(0), slopes)
    limit = jnp.quantile(jnp.concatenate([s.ravel() for s in jax.tree.leaves(scores)]), keep)
    return jax.tree.map(lambda s: s <= limit, scores)


LOCALIZED = Method(
    "localized",
    "Localized",
    "displaced",
    partial(fine_tune, regime="nonlinear", method="localized", mask=least_sensitive),
)


@pytest.fixture(scope="module")
def trained():
    made = study()
    return made, {m.name: made.vectors(m) for m in (LINEAR, TAU_JP, KRONECKER, LOCALIZED)}


def response(study, tau, other):
    """Mean ‖J(x)τ‖² over a task's examples, of dense float64 Jacobians."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), study.model.params)
        flat, unravel = jax.flatten_util.ravel_pytree(wide)
        x = jnp.asarray(study.split(other, "test").inputs, jnp.float64)
        jac = jax.jacfwd(lambda flat: network(unravel(flat), x))(flat)
        named = tree.flatten(wide)
        moved = jnp.concatenate([jnp.ravel(tau.delta[name]) for name in named])
        return float(((jac @ moved.astype(jnp.float64)) ** 2).sum(-1).mean())


@pytest.mark.slow(but=["kronecker"])
@pytest.mark.parametrize("name", ["tau_jp", "kronecker"])
def test_a_penalty_on_other_tasks_makes_them_respond_less(trained, name):
    made, taus = trained
    for task, other in (("one", "two"), ("two", "one")):
        plain, kept = taus["linear"][task], taus[name][task]
        assert response(made, kept, other) < 0.7 * response(made, plain, other)
        assert response(made, kept, task) > 0.1 * response(made, plain, task)


def test_a_mask_of_scores_keeps_its_share(trained):
    made, taus = trained
    for task, tau in taus["localized"].items():
        mask = tree.flatten(least_sensitive(made, task))
        assert 0.3 < sum(m.sum() for m in mask.values()) / sum(m.size for m in mask.values()) < 0.5
        for name, leaf in tau.delta.items():
            np.testing.assert_array_equal(leaf[~mask[name]], 0)
            assert np.count_nonzero(leaf[mask[name]]) > 0.9 * mask[name].sum()


def test_they_enter_the_comparison_and_its_directory(tmp_path, monkeypatch):
    for method in (TAU_JP, LOCALIZED):
        monkeypatch.setitem(METHODS, method.name, method)
    plan = Plan(alphas=np.arange(3.0))
    made = study(store=tmp_path)
    compare = partial(lz.compare, methods=["tau_jp", "localized"], maps=[], plan=plan)
    found = compare(made).record
    for table in ("single", "addition", "negation"):
        assert {"tau_jp", "localized"} <= set(found[table])
    assert compare(study(store=tmp_path)).record["single"] == found["single"]
    heavier = partial(fine_tune, regime="linear", method="tau_jp")
    more = Method(
        "tau_jp", "τJp", "tangent", partial(heavier, penalties=[partial(of_others, weight=2.0)])
    )
    monkeypatch.setitem(METHODS, "tau_jp", more)
    with pytest.raises(RunMismatchError, match="methods differ"):
        compare(study(store=tmp_path))


def test_a_method_trains_its_own_leaves_by_its_own_recipe():
    few = TrainConfig(optim=OptimConfig(lr=0.03), steps=3, batch_size=8, tensorboard=False)
    made = study(recipes={"linear": RECIPE, "kernels": few}, trainable="kernel")
    kernels = partial(fine_tune, regime="linear", method="kernels", trainable="^a/")
    tau = made.vectors(Method("kernels", "Kernels", "tangent", kernels))["one"]
    assert set(tau.delta) == {"a/kernel"}
    assert tau.meta["steps"] == 3
    assert made.vectors(LINEAR)["one"].meta["steps"] == 12
    biases = partial(fine_tune, regime="linear", method="biases", trainable="bias")
    with pytest.raises(ValueError, match="finds none of the leaves that the study trains"):
        made.vectors(Method("biases", "Biases", "tangent", biases))


STILL = (
    *("backbone/patch_embedding/kernel", "positions", "class_position", "patch_embeddings/bias"),
    *("Transformer/posembed_input/pos_embedding", "patch_embed/proj/weight", "pos_embed"),
    *("visual/positional_embedding", "position_embeddings", "to_patch_embedding/kernel", "wpe/w"),
)
MOVING = (
    *(
        "class_token",
        "embedding/kernel",
        "wte/w",
        "relative_attention_bias/w",
        "block_0/mlp/kernel",
    ),
    *("position_wise_ffn/kernel", "composition/kernel", "patch_merging/kernel", "norm/scale"),
)


def test_tak_leaves_patch_embedding_and_positions_where_they_are():
    assert set(tree.select(dict.fromkeys((*STILL, *MOVING), 1.0), tak.FROZEN)) == set(STILL)


def test_a_row_with_options_trains_by_the_row_s_recipe_until_it_has_its_own(monkeypatch):
    steps, short = {}, {"steps": 3, **SHORT}

    def recorded(study, arrays, recipe, place, meta, **how):
        steps[place[0]] = recipe.steps
        raise InterruptedError

    monkeypatch.setattr("linearize.methods.fine_tuning.run", recorded)
    rows = ("lora", "lora:rank=2", "tau_jp", "tau_jp:weight=0.3", "talos:rounds=1", "linear")
    names = {"lora": TrainConfig(**short), "tau_jp": TrainConfig(**short)}
    own = {"tau_jp_weight_0.3": TrainConfig(**{**short, "steps": 5})}
    for recipes, expected in (({}, (3, 3, 3, 3, 12, 12)), (own, (3, 3, 3, 5, 12, 12))):
        made = study(recipes={"linear": RECIPE, "nonlinear": RECIPE, **names, **recipes})
        monkeypatch.setattr("linearize.methods.talos.least_sensitive", lambda *a, **k: None)
        for row in rows:
            with pytest.raises(InterruptedError):
                made.train(lz.methods.named(row, METHODS), "one")
        assert tuple(steps.values()) == expected
        steps.clear()


SHORT = {
    "batch_size": 8,
    "optim": OptimConfig(lr=0.03),
    "checkpoint_every": 0,
    "tensorboard": False,
}


def test_joint_training_takes_the_steps_smoothing_and_arguments_of_the_tasks_apart(monkeypatch):
    seen = {}

    def recorded(study, arrays, recipe, place, meta, **how):
        seen.update(arrays=arrays, recipe=recipe, **how)
        raise InterruptedError

    monkeypatch.setattr("linearize.methods.joint.run", recorded)
    rng = np.random.default_rng(0)
    tasks = []
    for name, n in (("one", 60), ("two", 100)):
        x = rng.normal(size=(2, n, 4)).astype(np.float32)
        parts = {
            split: lz.Examples((x[0][at], x[1][at]), {"labels": (x[0][at, 0] > 0).astype(int)})
            for split, at in (
                ("train", slice(16, None)),
                ("validation", slice(8)),
                ("test", slice(8, 16)),
            )
        }
        tasks.append(lz.Task(name, **parts))
    recipe = TrainConfig(label_smoothing=0.25, **SHORT)
    f, params = lambda params, x, y: (x + y) @ params["w"], {"w": np.eye(4, 2, dtype=np.float32)}
    made = lz.Study(
        (f, params),
        tasks,
        Classify(),
        recipes={"nonlinear": recipe},
        epochs={"one": 2.0, "two": 1.0},
    )
    with pytest.raises(InterruptedError):
        made.train(METHODS["joint"], "joint")
    assert seen["recipe"].total_steps(44 + 84) == 2 * 44 // 8 + round(84 / 8)
    assert [seen["arrays"][name].shape for name in seen["inputs"]] == [(128, 4)] * 2
    logits, labels = np.float32([[2.0, 0.0], [0.0, 1.0]]), np.array([0, 0])
    nats = seen["loss"](logits, {"labels": labels, "task": np.array([0, 1])})
    log_p = np.float64(logits) - np.log(np.exp(np.float64(logits)).sum(1, keepdims=True))
    np.testing.assert_allclose(nats, -0.75 * log_p[:, 0] - 0.25 * log_p.mean(1), rtol=1e-6)
    own = TrainConfig(epochs=3, batch_size=32)
    with pytest.raises(InterruptedError):
        made.but(recipes={"nonlinear": recipe, "joint": own}).train(METHODS["joint"], "joint")
    assert seen["recipe"] == own


def test_frozen_leaves_are_found_among_those_that_are_trained():
    made = study(trainable="kernel|bias")
    assert set(tree.select(made.model.params, within(made, "^a/", "bias"))) == {"a/kernel"}
    assert within(made, None, None) == "kernel|bias"
    with pytest.raises(ValueError, match=r"frozen=.kernel. finds all leaves .* b/kernel; narrow"):
        within(made, "^b/", "kernel")
    with pytest.raises(ValueError, match="'baises' picks no trainable leaf"):
        within(made, None, "baises")


@pytest.mark.slow
def test_a_penalty_needs_no_card_of_leaves_that_stand_still(few):
    made = study(recipes={"linear": few}, control=None)
    f, params = made.model.f, made.model.params
    card = measure(f, params, made.split("two", "test").inputs, trainable="^a/")
    row = tak.tak(cards={"reference": card}, frozen="^b/")
    assert (row.name, row.label) == (
        "tak_given_cards_other_leaves",
        "TAK, given cards, other leaves",
    )
    assert set(made.vectors(row)["one"].delta) == {"a/kernel", "a/bias"}
    with pytest.raises(tree.StructureMismatch, match="missing: b/kernel"):
        made.vectors(tak.tak(cards={"reference": card}))
    assert METHODS["tak_all_leaves"].label == "TAK, all leaves"


def test_what_a_merge_cannot_be_of_is_refused_before_anything_is_trained(monkeypatch):
    """By the shapes and names of what a row will move, and of that alone."""
    monkeypatch.setattr(train, "fine_tune", lambda *args, **how: pytest.fail("it was trained"))
    x, y = np.arange(240, dtype=np.float32).reshape(60, 4), np.arange(60) % 3
    four = study(tasks=[lz.data.split_task(name, x, y) for name in "abcd"], control=None)
    kernels = partial(fine_tune, regime="linear", method="mine", trainable="kernel", frozen="^b/")
    row = Method("mine", "Mine", "tangent", kernels)
    assert moving(four, row) == {"a/kernel": (4, 6)}
    with pytest.raises(ValueError, match="tsv_m: b/kernel is a matrix of 6 × 3, in which 4 tasks"):
        lz.compare(four, [LINEAR], ["tsv_m"], maps=[])
    with pytest.raises(ValueError, match="find 0 layer"):
        lz.compare(four, [row], ["tsv_m", "lines"], maps=[])


def test_a_random_vector_is_its_task_s_whatever_the_order():
    taus = {name: lz.TaskVector({"w": np.ones(3, np.float32)}) for name in ("one", "two")}
    back = MERGES["random"].directions(dict(reversed(taus.items())), 0)
    for name, tau in MERGES["random"].directions(taus, 0).items():
        np.testing.assert_array_equal(back[name].delta["w"], tau.delta["w"])


def test_gradient_ascent_still_takes_the_recipe_of_its_regime():
    made = study()
    assert made.vectors(GRADIENT_ASCENT)["one"].meta["steps"] == 12


def test_a_stream_of_a_task_holds_the_model_s_arguments_and_what_else_is_asked_for():
    made = study()
    stream = made.stream("two", 5, targets=["labels"])
    assert [leaf.shape for leaf in stream.batch] == [(5, 4), (5,)]
    (data,) = stream.sets
    np.testing.assert_array_equal(data["inputs"], made.split("two", "train").inputs)


@pytest.fixture(scope="module")
def few():
    return TrainConfig(optim=OptimConfig(lr=0.03), steps=2, batch_size=8, tensorboard=False)


def weighted(weight, name="tau_jp", view="tangent"):
    """As in a notebook: a row of the same name, written once more."""
    of = partial(of_others, weight=weight)
    train = partial(fine_tune, regime="linear", method=name, penalties=[of])
    return Method(name, "τJp", view, train)


@pytest.mark.slow
def test_another_method_of_the_same_name_is_not_answered_by_the_first(few):
    made = study(recipes={"linear": few})
    light, heavy = (made.vectors(weighted(w))["one"].meta["penalties"] for w in (0.1, 2.0))
    assert (light, heavy) == ({"tau_jp": 0.1}, {"tau_jp": 2.0})
    assert made.view(weighted(2.0, view="displaced")).passes


def test_seeds_are_not_mixed_whose_vectors_were_trained_in_other_leaves(tmp_path, few):
    """As an earlier version may have left them: TAK once trained patch embedding and positions."""
    made = study(store=tmp_path, recipes={"linear": few}, control=None)
    train_one = partial(fine_tune, task="one", regime="linear", method="mine")
    first, second = made.with_seed(0), made.with_seed(1)
    train_one(first)
    with pytest.raises(RunMismatchError, match=r"trainable: there(.|\n)*seed_0 .*move all of that"):
        train_one(first, frozen="^b/")
    for other in ({"frozen": "^b/"}, {"penalties": [of_others]}):
        place = tmp_path / "seed_1" / "mine"
        with pytest.raises(RunMismatchError, match=r"seed_0/mine/one was .* or move seed_0 away"):
            train_one(second, **other)
        place.rename(tmp_path / str(len(list(tmp_path.iterdir()))))
    train_one(second)
    (tmp_path / "seed_0" / "mine" / "one" / "config.json").write_text("{")
    train_one(made.with_seed(2))


@pytest.mark.slow
def test_a_directory_is_refused_to_another_view_or_feed(tmp_path, few):
    plan = Plan(alphas=np.arange(2.0))

    def compare(view, **options):
        made = study(store=tmp_path, recipes={"linear": few}, control=None, **options)
        return lz.compare(made, [weighted(1.0, view=view)], maps=[], plan=plan)

    compare("tangent")
    with pytest.raises(RunMismatchError, match="views differ"):
        compare("displaced")
    with pytest.raises(RunMismatchError, match="feed differ"):
        compare("tangent", feed=lambda arrays: {**arrays, "inputs": -arrays["inputs"]})
    path = tmp_path / "study.json"  # as earlier versions wrote it
    said = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in said.items() if k not in ("views", "feed")}))
    compare("tangent")


def test_recipes_of_no_method_are_refused_before_training():
    made = study(recipes={"liner": RECIPE})
    with pytest.raises(ValueError, match=r"recipes.*'liner'.*did you mean 'linear'"):
        lz.compare(made, ["linear"])
    own = Method("mine", "Mine", "tangent", lambda study, task: pytest.fail("trained"))
    made = study(recipes={"mine": RECIPE, "linear": RECIPE, "lora_rank_2": RECIPE})
    plan = Plan(alphas=np.linspace(0, 1, 2))
    found = comparison._wanted(made, [own, "lora:rank=2"], (), (), plan)
    assert [method.name for method in found.methods] == ["mine", "lora_rank_2"]


def test_exact_fine_tuning_refuses_smoothed_labels():
    made = lz.Study(
        (network, study().model.params),
        list(study().tasks.values()),
        Classify(smoothing=0.1),
        recipes={"exact": ExactConfig(l2=1.0)},
    )
    with pytest.raises(ValueError, match=r"objectives\['one'\] has smoothing=0.1"):
        made.train(METHODS["exact"], "one")


def exact_vector(folder, readout):
    made = lz.Study(
        (lambda params, x: x @ params["w"], {"w": np.eye(3, dtype=np.float32)[:, :2]}),
        [lz.data.split_task("one", POINTS, (POINTS[:, 0] > POINTS[:, 1]).astype(int))],
        Classify(readout),
        recipes={"exact": ExactConfig(l2=1.0, solver="gauss_newton")},
        store=folder,
    )
    return np.asarray(made.train(METHODS["exact"], "one").delta["w"])


POINTS = np.random.default_rng(5).normal(size=(40, 3)).astype(np.float32)
PLAIN = Head(np.zeros(2, "f4"), np.eye(2, dtype="f4"), None, np.float32(1), False)
READOUTS = {
    "functions": (lambda z: 2 * z, lambda z: -2 * z),
    "heads": (PLAIN, dataclasses.replace(PLAIN, normalize=True)),
}


@pytest.mark.parametrize("kind", READOUTS)
def test_an_exact_vector_is_not_that_under_another_readout(kind, tmp_path):
    one, other = READOUTS[kind]
    found = exact_vector(tmp_path / "store", one)
    np.testing.assert_array_equal(exact_vector(tmp_path / "store", one), found)
    with pytest.raises(RunMismatchError, match=r"functions\.readout"):
        exact_vector(tmp_path / "store", other)
    assert np.abs(exact_vector(tmp_path / "other", other) - found).max() > 0.01


def test_exact_vectors_of_heads_from_before_are_read(tmp_path, monkeypatch, caplog):
    with monkeypatch.context() as before:
        before.setattr(exact, "_before_readouts", lambda path, readout: True)
        found = exact_vector(tmp_path, PLAIN)
    monkeypatch.setattr(exact.ntk, "fine_tune_exactly", lambda *_, **__: pytest.fail("made anew"))
    np.testing.assert_array_equal(exact_vector(tmp_path, PLAIN), found)
    assert "did not note whether the head normalises" in caplog.text


def test_label_smoothing_that_no_objective_takes_is_refused(monkeypatch):
    def recorded(f, params, data, *, config, **how):
        seen.append(config.label_smoothing)
        raise InterruptedError

    seen = []
    monkeypatch.setattr("linearize.train.fine_tune", recorded)
    smooth = dataclasses.replace(RECIPE, label_smoothing=0.1)
    made = study(recipes={"linear": smooth, "nonlinear": smooth})
    own = dict.fromkeys(made.tasks, Classify(smoothing=0.2))
    for method, named in (("linear", "one"), ("joint", "joint"), ("delta", "one")):
        with pytest.raises(ValueError, match=r"label_smoothing=0.1 is of classification.*Classify"):
            made.but(objectives=own).train(METHODS[method], named)
    mixed = made.but(objectives=own | {"two": Classify()})
    for task in ("one", "two"):
        with pytest.raises(InterruptedError):
            mixed.train(METHODS["linear"], task)
    assert seen == [0.0, 0.1]


def test_every_row_of_the_library_says_what_it_is_in_a_sentence_of_its_own():
    rows = (*METHODS.values(), *MERGES.values())
    for row in rows:
        assert row.about[0].isupper(), row.name
        assert row.about.endswith("."), row.name
        assert ". " not in row.about.replace("et al. ", ""), row.name
    assert len({row.about for row in rows}) == len(rows)
    assert METHODS["tau_jp_squared"].about.count("‖J(x)τ‖²") == 1


def test_rows_of_one_name_and_epochs_of_no_task_are_refused():
    with pytest.raises(ValueError, match="name 'linear' twice; give each row a name"):
        lz.compare(study(), ["linear", weighted(1.0, name="linear")])
    with pytest.raises(ValueError, match="epochs='tow' is not one of 'one', 'two'; did you mean"):
        lz.compare(study(epochs={"tow": 2}), ["linear"])


def test_maps_of_pairs_whose_names_join_alike_are_kept_apart():
    pairs = [("a_b", "c"), ("a", "b_c"), ("a", "c")]
    assert comparison._files(pairs) == ["map_a_b_c", "map_a_b_c_again", "map_a_c"]


@pytest.mark.slow
def test_a_study_in_memory_answers_what_is_asked_now(few):
    made = study(recipes={"linear": few}, control=None)
    for by in (1.0, 2.0):
        found = lz.compare(made, ["linear"], maps=[], plan=Plan(alphas=np.array([0.0, by])))
        assert found.results.alphas.tolist() == [0, by]
        assert found.results.addition["linear"].alpha in (0, by)
        assert found.results.addition["linear"].sweep_test.shape == (1, 2, 3)
    found = lz.compare(made, [weighted(1.0)], maps=[], plan=Plan(alphas=np.arange(3.0)))
    assert list(found.results.single) == ["tau_jp"]
    assert found.results.addition["tau_jp"].sweep_test.shape == (1, 3, 3)


REFUSED = {
    "a word": ({"methods": "linear"}, r"methods='linear'; expected a sequence of rows"),
    "an option": ({"methods": ["tau_jp:wieght=1"]}, "option='wieght' .*; did you mean 'weight'"),
    "no row": ({"methods": []}, r"methods=\[\]: none has task vectors to add"),
    "a seed twice": ({"seeds": [0, 0]}, r"seeds=\[0, 0\]; give each seed once"),
    "no seed": ({"seeds": []}, r"seeds=\[\]; expected a sequence of whole numbers"),
    "no sequence": ({"seeds": 3}, "seeds=3; expected a sequence of whole numbers"),
    "no task": ({"maps": [("one", "tow")]}, "maps: task='tow' is not .*; did you mean 'two'"),
    "one task": ({"maps": [("one", "one")]}, r"\('one', 'one'\); expected pairs of two tasks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_by_name(case):
    changed, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        lz.compare(study(), **{"methods": ["linear"], **changed})


def test_rows_and_recipes_of_another_kind_are_refused_by_name():
    made = partial(Method, label="Mine", view="tangent", train=lambda study, task: {})
    with pytest.raises(ValueError, match=r"method '../mine': it names a folder"):
        made("../mine")
    with pytest.raises(ValueError, match=r"stands='regim' is not one of .*; did you mean 'regime'"):
        made("mine", stands="regim")
    with pytest.raises(TypeError, match=r"'mine' made a dict of task 'one'; its train is"):
        study().vectors(made("mine"))
    with pytest.raises(ValueError, match=r"view='tangnet' is not one .*; did you mean 'tangent'"):
        study().view(made("mine", view="tangnet"), {})
    with pytest.raises(ValueError, match=r"recipes\['linear'\] is a dict; expected a TrainConfig"):
        study(recipes={"linear": {"lr": 1}})
    x = np.arange(160, dtype=np.float32).reshape(40, 4)
    with pytest.raises(ValueError, match=r"task '..': it names a folder"):
        lz.Study((network, {}), [lz.data.split_task("..", x, np.arange(40) % 2)], Classify())

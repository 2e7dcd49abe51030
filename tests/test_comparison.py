"""The main job on models that classify nothing: metrics and controls are the objectives'."""

import itertools
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import linearize as lz
from linearize import comparison
from linearize.comparison import Plan, Row
from linearize.evaluate.kept import KeptTangent
from linearize.examples import Examples
from linearize.merge import MERGES, Merge
from linearize.methods import LINEAR, METHODS, NONLINEAR, POSTHOC
from linearize.objectives import CausalLM, Control, Squared
from linearize.study import Method, Study
from linearize.train import OptimConfig, RunMismatchError, TrainConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")

VOCABULARY, LENGTH, WIDTH = 5, 6, 4
RECIPE = TrainConfig(optim=OptimConfig(lr=0.05), steps=20, batch_size=8, checkpoint_every=0)
PLAN = Plan(alphas=np.linspace(0, 1, 5), tolerance=Control(units=0.25))


def language_model(params, tokens):
    """Next-token logits (B, L, V) of the token before, by an embedding and a tanh layer."""
    hidden = jnp.tanh(params["embed"][tokens] @ params["mix"])
    return hidden @ params["embed"].T


def task(seed, f=None):
    """Text of a Markov chain of its own, or points of a function."""
    rng = np.random.default_rng(seed)
    chain, splits = rng.integers(0, VOCABULARY, VOCABULARY), {}
    for name, n in (("train", 32), ("validation", 11), ("test", 13)):
        if f is None:
            tokens = np.stack([rng.integers(0, VOCABULARY, n)] * (LENGTH + 1), 1)
            for i in range(LENGTH):
                noise = rng.integers(0, VOCABULARY, n)
                tokens[:, i + 1] = np.where(rng.random(n) < 0.9, chain[tokens[:, i]], noise)
            labels = tokens[:, 1:].copy()
            labels[::3, -2:] = -1  # shorter sentences
            splits[name] = Examples(tokens[:, :-1], {"labels": labels})
        else:
            x = rng.normal(size=(n, WIDTH)).astype(np.float32)
            splits[name] = Examples(x, {"targets": f(x)})
    return lz.Task("task", **splits)


def language(**options):
    rng = np.random.default_rng(0)
    shapes = {"embed": (VOCABULARY, WIDTH), "mix": (WIDTH, WIDTH)}
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    tasks = {name: task(seed) for seed, name in enumerate(("one", "two", "plain"))}
    return Study(
        (language_model, params),
        tasks,
        dict.fromkeys(tasks, CausalLM()),
        control="plain",
        recipes={"nonlinear": RECIPE, "linear": RECIPE},
        **options,
    )


def dense_perplexity(logits, labels):
    nats = -np.asarray(jax.nn.log_softmax(logits), np.float64)
    rows, columns = np.nonzero(labels >= 0)
    return float(np.exp(nats[rows, columns, labels[rows, columns]].mean()))


@pytest.fixture(scope="module")
def spoken():
    study = language(batch_size=4)
    return study, comparison.measure(study, PLAN)


def test_perplexities_are_those_of_the_models_at_the_points(spoken):
    study, record = spoken
    f, params0 = study.model.f, study.model.params
    f_lin = lz.linearize(f, params0)
    for method, at in ((NONLINEAR, f), (POSTHOC, f_lin), (LINEAR, f_lin)):
        taus, row = study.vectors(method), record["addition"][method.name]
        for t, name in enumerate(study.names):
            test = study.split(name, "test")
            single = dense_perplexity(at(taus[name].apply_to(params0), test.inputs), test.labels)
            assert record["single"][method.name][t] == pytest.approx(single, rel=1e-5)
            for alpha, of, share in (
                (row["alpha"], "accuracy", "normalized"),
                (1.0, "full", "full_normalized"),
            ):
                edited = (alpha * sum(taus.values())).apply_to(params0)
                both = dense_perplexity(at(edited, test.inputs), test.labels)
                assert row[of][t] == pytest.approx(both, rel=1e-5)
                assert row[share][t] == pytest.approx(single / both, rel=1e-5)


def test_a_lower_metric_is_chosen_lower_and_forgotten_higher(spoken):
    study, record = spoken
    for method in PLAN.methods:
        sweep = np.asarray(record["addition"][method.name]["sweep_validation"])
        single = study.singles(study.view(method), "validation")
        best = (np.asarray(single) / sweep).mean(1)
        index = list(PLAN.alphas).index(record["addition"][method.name]["alpha"])
        assert best[index] == pytest.approx(best.max())
        view, row = study.view(method), record["negation"][method.name]
        before = study.at(view, {}, "plain", "validation")
        for name, alpha in zip(study.names, row["alpha"], strict=True):
            target, control = (
                study.measure(view, {name: -PLAN.alphas}, t, "validation") for t in (name, "plain")
            )
            allowed = control <= before + 0.25 + 1e-12
            assert target[list(PLAN.alphas).index(alpha)] == target[allowed].max()


def test_training_lowers_perplexity(spoken):
    _, record = spoken
    for row in ("nonlinear", "linear"):
        assert (np.asarray(record["single"][row]) < record["pretrained"]).all()


def test_outputs_too_large_to_keep_are_streamed_to_the_same_numbers(spoken, monkeypatch):
    study, _ = spoken
    kept = study.view(LINEAR)
    points = {"one": PLAN.alphas, "two": -0.5 * PLAN.alphas}
    expected = study.measure(kept, points, "one", "test")
    monkeypatch.setattr("linearize.evaluate.view.KEPT_BYTES", 0)
    fresh = study.view(LINEAR, study.vectors(LINEAR))
    np.testing.assert_allclose(study.measure(fresh, points, "one", "test"), expected, rtol=1e-6)
    assert not fresh._terms


@pytest.mark.slow
def test_regression_goes_through_the_same_job():
    """A linear model of squares: fine-tuning on each task, addition, and negation under control."""
    directions = np.eye(WIDTH, dtype=np.float32)
    tasks = {
        name: task(seed, lambda x, w=directions[seed]: x @ w[:, None])
        for seed, name in enumerate(("one", "two", "rest"))
    }
    study = Study(
        (lambda p, x: x @ p["w"], {"w": np.zeros((WIDTH, 1), np.float32)}),
        tasks,
        dict.fromkeys(tasks, Squared()),
        control="rest",
        recipes=dict.fromkeys(("nonlinear", "linear"), RECIPE),
    )
    record = comparison.measure(study, PLAN)
    tau = study.vectors(LINEAR)["one"].delta["w"]
    x, y = study.split("one", "test").inputs, study.split("one", "test").targets["targets"]
    expected = float(np.mean((x @ np.asarray(tau) - y) ** 2))
    assert record["single"]["linear"][0] == pytest.approx(expected, rel=1e-5)
    assert record["single"]["linear"] == pytest.approx(record["single"]["nonlinear"], rel=1e-4)


def test_a_method_and_a_merge_of_ones_own_enter_every_table(monkeypatch):
    """Under 30 lines: half of the linear vector, and the mean of all, under every view."""

    def half(study, name):
        return 0.5 * study.vectors(LINEAR)[name]

    mean = Merge("mean", "Mean", lambda taus, seed: {"mean": (1 / len(taus)) * sum(taus.values())})
    monkeypatch.setitem(METHODS, "half", Method("half", "Half", "tangent", half))
    monkeypatch.setitem(MERGES, "mean", mean)
    methods = (NONLINEAR, POSTHOC, LINEAR, METHODS["half"])
    rows = [Row(MERGES["mean"], method) for method in methods]
    study = language()
    record = comparison.measure(study, Plan(methods=methods, rows=rows, alphas=np.arange(3.0)))
    for table in ("single", "addition", "negation"):
        assert "half" in record[table]
    for method in methods:
        row = record["addition"][f"mean_{method.name}"]
        summed = along(study, method, row["alpha"] / 2)
        np.testing.assert_allclose(row["accuracy"], summed, rtol=1e-5)


def test_rows_bring_their_words_and_ones_own_need_none():
    """Of a merge its own name, whosever vectors it has; a row's title where it has one."""
    half = Method("half", "Half", "tangent", lambda study, name: study.vectors(LINEAR)[name])
    mine = Merge("mine", "Mine", lambda taus, seed: dict(taus))
    tsv, random = MERGES["tsv_m"], MERGES["random"]
    methods = (LINEAR, METHODS["tau_jp_in_turn"], half)
    rows = [Row(merge, method) for merge in (tsv, mine) for method in methods]
    rows.append(Row(random, LINEAR, "random", "Random"))
    told = comparison.describe(language(), Plan(methods=methods, rows=rows), [0])
    assert told["about"] == {
        "Linear": LINEAR.about,
        "τJp, in turn": METHODS["tau_jp_in_turn"].about,
        "TSV-M": tsv.about,
        "Random": random.about,
    }


def test_hyper_parameters_and_alpha_are_chosen_together_on_validation_data(spoken):
    """Of a metric that is better lower, in both views; a candidate's own best α, then the best.

    Normalized by the method's vectors also where a merge has a direction for each task.
    """
    study, _ = spoken
    sizes = (0.0, 3.0, 0.5)

    def scaled(taus, seed, size=1.0):
        return {"scaled": size * sum(taus.values())}

    def each(taus, seed, size=1.0):
        return {task: size * tau for task, tau in taus.items()}

    rows = (Merge(f.__name__, f.__name__, f, {"size": sizes}) for f in (scaled, each))
    for merge, method in itertools.product(rows, (NONLINEAR, LINEAR)):
        single = np.asarray(study.singles(study.view(method), "validation"))
        scores = np.empty((len(sizes), len(PLAN.alphas)))
        for (i, size), (j, alpha) in itertools.product(enumerate(sizes), enumerate(PLAN.alphas)):
            reached = along(study, method, size * alpha, "validation")
            scores[i, j] = (single / reached).mean()
        i, j = np.unravel_index(scores.argmax(), scores.shape)
        found = comparison.merged(study, PLAN, Row(merge, method))["addition"]
        assert (found["options"], found["alpha"]) == ({"size": sizes[i]}, PLAN.alphas[j])
        expected = along(study, method, sizes[i] * PLAN.alphas[j])
        np.testing.assert_allclose(found["accuracy"], expected, rtol=1e-5)
        own = np.asarray(study.singles(study.view(method)))
        np.testing.assert_allclose(found["normalized"], own / expected, rtol=1e-5)
        swept = [along(study, method, sizes[i] * a, "validation") for a in PLAN.alphas]
        np.testing.assert_allclose(found["sweep_validation"], swept, rtol=1e-5)


def test_test_data_are_seen_at_what_was_chosen_and_at_1_alone(spoken, monkeypatch):
    study, _ = spoken
    seen, measure = [], Study.measure

    def watched(self, view, points, task, split):
        seen.append((split, task, len(np.ravel(next(iter(points.values()), 0)))))
        return measure(self, view, points, task, split)

    monkeypatch.setattr(Study, "measure", watched)
    plan = replace(PLAN, sweep_test=False)
    comparison.merged(study, plan, Row(MERGES["consensus"], LINEAR))
    tests = [each for each in seen if each[0] == "test"]
    assert sorted(set(tests)) == [
        (*each, n) for each in (("test", "one"), ("test", "two")) for n in (1, 2)
    ]
    swept = [each for each in seen if each == ("validation", "one", len(PLAN.alphas))]
    assert len(swept) == len(MERGES["consensus"].options["tall"])


def along(study, method, alpha, split="test"):
    view = study.view(method)
    return comparison.along(study, view, [alpha], split)[0]


def test_a_directory_is_of_the_method_that_it_was_made_with(tmp_path):
    """Another function of the same name is another method."""

    def one(study, name):
        return 0.5 * study.vectors(LINEAR)[name]

    def other(study, name):
        return 0.25 * study.vectors(LINEAR)[name]

    plan = Plan(alphas=np.linspace(0, 1, 2))
    first, second = (Method("mine", "Mine", "tangent", train) for train in (one, other))
    compare = partial(lz.compare, language(store=tmp_path), plan=plan, maps=[])
    record = compare([first]).record
    assert compare([first]).record["single"] == record["single"]
    with pytest.raises(RunMismatchError, match="methods differ"):
        compare([second])


def test_a_directory_goes_on_with_heads_made_anew(tmp_path):
    """As in another process, where functions lie elsewhere; other heads are another study."""
    first = language(store=tmp_path)
    compare = partial(lz.compare, methods=["linear"], maps=[], plan=Plan(alphas=np.arange(2.0)))

    def anew(objectives):
        return first.but(objectives=objectives)

    record = compare(anew(lambda model, task, seed: CausalLM())).record
    again = compare(anew(CausalLM())).record
    assert {k: again[k] for k in ("single", "addition")} == {
        k: record[k] for k in ("single", "addition")
    }
    halved = replace(CausalLM().distance, farthest=0.5)
    with pytest.raises(RunMismatchError, match="objectives differ"):
        compare(anew(CausalLM(distance=halved)))


def shifted(by, params, tokens):
    return language_model(params, tokens) + by[None, None]


shifted.fingerprint = "shifted"  # type: ignore[attr-defined]


def test_arrays_that_a_model_holds_decide_what_is_kept(tmp_path):
    """A store's claim, what methods prepare, and the terms of a tangent view."""

    def known(by):
        study = language(store=tmp_path)
        study = study.but(model=(Partial(shifted, jnp.full(VOCABULARY, by)), study.model.params))
        taus = {"one": lz.TaskVector(study.model.params)}
        view = KeptTangent(study.model.f, study.model.params, taus)
        examples = study.split("one", "test")
        return (
            comparison.identity_of(study, Plan(methods=[LINEAR]))["f"],
            study._file("seen", "one", {}, "train", None),
            view._decided_by(examples),
        )

    for one, again, other in zip(known(1.0), known(1.0), known(2.0), strict=True):
        assert one == again != other


def test_borrowed_vectors_decide_what_is_kept(tmp_path):
    """By what they are, not by where they lie; of one folder there is one draw."""

    def borrowing(folder, scale):
        study = language(store=tmp_path / "store")
        for name in study.names:
            tau = scale * lz.TaskVector(study.model.params)
            tau.save(tmp_path / folder / "linear" / name / "task_vector.safetensors")
        return study.but(borrowed=tmp_path / folder)

    one, again, other = (borrowing(*f) for f in (("a", 1.0), ("b", 1.0), ("c", 2.0)))
    plan = Plan(methods=[LINEAR])
    first, second, third = (comparison.identity_of(s, plan) for s in (one, again, other))
    assert first == second != third
    assert comparison.identity_of(language(), plan) == {
        k: first[k] for k in set(first) - {"borrowed"}
    }
    assert comparison.job(one, ["linear"]).left == []
    with pytest.raises(ValueError, match=r"seeds=\[0, 1\]: all would take .*compare one seed"):
        lz.compare(one, ["linear"], seeds=[0, 1])


def test_a_map_tells_how_many_examples_it_looked_at(spoken):
    """Of each task no more than there are."""
    study, _ = spoken
    fewer = study.but(
        tasks={
            **study.tasks,
            "two": replace(study.tasks["two"], test=study.split("two", "test").take(slice(9))),
        }
    )
    for n, expected in ((5, [5, 5]), (10, [10, 9]), (500, [len(study.split("one", "test")), 9])):
        facts = comparison.map_facts(fewer, Plan(n_eval=n), ("one", "two"))
        assert (facts["examples"], facts["n_eval"]) == (expected, min(expected))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"alphas": [0.0, np.nan, 1.0]}, r"alphas=\[0\.0, nan, 1\.0\]; expected rising"),
        ({"alphas": np.array([1.0, 0.5, 0.0])}, r"alphas=\[1\.0, 0\.5, 0\.0\]; expected rising"),
        ({"alphas": [0.0, 0.0]}, "alphas=.*rising"),
        ({"alphas": 0.5}, "alphas=0.5; .*on one axis, 1 or more"),
        ({"alphas": []}, "alphas=.*1 or more"),
        ({"alphas": ["a"]}, "alphas=.*rising"),
        ({"map_alphas": np.array([1.0, 0.0, -1.0])}, "map_alphas=.*rising"),
        ({"map_alphas": [1.0]}, "map_alphas=.*2 or more"),
        ({"map_alphas": [0.0, 1e39]}, "map_alphas=.*finite"),
        ({"n_eval": None}, "n_eval=None; expected an integer, 1 or more"),
        ({"n_eval": 0}, "n_eval=0"),
        ({"search_box": (0.3, 0.4)}, r"search_box=\(0\.3, 0\.4\).*25 from -3 to 3"),
        ({"search_box": (1.0, -1.0)}, "search_box=.*with a coefficient"),
        ({"search_box": None}, "search_box=None; expected"),
        ({"search_box": (np.nan, 1.0)}, "search_box=nan; expected a finite number"),
    ],
)
def test_grids_that_cannot_be_are_refused_where_they_are_given(given, message):
    with pytest.raises(ValueError, match=message):
        Plan(**given)


def test_grids_may_be_lists_and_hold_0_where_rounding_missed_it():
    plan = Plan(alphas=np.linspace(-0.3, 1, 14), map_alphas=[-1, 0, 1])
    assert plan.alphas[3] == 0
    assert plan.map_alphas.tolist() == [-1.0, 0.0, 1.0]
    assert Plan().alphas.tolist() == np.linspace(0, 1, 21).tolist()


def test_negation_under_control_wants_0_before_anything_is_trained(monkeypatch):
    study, plan = language(), Plan(alphas=[0.5, 1.0])
    monkeypatch.setattr(Study, "vectors", None)
    with pytest.raises(ValueError, match=r"alphas=\[0\.5, 1\.0\] lacks 0.*'plain'; add it"):
        lz.compare(study, ["linear"], plan=plan)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([], r"methods=\[\]: none has task vectors"),
        (["joint"], "methods=.*joint.*: none has task vectors"),
        (["linear", "joint"], "'joint' is held against 'nonlinear'; name that too"),
        (["linear", "gradient_ascent"], "'gradient_ascent' is of negation: .*control="),
        (["tau_jp_with_control"], "'tau_jp_with_control' trains with the control task: .*control="),
        (["tak_with_control"], "'tak_with_control' trains with the control task: .*control="),
        (["delta_on_control"], "'delta_on_control' trains with the control task: .*control="),
    ],
)
def test_methods_that_nothing_can_be_held_against_are_refused(methods, message):
    points = {name: task(i, lambda x: x.sum(1, keepdims=True)) for i, name in enumerate("ab")}
    params = {"w": np.ones((WIDTH, 1), np.float32)}
    study = Study((lambda params, x: x @ params["w"], params), points, Squared())
    with pytest.raises(ValueError, match=message):
        lz.compare(study, methods)

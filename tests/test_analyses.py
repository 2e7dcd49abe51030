"""Subsets, coefficients and ensembling on their smallest presets: against direct computation."""

import dataclasses
import itertools
import json
import shutil

import numpy as np
import pytest
from scipy.special import logsumexp

import linearize as lz
from configs import COEFFICIENTS, ENSEMBLING, SUBSETS
from experiments import coefficients, ensembling, protocol, subsets, vectors
from linearize import assets, cli, config, evaluate, io, report
from linearize.config import ConfigError
from linearize.evaluate import AffineOutputs
from linearize.models.heads import apply_head
from linearize.task_vector import TaskVector

close = np.testing.assert_allclose
EXPERIMENTS = {
    "subsets": (subsets, SUBSETS),
    "coefficients": (coefficients, COEFFICIENTS),
    "ensembling": (ensembling, ENSEMBLING),
}
DEBUG = {name: presets["debug"]() for name, (_, presets) in EXPERIMENTS.items()}
COMPARE = DEBUG["subsets"].compare()
NAMES = COMPARE.data.tasks


class RepeatedError(AssertionError):
    """Something was computed again."""


def refuse(*_, **__):
    raise RepeatedError


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of each, of one seed, on the same vectors; the second seed's numbers are the first's.

    Terms are kept beside the runs, not in the user's cache.
    """
    runs = tmp_path_factory.mktemp("runs")
    try:
        tasks = protocol.load_tasks(COMPARE)
    except assets.RegistryError as error:
        pytest.skip(f"the packages that hold the tasks are out of reach: {error}")
    place = vectors.terms_path
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vectors, "terms_path", lambda *args: runs / "terms" / place(*args).name)
        setting = protocol.prepare(COMPARE, tasks, 0)
        for regime in ("nonlinear", "linear"):
            protocol.task_vectors(setting, regime, runs / "compare" / "seed_0")
        io.write_json(runs / "compare" / "config.json", config.to_dict(COMPARE))
        for name, (experiment, _) in EXPERIMENTS.items():
            given = dataclasses.replace(DEBUG[name], vectors=str(runs / "compare"))
            first = experiment.measure(runs / name / "seed_0", given, tasks, 0)
            io.write_json(runs / name / "seed_1" / "record.json", first)
            experiment.run(given, runs / name, "debug")
        yield runs


@pytest.fixture(scope="module")
def results(finished):
    return {n: json.loads((finished / n / "results.json").read_text()) for n in EXPERIMENTS}


@pytest.fixture(scope="module")
def setting(finished):
    return protocol.prepare(COMPARE, protocol.load_tasks(COMPARE), seed=0)


def load(finished, regime):
    folder = finished / "compare" / "seed_0" / regime
    return [TaskVector.load(folder / t / "task_vector.safetensors") for t in NAMES]


def predicted(setting, f, tau, task, split="test"):
    """Logits of a moved model, directly."""
    features = f(tau.apply_to(setting.params0), setting.split(task, split).images)
    return np.asarray(apply_head(setting.heads[task], features))


def accuracy(setting, f, tau, task, split="test"):
    labels = setting.split(task, split).labels
    return (predicted(setting, f, tau, task, split).argmax(-1) == labels).mean()


@pytest.mark.parametrize(
    ("name", "figures", "tables"),
    [
        ("subsets", {"by_size", "coefficients"}, {"claims", "sizes", "pairs"}),
        (
            "coefficients",
            {"worth", "by_task", "by_part_linear"},
            {"claims", "coefficients", "certificates"},
        ),
        ("ensembling", {"scatter"}, {"claims", "merges"}),
    ],
)
def test_writes_everything(finished, name, figures, tables):
    given = json.loads((finished / name / "config.json").read_text())
    assert given["vectors"] == str(finished / "compare")
    assert {p.stem for p in (finished / name / "figures").glob("*.png")} == figures
    assert {p.stem for p in (finished / name / "tables").glob("*.md")} == tables
    assert (finished / name / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("regime", ["nonlinear", "posthoc", "linear"])
def test_a_subset_is_the_sum_of_its_vectors(finished, results, setting, regime):
    found, index = results["subsets"][regime], 4
    subset = results["subsets"]["subsets"][regime][index]
    assert len(subset) == 2
    f = setting.f if regime == "nonlinear" else lz.linearize(setting.f, setting.params0)
    taus = load(finished, protocol.TRAINED[regime])
    total = lz.edit.add([taus[t] for t in subset])
    alpha = found["alpha"][0][index]
    expected = [accuracy(setting, f, alpha * total, task) for task in NAMES]
    close(found["accuracy"][0][index], expected, atol=1e-6)
    alone = [accuracy(setting, f, taus[t], NAMES[t]) for t in subset]
    there = [accuracy(setting, f, DEBUG["subsets"].fixed * total, NAMES[t]) for t in subset]
    close(found["fixed"][0][index], np.mean(np.divide(there, alone)), atol=1e-6)
    single = [accuracy(setting, f, taus[t], NAMES[t], "validation") for t in subset]

    def score(a):
        merged = [accuracy(setting, f, a * total, NAMES[t], "validation") for t in subset]
        return np.mean(np.divide(merged, single))

    assert score(alpha) == max(score(a) for a in results["subsets"]["grid"][regime])


def test_every_subset_is_there_and_a_sample_of_the_nonlinear_ones(results):
    every = {s for k in (1, 2, 3) for s in itertools.combinations(range(3), k)}
    assert {tuple(s) for s in results["subsets"]["subsets"]["linear"]} == every
    assert {tuple(s) for s in results["subsets"]["subsets"]["nonlinear"]} == every  # few tasks
    eight = SUBSETS["packaged"]()
    sampled = eight.sampled()
    assert len(eight.subsets()) == 255
    assert len(set(sampled)) == len(sampled) == 8 + 28 + 5 * eight.sample + 1
    assert eight.sampled() == sampled
    assert dataclasses.replace(eight, sample_seed=1).sampled() != sampled


def test_parts_add_up_and_coefficients_are_what_they_say(finished, results, setting):
    """Linear regime: the record's coefficients by task and part, applied to the weights."""
    given = DEBUG["coefficients"]
    groups = coefficients.parts(given)
    assert list(groups) == ["block_0", "block_1"]
    taus = load(finished, "linear")
    assert all(
        sorted(n for p in groups.values() for n in tau.select(p).delta) == sorted(tau.delta)
        for tau in taus
    )
    fit = results["coefficients"]["linear"]["fits"]["task and part"]["true"]
    at = np.array(fit["coefficients"][0]).reshape(len(NAMES), len(groups))
    moved = lz.edit.add(
        TaskVector(
            {n: a * d for a, p in zip(row, groups.values(), strict=True)
             for n, d in tau.select(p).delta.items()},
            base=tau.base,
        )
        for row, tau in zip(at, taus, strict=True)
    )  # fmt: skip
    f_lin = lz.linearize(setting.f, setting.params0)
    for t, task in enumerate(NAMES):
        for split in ("validation", "test"):
            logits = predicted(setting, f_lin, moved, task, split).astype(float)
            y = setting.split(task, split).labels
            expected = (logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean()
            close(fit[split]["cross_entropy"][0][t], expected, rtol=1e-3)
            close(fit[split]["accuracy"][0][t], (logits.argmax(-1) == y).mean(), atol=0.02)


def test_freer_coefficients_fit_better_and_are_certified(results):
    for regime in ("linear", "posthoc"):
        found = results["coefficients"][regime]["fits"]
        nested = [("shared", "task")]
        if regime in DEBUG["coefficients"].split:
            nested += [("shared", "part"), ("task", "task and part"), ("part", "task and part")]
        for less, more in nested:
            objectives = [found[k]["affine"]["objective"][0] for k in (less, more)]
            assert objectives[1] <= objectives[0] + 1e-9
            assert found[more]["affine"]["gap"][0] < 1e-9
            true = found[more]["true"]
            close(min(found[more]["starts"][0]), true["objective"][0], rtol=1e-6)
            measured = np.mean(true["validation"]["cross_entropy"][0])
            close(true["objective"][0], measured, rtol=1e-4)
            affine = np.mean(found[more]["affine"]["validation"]["cross_entropy"][0])
            assert measured <= affine + 1e-5  # the start at the affine head's optimum


def test_an_affine_head_predicts_the_same_classes(setting):
    heads = coefficients.affine_heads(DEBUG["coefficients"], setting)
    for head, task in zip(heads, NAMES, strict=True):
        features = setting.f(setting.params0, setting.split(task, "test").images)
        true = apply_head(setting.heads[task], features)
        np.testing.assert_array_equal(apply_head(head, features).argmax(-1), true.argmax(-1))


def test_averaged_weights_and_the_ensemble_are_what_they_say(finished, results, setting):
    taus = load(finished, "nonlinear")
    pairs = results["ensembling"]["nonlinear"]["pairs"]
    labels = setting.split(NAMES[0], "test").labels
    merged = predicted(setting, setting.f, 0.5 * (taus[0] + taus[2]), NAMES[0])
    both = sum(predicted(setting, setting.f, taus[t], NAMES[0]) for t in (0, 2)) / 2
    close(pairs["average"][0][0][2], (merged.argmax(-1) == labels).mean(), atol=1e-6)
    close(pairs["ensemble"][0][0][2], (both.argmax(-1) == labels).mean(), atol=1e-6)
    close(pairs["agreement"][0][0][2], (both.argmax(-1) == merged.argmax(-1)).mean(), atol=1e-6)
    for regime in DEBUG["ensembling"].regimes:
        close(np.diagonal(results["ensembling"][regime]["pairs"]["agreement"][0]), 1)


def test_in_the_tangent_space_with_affine_heads_both_merges_are_one(finished, setting):
    plain = coefficients.affine_heads(DEBUG["coefficients"], setting)
    affine = dataclasses.replace(setting, heads=dict(zip(NAMES, plain, strict=True)))
    taus = dict(zip(NAMES, load(finished, "linear"), strict=True))
    evaluator = vectors.evaluator(affine, "linear", taus)
    alone = ensembling.logits(evaluator, NAMES[1], np.eye(3))
    merged = ensembling.logits(evaluator, NAMES[1], np.full((1, 3), 1 / 3))
    close(merged[0], alone.mean(0), atol=1e-4 * np.abs(alone).max())
    assert (
        ensembling.compared(evaluator)["all"]["average"]
        == (ensembling.compared(evaluator)["all"]["ensemble"])
    )


def test_vectors_of_several_seeds(finished, setting):
    taus = load(finished, "nonlinear")[:2]
    found = ensembling.averaged([setting, setting], "nonlinear", NAMES[0], taus)
    close(found["cosine"][0][1], float(taus[0].cosine(taus[1])), rtol=1e-5)
    close(found["single"][1][0], accuracy(setting, setting.f, taus[1], NAMES[0]), atol=1e-6)
    half = 0.5 * (taus[0] + taus[1])
    close(found["average"][0], accuracy(setting, setting.f, half, NAMES[0]), atol=1e-6)
    f_lin = lz.linearize(setting.f, setting.params0)
    linear = ensembling.averaged([setting, setting], "linear", NAMES[0], taus)
    close(linear["average"][1], accuracy(setting, f_lin, half, NAMES[0]), atol=1e-6)


def test_terms_are_computed_once(finished, setting, monkeypatch, tmp_path, caplog):
    taus = dict(zip(NAMES, load(finished, "linear"), strict=True))
    place = vectors.terms_path
    monkeypatch.setattr(vectors, "terms_path", lambda *a: tmp_path / place(*a).name)
    first = vectors.evaluator(setting, "linear", taus).terms(NAMES[0], "validation")
    whole = evaluate.affine_outputs(
        setting.f, setting.params0, list(taus.values()),
        setting.split(NAMES[0], "validation").images,
    )  # fmt: skip
    close(first.jvps, whole.jvps, atol=1e-5 * np.abs(whole.jvps).max())
    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "affine_outputs", refuse)
        again = vectors.evaluator(setting, "linear", taus).terms(NAMES[0], "validation")
        np.testing.assert_array_equal(again.jvps, first.jvps)
        other = {name: 2.0 * tau for name, tau in taus.items()}
        with pytest.raises(RepeatedError):
            vectors.evaluator(setting, "linear", other).terms(NAMES[0], "validation")
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    again = vectors.evaluator(setting, "linear", taus).terms(NAMES[0], "validation")
    np.testing.assert_array_equal(again.jvps, first.jvps)
    assert "computed again" in caplog.text


def test_fewer_examples_are_the_first(setting):
    fewer = vectors.first(setting, 40, None)
    for task in NAMES:
        whole = setting.split(task, "validation")
        np.testing.assert_array_equal(fewer.split(task, "validation").labels, whole.labels[:40])
        assert len(fewer.split(task, "test")) == len(setting.split(task, "test"))


def test_runs_that_were_killed_go_on_from_their_parts(finished, results, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "write_all", lambda run_dir: run_dir)
    monkeypatch.setattr(vectors, "evaluator", refuse)
    for name, (experiment, _) in EXPERIMENTS.items():
        run_dir = tmp_path / name
        shutil.copytree(finished / name, run_dir)
        (run_dir / "results.json").unlink()
        given = dataclasses.replace(DEBUG[name], vectors=str(finished / "compare"))
        experiment.run(given, run_dir, "debug")
        again = json.loads((run_dir / "results.json").read_text())
        assert again == results[name]
        (run_dir / "seed_0" / "record.json").unlink()
        with pytest.raises(RepeatedError):
            experiment.run(given, run_dir, "debug")


def test_vectors_that_are_not_there_are_named(finished, tmp_path):
    given = dataclasses.replace(DEBUG["subsets"], vectors=str(finished / "compare"))
    with pytest.raises(ConfigError, match="task vectors of seeds"):
        subsets.run(dataclasses.replace(given, seeds=(0, 7)), tmp_path / "a")
    with pytest.raises(ConfigError, match=r"config\.json"):
        subsets.run(dataclasses.replace(given, vectors=str(tmp_path)), tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("subsets", {"grid": (0.4, 0.2)}, "ascending"),
        ("subsets", {"fixed": 0.3}, "fixed=0.3: must be one of grid"),
        ("subsets", {"sample": 0}, "sample=0"),
        ("subsets", {"regimes": ()}, "one regime or more"),
        ("subsets", {"validation": 0}, "validation=0"),
        ("coefficients", {"regimes": ("nonlinear",)}, "only 'posthoc' and 'linear' are affine"),
        ("coefficients", {"regimes": ("posthoc",)}, "must be among regimes"),
        ("coefficients", {"parts": -1}, "parts=-1"),
        ("ensembling", {"regimes": ("linear", "linear")}, "name each once"),
        ("ensembling", {"seeds": ()}, "seeds"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(name, change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG[name], **change)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_presets_survive_json_and_overrides_reach_them(name):
    _, presets = EXPERIMENTS[name]
    for build in presets.values():
        preset = build()
        again = config.from_dict(type(preset), json.loads(json.dumps(config.to_dict(preset))))
        assert again == preset
    found = cli.parse(name, presets, ["debug", "--test", "50", "--seeds", "3"]).config
    assert (found.test, found.seeds) == (50, (3,))


@pytest.mark.parametrize(
    ("name", "lost", "message"),
    [
        ("subsets", ("linear", "accuracy"), "linear/accuracy"),
        ("coefficients", ("posthoc", "fits"), "posthoc/fits"),
        ("ensembling", ("nonlinear", "pairs"), "nonlinear/pairs"),
    ],
)
def test_a_damaged_result_is_named(finished, tmp_path, name, lost, message):
    values = json.loads((finished / name / "results.json").read_text())
    del values[lost[0]][lost[1]]
    io.write_json(tmp_path / "results.json", values)
    with pytest.raises(report.ResultsError, match=message):
        report.read_page(tmp_path)


def test_along_is_the_algebra_it_says():
    rng = np.random.default_rng(0)
    terms = AffineOutputs(rng.normal(size=(5, 2)), rng.normal(size=(3, 5, 2)))
    basis = rng.normal(size=(3, 2))
    moved = np.einsum("tg,tnc->gnc", basis, terms.jvps)
    close(terms.along(basis).jvps, moved, rtol=1e-6)

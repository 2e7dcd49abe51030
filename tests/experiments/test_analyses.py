"""Subsets, coefficients and ensembling on their smallest presets: against direct computation."""

import dataclasses
import itertools
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import linearize as lz
from configs.coefficients import PRESETS as COEFFICIENTS
from configs.ensembling import PRESETS as ENSEMBLING
from configs.subsets import PRESETS as SUBSETS
from experiments import protocol, report, vectors
from experiments.coefficients import run as coefficients
from experiments.ensembling import run as ensembling
from experiments.stand_ins import model as stand_in_model
from experiments.subsets import run as subsets
from linearize import cli, config, data, edit, evaluate, io, models, tree
from linearize.config import CompareConfig, ConfigError, DataConfig, HeadConfig, ModelConfig
from linearize.evaluate import AffineOutputs, kept
from linearize.evaluate.view import VIEWS
from linearize.methods import METHODS
from linearize.models.heads import apply_head
from linearize.objectives import Classify
from linearize.report import ResultsError
from linearize.study import Store
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow

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
def finished(debug_run, tmp_path_factory):
    """A run of each, and the vectors of one as a run of ``compare`` leaves them."""
    runs = tmp_path_factory.mktemp("runs")
    for name in EXPERIMENTS:
        (runs / name).symlink_to(debug_run(name))
    shutil.copytree(runs / "subsets", runs / "compare")
    io.write_json(runs / "compare" / "config.json", config.to_dict(COMPARE))
    return runs


@pytest.fixture(scope="module")
def results(finished):
    return {n: json.loads((finished / n / "results.json").read_text()) for n in EXPERIMENTS}


@pytest.fixture(scope="module")
def study(finished):
    """The run's study, as the analyses take it."""
    store = Store.of(finished / "compare" / "seed_0")
    return protocol.study(COMPARE, protocol.load_tasks(COMPARE), 0, store)


def load(finished, regime, name="compare"):
    folder = finished / name / "seed_0" / regime
    return [TaskVector.load(folder / t / "task_vector.safetensors") for t in NAMES]


def head_of(study, task):
    return study.objectives[task].readout


def predicted(study, f, tau, task, split="test"):
    """Logits of a moved model, directly."""
    features = f(tau.apply_to(study.model.params), study.split(task, split).inputs)
    return np.asarray(apply_head(head_of(study, task), features))


def accuracy(study, f, tau, task, split="test"):
    labels = study.split(task, split).labels
    return (predicted(study, f, tau, task, split).argmax(-1) == labels).mean()


def keeping(study, **changes):
    """The same study, whose tangent view keeps its terms as that of the analyses does."""
    views = {**VIEWS, "tangent": kept.KeptTangent}
    return study.but(views=views, **changes)


@pytest.mark.slow(but=["nonlinear", "linear"])
@pytest.mark.parametrize("regime", ["nonlinear", "posthoc", "linear"])
def test_a_subset_is_the_sum_of_its_vectors(finished, results, study, regime):
    found, index = results["subsets"][regime], 4
    subset = results["subsets"]["subsets"][regime][index]
    assert len(subset) == 2
    f = study.model.f
    if regime != "nonlinear":
        f = lz.linearize(f, study.model.params)
    taus = load(finished, (METHODS[regime].of or METHODS[regime]).name)
    total = lz.edit.add([taus[t] for t in subset])
    alpha = found["alpha"][0][index]
    expected = [accuracy(study, f, alpha * total, task) for task in NAMES]
    close(found["accuracy"][0][index], expected, atol=1e-6)
    alone = [accuracy(study, f, taus[t], NAMES[t]) for t in subset]
    there = [accuracy(study, f, DEBUG["subsets"].fixed * total, NAMES[t]) for t in subset]
    close(found["fixed"][0][index], np.mean(np.divide(there, alone)), atol=1e-6)
    single = [accuracy(study, f, taus[t], NAMES[t], "validation") for t in subset]

    def score(a):
        merged = [accuracy(study, f, a * total, NAMES[t], "validation") for t in subset]
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


def test_parts_add_up_and_coefficients_are_what_they_say(finished, results, study):
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
    f_lin = lz.linearize(study.model.f, study.model.params)
    for t, task in enumerate(NAMES):
        for split in ("validation", "test"):
            logits = predicted(study, f_lin, moved, task, split).astype(float)
            y = study.split(task, split).labels
            expected = (logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean()
            close(fit[split]["cross_entropy"][0][t], expected, rtol=1e-3)
            close(fit[split]["accuracy"][0][t], (logits.argmax(-1) == y).mean(), rtol=1e-12)


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


def test_an_affine_head_predicts_the_same_classes(study):
    heads = coefficients.affine_heads(DEBUG["coefficients"], study)
    for head, task in zip(heads, NAMES, strict=True):
        features = study.model.f(study.model.params, study.split(task, "test").inputs)
        true = apply_head(head_of(study, task), features)
        np.testing.assert_array_equal(apply_head(head, features).argmax(-1), true.argmax(-1))


def test_prototypes_are_fitted_to_the_terms_as_they_are(finished, results, study):
    """What freezing norms for text heads leaves alone, to the last digit."""
    taus = dict(zip(NAMES, load(finished, "nonlinear", "coefficients"), strict=True))
    view = keeping(study).view(METHODS["posthoc"], taus)
    terms = [view.terms(study.split(t, "validation")).along(np.eye(3)) for t in NAMES]
    labels = [study.split(task, "validation").labels for task in NAMES]
    heads = coefficients.affine_heads(DEBUG["coefficients"], study)
    direct = edit.optimal_coefficients(terms, labels, heads, start=np.zeros(3))
    found = results["coefficients"]["posthoc"]["fits"]["task"]["affine"]
    np.testing.assert_array_equal(found["coefficients"][0], direct.coefficients)
    assert found["objective"][0] == direct.objective


def test_frozen_norms_make_a_text_head_affine():
    rng = np.random.default_rng(0)
    head = models.zero_shot_head(list(rng.normal(size=(4, 2, 6))), np.log(20.0))
    head = dataclasses.replace(head, center=jnp.asarray(rng.normal(size=6), jnp.float32))
    terms = AffineOutputs(
        rng.normal(2, 3, size=(50, 6)).astype(np.float32),
        rng.normal(size=(2, 50, 6)).astype(np.float32),
    )
    read, plain = coefficients.frozen_norms(terms, head), dataclasses.replace(head, normalize=False)
    close(apply_head(plain, read.f0), apply_head(head, terms.f0), rtol=1e-4, atol=1e-4)
    center, kernel = np.asarray(head.center), np.asarray(head.kernel)
    n = np.linalg.norm(terms.f0 - center, axis=1, keepdims=True)
    for alphas in ([1.0, 0.0], [0.3, -2.0], [5.0, 4.0]):
        z = np.asarray(terms.at(alphas)) - center
        logits = apply_head(plain, read.at(alphas))
        close(logits, float(head.scale) * z / n @ kernel, rtol=1e-4, atol=1e-4)
        true = apply_head(head, terms.at(alphas))
        assert np.abs(logits - true).max() > 0.1
        np.testing.assert_array_equal(logits.argmax(1), true.argmax(1))
    at_center = AffineOutputs(center[None], terms.jvps[:, :1])
    zero = coefficients.frozen_norms(at_center, head)
    assert np.isfinite(zero.f0).all()
    assert np.isfinite(zero.jvps).all()


TASKS = ("left", "right")


def random_task(name, side, examples=12):
    rng = np.random.default_rng(len(name))
    shape = (examples, side, side, 3)
    split = rng.integers(0, 256, shape, dtype=np.uint8), np.arange(examples, dtype=np.int32) % 3
    return data.Task(name, split, split, split, ("a cat", "a dog", "a car"))


@pytest.fixture
def kept_here(monkeypatch, tmp_path):
    """Terms are kept in the test's own folder."""
    place = kept.terms_path
    monkeypatch.setattr(kept, "terms_path", lambda *a: tmp_path / "terms" / place(*a).name)


def vit(scan, *, blocks, parts):
    """Text heads on a ViT with random weights: a configuration, and a study of two tasks."""
    compare = CompareConfig(
        model=ModelConfig(
            name="vit_s_focus",
            image_size=14,
            blocks=blocks,
            pretrained=False,
            scan=scan,
            weights="none",
        ),
        data=DataConfig(tasks=TASKS, image_size=14),
        head=HeadConfig(kind="text"),
        edit=dataclasses.replace(DEBUG["coefficients"].edit, points=3),
    )
    model = protocol.backbone(compare.model, 0)
    rng = np.random.default_rng(1)
    heads = {
        name: models.zero_shot_head(list(rng.normal(size=(3, 1, model.feature_dim))), np.log(10.0))
        for name in TASKS
    }
    tasks = {name: random_task(name, 14) for name in TASKS}
    study = protocol.study(compare, tasks, 0, Store(), heads=heads)
    given = config.CoefficientsConfig(
        model=compare.model, data=compare.data, head=compare.head, edit=compare.edit,
        regimes=("linear",), starts=0, parts=parts,
    )  # fmt: skip
    return given, keeping(study)


def random_vectors(params):
    rng = np.random.default_rng(2)
    return [
        {n: jnp.asarray(0.02 * rng.normal(size=leaf.shape), jnp.float32)
         for n, leaf in tree.flatten(params).items()}
        for _ in TASKS
    ]  # fmt: skip


def both_forms(studies):
    """The same random vectors of an unrolled and of a scanned model, by task."""
    deltas = random_vectors(studies[0].model.params)
    return [
        dict(zip(TASKS, map(TaskVector, deltas), strict=True)),
        dict(zip(TASKS, (TaskVector(models.stack(d)) for d in deltas), strict=True)),
    ]


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        (2, ["block_0 to block_1", "block_2", "outside the blocks"]),
        (3, ["block_0", "block_1", "block_2", "outside the blocks"]),
    ],
)
def test_parts_of_stacked_blocks_are_those_of_the_unrolled_model(parts, names):
    (given, unrolled), (other, scanned) = (vit(s, blocks=3, parts=parts) for s in (False, True))
    groups = coefficients.parts(given)
    assert list(groups) == names
    assert coefficients.parts(other) == groups
    plain, stacked = (taus[TASKS[0]] for taus in both_forms([unrolled, scanned]))
    total = {n: np.zeros(leaf.shape) for n, leaf in stacked.delta.items()}
    for pattern in groups.values():
        part = coefficients.restrict(stacked, pattern).delta
        ours = {n: d for n, d in models.unstack(part).items() if np.any(d)}
        same = plain.select(pattern).delta
        assert ours.keys() == same.keys()
        assert all(np.array_equal(ours[n], same[n]) for n in same)
        alike = coefficients.restrict(plain, pattern).delta
        assert alike.keys() == same.keys()
        total = {n: d + np.asarray(part.get(n, 0)) for n, d in total.items()}
    assert all(np.array_equal(total[n], leaf) for n, leaf in stacked.delta.items())


@pytest.mark.slow
def test_stacked_blocks_have_the_unrolled_model_s_terms_and_coefficients(kept_here):
    forms = [vit(scan, blocks=2, parts=2) for scan in (False, True)]
    groups = coefficients.parts(forms[0][0])
    free = np.eye(len(TASKS) * len(groups))
    terms, found = [], []
    for (given, study), taus in zip(forms, both_forms([s for _, s in forms]), strict=True):
        study._vectors["linear"] = taus
        problem = coefficients.Problem.of(given, study, METHODS["linear"], groups)
        terms.append([np.asarray(each.jvps) for each in problem.terms["validation"]])
        found.append(problem.fit("affine", free, 1e-2, np.zeros(len(free))))
    for one, other in zip(*terms, strict=True):
        assert all(np.abs(along).max() > 1e-3 for along in one)
        close(other, one, atol=1e-4 * np.abs(one).max())
    assert np.abs(found[0].coefficients).max() > 0.05
    close(found[1].coefficients, found[0].coefficients, atol=1e-3)
    assert max(each.gap for each in found) < 1e-10


def test_parts_without_trainable_leaves_are_left_out():
    given, _ = vit(scan=False, blocks=3, parts=3)
    last = dataclasses.replace(given, trainable="^block_2/")
    assert list(coefficients.parts(last)) == ["block_2"]
    given, _ = vit(scan=True, blocks=3, parts=3)
    inside = dataclasses.replace(given, trainable="^blocks/")
    assert list(coefficients.parts(inside)) == ["block_0", "block_1", "block_2"]


@pytest.mark.slow
@pytest.mark.network
def test_a_run_with_text_heads_and_stacked_blocks(kept_here, tmp_path, monkeypatch):
    """The whole experiment on the vectors of a run of ``compare``, which are random here."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    folder = stand_in_model.make(tmp_path / "clip", seed=0)
    compare = CompareConfig(
        model=ModelConfig(name="clip", weights=str(folder), image_size=32, blocks=None, scan=True),
        data=DataConfig(tasks=TASKS, image_size=32),
        head=HeadConfig(kind="text"),
    )
    params0 = protocol.backbone(compare.model, 0).params
    for regime in ("nonlinear", "linear"):
        for name, delta in zip(TASKS, random_vectors(params0), strict=True):
            tau = TaskVector(delta, base=tree.fingerprint(params0))
            tau.save(tmp_path / "run/seed_0" / regime / name / "task_vector.safetensors")
    io.write_json(tmp_path / "run/config.json", config.to_dict(compare))
    tasks = {name: random_task(name, 32) for name in TASKS}
    monkeypatch.setattr(protocol, "load_tasks", lambda *_, **__: tasks)
    given = dataclasses.replace(
        DEBUG["coefficients"], vectors=str(tmp_path / "run"), seeds=(0,), parts=3, starts=0, l2=1e-3
    )
    page = coefficients.run(given, tmp_path / "found", "custom")
    assert "divides each example by its own norm at θ0" in page.read_text()
    results = json.loads((tmp_path / "found/results.json").read_text())
    assert results["parts"] == ["block_0", "block_1", "block_2", "outside the blocks"]
    for regime in given.regimes:
        for kind, fit in results[regime]["fits"].items():
            assert fit["affine"]["gap"][0] < 1e-9, (regime, kind)
            affine = np.mean(fit["affine"]["validation"]["cross_entropy"][0])
            true = np.mean(fit["true"]["validation"]["cross_entropy"][0])
            penalty = [given.l2 / 2 * np.sum(np.square(fit[h]["coefficients"][0]))
                       for h in ("affine", "true")]  # fmt: skip
            assert true + penalty[1] <= affine + penalty[0] + 1e-5, (regime, kind)
    assert len(results["linear"]["fits"]["task and part"]["true"]["coefficients"][0]) == 8


def test_averaged_weights_and_the_ensemble_are_what_they_say(finished, results, study):
    taus = load(finished, "nonlinear")
    pairs = results["ensembling"]["nonlinear"]["pairs"]
    labels = study.split(NAMES[0], "test").labels
    merged = predicted(study, study.model.f, 0.5 * (taus[0] + taus[2]), NAMES[0])
    both = sum(predicted(study, study.model.f, taus[t], NAMES[0]) for t in (0, 2)) / 2
    close(pairs["average"][0][0][2], (merged.argmax(-1) == labels).mean(), atol=1e-6)
    close(pairs["ensemble"][0][0][2], (both.argmax(-1) == labels).mean(), atol=1e-6)
    close(pairs["agreement"][0][0][2], (both.argmax(-1) == merged.argmax(-1)).mean(), atol=1e-6)
    for regime in DEBUG["ensembling"].regimes:
        close(np.diagonal(results["ensembling"][regime]["pairs"]["agreement"][0]), 1)


def test_in_the_tangent_space_with_affine_heads_both_merges_are_one(finished, study):
    plain = coefficients.affine_heads(DEBUG["coefficients"], study)
    affine = {name: Classify(each) for name, each in zip(NAMES, plain, strict=True)}
    linear, given = METHODS["linear"], keeping(study, objectives=affine)
    given._vectors["linear"] = dict(zip(NAMES, load(finished, "linear"), strict=True))
    view = given.view(linear)
    alone = ensembling.logits(given, view, NAMES[1], np.eye(3))
    merged = ensembling.logits(given, view, NAMES[1], np.full((1, 3), 1 / 3))
    close(merged[0], alone.mean(0), atol=1e-4 * np.abs(alone).max())
    every = ensembling.compared(given, linear)["all"]
    assert every["average"] == every["ensemble"]


def test_vectors_of_several_seeds(finished, study):
    taus = load(finished, "nonlinear")[:2]
    seeds = [study.but(seed=seed) for seed in (0, 1)]
    for each, tau in zip(seeds, taus, strict=True):
        each._vectors.update({name: {NAMES[0]: tau} for name in ("nonlinear", "linear")})
    found = ensembling.averaged(seeds, METHODS["nonlinear"], NAMES[0])
    close(found["cosine"][0][1], float(taus[0].cosine(taus[1])), rtol=1e-5)
    close(found["single"][1][0], accuracy(study, study.model.f, taus[1], NAMES[0]), atol=1e-6)
    half = 0.5 * (taus[0] + taus[1])
    close(found["average"][0], accuracy(study, study.model.f, half, NAMES[0]), atol=1e-6)
    f_lin = lz.linearize(study.model.f, study.model.params)
    linear = ensembling.averaged(seeds, METHODS["linear"], NAMES[0])
    close(linear["average"][1], accuracy(study, f_lin, half, NAMES[0]), atol=1e-6)


def test_terms_are_computed_once(finished, study, monkeypatch, tmp_path, caplog):
    taus = dict(zip(NAMES, load(finished, "linear"), strict=True))
    place, linear, given = kept.terms_path, METHODS["linear"], keeping(study)
    examples = study.split(NAMES[0], "validation")
    monkeypatch.setattr(kept, "terms_path", lambda *a: tmp_path / place(*a).name)
    first = given.view(linear, taus).terms(examples)
    params = study.model.params
    whole = evaluate.affine_outputs(study.model.f, params, list(taus.values()), examples.inputs)
    close(first.jvps, whole.jvps, atol=1e-5 * np.abs(whole.jvps).max())
    with monkeypatch.context() as patch:
        patch.setattr(kept, "affine_outputs", refuse)
        again = given.view(linear, taus).terms(examples)
        np.testing.assert_array_equal(again.jvps, first.jvps)
        other = {name: 2.0 * tau for name, tau in taus.items()}
        with pytest.raises(RepeatedError):
            given.view(linear, other).terms(examples)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-8])
    again = given.view(linear, taus).terms(examples)
    np.testing.assert_array_equal(again.jvps, first.jvps)
    assert "computed again" in caplog.text


def test_fewer_examples_are_the_first(study):
    fewer = vectors.first(study.tasks, 40, None)
    for task in NAMES:
        whole = study.split(task, "validation")
        np.testing.assert_array_equal(fewer[task].validation.labels, whole.labels[:40])
        np.testing.assert_array_equal(fewer[task].validation.inputs, whole.inputs[:40])
        assert len(fewer[task].test) == len(study.split(task, "test"))


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
    with pytest.raises(ResultsError, match=message):
        report.read_page(tmp_path)


def test_along_is_the_algebra_it_says():
    rng = np.random.default_rng(0)
    terms = AffineOutputs(rng.normal(size=(5, 2)), rng.normal(size=(3, 5, 2)))
    basis = rng.normal(size=(3, 2))
    moved = np.einsum("tg,tnc->gnc", basis, terms.jvps)
    close(terms.along(basis).jvps, moved, rtol=1e-6)

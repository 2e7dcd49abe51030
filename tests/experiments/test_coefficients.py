"""Coefficients on the smallest preset, against direct computation."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import linearize as lz
from configs.coefficients import PRESETS
from experiments import protocol
from experiments.coefficients import run as coefficients
from experiments.coefficients.config import CoefficientsConfig
from experiments.stand_ins import model as stand_in_model
from linearize import config, data, edit, io, models, tree
from linearize.config import CompareConfig, ConfigError, DataConfig, HeadConfig, ModelConfig
from linearize.evaluate import AffineOutputs, kept
from linearize.evaluate.view import VIEWS
from linearize.methods import METHODS
from linearize.models.heads import apply_head
from linearize.study import Store
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
NAMES = DEBUG.data.tasks


def test_parts_add_up_and_coefficients_are_what_they_say(small, results):
    """Linear regime: the record's coefficients by task and part, applied to the weights."""
    given = DEBUG
    groups = coefficients.parts(given)
    assert list(groups) == ["block_0", "block_1"]
    taus = small.taus("linear")
    assert all(
        sorted(n for p in groups.values() for n in tau.select(p).delta) == sorted(tau.delta)
        for tau in taus
    )
    fit = results["linear"]["fits"]["task and part"]["true"]
    at = np.array(fit["coefficients"][0]).reshape(len(NAMES), len(groups))
    moved = lz.edit.add(
        TaskVector(
            {n: a * d for a, p in zip(row, groups.values(), strict=True)
             for n, d in tau.select(p).delta.items()},
            base=tau.base,
        )
        for row, tau in zip(at, taus, strict=True)
    )  # fmt: skip
    f_lin = lz.linearize(small.study.model.f, small.study.model.params)
    for t, task in enumerate(NAMES):
        for split in ("validation", "test"):
            logits = small.logits(f_lin, moved, task, split).astype(float)
            y = small.study.split(task, split).labels
            expected = (logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]).mean()
            close(fit[split]["cross_entropy"][0][t], expected, rtol=1e-3)
            close(fit[split]["accuracy"][0][t], (logits.argmax(-1) == y).mean(), rtol=1e-12)


def test_freer_coefficients_fit_better_and_are_certified(results):
    for regime in ("linear", "posthoc"):
        found = results[regime]["fits"]
        nested = [("shared", "task")]
        if regime in DEBUG.split:
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


def test_an_affine_head_predicts_the_same_classes(small):
    heads = coefficients.affine_heads(DEBUG, small.study)
    for head, task in zip(heads, NAMES, strict=True):
        features = small.study.model.f(
            small.study.model.params, small.study.split(task, "test").inputs
        )
        true = apply_head(small.head(task), features)
        np.testing.assert_array_equal(apply_head(head, features).argmax(-1), true.argmax(-1))


def test_prototypes_are_fitted_to_the_terms_as_they_are(small, results):
    """What freezing norms for text heads leaves alone, to the last digit."""
    taus = dict(zip(NAMES, small.taus("nonlinear"), strict=True))
    view = small.kept().view(METHODS["posthoc"], taus)
    terms = [view.terms(small.study.split(t, "validation")).along(np.eye(3)) for t in NAMES]
    labels = [small.study.split(task, "validation").labels for task in NAMES]
    heads = coefficients.affine_heads(DEBUG, small.study)
    direct = edit.optimal_coefficients(terms, labels, heads, start=np.zeros(3))
    found = results["posthoc"]["fits"]["task"]["affine"]
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
    given = CoefficientsConfig(
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
        edit=dataclasses.replace(DEBUG.edit, points=3),
        regimes=("linear",),
        starts=0,
        parts=parts,
    )
    model = protocol.backbone(given.model, 0)
    rng = np.random.default_rng(1)
    heads = {
        name: models.zero_shot_head(list(rng.normal(size=(3, 1, model.feature_dim))), np.log(10.0))
        for name in TASKS
    }
    tasks = {name: random_task(name, 14) for name in TASKS}
    study = protocol.study(given, tasks, 0, Store(), heads=heads)
    return given, study.but(views={**VIEWS, "tangent": kept.KeptTangent})


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
        problem = coefficients.TaskTerms.of(given, study, METHODS["linear"], groups)
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
        DEBUG, vectors=str(tmp_path / "run"), seeds=(0,), parts=3, starts=0, l2=1e-3
    )
    page = coefficients.run(given, tmp_path / "found", "custom")
    assert "divides each example by its own norm at θ0" in page.read_text()
    results = json.loads((tmp_path / "found/results.json").read_text())
    assert results["parts"] == ["block_0", "block_1", "block_2", "outside the blocks"]
    for regime in given.regimes:
        fits = {kind: fit for kind, fit in results[regime]["fits"].items() if fit is not None}
        assert len(fits) == (4 if regime in given.split else 2)
        for kind, fit in fits.items():
            assert fit["affine"]["gap"][0] < 1e-9, (regime, kind)
            affine = np.mean(fit["affine"]["validation"]["cross_entropy"][0])
            true = np.mean(fit["true"]["validation"]["cross_entropy"][0])
            penalty = [given.l2 / 2 * np.sum(np.square(fit[h]["coefficients"][0]))
                       for h in ("affine", "true")]  # fmt: skip
            assert true + penalty[1] <= affine + penalty[0] + 1e-5, (regime, kind)
    assert len(results["linear"]["fits"]["task and part"]["true"]["coefficients"][0]) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regimes": ("nonlinear",)}, "only 'posthoc' and 'linear' are affine"),
        ({"regimes": ("posthoc",)}, "must be among regimes"),
        ({"parts": -1}, "parts=-1"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)

"""The papers' protocols for T5 on what lies on disk: transformers' weights, TFDS' sets."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from configs import nli, sentiment
from experiments.nli import material as classes
from experiments.nli.run import run as added
from experiments.nli.wordings import WORDINGS
from experiments.sentiment import material
from experiments.sentiment.results import Results
from experiments.sentiment.run import run as analogies
from linearize.report import schema
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose


def test_answers_in_words_are_added(tmp_path, monkeypatch):
    """GLUE's four tasks, one of them by Matthews correlation."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(nli.PRESETS["t5_debug"](), regimes=("posthoc", "linear"))
    page = added(config, tmp_path / "run", "t5_debug")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    whole = "exact match"
    assert results["metrics"] == [whole, whole, "Matthews correlation", whole]
    assert results["tested"] == [60] * 4
    assert config.tasks[0] in page.read_text()
    for row in (results[name] for name in config.regimes):
        assert np.isfinite(row["own"]).all()
        assert np.mean(row["single"]) > np.mean(results["pretrained"])


def test_classes_of_a_shared_head_are_added(tmp_path, monkeypatch):
    """T5-v1.1 under a head of three labels, of which RTE has two; SICK of its own file."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    whole, brief = nli.PRESETS["nli6"](), nli.PRESETS["t5_debug"]()
    model = dataclasses.replace(whole.model, name="t5", weights=brief.model.weights)
    recipe = dataclasses.replace(brief.linear, accumulate=2)
    config = dataclasses.replace(
        brief, model=model, tasks=("sick", "rte"), linear=recipe, regimes=("linear",),
        epochs={"sick": 1.8, "rte": 2.0},  # as many steps, one program
    )  # fmt: skip
    added(config, tmp_path / "run", "nli6")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metrics"] == ["accuracy"] * 2
    assert [len(each) for each in results["classes"]] == [3, 2]
    assert results["tested"] == [60] * 2
    assert np.mean(results["linear"]["single"]) > np.mean(results["pretrained"])
    given = classes.load(config)
    assert given.model.about["architecture"]["gated"]
    read, f = {}, jax.jit(given.model.f)
    for name, found in zip(config.tasks, results["pretrained"][0], strict=True):
        test = given.tasks[name].test
        logits = np.asarray(f(given.model.params, *test.inputs))
        assert logits.shape == (60, 3)
        own = logits[:, : len(WORDINGS[name].labels)]
        read[name] = logits.argmax(-1)
        assert abs((own.argmax(-1) == test.labels).mean() - found) < 1.5 / 60  # bfloat16
    assert (read["rte"] == 2).any()
    for name, epochs in config.epochs.items():
        rows = (tmp_path / "run/seed_0/linear" / name / "metrics.jsonl").read_text().splitlines()
        steps = round(epochs * len(given.tasks[name].train) / recipe.batch_size)
        assert json.loads(rows[-1])["step"] == steps != recipe.steps


def test_a_domain_s_sentiment_from_another_s(tmp_path, monkeypatch):
    """A T5 that transformers saved answers in words, on reviews as TFDS prepares them."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    preset = dataclasses.replace(sentiment.PRESETS["t5_debug"](), regimes=("nonlinear",))
    analogies(preset, tmp_path / "run", "t5_debug")
    values = json.loads((tmp_path / "run" / "results.json").read_text())
    found = schema.read(Results, values)
    assert tuple((a.auxiliary, a.target) for a in found.analogies) == preset.analogies
    given = material.load(preset)
    model, task = given.sentiment.model, given.sentiment.tasks["yelp"]
    tau = TaskVector.load(tmp_path / "run/seed_0/sentiment/nonlinear/yelp/task_vector.safetensors")
    tokens, mask, answer = task.test.inputs
    assert not answer[:, 0].any()  # the class is told from the start token alone
    logits = np.asarray(jax.jit(model.f)(tau.apply_to(model.params), tokens, mask, answer))
    labels = np.asarray(task.test.labels)
    words = np.unique(labels[:, 0])
    assert len(words) == 2
    said = words[logits[:, 0, words].argmax(-1)]
    expected = (said == labels[:, 0]).mean()
    close(found.analogies[1].regimes["nonlinear"]["target"].accuracy[0], expected, atol=1e-6)
    read = given.language.tasks["yelp"].test
    assert given.language.model.params is model.params
    assert np.asarray(read.labels).shape == read.inputs[2].shape
    change = found.perplexity["nonlinear"]["yelp"]
    assert change.after[0] < change.before[0]

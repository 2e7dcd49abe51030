"""The papers' protocols for T5 on what lies on disk: transformers' weights, TFDS' sets."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import linearize as lz
from configs import nli, sentiment
from experiments.nli.run import run as added
from experiments.sentiment import material
from experiments.sentiment.results import Results
from experiments.sentiment.run import run as analogies
from linearize.report import schema
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose


def of(model, regime):
    return jax.jit(model.f if regime == "nonlinear" else lz.linearize(model.f, model.params))


def test_answers_in_words_are_added(tmp_path, monkeypatch):
    """GLUE's four tasks, one of them by Matthews correlation."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    config = dataclasses.replace(nli.PRESETS["t5_debug"](), regimes=("nonlinear", "posthoc"))
    page = added(config, tmp_path / "run", "t5_debug")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    whole = "exact match"
    assert results["metrics"] == [whole, whole, "Matthews correlation", whole]
    assert results["tested"] == [60] * 4
    assert config.tasks[0] in page.read_text()
    for row in (results[name] for name in config.regimes):
        assert np.isfinite(row["own"]).all()
    assert np.mean(results["nonlinear"]["single"]) > np.mean(results["pretrained"])


def test_a_domain_s_sentiment_from_another_s(tmp_path, monkeypatch):
    """A T5 that transformers saved answers in words, on reviews as TFDS prepares them."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    preset = dataclasses.replace(sentiment.PRESETS["t5_debug"](), regimes=("posthoc",))
    analogies(preset, tmp_path / "run", "t5_debug")
    values = json.loads((tmp_path / "run" / "results.json").read_text())
    found = schema.read(Results, values)
    assert tuple((a.auxiliary, a.target) for a in found.analogies) == preset.analogies
    given = material.load(preset)
    model, task = given.sentiment.model, given.sentiment.tasks["yelp"]
    tau = TaskVector.load(tmp_path / "run/seed_0/sentiment/nonlinear/yelp/task_vector.safetensors")
    tokens, mask, answer = task.test.inputs
    assert not answer[:, 0].any()  # the class is told from the start token alone
    logits = np.asarray(of(model, "posthoc")(tau.apply_to(model.params), tokens, mask, answer))
    labels = np.asarray(task.test.labels)
    words = np.unique(labels[:, 0])
    assert len(words) == 2
    said = words[logits[:, 0, words].argmax(-1)]
    expected = (said == labels[:, 0]).mean()
    close(found.analogies[1].regimes["posthoc"]["target"].accuracy[0], expected, atol=1e-6)
    read = given.language.tasks["yelp"].test
    assert given.language.model.params is model.params
    assert np.asarray(read.labels).shape == read.inputs[2].shape
    change = found.perplexity["posthoc"]["yelp"]
    assert change.after[0] < change.before[0]

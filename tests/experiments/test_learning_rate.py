"""Learning rate and trajectory on their smallest presets, against direct computation."""

import dataclasses
import json

import numpy as np
import pytest

from configs.learning_rate import PRESETS as LEARNING_RATE
from configs.trajectory import PRESETS as TRAJECTORY
from experiments import protocol, report
from experiments.learning_rate import run as learning_rate
from linearize import comparison, io
from linearize.config import ConfigError
from linearize.models.heads import apply_head
from linearize.report import ResultsError
from linearize.study import Store, Study
from linearize.task_vector import TaskVector
from linearize.train import NonFiniteLossError

close = np.testing.assert_allclose
RATES, STEPS = LEARNING_RATE["debug"](), TRAJECTORY["debug"]()
NAMES = RATES.setting.data.tasks


@pytest.fixture(scope="module")
def finished(debug_run):
    return {"rates": debug_run("learning_rate"), "steps": debug_run("trajectory")}


def results(finished, name):
    return json.loads((finished[name] / "results.json").read_text())


def test_a_rates_accuracy_is_that_of_its_vectors(finished):
    study = protocol.study(RATES.setting, protocol.load_tasks(RATES.setting), 0, Store())
    lr = RATES.nonlinear[1]
    hits, norms = [], []
    for task in NAMES:
        folder = finished["rates"] / "seed_0" / f"{lr:g}" / "nonlinear" / task
        tau, test = TaskVector.load(folder / "task_vector.safetensors"), study.split(task, "test")
        features = study.model.f(tau.apply_to(study.model.params), test.inputs)
        logits = apply_head(study.objectives[task].readout, features)
        hits.append((np.asarray(logits).argmax(-1) == test.labels).mean())
        norms.append(float(tau.norm()))
    found = results(finished, "rates")["nonlinear"]
    close(found["single"][0][1], np.mean(hits), atol=1e-6)
    close(found["norm"][0][1], np.mean(norms), rtol=1e-5)
    assert found["norm"][0][0] < found["norm"][0][1]


def test_a_rate_at_which_training_diverges_is_left_empty(monkeypatch, tmp_path):
    def diverge(*_, **__):
        raise NonFiniteLossError(3, np.nan, 1e3, np.inf, TaskVector({}), "")

    monkeypatch.setattr(Study, "vectors", diverge)
    monkeypatch.setattr(protocol, "make_head", lambda *_: None)
    tasks = dict.fromkeys(NAMES)
    found = learning_rate.at_rate(RATES, tasks, 0, "linear", 1e3, Store.of(tmp_path))
    assert found == dict.fromkeys(comparison.SUMMARY)


def test_the_trajectory_ends_at_the_final_vectors(finished):
    found = results(finished, "steps")
    assert found["along"]["linear"] == [5, 10, STEPS.setting.linear.steps]
    for regime in ("nonlinear", "posthoc", "linear"):
        cosine = found[regime]["cosine"][0]
        close(cosine[-1], 1, atol=1e-6)
        assert cosine[0] < cosine[1] < cosine[-1]
        assert np.all(np.diff(found[regime]["norm"][0]) > 0)
    folder = finished["steps"] / "seed_0" / "linear"
    pairs = [
        (
            TaskVector.load(folder / task / "vectors" / "step_5.safetensors"),
            TaskVector.load(folder / task / "task_vector.safetensors"),
        )
        for task in NAMES
    ]
    expected = np.mean([float(early.cosine(final)) for early, final in pairs])
    close(found["linear"]["cosine"][0][0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("given", "change", "message"),
    [
        (RATES, {"nonlinear": (1e-3,)}, "two positive rates"),
        (RATES, {"linear": (1e-3, 1e-4)}, "ascending"),
        (STEPS, {"steps": ()}, "steps"),
        (STEPS, {"steps": (5, 20)}, r"must end before setting\.nonlinear\.steps=20"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(given, change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(given, **change)


def test_a_damaged_result_is_named(finished, tmp_path):
    values = results(finished, "steps")
    del values["linear"]["addition"]
    io.write_json(tmp_path / "results.json", values)
    with pytest.raises(ResultsError, match="linear/addition"):
        report.read_page(tmp_path)

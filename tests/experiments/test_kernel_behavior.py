"""Kernel behaviour on its smallest preset: what it measures, what it reuses, what it refuses."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import linearize as lz
from configs.kernel_behavior import PRESETS as KERNEL_BEHAVIOR
from experiments import report
from experiments.kernel_behavior import run as kernel_behavior
from experiments.kernel_behavior.config import FewShotConfig
from linearize.config import ConfigError
from linearize.report import ResultsError
from linearize.study import Store
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(debug_run):
    run_dir = debug_run("kernel_behavior")
    return run_dir, run_dir / "report.html", json.loads((run_dir / "results.json").read_text())


def test_every_measure_has_its_shape(finished):
    run_dir, page, results = finished
    steps = results["steps"]["sgd"]
    assert steps == [0, 1, 4, 12]
    for optimizer in ("sgd", "adam"):
        measured = results["along"]["toy_a"][optimizer]
        for name in ("drift", "alignment", "target_alignment", "feature_change", "gap"):
            assert np.shape(measured[name]) == (2, len(steps))
        assert np.shape(results["spectrum"]["toy_a"][optimizer]["end"]) == (2, 12)
    names = {p.stem for p in (run_dir / "figures").glob("*.png")}
    assert {"kernel_along", "linearization_gap", "accuracy_along", "movement", "spectrum"} == names
    assert {p.stem for p in (run_dir / "tables").glob("*.md")} == {"final", "solutions", "claims"}
    text = page.read_text()
    assert "Kernel behaviour along fine-tuning: debug" in text
    assert report.read_page(run_dir).headlines == ("final", "solutions", "claims")


def test_at_the_start_nothing_has_moved(finished):
    _, _, results = finished
    for measured in results["along"]["toy_a"].values():
        start = {n: np.asarray(v)[:, 0] for n, v in measured.items() if not isinstance(v, dict)}
        for name in ("drift", "feature_change", "gap", "gap_loss", "gap_accuracy"):
            np.testing.assert_allclose(start[name], 0, atol=1e-6)
        np.testing.assert_allclose(start["alignment"], 1, atol=1e-12)
        np.testing.assert_array_equal(start["agreement"], 1)
        np.testing.assert_array_equal(start["accuracy"], results["pretrained"]["toy_a"]["accuracy"])
        assert (np.asarray(measured["drift"])[:, 1:] > 0).all()


def test_the_measures_are_those_of_the_saved_vector(finished):
    run_dir, _, results = finished
    settings = KERNEL_BEHAVIOR["debug"]()
    task = kernel_behavior.load_task(settings, "toy_a")
    study = kernel_behavior.few_shots(settings, "toy_a", task, 1, Store())
    f, params0 = study.model.f, study.model.params
    tau = TaskVector.load(next((run_dir / "seed_1" / "adam").rglob("*4.safetensors")))
    params = tau.apply_to(params0)
    images, labels = task.test.inputs, task.test.labels
    logits = np.asarray(jax.jit(f)(params, images))
    linear = np.asarray(jax.jit(lz.linearize(f, params0))(params, images))
    f0 = np.asarray(jax.jit(f)(params0, images))
    along = results["along"]["toy_a"]["adam"]
    measured = {n: v[1][2] for n, v in along.items() if n != "movement"}
    assert measured["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert measured["linearized_accuracy"] == pytest.approx(np.mean(linear.argmax(1) == labels))
    expected = np.linalg.norm(logits - linear) / np.linalg.norm(logits - f0)
    assert measured["gap"] == pytest.approx(expected, rel=1e-3)
    moved = along["movement"]["all"][1][2]
    leaves = jax.tree.leaves(params0["backbone"])
    norm = np.sqrt(sum(float(jnp.sum(leaf**2)) for leaf in leaves))
    assert moved == pytest.approx(float(tau.norm()) / norm, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measured_at": (1, 99)}, "measured_at"),
        ({"points": 1}, "points=1"),
        ({"l2": (0.0, 1.0)}, r"l2\[0\]=0.0; expected a positive number"),
        ({"seeds": (0, 0)}, "seeds"),
        ({"data": FewShotConfig(shots=2)}, "head.shots"),
    ],
)
def test_a_configuration_that_cannot_be_run(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(KERNEL_BEHAVIOR["debug"](), **change)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("along/toy_a/sgd/drift", [[0.0]], "along/toy_a/sgd/drift has shape"),
        ("along/toy_a/adam/movement/all", [[0.0]], "along/toy_a/adam/movement/all has shape"),
        ("pretrained/toy_a/accuracy", [0.5, 1.5], "pretrained/toy_a/accuracy reaches"),
        ("steps/adam", [0, 12], r"adam/drift has shape \(2, 4\); expected \(2, 2\)"),
        ("steps/lion", [0, 12], r"along/toy_a is of \['adam', 'sgd'\]; expected .*'lion'"),
        ("tasks", ["toy_b"], r"pretrained is of \['toy_a'\]; expected \['toy_b'\]"),
    ],
)
def test_a_damaged_result_names_its_key(finished, tmp_path, where, value, message):
    *_, results = finished
    broken = json.loads(json.dumps(results))
    *outer, name = where.split("/")
    functools.reduce(dict.__getitem__, outer, broken)[name] = value
    (tmp_path / "results.json").write_text(json.dumps(broken))
    with pytest.raises(ResultsError, match=rf"results\.json.*{message}"):
        report.write_all(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_an_experiment_without_a_report_is_named(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"schema": 1, "experiment": "other"}))
    with pytest.raises(ResultsError, match="no page is named 'other'"):
        report.write_all(tmp_path)

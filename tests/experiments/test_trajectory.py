"""Trajectory on its smallest preset, against direct computation."""

import dataclasses

import numpy as np
import pytest

from configs.trajectory import PRESETS
from experiments import report
from experiments.claims import judge
from experiments.trajectory.results import Results
from experiments.trajectory.run import CLAIMS
from linearize import io
from linearize.config import ConfigError
from linearize.report import ResultsError, schema
from linearize.task_vector import TaskVector

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
NAMES = DEBUG.setting.data.tasks
EPOCHS = dataclasses.replace(DEBUG.setting, epochs={NAMES[0]: 3.0})


@pytest.mark.slow
def test_the_trajectory_ends_at_the_final_vectors(finished, results):
    found = results
    assert found["along"]["linear"] == [5, 10, DEBUG.setting.linear.steps]
    for regime in ("nonlinear", "posthoc", "linear"):
        cosine = found[regime]["cosine"][0]
        close(cosine[-1], 1, atol=1e-6)
        assert cosine[0] < cosine[1] < cosine[-1]
        assert np.all(np.diff(found[regime]["norm"][0]) > 0)
    folder = finished / "seed_0" / "linear"
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
    ("change", "message"),
    [
        ({"steps": ()}, "steps"),
        ({"steps": (5, 20)}, r"must end before setting\.nonlinear\.steps=20"),
        ({"setting": EPOCHS}, r"setting\.epochs=.*give steps instead"),  # whose axis is of steps
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)


@pytest.mark.parametrize(
    ("along", "halfway"), [((10, 28, 42, 56), 1), ((28, 56), 0), ((40, 56), None)]
)
def test_claims_on_half_of_the_steps_want_a_step_of_that_half(along, halfway):
    rising = np.linspace(0, 1, len(along))[None].repeat(2, 0)
    every = dict.fromkeys(("cosine", "single", "addition", "normalized", "norm", "alpha"), rising)
    found = schema.read(
        Results,
        {"experiment": "trajectory", "preset": "p", "seeds": [0, 1], "tasks": ["a"],
         "along": {"linear": along}, "linear": {k: v.tolist() for k, v in every.items()}},
    )  # fmt: skip
    verdicts = judge(found, CLAIMS)
    assert len(verdicts) == (0 if halfway is None else 2)
    if halfway is not None:
        assert f": {rising[0, halfway] - 0.9:+.3f} [" in verdicts[0].evidence


@pytest.mark.slow
def test_measures_are_as_many_as_steps(results, tmp_path):
    results["along"]["linear"].append(100)
    io.write_json(tmp_path / "results.json", results)
    with pytest.raises(ResultsError, match=r"linear/single has shape .*; expected \(2, 4\)"):
        report.read_page(tmp_path)

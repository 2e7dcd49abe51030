"""Merging on the smallest preset, against direct computation."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import linearize as lz
from configs.merging import LEFT_OUT, PRESETS
from experiments.merging import run
from experiments.merging.memory import held
from linearize.config import ConfigError
from linearize.merge import MERGES, Merge
from linearize.methods import METHODS

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
NAMES = DEBUG.data.tasks


def debug_merges(method):
    return [
        name
        for name in DEBUG.merges
        if (method, name) not in DEBUG.without
        and not (MERGES[name].affine and METHODS[method].view == "displaced")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", DEBUG.compared)
def test_a_merge_of_the_first_tasks_is_that_of_their_vectors(small, results, method):
    """Vectors trained with all tasks, their merge on the first two, α and options as chosen."""
    found = results["methods"][method]
    assert sorted(found["merges"]) == sorted(debug_merges(method))
    f = small.study.model.f
    if METHODS[method].view == "tangent":
        f = lz.linearize(f, small.study.model.params)
    taus = dict(zip(NAMES, small.taus(method), strict=True))
    single = [small.accuracy(f, taus[task], task) for task in NAMES]
    close(found["single"][0], single, atol=1e-6)
    for merge in ("sum", "ties", "tsv_m"):
        for size in DEBUG.sizes:
            merged = found["merges"][merge][str(size)]
            first = {task: taus[task] for task in NAMES[:size]}
            total = lz.edit.add(MERGES[merge].directions(first, 0).values())
            for key, alpha in (("accuracy", merged["alpha"][0]), ("plain", MERGES[merge].alpha)):
                expected = [small.accuracy(f, alpha * total, task) for task in first]
                close(merged[key][0], expected, atol=1e-6)
            close(merged["normalized"][0], np.divide(merged["accuracy"][0], single[:size]))


@pytest.mark.slow
def test_every_view_has_the_merges_that_it_can_have(results):
    assert "optimal_experts" not in results["methods"]["nonlinear"]["merges"]
    experts = results["methods"]["linear"]["merges"]["optimal_experts"]["3"]
    assert np.shape(experts["gap"]) == (2,)
    assert results["takes"]["fisher"] == "training inputs"


@pytest.mark.slow
def test_vectors_that_train_with_the_control_task_are_merged_without_it(tmp_path):
    own = {"methods": ("tau_jp_with_control",), "merges": ("sum",), "sizes": (2,)}
    config = dataclasses.replace(DEBUG, **own, regimes=("linear",), without=(), seeds=(0,))
    run.run(config, tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())["methods"]["tau_jp_with_control"]
    assert np.shape(found["merges"]["sum"]["2"]["accuracy"]) == (1, 2)
    assert not (tmp_path / "seed_0" / "tau_jp_with_control" / DEBUG.data.control).exists()


def test_what_a_merge_holds_is_its_largest_arrays():
    rows = np.ones((1000, 1000))
    made, size = held(lambda: float((rows + 1).sum()))
    assert made == 2e6
    assert 8e6 <= size < 9e6


def test_the_preset_measures_every_row_that_it_does_not_say_why_not():
    """A new one by itself; those of the page that is committed are among them."""
    rows = {row.name for row in vars(lz.merge).values() if isinstance(row, Merge)}
    assert set(LEFT_OUT) <= rows
    assert rows - set(LEFT_OUT) <= set(PRESETS["packaged"]().merges)
    page = json.loads((Path(__file__).parents[2] / "docs/results/merging.json").read_text())
    assert set(page["merges"]) <= set(PRESETS["packaged"]().merges)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"merges": ("tsvm",)}, "did you mean 'tsv_m'"),
        ({"methods": ("linear",)}, "methods='linear'"),
        ({"sizes": (1,)}, "sizes=1: merge 2 to 3 tasks"),
        ({"sizes": (2, 2)}, "name each once"),
        ({"without": (("exact", "sum"),)}, "without='exact'"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)

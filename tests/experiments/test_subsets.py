"""Subsets on the smallest preset, against direct computation."""

import dataclasses
import itertools

import numpy as np
import pytest

import linearize as lz
from configs.subsets import PRESETS
from linearize.config import ConfigError
from linearize.methods import METHODS

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
NAMES = DEBUG.data.tasks


@pytest.mark.slow(but=["nonlinear", "linear"])
@pytest.mark.parametrize("regime", ["nonlinear", "posthoc", "linear"])
def test_a_subset_is_the_sum_of_its_vectors(small, results, regime):
    found, index = results[regime], 4
    subset = results["subsets"][regime][index]
    assert len(subset) == 2
    f = small.study.model.f
    if regime != "nonlinear":
        f = lz.linearize(f, small.study.model.params)
    taus = small.taus(METHODS[regime].trainer.name)
    total = lz.edit.add([taus[t] for t in subset])
    alpha = found["alpha"][0][index]
    expected = [small.accuracy(f, alpha * total, task) for task in NAMES]
    close(found["accuracy"][0][index], expected, atol=1e-6)
    alone = [small.accuracy(f, taus[t], NAMES[t]) for t in subset]
    there = [small.accuracy(f, DEBUG.fixed * total, NAMES[t]) for t in subset]
    close(found["fixed"][0][index], np.mean(np.divide(there, alone)), atol=1e-6)
    single = [small.accuracy(f, taus[t], NAMES[t], "validation") for t in subset]

    def score(a):
        merged = [small.accuracy(f, a * total, NAMES[t], "validation") for t in subset]
        return np.mean(np.divide(merged, single))

    assert score(alpha) == max(score(a) for a in results["grid"][regime])


def test_every_subset_is_there_and_a_sample_of_the_nonlinear_ones(results):
    every = {s for k in (1, 2, 3) for s in itertools.combinations(range(3), k)}
    assert {tuple(s) for s in results["subsets"]["linear"]} == every
    assert {tuple(s) for s in results["subsets"]["nonlinear"]} == every  # few tasks
    eight = PRESETS["packaged"]()
    sampled = eight.sampled()
    assert len(eight.subsets()) == 255
    assert len(set(sampled)) == len(sampled) == 8 + 28 + 5 * eight.sample + 1
    assert eight.sampled() == sampled
    assert dataclasses.replace(eight, sample_seed=1).sampled() != sampled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"grid": (0.4, 0.2)}, "ascending"),
        ({"fixed": 0.3}, "fixed=0.3: must be one of grid"),
        ({"sample": 0}, "sample=0"),
        ({"regimes": ()}, "regimes=.*name 1 or more"),
        ({"validation": 0}, "validation=0"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)

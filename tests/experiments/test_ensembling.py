"""Ensembling on the smallest preset, against direct computation."""

import dataclasses

import numpy as np
import pytest

import linearize as lz
from configs.ensembling import PRESETS
from experiments.ensembling import run as ensembling
from linearize.config import ConfigError
from linearize.methods import METHODS
from linearize.objectives import Classify

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
NAMES = DEBUG.data.tasks


def test_averaged_weights_and_the_ensemble_are_what_they_say(small, results):
    taus = small.taus("nonlinear")
    pairs = results["nonlinear"]["pairs"]
    labels = small.study.split(NAMES[0], "test").labels
    merged = small.logits(small.study.model.f, 0.5 * (taus[0] + taus[2]), NAMES[0])
    both = sum(small.logits(small.study.model.f, taus[t], NAMES[0]) for t in (0, 2)) / 2
    close(pairs["average"][0][0][2], (merged.argmax(-1) == labels).mean(), atol=1e-6)
    close(pairs["ensemble"][0][0][2], (both.argmax(-1) == labels).mean(), atol=1e-6)
    close(pairs["agreement"][0][0][2], (both.argmax(-1) == merged.argmax(-1)).mean(), atol=1e-6)
    for regime in DEBUG.regimes:
        close(np.diagonal(results[regime]["pairs"]["agreement"][0]), 1)


def test_in_the_tangent_space_with_affine_heads_both_merges_are_one(small):
    plain = {name: dataclasses.replace(small.head(name), normalize=False) for name in NAMES}
    affine = {name: Classify(each) for name, each in plain.items()}
    linear, given = METHODS["linear"], small.kept(objectives=affine)
    given._vectors["linear"] = dict(zip(NAMES, small.taus("linear"), strict=True))
    view = given.view(linear)
    alone = ensembling.logits(given, view, NAMES[1], np.eye(3))
    merged = ensembling.logits(given, view, NAMES[1], np.full((1, 3), 1 / 3))
    close(merged[0], alone.mean(0), atol=1e-4 * np.abs(alone).max())
    every = ensembling.compared(given, linear)["all"]
    assert every["average"] == every["ensemble"]


def test_vectors_of_several_seeds(small):
    taus = small.taus("nonlinear")[:2]
    seeds = [small.study.but(seed=seed) for seed in (0, 1)]
    for each, tau in zip(seeds, taus, strict=True):
        each._vectors.update({name: {NAMES[0]: tau} for name in ("nonlinear", "linear")})
    found = ensembling.averaged(seeds, METHODS["nonlinear"], NAMES[0])
    close(found["cosine"][0][1], float(taus[0].cosine(taus[1])), rtol=1e-5)
    close(found["single"][1][0], small.accuracy(small.study.model.f, taus[1], NAMES[0]), atol=1e-6)
    half = 0.5 * (taus[0] + taus[1])
    close(found["average"][0], small.accuracy(small.study.model.f, half, NAMES[0]), atol=1e-6)
    f_lin = lz.linearize(small.study.model.f, small.study.model.params)
    linear = ensembling.averaged(seeds, METHODS["linear"], NAMES[0])
    close(linear["average"][1], small.accuracy(f_lin, half, NAMES[0]), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regimes": ("linear", "linear")}, "name each once"),
        ({"seeds": ()}, "seeds"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)

"""The auditor's experiment on the smallest preset, against direct computation."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import linearize as lz
from configs.audit import PRESETS
from experiments.audit import page
from experiments.audit import run as auditing
from experiments.audit.results import MEASURES, Results
from linearize.config import ConfigError
from linearize.report import node, schema
from linearize.report.audit.words import sentence

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose
DEBUG = PRESETS["debug"]()
NAMES = DEBUG.data.tasks


@pytest.fixture(scope="module")
def found(finished) -> Results:
    return schema.read(Results, node.read(finished))


def test_what_is_lost_is_that_of_the_sum_of_two_vectors(small, found):
    """In the regime's own view; the diagonal is the task's own vector alone."""
    for regime, f in (
        ("nonlinear", small.study.model.f),
        ("linear", lz.linearize(small.study.model.f, small.study.model.params)),
    ):
        one, _, other = small.taus(regime)
        alone, both = (small.accuracy(f, tau, NAMES[0]) for tau in (one, one + other))
        close(found.accuracy[regime][0, 0, 0], alone, atol=1e-6)
        close(found.accuracy[regime][0, 0, 2], both, atol=1e-6)
        close(found.loss(regime)[0, 0, 2], alone - both, atol=1e-6)


def test_what_is_audited_are_the_regime_s_own_vectors(small, found):
    for regime in DEBUG.regimes:
        norms = [float(tau.norm()) for tau in small.taus(regime)]
        close(found.audited[regime].norm[0], norms, rtol=1e-6)
        close(found.measure(regime, "norm")[0, 0, 1], norms[1] / norms[0], rtol=1e-6)
        close(np.einsum("stt->st", found.measure(regime, "kronecker")), 1)


def test_correlations_are_over_ordered_pairs(found):
    off = ~np.eye(len(NAMES), dtype=bool)
    assert len(found.relation) == len(DEBUG.regimes) * len(MEASURES)
    for each in found.relation:
        x, y = found.measure(each.regime, each.measure), found.loss(each.regime)
        close(each.mean, stats.spearmanr(x.mean(0)[off], y.mean(0)[off]).statistic, atol=1e-12)
        close(each.seeds[1], stats.spearmanr(x[1][off], y[1][off]).statistic, atol=1e-12)


def test_three_tasks_decide_nothing(found):
    assert [each.held for each in auditing.judge(found)] == [None, None]


def test_the_page_says_first_which_pairs_harm_each_other_and_where(found):
    """As the library's own page does, and then what was run."""
    *said, about = page.read(node.Node(schema.record(found), ""), Path()).paragraphs
    assert "\n".join(said) == sentence(found)
    assert [line.split(":")[0] for line in said] == ["Non-linear", "Linear"]
    assert about.startswith("Task vectors of 3 tasks, mlp")


@pytest.mark.parametrize(
    ("change", "message"), [({"examples": 1}, "examples=1"), ({"regimes": ()}, "regimes")]
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)

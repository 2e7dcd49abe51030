"""The table of AdamW against the optimum shows the files' numbers."""

import numpy as np
import pytest
from scipy import stats

from linearize import report
from linearize.report.compare import tables
from linearize.report.compare.results import parse


@pytest.fixture
def raw(make_results):
    raw = make_results(4, 3)
    rng = np.random.default_rng(0)
    keys = ("seconds", "steps", "norm", "cosine", "loss")
    raw["training"] = {
        m: {k: rng.uniform(0.1, 1, (3, 4)).tolist() for k in more}
        for m, more in {
            "nonlinear": keys,
            "linear": (*keys, "objective", "gradient_norm"),
            "exact": (*keys, "objective", "gradient_norm"),
        }.items()
    }
    raw["single"]["exact"] = rng.uniform(0.5, 1, (3, 4)).tolist()
    raw["config"]["exact"] = {"l2": 0.25}
    return raw


def shown(raw):
    (table,) = (t for t in tables.all_tables(parse(raw)) if t.name == "training")
    return table, {
        row[0].text: dict(zip(table.columns[1:], row[1:], strict=True)) for row in table.rows
    }


def interval(values):
    mean = np.mean(values)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return mean, (high - low) / 2


def test_means_over_tasks_with_intervals_over_seeds(raw):
    table, rows = shown(raw)
    assert list(rows) == ["Non-linear", "Linear", "Exact linear", "Linear less exact"]
    assert "l2 = 0.25" in table.caption
    for name, m in (("Linear", "linear"), ("Exact linear", "exact")):
        for column, key in (("Training loss", "loss"), ("Objective", "objective")):
            mean, half = interval(np.mean(raw["training"][m][key], -1))
            cell = rows[name][column]
            assert (cell.value, cell.half) == pytest.approx((mean, half), rel=1e-10)
    assert rows["Non-linear"]["Objective"].text == "–"


def test_differences_are_paired(raw):
    _, rows = shown(raw)
    less = rows["Linear less exact"]
    left, right = (raw["training"][m]["objective"] for m in ("linear", "exact"))
    mean, half = interval(np.subtract(left, right).mean(-1))
    assert (less["Objective"].value, less["Objective"].half) == pytest.approx((mean, half))
    left, right = (raw["single"][m] for m in ("linear", "exact"))
    mean, half = interval(100 * np.subtract(left, right).mean(-1))
    cell = less["Test accuracy [%]"]
    assert (cell.value, cell.half) == pytest.approx((mean, half))


def test_a_run_without_the_regime_has_no_such_table(make_results):
    names = {t.name for t in tables.all_tables(parse(make_results(4, 3)))}
    assert "training" not in names


def test_a_damaged_record_is_named(raw):
    raw["training"]["exact"]["loss"] = [0.5]
    with pytest.raises(report.ResultsError, match="training/exact/loss has shape"):
        parse(raw)

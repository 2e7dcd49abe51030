"""Tables show the files' numbers, with intervals computed here in another way."""

import csv
import html
import io
import math
import re

import numpy as np
import pytest
from rich.console import Console
from scipy import stats as scipy_stats

from linearize import report
from linearize.merge import MERGES
from linearize.methods import METHODS
from linearize.report import stats
from linearize.report.compare import page as compare
from linearize.report.page import render


def table(raw, name):
    return {t.name: t for t in report.all_tables(report.parse(raw))}[name]


def rows(shown):
    return {row[0].text: row[1:] for row in shown.rows}


def expected(values):
    """Percent and its interval over seeds, by SciPy's own t interval."""
    values = [100 * float(v) for v in values]
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.1f}"
    low, high = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return f"{mean:.1f} ± {(high - low) / 2:.1f}"


@pytest.mark.parametrize("S", [2, 3, 5])
def test_the_interval_is_students(S):
    values = np.random.default_rng(S).normal(0.6, 0.1, (S, 4))
    got = stats.over_seeds(values)
    low, high = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    np.testing.assert_allclose(got.mean - got.half, low, rtol=1e-12)
    np.testing.assert_allclose(got.mean + got.half, high, rtol=1e-12)


@pytest.mark.parametrize("S", [1, 3])
def test_single_task_table(make_results, S):
    raw = make_results(4, S)
    shown = table(raw, "single")
    assert shown.columns == (
        "Task", "Pre-trained", "Random initialization", "Non-linear", "Post-hoc linearized",
        "Linear",
    )  # fmt: skip
    for t, task in enumerate(raw["tasks"]):
        got = [cell.text for cell in rows(shown)[task]]
        columns = [raw["pretrained"], raw["random_init"]]
        columns += [raw["single"][m] for m in ("nonlinear", "posthoc", "linear")]
        assert got == [expected([seed[t] for seed in column]) for column in columns]
    means = [sum(seed) / 4 for seed in raw["single"]["posthoc"]]
    assert rows(shown)["Mean"][3].text == expected(means)
    assert ("One seed (0): no interval." in shown.caption) == (S == 1)
    assert "n = 970–1,000 test examples" in shown.caption


@pytest.mark.parametrize("S", [1, 3])
def test_addition_table(make_results, S):
    raw = make_results(4, S)
    shown = rows(table(raw, "addition"))
    assert list(shown) == [
        "Pre-trained", "Random vector", "Non-linear", "Post-hoc linearized", "Linear",
        "Joint training",
    ]  # fmt: skip
    for name, m in {
        "Linear": "linear",
        "Random vector": "random",
        "Joint training": "joint",
    }.items():
        part = raw["addition"][m]
        for cell, key in zip(
            shown[name][1:], ("accuracy", "normalized", "full", "full_normalized"), strict=True
        ):
            mean = [sum(seed) / 4 for seed in part[key]] if key in part else None
            assert cell.text == ("–" if mean is None else expected(mean))
    alphas = raw["addition"]["linear"]["alpha"]
    low, high = f"{min(alphas):.2f}", f"{max(alphas):.2f}"
    assert shown["Linear"][0].text == (low if low == high else f"{low}–{high}")
    assert shown["Joint training"][0].text == "–"
    assert shown["Pre-trained"][2].text == "–"


def paragraphs(raw):
    """Of the page's HTML as it stands, before anything else that is said."""
    page = compare.page(report.parse(raw), None)
    document = render(page, {})
    body = document[document.index("</h1>") :]
    head = body[: body.index("<dl")]
    return [html.unescape(each) for each in re.findall("<p[^>]*>(.*?)</p>", head)]


def test_the_page_opens_with_what_sums_keep_without_a_search(make_results):
    raw = make_results(4, 1)
    for m, kept in {"nonlinear": 0.25, "posthoc": 0.5, "linear": 0.7}.items():
        raw["addition"][m]["full_normalized"] = [[kept - 0.1, kept + 0.1, kept, kept]]
    first, second = paragraphs(raw)
    assert first.replace("\N{NO-BREAK SPACE}", " ") == (
        "At α = 1, without a search, the sum of all 4 task vectors keeps 25.0 % (non-linear), "
        "50.0 % (post-hoc linearized) and 70.0 % (linear) of what each reaches alone."
    )
    assert second.startswith("vit_s_focus, fine-tuned on 4 tasks with one seed")
    document = render(compare.page(report.parse(raw), None), {})
    assert document.count("without a search, the sum") == 1
    for row in raw["addition"].values():
        row.pop("full_normalized", None)
    (only,) = paragraphs(raw)
    assert only == second


def words(raw):
    page = compare.page(report.parse(raw), None)
    (part,) = next(s for s in page.sections if s.key == "glossary").parts
    return dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", part))


def test_the_glossary_has_the_methods_and_merges_of_the_page(make_results):
    """In runs that say nothing of them, as early ones, the papers' regimes alone."""
    raw = make_results(2, 1)
    early = words(raw)
    regimes = ("nonlinear", "posthoc", "linear")
    for m in regimes:
        assert early[METHODS[m].label] == METHODS[m].about
    rows = (*(METHODS[m] for m in (*regimes, "tau_jp", "tak")), MERGES["tsv_m"])
    found = words(raw | {"about": {row.label: row.about for row in rows}})
    assert {row.label: html.unescape(found[row.label]) for row in rows} == {
        row.label: row.about for row in rows
    }
    assert early.keys() <= found.keys()
    assert list(found).index("Linear") < list(found).index("TAK") < list(found).index("Addition")


def test_negation_tables(make_results):
    raw = make_results(4, 3)
    shown = rows(table(raw, "negation"))
    for name, m in {"Non-linear": "nonlinear", "Gradient ascent": "gradient_ascent"}.items():
        _, target, control = shown[name]
        assert target.text == expected([sum(s) / 4 for s in raw["negation"][m]["target"]])
        assert control.text == expected([sum(s) / 4 for s in raw["negation"][m]["control"]])
    assert shown["Pre-trained"][2].text == expected([sum(s) / 4 for s in raw["control_pretrained"]])
    by_task = rows(table(raw, "negation_control_by_task"))
    assert by_task["letters"][-1].text == expected(
        [s[3] for s in raw["negation"]["linear"]["control"]]
    )


def test_the_best_regime_is_bold_and_no_baseline(make_results):
    raw = make_results(4, 3)
    raw["addition"]["linear"]["accuracy"] = [[0.9] * 4] * 3
    raw["addition"]["joint"]["accuracy"] = [[0.95] * 4] * 3
    shown = rows(table(raw, "addition"))
    assert [name for name, row in shown.items() if row[1].best] == ["Linear"]
    raw["negation"]["posthoc"]["target"] = [[0.01] * 4] * 3
    raw["negation"]["gradient_ascent"]["target"] = [[0.001] * 4] * 3
    shown = rows(table(raw, "negation"))
    assert [name for name, row in shown.items() if row[1].best] == ["Post-hoc linearized"]


def test_what_does_not_differ_from_the_best_is_bold_too_and_nothing_where_all_are_alike(
    make_results,
):
    raw = make_results(4, 3)
    added = raw["addition"]
    for m, level in (("nonlinear", 0.80), ("linear", 0.81), ("posthoc", 0.60)):
        added[m]["accuracy"] = [[level + noise] * 4 for noise in (-0.02, 0.0, 0.02)]
    added["linear"]["accuracy"][0] = [0.77] * 4  # by seed −0.01, 0.01, 0.01: not decided

    def bold():
        return [name for name, row in rows(table(raw, "addition")).items() if row[1].best]

    assert bold() == ["Non-linear", "Linear"]
    added["linear"]["accuracy"][0] = [0.79] * 4  # one point in each: the pairs decide
    assert bold() == ["Linear"]
    for m in ("linear", "posthoc"):
        added[m]["accuracy"] = added["nonlinear"]["accuracy"]
    assert bold() == []


@pytest.mark.parametrize(("n", "bold"), [(100, ["mnist"]), (20, []), (None, ["mnist", "fashion"])])
def test_one_seed_s_best_differs_by_more_than_its_test_examples_may(make_results, n, bold):
    """0.9 against 0.7: 20 points are more than 1.96 standard errors of 100 examples, not of 20."""
    raw = make_results(2, 1)
    raw["counts"] = {} if n is None else {t: {"test": n} for t in raw["tasks"]}
    raw["single"] = {"nonlinear": [[0.9, 0.8]], "linear": [[0.7, 0.75]]}
    shown = rows(table(raw, "single"))
    assert [task for task in raw["tasks"] if any(cell.best for cell in shown[task])] == bold


def test_error_map_table(make_results):
    raw = make_results(4, 3)
    shown = table(raw, "error_maps").rows
    alphas = np.array(raw["maps"][0]["alphas"])
    total = np.array(raw["maps"][0]["total"]["posthoc"])
    inside = total[:, np.abs(alphas) <= 1][:, :, np.abs(alphas) <= 1]
    row = next(r for r in shown if r[0].text == "mnist + fashion" and r[1].text.startswith("Post"))
    np.testing.assert_allclose(
        [cell.value for cell in row[2:]],
        [inside.mean(), inside.max((1, 2)).mean(), total.mean()],
        rtol=1e-12,
    )


@pytest.mark.parametrize(
    ("points", "said"),
    [(9, ""), (6, " (whose coefficients on the grid are −0.40 to 0.40)")],
)
def test_means_in_a_box_whose_ends_are_not_on_the_grid_say_of_what_they_are(
    make_results, points, said
):
    """From −2 to 2: steps of 0.5 have −1 and 1, steps of 0.8 have −0.4 and 0.4 between them."""
    raw = make_results(2, 1, G=points)
    assert f"inside the search box{said}, mean" in table(raw, "error_maps").caption


def test_cosine_table(make_results):
    raw = make_results(3, 3)
    shown = rows(table(raw, "cosine_linear"))
    value = np.mean([seed[0][1] for seed in raw["cosine"]["linear"]])
    assert shown["mnist"][1].value == pytest.approx(value, abs=1e-15)
    assert shown["mnist"][0].text == "1.000 ± 0.000"


def test_missing_numbers_are_dashes(make_results):
    raw = make_results(4, 1)
    raw["addition"]["linear"]["normalized"] = [[None, 0.5, 0.5, 0.5]]
    assert rows(table(raw, "addition"))["Linear"][2].text == "–"
    assert rows(table(raw, "addition_by_task_normalized"))["mnist"][3].text == "–"


def test_csv_keeps_full_precision(make_results):
    raw = make_results(4, 3)
    shown = list(csv.DictReader(io.StringIO(table(raw, "single").csv())))
    assert [line["Task"] for line in shown] == [*raw["tasks"], "Mean"]
    values = [100 * seed[2] for seed in raw["single"]["linear"]]
    assert float(shown[2]["Linear"]) == pytest.approx(np.mean(values), rel=1e-15)
    _, high = scipy_stats.ttest_1samp(values, np.mean(values)).confidence_interval(0.95)
    assert float(shown[2]["Linear ± (95 %)"]) == pytest.approx(high - np.mean(values), rel=1e-9)


def test_markdown_is_a_table(make_results):
    raw = make_results(4, 1)
    raw["claims"][0]["claim"] = "a | b"
    lines = table(raw, "claims").markdown().splitlines()
    assert lines[0] == "### Claims of the papers"
    assert lines[2] == "| Claim | Held? | Evidence |"
    assert lines[3] == "|---|---|---|"
    assert lines[4].startswith(r"| a \| b | held |")
    assert [line.split(" | ")[1] for line in lines[5:8]] == ["held", "did not hold", "not decided"]


def test_html_escapes_names(make_results):
    raw = make_results(2, 1, names=("<b>a</b>", "b&c"))
    text = table(raw, "single").html()
    assert "<b>" not in text
    assert "&lt;b&gt;a&lt;/b&gt;" in text
    assert "b&amp;c" in text


@pytest.mark.parametrize("optional", [True, False])
def test_the_terminal_shows_every_headline_number(make_results, optional):
    raw = make_results(4, 3, optional=optional)
    raw["tasks"][0] = "[red]"
    raw["maps"] = []
    out = io.StringIO()
    compare.page(report.parse(raw), None).print(Console(file=out, width=120))
    text = out.getvalue()
    assert "[red]" in text
    assert expected([sum(s) / 4 for s in raw["addition"]["linear"]["accuracy"]]) in text
    assert ("Claims" in text) == optional

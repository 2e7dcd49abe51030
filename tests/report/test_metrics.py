"""Reports of what classifies nothing, of mixed studies, of one's own methods and merges."""

import io
import re
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import rc_context

import linearize as lz
from linearize import comparison, report
from linearize.comparison import Plan
from linearize.data import split_task
from linearize.explored import explored
from linearize.merge import Merge
from linearize.methods import LINEAR, NONLINEAR, POSTHOC
from linearize.objectives import CausalLM, Classify, Control, Squared
from linearize.report.compare import measures
from linearize.report.compare import page as compare
from linearize.report.page import render
from linearize.report.style import PLAIN, Look
from linearize.study import Method, Study
from linearize.train import OptimConfig, TrainConfig

pytestmark = pytest.mark.usefixtures("quick_compilation")

VOCABULARY, LENGTH, WIDTH = 5, 6, 4
RECIPE = TrainConfig(optim=OptimConfig(lr=0.05), steps=20, batch_size=8, checkpoint_every=0)
RECIPES = {"nonlinear": RECIPE, "linear": RECIPE}
PLAN = Plan(
    alphas=np.linspace(0, 1, 5),
    map_alphas=np.linspace(-2, 2, 5),
    tolerance=Control(units=0.25),
)
HALF = Method("half", "Half", "tangent", lambda study, t: 0.5 * study.vectors(LINEAR)[t])
MEAN = Merge("mean", "Mean", lambda taus, seed: {"mean": (1 / len(taus)) * sum(taus.values())})
OWN = ["Half", "Mean, non-linear", "Mean, post-hoc linearized", "Mean, linear", "Mean, Half"]


def language_model(params, tokens):
    hidden = jnp.tanh(params["embed"][tokens] @ params["mix"])
    return hidden @ params["embed"].T


def text(seed, name):
    """Sentences of a Markov chain of its own."""
    rng = np.random.default_rng(seed)
    chain = rng.integers(0, VOCABULARY, VOCABULARY)
    tokens = np.stack([rng.integers(0, VOCABULARY, 60)] * (LENGTH + 1), 1)
    for i in range(LENGTH):
        noise = rng.integers(0, VOCABULARY, 60)
        tokens[:, i + 1] = np.where(rng.random(60) < 0.9, chain[tokens[:, i]], noise)
    return split_task(name, tokens[:, :-1], {"labels": tokens[:, 1:]}, validation=0.2, test=0.2)


def points(seed, name, classify=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(60, WIDTH)).astype(np.float32)
    y = (x @ rng.normal(size=(WIDTH, 3))).astype(np.float32)
    targets = {"labels": y.argmax(1)} if classify else {"targets": y}
    return split_task(name, x, targets, validation=0.2, test=0.2)


def affine():
    params = {"w": np.full((WIDTH, 3), 0.1, np.float32), "b": np.ones((1, 3), np.float32)}
    return (lambda p, x: x @ p["w"] + p["b"], params)


def spoken_results():
    rng = np.random.default_rng(0)
    shapes = {"embed": (VOCABULARY, WIDTH), "mix": (WIDTH, WIDTH)}
    params = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    study = Study(
        (language_model, params),
        [text(seed, name) for seed, name in enumerate(("one", "two"))],
        CausalLM(),
        control=text(2, "plain"),
        recipes=RECIPES,
    )
    methods = (NONLINEAR, POSTHOC, LINEAR, HALF)
    return lz.compare(study, methods, [MEAN], plan=PLAN)


def regression_results():
    tasks = [points(seed, name) for seed, name in enumerate(("one", "two"))]
    study = Study(affine(), tasks, Squared(), recipes=RECIPES)
    return lz.compare(study, ("nonlinear", "linear"), plan=PLAN)


def mixed_results():
    tasks = [points(0, "kinds", classify=True), points(1, "sizes"), points(2, "rest", True)]
    objectives = {"kinds": Classify(), "sizes": Squared(), "rest": Classify()}
    study = Study(affine(), tasks, objectives, control="rest", recipes=RECIPES)
    return lz.compare(study, ("nonlinear", "linear"), plan=PLAN, maps=())


def undrawn(results):
    return results.record, compare.page(report.parse(results.record), None)


@pytest.fixture(scope="module")
def spoken():
    record, page = undrawn(spoken_results())
    with rc_context(PLAIN):
        svgs = {plot.name: svg(plot.draw(False)) for plot in page.plots}
    return record, page, svgs, render(page, {name: (each, each) for name, each in svgs.items()})


def svg(figure):
    out = io.StringIO()
    figure.savefig(out, format="svg")
    return out.getvalue()


@pytest.fixture(scope="module")
def regression():
    return undrawn(regression_results())


@pytest.fixture(scope="module")
def mixed():
    return undrawn(mixed_results())


def table(page, name):
    return next(t for t in page.tables if t.name == name)


def figure(page, name):
    return next(p for p in page.plots if p.name == name)


def row_of(table, first):
    return next(row for row in table.rows if row[0].text == first)


def best(row):
    return [i for i, cell in enumerate(row) if cell.best]


@pytest.mark.slow
def test_perplexity_is_shown_as_it_is_and_less_is_bold(spoken):
    record, page, *_ = spoken
    found = table(page, "single")
    assert found.title == "Single-task perplexity"
    assert "lower is better" in found.caption
    assert "%" not in found.caption.replace("95 %", "")
    for t, task in enumerate(record["tasks"]):
        cells = row_of(found, task)
        values = {m: record["single"][m][0][t] for m in ("nonlinear", "posthoc", "linear", "half")}
        for cell, value in zip(cells[-len(values) :], values.values(), strict=True):
            assert float(cell.text) == pytest.approx(value, rel=1e-3)
        least = found.columns.index(LABELS[min(values, key=values.get)])
        assert best(cells) == [least]


LABELS = {m.name: m.label for m in (NONLINEAR, POSTHOC, LINEAR, HALF)}


@pytest.mark.slow
def test_arrows_follow_the_metric_and_what_is_to_be_forgotten(spoken):
    _, page, *_ = spoken
    summary, negation = table(page, "summary"), table(page, "negation")
    assert summary.columns[1:5] == (
        "Single task ↓", "Addition ↓", "Addition, normalized [%]", "Negation: target ↑",
    )  # fmt: skip
    assert summary.caption.startswith("Perplexity, mean over 2 tasks.")
    assert negation.columns[2] == "Target ↑"
    assert "maximises the target's validation perplexity" in negation.caption
    assert "the control’s perplexity may rise by 0.25" in negation.caption
    (marked,) = [r for r in negation.rows if r[2].best]
    contenders = [r[2].value for r in negation.rows if r[0].text in {*LABELS.values(), *OWN}]
    assert marked[2].value == max(contenders)


@pytest.mark.slow
def test_the_control_has_a_ceiling_in_units(spoken):
    record, page, *_ = spoken
    plot = figure(page, "negation")
    assert "Dashed: the control's ceiling, its pre-trained perplexity + 0.25" in plot.caption
    (line,) = [line for line in plot.draw(False).axes[1].lines if line.get_linestyle() == "--"]
    before = np.mean(record["control_pretrained"])
    assert line.get_xdata()[0] == pytest.approx(before + 0.25)


@pytest.mark.slow
def test_axes_are_those_of_the_values(spoken):
    record, page, *_ = spoken
    for name in ("single_task", "addition_by_task"):
        (ax,) = figure(page, name).draw(False).axes
        assert ax.get_xlabel() == "Test perplexity (lower is better)"
        low, high = ax.get_xlim()
        assert 0.5 < low < np.min(record["pretrained"])
        assert high < 40
    assert not figure(page, "addition").draw(False).axes[0].patches


@pytest.mark.slow
def test_nothing_of_a_language_model_is_called_accuracy(spoken):
    _, page, svgs, html = spoken
    body = re.sub(r"<(style|script|pre)\b.*?</\1>", "", html, flags=re.DOTALL)
    for shown in (body, *(table.markdown() for table in page.tables), *svgs.values()):
        assert "ccuracy" not in shown
    assert "Chance" not in table(page, "tasks").columns


@pytest.mark.slow
def test_rows_of_ones_own_are_named_everywhere_in_their_order(spoken):
    record, page, svgs, html = spoken
    for name in ("summary", "addition"):
        shown = [r[0].text for r in table(page, name).rows if r[0].text in OWN]
        assert shown == OWN
    for name in ("single_task", "single_task_scatter", "negation", "error_map_1_one_two"):
        assert "Half" in svgs[name]
    for name in ("addition", "addition_by_task", "alpha_sweeps", "alpha_sweeps_by_task"):
        assert all(label in svgs[name] for label in OWN), name
    assert all(label in html for label in OWN)
    assert "Bold: best of the regimes and merges, and" in table(page, "summary").caption
    assert list(record["labels"].values())[3:] == OWN


@pytest.mark.slow
def test_rows_of_ones_own_look_different_from_all_others():
    known = ("nonlinear", "posthoc", "linear", "exact", "joint", "random")
    many = Look({m: m for m in (*known, *(f"own {i}" for i in range(30)))})
    looks = {(many.colour(m), many.marker(m)) for m in many.labels}
    assert len(looks) == len(many.labels)
    fewer = Look(dict(list(many.labels.items())[:12]))
    assert [fewer.colour(m) for m in fewer.labels] == [many.colour(m) for m in fewer.labels]


NAMED = {"nonlinear": ("tau_jp", "τJp"), "linear": ("l_lora", "L-LoRA"), "random": ("mAP", "mAP")}


def renamed(value):
    """Results whose rows are one's own."""
    if isinstance(value, dict):
        return {NAMED.get(k, (k,))[0]: renamed(v) for k, v in value.items()}
    return [renamed(v) for v in value] if isinstance(value, list) else value


@pytest.mark.slow
def test_labels_stay_as_given_wherever_they_stand(make_results, make_explorer, write_run, tmp_path):
    raw = renamed(make_results(2, 2)) | {"explored": "l_lora"}
    raw["labels"] = {"posthoc": "Post-hoc linearized", **dict(NAMED.values())}
    run = write_run(tmp_path, raw, make_explorer(raw))
    page = report.read_page(run)
    html = render(page, {plot.name: ("<svg/>", "<svg/>") for plot in page.plots})
    for label in ("τJp", "L-LoRA"):
        assert set(re.findall(label, html, re.IGNORECASE)) == {label}
    assert re.search(r'value="2" checked> L-LoRA</label>', html)
    assert '<option value="2">L-LoRA</option>' in html
    assert "(τJp)" in next(s for s in page.sections if s.key == "summary").parts[0]
    assert next(s for s in page.sections if s.key == "scatter").title == (
        "The others against post-hoc linearized"
    )
    with rc_context(PLAIN):
        (ax, _) = figure(page, "single_task_scatter").draw(False).axes
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "Post-hoc linearized accuracy [%]", "τJp accuracy [%]",
    )  # fmt: skip
    assert row_of(table(page, "addition"), "mAP")[2].text


@pytest.mark.slow
@pytest.mark.parametrize("label", ["τJp", "L-LoRA", "TIES", "Fisher", "mAP", "half"])
def test_a_merge_of_a_method_is_called_by_both_labels(label):
    own = Method("mine", label, "tangent", lambda study, task: None)
    merge = Merge("merge", label, lambda taus, seed: taus)
    assert comparison.Row(merge, own).label == f"{label}, {label}"
    assert comparison.Row(merge, POSTHOC).label == f"{label}, post-hoc linearized"
    assert comparison.Row(merge, own, "row", "My row").label == "My row"
    assert comparison.Row(merge, replace(LINEAR, label=label)).label == f"{label}, {label}"
    assert measures.capital(f"{label} in %") == (
        "Half in %" if label == "half" else f"{label} in %"
    )


@pytest.mark.slow
def test_without_a_control_nothing_is_said_of_negation(regression):
    record, page = regression
    assert record["control_task"] is None
    assert not [part.name for part in (*page.tables, *page.plots) if "negation" in part.name]
    html = render(page, dict.fromkeys([plot.name for plot in page.plots], ("<svg/>", "<svg/>")))
    body = re.sub(r"<(style|script|pre)\b.*?</\1>", "", html, flags=re.DOTALL)
    assert not re.search("negat|subtract|control|accuracy", body, re.IGNORECASE)
    assert "Test mean squared error" in table(page, "single").caption


@pytest.mark.slow
def test_every_figure_is_drawn_for_desktop_and_phone(spoken, regression, mixed):
    with rc_context(PLAIN | {"figure.dpi": 30}):
        for page in (spoken[1], regression[1], mixed[1]):
            for plot in page.plots:
                for narrow in (False, True):
                    plot.draw(narrow).canvas.draw()


@pytest.mark.slow
def test_a_mixed_study_shows_each_task_in_its_own_metric(mixed):
    record, page = mixed
    single = table(page, "single")
    assert [r[1].text for r in single.rows] == ["Accuracy [%] ↑", "Mean squared error ↓", "–"]
    assert [c.text for c in single.rows[-1][1:]] == ["–"] * (len(single.columns) - 1)
    for t, times in ((0, 100), (1, 1)):
        cells = single.rows[t]
        values = [times * record["single"][m][0][t] for m in ("nonlinear", "linear")]
        assert [c.value for c in cells[-2:]] == pytest.approx(values)
        most = max(values) if t == 0 else min(values)
        told = cells[-2].text != cells[-1].text  # of equal ones none is better
        assert [c.best for c in cells[-2:]] == [told and value == most for value in values]
    assert "No mean over tasks of different metrics (accuracy [%], mean" in single.caption


@pytest.mark.slow
def test_a_mixed_study_has_means_of_normalized_values_alone(mixed):
    record, page = mixed
    summary = table(page, "summary")
    for name, cells in (("nonlinear", summary.rows[1]), ("linear", summary.rows[2])):
        assert [cells[i].text for i in (1, 2, 4)] == ["–"] * 3
        mean = 100 * np.mean(record["addition"][name]["normalized"])
        assert cells[3].value == pytest.approx(mean)
        assert cells[5].value == pytest.approx(100 * np.mean(record["negation"][name]["control"]))
    assert "alpha_sweeps" not in {plot.name for plot in page.plots}
    titles = [ax.get_title() for ax in figure(page, "addition").draw(False).axes]
    assert titles == ["Normalized performance"]
    axes = figure(page, "single_task").draw(False).axes
    assert [ax.get_xlabel() for ax in axes] == [
        "Test accuracy [%]", "Test mean squared error (lower is better)",
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"better": "up"}, "metrics/mnist/better is 'up'; expected 'higher' or 'lower'"),
        ({"low": 1.0, "name": "perplexity"}, r"expected perplexity in \[1, inf\]"),
        ({"high": 0.1, "percent": True}, r"expected fractions in \[-inf, 0.1\]"),
    ],
)
def test_values_are_held_against_their_metric(make_results, change, message):
    raw = make_results(2, 1)
    metric = {"name": "score", "better": "higher", "low": None, "high": None, "percent": False}
    raw["metrics"] = dict.fromkeys(raw["tasks"], metric | change)
    with pytest.raises(report.ResultsError, match=message):
        report.parse(raw)


@pytest.mark.slow
def test_a_metric_without_bounds_takes_any_value(make_results):
    raw = make_results(2, 1, optional=False)
    metric = {"name": "score", "better": "higher", "low": None, "high": None, "percent": False}
    raw["metrics"] = dict.fromkeys(raw["tasks"], metric)
    raw["pretrained"] = [[-3.0, 250.0]]
    assert report.parse(raw).pretrained.tolist() == [[-3.0, 250.0]]


PERPLEXITY = {"name": "perplexity", "better": "lower", "low": 1.0, "high": None, "percent": False}
ERROR = {"name": "error rate", "better": "lower", "low": 0.0, "high": 1.0, "percent": True}
ACCURACY = ERROR | {"name": "accuracy", "better": "higher"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("control", "rule", "bound"),
    [
        ({"control_share": 0.9}, "perplexity is at most its pre-trained perplexity divided by 0.9",
         "ceiling, its pre-trained perplexity divided by 0.9"),
        ({"control_units": 0.5}, "perplexity may rise by 0.5",
         "ceiling, its pre-trained perplexity + 0.5"),
    ],
)  # fmt: skip
def test_a_control_may_have_another_metric_than_the_tasks(make_results, control, rule, bound):
    raw = make_results(2, 1) | {"control_task": "text"} | control
    raw["metrics"] = dict.fromkeys(raw["tasks"], ACCURACY) | {"text": PERPLEXITY}
    raw["control_pretrained"] = [[20.0, 20.0]]
    for row in raw["negation"].values():
        row["control"] = [[20.5, 31.0]]
    page = compare.page(report.parse(raw), None)
    negation = table(page, "negation")
    assert f"the control’s {rule}." in negation.caption
    assert negation.columns[2:] == ("Target ↓", "Control (perplexity)")
    assert row_of(negation, "Linear")[3].text == "25.75"
    assert bound in figure(page, "negation").caption


def test_the_explorer_is_of_accuracies_alone(make_results, make_explorer, write_run, tmp_path):
    """Its script counts right classes, whatever the task is measured by."""
    raw = make_results(2, 2)
    arrays = make_explorer(raw)
    f1 = ACCURACY | {"name": "macro F1"}
    for name, metrics, there in (
        ("early", None, True),
        ("accuracy", [ACCURACY, ACCURACY], True),
        ("f1", [f1, f1], False),
        ("both", [ACCURACY, f1], False),
    ):
        told = {} if metrics is None else {"metrics": dict(zip(raw["tasks"], metrics, strict=True))}
        page = report.read_page(write_run(tmp_path / name, raw | told, arrays))
        explore = next(s for s in page.sections if s.key == "explore").parts
        assert any('id="explorer"' in part for part in explore) == there
        assert ("explorer-mean" in page.script) == there

    def study(metric):
        tasks = [points(seed, f"{seed}", classify=True) for seed in range(2)]
        return Study(affine(), tasks, Classify(metric=metric), recipes=RECIPES)

    assert explored(study("macro_f1"), [LINEAR]) is None


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"examples": [400, 12]}, " n = 12–400 examples a task."),
        ({"examples": [1400, 1400]}, " n = 1,400 examples a task."),
        ({}, " n = 400 examples a task."),
        ({"n_eval": None}, "]²."),
    ],
)
def test_a_map_s_caption_has_each_task_s_examples(make_results, told, said):
    raw = make_results(2, 1, n_maps=1)
    raw["maps"][0] |= told
    page = compare.page(report.parse(raw), None)
    (plot,) = [plot for plot in page.plots if plot.name.startswith("error_map")]
    assert plot.caption.endswith(said)


@pytest.mark.slow
def test_a_share_that_is_better_low_is_in_percent_with_an_arrow(make_results):
    raw = make_results(2, 2) | {"control_units": 0.02}
    raw["metrics"] = dict.fromkeys(raw["tasks"], ERROR)
    page = compare.page(report.parse(raw), None)
    assert table(page, "summary").columns[1] == "Single task ↓"
    assert "may rise by 2 points" in table(page, "negation").caption
    (ax, *_) = figure(page, "single_task").draw(False).axes
    assert ax.get_xlabel() == "Test error rate [%] (lower is better)"


@pytest.mark.slow
def test_an_infinite_value_is_shown_without_an_interval(make_results):
    raw = make_results(2, 2)
    raw["metrics"] = dict.fromkeys(raw["tasks"], PERPLEXITY | {"low": 0.0})
    raw["negation"]["linear"]["target"] = [[np.inf, 3.0], [5.0, 3.0]]
    page = compare.page(report.parse(raw), None)
    assert row_of(table(page, "negation"), "Linear")[2].text == "∞"
    figure(page, "negation").draw(False).canvas.draw()
    figure(page, "negation_by_task").draw(True).canvas.draw()

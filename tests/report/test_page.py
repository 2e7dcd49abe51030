"""Figures and page are whole, self-contained, and fit what the run has."""

import base64
import html
import html.parser
import json
import os
import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from linearize import report
from linearize.report.compare import maps
from linearize.report.compare import page as compare
from linearize.report.plot import powers_of_ten
from linearize.report.style import PLAIN

VOID = {"meta", "link", "input", "br", "img"}
NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


class Document(html.parser.HTMLParser):
    """Collects what the tests ask for; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.found = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.mark.slow
def test_figures_are_written_and_valid(whole):
    run, _ = whole
    names = {
        "single_task", "addition", "addition_by_task", "alpha_sweeps", "alpha_sweeps_by_task",
        "negation", "negation_by_task", "single_task_scatter", "error_map_1_mnist_fashion",
        "error_map_2_fashion_traffic-signs", "cosine",
    }  # fmt: skip
    assert {p.stem for p in (run / "figures").iterdir()} == names
    for name in names:
        with Image.open(run / "figures" / f"{name}.png") as image:
            image.load()
            assert image.width == 1800
            assert np.asarray(image.convert("L")).std() > 5
        root = ElementTree.parse(run / "figures" / f"{name}.svg").getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_tables_are_written_twice(whole):
    run, raw = whole
    tables = report.all_tables(report.load(run))
    assert {p.name for p in (run / "tables").iterdir()} == {
        f"{t.name}.{kind}" for t in tables for kind in ("md", "csv")
    }
    accuracy = 100 * np.mean(raw["addition"]["linear"]["accuracy"])
    assert f"{accuracy:.1f} ±" in (run / "tables" / "addition.md").read_text("utf-8")


def cells(text):
    """The rows of all tables of a page, as lists of their cells' words."""
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", text, re.DOTALL)
    return [
        [html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in re.findall(CELL, row)]
        for row in rows
    ]


CELL = re.compile(r"<t[dh][^>]*>(.*?)</t[dh]>", re.DOTALL)


def percent(values):
    """Mean ± 95 % t interval over seeds, in %, by SciPy."""
    values = 100 * np.asarray(values)
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return f"{values.mean():.1f} ± {half:.1f}"


def test_every_result_is_in_the_tables_of_the_page(whole):
    run, raw = whole
    found = cells((run / "report.html").read_text("utf-8"))
    regimes = ("nonlinear", "posthoc", "linear")
    before = [raw["pretrained"], raw["random_init"]]
    added, negated = raw["addition"], raw["negation"]
    others = [negated[m] for m in ("random", "gradient_ascent")]
    tables = {
        "single": [*before, *(raw["single"][r] for r in regimes)],
        "addition": [
            *before,
            *(added[m]["accuracy"] for m in ("random", *regimes, "joint")),
        ],
        "normalized": [added[m]["normalized"] for m in ("random", *regimes, "joint")],
        "target": [
            raw["pretrained"],
            *(n["target"] for n in (*others, *map(negated.get, regimes))),
        ],
        "control": [
            raw["control_pretrained"],
            *(n["control"] for n in (*others, *map(negated.get, regimes))),
        ],
    }
    for name, columns in tables.items():
        for t, task in enumerate(raw["tasks"]):
            assert [task, *(percent(np.array(c)[:, t]) for c in columns)] in found, (name, task)
        assert ["Mean", *(percent(np.mean(c, 1)) for c in columns)] in found, name
    for drawn in raw["maps"]:
        for total in drawn["total"].values():
            mean = f"{np.mean(total):.3f}"
            assert any(row[0] == " + ".join(drawn["tasks"]) and mean in row[-1] for row in found)
    for claim in raw["claims"]:
        assert any(claim["claim"] == row[0] and claim["evidence"] == row[-1] for row in found)


def test_every_figure_is_on_the_page(whole):
    run, _ = whole
    page = Document((run / "report.html").read_text("utf-8"))
    shown = {a["id"].removeprefix("figure-") for a in page.all("figure") if "id" in a}
    assert {path.stem for path in (run / "figures").iterdir()} == shown
    assert len([a for a in page.all("svg") if "plot" in a.get("class", "")]) >= len(shown)


BROWSER = """
const made = {};
const element = (name) => made[name] ??= {
  style: { setProperty() {} }, dataset: {}, on: {}, value: "", textContent: "",
  setAttribute(key, value) { this[key] = value; },
  addEventListener(kind, call) { this.on[kind] = call; },
  classList: { toggle() {} },
  querySelectorAll: () => [],
  querySelector(selector) { return element(`${name} ${selector}`); },
};
const document = {
  getElementById: (id) => (id === "maps-data" ? null : element(`#${id}`)),
  querySelectorAll: () => [],
  addEventListener() {},
};
const window = element("window"), location = { hash: "" };
const requestAnimationFrame = (call) => call();
globalThis.setTimeout = () => 0;
globalThis.clearTimeout = () => {};
"""
"""As much of a browser as the sliders need."""


def near(shown, share):
    """Whether a number in % with one digit is that share."""
    return abs(float(shown) - 100 * share) < 0.05 + 1e-9


def test_a_moved_slider_moves_the_page_s_numbers(whole):
    """The page's own script on the page's own data, in an engine without a browser."""
    racer = pytest.importorskip("py_mini_racer", reason="no py_mini_racer: pip install mini-racer")
    run, raw = whole
    text = (run / "report.html").read_text("utf-8")
    data = re.search(r'id="explorer-data">(.*?)</script>', text, re.DOTALL)[1]
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    engine = racer.MiniRacer()
    engine.eval(BROWSER)
    engine.eval(f'element("#explorer-data").textContent = {json.dumps(data)};')
    engine.eval(script)
    arrays = np.load(run / "explorer.npz")
    before = np.mean(
        [(arrays[f"{n}/logits0"].argmax(-1) == arrays[f"{n}/labels"]).mean() for n in raw["tasks"]]
    )
    alpha = json.loads(data)["best"]
    for t, value in ((1, -0.3), (0, 0.85), (3, 1.0)):
        alpha[t] = value
        engine.eval(
            f"{{ const slider = element('#explorer [data-task-index=\"{t}\"] input');"
            f"slider.value = '{value}'; slider.on.input(); }}"
        )
        expected = []
        for i, task in enumerate(raw["tasks"]):
            moved = np.tensordot(alpha, arrays[f"{task}/dlogits"].astype(np.float64), 1)
            logits = arrays[f"{task}/logits0"] + moved
            expected.append((logits.argmax(-1) == arrays[f"{task}/labels"]).mean())
            row = f'element(\'#explorer [data-task-index="{i}"]'
            assert float(engine.eval(f"{row} .bar').dataset.accuracy")) == expected[-1]
            shown = engine.eval(f"{row} .accuracy').textContent")
            assert near(shown.removesuffix(" %"), expected[-1])
        mean = np.mean(expected)
        shown = engine.eval("element('#explorer #explorer-mean').textContent")
        assert near(shown.removesuffix(" %"), mean)
        shown = engine.eval("element('#explorer #explorer-gain').textContent")
        assert near(shown.replace("−", "-"), mean - before)
    engine.close()


def test_the_page_needs_no_network(whole):
    text = (whole[0] / "report.html").read_text("utf-8")
    assert set(re.findall(r"https?://[^\s\"'<>)]+", text)) <= NAMESPACES
    page = Document(text)
    for tag, attributes in page.found:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value[:60])
    assert "@import" not in text
    assert all(u.startswith(("#", "data:")) for u in re.findall(r"url\(['\"]?([^)]*)\)", text))
    assert "default-src 'none'" in text


def test_ids_are_unique_and_references_resolve(whole):
    text = (whole[0] / "report.html").read_text("utf-8")
    page = Document(text)
    assert len(page.ids) == len(set(page.ids))
    wanted = {
        a[n][1:] for _, a in page.found for n in ("href", "xlink:href") if a.get(n, "")[:1] == "#"
    }
    wanted |= set(re.findall(r"url\(#([^)]*)\)", text))
    wanted |= {a["for"] for _, a in page.found if "for" in a}
    wanted |= {a["aria-labelledby"] for _, a in page.found if "aria-labelledby" in a}
    assert wanted <= set(page.ids)


def test_the_page_is_accessible(whole):
    page = Document((whole[0] / "report.html").read_text("utf-8"))
    labelled = {a["for"] for a in page.all("label") if "for" in a}
    named = [a for a in page.all("input") if "id" in a]
    assert all(a["id"] in labelled for a in named)
    assert len(page.all("label")) >= len(page.all("input")) + len(page.all("select"))
    assert all(a.get("aria-label") or a.get("aria-hidden") for a in page.all("svg"))
    assert all(a.get("alt") for a in page.all("img"))
    assert all(a.get("scope") for a in page.all("th"))
    assert page.all("html")[0]["lang"] == "en"
    assert page.all("meta")[1]["content"].startswith("width=device-width")


def test_inline_figures_follow_the_page_theme(whole):
    text = (whole[0] / "report.html").read_text("utf-8")
    figures = "".join(re.findall(r'<svg class="plot.*?</svg>', text, re.DOTALL))
    assert "var(--c-linear)" in figures
    assert "var(--ink)" in figures
    assert "#009e73" not in figures
    declared = set(re.findall(r"(--[\w-]+):", text))
    assert set(re.findall(r"var\((--[\w-]+)", text)) <= declared


@pytest.mark.slow
@pytest.mark.parametrize(
    ("T", "S", "n_maps", "optional"),
    [(2, 1, 0, False), (9, 5, 4, True)],
)
def test_every_size_of_run_has_a_page(
    make_results, make_explorer, write_run, tmp_path, T, S, n_maps, optional
):
    raw = make_results(T, S, n_maps=n_maps, optional=optional)
    raw["model"]["name"] = "<script>alert(1)</script>"
    text = report.write_all(write_run(tmp_path, raw, make_explorer(raw))).read_text("utf-8")
    page = Document(text)
    assert "<script>alert" not in text
    assert len([a for _, a in page.found if "data-task-index" in a]) == T
    assert len([a for _, a in page.found if "data-map-index" in a]) == n_maps
    assert ("One seed (0): no interval." in text) == (S == 1)
    assert ("maps" in page.ids) == bool(n_maps)
    assert ("claims" in page.ids) == optional


def test_a_minimal_run_has_a_page(make_results, write_run, tmp_path):
    full = make_results(2, 1)
    raw = {k: full[k] for k in ("schema", "preset", "tasks", "seeds", "pretrained")}
    raw["single"] = {"linear": full["single"]["linear"]}
    text = report.write_all(write_run(tmp_path, raw, None)).read_text("utf-8")
    Document(text)
    assert "no explorer.npz" in text
    assert 'id="explorer"' not in text
    assert "Explorer" not in text


@pytest.mark.slow
def test_undefined_numbers_do_not_stop_the_page(make_results, write_run, tmp_path):
    raw = make_results(3, 2, n_maps=1)
    raw["addition"]["nonlinear"]["normalized"] = [[None] * 3] * 2
    raw["addition"]["random"]["alpha"] = [None, 0.1]
    raw["maps"][0]["total"]["linear"][0][3][4] = None
    raw["cosine"]["linear"][1][0][1] = None
    raw["single"] = raw["negation"] = {}
    Document(report.write_all(write_run(tmp_path, raw, None)).read_text("utf-8"))


def test_a_damaged_explorer_leaves_everything_as_it_was(make_results, write_run, tmp_path):
    run = write_run(tmp_path, make_results(2, 1), None)
    (run / "report.html").write_text("old")
    (run / "explorer.npz").write_bytes(b"damaged")
    with pytest.raises(report.ResultsError, match=r"explorer\.npz is damaged"):
        report.write_all(run)
    assert (run / "report.html").read_text() == "old"
    assert sorted(p.name for p in run.iterdir()) == ["explorer.npz", "report.html", "results.json"]


def test_a_second_run_writes_the_same_bytes(make_results, make_explorer, write_run, tmp_path):
    raw = make_results(2, 1, n_maps=1)
    raw = {k: raw[k] for k in ("schema", "preset", "tasks", "seeds", "pretrained", "maps")}
    run = write_run(tmp_path, raw, None)
    report.write_all(run)
    first = {p: p.read_bytes() for p in run.rglob("*.*")}
    report.write_all(run)
    assert {p: p.read_bytes() for p in run.rglob("*.*")} == first
    assert len(first) > 5


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_directory_is_an_error(make_results, write_run, tmp_path):
    run = write_run(tmp_path, make_results(2, 1), None)
    run.chmod(0o500)
    try:
        with pytest.raises(OSError, match="Permission"):
            report.write_all(run)
    finally:
        run.chmod(0o700)


def test_the_colour_scale_spans_the_regimes_of_all_pairs(make_results):
    raw = make_results(3, 1, n_maps=3)
    found = report.parse(raw)
    pair = found.maps[0]
    largest = max(np.max(total) for each in raw["maps"] for total in each["total"].values())
    limits = {maps.upper_limit(found, each) for each in found.maps}
    assert len(limits) == 1
    assert largest <= limits.pop() < largest + 0.1
    raw["maps"][1] |= {"distance": "token disagreement", "farthest": 1.0}  # of another kind
    other = report.parse(raw)
    own = max(np.max(total) for total in raw["maps"][1]["total"].values())
    assert own <= maps.upper_limit(other, other.maps[1]) < own + 0.1
    assert maps.error_label(pair) == ("disentanglement error ξ (sum over both tasks, range 0–2)")
    raw["maps"][0]["reduction"] = "mean"
    totals = raw["maps"][0]["total"]
    totals |= {method: (np.asarray(total) / 2).tolist() for method, total in totals.items()}
    assert "(mean over both tasks, range 0–1)" in maps.error_label(report.parse(raw).maps[0])


def test_no_interval_is_drawn_beyond_what_values_can_be(make_results):
    """Whiskers and bands of accuracies at 1 and near 0, with wide intervals over three seeds."""
    raw = make_results(3, 3)
    spread = np.array([[1.0], [1.0], [0.9]])
    for part in (*raw["addition"].values(), *raw["negation"].values(), raw):
        for key in ("accuracy", "target", "control", "pretrained"):
            if key in part:
                part[key] = (spread - 0.9 * (key == "target")).clip(0, 1).repeat(3, 1).tolist()
        for key in ("sweep_test", "sweep_validation"):
            if key in part:
                part[key] = spread[..., None].repeat(21, 1).repeat(3, 2).tolist()
    raw["single"] = {m: spread.repeat(3, 1).tolist() for m in raw["single"]}
    results = report.parse(raw)
    drawn = 0
    with matplotlib.rc_context(PLAIN):
        for plot in compare.all_plots(results):
            if plot.name.startswith(("error_map", "cosine", "single_task_s")):
                continue
            for ax in plot.draw(False).axes:
                if "normalized" in ax.get_title().lower():
                    continue
                for found in ax.collections:
                    ends = np.concatenate([path.vertices for path in found.get_paths()])
                    upright = plot.name.startswith("alpha")
                    if not isinstance(found, PolyCollection if upright else LineCollection):
                        continue
                    share = ends[:, 1 if upright else 0]
                    assert -1e-9 <= share.min() <= share.max() <= 100 + 1e-9, plot.name
                    drawn += 1
    assert drawn > 10


def test_downloads_are_what_is_shown(whole):
    run, _ = whole
    text = (run / "report.html").read_text("utf-8")
    files = {a["download"]: a["href"] for a in Document(text).all("a") if "download" in a}
    assert set(files) == {path.name for path in (run / "tables").glob("*.csv")}
    for name, href in files.items():
        content = base64.b64decode(href.partition(";base64,")[2])
        assert content == (run / "tables" / name).read_bytes()
    figures = {path.stem for path in (run / "figures").iterdir()}
    buttons = {a["data-figure"] for a in Document(text).all("button") if "data-figure" in a}
    assert buttons == figures


def test_a_letter_is_on_the_page_once(whole):
    text = (whole[0] / "report.html").read_text("utf-8")
    glyphs = re.findall(r'<path id="(DejaVu[^"]*)"', text)
    assert len(glyphs) == len(set(glyphs)) > 40


NASTY = ("a$b_c^", "$x$ <b>bold</b> $\\frac{$", "../a|b & \\c \U0001f600", "long" * 80)


@pytest.mark.slow
def test_any_name_of_a_task_has_a_page(make_results, write_run, tmp_path):
    """Mathtext, tags, separators, emoji: every figure, table and file, and nothing outside."""
    raw = make_results(4, 1, n_maps=2, names=NASTY)
    for pair, tasks in zip(raw["maps"], (NASTY[:2], NASTY[2:]), strict=True):
        pair["tasks"] = list(tasks)
    text = report.write_all(write_run(tmp_path / "run", raw, None)).read_text("utf-8")
    Document(text)
    assert "<b>bold" not in text
    assert "&lt;b&gt;bold&lt;/b&gt;" in text
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    first, second = sorted(p.stem for p in (tmp_path / "run" / "figures").glob("error_map*.png"))
    assert first == "error_map_1_a-b_c-_-x---b-bold--b----frac--"
    assert second == f"error_map_2_---a-b----c--_{'long' * 10}"


def test_dollars_are_drawn_as_they_are():
    with matplotlib.rc_context(PLAIN):
        fig = Figure()
        ax = fig.subplots()
        ax.loglog([1e-3, 1, 50], [0.2, 3, 4e4])
        powers_of_ten(ax.xaxis, ax.yaxis)
        ax.set_title("$x$")
        fig.draw_without_rendering()
        shown = [t.get_text() for t in (*ax.get_xticklabels(), *ax.get_yticklabels())]
        assert {"10⁻³", "10⁰", "10¹", "10⁴"} <= set(shown)
        assert not any("$" in t for t in shown)
        assert not ax.title.get_parse_math()

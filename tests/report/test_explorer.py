"""What the page computes in JavaScript equals Python's, to the last bit: sliders and maps."""

import base64
import csv
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

from linearize import report
from linearize.plot import LOW_IS_LIGHT
from linearize.report.compare import explorer, maps
from linearize.report.compare import page as compare
from linearize.report.page import render

HERE = Path(explorer.__file__).parent
SCRIPTS = [HERE / name for name in ("arithmetic.js", "grid.js")]
CHROMIUM = next(
    (p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None
)


def reference(arrays, task, alpha, method=""):
    """Accuracy from the file's float32 numbers, in float64, the sum in the same order."""
    total = arrays[f"{task}/logits0"].astype(np.float64)
    for a, d in zip(alpha, arrays[f"{task}/dlogits{method and '/'}{method}"], strict=True):
        total = total + a * d.astype(np.float64)
    return int((total.argmax(-1) == arrays[f"{task}/labels"]).sum()) / len(total)


def mean(values):
    total = 0.0  # not sum(), which compensates from Python 3.12 on
    for value in values:
        total += value
    return total / len(values)


@pytest.fixture(params=["node", "mini_racer"])
def javascript(request):
    """``javascript(expression)``: its JSON value in an engine that has read the arithmetic."""
    code = "".join(path.read_text("utf-8") for path in SCRIPTS)
    if request.param == "node":
        node = shutil.which("node")
        if node is None:
            pytest.skip("no node on PATH")

        def run(expression):
            program = f"{code}\nprocess.stdout.write(JSON.stringify({expression}));"
            done = subprocess.run(
                [node, "-"], input=program, capture_output=True, text=True, check=True
            )
            return json.loads(done.stdout)

        yield run
        return
    racer = pytest.importorskip("py_mini_racer", reason="no py_mini_racer: pip install mini-racer")
    engine = racer.MiniRacer()
    engine.eval(code)
    yield lambda expression: json.loads(engine.eval(f"JSON.stringify({expression})"))
    engine.close()


def settings(T, count=12):
    """Coefficient vectors: corners, ties with θ0, and numbers with no short decimal form."""
    rng = np.random.default_rng(7)
    fixed = [[0.0] * T, [1.0] * T, [0.45] * T, [-1.0] + [0.0] * (T - 1)]
    return fixed + rng.uniform(-2, 2, (count, T)).tolist()


@pytest.mark.parametrize("T", [2, 4, 9])
def test_an_engine_agrees_with_python_exactly(
    make_results, make_explorer, write_run, tmp_path, javascript, T
):
    raw = make_results(T, 1)
    arrays = make_explorer(raw, E=37, others=("posthoc",))
    results = report.load(write_run(tmp_path, raw, arrays))
    data = explorer.payload(results, report.load_explorer(tmp_path, results))
    alphas = settings(T)
    live = {regime["key"]: regime["live"] for regime in data["regimes"]}
    assert live == {"nonlinear": None, "posthoc": 1, "linear": 0}
    for method, regime in (("", live["linear"]), ("posthoc", live["posthoc"])):
        got = javascript(
            f"{json.dumps(data['tasks'])}.map(Explorer.unpack).map(task => {json.dumps(alphas)}"
            f".map(alpha => Explorer.accuracy(task, alpha, {regime})))"
        )
        want = [[reference(arrays, task, a, method) for a in alphas] for task in raw["tasks"]]
        assert got == want
        assert len({value for row in got for value in row}) > 10


def test_what_is_not_affine_is_shown_where_it_was_measured(make_results, javascript):
    raw = make_results(3, 2)
    added = raw["addition"]["nonlinear"]
    added["alpha"], added["sweep_test"] = [0.37, 0.4], None
    results = report.parse(raw)
    points = explorer.measured_points(results, "nonlinear")
    assert [p["alpha"] for p in points] == [0.0, 0.37, 1.0]
    measured = [raw["pretrained"], added["accuracy"], added["full"]]
    assert [p["values"] for p in points] == [each[0] for each in measured]
    near = f"Explorer.measured({json.dumps(points)}, "
    assert javascript(near + "[0.3, 0.3, 0.3])") == points[1]
    assert javascript(near + "[-1, -1, -1])") == points[0]
    assert javascript(near + "[0.37, 0.37, 0])") is None
    swept = explorer.measured_points(report.parse(make_results(3, 2)), "nonlinear")
    assert [p["alpha"] for p in swept] == raw["alphas"]


def unswept(raw, chosen=0.35):
    """Results without test data along α, as of ``edit.sweep_test=False``."""
    for added in raw["addition"].values():
        added.pop("sweep_test", None)
    raw["addition"]["nonlinear"]["alpha"] = [chosen] * len(raw["seeds"])
    return raw


def test_the_page_says_where_alone_a_row_was_measured(make_results, make_explorer, tmp_path):
    raw = unswept(make_results(2, 1))
    arrays = make_explorer(raw, E=16, others=("posthoc",))
    pages = [
        page_without_figures(tmp_path / name, each, arrays).read_text("utf-8")
        for name, each in (("few", raw), ("swept", make_results(2, 1)))
    ]
    said = (
        "on all test examples: Non-linear at α = 0.00, 0.35 and 1.00 alone, of which the row shows "
        "the nearest."
    )
    assert [" ".join(page.split()).count(said) for page in pages] == [1, 0]
    assert not any("Post-hoc linearized at α" in page for page in pages)


def test_a_row_that_stands_still_says_beside_it_where_it_was_measured(
    make_results, make_explorer, tmp_path
):
    raw = unswept(make_results(2, 1))
    path = page_without_figures(tmp_path / "run", raw, make_explorer(raw, E=16))
    document = browse(tmp_path, path, "#alpha=mnist:0.5,fashion:0.5")
    assert ">measured at α = 0.35, the nearest of 3<" in document
    assert rows_of(document)[0][1:-1] == raw["addition"]["nonlinear"]["accuracy"][0]


@pytest.mark.parametrize("alphas", [[-1.0, 0.0, 2.0], [-3.0, -1.0, 0.0, 0.5, 1.0]])
def test_map_pixels_are_the_maps_cells(javascript, alphas):
    G, side = len(alphas), 45
    values = np.random.default_rng(G).uniform(0, 1.9, (G, G)).astype(np.float32)
    values[0, 1] = np.nan
    table = LOW_IS_LIGHT(np.arange(256), bytes=True)[:, :3].ravel().tolist()
    found = javascript(
        f"Array.from(Grid.pixels({json.dumps(values.ravel().tolist())}.map(v => v ?? NaN), "
        f"{alphas}, 0, 2, {table}, {side}))".replace("NaN,", "null,")
    )
    pixels = np.array(found).reshape(side, side, 4)[..., :3]
    borders = maps.edges(np.array(alphas))
    np.testing.assert_array_equal(javascript(f"Grid.edges({alphas})"), borders)
    low, high = borders[0], borders[-1]
    for i, a in enumerate(alphas):
        for j, b in enumerate(alphas):
            column, row = (int(side * (x - low) / (high - low)) for x in (a, b))
            want = maps.error_colours(values[i : i + 1, j].astype(float), 2.0)[0]
            np.testing.assert_array_equal(pixels[side - 1 - row, column], want, str((i, j)))


def test_contours_lie_where_the_level_is_reached(javascript):
    alphas = [-2.0, -1.0, 0.0, 0.5, 1.0]
    x, y = np.meshgrid(alphas, alphas, indexing="ij")
    found = np.array(
        javascript(f"Grid.contour({(x + 2 * y).ravel().tolist()}, {alphas}, 0.3)")
    ).reshape(-1, 2)
    assert len(found) >= 8
    np.testing.assert_allclose(found[:, 0] + 2 * found[:, 1], 0.3, atol=1e-12)
    assert javascript(f"Grid.contour({(0 * x).ravel().tolist()}, {alphas}, 0.3)") == []


def test_ties_go_to_the_first_class_and_order_of_summation_is_kept(javascript):
    # 1e8 + 0.1 * 1 - 1e8 differs from any other order of the same sum in doubles
    logits0 = np.array([[1e8, 0.1], [2.0, 2.0], [1.0, 2.0]], np.float32)
    dlogits = np.array([[[1, 0]] * 3, [[-1e8, 0]] + [[0, 0]] * 2], np.float32)
    labels = np.array([0, 0, 1], np.int32)
    arrays = {"t/logits0": logits0, "t/dlogits": dlogits, "t/labels": labels}
    task = {
        "name": "t", "examples": 3, "classes": 2,
        "logits0": base64.b64encode(logits0.astype("<f4").tobytes()).decode(),
        "dlogits": [base64.b64encode(dlogits.astype("<f4").tobytes()).decode()],
        "labels": base64.b64encode(labels.astype("<u2").tobytes()).decode(),
    }  # fmt: skip
    for alpha in ([0.1, 1.0], [0.0, 0.0], [0.3, -0.7]):
        got = javascript(f"Explorer.accuracy(Explorer.unpack({json.dumps(task)}), {alpha})")
        assert got == reference(arrays, "t", alpha)


@pytest.mark.parametrize("size", range(8))
def test_base64_round_trips(javascript, size):
    content = bytes(range(250, 250 + min(size, 6))) + bytes(max(0, size - 6))
    text = base64.b64encode(content).decode()
    assert javascript(f"Array.from(Explorer.bytes({json.dumps(text)}))") == list(content)


@pytest.mark.parametrize(
    ("hash_", "alpha", "refused"),
    [
        ("#alpha=mnist:0.4,letters:0.3", [0.4, 0.0, 0.3], []),
        ("#alpha=", [0, 0, 0], []),
        ("#alpha=a%3A%2Cb:-0.25", [0, -0.25, 0], []),
        ("#alpha=mnist:99,letters:-99", [2, 0, -1], []),
        ("#alpha=mnist:x,cats:1,letters:", [0, 0, 0], ["mnist:x", "cats:1", "letters:"]),
        ("#alpha=letters", [0, 0, 0], ["letters"]),
        ("#alpha=%E0%A4%A:1", [0, 0, 0], ["%E0%A4%A:1"]),
        ("#alpha=mnist:NaN,letters:Infinity", [0, 0, 0], ["mnist:NaN", "letters:Infinity"]),
        ("#maps&alpha=letters:0.5", [0, 0, 0.5], []),
    ],
)  # fmt: skip
def test_the_address_is_read(javascript, hash_, alpha, refused):
    names = ["mnist", "a:,b", "letters"]
    got = javascript(f"Explorer.parseHash({json.dumps(hash_)}, {json.dumps(names)}, -1, 2)")
    assert got == {"alpha": alpha, "refused": refused}


def test_the_address_is_written_so_that_it_can_be_read(javascript):
    names = ["mnist", "a:,b", "été & co", "x/y"]
    alpha = [0.35, -0.15, 1, 0]
    written = f"Explorer.formatHash({json.dumps(alpha)}, {json.dumps(names)})"
    got = javascript(f"Explorer.parseHash({written}, {json.dumps(names)}, -1, 2)")
    assert got == {"alpha": alpha, "refused": []}
    assert javascript("Explorer.parseHash('#maps', ['maps'], -1, 2)") is None
    placed = javascript(f"Explorer.formatHash({alpha}, {json.dumps(names)}, 'maps')")
    assert (
        javascript(f"Explorer.parseHash({json.dumps(placed)}, {json.dumps(names)}, -1, 2)") == got
    )
    assert javascript(f"Explorer.address({json.dumps(placed)}).section") == "maps"
    assert [javascript(f"Explorer.address('{h}').section") for h in ("#maps", "#alpha=", "")] == [
        "maps", "", "",
    ]  # fmt: skip


def test_normalized_accuracy(javascript):
    assert (
        javascript("Explorer.normalized([0.5, 0.6], [0.8, 0.75])") == (0.5 / 0.8 + 0.6 / 0.75) / 2
    )
    assert javascript("Explorer.normalized([0.5, 0.6], [0, 0.75])") is None


def page_without_figures(path, results, arrays):
    """The page as the browser tests need it, without minutes of drawing."""
    path.mkdir()
    np.savez(path / "explorer.npz", **arrays)
    parsed = report.parse(results)
    text = render(compare.page(parsed, report.load_explorer(path, parsed)), {})
    (path / "report.html").write_text(text, "utf-8")
    return path / "report.html"


def browse(tmp_path, path, hash_="", width=1280):
    """The page's document after its scripts ran in a headless browser."""
    if CHROMIUM is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--dump-dom", "--virtual-time-budget=3000",
            f"--window-size={width},900", f"--user-data-dir={tmp_path / 'profile'}",
            path.as_uri() + hash_,
        ],
        capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip
    return done.stdout


def attribute(document, name):
    return [html.unescape(v) for v in re.findall(f'{name}="([^"]*)"', document)]


def rows_of(document):
    """By method, the table's numbers: mean, each task's, normalized."""
    return [json.loads(row) for row in attribute(document, "data-values")]


@pytest.mark.slow(but=["2-alpha2"])
@pytest.mark.parametrize(
    ("T", "alpha"),
    [(4, {"mnist": 0.4, "letters": 0.3}), (4, None), (2, {"mnist": -1.25, "fashion": 0.123456789})],
)
def test_a_browser_agrees_with_python_exactly(make_results, make_explorer, tmp_path, T, alpha):
    raw = make_results(T, 1, n_maps=2)
    arrays = make_explorer(raw, E=64, others=("posthoc",), images=3)
    path = page_without_figures(tmp_path / "run", raw, arrays)
    tasks = raw["tasks"]
    if alpha is None:
        hash_, values = "", [raw["addition"]["linear"]["alpha"][0]] * T
    else:
        hash_ = "#alpha=" + ",".join(f"{quote(t)}:{a}" for t, a in alpha.items())
        values = [alpha.get(t, 0.0) for t in tasks]
    document = browse(tmp_path, path, hash_)
    now = [reference(arrays, task, values) for task in tasks]
    single = [reference(arrays, task, np.eye(T)[t].tolist()) for t, task in enumerate(tasks)]
    assert list(map(float, attribute(document, "data-accuracy"))) == now
    assert list(map(float, attribute(document, "data-single"))) == single
    assert list(map(float, attribute(document, "data-pretrained"))) == [
        reference(arrays, task, [0.0] * T) for task in tasks
    ]
    assert float(attribute(document, "data-mean")[0]) == mean(now)
    ratios = [a / s for a, s in zip(now, single, strict=True)]
    assert float(attribute(document, "data-normalized")[0]) == mean(ratios)
    shown = dict(zip(("nonlinear", "posthoc", "linear"), rows_of(document), strict=True))
    for method, key in (("linear", ""), ("posthoc", "posthoc")):
        each = [reference(arrays, task, values, key) for task in tasks]
        alone = [reference(arrays, t, unit, key) for t, unit in zip(tasks, np.eye(T), strict=True)]
        share = mean([a / s for a, s in zip(each, alone, strict=True)])
        assert shown[method] == [mean(each), *each, share]
    if len(set(values)) == 1:  # α of the linear sum: the non-linear one was measured there, too
        measured = raw["addition"]["nonlinear"]["sweep_test"][0][raw["alphas"].index(values[0])]
        assert shown["nonlinear"][1:-1] == measured
        assert ">measured at this α<" in document
    else:
        assert shown["nonlinear"] == [None] * (T + 2)
    for t, task in enumerate(tasks):  # what the images' models take them for
        scores = arrays[f"{task}/logits0"] + np.tensordot(
            values, arrays[f"{task}/dlogits"].astype(np.float64), 1
        )
        row = document.split(f'data-task-index="{t}"')[1].split('class="task"')[0]
        said = re.findall(r'data-sample="\d" class="(\w+)">([^<]*)<', row)
        assert said == [
            ("right", f"{raw['classes'][task][c]} ✓") if c == label else
            ("wrong", f"{raw['classes'][task][c]} ✗")
            for c, label in zip(
                scores.argmax(-1)[arrays[f"{task}/shown"]],
                arrays[f"{task}/labels"][arrays[f"{task}/shown"]],
                strict=True,
            )
        ]  # fmt: skip
    points = [tuple(map(float, p.split(","))) for p in attribute(document, "data-at")][:2]
    assert points == [
        (values[tasks.index(a)], values[tasks.index(b)])
        for a, b in (m["tasks"] for m in raw["maps"])
    ]


METHODS = ("nonlinear", "posthoc", "linear")

ACTIONS = """
const shown = () => [...document.querySelectorAll("[data-accuracy]")].map(b => b.dataset.accuracy);
const frame = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
const press = (label) => document.querySelector(`button[aria-label^="${label}"]`).click();
const named = (text) => [...document.querySelectorAll("#explorer button")]
  .find(b => b.textContent.startsWith(text)).click();
const slide = (id, value) => {
  const slider = document.getElementById(id);
  slider.value = value;
  slider.dispatchEvent(new Event("input", { bubbles: true }));
};
const hit = (selector, kind, x, y) => {
  const svg = document.querySelector(selector);
  svg.setPointerCapture = () => {};
  const box = svg.querySelector(".field").getBoundingClientRect();
  svg.dispatchEvent(new PointerEvent(kind, { buttons: 1,
    clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
};
const point = (x, y) => hit("[data-map-index] svg", "pointerdown", x, y);
const big = (x, y) => hit(".live-map svg", "click", x, y);
(async () => {
  const seen = [];
  for (const act of [
    () => press("negate fashion"), () => press("only mnist"), () => named("Pre-trained"),
    () => named("α = 1"), () => slide("alpha-all", 0.7), () => slide("alpha-2", -0.35),
    () => point(0.5 + 1 / 4.2, 0.5 + 0.5 / 4.2), () => { location.hash = "#alpha=fashion:1.5"; },
    () => named("Best"), () => document.querySelector('[name="regime"]').click(),
    () => { location.hash = "#claims&alpha=letters:0.5"; },
    () => big(0.5 + 1 / 4.2, 0.5 - 0.6 / 4.2),
  ]) { act(); await frame(); await frame(); seen.push(shown().join(" ")); }
  const map = document.querySelector(".live-map");
  const cells = () => [...map.querySelectorAll("td")].map(cell => cell.textContent).join(" ");
  document.body.dataset.cells = cells();
  map.querySelector(".less").value = "2";
  map.querySelector(".less").dispatchEvent(new Event("change"));
  document.body.dataset.less = map.querySelector("svg .field").getAttribute("href") ===
    map.querySelectorAll("svg .field")[2].getAttribute("href");
  const saved = [];
  Downloads.standalone(document.querySelector(".live-map svg"));
  URL.createObjectURL = (blob) => { saved.push(blob); return "data:,"; };
  map.querySelector("button.csv").click();
  document.body.dataset.csv = await saved[0].text();
  await new Promise(done => setTimeout(done, 400));
  document.body.dataset.seen = seen.join(";");
  document.body.dataset.hash = location.hash;
  document.body.dataset.links =
    [...document.querySelectorAll("nav a")].map(a => a.getAttribute("href")).join(" ");
  document.body.dataset.focused = document.activeElement.id;
})();
"""


def test_every_control_sets_its_coefficients(make_results, make_explorer, tmp_path):
    raw = make_results(3, 1, n_maps=1)
    raw["addition"]["linear"]["alpha"] = [0.45]
    raw["negation"]["linear"]["alpha"] = [[0.5, 0.85, 0.6]]
    arrays = make_explorer(raw, E=64, others=("posthoc",))
    path = page_without_figures(tmp_path / "run", raw, arrays)
    # under virtual time a headless browser paints almost no frames
    frames = "<script>window.requestAnimationFrame = (f) => setTimeout(f, 16);</script>"
    text = path.read_text("utf-8").replace("<body>", f"<body>{frames}")
    text = text.replace("</body>", f"<script>{ACTIONS}</script></body>")
    path.write_text(text, "utf-8")
    document = browse(tmp_path, path)
    got = [list(map(float, s.split())) for s in attribute(document, "data-seen")[0].split(";")]
    states = [
        [0.0, -0.85, 0.0],  # negate fashion, by the α chosen for it
        [1.0, 0.0, 0.0],
        [0.0, 0.0, 0.0],
        [1.0, 1.0, 1.0],
        [0.7, 0.7, 0.7],
        [0.7, 0.7, -0.35],
        [1.0, -0.5, -0.35],  # the map's own two tasks, its second axis upwards
        [0.0, 1.5, 0.0],
        [0.45, 0.45, 0.45],
    ]
    want = [[reference(arrays, task, a) for task in raw["tasks"]] for a in states]
    grid = raw["maps"][0]["alphas"]
    for state in (
        [0.45] * 3,
        [0.0] * 3,
        [grid[15], grid[13], 0.0],
    ):  # another method, an address, a map
        want.append([reference(arrays, task, state, "posthoc") for task in raw["tasks"]])
    assert got == want
    hash_ = "alpha=mnist:1,fashion:0.6"
    assert attribute(document, "data-hash") == [f"#claims&{hash_}"]
    links = attribute(document, "data-links")[0].split()
    assert {"#claims", "#maps", "#summary"} <= {link.removesuffix(f"&{hash_}") for link in links}
    assert all(link.endswith(f"&{hash_}") for link in links)
    assert attribute(document, "data-focused") == ["claims"]
    drawn, at = raw["maps"][0], (15, 13)  # of 21 coefficients from −2 to 2
    parts = [drawn["total"], *({m: [seed[k] for seed in v] for m, v in drawn["per_task"].items()}
                               for k in range(2))]  # fmt: skip
    errors = [f"{part[m][0][at[0]][at[1]]:.3f}" for m in METHODS for part in parts]
    assert attribute(document, "data-cells")[0].split() == errors
    assert attribute(document, "data-less") == ["false"]
    lines = list(csv.DictReader(io.StringIO(attribute(document, "data-csv")[0])))
    assert len(lines) == 21 * 21
    line = lines[21 * at[0] + at[1]]
    assert (float(line["α of mnist"]), float(line["α of fashion"])) == pytest.approx((1, 0.6))
    assert float(line["Linear: fashion"]) == np.float32(
        drawn["per_task"]["linear"][0][1][at[0]][at[1]]
    )


def test_the_cross_hair_lies_where_the_map_is(make_results, make_explorer, tmp_path):
    raw = make_results(3, 1, n_maps=1)
    path = page_without_figures(tmp_path / "run", raw, make_explorer(raw))
    document = browse(tmp_path, path, "#alpha=mnist:-2,fashion:1")
    # 21 cells of 0.2 from -2.1 to 2.1 across 200 units, the second axis upwards
    x, y = re.search(r'class="cross" transform="translate\(([\d.]+) ([\d.]+)\)"', document).groups()
    assert (float(x), float(y)) == pytest.approx((200 * 0.1 / 4.2, 200 - 200 * 3.1 / 4.2))
    error = raw["maps"][0]["total"]["linear"][0][0][15]
    assert re.search(r'class="error">([^<]*)<', document)[1] == f"{error:.2f}"


@pytest.mark.slow
def test_no_page_is_wider_than_its_screen(make_results, make_explorer, whole, tmp_path):
    names = (
        "a-task-with-a-long-name-that-goes-on",
        "traffic_sign_recognition_benchmark",
        *"cdefghi",
    )
    raw = make_results(9, 3, n_maps=4, names=names)
    paths = [
        page_without_figures(tmp_path / "run", raw, make_explorer(raw)),
        whole[0] / "report.html",
    ]
    # a headless window has a least width, a frame has not
    frames = [
        f'<iframe style="width:{width}px;height:800px;border:0" '
        f'srcdoc="{html.escape(path.read_text("utf-8"))}"></iframe>'
        for path in paths
        for width in (360, 390, 768, 1280)
    ]
    host = tmp_path / "frames.html"
    host.write_text(
        "".join(frames) + "<script>onload = () => setTimeout(() => {"
        "for (const f of document.querySelectorAll('iframe')) {"
        "const e = f.contentDocument.documentElement;"
        "f.dataset.widths = e.clientWidth + ' ' + e.scrollWidth; } }, 200);</script>",
        "utf-8",
    )
    widths = [w.split() for w in attribute(browse(tmp_path, host), "data-widths")]
    widths = [(int(inner), int(content)) for inner, content in widths]
    for (inner, content), width in zip(widths, [360, 390, 768, 1280] * 2, strict=True):
        assert width - 20 <= inner <= width  # less a scroll bar
        assert content == inner

"""Result files are read whole, or refused with the key that is wrong."""

import io
import json

import numpy as np
import pytest
from matplotlib import rc_context

from linearize import report
from linearize.report.compare import sweeps
from linearize.report.style import PLAIN


def test_arrays_have_the_files_numbers(make_results):
    raw = make_results(3, 2)
    results = report.parse(raw)
    assert results.tasks == tuple(raw["tasks"])
    np.testing.assert_array_equal(results.single["linear"], raw["single"]["linear"])
    np.testing.assert_array_equal(
        results.addition["posthoc"].sweep_test, raw["addition"]["posthoc"]["sweep_test"]
    )
    np.testing.assert_array_equal(
        results.maps[1].total["linear"], raw["maps"][1]["total"]["linear"]
    )
    assert results.control_tasks == (raw["tasks"][-1],) * 3
    assert results.addition["joint"].alpha is None
    assert results.negation["gradient_ascent"].alpha is None


def test_without_a_test_sweep_the_curves_are_those_of_validation(make_results):
    raw = make_results(2, 2)
    split, curves = sweeps.swept(report.parse(raw))
    assert split == "test"
    for row in raw["addition"].values():
        row.pop("sweep_test", None)
    split, validation = sweeps.swept(report.parse(raw))
    assert split == "validation"
    assert set(validation) == set(curves)
    for method, curve in validation.items():
        np.testing.assert_array_equal(curve, raw["addition"][method]["sweep_validation"])
    caption = sweeps.sweeps(report.parse(raw)).caption
    assert caption.startswith("Mean validation accuracy")
    assert "test examples" not in caption


@pytest.mark.parametrize("drawn", [sweeps.sweeps, sweeps.sweeps_by_task])
@pytest.mark.parametrize("lowest", [0.0, 5.6e-17, 0.05])
def test_validation_curves_without_0_have_no_pretrained_level(make_results, drawn, lowest):
    raw = make_results(2, 2)
    for row in raw["addition"].values():
        row.pop("sweep_test", None)
    raw["alphas"] = np.linspace(lowest, 1, 21).tolist()
    plot = drawn(report.parse(raw))
    with rc_context(PLAIN):
        figure = plot.draw(False)
    dashed = [line for ax in figure.axes for line in ax.lines if line.get_linestyle() == "--"]
    words = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert bool(dashed) == ("Pre-trained" in words) == (lowest < 0.01)
    if drawn is sweeps.sweeps_by_task:
        assert ("Dashed: pre-trained" in plot.caption) == (lowest < 0.01)
    for line in dashed:
        curves = [raw["addition"][m]["sweep_validation"] for m in ("linear", "nonlinear")]
        assert line.get_ydata()[0] > 0
        assert any(np.asarray(c)[:, 0].min() * 100 <= line.get_ydata()[0] for c in curves)


def test_marks_lie_on_the_curves_however_the_grid_runs(make_results):
    raw = make_results(2, 1)
    raw["alphas"].reverse()
    for row in raw["addition"].values():
        for key in ("sweep_test", "sweep_validation"):
            if key in row:
                row[key] = [curve[::-1] for curve in row[key]]
    with rc_context(PLAIN):
        (ax, *_) = sweeps.sweeps(report.parse(raw)).draw(False).axes
    row = raw["addition"]["linear"]
    at = raw["alphas"].index(row["alpha"][0])
    points = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) == 1]
    marks = [(x, y) for ((x, y),) in points]
    assert (row["alpha"][0], pytest.approx(100 * np.mean(row["sweep_test"][0][at]))) in marks


def test_control_tasks_may_differ(make_results):
    raw = make_results(3, 1) | {"control_task": ["b", "c", "a"]}
    assert report.parse(raw).control_tasks == ("b", "c", "a")


def test_tasks_may_hold_a_slash(make_results, make_explorer, write_run, tmp_path):
    raw = make_results(2, 1, names=("eurosat/rgb", "glue/cola"))
    results = report.load(write_run(tmp_path, raw, make_explorer(raw)))
    assert results.classes["eurosat/rgb"] == tuple(raw["classes"]["eurosat/rgb"])
    loaded = report.load_explorer(tmp_path, results)
    assert [t.name for t in loaded] == ["eurosat/rgb", "glue/cola"]


def test_optional_keys_may_be_absent(make_results):
    raw = make_results(2, 1, optional=False, n_maps=0)
    for key in ("seconds", "versions", "config", "classes", "counts", "model", "negation", "maps",
                "control_task", "control_pretrained", "cosine", "claims"):  # fmt: skip
        del raw[key]
    results = report.parse(raw)
    assert results.maps == ()
    assert results.control_tasks is None
    assert results.random_init is None


def edited(raw, path, value):
    """A copy with one key replaced, or removed where the value is ``...``."""
    raw = json.loads(json.dumps(raw))
    *parents, last = path
    node = raw
    for key in parents:
        node = node[key]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 2, "schema is 2, this version reads 1"),
        (["schema"], ..., "'schema' is missing"),
        (["tasks"], ..., "'tasks' is missing"),
        (["tasks"], ["a", "a"], "distinct names"),
        (["tasks"], "mnist", "distinct names"),
        (["tasks"], [], "at least one"),
        (["seeds"], [], "at least one"),
        (["seeds"], ["a"], r"seeds is \['a'\]; expected a list of whole numbers"),
        (["seeds"], [0.5], "whole numbers"),
        (["pretrained"], [[0.5, 0.5]], r"pretrained has shape \(1, 2\); expected \(3, 4\)"),
        (["pretrained"], [[1], [1, 2]], "pretrained is not a regular list of numbers"),
        (["single", "linear"], [[88.0] * 4] * 3, r"single/linear reaches .* \[0, 1\]"),
        (["single", "linear"], [[-0.1] * 4] * 3, r"single/linear reaches from -0.1"),
        (["single", "linear"], [[True] * 4] * 3, "single/linear is not a regular list of numbers"),
        (["single", "linear"], [["0.5"] * 4] * 3, "single/linear is not a regular list of num"),
        (["single"], [1, 2], "single is a list; expected an object"),
        (["addition", "linear", "accuracy"], ..., "'addition/linear/accuracy' is missing"),
        (["addition", "linear", "sweep_test"], [[[0.5]]], "addition/linear/sweep_test has shape"),
        (["negation", "posthoc", "alpha"], [0.1], "negation/posthoc/alpha has shape"),
        (["control_task"], ["a"], "control_task is"),
        (["control_task"], 7, "control_task is 7"),
        (["maps", 0, "tasks"], ["mnist", "x"], "maps/0/tasks"),
        (["maps", 1, "alphas"], [0.0] * 21, "maps/1/alphas must be two or more rising"),
        (["maps", 0, "total", "linear"], [[[1.0]]], "maps/0/total/linear has shape"),
        (["maps", 0, "total", "linear"], [[[9.0] * 21] * 21] * 3, r"total/linear reaches .*2\]"),
        (["maps", 0, "reduction"], "median", "reduction is 'median'; expected 'sum' or 'mean'"),
        (["maps", 0, "search_box"], [1, -1], r"maps/0/search_box is \[1.0, -1.0\]; no coefficient"),
        (["maps"], 3, "maps is 3; expected a list"),
        (["claims", 0, "held"], "yes", "claims/0/held is 'yes'"),
        (["claims", 0], "post-hoc", "claims/0 is a str; expected an object"),
        (["seconds"], "fast", "seconds is 'fast'; expected a number"),
        (["classes", "mnist"], 10, "classes/mnist is 10; expected a list"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named(make_results, path, value, message):
    with pytest.raises(report.ResultsError, match=message):
        report.parse(edited(make_results(4, 3), path, value))


@pytest.mark.parametrize("raw", [None, 3, [], "text"])
def test_not_an_object(raw):
    with pytest.raises(report.ResultsError, match="expected an object"):
        report.parse(raw)


def test_no_file(tmp_path):
    with pytest.raises(report.ResultsError, match=r"no results\.json in"):
        report.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"schema": 1', b"\xff\xfe\x00", b"{} {}"])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(report.ResultsError, match=r"results\.json .*: damaged or unfinished; run"):
        report.load(tmp_path)


def test_the_explorer_may_be_absent(make_results, tmp_path):
    assert report.load_explorer(tmp_path, report.parse(make_results(2, 1))) is None


def broken(arrays, key, change):
    return arrays | {key: change(arrays[key])}


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("mnist/logits0", lambda a: a[:, :-1], "do not fit"),
        ("mnist/dlogits", lambda a: a[:1], "do not fit"),
        ("mnist/dlogits", lambda a: np.where(a > 2, np.nan, a), "NaN or infinity"),
        ("mnist/labels", lambda a: a + 100, "class numbers below"),
        ("mnist/labels", lambda a: a - 1, "class numbers below"),
        ("mnist/labels", lambda a: a[1:], "class numbers below"),
    ],
)
def test_a_wrong_explorer_is_refused(
    make_results, make_explorer, write_run, tmp_path, key, change, message
):
    raw = make_results(2, 1)
    run = write_run(tmp_path, raw, broken(make_explorer(raw), key, change))
    with pytest.raises(report.ResultsError, match=message):
        report.load_explorer(run, report.load(run))


def test_missing_arrays_are_listed(make_results, make_explorer, write_run, tmp_path):
    raw = make_results(2, 1)
    arrays = make_explorer(raw)
    del arrays["fashion/labels"], arrays["fashion/dlogits"]
    run = write_run(tmp_path, raw, arrays)
    with pytest.raises(report.ResultsError, match="lacks fashion/dlogits, fashion/labels"):
        report.load_explorer(run, report.load(run))


def test_a_pickle_is_refused(make_results, make_explorer, write_run, tmp_path):
    raw = make_results(2, 1)
    arrays = make_explorer(raw) | {"mnist/labels": np.array([{}], dtype=object)}
    run = write_run(tmp_path, raw, arrays)
    with pytest.raises(report.ResultsError, match="damaged"):
        report.load_explorer(run, report.load(run))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "text", "npy"])
def test_a_damaged_explorer_is_refused(make_results, make_explorer, write_run, tmp_path, damage):
    raw = make_results(2, 1)
    run = write_run(tmp_path, raw, make_explorer(raw))
    path = run / "explorer.npz"
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0x10
    single = io.BytesIO()
    np.save(single, np.zeros(3))
    whole = {"npy": single.getvalue()} | {
        "truncated": content[:-200],
        "flipped": content,
        "empty": b"",
        "text": b"logits",
    }
    path.write_bytes(bytes(whole[damage]))
    with pytest.raises(report.ResultsError, match=r"explorer\.npz is damaged"):
        report.load_explorer(run, report.load(run))

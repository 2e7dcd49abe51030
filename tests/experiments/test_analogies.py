"""Analogies on their smallest preset: sub-populations, curves and single classes, directly."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import linearize as lz
from configs.analogies import PRESETS as ANALOGIES
from experiments import protocol, report
from experiments.analogies import curve, kings, populations
from experiments.analogies import run as analogies
from experiments.analogies.claims import CLAIMS
from experiments.analogies.results import Results
from experiments.claims import judge
from linearize import cli, io
from linearize.config import ConfigError, HeadConfig, ModelConfig
from linearize.data import Task
from linearize.models.heads import Head, apply_head, join_heads
from linearize.objectives import Classify
from linearize.report import ResultsError, schema
from linearize.report.table import Table
from linearize.study import Store, Study
from linearize.task_vector import TaskVector

pytestmark = pytest.mark.slow

close = np.testing.assert_allclose
DEBUG = ANALOGIES["debug"]()
SOURCE, TARGET = DEBUG.setting.data.tasks
EPOCHS = dataclasses.replace(DEBUG.setting, epochs={SOURCE: 2.0})
A, B, C, D = f"{SOURCE}_0", f"{TARGET}_0", f"{SOURCE}_1", f"{TARGET}_1"


@pytest.fixture(scope="module")
def tasks(finished):
    return protocol.load_tasks(DEBUG.setting)


@pytest.fixture(scope="module")
def study(tasks):
    four = {
        name: populations.of(tasks[style], DEBUG.halves[half])
        for style, half, name in ((SOURCE, 0, A), (TARGET, 0, B), (SOURCE, 1, C), (TARGET, 1, D))
    }
    heads = dict.fromkeys(four, populations.head(DEBUG.setting, 0, tasks[SOURCE]))
    return protocol.study(DEBUG.setting, four, 0, Store(), heads=heads)


def accuracy(study, f, tau, name, split="test"):
    examples, params = study.split(name, split), tau.apply_to(study.model.params)
    logits = apply_head(study.objectives[name].readout, f(params, examples.inputs))
    return (np.asarray(logits).argmax(-1) == examples.labels).mean()


def test_writes_everything(finished, results):
    assert {p.stem for p in (finished / "figures").glob("*.png")} == {"gains", "curve", "kings"}
    assert {p.stem for p in (finished / "tables").glob("*.md")} == {
        "claims", "subpopulations", "by_target", "kings",
    }  # fmt: skip
    assert (finished / "report.html").stat().st_size > 10_000
    assert set(results["subpopulations"]) == {
        f"{t}_{half} from {s}" for s, t in ((SOURCE, TARGET), (TARGET, SOURCE)) for half in (0, 1)
    }


@pytest.mark.parametrize("regime", DEBUG.regimes)
def test_an_analogy_is_c_plus_b_minus_a(finished, results, study, regime):
    folder = finished / "seed_0" / f"{SOURCE}_to_{TARGET}" / regime
    a, b, c, d = (
        TaskVector.load(folder / name / "task_vector.safetensors") for name in (A, B, C, D)
    )
    f = study.model.f
    f = f if regime == "nonlinear" else lz.linearize(f, study.model.params)
    found = results["subpopulations"][f"{TARGET}_1 from {SOURCE}"]["regimes"][regime]
    guess = lz.edit.analogy(a, b, c)
    alpha = found["analogy"]["alpha"][0]
    close(found["analogy"]["accuracy"][0], accuracy(study, f, alpha * guess, D), atol=1e-6)
    close(found["analogy"]["at one"][0], accuracy(study, f, guess, D), atol=1e-6)
    close(found["same style"]["at one"][0], accuracy(study, f, b, D), atol=1e-6)
    close(found["target"]["accuracy"][0], accuracy(study, f, d, D), atol=1e-6)
    close(found["pretrained"]["accuracy"][0], accuracy(study, f, 0.0 * a, D), atol=1e-6)
    grid = DEBUG.setting.edit.alphas
    scores = [accuracy(study, f, s * guess, D, "validation") for s in grid]
    assert scores[list(grid).index(alpha)] == max(scores)

    two = found["analogy of two"]
    alpha, beta = two["alpha"][0], two["beta"][0]
    close(two["accuracy"][0], accuracy(study, f, alpha * c + beta * (b - a), D), atol=1e-6)
    close(two["at one"][0], found["analogy"]["at one"][0], atol=1e-6)
    scores = {
        (s, t): accuracy(study, f, s * c + t * (b - a), D, "validation")
        for s in (0.0, 0.5, 1.0)
        for t in (0.0, 0.5, 1.0)
    }
    assert scores[alpha, beta] == max(scores.values())
    least = min(p for p in scores if scores[p] == max(scores.values()))
    assert np.hypot(alpha, beta) <= np.hypot(*least)


def test_results_without_two_coefficients_are_read_and_shown(finished, results, tmp_path):
    """Those of runs that had one."""
    values = json.loads((finished / "results.json").read_text())
    for target in values["subpopulations"].values():
        for regime in target["regimes"].values():
            del regime["analogy of two"]
    values["methods"].remove("analogy of two")
    io.write_json(tmp_path / "results.json", values)
    page = report.read_page(tmp_path)
    parts = [part for section in page.sections for part in section.parts]
    (table,) = [t for t in parts if isinstance(t, Table) and t.name == "subpopulations"]
    assert "β" not in table.columns
    found = schema.read(Results, results | {"methods": values["methods"]} | {
        "subpopulations": values["subpopulations"]})  # fmt: skip
    assert not [v for v in judge(found, CLAIMS) if "Two coefficients" in v.text]


def test_single_classes_alone(results, tmp_path):
    config = dataclasses.replace(DEBUG, halves=((), ()))
    assert analogies.parts(config) == len(analogies.directions(config)) + 1 == 1
    io.write_json(tmp_path / "results.json", results | {"subpopulations": {}})
    keys = [section.key for section in report.read_page(tmp_path).sections if section.parts]
    assert "kings" in keys
    assert "subpopulations" not in keys
    texts = [v.text for v in judge(schema.read(Results, results | {"subpopulations": {}}), CLAIMS)]
    assert len(texts) == 2
    assert all(text.startswith("A class never trained on") for text in texts)


def test_curves_start_where_their_models_are(results):
    for row in results["subpopulations"].values():
        found = row["regimes"]["nonlinear"]
        close(row["curve"]["pretrained"][0][0], found["pretrained"]["accuracy"][0], atol=1e-6)
        close(row["curve"]["edited"][0][0], found["analogy"]["accuracy"][0], atol=1e-6)
        assert np.shape(row["curve"]["edited"]) == (2, 1 + len(DEBUG.examples))


def test_a_curve_learns_from_where_it_starts(finished, study):
    f, params0, head = study.model.f, study.model.params, protocol.head(study.objectives[D])
    vectors = finished / "seed_0" / f"{SOURCE}_to_{TARGET}" / "nonlinear"
    start = TaskVector.load(vectors / B / "task_vector.safetensors").apply_to(params0)
    found = curve.learned(DEBUG, study, D, start, 10, "edited")
    tau = lz.train.fine_tune(
        f,
        start,
        study.split(D, "train").take(slice(10)).arrays(),
        regime="nonlinear",
        readout=jax.tree_util.Partial(apply_head, head),
        config=DEBUG.curve,
    ).tau
    there = study.but(model=lz.Model(f, start))
    close(found, accuracy(there, f, tau, D), atol=1e-6)
    assert found != curve.learned(DEBUG, study, D, params0, 10, "pretrained")


def test_a_curve_of_more_examples_than_there_are_is_refused_before_anything_is_trained(tasks):
    config = dataclasses.replace(DEBUG, examples=(10, 5000))
    with pytest.raises(ConfigError, match=r"examples=\(10, 5000\): toy_a_0 has \d+ to train on"):
        analogies.between(config, tasks, (SOURCE, TARGET), 0, Store())


def test_populations_hold_their_classes_and_no_others(tasks, study):
    for name, half in ((A, 0), (D, 1)):
        for split in populations.SPLITS:
            found = study.split(name, split)
            assert set(found.labels) == set(DEBUG.halves[half])
    whole, part = tasks[TARGET].test, study.split(D, "test")
    rows = np.isin(whole.labels, DEBUG.halves[1])
    np.testing.assert_array_equal(part.inputs, whole.inputs[rows])
    with pytest.raises(ConfigError, match=r"classes \[9\] of toy_a: it has the classes 0 to 3"):
        populations.of(tasks[SOURCE], [0, 9])


def test_joined_styles_keep_their_images_and_shift_their_labels(tasks):
    whole = populations.joined((tasks[SOURCE], tasks[TARGET]))
    n = len(tasks[SOURCE].test)
    assert len(whole.classes) == 8
    np.testing.assert_array_equal(whole.test.labels[n:], tasks[TARGET].test.labels + 4)
    np.testing.assert_array_equal(whole.test.inputs[:n], tasks[SOURCE].test.inputs)


def test_text_heads_of_two_styles_stand_side_by_side(tasks, monkeypatch):
    """Each of its own task's sentences: the joined task has a name that no templates know."""
    styles = (tasks[SOURCE], tasks[TARGET])
    made = {
        task.name: Head(jnp.zeros(5), jnp.full((5, 4), i), None, jnp.asarray(100.0), True)
        for i, task in enumerate(styles)
    }
    monkeypatch.setattr(protocol, "make_head", lambda c, m, task, s: made[task.name])
    monkeypatch.setattr(protocol, "backbone", lambda c, s: lz.Model(lambda p, x: x, {}))
    model = ModelConfig(name="clip", weights="folder")
    config = dataclasses.replace(DEBUG.setting, model=model, head=HeadConfig(kind="text"))
    whole = populations.joined(styles)
    head = populations.head(config, 0, whole, parts=styles)
    np.testing.assert_array_equal(head.kernel[0], [0.0] * 4 + [1.0] * 4)


def test_heads_that_read_features_differently_do_not_join():
    head = Head(jnp.zeros(5), jnp.ones((5, 2)), None, jnp.asarray(100.0), True)
    for other in ({"bias": jnp.zeros(2)}, {"normalize": False}, {"center": jnp.ones(5)}):
        with pytest.raises(ValueError, match="heads: expected one center, scale and normal"):
            join_heads([head, dataclasses.replace(head, **other)])


def test_an_edit_for_a_class_keeps_the_others(results):
    """On validation data it must; the curve of what it may cost is its own test."""
    grid = DEBUG.setting.edit.alphas

    class Line(Study):
        """Accuracy on the class rises with α, that on the others falls."""

        def measure(self, view, points, task, split):
            alpha = np.atleast_1d(points.get("queen", 0.0))
            return alpha if task == "king" else 0.8 - 0.1 * alpha

    x = np.eye(2)
    task = Task("both", *[(x, np.array([0, 1]))] * 3, classes=("no", "yes"))
    study = Line(lz.Model(lambda p, x: x, {}), {"king": task}, {"king": Classify()})
    found = kings.scaled(study, None, {"queen": 1}, grid, retained=0.95)
    assert found["alpha"] == max(a for a in grid if 0.8 - 0.1 * a >= 0.95 * 0.8)
    close(found["target"], found["alpha"])
    assert kings.scaled(study, None, {}, grid, retained=0.95)["alpha"] == 0
    row = next(iter(results["kings"].values()))["nonlinear"]
    assert set(row) == set(kings.WEIGHTS)


def test_claims_are_decided_by_paired_differences_over_seeds(finished, results):
    targets = [t["regimes"]["linear"] for t in results["subpopulations"].values()]
    gains = np.mean(
        [np.subtract(t["analogy"]["accuracy"], t["same classes"]["accuracy"]) for t in targets], 0
    )
    low, high = stats.t.interval(0.95, len(gains) - 1, np.mean(gains), stats.sem(gains))
    claims = {row["claim"]: row for row in results["claims"]}
    claim = next(c for text, c in claims.items() if "alone" in text and text.endswith(" linear"))
    assert claim["evidence"].endswith(f": {np.mean(gains):+.3f} [{low:+.3f}, {high:+.3f}]")
    assert claim["held"] is (True if low > 0 else False if high < 0 else None)
    assert len(claims) == 11
    found = schema.read(Results, results | {"kings": {}, "regimes": ["linear"]})
    texts = [verdict.text for verdict in judge(found, CLAIMS)]
    assert texts == [text for text in claims if "never trained on" not in text]


def test_vectors_that_disentangle_make_the_analogy_exact():
    """Where f is linear and vectors are class plus style, C + B − A is D."""
    rng = np.random.default_rng(0)
    kind, style = rng.normal(size=(2, 2, 3, 4))
    tau = {
        (k, s): TaskVector({"w": jnp.asarray(kind[k] + style[s])}) for k in (0, 1) for s in (0, 1)
    }
    guess = lz.edit.analogy(tau[0, 0], tau[0, 1], tau[1, 0])
    close(guess.delta["w"], tau[1, 1].delta["w"], atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"halves": ((0, 1), (1, 2))}, "none in common"),
        ({"halves": ((), (1, 2))}, "none in common"),
        ({"halves": ((), ()), "quadruples": ()}, "give some, or quadruples"),
        ({"examples": (20, 10)}, "ascending"),
        ({"quadruples": ((2, 2),)}, "two different classes"),
        ({"regimes": ("posthoc",)}, "regimes"),
        ({"retained": 1.5}, "retained=1.5"),
        ({"of_two": 1}, "of_two=1: give 0, or 2 points"),
        ({"setting": EPOCHS}, r"setting\.epochs=.* parts of the styles"),
        ({"single_steps": 0}, "single_steps=0"),
        ({"single_steps": 0, "quadruples": ()}, "single_steps=0"),
        ({"single_steps": 2}, "single_steps=2: must be more than the 2 of warm-up"),
    ],
)
def test_a_configuration_that_cannot_be_run_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(DEBUG, **change)


def test_classes_that_the_styles_have_not_are_refused_before_anything_is_trained():
    tasks = protocol.load_tasks(DEBUG.setting)
    with pytest.raises(ConfigError, match=r"quadruples=\(1, 9\): the styles have the classes 0 to"):
        analogies.check_classes(dataclasses.replace(DEBUG, quadruples=((1, 3), (1, 9))), tasks)
    more = (*tasks["toy_b"].classes, "one more")
    other = dataclasses.replace(tasks["toy_b"], classes=more, every_class=False)
    said = rf"same classes, and these have toy_a {len(more) - 1}, toy_b {len(more)};"
    with pytest.raises(ConfigError, match=said):
        analogies.check_classes(DEBUG, {**tasks, "toy_b": other})
    analogies.check_classes(DEBUG, tasks)


def test_overrides_reach_the_configuration():
    words = ["debug", "--setting.nonlinear.steps", "7", "--single-steps", "3"]
    found = cli.parse("analogies", ANALOGIES, words).config
    assert (found.setting.nonlinear.steps, found.single_steps) == (7, 3)


def test_a_damaged_result_is_named(finished, tmp_path):
    values = json.loads((finished / "results.json").read_text())
    target = next(iter(values["subpopulations"].values()))
    del target["regimes"]["linear"]["analogy"]["alpha"]
    io.write_json(tmp_path / "results.json", values)
    with pytest.raises(ResultsError, match="linear/analogy/alpha"):
        report.read_page(tmp_path)

"""The main job on its smallest preset: what it writes, what it reuses, what it refuses."""

import dataclasses
import json
import re
from io import BytesIO

import numpy as np
import pytest

from configs.compare import PRESETS as COMPARE
from experiments import claims, protocol
from experiments.compare import run as compare_run
from experiments.compare.claims import CLAIMS, redrawn
from experiments.width.scaling import ScalingLaw
from linearize import cli, config, explored, io, report
from linearize.data import Task
from linearize.examples import Examples
from linearize.models.heads import Head
from linearize.objectives import Classify
from linearize.report import schema
from linearize.report.claims import table
from linearize.report.compare.results import Results
from linearize.study import Method, Store, Study
from linearize.task_vector import TaskVector
from linearize.train import TrainConfig


@pytest.fixture(scope="module")
def finished(debug_run):
    run_dir = debug_run("compare")
    return run_dir, run_dir / "report.html"


def test_every_part_has_its_shape(finished):
    run_dir, _ = finished
    results = json.loads((run_dir / "results.json").read_text())
    config_ = COMPARE["debug"]()
    S, T = len(config_.seeds), len(config_.data.tasks)
    for regime in ("nonlinear", "posthoc", "linear"):
        assert np.shape(results["single"][regime]) == (S, T)
        assert np.shape(results["addition"][regime]["accuracy"]) == (S, T)
        assert np.shape(results["addition"][regime]["sweep_test"]) == (S, config_.edit.points, T)
        assert np.shape(results["negation"][regime]["alpha"]) == (S, T)
        side = config_.map.points
        assert np.shape(results["maps"][0]["per_task"][regime]) == (S, 2, side, side)
    assert {"random", "joint"} <= set(results["addition"])
    assert {"random", "gradient_ascent"} <= set(results["negation"])


def test_the_explorer_holds_evenly_spaced_examples():
    """2 classes, 2 task vectors, 1,201 examples whose logits say which they are."""
    rows = np.arange(1201, dtype=np.float32)
    examples = Examples(rows[:, None], {"labels": np.arange(1201) % 2})
    task = Task("task", train=examples, validation=examples, test=examples)
    w = np.array([1.0, -1.0], np.float32)
    model = (lambda params, x: x * params["w"][None], {"w": w})
    tau = TaskVector({"w": np.array([1.0, 2.0], np.float32)})
    known = Method("known", "Known", "tangent", lambda study, task: tau)
    study = Study(model, dict.fromkeys("ab", task), dict.fromkeys("ab", Classify(lambda y: y)))
    assert explored.explored(study, [known]) is None  # not known to be affine
    study = Study(model, dict.fromkeys("ab", task), dict.fromkeys("ab", Classify(unit_head(2))))
    found = np.load(BytesIO(explored.explored(study, [known])))
    shown = found["a/logits0"][:, 0]
    assert len(shown) == explored.EXAMPLES
    assert {shown[0], shown[-1]} == {0, 1200}
    assert set(np.diff(shown)) == {2, 3}
    assert found["a/dlogits"].shape == (2, 500, 2)
    np.testing.assert_array_equal(found["a/dlogits"][1][:, 1], 2 * shown)
    np.testing.assert_array_equal(found["a/labels"], shown.astype(int) % 2)


def unit_head(width):
    """Outputs as logits, by a head."""
    return Head(np.zeros(width), np.eye(width, dtype=np.float32), None, np.float32(1), False)


def test_alpha_zero_is_the_pretrained_model_and_the_choice_is_the_validation_best(finished):
    run_dir, _ = finished
    results = json.loads((run_dir / "results.json").read_text())
    for row in results["addition"].values():
        if row["alpha"] is None:
            continue
        at_zero = np.asarray(row["sweep_test"])[:, 0]
        np.testing.assert_array_equal(at_zero, results["pretrained"])
        for seed, alpha in enumerate(row["alpha"]):
            index = results["alphas"].index(alpha)
            np.testing.assert_array_equal(row["accuracy"][seed], row["sweep_test"][seed][index])


def test_normalized_accuracy_divides_by_the_same_regime(finished):
    run_dir, _ = finished
    results = json.loads((run_dir / "results.json").read_text())
    for regime in ("nonlinear", "posthoc", "linear"):
        row = results["addition"][regime]
        expected = np.divide(row["accuracy"], results["single"][regime])
        np.testing.assert_allclose(row["normalized"], expected, rtol=1e-12)


def test_posthoc_map_is_zero_on_its_own_axis(finished):
    run_dir, _ = finished
    entry = json.loads((run_dir / "results.json").read_text())["maps"][0]
    middle = entry["alphas"].index(0.0)
    for regime in ("nonlinear", "posthoc", "linear"):
        per_task = np.asarray(entry["per_task"][regime])
        assert (per_task[:, 0, :, middle] == 0).all()
        assert (per_task[:, 1, middle, :] == 0).all()


def test_vectors_of_the_regimes_share_a_base(finished):
    run_dir, _ = finished
    paths = [
        run_dir / "seed_0" / regime / COMPARE["debug"]().data.tasks[0] / "task_vector.safetensors"
        for regime in ("nonlinear", "linear")
    ]
    nonlinear, linear = (TaskVector.load(path) for path in paths)
    assert (nonlinear.meta["regime"], linear.meta["regime"]) == ("nonlinear", "linear")
    assert float((nonlinear - linear).norm()) > 0


def test_a_directory_from_before_an_option_existed_goes_on(tmp_path):
    preset = COMPARE["debug"]()
    old = config.to_dict(preset)
    del old["exact"], old["head"]["normalize"]
    del old["methods"], old["training"], old["weights"], old["merges"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    cli.claim(tmp_path, preset)
    assert config.load_config(type(preset), tmp_path / "config.json") == preset
    changed = dataclasses.replace(preset, exact=config.ExactConfig(l2=0.5))
    with pytest.raises(config.ConfigError, match="exact: None -> "):
        cli.claim(tmp_path, changed)
    (tmp_path / "config.json").write_text(json.dumps({"another": "experiment"}))
    with pytest.raises(config.ConfigError, match="another: 'experiment' -> None"):
        cli.claim(tmp_path, preset)


def test_a_configuration_names_methods_their_recipes_and_weights():
    preset = COMPARE["debug"]()
    names = ("nonlinear", "posthoc", "linear", "gradient_ascent", "joint")
    assert tuple(method.name for method in protocol.plan(preset).methods) == names
    more = {"methods": ("tau_jp", "ortho_reg_posthoc", "ortho_reg"), "weights": {"ortho_reg": 2.0}}
    told = dataclasses.replace(
        preset, **more, training={"tau_jp": preset.nonlinear}, merges=("tsv_m",)
    )
    assert config.from_dict(type(told), config.to_dict(told)) == told
    methods = {method.name: method for method in protocol.plan(told).methods}
    assert tuple(methods) == (*names[:3], *more["methods"], *names[3:])
    for method in (methods["ortho_reg"], methods["ortho_reg_posthoc"].of):
        assert method.train.keywords["weight"] == 2.0
    assert told.recipes["tau_jp"] == preset.nonlinear
    merged = [row.method.name for row in protocol.plan(told).rows if row.merge.name == "tsv_m"]
    assert merged == [*names[:3], *more["methods"]]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"methods": ("tau_pj",)}, r"methods='tau_pj': expected one of .*; did you mean 'tau_jp'"),
        ({"methods": ("linear",)}, "methods='linear': expected one of"),
        ({"methods": ("tau_jp", "tau_jp")}, "name each of the methods once"),
        ({"map": config.MapConfig()}, r"random_init=True: .* name map\.pairs too"),
        ({"merges": ("tsv",)}, r"merges='tsv': expected one of .*; did you mean 'tsv_m'"),
        ({"weights": {"tau_jp": 0.3}}, "weights='tau_jp': methods names none that"),
        ({"methods": ("tau_jp",), "weights": {"tau_jp": -1.0}}, r"-1\.0; expected 0 or more"),
        ({"training": {"tau_jp": TrainConfig()}}, "training='tau_jp': expected one of"),
        (
            {"methods": ("ortho_reg_posthoc",), "weights": {"ortho_reg_posthoc": 1.0}},
            "weights='ortho_reg_posthoc': methods names none that",
        ),
        (
            {"methods": ("attention_only",), "weights": {"attention_only": 1.0}},
            "weights='attention_only': methods names none that",
        ),
    ],
)
def test_what_a_configuration_names_wrongly_is_said(changed, message):
    with pytest.raises(config.ConfigError, match=message):
        dataclasses.replace(COMPARE["debug"](), **changed)


def test_claims_are_decided_by_intervals_alone():
    def verdict(linear: list[float]):
        flat = [[0.5, 0.5]] * len(linear)
        low = {"accuracy": flat, "normalized": flat}
        added = {"accuracy": [[v, v] for v in linear], "normalized": flat}
        rows = {"nonlinear": low, "posthoc": low, "linear": added}
        found = schema.read(
            Results,
            {
                "preset": "mine",
                "seeds": list(range(len(linear))),
                "tasks": ["a", "b"],
                "pretrained": flat,
                "addition": rows,
            },
        )
        verdicts = claims.judge(found, CLAIMS)
        assert len(verdicts) == 5  # what was not measured is not claimed
        return next(v.held for v in verdicts if "improves on the pre-trained" in v.text)

    assert verdict([0.7, 0.71, 0.72]) is True
    assert verdict([0.3, 0.31, 0.32]) is False
    assert verdict([0.3, 0.5, 0.75]) is None
    assert verdict([0.7]) is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.2], "+0.200 no interval: one seed"),
        ([np.nan], "+nan no interval: one seed"),
        ([np.nan, 0.1, 0.2], "+nan no interval: 1 of 3 seeds without a value"),
        ([np.nan, 0.1, np.nan], "+nan no interval: 2 of 3 seeds without a value"),
        ([0.1, 0.1], "+0.100 [+0.100, +0.100]"),
    ],
)
def test_evidence_says_why_there_is_no_interval(values, said):
    (verdict,) = claims.judge(None, [claims.Claim("t", lambda _: np.array(values), "e")])
    assert verdict.evidence == f"e: {said}"
    assert (verdict.held is None) == ("no interval" in said)
    law = ScalingLaw("t", "drift", "equals", 0.1)
    assert law.verdict(np.array(values)).evidence.startswith(f"slope {said}; ")


def test_means_that_tie_but_for_rounding_decide_nothing():
    tie = [np.mean([0.1, 0.2]) - np.mean([0.15, 0.15])] * 3
    assert tie[0] != 0
    (verdict,) = claims.judge(None, [claims.Claim("t", lambda _: np.array(tie), "e")])
    assert verdict.held is None


def test_one_seed_is_decided_by_its_test_examples():
    """Against the binomial interval of a difference of proportions, in closed form."""
    values = {"pretrained": [0.5, 0.6], "linear": [0.62, 0.66], "nonlinear": [0.6, 0.7]}
    single = {m: [[0.9, 0.8]] for m in ("linear", "nonlinear", "posthoc")}
    rows = {
        m: {"accuracy": [values[m]], "normalized": [[0.7, 0.7]]} for m in ("linear", "nonlinear")
    }
    raw = {
        "preset": "mine",
        "seeds": [0],
        "tasks": ["a", "b"],
        "single": single,
        "pretrained": [values["pretrained"]],
        "addition": rows,
        "counts": {t: {"test": 400} for t in "ab"},
        "cosine": {"linear": [[[1.0, 0.05], [0.05, 1.0]]]},
    }
    found = schema.read(Results, raw)
    verdicts = {v.text: v for v in claims.judge(found, CLAIMS, redrawn)}
    improved = next(v for text, v in verdicts.items() if "improves on the pre-trained" in text)
    p = np.array([values["linear"], values["pretrained"]])
    half = 1.96 * np.sqrt((p * (1 - p) / 400).sum()) / 2
    low, high = map(float, re.findall(r"\[(.*), (.*)\]", improved.evidence)[0])
    assert (low, high) == pytest.approx((0.09 - half, 0.09 + half), abs=0.003)
    assert (improved.held, improved.scope) == (True, "in this seed")
    lower = next(v for text, v in verdicts.items() if "lowers single-task" in text)
    assert lower.held is None  # equal
    orthogonal = next(v for text, v in verdicts.items() if "orthogonal, linear" in text)
    assert orthogonal.held is None
    assert "no interval: one seed" in orthogonal.evidence
    few = {**raw, "counts": {t: {"test": 20} for t in "ab"}}
    again = claims.judge(schema.read(Results, few), CLAIMS, redrawn)
    assert next(v.held for v in again if v.text == improved.text) is None
    three = claims.judge(found, CLAIMS)
    assert all(v.held is None and not v.scope for v in three)
    said = [table(each).caption for each in (tuple(verdicts.values()), three)]
    assert ["binomial interval" in caption for caption in said] == [True, False]


def one_seed_s_maps(share, n, pairs=(("a", "b"),), **more):
    """Of one seed: each method's mean part of a task in the box, everywhere in it; more outside."""
    alphas = [-2.0, -1.0, 0.0, 1.0, 2.0]
    inside = np.abs(alphas) <= 1
    box = np.ix_(inside, inside)

    def parts(m):
        found = np.full((1, 2, 5, 5), 0.9)
        for k in range(2):
            found[0, k][box] = share[m]
        return found

    per_task = {m: parts(m) for m in share}
    told = {
        "alphas": alphas, "per_task": per_task, "total": {m: p.sum(1) for m, p in per_task.items()},
        "n_eval": n, "examples": [n, n], "search_box": [-1, 1], "distance": "argmax disagreement",
        "farthest": 1.0, **more,
    }  # fmt: skip
    raw = {
        "preset": "mine", "seeds": [0], "tasks": ["a", "b", "c"], "pretrained": [[0.5] * 3],
        "maps": [{**told, "tasks": list(pair)} for pair in pairs],
    }  # fmt: skip
    return schema.read(Results, io.to_json(raw))


XI = "more disentangled"


def xi_verdict(found):
    return next(v for v in claims.judge(found, CLAIMS, redrawn) if XI in v.text)


def test_one_seed_s_error_maps_are_decided_by_the_examples_that_they_look_at():
    """A mean over the box of n examples varies as n draws at most: the binomial interval."""
    share = {"nonlinear": 0.3, "posthoc": 0.9, "linear": 0.1}
    found = xi_verdict(one_seed_s_maps(share, 400))
    variance = sum(2 * share[m] * (1 - share[m]) / 400 for m in ("nonlinear", "linear"))
    low, high = map(float, re.findall(r"\[(.*), (.*)\]", found.evidence)[0])
    half = 1.96 * np.sqrt(variance)
    assert (low, high) == pytest.approx((0.4 - half, 0.4 + half), abs=0.003)
    assert (found.held, found.scope) == (True, "in this seed")
    assert "+0.400" in found.evidence
    assert xi_verdict(one_seed_s_maps({**share, "linear": 0.25}, 32)).held is None


def test_maps_that_share_a_task_vary_together():
    """Of (a, b) and (a, c) the part on a is one draw, not two."""
    share = {"nonlinear": 0.3, "posthoc": 0.9, "linear": 0.1}
    found = redrawn(one_seed_s_maps(share, 100, (("a", "b"), ("a", "c"))))
    drawn = np.mean([pair.boxed("linear").mean((1, 2)) for pair in found.maps], axis=0)
    one = 0.1 * 0.9 / 101  # of Beta(10.5, 90.5) this is 1 % less
    assert drawn.var() == pytest.approx((1 + 1 / 4 + 1 / 4) * one, rel=0.05)
    assert drawn.mean() == pytest.approx(0.2, abs=0.012)


@pytest.mark.parametrize(
    "more",
    [
        {"distance": "total variation"},
        {"examples": None, "n_eval": None},
        {"per_task": {}},
    ],
)
def test_maps_without_what_an_interval_takes_say_that_there_is_none(more):
    found = xi_verdict(
        one_seed_s_maps({"nonlinear": 0.3, "posthoc": 0.9, "linear": 0.1}, 400, **more)
    )
    assert found.held is None
    assert "no interval: one seed" in found.evidence


def test_examples_that_tell_something_are_shown():
    """Ten examples of two classes: 0 to 2 wrong at θ0 and set right by the task's own vector."""
    labels = np.zeros(10, int)
    scores = np.array([[-1.0, 0]] * 3 + [[1.0, 0]] * 7)
    along = np.zeros((2, 10, 2))
    along[0, :3, 0] = 3.0
    along[1, 7, 0] = -5.0  # lost by the sum
    shown = explored.telling(scores, along, labels, 0)
    assert {0, 1, 2, 7} <= set(shown.tolist())
    assert len(set(shown.tolist())) == explored.IMAGES
    assert len(explored.telling(scores[:4], along[:, :4], labels[:4], 0)) == 4


def test_images_are_small_and_what_is_none_has_none():
    pixels = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3)).astype(np.uint8)
    shown = explored.thumbnails(Examples(pixels, {"labels": [0] * 4}), np.array([1, 3]))
    assert shown.shape == (2, 42, 56, 3)
    for other in (pixels[..., 0], pixels.astype(np.float32), pixels.astype(np.int32)):
        assert explored.thumbnails(Examples(other, {}), np.array([0])) is None


ROWS = {"τJp": "tau_jp", "TAK": "tak", "TIES": "ties", "TSV-M": "tsv_m", "Iso-C": "iso_c"}


class TestCommandLine:
    @pytest.mark.parametrize("name", COMPARE)
    def test_what_a_preset_expects_is_of_the_options_that_it_names(self, name):
        """Its commands, with the options beside them, run every method and merge that is told."""
        said = cli.notebook(COMPARE[name])
        options = re.findall("``(--[^`]*)``", said)
        (words,) = re.findall(rf"python -m experiments.compare ({name}\b.*)", said)
        command = cli.parse("compare", COMPARE, " ".join([words, *options]).split())
        rows = [*command.config.methods, *command.config.merges]
        for label, row in ROWS.items():
            told = label in said.replace("TAK's paper", "")
            assert any(each.startswith(row) for each in rows) >= told, label
        assert protocol.plan(command.config).rows or not command.config.merges

    def test_options_of_the_exact_regime_are_overridden_where_it_is_configured(self):
        command = cli.parse("compare", COMPARE, ["exact", "--exact.l2", "0.5"])
        assert command.config.exact.l2 == 0.5

    @pytest.mark.parametrize(
        ("words", "hint"),
        [
            (["dmeo"], "did you mean 'demo'"),
            (["debug", "--linear.optim.lrr", "1"], "lr"),
            (["debug", "--edit.points", "1"], "edit.points=1; expected 2 or more"),
            (["debug", "--linear.optim.name", "adamv"], "adamw"),
            (["missing.json"], "missing.json"),
        ],
    )
    def test_mistakes_are_answered_with_a_remedy(self, words, hint, capsys):
        with pytest.raises(SystemExit) as stop:
            cli.parse("compare", COMPARE, words)
        assert stop.value.code == 2
        printed = capsys.readouterr()
        assert hint in printed.err + printed.out

    def test_unknown_option_in_a_file_is_named(self):
        with pytest.raises(config.ConfigError, match=r"model\.blokcs.*did you mean 'blocks'"):
            config.from_dict(type(COMPARE["debug"]()), {"model": {"blokcs": 3}})


@pytest.mark.slow
def test_the_report_can_be_made_again_from_its_files(finished):
    run_dir, page = finished
    before = page.read_text()
    assert report.write_all(run_dir).read_text() == before


def test_random_weights_train_the_tasks_of_the_maps_alone(tmp_path, monkeypatch):
    """A third task, which no pair names, is neither planned nor trained nor measured."""
    told = COMPARE["debug"]()
    told = dataclasses.replace(
        told,
        data=dataclasses.replace(told.data, tasks=("toy_a", "toy_b", "toy_c")),
        epochs={"toy_a": 1.0, "toy_c": 2.0},
        seeds=(0,),
    )
    assert compare_run.at_random(told).epochs == {"toy_a": 1.0}
    planned = [each.folder for each in compare_run.fine_tunings(told, tmp_path)]
    third = [path.relative_to(tmp_path).parts[0] for path in planned if path.name == "toy_c"]
    assert third
    assert set(third) == {"seed_0"}

    def measured(config, tasks, seed, store):
        pretrained = [float(i) for i in range(len([t for t in tasks if t != told.data.control]))]
        return {"pretrained": pretrained, "maps": []}

    monkeypatch.setattr(compare_run, "measure_maps", measured)
    monkeypatch.setattr(compare_run.comparison, "maps_of", lambda *args: [])
    tasks = dict.fromkeys((*told.data.tasks, told.data.control))
    found = compare_run.run_random(told, tasks, Store.of(None))
    assert found["tasks"] == ["toy_a", "toy_b"]
    assert np.shape(found["pretrained"]) == (1, 2)

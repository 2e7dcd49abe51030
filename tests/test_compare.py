"""The main job on its smallest preset: what it writes, what it reuses, what it refuses."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from configs import COMPARE
from experiments import claims, compare, protocol
from linearize import assets, cli, config, report
from linearize.task_vector import TaskVector


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "debug"
    try:
        page = compare.run(COMPARE["debug"](), run_dir, "debug")
    except assets.RegistryError as error:
        pytest.skip(f"the packages that hold the tasks are out of reach: {error}")
    return run_dir, page


def test_writes_everything(finished):
    run_dir, page = finished
    assert page == run_dir / "report.html"
    assert page.stat().st_size > 10_000
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
    assert results["versions"]["jax"]
    assert json.loads((run_dir / "config.json").read_text()) == config.to_dict(config_)
    for kind in ("png", "svg"):
        assert list((run_dir / "figures").glob(f"*.{kind}"))


def test_the_explorer_holds_evenly_spaced_examples(tmp_path):
    """2 classes, 2 task vectors, 1,201 examples whose logits say which they are."""
    rows = np.arange(1201, dtype=np.float32)
    logits = np.stack([rows, -rows], axis=1)
    scores = SimpleNamespace(f0=logits, jvps=np.stack([logits, logits]))
    evaluator = SimpleNamespace(
        setting=SimpleNamespace(
            names=("a",),
            heads={"a": None},
            split=lambda task, split: SimpleNamespace(labels=np.arange(1201) % 2),
        ),
        terms=lambda task, split: SimpleNamespace(scores=lambda head: scores),
    )
    protocol.write_explorer(evaluator, tmp_path / "explorer.npz")
    found = np.load(tmp_path / "explorer.npz")
    shown = found["a/logits0"][:, 0]
    assert len(shown) == protocol.EXPLORED
    assert {shown[0], shown[-1]} == {0, 1200}
    assert set(np.diff(shown)) == {2, 3}
    assert found["a/dlogits"].shape == (2, 500, 2)
    np.testing.assert_array_equal(found["a/labels"], shown.astype(int) % 2)


def test_alpha_zero_is_the_pretrained_model_and_the_choice_is_the_validation_best(finished):
    run_dir, _ = finished
    results = json.loads((run_dir / "results.json").read_text())
    for row in results["addition"].values():
        if "alpha" not in row:
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
        run_dir / "seed_0" / regime / "mnist" / "task_vector.safetensors"
        for regime in ("nonlinear", "linear")
    ]
    nonlinear, linear = (TaskVector.load(path) for path in paths)
    assert (nonlinear.meta["regime"], linear.meta["regime"]) == ("nonlinear", "linear")
    assert float((nonlinear - linear).norm()) > 0


def test_a_finished_run_is_not_repeated(finished, monkeypatch):
    run_dir, _ = finished
    before = (run_dir / "results.json").read_text()
    monkeypatch.setattr("linearize.train.fine_tune", None)
    compare.run(COMPARE["debug"](), run_dir, "debug")
    assert (run_dir / "results.json").read_text() == before


def test_a_run_that_was_killed_goes_on_from_its_last_part(finished, tmp_path, monkeypatch):
    whole, _ = finished
    run_dir = tmp_path / "debug"
    shutil.copytree(whole, run_dir)
    for lost in ("results.json", "seed_1/record.json", "seed_1/parts/addition_linear.json"):
        (run_dir / lost).unlink()
    lost_part = json.loads((whole / "seed_1/parts/addition_linear.json").read_text())

    def repeated(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(compare, "negation", repeated)
    monkeypatch.setattr(compare, "error_maps", repeated)
    monkeypatch.setattr(compare, "BASELINES", dict.fromkeys(compare.BASELINES, repeated))
    compare.run(COMPARE["debug"](), run_dir, "debug")
    assert json.loads((run_dir / "seed_1/parts/addition_linear.json").read_text()) == lost_part
    before, after = (json.loads((d / "results.json").read_text()) for d in (whole, run_dir))
    assert after.pop("seconds") is None
    assert before.pop("seconds") > 0
    assert after == before


def test_a_directory_of_another_configuration_is_refused(finished):
    run_dir, _ = finished
    other = dataclasses.replace(COMPARE["debug"](), trainable="kernel")
    before = (run_dir / "config.json").read_text()
    with pytest.raises(config.ConfigError, match="trainable: None -> 'kernel'"):
        compare.run(other, run_dir)
    assert (run_dir / "config.json").read_text() == before


def test_a_directory_from_before_an_option_existed_goes_on(tmp_path):
    preset = COMPARE["debug"]()
    old = config.to_dict(preset)
    del old["exact"], old["head"]["normalize"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    cli.claim(tmp_path, preset)
    assert config.load_config(type(preset), tmp_path / "config.json") == preset
    changed = dataclasses.replace(preset, exact=config.ExactConfig(l2=0.5))
    with pytest.raises(config.ConfigError, match="exact: None -> "):
        cli.claim(tmp_path, changed)
    (tmp_path / "config.json").write_text(json.dumps({"another": "experiment"}))
    with pytest.raises(config.ConfigError, match="another: 'experiment' -> None"):
        cli.claim(tmp_path, preset)


def test_claims_are_decided_by_intervals_alone():
    def results(linear: list[float]) -> dict:
        flat = [[0.5, 0.5]] * len(linear)
        low = {"target": flat, "accuracy": flat, "normalized": flat}
        rows = {"nonlinear": low, "posthoc": low}
        added = {**rows, "linear": {**low, "accuracy": [[v, v] for v in linear]}}
        return {"addition": added, "pretrained": flat}

    def verdict(linear: list[float]):
        rows = claims.judge(results(linear), claims.COMPARE)
        return next(r["held"] for r in rows if "improves on the pre-trained" in r["claim"])

    assert verdict([0.7, 0.71, 0.72]) is True
    assert verdict([0.3, 0.31, 0.32]) is False
    assert verdict([0.3, 0.5, 0.75]) is None
    assert verdict([0.7]) is None


class TestCommandLine:
    def test_overrides_reach_the_configuration(self, tmp_path: Path):
        words = ["debug", "--linear.optim.lr", "0.5", "--seeds", "3", "4", f"--run-dir={tmp_path}"]
        command = cli.parse("compare", COMPARE, words)
        assert command.config.linear.optim.lr == 0.5
        assert command.config.seeds == (3, 4)
        assert command.run_dir == tmp_path

    def test_an_earlier_config_is_a_preset(self, tmp_path: Path):
        changed = dataclasses.replace(COMPARE["debug"](), seeds=(7,))
        path = tmp_path / "config.json"
        path.write_text(json.dumps(config.to_dict(changed)))
        assert cli.parse("compare", COMPARE, [str(path)]).config == changed

    def test_options_of_the_exact_regime_are_overridden_where_it_is_configured(self):
        command = cli.parse("compare", COMPARE, ["exact", "--exact.l2", "0.5"])
        assert command.config.exact.l2 == 0.5

    @pytest.mark.parametrize(
        ("words", "hint"),
        [
            (["dmeo"], "did you mean 'demo'"),
            (["debug", "--linear.optim.lrr", "1"], "lr"),
            (["debug", "--edit.points", "1"], "two points"),
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

    @pytest.mark.parametrize("name", COMPARE)
    def test_presets_survive_json(self, name):
        preset = COMPARE[name]()
        again = config.from_dict(type(preset), json.loads(json.dumps(config.to_dict(preset))))
        assert again == preset

    def test_unknown_option_in_a_file_is_named(self):
        with pytest.raises(config.ConfigError, match=r"model\.blokcs.*did you mean 'blocks'"):
            config.from_dict(type(COMPARE["debug"]()), {"model": {"blokcs": 3}})


def test_the_report_can_be_made_again_from_its_files(finished):
    run_dir, page = finished
    before = page.read_text()
    assert report.write_all(run_dir).read_text() == before

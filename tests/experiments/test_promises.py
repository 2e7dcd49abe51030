"""What every experiment promises, on its ``debug`` preset; the rest is in each one's own file."""

import dataclasses
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import experiments
from configs import PRESETS
from experiments import budget, publish, report, tune, vectors
from linearize import cli, config, io
from linearize.config import ConfigError
from linearize.report import ResultsError
from linearize.train import REQUEUE


def module(name: str) -> Any:
    return importlib.import_module(f"experiments.{name}.run")


def results_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "results.json").read_text())


QUICK = ("compare",)
"""What runs every time; the others' promises are kept by the same code, and tried with `slow`."""


@pytest.fixture(
    params=[n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in PRESETS]
)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def copied(name, debug_run, tmp_path, monkeypatch) -> Path:
    """The finished run once more, to be changed; its figures are not drawn again."""
    monkeypatch.setattr(report, "write_all", lambda run_dir: Path(run_dir) / "report.html")
    return Path(shutil.copytree(debug_run(name), tmp_path / "run"))


def test_experiments_presets_and_results_are_found_by_listing():
    """One folder, one preset file, one scientific test and one results page each."""
    here = Path(__file__).parent
    assert set(experiments.listed()) == set(PRESETS)
    for name in experiments.listed():
        folder = Path(experiments.__path__[0]) / name
        files = {path.name for path in folder.glob("*.py")}
        assert {"__main__.py", "page.py", "results.py", "run.py"} <= files
        assert (here / f"test_{name}.py").exists()
    published = [json.loads(p.read_text()) for p in here.glob("../../docs/results/*.json")]
    assert published


def test_writes_everything(name, debug_run):
    run_dir, preset = debug_run(name), PRESETS[name]["debug"]()
    assert json.loads((run_dir / "config.json").read_text()) == config.to_dict(preset)
    assert json.loads((run_dir / "versions.json").read_text()) == io.versions()
    results = results_of(run_dir)
    assert results["experiment"] == name
    assert results["preset"] == "debug"
    assert results["config"] == config.to_dict(preset)
    assert results["seeds"] == list(preset.seeds)
    assert results["seconds"] > 0
    page = report.read_page(run_dir)
    for folder, made, kinds in (
        ("figures", page.plots, ("png", "svg")),
        ("tables", page.tables, ("md", "csv")),
    ):
        names = {each.name for each in made}
        assert names
        files = {p.name for p in (run_dir / folder).iterdir()}
        assert files == {f"{n}.{kind}" for n in names for kind in kinds}
    assert set(page.headlines) & {table.name for table in page.tables}
    text = (run_dir / "report.html").read_text("utf-8")
    assert page.title in text
    assert text.count("<svg") >= len(page.plots)
    assert not re.search(r"(src|href)=\"(https?:)?//", text)


REWRITTEN = {"results.json", "versions.json", "sha256.json", "explorer.npz"}
"""What a run writes each time, in no time."""


def state(run_dir: Path) -> dict[str, tuple[int, bytes]]:
    """When each file was written, and what it holds; locks are free to change."""
    return {
        str(p.relative_to(run_dir)): (p.stat().st_mtime_ns, p.read_bytes())
        for p in run_dir.rglob("*")
        if p.is_file() and p.name != "lock"
    }


def test_a_finished_run_is_not_repeated(name, copied):
    before = state(copied)
    module(name).run(PRESETS[name]["debug"](), copied, "debug")
    after = state(copied)
    assert {n: content for n, (_, content) in after.items()} == {
        n: content for n, (_, content) in before.items()
    }
    rewritten = {n for n in before if after[n] != before[n]}
    assert rewritten <= REWRITTEN


def parts(seed_dir: Path) -> list[Path]:
    """The files of what was measured last, apart from training's own."""
    kept = [p for p in seed_dir.rglob("*.json") if not (p.parent / "done.json").exists()]
    return sorted(p for p in kept if p.name not in ("record.json", "sha256.json"))


def test_a_run_that_was_killed_goes_on(name, copied):
    """Without its results, a seed's record and the last of its parts: these alone are made."""
    preset, whole = PRESETS[name]["debug"](), results_of(copied)
    seed_dir = copied / f"seed_{preset.seeds[-1]}"
    lost = [copied / "results.json", seed_dir / "record.json", *parts(seed_dir)[-1:]]
    before = state(copied)
    for path in lost:
        path.unlink()
    module(name).run(preset, copied, "debug")
    after = state(copied)
    assert after.keys() == before.keys()
    made = {n for n in before if after[n][0] != before[n][0]}
    again = {str(path.relative_to(copied)) for path in lost}
    assert again <= made
    assert {Path(n).name for n in made - again} <= REWRITTEN
    assert results_of(copied)["seconds"] is None
    assert timeless(results_of(copied)) == timeless(whole)


SHARED = ("compare", "merging", "subsets", "coefficients", "ensembling", "nli")
"""What processes may share."""


@pytest.mark.slow(but=["compare"])
@pytest.mark.parametrize("shared", SHARED)
def test_the_fine_tunings_that_are_shared_are_those_that_are_made(shared, debug_run):
    run_dir = debug_run(shared)
    own = getattr(module(shared), "fine_tunings", vectors.fine_tunings)
    listed = own(PRESETS[shared]["debug"](), run_dir)
    made = {path.parent for path in run_dir.glob("**/task_vector.safetensors")}
    assert {each.folder for each in listed} == made
    assert len(listed) == len(made)


PLACE = re.compile(r"\[(\d+)/(\d+)\]")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compare", "width"])
def test_a_run_that_is_told_to_end_goes_on(name, debug_run, tmp_path):
    """SIGTERM in the middle: one sentence, nothing half-written, the same results in the end."""
    run_dir = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", "debug", "--run-dir", str(run_dir)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"LINEARIZE_CACHE": str(tmp_path / "cache")},
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            place = PLACE.search(line)
            if place and 2 * int(place[1]) >= int(place[2]):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read().splitlines()
    assert process.returncode == REQUEUE
    assert rest[-1].startswith("stopped by SIGTERM")
    assert "Traceback" not in "\n".join(rest)
    assert not (run_dir / "results.json").exists()
    assert not list(run_dir.rglob(".*.part"))
    module(name).run(PRESETS[name]["debug"](), run_dir, "debug")
    assert timeless(results_of(run_dir)) == timeless(results_of(debug_run(name)))


def timeless(value: Any) -> Any:
    """Results without how long they took, and how much was held meanwhile."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in ("seconds", "bytes")}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def changed(values: dict[str, Any]) -> dict[str, Any]:
    """The same configuration with another temperature or learning rate, or other batches."""
    other = json.loads(json.dumps(values))
    place = other.get("setting", other).get("head", other)
    key = next(key for key in ("temperature", "rate", "batch_size") if key in place)
    place[key] = type(place[key])(place[key] / 2)
    return other


def test_a_directory_of_another_configuration_is_refused(name, copied):
    preset = PRESETS[name]["debug"]()
    other = config.from_dict(type(preset), changed(config.to_dict(preset)))
    before = state(copied)
    with pytest.raises(
        config.ConfigError,
        match=r"temperature: 20\.0 -> 10\.0|rate: 0\.1 -> 0\.05|batch_size: (16 -> 8|8 -> 4)",
    ):
        module(name).run(other, copied, "debug")
    assert state(copied) == before


LENGTHS = ("alphas", "shares")
"""Whose absence shows in the shapes of others."""


def complaint(values: dict[str, Any], path: Path) -> str | None:
    """What the page says of such results, if it refuses them."""
    io.write_json(path, values)
    try:
        report.read_page(path.parent)
    except ResultsError as error:
        return str(error)
    return None


def without(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """By key, the values that lack it: on the top, and in the mappings there."""
    for key, value in values.items():
        yield key, {name: each for name, each in values.items() if name != key}
        if isinstance(value, dict) and key not in ("config", "versions", "model"):
            for inner in value:
                less = {name: each for name, each in value.items() if name != inner}
                yield f"{key}/{inner}", values | {key: less}


def test_damage_is_named(name, debug_run, tmp_path):
    """Where a value is missing or of another kind, file and value are named, if it is needed."""
    whole, path = results_of(debug_run(name)), tmp_path / "results.json"
    del whole["experiment"]
    said = {key: complaint(less | {"experiment": name}, path) for key, less in without(whole)}
    needed = {key: words for key, words in said.items() if words is not None}
    assert len(needed.keys() & whole.keys()) >= 3
    for key, words in needed.items():
        assert str(path) in words
        last = key.rpartition("/")[2]
        assert last in words or last in LENGTHS or "run the same command" in words, (key, words)
    whole["experiment"] = name
    needed = {key: words for key, words in needed.items() if key in whole}
    other = [complaint(whole | {key: [None]}, path) for key in needed]
    refused = [said for said in other if said is not None]
    assert len(refused) >= len(needed) / 2  # some are looked at when they are drawn
    assert all(str(path) in said for said in refused)
    io.write_json(path, whole)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ResultsError, match=re.escape(str(path))):
        report.read_page(tmp_path)


@pytest.mark.parametrize(
    ("experiment", "preset"), [(e, p) for e, presets in PRESETS.items() for p in presets]
)
def test_presets_survive_json(experiment, preset):
    built = PRESETS[experiment][preset]()
    assert config.from_dict(type(built), json.loads(json.dumps(config.to_dict(built)))) == built


class TestCommandLine:
    def test_overrides_reach_the_configuration(self, name, tmp_path):
        preset = PRESETS[name]["debug"]()
        inner = "setting." if hasattr(preset, "setting") else ""
        words = ["debug", f"--{inner}seeds", "3", "5", f"--run-dir={tmp_path}"]
        command = cli.parse(name, PRESETS[name], words)
        assert command.config.seeds == (3, 5)
        assert command.run_dir == tmp_path
        other = dataclasses.replace(
            command.config,
            **(
                {"setting": dataclasses.replace(command.config.setting, seeds=preset.seeds)}
                if inner
                else {"seeds": preset.seeds}
            ),
        )
        assert other == preset

    def test_an_earlier_configuration_is_a_preset(self, name, debug_run):
        path = debug_run(name) / "config.json"
        assert cli.parse(name, PRESETS[name], [str(path)]).config == PRESETS[name]["debug"]()

    @pytest.mark.parametrize(
        ("words", "hint"), [(["debgu"], "'debug'"), (["debug", "--{}seedz", "1"], "seeds")]
    )
    def test_mistakes_are_answered_with_a_remedy(self, name, words, hint, capsys):
        inner = "setting." if hasattr(PRESETS[name]["debug"](), "setting") else ""
        with pytest.raises(SystemExit) as stop:
            cli.parse(name, PRESETS[name], [word.format(inner) for word in words])
        assert stop.value.code == 2
        printed = capsys.readouterr()
        assert hint in printed.err + printed.out


# the commands beside the experiments


def test_any_finished_run_is_published_and_no_other(name, debug_run, tmp_path):
    run_dir, into = debug_run(name), tmp_path / "results"
    page = publish.publish(publish.Publish(run_dir, "mine", figures=(), into=into)).read_text()
    lead = report.read_page(run_dir).lead
    assert page.replace("\\", "").startswith(
        "# mine\n\n" + lead.replace("\\", "").replace("\n", "\n\n") + "\n\n`python"
    )
    for table in (run_dir / "tables").glob("*.md"):
        assert table.read_text().strip() in page
    assert (into / "mine.json").read_bytes() == (run_dir / "config.json").read_bytes()
    with pytest.raises(FileNotFoundError, match="no figure nothing"):
        publish.publish(publish.Publish(run_dir, "other", figures=("nothing",), into=into))
    (tmp_path / "results.json").write_bytes((run_dir / "results.json").read_bytes()[:-20])
    with pytest.raises(ResultsError, match=re.escape(str(tmp_path / "results.json"))):
        publish.publish(publish.Publish(tmp_path, "other", figures=(), into=into))
    assert {p.name for p in into.iterdir()} == {"mine.md", "mine.json"}


def test_a_table_that_another_version_left_is_not_published(tmp_path, monkeypatch):
    shown = SimpleNamespace(paragraphs=[], plots=[], tables=[SimpleNamespace(name="single")])
    monkeypatch.setattr(report, "read_page", lambda run_dir: shown)
    io.write_json(tmp_path / "results.json", {"schema": 1, "experiment": "compare", "preset": "p",
                                              "seeds": [0]})  # fmt: skip
    io.write_json(tmp_path / "config.json", {})
    (tmp_path / "tables").mkdir()
    for name in ("single", "single_of_old"):
        (tmp_path / "tables" / f"{name}.md").write_text(f"### {name}\n")
    page = publish.publish(publish.Publish(tmp_path, "mine", figures=(), into=tmp_path / "pages"))
    assert re.findall("### .*", page.read_text()) == ["### single"]


def test_candidates_are_tuned_in_a_directory_of_their_configuration(tmp_path, monkeypatch):
    """Each with its rate, the best first; what one measures are parts of ``compare``."""
    tried = []

    def measure(config, tasks, regime, value, run_dir):
        tried.append((regime, getattr(config, regime).optim.lr))
        means = dict.fromkeys(("pretrained", "single", "alpha", "normalized"), 0.5)
        return tune.Candidate(regime=regime, value=value, addition=value, **means)

    monkeypatch.setattr(tune, "measure", measure)
    preset = PRESETS["compare"]["debug"]()
    command = cli.parse("tune", PRESETS["compare"], ["debug", f"--run-dir={tmp_path}"])
    tune.present(command)
    rates = {regime: tune.CANDIDATES[regime] for regime in ("nonlinear", "linear")}
    assert tried == [(regime, rate) for regime, values in rates.items() for rate in values]
    rows = results_of(tmp_path)["rows"]
    assert [row["lr, l2 or λ"] for row in rows] == [
        rate for regime in sorted(rates) for rate in sorted(rates[regime], reverse=True)
    ]
    assert (tmp_path / "table.md").read_text().count("\n") == 2 + len(rows)
    before = state(tmp_path)
    other = config.from_dict(type(preset), changed(config.to_dict(preset)))
    with pytest.raises(config.ConfigError, match=r"temperature: 20\.0 -> 10\.0"):
        tune.present(dataclasses.replace(command, config=other))
    assert state(tmp_path) == before


def test_the_budget_of_an_unknown_preset_names_those_there_are():
    with pytest.raises(config.ConfigError, match=r"preset.*vit_b23.*vit_b32"):
        budget.main("vit_b23")


@pytest.mark.slow
def test_the_budget_counts_methods_and_merges():
    """τJp in turn: 16 images of another task beside 128, at five passes each; TAK: a tenth."""
    plain = PRESETS["compare"]["vit_b32"]()
    more = dataclasses.replace(
        plain, methods=("tau_jp_in_turn", "tak", "attention_only", "delta"), merges=("tsv_m",)
    )
    found = {part.name: part for part in budget.parts(more)}
    steps, forward = found["linear fine-tuning"], budget.forward_flops(plain)
    assert found["tak fine-tuning"].total == steps.total
    others = found["tau_jp_in_turn: others' images"]
    assert others.passes == steps.passes * 16 / plain.linear.batch_size
    assert 4 < others.flops / forward <= 5
    assert 0.02 < found["tak: factors, a step"].total / steps.total < 0.15
    assert {
        "delta fine-tuning, counted as nonlinear steps",
        "tsv_m of attention_only: addition",
    } <= set(found)


def test_a_figure_is_found_by_whole_words_first(tmp_path):
    for number in (1, 10, 2):
        (tmp_path / f"error_map_{number}_a_b.png").touch()
    assert publish._one(tmp_path, "error_map_1").stem == "error_map_1_a_b"
    assert publish._one(tmp_path, "error_m").stem == "error_map_10_a_b"
    with pytest.raises(FileNotFoundError, match=r"no figure error\[1.*there are: error_map_10_a_b"):
        publish._one(tmp_path, "error[1")


def test_a_page_s_name_is_no_path(tmp_path):
    with pytest.raises(ConfigError, match=r"'\.\./mine'; expected a page's name"):
        publish.publish(publish.Publish(tmp_path, "../mine", into=tmp_path))

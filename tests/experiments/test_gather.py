"""Seeds that were run apart are one run, with the numbers that one run of all of them has."""

import json
import shutil
from pathlib import Path

import pytest

from configs import PRESETS
from experiments import gather, publish
from experiments.compare import run
from linearize import io
from linearize.config import ConfigError, to_dict
from linearize.study import Store

DEBUG = PRESETS["compare"]["debug"]()


def alone(finished: Path, seed: int, into: Path) -> Path:
    """The run as it were of one of its seeds."""
    shutil.copytree(finished, into)
    for folder in into.rglob("seed_*"):
        if folder.name != f"seed_{seed}":
            shutil.rmtree(folder)
    io.write_json(into / "config.json", to_dict(DEBUG) | {"seeds": [seed]})
    return into


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True], ids=["runs", "published"])
def test_seeds_of_several_runs_are_laid_together(debug_run, tmp_path, monkeypatch, kept):
    finished = debug_run("compare")
    runs = [alone(finished, seed, tmp_path / f"of_{seed}") for seed in (1, 0)]
    if kept:
        told = [publish.Publish(r, r.name, (), tmp_path / "docs", records=True) for r in runs]
        for job in told:
            publish.publish(job)
        runs = [tmp_path / "docs" / f"{job.name}_records" for job in told]
    whole = tmp_path / "whole"
    assert gather.gather(gather.Gather(tuple(runs), whole)) == (0, 1)
    monkeypatch.setattr(run.comparison, "measure", None)  # nothing is measured again
    monkeypatch.setattr(run.comparison, "every_map", None)
    run.run(DEBUG, whole, "debug")
    there, here = (json.loads((r / "results.json").read_text()) for r in (finished, whole))
    assert here == there


def made(folder: Path, config: dict, **seeds: dict) -> Path:
    io.write_json(folder / "config.json", config)
    for seed, record in seeds.items():
        Store(folder / seed).write("record.json", record)
    return folder


def test_runs_that_do_not_belong_together_are_refused(tmp_path):
    into = tmp_path / "into"
    config = {"lr": 1.0, "setting": {"seeds": [0]}}
    one = made(tmp_path / "one", config, seed_0={"a": 1})
    other = made(tmp_path / "other", config | {"lr": 2.0}, seed_1={"a": 2})
    with pytest.raises(ConfigError, match=r"other.* is of another configuration .*\n.*lr"):
        gather.gather(gather.Gather((one, other), into))
    with pytest.raises(ConfigError, match=r"its seed_0.record.json says other numbers"):
        gather.gather(gather.Gather((one, made(tmp_path / "again", config, seed_0={"a": 2})), into))
    with pytest.raises(ConfigError, match="none has no finished seed; let it finish one"):
        gather.gather(gather.Gather((one, made(tmp_path / "none", config)), into))
    with pytest.raises(ConfigError, match="absent is no run directory"):
        gather.gather(gather.Gather((tmp_path / "absent",), into))
    with pytest.raises(ConfigError, match="is there already"):
        gather.gather(gather.Gather((one,), one))
    with pytest.raises(ConfigError, match="name one run directory"):
        gather.gather(gather.Gather((), into))
    assert not into.exists()


def test_a_record_that_was_changed_is_refused_and_all_seeds_are_written_down(tmp_path):
    config = {"setting": {"seeds": [3]}}
    one = made(tmp_path / "one", config, seed_3={"a": 1})
    two = made(tmp_path / "two", {"setting": {"seeds": [1]}}, seed_1={"a": 2})
    assert gather.gather(gather.Gather((one, two), tmp_path / "into")) == (1, 3)
    assert io.read_json(tmp_path / "into" / "config.json") == {"setting": {"seeds": [1, 3]}}
    (one / "seed_3" / "record.json").write_text('{"a": 7}')
    with pytest.raises(io.CorruptFileError, match="was changed after it was written"):
        gather.gather(gather.Gather((one, two), tmp_path / "more"))

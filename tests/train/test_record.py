"""Rows of metrics on the disk, on TensorBoard and on the terminal."""

import io
import json
import logging
import warnings

import pytest
from rich.console import Console

from linearize import narration
from linearize.train import record
from linearize.train.record import Recorder, progress_bar, read_rows


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    """Whole rows up to the resumed step remain; a row cut by a kill, and later ones, go."""
    first = Recorder(tmp_path, 0, tensorboard=False)
    for step in (1, 2, 3, 4):
        first.write(step, {"loss": 1 / step})
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    second = Recorder(tmp_path, 3, tensorboard=False)
    second.write(4, {"loss": 0.5})
    second.close()
    found = read_rows(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["loss"]) for row in found] == [(1, 1), (2, 0.5), (3, 1 / 3), (4, 0.5)]
    assert found[3]["seconds"] >= found[2]["seconds"]


def test_each_line_is_strict_json(tmp_path):
    recorder = Recorder(tmp_path, 0, tensorboard=False)
    recorder.write(1, {"validation/accuracy": float("nan")})
    recorder.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(line, parse_constant=pytest.fail)["validation/accuracy"] is None


def test_tensorboard_holds_the_rows(problem, run_dir):
    problem.run(run_dir=run_dir, tensorboard=True, steps=6)
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter

    assert RecordWriter
    (file,) = (run_dir / "tensorboard").iterdir()
    content, scalars = file.read_bytes(), {}
    while content:  # length (8), its checksum (4), the event, its checksum (4)
        length = int.from_bytes(content[:8], "little")
        event = Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]
        for value in event.summary.value:
            scalars[value.tag, event.step] = value.simple_value
    for row in read_rows(run_dir / "metrics.jsonl"):
        for name in ("loss", "accuracy", "lr", "grad_norm"):
            assert scalars[name, row["step"]] == pytest.approx(row[name], rel=1e-6)


def test_no_bar_and_no_output_where_there_is_no_terminal(problem, run_dir, capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problem.run(run_dir=run_dir, progress=True)
    assert capfd.readouterr() == ("", "")


def test_the_bar_shows_rate_and_remaining_time(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(
        record,
        "Console",
        lambda stderr: Console(file=screen, force_terminal=True, width=100, color_system=None),
    )
    clock = iter(range(10_000))
    with progress_bar(True, total=100, done=40, title="mnist (linear)") as bar:
        bar._progress.get_time = lambda: next(clock)
        for step in (50, 60, 70):
            bar.at(step)
        bar.loss(0.25)
        bar._progress.refresh()
    shown = screen.getvalue()
    for part in ("mnist (linear)", "70/100", "steps/s", "0:0", "loss 0.2500"):
        assert part in shown


def test_the_log_says_what_no_bar_shows(problem, run_dir, caplog, monkeypatch):
    monkeypatch.setattr(narration, "SILENCE", 0.0)
    caplog.set_level(logging.INFO, "linearize")
    result = problem.run(run_dir=run_dir)
    first, *steps = [record.getMessage() for record in caplog.records]
    total = result.steps
    assert first.endswith(f": {total} steps")
    assert steps[0].endswith(f": 1 of {total}")
    assert steps[-1].endswith(f": {total - 1} of {total}")

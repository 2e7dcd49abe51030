"""Rows of metrics on the disk, on TensorBoard and on the terminal."""

import gc
import io
import json
import logging
import os
import subprocess
import sys
import threading
import warnings

import pytest
from rich.console import Console

from linearize import hosts, narration
from linearize.train import RunDirectoryError
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
        narration,
        "Console",
        lambda stderr: Console(file=screen, force_terminal=True, width=100, color_system=None),
    )
    clock = iter(range(10_000))
    with progress_bar(True, total=100, done=40, title="mnist [/x] [b] :bug: (linear)") as bar:
        bar._progress.get_time = lambda: next(clock)
        for step in (50, 60, 70):
            bar.at(step)
        bar.loss(0.25)
        bar._progress.refresh()
    shown = screen.getvalue()
    for part in ("mnist [/x] [b] :bug: (linear)", "70/100", "steps/s", "0:0", "loss 0.2500"):
        assert part in shown


def test_other_processes_draw_no_bar(monkeypatch):
    monkeypatch.setattr(narration, "Console", lambda stderr: Console(force_terminal=True))
    monkeypatch.setattr(hosts, "first", lambda: False)
    with progress_bar(True, total=2, done=0, title="mnist") as bar:
        assert bar._progress is None


def test_the_log_says_what_no_bar_shows(problem, run_dir, caplog, monkeypatch):
    monkeypatch.setattr(narration, "SILENCE", 0.0)
    caplog.set_level(logging.INFO, "linearize")
    result = problem.run(run_dir=run_dir)
    first, *steps = [record.getMessage() for record in caplog.records]
    total = result.steps
    assert first.endswith(f": {total} steps")
    assert steps[0].endswith(f": 1 of {total}")
    assert steps[-1].endswith(f": {total - 1} of {total}")


@pytest.mark.parametrize("board", [True, False])
def test_a_full_disk_is_one_error_and_nothing_is_left_behind(tmp_path, board, capfd, largest_file):
    threads = threading.active_count()
    recorder = Recorder(tmp_path, 0, tensorboard=board)
    if board:  # then that file is the one that is full
        recorder._file.close()
        recorder._file = io.StringIO()

    def fill():
        for step in range(1000):
            recorder.write(step, {"loss": 1.0})

    with largest_file(2000):
        with pytest.raises(RunDirectoryError, match=r"cannot be used: File too large; make room"):
            fill()
        recorder.close()
    gc.collect()
    assert threading.active_count() == threads
    assert capfd.readouterr() == ("", "")


FULL = """
import resource, sys
import numpy as np, jax.numpy as jnp
from linearize.train import OptimConfig, RunDirectoryError, TrainConfig, fine_tune
from linearize.train import CheckpointError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
config = TrainConfig(
    optim=OptimConfig(lr=1e-2), steps=200, batch_size=20, checkpoint_every=20, log_every=1
)
try:
    fine_tune(lambda p, x: x @ p["w"], {"w": jnp.zeros((4, 3))},
              {"inputs": x, "labels": np.zeros(20, int)}, regime="linear", config=config,
              run_dir=sys.argv[1])
except (CheckpointError, RunDirectoryError) as error:
    print(error)
    raise SystemExit(1)
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", [3000, 6000])
def test_a_full_disk_ends_a_process_with_one_sentence(tmp_path, size):
    command = [sys.executable, "-c", FULL, str(tmp_path / "run"), str(size)]
    alone = {n: v for n, v in os.environ.items() if n != "JAX_COMPILATION_CACHE_DIR"}  # spare it
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=alone)
    assert done.returncode == 1
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1
    assert "ake room" in done.stdout

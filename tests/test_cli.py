"""The command line of an experiment: how a run begins, and how it ends."""

import dataclasses
import errno
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from configs import PRESETS
from experiments import running
from linearize import cli, config, narration
from linearize.assets import AssetError
from linearize.study import Store
from linearize.study.store import begin
from linearize.task_vector import TaskVector
from linearize.train import (
    REQUEUE,
    CheckpointError,
    NonFiniteLossError,
    RunLockedError,
    RunMismatchError,
)
from linearize.train.lock import exclusive


@dataclasses.dataclass(frozen=True)
class Toy:
    """An experiment's configuration."""

    lr: float = 0.1
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        config.files.require(self.lr > 0, "lr", self.lr, "give a positive number")


@dataclasses.dataclass(frozen=True)
class Nested:
    """One that keeps its seeds within a setting."""

    setting: Toy = Toy()


def small() -> Toy:
    """A second: nothing at all.

    python -m experiments.toy small

    ======  ======
    Regime  Result
    linear  42.0 %
    ======  ======
    """
    return Toy()


TOYS = {"small": small}


def launch(monkeypatch, run, *words):
    """The exit status of ``python -m experiments.toy small ...``."""
    monkeypatch.setattr(sys, "argv", ["toy", *words])
    try:
        cli.launch("toy", TOYS, run)
    except SystemExit as stop:
        return stop.code
    return 0


def failing(error):
    def run(command):
        raise error

    return run


DIVERGED = NonFiniteLossError(3, np.nan, 0.1, 1.0, TaskVector({}), "")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (config.ConfigError("lr=-1: give a positive number"), "lr=-1: give a positive number"),
        (RunLockedError("run_dir=x is in use"), "run_dir=x is in use"),
        (RunMismatchError("run_dir=x holds another run"), "run_dir=x holds another run"),
        (CheckpointError("a checkpoint could not be written"), "a checkpoint could not be"),
        (DIVERGED, "training stopped: step 3 is not finite"),
        (AssetError("the index cannot be reached"), "the index cannot be reached"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a/b.png"), "a/b.png: No space left"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), "a/b.png"), "a/b.png: Read-only"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
        (ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)), "Connection reset"),
        (FileNotFoundError("no done.json beside it"), "no done.json beside it"),
        (ModuleNotFoundError("No module named 'onnx'", name="onnx"), "pip install onnx"),
        (ModuleNotFoundError("onnx is missing: pip install x"), "onnx is missing: pip install x"),
        (MemoryError(), "out of memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory: 9 GB\nmore"), "9 GB)"),
    ],
)
def test_what_is_foreseen_ends_in_a_sentence(monkeypatch, capsys, tmp_path, error, said):
    assert launch(monkeypatch, failing(error), "small", f"--run-dir={tmp_path}") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert said in last


def test_the_unforeseen_says_where_the_run_is(monkeypatch, tmp_path):
    with pytest.raises(ZeroDivisionError) as caught:
        launch(monkeypatch, failing(ZeroDivisionError("x")), "small", f"--run-dir={tmp_path}")
    assert str(tmp_path) in caught.value.__notes__[-1]
    assert "the same command goes on" in caught.value.__notes__[-1]


def test_an_interrupted_run_says_that_it_goes_on(monkeypatch, capsys):
    assert launch(monkeypatch, failing(KeyboardInterrupt()), "small") == 130
    assert capsys.readouterr().err.endswith("the same command goes on from here\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["small", "--lr", "-1"], "lr=-1.0: give a positive number"),
        (["smal"], "did you mean 'small'?"),
        (["broken.json"], "broken.json: not a readable configuration"),
        (["list.json"], "list.json"),
        (["small", "--run-dir"], "--run-dir needs a directory"),
        (["small", "--run-dir="], "--run-dir needs a directory, and '' is none"),
        (["small", "--run-dir", "--lr", "1"], "--run-dir needs a directory, and '--lr' is none"),
    ],
)
def test_what_cannot_be_begun_ends_in_a_sentence(monkeypatch, capsys, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    Path("broken.json").write_text("{")
    Path("list.json").write_text("[1]")
    assert launch(monkeypatch, print, *words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("printed", ["print", "terminal.console().print"])
def test_a_reader_that_goes_away_is_no_error(printed):
    program = (
        "from linearize import cli\nfrom linearize.report import terminal\n"
        f"say = {printed}\nwith cli.reporting():\n"
        "    for i in range(10**4): say(60 * str(i % 10))\n"
    )
    script = f"{sys.executable} -c '{program}' | head -1; echo ${{PIPESTATUS[0]}}"
    found = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [60 * "0", "141"]
    assert found.stderr == ""


def test_a_console_on_standard_error_falls_silent_where_nobody_reads():
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    console = narration.Console(stderr=True, file=Closed())
    console.print("a")
    console.print("b")
    with pytest.raises(BrokenPipeError):
        narration.Console(file=Closed()).print("a")


def test_the_first_lines_say_what_is_going_to_be_done(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    words = ("small", "--seeds", "3", "5", f"--run-dir={tmp_path}")
    assert launch(monkeypatch, lambda command: print("done"), *words) == 0
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("toy small: A second: nothing at all.")
    assert second.endswith(f"seeds 3, 5; results go to {tmp_path}")


@pytest.mark.slow
def test_a_run_begins_without_what_its_end_needs():
    program = "import sys, experiments.compare.run; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = found.stdout.decode().split()
    assert "jax" in loaded
    assert not {"matplotlib", "scipy.stats", "pandas", "tensorflow"} & set(loaded)


def test_help_shows_the_notebook(capsys):
    with pytest.raises(SystemExit):
        cli.parse("toy", TOYS, ["--help"])
    assert "small        A second: nothing at all." in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.parse("toy", TOYS, ["small", "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith(cli.notebook(small) + "\n\n")
    assert "linear  42.0 %\n" in shown
    assert "--lr" in shown


@pytest.mark.parametrize("experiment", PRESETS)
def test_every_preset_has_a_notebook(experiment):
    for name, build in PRESETS[experiment].items():
        assert len(cli.summary(build)) > 20, name
        assert f"python -m experiments.{experiment} {name}" in cli.notebook(build)


@pytest.mark.parametrize("of", [lambda seeds: Toy(seeds=seeds), lambda s: Nested(Toy(seeds=s))])
def test_seeds_may_be_added_and_not_left_out(tmp_path, of):
    path = tmp_path / "config.json"
    cli.claim(tmp_path, of((0, 2)))
    for seeds in ((0, 2), (2, 0), (1, 2, 0)):
        cli.claim(tmp_path, of(seeds))
        assert json.loads(path.read_text()) == config.to_dict(of(seeds))
    before = path.read_bytes()
    for seeds in ((0,), (1, 2), (3, 4, 5)):
        with pytest.raises(config.ConfigError, match="may be added, not left out"):
            cli.claim(tmp_path, of(seeds))
    assert path.read_bytes() == before


def test_a_directory_in_use_is_not_touched(tmp_path):
    with running.claimed(tmp_path, Toy()):
        before = {path: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(RunLockedError), running.claimed(tmp_path, Toy(seeds=(0, 1))):
            pass
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_configuration_is_refused_with_more_seeds_too(tmp_path):
    cli.claim(tmp_path, Toy())
    with pytest.raises(config.ConfigError, match=r"lr: 0\.1 -> 0\.2$"):
        cli.claim(tmp_path, Toy(0.2, (0, 1)))


def test_an_added_seed_alone_is_measured(tmp_path, caplog):
    measured = []

    def measure(seed, store):
        measured.append(seed)
        begin("first")
        return {"x": store.kept("x", lambda: seed)}

    caplog.set_level(logging.INFO, "linearize.study")
    for seeds in ((0,), (1, 0)):
        with running.claimed(tmp_path, Toy(seeds=seeds)):
            found = Store.of(tmp_path).every_seed(seeds, 2, measure)
    assert measured == [0, 1]
    assert found["x"] == [1, 0]
    said = [record.getMessage() for record in caplog.records]
    assert said[:3] == ["seed 0 [1/2] first", "seed 0 [2/2] x", "seed 0: measured in 0 s"]
    assert said[-1] == "seed 0: measured before"


def test_parts_that_were_not_announced_are_told(tmp_path, caplog):
    Store.of(tmp_path).under("seed_0").recorded(2, lambda: {"x": 1})
    assert "seed 0: 0 parts began, not 2" in caplog.text


@pytest.mark.parametrize("damage", ["", "{", "[1]", "3", "null"])
def test_a_damaged_configuration_is_named(tmp_path, damage):
    (tmp_path / "config.json").write_text(damage)
    with pytest.raises(config.ConfigError, match=r"config\.json is damaged"):
        cli.claim(tmp_path, Toy())


def test_long_silence_is_broken(monkeypatch, capsys):
    monkeypatch.setattr(narration, "SILENCE", 0.05)
    log = logging.getLogger("linearize.test")
    with narration.logged():
        log.info("part %d", 1)
        time.sleep(0.3)
    first, *again = capsys.readouterr().err.splitlines()
    assert first.endswith(" part 1")
    assert len(again) >= 2
    assert all("… part 1: 0 s" in line for line in again)
    with narration.logged():
        time.sleep(0.1)
        log.debug("not heard")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("silence", [0.0, 100.0])
def test_a_pass_over_data_says_how_far_it_is(monkeypatch, caplog, silence):
    monkeypatch.setattr(narration, "SILENCE", silence)
    caplog.set_level(logging.INFO, "linearize")
    assert list(narration.paced("abc", "evaluating")) == ["a", "b", "c"]
    said = [record.getMessage() for record in caplog.records]
    assert said == ([] if silence else [f"evaluating: {i} of 3" for i in range(3)])


def test_warnings_alone_are_said_unasked():
    program = (
        "import linearize, logging\n"
        "log = logging.getLogger('linearize.x')\n"
        "log.info('step'), log.warning('damaged')\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert found.stderr == b"damaged\n"


@pytest.mark.slow
def test_a_run_outlives_who_reads_its_log_and_a_poor_encoding():
    program = (
        "import logging\n"
        "from linearize import cli\n"
        "with cli.reporting():\n"
        "    logging.getLogger('linearize.x').info('step')\n"
        "    print('1 ± 2')\n"
    )
    script = f'({sys.executable} -c "{program}" 2>&1 >&3 | true) 3>&1'
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    found = subprocess.run(["bash", "-c", script], capture_output=True, env=environment, check=True)
    assert found.stdout == b"1 ? 2\n"


def test_no_line_is_put_into_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(narration, "SILENCE", 0.0)
    narrator = narration.Narrator()
    narrator.handle(logging.makeLogRecord({"msg": "part"}))
    capsys.readouterr()
    stuck = SimpleNamespace(tqdm=SimpleNamespace(_instances=["a bar"]))
    monkeypatch.setitem(sys.modules, "tqdm", stuck)
    narrator.remind()
    assert capsys.readouterr().err == ""
    stuck.tqdm._instances.clear()
    with Progress(console=Console(force_terminal=True, file=sys.stderr)):
        assert narration.drawing()
    narrator.remind()
    assert "… part: 0 s" in capsys.readouterr().err


WAITING = """
import signal, sys, time
from pathlib import Path
from linearize import cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and that under nohup
from linearize.train.lock import exclusive
with cli.reporting(), exclusive(Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        pytest.param(
            signal.SIGINT,
            130,
            "\nstopped: nothing is lost\nthe same command goes on from here\n",
            marks=pytest.mark.slow,
        ),
        (
            signal.SIGTERM,
            REQUEUE,
            "stopped by SIGTERM; the same command goes on from here (exit status 75)\n",
        ),
        pytest.param(
            signal.SIGHUP,
            129,
            "stopped by SIGHUP; the same command goes on from here (exit status 129)\n",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_signal_reaches_a_run_that_computes(tmp_path, number, status, words):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == status
    assert said == words
    with exclusive(tmp_path):
        pass


DEAF = """
import gc, hashlib, os, signal, sys, threading, time
from linearize import cli
from linearize.train import interrupt

def swallowed():
    gc.callbacks.append(lambda phase, info: signal.raise_signal(signal.SIGTERM))
    gc.collect()
    time.sleep(60)

def told():
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM)).start()

def compiling():  # minutes in C, in a fine-tuning that has nothing to save yet
    with interrupt.deferred():
        told()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)

def saving():
    with interrupt.deferred() as request:
        request.unsaved = True
        told()
        time.sleep(1.5)
        print("saved", flush=True)
        raise request.answer("a checkpoint is saved")

interrupt.GRACE = 0.3
with cli.reporting():
    globals()[sys.argv[1]]()
"""


@pytest.mark.slow(but=["swallowed"])
@pytest.mark.parametrize("how", ["swallowed", "compiling", "saving"])
def test_a_signal_ends_a_run_that_does_not_hear_it(how):
    """Within the grace time; but what a fine-tuning has to save is saved."""
    done = subprocess.run(
        [sys.executable, "-c", DEAF, how], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == REQUEUE
    assert done.stderr.endswith(
        "\nstopped by SIGTERM; the same command goes on from here (exit status 75)\n"
    )
    assert done.stdout == ("saved\n" if how == "saving" else "")


@pytest.mark.slow
@pytest.mark.parametrize("size", [500, 20_000])
def test_an_experiment_on_a_full_disk_ends_with_one_sentence(tmp_path, size):
    """No file may grow beyond so many bytes: the configuration, or the first task vector."""
    program = (
        f"import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size},) * 2); "
        f"sys.argv = ['compare', 'debug', '--run-dir', {str(tmp_path / 'run')!r}]; "
        "runpy.run_module('experiments.compare', run_name='__main__')"
    )
    alone = {n: v for n, v in os.environ.items() if n != "JAX_COMPILATION_CACHE_DIR"}  # spare it
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, env=alone
    )
    *log, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert last.startswith("error: ")
    assert "File too large" in last
    assert all(re.match(r"\d\d:\d\d:\d\d ", line) for line in log), done.stderr

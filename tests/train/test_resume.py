"""A run that is stopped, in whatever way, ends as if it had not been."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from linearize import TaskVector
from linearize.train import (
    REQUEUE,
    CheckpointError,
    NonFiniteLossError,
    OptimConfig,
    RunDirectoryError,
    RunLockedError,
    RunMismatchError,
    Terminated,
    checkpoint,
    cross_entropy,
    feed,
    interrupt,
    loop,
)
from linearize.train.checkpoint import Checkpoints
from linearize.train.lock import exclusive


def noise(key, batch):
    return {
        **batch,
        "inputs": batch["inputs"] + 0.1 * jax.random.normal(key, batch["inputs"].shape),
    }


def assert_same(got, expected):
    """Bitwise."""
    assert list(got.delta) == list(expected.delta)
    for name, delta in expected.delta.items():
        np.testing.assert_array_equal(got.delta[name], delta)


def rows(directory: Path) -> list[dict]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    found = map(json.loads, lines)
    return [{k: v for k, v in row.items() if k not in ("run", "seconds")} for row in found]


class Stopped(BaseException):
    """Stands for a process that dies: nothing is caught, nothing is tidied."""


def stop_before(monkeypatch, step):
    advance = loop._Run._advance

    def dying(self, at):
        if at >= step:
            raise Stopped
        return advance(self, at)

    monkeypatch.setattr(loop._Run, "_advance", dying)


def test_a_relative_run_directory_keeps_checkpoints(problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        stop_before(patch, 13)
        with pytest.raises(Stopped):
            problem.run(run_dir="cut")
    assert problem.run(run_dir="cut").resumed_from == 10


@pytest.mark.slow(but=["overrides1-linear", "overrides2-nonlinear"])
@pytest.mark.parametrize("regime", ["nonlinear", "linear"])
@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"steps_per_call": 3, "augment": noise},
        {
            "optim": OptimConfig(name="contrib.schedule_free_adamw", lr=1e-2),
            "save_vectors_at": (7,),
        },
        {"optim": OptimConfig(name="lamb", lr=1e-2)},
    ],
)
def test_resume_is_bitwise_equal(problem, tmp_path, monkeypatch, regime, overrides):
    """Parameters, optimizer, data order and rng: τ and all metrics of the rest are the same."""
    whole = problem.run(regime, run_dir=tmp_path / "whole", **overrides)
    with monkeypatch.context() as patch:
        stop_before(patch, 13)
        with pytest.raises(Stopped):
            problem.run(regime, run_dir=tmp_path / "cut", **overrides)
    got = problem.run(regime, run_dir=tmp_path / "cut", **overrides)
    assert got.resumed_from == 10
    assert_same(got.tau, whole.tau)
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert [row["step"] for row in got.history] == list(range(1, 21))
    assert_same(TaskVector.load(tmp_path / "cut" / "task_vector.safetensors"), whole.tau)


def test_checkpoints_hold_the_exact_state(problem, run_dir, monkeypatch):
    """The next steps may reuse the buffers while the checkpoint is written: it has its own."""
    seen = {}
    save = Checkpoints.save

    def note(self, step, state):
        seen[step] = jax.tree.map(lambda leaf: np.array(leaf), state)
        save(self, step, state)

    monkeypatch.setattr(Checkpoints, "save", note)
    problem.run(run_dir=run_dir, keep=10, keep_when_done=True, checkpoint_every=1, steps=12)
    kept = Checkpoints(run_dir / "checkpoints", keep=10)
    steps = kept.steps()
    assert steps == list(range(2, 12))
    for step in reversed(steps):
        like = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=jnp.zeros(()).sharding
            ),
            seen[step],
        )
        found, state = kept.restore(like)
        assert found == step
        jax.tree.map(np.testing.assert_array_equal, state, seen[step])
        (run_dir / "checkpoints" / str(step)).rename(run_dir / f"{step}")


def test_checkpoints_are_kept_by_count_and_dropped_at_the_end(problem, run_dir, monkeypatch):
    with monkeypatch.context() as patch:
        stop_before(patch, 19)
        with pytest.raises(Stopped):
            problem.run(run_dir=run_dir, checkpoint_every=3, keep=2)
    assert Checkpoints(run_dir / "checkpoints", 2).steps() == [15, 18]
    problem.run(run_dir=run_dir, checkpoint_every=3, keep=2)
    assert not (run_dir / "checkpoints").exists()


SCRIPT = """
import os, signal, sys
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup
given = os.environ.get("XLA_FLAGS", "")
os.environ["XLA_FLAGS"] = f"{given} --xla_force_host_platform_device_count=8"
sys.path.insert(0, sys.argv[1])
from conftest import toy_problem, LONG
got = toy_problem().run("linear", run_dir=sys.argv[2], **LONG)
print("resumed from", got.resumed_from, flush=True)
"""


@pytest.fixture(scope="module")
def long_run(problem, long):
    return problem.run("linear", **long)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> str:
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture
def start(compiled) -> Iterator[Callable[[Path], subprocess.Popen]]:
    """Begin the long run in a process of its own."""
    env = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    begun: list[subprocess.Popen] = []

    def begin(run_dir: Path) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), str(run_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=env,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.communicate()


def newest(run_dir: Path) -> int:
    return max(Checkpoints(run_dir / "checkpoints", 2).steps(), default=0)


def wait_for_checkpoint(process: subprocess.Popen, run_dir: Path, beyond: int) -> None:
    deadline = time.monotonic() + 300
    while newest(run_dir) <= beyond:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_killed_at_random_instants(problem, long, long_run, run_dir, start):
    """SIGKILL, three times, amid checkpoints; each resumes, and the end is bitwise the same."""
    seed = time.time_ns() % 2**32
    instants = np.random.default_rng(seed).uniform(0, 0.25, size=3)
    before = 0
    for instant in instants:
        process = start(run_dir)
        wait_for_checkpoint(process, run_dir, before)
        time.sleep(float(instant))
        process.kill()
        process.communicate()
        assert newest(run_dir) > before, f"seed {seed}"
        before = newest(run_dir)
        assert not checkpoint.damage(run_dir / "checkpoints" / str(before))
    got = problem.run("linear", run_dir=run_dir, **{**long, "checkpoint_every": 0})
    assert got.resumed_from == before
    assert_same(got.tau, long_run.tau)
    # seconds aside, no row is lost, doubled or different
    expected = [{k: v for k, v in row.items() if k != "seconds"} for row in long_run.history]
    assert rows(run_dir) == expected


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_two_processes_in_one_directory_then_a_signal(
    problem, long, long_run, run_dir, start, number
):
    """The second is refused and the first not disturbed; a signal stops it cleanly; it resumes."""
    process = start(run_dir)
    wait_for_checkpoint(process, run_dir, 0)
    with pytest.raises(RunLockedError, match=f"in use by process {process.pid} on "):
        problem.run("linear", run_dir=run_dir, **long)
    assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == {signal.SIGINT: -2, signal.SIGTERM: 75, signal.SIGHUP: 129}[number]
    assert "interrupted at step" in errors
    assert "a checkpoint is saved" in errors
    stopped_at = int(errors.rsplit("interrupted at step ", 1)[1].split()[0])
    assert newest(run_dir) == stopped_at
    got = problem.run("linear", run_dir=run_dir, **{**long, "checkpoint_every": 0})
    assert got.resumed_from == stopped_at
    assert_same(got.tau, long_run.tau)


def test_ctrl_c_in_this_process(problem, run_dir):
    """The handler that was there before is there again, and nothing is written without need."""
    handler = signal.getsignal(signal.SIGINT)

    def press(params0, tau):
        assert interrupt._busy[-1].unsaved  # which is waited for, however long it takes
        signal.raise_signal(signal.SIGINT)
        return [("pressed", 1.0)]

    with pytest.raises(KeyboardInterrupt, match="interrupted at step 7 of 20; a checkpoint"):
        problem.run(run_dir=run_dir, validation=press, validate_every=7, checkpoint_every=0)
    assert signal.getsignal(signal.SIGINT) is handler
    got = problem.run(run_dir=run_dir, checkpoint_every=0)
    assert got.resumed_from == 7
    assert_same(got.tau, problem.run().tau)


def test_a_second_signal_is_not_held_back(problem, run_dir):
    """Nor is the other one's handler lost."""
    background = signal.signal(signal.SIGINT, signal.default_int_handler)  # where it is ignored
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def press(params0, tau):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        return []

    with pytest.raises(KeyboardInterrupt) as caught:
        problem.run(run_dir=run_dir, validation=press, validate_every=7)
    assert not caught.value.args
    assert {n: signal.getsignal(n) for n in before} == before
    signal.signal(signal.SIGINT, background)


@pytest.mark.slow(but=["pair0", "pair1"])
@pytest.mark.parametrize(
    "pair", [("SIGHUP", "SIGHUP"), ("SIGTERM", "SIGHUP"), ("SIGTERM", "SIGTERM")]
)
def test_signals_that_come_in_pairs_are_one_wish(problem, run_dir, pair):
    """A terminal that closes sends SIGHUP, and so does its shell; systemd sends both; SLURM sends
    SIGTERM when it preempts, and again before it kills.
    """
    first, second = (getattr(signal, name) for name in pair)
    background = signal.signal(second, signal.SIG_DFL)  # under nohup it is ignored
    before = signal.getsignal(second)

    def press(params0, tau):
        signal.raise_signal(first)
        signal.raise_signal(second)
        return []

    with pytest.raises(Terminated, match=f"by {pair[0]}: interrupted at step 7 of 20; a check"):
        problem.run(run_dir=run_dir, validation=press, validate_every=7, checkpoint_every=0)
    assert newest(run_dir) == 7
    assert signal.getsignal(second) is before
    signal.signal(second, background)


def test_what_is_ignored_stays_ignored(problem, run_dir):
    """As SIGHUP is under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:

        def press(params0, tau):
            signal.raise_signal(signal.SIGHUP)
            return []

        assert problem.run(run_dir=run_dir, validation=press, validate_every=7).steps == 20
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_sigterm_without_a_directory_saves_nothing(problem):
    def press(params0, tau):
        assert not interrupt._busy[-1].unsaved
        signal.raise_signal(signal.SIGTERM)
        return []

    with pytest.raises(Terminated, match=r"interrupted at step 7 of 20$") as caught:
        problem.run(validation=press, validate_every=7)
    assert caught.value.code == REQUEUE


def test_a_run_outside_the_main_thread(problem, run_dir):
    results = []
    thread = threading.Thread(target=lambda: results.append(problem.run(run_dir=run_dir, steps=5)))
    thread.start()
    thread.join()
    assert results[0].finished


def halfway(problem, run_dir, monkeypatch, **overrides):
    """Leave a run with whole checkpoints of steps 5, 10 and 15."""
    with monkeypatch.context() as patch:
        stop_before(patch, 17)
        with pytest.raises(Stopped):
            problem.run(run_dir=run_dir, keep=3, **overrides)
    assert Checkpoints(run_dir / "checkpoints", 3).steps() == [5, 10, 15]


def flip(file: Path, position: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(position * (len(content) - 1))] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("position", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_found_and_the_checkpoint_before_used(
    problem, run_dir, monkeypatch, caplog, position
):
    halfway(problem, run_dir, monkeypatch)
    files = [p for p in (run_dir / "checkpoints" / "15" / "state").rglob("*") if p.is_file()]
    flip(max(files, key=lambda p: p.stat().st_size), position)
    with caplog.at_level(logging.WARNING, "linearize"):
        got = problem.run(run_dir=run_dir, keep=3)
    assert got.resumed_from == 10
    assert str(run_dir / "checkpoints" / "15") in caplog.text
    assert "was changed after it was written" in caplog.text
    assert_same(got.tau, problem.run().tau)


def test_every_way_to_damage_a_checkpoint(problem, run_dir, monkeypatch, caplog):
    """A missing file, a missing list of hashes, a list that is no JSON: down to step 0."""
    halfway(problem, run_dir, monkeypatch)
    folder = run_dir / "checkpoints"
    files = [p for p in (folder / "15" / "state").rglob("*") if p.is_file()]
    max(files, key=lambda p: p.stat().st_size).unlink()
    (folder / "10" / "sha256.json").unlink()
    (folder / "5" / "sha256.json").write_text("{")
    with caplog.at_level(logging.WARNING, "linearize"):
        got = problem.run(run_dir=run_dir, keep=3, keep_when_done=True)
    assert got.resumed_from == 0
    assert [f"checkpoints/{s} is damaged" in caplog.text for s in (15, 10, 5)] == [True] * 3
    assert sorted(p.name for p in folder.glob("*.damaged")) == [
        "10.damaged",
        "15.damaged",
        "5.damaged",
    ]
    assert_same(got.tau, problem.run().tau)


def test_a_finished_run_is_not_repeated_unless_asked(problem, run_dir, monkeypatch):
    first = problem.run(run_dir=run_dir, save_vectors_at=(4,))
    with monkeypatch.context() as patch:
        stop_before(patch, 0)
        again = problem.run(run_dir=run_dir, save_vectors_at=(4,))
        assert again.reused
        assert_same(again.tau, first.tau)
        assert_same(again.vectors[4], first.vectors[4])
        assert list(again.history) == list(first.history)
        assert again.tau.base == first.tau.base
        with pytest.raises(Stopped):
            problem.run(run_dir=run_dir, save_vectors_at=(4,), repeat=True)
    # the repetition was begun, so it must be ended before the run is finished again
    once_more = problem.run(run_dir=run_dir, save_vectors_at=(4,))
    assert not once_more.reused
    assert_same(once_more.tau, first.tau)


def test_a_damaged_result_is_trained_again(problem, run_dir, caplog):
    first = problem.run(run_dir=run_dir)
    flip(run_dir / "task_vector.safetensors", 0.9)
    with caplog.at_level(logging.WARNING, "linearize"):
        again = problem.run(run_dir=run_dir)
    assert not again.reused
    assert "is damaged, and repeated" in caplog.text
    assert_same(again.tau, first.tau)


@pytest.mark.parametrize("harm", ["lost", "flipped"])
def test_a_damaged_vector_on_the_way_is_trained_again(problem, run_dir, caplog, harm):
    how = {"run_dir": run_dir, "save_vectors_at": (7,)}
    first, file = problem.run(**how), run_dir / "vectors" / "step_7.safetensors"
    if harm == "lost":
        file.unlink()
    else:
        flip(file, 0.9)
    again = problem.run(**how)
    assert not again.reused
    assert "is damaged, and repeated" in caplog.text
    assert_same(again.vectors[7], first.vectors[7])
    assert problem.run(**how).reused


def apply_kernel(kernel, features):
    return features @ kernel


def other_head(scale):
    return Partial(apply_kernel, scale * jnp.eye(4))


DIFFERENT = {
    "optim": (
        {"optim": OptimConfig(lr=2e-2, weight_decay=0.1, warmup=3)},
        r"optim\.lr: there 0\.01",
    ),
    "steps": ({"steps": 21}, r"config\.steps: there 20, now 21"),
    "seed": ({"seed": 3}, r"config\.seed: there 0, now 3"),
    "regime": ({"regime": "nonlinear"}, "regime: there 'linear', now 'nonlinear'"),
    "trainable": ({"trainable": "second"}, "trainable: there"),
    "head": ({"readout": other_head(2.0)}, "arrays: there"),
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_another_run_s_directory_is_refused(problem, tmp_path_factory, case):
    directory = tmp_path_factory.getbasetemp() / "shared_run"
    if not directory.exists():
        problem.run(run_dir=directory, readout=other_head(1.0))
    before = sorted((p, p.stat().st_mtime_ns) for p in directory.rglob("*") if p.name != "lock")
    overrides, message = DIFFERENT[case]
    with pytest.raises(RunMismatchError, match=message):
        problem.run(run_dir=directory, **{"readout": other_head(1.0), **overrides})
    after = sorted((p, p.stat().st_mtime_ns) for p in directory.rglob("*") if p.name != "lock")
    assert after == before


def test_another_base_or_data_is_refused(problem, run_dir):
    problem.run(run_dir=run_dir, steps=5)
    data = {**problem.data, "labels": (problem.data["labels"] + 1) % 4}
    with pytest.raises(RunMismatchError, match=r"data: there '50 examples"):
        problem.run(run_dir=run_dir, steps=5, data=data)
    moved = jax.tree.map(lambda p: p + 1, problem.params0)
    with pytest.raises(RunMismatchError, match="base: there"):
        type(problem)(problem.f, moved, problem.data).run(run_dir=run_dir, steps=5)


def test_how_a_run_goes_may_change_when_it_is_resumed(problem, run_dir, monkeypatch):
    halfway(problem, run_dir, monkeypatch)
    got = problem.run(run_dir=run_dir, keep=1, checkpoint_every=2, log_every=4, tensorboard=True)
    assert got.resumed_from == 15
    assert_same(got.tau, problem.run().tau)


def test_a_damaged_config_is_no_licence_to_overwrite(problem, run_dir):
    problem.run(run_dir=run_dir, steps=5)
    (run_dir / "config.json").write_text('{"ident')
    with pytest.raises(RunMismatchError, match=r"config\.json is damaged"):
        problem.run(run_dir=run_dir, steps=5)


def test_two_runs_of_one_process_in_one_directory(problem, run_dir):
    with exclusive(run_dir), pytest.raises(RunLockedError, match=f"process {os.getpid()}"):
        problem.run(run_dir=run_dir)


def full(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_full_disk_while_a_checkpoint_is_written(problem, run_dir, monkeypatch):
    """The run stops; what was saved before is whole, and the run resumes from it."""
    from orbax.checkpoint import v1 as ocp

    save = ocp.save_async

    def third_fails(path, *args, **kwargs):
        return full() if path.parent.name.startswith("15") else save(path, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(ocp, "save_async", third_fails)
        with pytest.raises(CheckpointError, match=r"(?s)step 15 could not.*No space left.*step 10"):
            problem.run(run_dir=run_dir)
    assert not list((run_dir / "checkpoints").glob("*.writing"))
    got = problem.run(run_dir=run_dir)
    assert got.resumed_from == 10
    assert_same(got.tau, problem.run().tau)


def test_full_disk_in_the_background(problem, run_dir, monkeypatch):
    """The hashes cannot be written: found at the next checkpoint, with τ in the error."""
    from linearize import io

    write = io.write_json

    def fails(path, value):
        return full() if "10.writing" in str(path) else write(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(io, "write_json", fails)
        with pytest.raises(CheckpointError, match="step 10 could not be written") as caught:
            problem.run(run_dir=run_dir)
    assert caught.value.vector.meta["steps"] == 15
    assert Checkpoints(run_dir / "checkpoints", 2).steps() == [5]
    assert problem.run(run_dir=run_dir).resumed_from == 5


def test_full_disk_at_the_end_hands_the_vector_over(problem, run_dir, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(TaskVector, "save", full)
        with pytest.raises(RunDirectoryError, match="No space left on device") as caught:
            problem.run(run_dir=run_dir)
    assert_same(caught.value.vector, problem.run().tau)
    assert problem.run(run_dir=run_dir).resumed_from == 15


def test_a_disk_that_is_too_small_is_seen_before_training(problem, run_dir, monkeypatch):
    import shutil

    usage = shutil.disk_usage("/")._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunDirectoryError, match=r"0\.0 MB free and the run wants about"):
        problem.run(run_dir=run_dir)


def test_read_only_directory(problem, run_dir, monkeypatch):
    def refused(*args, **kwargs):
        raise OSError(30, "Read-only file system", str(run_dir / "lock"))

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(RunDirectoryError, match=r"Read-only file system.*choose another run_dir"):
        problem.run(run_dir=run_dir)


def test_a_finished_run_on_a_read_only_disk_is_still_read(problem, run_dir, monkeypatch):
    first, opened = problem.run(run_dir=run_dir), os.open

    def refused(path, flags, *args, **kwargs):
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise OSError(30, "Read-only file system", str(path))
        return opened(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", refused)
    again = problem.run(run_dir=run_dir)
    assert again.reused
    assert_same(again.tau, first.tau)


def test_a_file_in_the_directory_s_place(problem, run_dir):
    run_dir.write_text("precious")
    with pytest.raises(RunDirectoryError, match="cannot be used: File exists"):
        problem.run(run_dir=run_dir)
    assert run_dir.read_text() == "precious"


def poisoned(at, out, batch):
    """NaN for the batch of one step; the data carries the rows' numbers."""
    hit = jnp.all(jnp.sort(batch["row"]) == at)
    return cross_entropy(out, batch["labels"]) * jnp.where(hit, jnp.nan, 1.0)


@pytest.mark.slow(but=["13-how0", "13-how2", "1-how3"])
@pytest.mark.parametrize(
    ("bad", "how"),
    [
        (13, {}),
        (13, {"steps_per_call": 8}),
        (13, {"device_bytes": 0}),
        (1, {}),
        (2, {"steps_per_call": 8}),
    ],
)
def test_a_loss_that_is_not_finite(problem, run_dir, bad, how):
    """The exact first bad step is named, and the state before it is kept."""
    (index,) = feed.rows(50, 16, 0, bad - 1, 1)
    settings = {
        "data": {**problem.data, "row": np.arange(50, dtype=np.int32)},
        "loss": Partial(poisoned, jnp.sort(jnp.asarray(index))),
        "log_every": 10,
        "optim": OptimConfig(lr=1e-2, schedule="constant"),
        **how,
    }
    with pytest.raises(NonFiniteLossError, match=f"step {bad} is not finite") as caught:
        problem.run(run_dir=run_dir, **settings)
    error = caught.value
    assert (error.step, error.lr) == (bad, pytest.approx(1e-2))
    assert np.isnan(error.loss)
    assert "gradient norm nan" in str(error)
    assert newest(run_dir) == bad - 1
    assert [row["step"] for row in rows(run_dir)] == ([10] if bad > 10 else [])
    if bad > 1:
        assert f"last good checkpoint is {run_dir / 'checkpoints' / str(bad - 1)}" in str(error)
        assert_same(error.tau, problem.run(**{**settings, "steps": bad - 1}).tau)
    else:
        assert not any(np.asarray(d).any() for d in error.tau.delta.values())


def test_a_gradient_that_is_not_finite_under_a_finite_loss(problem):
    """√ at 0 has no derivative: the loss is 0 there, its gradient NaN."""

    def loss(out, batch):
        return jnp.sqrt(jnp.zeros(()) * out[:, 0])

    with pytest.raises(NonFiniteLossError, match=r"step 1 .*loss 0, .*gradient norm nan"):
        problem.run(loss=loss)


def test_divergence_is_caught_between_logged_steps(problem):
    optim = OptimConfig(name="sgd", lr=1e30, clip=None, schedule="constant")
    with pytest.raises(NonFiniteLossError, match=r"lower optim\.lr") as caught:
        problem.run("nonlinear", optim=optim, log_every=1000, steps=300)
    assert 1 <= caught.value.step < 10
    assert all(np.isfinite(d).all() for d in caught.value.tau.delta.values())


BLAMED = {
    "inputs": (lambda data: data["inputs"].__setitem__((7, 3), np.nan), "data: entry 'inputs' not"),
    "infinity": (lambda data: data["inputs"].__setitem__((7, 0), np.inf), "data: entry 'inputs'"),
    "outputs": (lambda data: data["inputs"].__setitem__((7, 0), 3e38), "f: outputs at θ0 are not"),
}


@pytest.mark.parametrize("case", BLAMED)
@pytest.mark.parametrize("device_bytes", [0, 1 << 30])
def test_data_that_are_not_finite_are_named_and_not_the_learning_rate(problem, case, device_bytes):
    data = {k: v.copy() for k, v in problem.data.items()}
    BLAMED[case][0](data)

    def f(params, x):
        return problem.f(params, x) + jnp.square(x[:, :1])

    with pytest.raises(NonFiniteLossError) as caught:
        type(problem)(f, problem.params0, data).run(device_bytes=device_bytes)
    assert BLAMED[case][1] in str(caught.value)
    assert "numbers 7 of the data" in str(caught.value)
    assert "optim.lr" not in str(caught.value)


def test_a_loss_that_is_not_finite_at_theta0_is_named(problem):
    def loss(outputs, batch):
        return jnp.where(batch["labels"] == 2, jnp.nan, outputs[:, 0])

    with pytest.raises(NonFiniteLossError, match=r"loss: values at θ0 are not finite in"):
        problem.run(loss=loss)


def test_integer_parameters_are_nothing_to_train(problem):
    counts = {"table": np.arange(8, dtype=np.int32)}
    with pytest.raises(ValueError, match=r"no floating leaf.*table: int32"):
        type(problem)(lambda p, x: x[:, :4] * p["table"][0], counts, problem.data).run()

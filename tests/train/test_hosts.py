"""Fine-tuning by two processes: the bits of one process with as many devices, whatever happens."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest

from linearize import io
from linearize.train.interrupt import REQUEUE

pytestmark = pytest.mark.slow

RUN = """
import json, os, sys
from pathlib import Path
told = json.loads(sys.argv[1])
import jax
from linearize import hosts
if "process" in told:
    hosts.initialize(told["at"], 2, told["process"])
import numpy as np
from linearize.train import MeshConfig, OptimConfig, TrainConfig, fine_tune
rng = np.random.default_rng(0)
theta0 = {"a": rng.normal(size=(6, 8)) / 3, "b": rng.normal(size=(8, 4)) / 3}
data = {"inputs": rng.normal(size=(64, 6)).astype("f4"), "labels": rng.integers(0, 4, 64)}

def f(params, x):
    return jax.numpy.tanh(x @ params["a"]) @ params["b"]

for mesh in told["meshes"]:
    config = TrainConfig(
        optim=OptimConfig(lr=told.get("lr", 1e-2), warmup=0), steps=told["steps"], batch_size=8,
        checkpoint_every=4, tensorboard=False, mesh=getattr(MeshConfig, mesh)(),
    )
    out = Path(told["out"]) / mesh
    try:
        run = fine_tune(f, theta0, data, regime="linear", config=config, run_dir=out)
    except hosts.HostError as error:
        print("HostError:", error, flush=True)
        os._exit(3)
    print("resumed from", run.resumed_from, "loss", run.history[-1]["loss"], flush=True)
"""


@pytest.fixture
def environment(tmp_path):
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return os.environ | cache | devices(1)


def devices(n):
    return {"XLA_FLAGS": f"--xla_force_host_platform_device_count={n}"}


def start(environment, **told):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(told)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@contextmanager
def two(environment, **told) -> Iterator[list[subprocess.Popen]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        at = f"localhost:{free.getsockname()[1]}"
    each = [{}, told.pop("second", {})]
    found = [start(environment, at=at, process=i, **told, **each[i]) for i in range(2)]
    try:
        yield found
    finally:
        for process in found:
            with suppress(ProcessLookupError):
                process.kill()
            process.communicate()


def ended(processes, seconds=60):
    """Outputs and exit statuses."""
    said = [process.communicate(timeout=seconds)[0] for process in processes]
    return said, [process.returncode for process in processes]


def until(path: Path, seconds: float = 60):
    """Until there is such a file."""
    end = time.monotonic() + seconds
    while not list(path.parent.glob(path.name)):
        assert time.monotonic() < end, path
        time.sleep(0.05)


def leaves(folder):
    return io.load_tree(folder / "task_vector.safetensors")[0]


def same(one, other):
    assert one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one)


def alone(environment, **told):
    """One process with two devices."""
    process = start(environment | devices(2), **told)
    (said,), (status,) = ended([process])
    assert status == 0, said


def test_two_processes_train_what_one_does_to_the_bit(tmp_path, environment):
    told = {"steps": 12, "meshes": ["fsdp", "data_parallel"]}
    alone(environment, out=str(tmp_path / "alone"), **told)
    with two(environment, out=str(tmp_path / "two"), **told) as processes:
        said, status = ended(processes)
    assert status == [0, 0], said
    assert said[0].splitlines()[-2:] == said[1].splitlines()[-2:]
    for mesh in told["meshes"]:
        same(leaves(tmp_path / "two" / mesh), leaves(tmp_path / "alone" / mesh))


def test_a_killed_process_ends_the_other_with_a_sentence_and_the_same_command_goes_on(
    tmp_path, environment
):
    told = {"steps": 60, "meshes": ["fsdp"]}
    out = tmp_path / "killed"
    with two(environment, out=str(out), **told) as processes:
        until(out / "fsdp" / "checkpoints" / "1?")
        processes[1].send_signal(signal.SIGKILL)
        said, status = ended(processes[:1], seconds=40)
    assert status == [3], said
    assert "another process ended, or cannot be reached. What was saved is whole" in said[0]
    with two(environment, out=str(out), **told) as processes:
        said, status = ended(processes)
    assert status == [0, 0], said
    assert "resumed from 0 " not in said[0]
    alone(environment, out=str(tmp_path / "alone"), **told)
    same(leaves(out / "fsdp"), leaves(tmp_path / "alone" / "fsdp"))


def test_a_signal_to_one_stops_both_after_the_same_step(tmp_path, environment):
    out = tmp_path / "stopped" / "fsdp"
    with two(environment, out=str(out.parent), steps=2000, meshes=["fsdp"]) as processes:
        until(out / "checkpoints" / "4")
        processes[1].terminate()
        said, status = ended(processes)
    assert status == [REQUEUE, REQUEUE], said
    steps = {words.split("interrupted at step ")[1].split(" ")[0] for words in said}
    assert len(steps) == 1
    assert (out / "checkpoints" / steps.pop()).is_dir()


def test_a_process_of_another_configuration_is_refused_by_name(tmp_path, environment):
    told = {"out": str(tmp_path / "run"), "steps": 4, "meshes": ["fsdp"], "second": {"lr": 0.5}}
    with two(environment, **told) as processes:
        said, status = ended(processes)
    assert status == [3, 3], said
    for words in said:
        assert "config.optim.lr is 0.5 in process 1 and 0.01 in process 0" in words
    assert not (tmp_path / "run").exists()

"""A process that has imported everything, and forks those that tests ask for: not a test itself.

Each line of standard input is JSON: ``{"start": {...}}`` answers with a process's number,
``{"wait": number, "seconds": s}`` with its exit status, or null where it goes on.
"""

import hashlib
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np

from linearize import hosts
from linearize.cli import reporting
from linearize.joining import Processes, leave, parting
from linearize.train import MeshConfig, OptimConfig, TrainConfig, fine_tune
from linearize.train.checkpoint import Checkpoints, _orbax

_orbax()
warnings.filterwarnings("ignore", "os.fork")

rng = np.random.default_rng(0)
theta0 = {"a": rng.normal(size=(6, 8)) / 3, "b": rng.normal(size=(8, 4)) / 3}
data = {"inputs": rng.normal(size=(64, 6)).astype("f4"), "labels": rng.integers(0, 4, 64)}


def f(params, x):
    return jax.numpy.tanh(x @ params["a"]) @ params["b"]


def work(told):
    """Meet the others, and fine-tune on each of the meshes."""
    for name in told.get("dies", ()):
        setattr(Checkpoints, name, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    if "ready" in told:
        work_until_told(told)
    try:
        if "process" in told:
            address, n, process = told["at"], told["processes"], told["process"]
            hosts.initialize(address, n, process, wait=told.get("wait", 60), silence=6)
        for mesh in told["meshes"]:
            fine_tuned(told, mesh)
    except hosts.HostError as error:
        print("HostError:", error, flush=True)
        leave(3)


def work_until_told(told):
    """Meet the others; then be busy as a compiler is, sleep, or wait for who never comes."""
    meeting = Processes(told["at"], told["processes"], told["process"], silence=6)
    with parting(), reporting(processes=meeting):
        hosts.together("met")
        Path(told["ready"]).touch()
        if told.get("busy"):
            hashlib.pbkdf2_hmac("sha256", b"", b"", told["busy"])
        time.sleep(told.get("sleeps", 0))
        hosts.together("never")


def fine_tuned(told, mesh):
    if told.get("leaves"):
        os._exit(9)
    config = TrainConfig(
        optim=OptimConfig(lr=told.get("lr", 1e-2), warmup=0), steps=told["steps"], batch_size=8,
        checkpoint_every=4, validate_every=4, tensorboard=False, mesh=getattr(MeshConfig, mesh)(),
    )  # fmt: skip

    def validation(params0, tau):
        time.sleep(told.get("slow", 0))
        return [("slow", 0.0)]

    run = fine_tune(
        f, theta0, data, regime="linear", config=config, run_dir=Path(told["out"]) / mesh,
        validation=validation,
    )  # fmt: skip
    loss = [row["loss"] for row in run.history if "loss" in row][-1]
    print("resumed from", run.resumed_from, "loss", loss, flush=True)


statuses: dict[int, int] = {}


def start(told):
    number = os.fork()
    if number:
        return number
    log = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={told['devices']}"
    work(told)
    raise SystemExit


def wait(number, seconds):
    end = time.monotonic() + seconds
    while number not in statuses and time.monotonic() < end:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            statuses[number] = os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    return statuses.get(number)


if __name__ == "__main__":
    for line in sys.stdin:
        asked = json.loads(line)
        found = start(asked["start"]) if "start" in asked else wait(asked["wait"], asked["seconds"])
        print(json.dumps(found), flush=True)

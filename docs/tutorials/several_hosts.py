"""Several hosts.

One fine-tuning on the devices of two hosts: it comes to the bits that one host with as many devices
comes to, also where a host dies on the way. Two processes of this machine stand for the hosts here,
with a device each. What they run is a script that would run on a cluster: [how to start it
there](../how-to/several_hosts.md).
"""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import linearize as lz

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/several_hosts").absolute()
out.mkdir(parents=True, exist_ok=True)

# %% What each host runs
# Before all else it meets the others. Under SLURM, MPI or Kubernetes and on a TPU,
# `hosts.initialize()` finds them by itself. The run directory is one that all hosts see; the first
# process writes it.
script = out / "train.py"
script.write_text("""
import sys

from linearize import hosts

folder, *others = sys.argv[1:]
if others:
    address, processes, process = others
    hosts.initialize(address, int(processes), int(process))

import jax
import jax.numpy as jnp
import numpy as np

from linearize.train import MeshConfig, OptimConfig, TrainConfig, fine_tune

rng = np.random.default_rng(0)
x = rng.normal(size=(256, 8)).astype(np.float32)
data = {"inputs": x, "labels": (x @ rng.normal(size=(8, 4))).argmax(1)}
theta0 = {"a": rng.normal(size=(8, 16)) / 3, "b": rng.normal(size=(16, 4)) / 4}

config = TrainConfig(
    optim=OptimConfig(lr=1e-2, warmup=10),
    steps=600,
    batch_size=32,
    mesh=MeshConfig.fsdp(),  # every device holds a share of each leaf and of each batch
    checkpoint_every=100,
    tensorboard=False,
)
run = fine_tune(
    lambda params, x: jnp.tanh(x @ params["a"]) @ params["b"],
    theta0,
    data,
    regime="linear",
    config=config,
    run_dir=folder,
)
first, last = run.history[0]["loss"], run.history[-1]["loss"]
if hosts.first():
    where = f"{jax.process_count()} process(es), {jax.device_count()} devices"
    print(f"{where}: loss {first:.3f} to {last:.3f}, resumed: {run.resumed_from > 0}")
""")


def start(folder: str, devices: int, *others: object) -> subprocess.Popen:
    flags = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    return subprocess.Popen(
        [sys.executable, str(script), str(out / folder), *map(str, others)],
        env=os.environ | flags,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def two(folder: str) -> list[subprocess.Popen]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    return [start(folder, 1, address, 2, process) for process in range(2)]


def logs(*hosts: subprocess.Popen) -> list[list[str]]:
    """The lines of each, once it has ended."""
    return [host.communicate()[0].splitlines() for host in hosts]


# %% One host with two devices
print(logs(start("one", 2))[0][-1])

# %% Two hosts, of which one dies
# It is killed after the first checkpoint. The other ends by itself, and says what to do. Its status
# is 1; or 134 where JAX, which watches the others too, was the first to see it.
hosts = two("two")
while not (out / "two" / "checkpoints" / "100").exists():
    time.sleep(0.01)
hosts[1].kill()
last = logs(*hosts)[0][-1]
print(last[last.index("another process") :].partition(" (")[0])
print("the other host ended with an error:", hosts[0].returncode != 0)

# %% The same command once more
# It goes on from the checkpoint.
hosts = two("two")
print(logs(*hosts)[0][-1])
print("statuses", [host.returncode for host in hosts])

# %% What is equal
# Every bit of the task vectors.
taus = {name: lz.TaskVector.load(out / name / "task_vector.safetensors") for name in ("one", "two")}
for name, leaf in taus["one"].delta.items():
    same = np.array_equal(leaf, taus["two"].delta[name])
    print(f"{name} {leaf.shape}: the same bits: {same}")

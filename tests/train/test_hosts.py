"""Fine-tuning by several processes: the bits of one with as many devices, whatever happens."""

import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from linearize import io
from linearize.joining import PARTING, Processes
from linearize.train.interrupt import REQUEUE

IN_TIME = 6 + 15
"""Seconds after which survivors of a process have ended: its silence, and those of the promise."""
ENDED = {3, -signal.SIGABRT}
"""By an error, which is caught, or by JAX."""
GONE = "another process ended, or cannot be reached. What was saved is whole: start the same"
BUSY = 4_000_000
"""Rounds of a hash, a few seconds in which Python answers no signal."""
FORKED = Path(__file__).with_name("forked.py")
RUN = {"steps": 24, "meshes": ["fsdp"]}
BOTH = {"steps": 24, "meshes": ["fsdp", "data_parallel"]}


@dataclass(frozen=True)
class Forked:
    """A process that forks others."""

    server: subprocess.Popen
    logs: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def ask(self, **asked):
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(self, devices=1, **told):
        """A process, and where its words go."""
        log = self.logs / str(next(self.numbers))
        return self.ask(start={**told, "devices": devices, "log": str(log)}), log

    def ended(self, processes, seconds=90.0):
        """What they said, and their exit statuses."""
        end = time.monotonic() + seconds
        waited = [self.ask(wait=p, seconds=end - time.monotonic()) for p, _ in processes]
        return [log.read_text() for _, log in processes], waited

    @contextmanager
    def together(self, n, others=(), **told):
        """Processes that meet; ``others`` says by number what some are told beside it."""
        at, beside = f"localhost:{free_port()}", dict(others)
        found = [
            self.start(at=at, processes=n, process=i, **{**told, **beside.get(i, {})})
            for i in range(n)
            if beside.get(i, {}) is not None
        ]
        try:
            yield found
        finally:
            for number, _ in found:
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
                self.ask(wait=number, seconds=5)


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def forked(tmp_path_factory):
    place = tmp_path_factory.mktemp("forked")
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(place / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    with subprocess.Popen(
        [sys.executable, FORKED], env=os.environ | cache, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as server:  # fmt: skip
        yield Forked(server, place)
        server.stdin.close()


@pytest.fixture(scope="module")
def alone(forked, tmp_path_factory):
    """What one process with so many devices comes to."""

    def run(devices, told):
        out = tmp_path_factory.mktemp("alone")
        said, status = forked.ended([forked.start(devices=devices, out=str(out), **told)])
        assert status == [0], said
        return out

    return run


@pytest.fixture(scope="module")
def four(forked, tmp_path_factory):
    """What four come to, of which one is slow, and what they said."""
    out = tmp_path_factory.mktemp("four")
    with forked.together(4, {2: {"slow": 1.0}}, out=str(out), **RUN) as processes:
        said, status = forked.ended(processes)
    assert status == [0, 0, 0, 0], said
    return out, said


def until(path: Path, seconds: float = 60):
    """Until there is such a file."""
    end = time.monotonic() + seconds
    while not list(path.parent.glob(path.name)):
        assert time.monotonic() < end, path
        time.sleep(0.02)


def vector(out, mesh="fsdp"):
    """The task vector, as one array."""
    leaves = io.load_tree(out / mesh / "task_vector.safetensors")[0]
    return np.concatenate([leaves[name].ravel() for name in sorted(leaves)])


@pytest.mark.slow
def test_two_processes_train_what_one_does_to_the_bit(tmp_path, forked, alone):
    expected = alone(2, BOTH)
    with forked.together(2, out=str(tmp_path), **BOTH) as processes:
        said, status = forked.ended(processes)
    assert status == [0, 0], said
    for mesh in BOTH["meshes"]:
        assert np.array_equal(vector(tmp_path, mesh), vector(expected, mesh))


@pytest.mark.slow
def test_four_processes_train_what_one_does_to_rounding_and_wait_for_a_slow_one(alone, four):
    """Four numbers are summed in another order over a network; each step adds such a rounding."""
    out, said = four
    assert len({words.splitlines()[-1] for words in said}) == 1
    found, expected = vector(out), vector(alone(4, RUN))
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert error < RUN["steps"] * 4 * np.finfo(np.float32).eps


@pytest.mark.slow
def test_however_a_process_is_killed_the_others_end_and_the_same_command_goes_on(
    tmp_path, forked, four
):
    """In a step; while it writes its part of a checkpoint; the first, before that has its name."""
    checkpoints = tmp_path / "fsdp" / "checkpoints"
    kills = [
        (3, {"slow": 0.3}),
        (2, {"dies": ["_seal_together"]}),
        (0, {"dies": ["_finish"]}),
    ]
    for victim, told in kills:
        with forked.together(4, {victim: told}, out=str(tmp_path), **RUN) as processes:
            killed, _ = processes[victim]
            if "slow" in told:
                until(checkpoints / "4")
                os.kill(killed, signal.SIGKILL)
            _, status = forked.ended([processes[victim]])
            assert status == [-signal.SIGKILL]
            others = [each for each in processes if each[0] != killed]
            said, status = forked.ended(others, IN_TIME)
        assert set(status) <= ENDED, said
        assert all(GONE in words for words in said)
        assert [each.name for each in checkpoints.iterdir() if each.name.isdigit()]
    with forked.together(4, out=str(tmp_path), **RUN) as processes:
        said, status = forked.ended(processes)
    assert status == [0, 0, 0, 0], said
    assert "resumed from 0 " not in said[0].splitlines()[0]
    assert np.array_equal(vector(tmp_path), vector(four[0]))


@pytest.mark.slow
def test_who_does_not_come_and_who_dies_at_once_end_the_others_in_time(tmp_path, forked):
    began = time.monotonic()
    with forked.together(4, {3: None}, out=str(tmp_path), wait=4, **RUN) as processes:
        said, status = forked.ended(processes, 4 + 15)
    assert set(status) <= ENDED, said
    assert all("the processes did not meet at localhost:" in words for words in said)
    assert all("within 4 s; see that all were started" in words for words in said)
    with forked.together(3, {1: {"leaves": True}}, out=str(tmp_path), **RUN) as processes:
        said, status = forked.ended(processes, IN_TIME)
    assert status[1] == 9
    assert {status[0], status[2]} <= ENDED, said
    assert all(GONE in said[i] for i in (0, 2))
    assert time.monotonic() - began < 4 + 15 + IN_TIME
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_signal_to_one_stops_both_after_the_same_step(tmp_path, forked):
    out = tmp_path / "fsdp"
    with forked.together(2, out=str(tmp_path), steps=4000, meshes=["fsdp"]) as processes:
        until(out / "checkpoints" / "4")
        os.kill(processes[1][0], signal.SIGTERM)
        said, status = forked.ended(processes)
    assert status == [REQUEUE, REQUEUE], said
    steps = {words.split("interrupted at step ")[1].split(" ")[0] for words in said}
    assert len(steps) == 1
    assert (out / "checkpoints" / steps.pop()).is_dir()


@pytest.mark.slow
@pytest.mark.parametrize("does", [({"sleeps": 60}, {"busy": BUSY}), ({"busy": BUSY}, {})])
def test_a_signal_to_all_ends_all_by_its_status_however_late_one_of_them_sees_it(
    tmp_path, forked, does
):
    """JAX would abort the second where the first had gone. The other waits for the late one."""
    others = {i: {"ready": str(tmp_path / str(i)), **each} for i, each in enumerate(does)}
    with forked.together(2, others) as processes:
        for i in range(2):
            until(tmp_path / str(i))
        for number, _ in processes:
            os.kill(number, signal.SIGTERM)
        said, statuses = forked.ended(processes, seconds=PARTING + 15)
    assert statuses == [REQUEUE, REQUEUE], "\n".join(said)
    for words in said:
        assert "stopped by SIGTERM; the same command goes on from here" in words
        assert "another process" not in words


@pytest.mark.slow
def test_who_alone_is_told_to_end_waits_for_the_others_no_longer_than_it_may(tmp_path, forked):
    others = {0: {"ready": str(tmp_path / "0"), "sleeps": 60}, 1: {"ready": str(tmp_path / "1")}}
    with forked.together(2, others) as processes:
        for i in range(2):
            until(tmp_path / str(i))
        os.kill(processes[0][0], signal.SIGTERM)
        said, statuses = forked.ended(processes, seconds=PARTING + IN_TIME)
    assert statuses[0] == REQUEUE, "\n".join(said)
    assert statuses[1] in {1, -signal.SIGABRT}, "\n".join(said)
    assert GONE in said[1]


@pytest.mark.slow
def test_a_process_of_another_configuration_is_refused_by_name(tmp_path, forked):
    told = {"out": str(tmp_path / "run"), "steps": 4, "meshes": ["fsdp"]}
    with forked.together(2, {1: {"lr": 0.5}}, **told) as processes:
        said, status = forked.ended(processes)
    assert status == [3, 3], said
    for words in said:
        assert "config.optim.lr is 0.5 in process 1 and 0.01 in process 0" in words
    assert not (tmp_path / "run").exists()


HOSTS = """
printf '127.0.0.1 localhost\n10.9.0.1 here\n10.9.0.2 there\n' > "$LOGS/hosts"
mount --bind "$LOGS/hosts" /etc/hosts && hostname here
ip link set lo up
unshare -nu sleep 300 & other=$!
sleep 0.5
nsenter -t $other -u hostname there
ip link add name here type veth peer name there
ip link set there netns $other
ip addr add 10.9.0.1/24 dev here && ip link set here up
nsenter -t $other -n ip addr add 10.9.0.2/24 dev there
nsenter -t $other -n ip link set there up
nsenter -t $other -n ip link set lo up
sleep 0.5
trap 'kill $(jobs -p)' EXIT
"$@" 0 > "$LOGS/0" 2>&1 & first=$!
nsenter -t $other -n -u "$@" 1 > "$LOGS/1" 2>&1 & second=$!
until [ -d "$CUT_AT" ]; do sleep 0.1; kill -0 $first || exit 1; done
ip link set here down
began=$SECONDS
wait $first; echo $?
wait $second; echo $?
echo $((SECONDS - began))
"""
"""Two hosts of their own addresses, and a cable between them that is cut."""
ON_HOST = """
import json, sys
told = json.loads(sys.argv[1])
sys.path.insert(0, told["beside"])
import forked
forked.work({**told, "process": int(sys.argv[2])})
"""


def may_have_hosts():
    """Why there can be no hosts here; empty where there can."""
    if not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
        return "network namespaces need unshare, nsenter and ip"
    tried = subprocess.run(
        ["unshare", "-rmnu", "ip", "link", "add", "name", "x", "type", "veth", "peer", "name", "y"],
        capture_output=True, text=True,
    )  # fmt: skip
    return f"network namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@pytest.mark.slow
def test_two_hosts_whose_cable_is_cut_both_end_in_time(tmp_path):
    if reason := may_have_hosts():
        pytest.skip(reason)
    told = {
        "at": "10.9.0.1:4321", "processes": 2, "out": str(tmp_path), "steps": 10**6,
        "meshes": ["fsdp"], "beside": str(FORKED.parent),
    }  # fmt: skip
    places = {"LOGS": str(tmp_path), "CUT_AT": str(tmp_path / "fsdp" / "checkpoints" / "8")}
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    on_host = (sys.executable, "-c", ON_HOST, json.dumps(told))
    done = subprocess.run(
        ["unshare", "-rmnu", "bash", "-c", HOSTS, "hosts", *on_host],
        env=os.environ | places | flags, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    said = [(tmp_path / name).read_text() for name in "01"]
    first, second, seconds = map(int, done.stdout.split())
    assert {first, second} <= {3, 128 + signal.SIGABRT}, said
    assert seconds <= IN_TIME
    assert all(GONE in words for words in said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("10.0.0.1:1234", 2), "at='10.0.0.1:1234' without process; give the address of process 0"),
        (("10.0.0.1:1234", None, 1), "without processes;"),
        (("10.0.0.1", 2, 1), "at='10.0.0.1'; expected HOST:PORT of process 0, or what the"),
        (("10.0.0.1:", 2, 1), "at='10.0.0.1:'; expected HOST:PORT, such as"),
        ((":1234", 2, 1), "at=':1234'; expected HOST:PORT"),
        (("10.0.0.1:99999", 2, 1), "expected HOST:PORT"),
        (("10.0.0.1:1234", 2, 2), "process=2 of processes=2; they are counted from 0, so give 0 "),
        (("10.0.0.1:1234", 2, -1), "process=-1 of processes=2"),
        (("10.0.0.1:1234", 0, 0), "processes=0; give 1 or more"),
        ((None, 2, 1), "processes=2 and process=1 without HOST:PORT of process 0; give all three"),
        (("slurm", None, 1), "process=1 without HOST:PORT of process 0"),
        (("[::1]:1234", 2, 1, 0), "wait=0; give 1 second or more"),
    ],
)
def test_processes_that_cannot_meet_are_refused(given, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Processes(*given)

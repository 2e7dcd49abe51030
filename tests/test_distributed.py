"""``--distributed``: several processes do one command, by the page's script; what is refused.

SLURM is a stand-in that starts processes with the variables that ``srun`` gives them.
"""

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from configs import PRESETS
from experiments import running
from experiments.subsets.run import run
from linearize import cli, command, distributed, hosts, io
from linearize.joining import Processes
from linearize.train import MeshConfig

PAGE = (Path(__file__).parents[1] / "docs" / "how-to" / "several_hosts.md").read_text("utf-8")
SCRIPT = re.findall(r"```bash\n(#!/bin/bash.*?)```", PAGE, re.DOTALL)[0]
SRUN = """#!/usr/bin/env bash
for i in 0 1; do
  SLURM_JOB_ID=$JOB SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=1 SLURM_NTASKS=2 \\
    SLURM_PROCID=$i SLURM_LOCALID=$i LINEARIZE_CACHE=$LOGS/cache_$i "$@" > "$LOGS/$i" 2>&1 &
  tasks+=($!)
done
if [ -n "${TERM_AT:-}" ]; then
  until [ -e "$TERM_AT" ]; do kill -0 "${tasks[0]}" || exit 1; sleep 0.05; done
  kill -TERM "${tasks[@]}"
fi
for task in "${tasks[@]}"; do
  wait "$task"; status=$?
  [ "$status" -gt "${highest:-0}" ] && highest=$status
done
exit "${highest:-0}"
"""


@pytest.fixture
def slurm(tmp_path):
    """``slurm(*words)``: the page's script given these; its status, and what was requeued."""
    tools = {"srun": SRUN, "scontrol": '#!/bin/sh\necho "$@" >> "$LOGS/requeued"\n'}
    for name, text in {**tools, "several_hosts.sh": SCRIPT}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job = str(os.getpid() + 7)

    def submit(*words: str, **environment: str) -> tuple[int, list[str]]:
        told = {
            "LOGS": str(tmp_path), "JOB": job, "SLURM_JOB_ID": job,
            "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")
            + " --xla_force_host_platform_device_count=1",
        }  # fmt: skip
        done = subprocess.run(
            [tmp_path / "several_hosts.sh", *words], env={**os.environ, **told, **environment}
        )
        asked = tmp_path / "requeued"
        return done.returncode, asked.read_text().split("\n")[:-1] if asked.exists() else []

    return submit


@pytest.mark.parametrize(("status", "again"), [(0, False), (1, False), (75, True), (137, False)])
def test_the_script_is_put_back_into_the_queue_after_sigterm_alone(slurm, tmp_path, status, again):
    (tmp_path / "srun").write_text(f"#!/bin/sh\nexit {status}\n")
    assert slurm("x") == (status, [f"requeue {os.getpid() + 7}"] if again else [])


@pytest.mark.slow
def test_two_processes_under_slurm_make_the_page_and_the_numbers_of_one(
    slurm, tmp_path, monkeypatch, quick
):
    """Each has a cache of its own. The first attempt is preempted; the second goes on."""
    together, alone = tmp_path / "together", tmp_path / "alone"
    told = ("debug", "--seeds", "0", "--regimes", "linear")
    words = ("experiments.subsets", *told, "--run-dir", str(together))
    status, requeued = slurm(*words, TERM_AT=str(together / "versions.json"))
    assert (status, len(requeued)) == (75, 1), (tmp_path / "0").read_text()
    assert slurm(*words) == (0, requeued), (tmp_path / "0").read_text()
    first, second = ((tmp_path / name).read_text() for name in "01")
    assert "2 processes, 2 devices" in first
    assert "report: " in first
    assert not re.search(r"^\d\d:|report", second, re.MULTILINE)  # no log, no tables

    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path / "cache"))
    given = cli.parse("subsets", PRESETS["subsets"], told).config
    two = MeshConfig(axes=(("data", 2),))
    run(replace(given, linear=replace(given.linear, mesh=two)), alone, "debug")
    drawn = [
        {path.relative_to(folder) for path in folder.rglob("*") if path.suffix in (".html", ".svg")}
        for folder in (together, alone)
    ]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) > 1
    found, expected = (io.read_json(folder / "results.json") for folder in (together, alone))
    assert found.keys() == expected.keys()
    for name in found.keys() - {"config", "seconds"}:
        assert found[name] == expected[name], name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--processes 2 --process 0", "--processes without --distributed; give --distributed HOST"),
        ("--distributed 10.0.0.1:1 --processes 2", "--distributed '10.0.0.1:1' without process;"),
        ("--distributed 10.0.0.1 --processes 2 --process 0", "--distributed '10.0.0.1'; expected"),
        ("--distributed a:1 --processes 2 --process 2", "--process 2 of --processes 2; they are"),
        ("--distributed a:1 --processes two --process 0", "--processes two: expected a whole"),
        ("--distributed --process 1", "--process 1 without HOST:PORT of process 0; give all three"),
        ("--distributed a:1 --processes", "--processes needs a value"),
        ("--distributed --wait=0", "--wait 0; give 1 second or more"),
        ("--distributed --work", "Give --distributed, or --plan, --only or --work"),
    ],
)
def test_processes_that_are_not_whole_are_refused(words, said, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.parse("compare", PRESETS["compare"], ["debug", *words.split()])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected", "rest"),
    [
        ("--distributed", Processes(), ""),
        ("--a 1 --distributed --b", Processes(), "--a 1 --b"),
        ("--distributed mpi4py --b 2", Processes("mpi4py"), "--b 2"),
        ("--process=1 --distributed=h:1 --processes 2 -x", Processes("h:1", 2, 1), "-x"),
        ("--distributed --wait 9", Processes(wait=9), ""),
        ("--processors 2", None, "--processors 2"),
    ],
)
def test_processes_are_taken_out_of_a_command_line(words, expected, rest):
    assert distributed.split(words.split()) == (expected, rest.split())


def test_what_one_process_does_alone_says_so(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main(["merge", "a", "--base", "b", "--out", "c", "--distributed"])
    assert stop.value.code == 2
    monkeypatch.setattr(sys, "argv", ["tune", "debug", "--distributed"])
    with pytest.raises(SystemExit):
        cli.launch("tune", PRESETS["compare"], lambda _: 1 / 0)
    said = capsys.readouterr().err
    assert "error: linearize merge is done by one process" in said
    assert "error: experiments.tune is done by one process; give the command without" in said


def test_jax_that_was_used_before_is_named(monkeypatch):
    np.asarray(hosts.put(np.zeros(1), None))  # a device is in use
    with pytest.raises(hosts.HostError, match="JAX was used before the processes met; call hosts"):
        hosts.initialize("localhost:1", 1, 0)


@pytest.mark.slow
def test_processes_that_nothing_here_names_are_missed():
    program = "from linearize import hosts\nhosts.initialize()"
    bare = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "OMPI", "KUBER"))}
    done = subprocess.run(
        [sys.executable, "-c", program], env=bare, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "nothing here says which processes there are: no variables of SLURM" in done.stderr


WALK = """
import importlib, pkgutil
from jax._src import xla_bridge
for name in ("linearize", "experiments", "configs"):
    package = importlib.import_module(name)
    for each in pkgutil.walk_packages(package.__path__, name + "."):
        if not each.name.endswith("__main__") and ".bench" not in each.name:
            importlib.import_module(each.name)
            assert not xla_bridge.backends_are_initialized(), each.name
"""


@pytest.mark.slow
def test_nothing_is_computed_by_an_import():
    """Processes meet before JAX is used, and after what a command is made of was imported."""
    done = subprocess.run([sys.executable, "-c", WALK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_option_of_every_experiment(monkeypatch):
    """What ``running.launch`` starts, processes can do together."""
    given = {}
    monkeypatch.setattr(cli, "launch", lambda *_, **how: given.update(how))
    running.launch("width", lambda *_: 1 / 0)
    assert given["together"]

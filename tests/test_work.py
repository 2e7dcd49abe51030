"""Fine-tunings that several processes share: nothing is lost, nothing is made twice."""

import importlib
import itertools
import json
import logging
import math
import os
import random
import re
import runpy
import shlex
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
import tyro

from configs import PRESETS
from experiments import gather, running
from experiments.compare.run import fine_tunings as of_compare
from linearize import cli, command, comparison, config, io
from linearize.methods import JOINT, LINEAR, NONLINEAR, POSTHOC
from linearize.study import FineTuning, Job, Store, fine_tunings
from linearize.train import RunLockedError, lock
from linearize.train.lock import exclusive, together

NAMES = ("seed_0/linear/a", "seed_0/linear/b", "seed_1/linear/a")
PLAIN = ["experiments.compare", "debug"]
ELSEWHERE = "process 7 on node3\nboot 4f"


def test_fine_tunings_are_those_of_seeds_methods_and_tasks(tmp_path):
    """A method that takes another's vectors has none of its own, and a joint one has one."""
    methods = (NONLINEAR, POSTHOC, LINEAR, JOINT)
    found = fine_tunings(Store.of(tmp_path), (0, 2), methods, ("a", "b"), lambda *_: 1 / 0)
    each = ("nonlinear/a", "nonlinear/b", "linear/a", "linear/b", "joint")
    assert [str(one.folder.relative_to(tmp_path)) for one in found] == [
        f"seed_{seed}/{name}" for seed in (0, 2) for name in each
    ]


class Several:
    """A job that several share; what each of them made, in order."""

    def __init__(self, root: Path) -> None:
        self.root, self.made = root, []
        self.meanwhile = {}

    def job(self, who: int) -> Job[str]:
        def train(name: str) -> None:
            self.made.append((who, name))
            self.meanwhile.pop(name, lambda: None)()

        return Job(
            self.root,
            [FineTuning(self.root / name, partial(train, name)) for name in NAMES],
            partial(together, self.root),
            partial(self.finish, who),
        )

    def finish(self, who: int) -> str:
        with exclusive(self.root):
            self.made.append((who, "the report"))
            return f"finished by {who}"


@pytest.fixture
def several(tmp_path):
    return Several(tmp_path)


def test_each_is_made_once_and_who_is_last_finishes(several, caplog):
    """The second starts and ends while the first is at its first fine-tuning."""
    caplog.set_level(logging.INFO)
    first, second = several.job(1), several.job(2)
    several.meanwhile[NAMES[0]] = lambda: several.made.append(second.work())
    assert first.work() == "finished by 1"
    assert several.made == [
        (1, NAMES[0]), (2, NAMES[1]), (2, NAMES[2]), None, (1, "the report")
    ]  # fmt: skip
    assert f"other processes train {NAMES[0]}; who is last finishes" in caplog.text
    assert first.left == []
    third = several.job(3)  # what is finished is not made again
    third.work()
    assert several.made[5:] == [(3, "the report")]
    with exclusive(several.root):  # while somebody writes the report
        assert several.job(4).only(NAMES[1]) is several.job(4).work() is None


def test_one_that_fails_does_not_keep_the_others(several):
    """It is made again by whoever comes next."""
    several.meanwhile[NAMES[0]] = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        several.job(1).work()
    assert several.job(2).left == [NAMES[0]]
    assert several.job(2).work() == "finished by 2"
    assert several.made == [*((1, name) for name in NAMES), (2, NAMES[0]), (2, "the report")]


def test_who_has_the_directory_alone_is_not_joined(several):
    with exclusive(several.root), pytest.raises(RunLockedError, match=f"process {os.getpid()} on"):
        several.job(1).work()
    with together(several.root), together(several.root), pytest.raises(RunLockedError, match="in"):
        several.finish(1)
    assert not several.made


def test_one_alone_waits_for_who_makes_it_and_the_last_goes_on(several):
    job = several.job(1)
    with pytest.raises(ValueError, match="seed_0/linear/a"):
        job.only("seed_0/linaer/a")
    assert job.only(NAMES[2]) is None
    with exclusive(several.root / NAMES[0], file="claim") as other:
        waiting = threading.Thread(target=job.only, args=(NAMES[0],))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        other.note = "finished"
    waiting.join()
    assert job.only(NAMES[1]) == "finished by 1"
    assert several.made == [(1, NAMES[2]), (1, NAMES[1]), (1, "the report")]


# a lock over several machines


@contextmanager
def written_elsewhere(directory: Path, ago: float, text: str = ELSEWHERE):
    """The lock as another machine's process left it, whose ``flock`` is not seen here."""
    path = directory / "lock.held"
    path.write_text(text)
    os.utime(path, (time.time() - ago,) * 2)
    yield path


@pytest.mark.parametrize("hold", [exclusive, together])
def test_a_sign_of_life_from_another_machine_is_respected(tmp_path, hold, caplog):
    with written_elsewhere(tmp_path, ago=100) as path:
        with pytest.raises(
            RunLockedError, match=r"by process 7 on node3, which gave .* 10\d s ago"
        ):
            hold(tmp_path).__enter__()
        assert path.read_text() == ELSEWHERE
    with written_elsewhere(tmp_path, ago=lock.SILENT + 10) as path, hold(tmp_path):
        taken = "process 7 on node3 gave no sign of life for 300 s and is taken to be dead"
        assert (taken in caplog.text) == (path.read_text() != ELSEWHERE) == (hold is exclusive)
    assert {path.name for path in tmp_path.iterdir()} <= {"lock", "lock.held"}


def test_what_this_machine_left_is_free_at_once(tmp_path):
    """``flock`` knows here who is dead; what an earlier version left gave no signs of life."""
    with written_elsewhere(tmp_path, ago=0, text=lock._signature()) as path:
        (tmp_path / "lock").write_text("process 7 on node3\n")
        with exclusive(tmp_path) as claim:
            assert claim.before == "process 7 on node3"
            assert path.read_text() == (tmp_path / "lock").read_text() == lock._signature()
    assert (tmp_path / "lock").read_text() == ""
    assert not path.exists()


def test_who_was_taken_over_stops(tmp_path):
    """It writes no more, and leaves the lock to the other."""
    with exclusive(tmp_path) as claim:
        with written_elsewhere(tmp_path, ago=100, text=lock._signature()) as path:
            claim.beat()
            assert time.time() - path.stat().st_mtime < 50
        claim.check()
        with written_elsewhere(tmp_path, ago=0):
            claim.beat()
        with pytest.raises(RunLockedError, match="taken over by process 7 on node3, as this"):
            claim.check()
    assert path.read_text() == ELSEWHERE


@pytest.mark.parametrize("left", [None, ELSEWHERE], ids=["free", "of a dead machine"])
def test_of_machines_that_come_at_once_one_gets_it(tmp_path, monkeypatch, left):
    """Where ``flock`` is each machine's own: here of no effect, and each thread is a machine."""
    monkeypatch.setattr(lock.fcntl, "flock", lambda *_: None)

    def name() -> str:
        return threading.current_thread().name

    monkeypatch.setattr(lock, "_signature", lambda: f"process 1 on {name()}\nboot {name()}")
    monkeypatch.setattr(lock, "_boot", name)
    entered, at_once, over = [], threading.Barrier(8), threading.Barrier(8)

    def come() -> None:
        at_once.wait()
        with suppress(RunLockedError), exclusive(tmp_path):
            entered.append(name())
            over.wait()
            return
        over.wait()

    for _ in range(5):
        if left:
            with written_elsewhere(tmp_path, lock.SILENT + 1, left):
                pass
        entered.clear()
        threads = [threading.Thread(target=come) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(30)
        assert len(entered) == 1


# the command line


def launched(monkeypatch, capsys, *words: str) -> list[str]:
    monkeypatch.setattr(sys, "argv", ["compare", *words])
    running.launch("compare", lambda *_: 1 / 0, of_compare)
    return capsys.readouterr().out.splitlines()


def test_a_plan_is_a_command_a_fine_tuning(tmp_path, monkeypatch, capsys):
    """Each is the command that was given, of one of them; those that are finished are left out."""
    words = ["debug", "--linear.steps", "7", "--run-dir", str(tmp_path / "a run")]
    plan = launched(monkeypatch, capsys, *words, "--plan")
    regimes = [f"{regime}/toy_{t}" for regime in ("nonlinear", "linear") for t in "ab"]
    every = [*regimes, "gradient_ascent/toy_a", "gradient_ascent/toy_b", "joint"]
    names = [f"seed_{seed}/{each}" for seed in (0, 1) for each in every]
    names += [f"random_init/seed_{seed}/{each}" for seed in (0, 1) for each in regimes]
    assert [shlex.split(line)[-1] for line in plan] == names
    program, *given = shlex.split(plan[3])
    assert (program, given[:2]) == (sys.executable, ["-m", "experiments.compare"])
    parsed = cli.parse("compare", PRESETS["compare"], given[2:])
    assert parsed.share == cli.Share(only=names[3])
    assert parsed.words == (sys.executable, "-m", "experiments.compare", *words)
    assert parsed.config.linear.steps == 7
    (tmp_path / "a run" / names[3]).mkdir(parents=True)
    (tmp_path / "a run" / names[3] / "claim").write_text("finished")
    assert launched(monkeypatch, capsys, *words, "--plan") == plan[:3] + plan[4:]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--only", "seed_0/linaer/toy_a"], 1, "seed_0/linear/toy_a"),
        (["--only"], 2, "as --plan lists them"),
        (["--plan", "--work"], 2, "--plan and --work are given; give one of them"),
    ],
)
def test_a_share_that_there_is_not_is_refused(tmp_path, monkeypatch, capsys, words, status, said):
    with pytest.raises(SystemExit) as stop:
        launched(monkeypatch, capsys, "debug", "--run-dir", str(tmp_path), *words)
    assert stop.value.code == status
    assert said in capsys.readouterr().err


SHARED = (
    *("audit", "compare", "kronecker", "learning_rate", "localization", "merging", "nli"),
    *("sentiment", "toxicity", "trajectory"),
)


@pytest.mark.slow
@pytest.mark.parametrize("experiment", SHARED)
def test_a_plan_is_of_what_a_run_trains(experiment, debug_run):
    """No more and no less: the folders that say so in a finished run."""
    run_dir = debug_run(experiment)
    module = importlib.import_module(f"experiments.{experiment}.run")
    planned = module.fine_tunings(PRESETS[experiment]["debug"](), run_dir)
    names = [each.folder.relative_to(run_dir).as_posix() for each in planned]
    trained = [each.parent.relative_to(run_dir).as_posix() for each in run_dir.rglob("done.json")]
    assert sorted(names) == sorted(trained)


def test_an_experiment_of_one_piece_says_so(monkeypatch, capsys):
    """Nor does it begin."""
    monkeypatch.setattr(sys, "argv", ["width", "debug", "--plan"])
    with pytest.raises(SystemExit):
        running.launch("width", lambda *_: 1 / 0)
    assert "experiments.width is one piece" in capsys.readouterr().err


def test_another_configuration_is_no_companion(tmp_path):
    """Of two that begin at once in an empty directory, one is refused."""
    preset = PRESETS["compare"]["debug"]()
    other = config.from_dict(type(preset), config.to_dict(preset) | {"batch_size": 8})
    with running.claimed(tmp_path, preset, shared=True):
        with running.claimed(tmp_path, preset, shared=True):
            pass
        with (
            pytest.raises(config.ConfigError, match="batch_size: 256 -> 8"),
            running.claimed(tmp_path, other, shared=True),
        ):
            pass


@pytest.mark.parametrize("verb", ["plan", "work"])
def test_a_verb_before_a_command_is_its_option(verb, monkeypatch, capsys):
    given = []
    monkeypatch.setattr(os, "execv", lambda *words: given.append(words) or sys.exit(0))
    with pytest.raises(SystemExit):
        command.main([verb, "experiments.compare", "debug"])
    assert given == [(sys.executable, [sys.executable, "-m", *PLAIN, f"--{verb}"])]
    with pytest.raises(SystemExit) as stop:
        command.main([verb, "merge", "a", "--base", "b", "--out", "c"])
    assert stop.value.code == 2
    assert "linearize merge trains nothing that can be shared" in capsys.readouterr().err


def test_the_page_on_it_names_commands_that_there_are(monkeypatch):
    """Blocks are shell; what they start is parsed as the shell would give it."""
    page = (Path(__file__).parents[1] / "docs" / "parallel.md").read_text()
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 6
    started: list = []
    plain = re.findall(r"python -m experiments\.(\w+) ([^#\n]*)", "\n".join(blocks))
    for experiment, words in plain:
        if experiment in PRESETS:
            assert cli.parse(experiment, PRESETS[experiment], shlex.split(words)).config.seeds
        else:
            assert experiment == "gather"
            job = tyro.cli(gather.Gather, args=shlex.split(words))
            assert (len(job.runs), str(job.into)) == (2, "runs/whole")
    assert len(plain) == 4
    monkeypatch.setattr(os, "execv", lambda _, words: started.append(words[2:]) or sys.exit(0))
    monkeypatch.setattr(command, "run_compare", lambda job, **share: started.append(share))
    monkeypatch.setitem(command.JOBS, "compare", (command.Compare, command.run_compare))
    for block in blocks:
        subprocess.run(["bash", "-n", "-c", block], check=True)
        for line in re.findall(r"linearize ((?:plan|work) (?!\.\.\.)[^>&\n]*)", block):
            with suppress(SystemExit):
                command.main(shlex.split(line))
    assert len(started) == 4
    for module, *words in (each for each in started if isinstance(each, list)):
        experiment = module.removeprefix("experiments.")
        assert cli.parse(experiment, PRESETS[experiment], words).share


# processes that are killed

WORKER = """
import os, sys, time
import jax.numpy as jnp
import numpy as np

import linearize as lz
from linearize import cli, comparison
from linearize.train import OptimConfig, TrainConfig, loop


def study(where):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 60, 4)).astype(np.float32)
    y = [(z[:, i] > 0).astype(int) for i, z in enumerate(x)]
    tasks = [lz.data.split_task(name, *xy) for name, *xy in zip("ab", x, y)]
    theta0 = {"w": rng.normal(size=(4, 3)), "v": rng.normal(size=(3, 2))}
    theta0 = {name: leaf.astype(np.float32) for name, leaf in theta0.items()}
    recipe = TrainConfig(
        optim=OptimConfig(lr=0.01), steps=40, batch_size=8, checkpoint_every=10,
        tensorboard=False, validate_every=1,
    )
    f = lambda params, x: jnp.tanh(x @ params["w"]) @ params["v"]
    recipes = {"nonlinear": recipe, "linear": recipe}
    return lz.Study((f, theta0), tasks, lz.Classify(), store=where, recipes=recipes)


HOW = {"methods": ["nonlinear", "linear"], "seeds": (0, 1), "maps": []}


def told(book, go=loop._Run.go):
    def run(self):  # called where something is trained, and not where it is read
        def say(what):
            line = f"{time.monotonic()} {os.getpid()} {what} {self.directory.path}\\n"
            os.write(book, line.encode())

        self.validation = lambda *_: time.sleep(0.01) or []
        say("begins")
        found = go(self)
        say("ends")
        return found

    return run


if __name__ == "__main__":
    loop._Run.go = told(os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT))
    with cli.reporting():
        comparison.job(study(sys.argv[1]), **HOW).work()
"""


def timeless(value):
    """Results without how long they took."""
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k != "seconds"}
    return [timeless(v) for v in value] if isinstance(value, list) else value


class Workers:
    """Processes that share a directory, and when each was killed."""

    def __init__(self, root: Path, count: int) -> None:
        self.root, self.log, self.killed = root / "shared", root / "log", {}
        self.log.touch()
        self.processes = [self.start() for _ in range(count)]

    def start(self) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-c", WORKER, str(self.root), str(self.log)])

    def events(self) -> dict[str, list[tuple[float, int, str]]]:
        """By fine-tuning, when which process began or ended it."""
        found = defaultdict(list)
        for line in self.log.read_text().splitlines():
            when, pid, what, where = line.split(" ", 3)
            name = Path(where).relative_to(self.root).as_posix()
            found[name].append((float(when), int(pid), what))
        return found

    def wait_for(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 240
        while not holds():
            assert time.monotonic() < deadline
            assert any(process.poll() is None for process in self.processes)
            time.sleep(0.02)

    def kill_one_that_trains(self, chance: random.Random) -> None:
        """Another takes its place."""
        last = [events[-1] for events in self.events().values()]
        at_work = {pid for _, pid, what in last if what == "begins"} - self.killed.keys()
        victim = chance.choice([p for p in self.processes if p.pid in at_work] or self.processes)
        self.killed[victim.pid] = time.monotonic()
        victim.kill()
        victim.wait()
        self.processes.remove(victim)
        self.processes.append(self.start())


@pytest.mark.slow
def test_four_processes_that_are_killed_lose_nothing_and_make_nothing_twice(tmp_path):
    seed = time.time_ns() % 2**32
    chance, workers = random.Random(seed), Workers(tmp_path, 4)
    for kills in range(1, 4):
        workers.wait_for(lambda n=kills: len(workers.events()) > n)
        time.sleep(chance.uniform(0, 0.5))
        workers.kill_one_that_trains(chance)
    assert [process.wait(240) for process in workers.processes] == [0] * 4, f"seed {seed}"

    alone = runpy.run_path(str(written(tmp_path / "alone.py", WORKER)))
    comparison.compare(alone["study"](tmp_path / "alone"), **alone["HOW"])
    whole, found = (
        json.loads((tmp_path / run / "results.json").read_text()) for run in ("alone", "shared")
    )
    assert timeless(found) == timeless(whole), f"seed {seed}"
    names = {f"seed_{s}/{m}/{t}" for s in (0, 1) for m in ("nonlinear", "linear") for t in "ab"}
    assert workers.events().keys() == names
    for name, events in workers.events().items():
        begins = [(when, pid) for when, pid, what in events if what == "begins"]
        # each but the last to begin it was killed before the next did
        assert all(
            workers.killed.get(pid, math.inf) < after
            for (_, pid), (after, _) in itertools.pairwise(begins)
        ), f"seed {seed}: {events}"
        assert sum(what == "ends" for *_, what in events) <= 1, f"seed {seed}: {events}"
        rows = map(json.loads, (workers.root / name / "metrics.jsonl").read_text().splitlines())
        assert [row["step"] for row in rows if "loss" in row] == [*range(10, 41, 10)]
        (one, notes), (other, same) = (
            io.load_tree(tmp_path / run / name / "task_vector.safetensors")
            for run in ("alone", "shared")
        )
        assert notes == same
        assert {n: leaf.tobytes() for n, leaf in one.items()} == {
            n: leaf.tobytes() for n, leaf in other.items()
        }


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path

"""Command line of an experiment: ``python -m experiments.NAME PRESET --a.b value``."""

import contextlib
import dataclasses
import hashlib
import inspect
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import jax
import tyro

from linearize import choices, compilation_cache, hosts, io, sealed
from linearize import config as configuration
from linearize.assets import AssetError
from linearize.data import DataError
from linearize.distributed import USAGE, split, stop
from linearize.io import CorruptFileError
from linearize.joining import HostError, Processes, Told, parting
from linearize.models import WeightsError
from linearize.narration import forgive, logged
from linearize.ntk import NotConvergedError
from linearize.report import ResultsError
from linearize.study import Job
from linearize.train import (
    CheckpointError,
    NonFiniteLossError,
    RunDirectoryError,
    RunLockedError,
    RunMismatchError,
    Terminated,
)
from linearize.train.interrupt import farewell, raised
from linearize.tree import NonFiniteError, StructureMismatch

log = logging.getLogger(__name__)

C = TypeVar("C")
T = TypeVar("T")

FORESEEN = (
    AssetError,
    CheckpointError,
    CorruptFileError,
    DataError,
    HostError,
    NonFiniteError,
    NonFiniteLossError,
    NotConvergedError,
    ResultsError,
    RunDirectoryError,
    RunLockedError,
    RunMismatchError,
    StructureMismatch,
    WeightsError,
    configuration.ConfigError,
    ModuleNotFoundError,
    OSError,
)
"""Errors whose message says what to do; :func:`sentence` completes it where it does not."""


@dataclasses.dataclass(frozen=True)
class Share:
    """What of a job a process does, where that is not all of it."""

    plan: bool = False
    """Print a command for each fine-tuning that is not finished, and do nothing."""
    work: bool = False
    """Be one of several processes that share the run directory: each takes the next fine-tuning
    that nobody has, and who is last evaluates and writes the report."""
    only: str | None = None
    """Make this fine-tuning alone, as --plan names it; who makes the last goes on as with
    --work."""

    def __post_init__(self) -> None:
        given = [f"--{n}" for n, x in dataclasses.asdict(self).items() if x not in (False, None)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are given; give one of them")

    def __bool__(self) -> bool:
        return self != WHOLE


WHOLE = Share()
"""All of it."""


def carry_out(share: Share, job: Job[T], command: Sequence[str]) -> T | None:
    """Do a share of a job, or all of it; what it comes to, where this process was the last.

    Args:
        share: of it.
        job: the whole.
        command: of the shell, which does all of it.

    Raises:
        configuration.ConfigError: it names a fine-tuning that there is not.
    """
    if not share:
        return job.finish()
    if share.plan:
        left, whole = job.left, len(job.fine_tunings)
        for name in left:
            print(shlex.join([*command, "--only", name]))
        log.info("%d fine-tunings, %d of them finished", whole, whole - len(left))
        return None
    if share.only is None:
        return job.work()
    names = [job.name(each) for each in job.fine_tunings]
    if share.only not in names:
        hint = choices.hint(share.only, names, "--plan lists them")
        raise configuration.ConfigError(f"--only {share.only}: no fine-tuning of this run{hint}")
    return job.only(share.only)


@dataclasses.dataclass(frozen=True)
class Command(Generic[C]):
    """A parsed command line: what to do, and where its results go."""

    preset: str
    config: C
    run_dir: Path
    share: Share = WHOLE
    words: Sequence[str] = ()
    """It as it was given, without the share."""
    keep_compiled: bool = True
    """Whether what is compiled is kept for the next run (``--no-compilation-cache``)."""
    processes: Processes | None = None
    """Those that do it together."""


def parse(
    experiment: str,
    presets: Mapping[str, Callable[[], C]],
    args: Sequence[str] | None = None,
) -> Command[C]:
    """Preset and overrides to a configuration and a run directory.

    The first word is a preset's name, or the path of a ``config.json`` that an earlier run left.
    Every field can be overridden (``--linear.optim.learning-rate 3e-5``); ``--run-dir`` says where
    results go, ``runs/EXPERIMENT/PRESET`` by default. ``--help`` after a preset lists all fields.

    Raises:
        SystemExit: a name or value that does not exist, with a suggestion (exit status 2).
    """
    words = list(sys.argv[1:] if args is None else args)
    program = f"python -m experiments.{experiment}"
    listed = "\n".join(f"  {name:<12} {summary(build)}" for name, build in presets.items())
    usage = (
        f"usage: {program} PRESET [--run-dir DIR] [--option value ...]\n"
        f"presets (PRESET --help tells more, and lists the options):\n{listed}"
    )
    if not words or words[0] in ("-h", "--help"):
        print(usage)
        raise SystemExit(0 if words else 2)
    name, *rest = words
    default = _preset(name, presets, usage)
    share, rest = split_share(rest)
    processes, rest = split(rest, bool(share))
    given = (sys.executable, "-m", f"experiments.{experiment}", name, *rest)
    keep_compiled, rest = split_cache(rest)
    run_dir, rest = _run_dir(rest, Path("runs") / experiment / Path(name).stem)
    if name in presets and {"-h", "--help"} & set(rest):
        # as it stands: tyro would run its tables together
        print(f"{notebook(presets[name])}\n\nResults go to {run_dir} (--run-dir DIR).\n")
        print(SHARES)
        print(USAGE)
    try:
        config = tyro.cli(
            type(default),
            default=default,
            args=rest,
            prog=f"{program} {name}",
            description="",
            config=(tyro.conf.AvoidSubcommands,),
        )
    except ValueError as error:
        stop(str(error))
    return Command(Path(name).stem, config, run_dir, share, given, keep_compiled, processes)


def notebook(build: Callable[[], object]) -> str:
    """A preset's docstring: the command, what to expect, and how long it takes."""
    return inspect.getdoc(build) or "No notes."


def summary(build: Callable[[], object]) -> str:
    """Its first line."""
    return notebook(build).splitlines()[0]


def launch(
    experiment: str,
    presets: Mapping[str, Callable[[], C]],
    run: Callable[[Command[C]], None],
    *,
    shared: bool = False,
    together: bool = False,
) -> None:
    """Parse the command line, say what is going to be done, and run, :func:`reporting`.

    Args:
        experiment: its name.
        presets: by name.
        run: does what the command says.
        shared: whether it knows of shares.
        together: whether several processes can do it, each with its share of the devices.

    Raises:
        SystemExit: status 2 for a command line that cannot be run, 1 for an error that the library
            foresees, 130 for Ctrl-C.
    """
    command = parse(experiment, presets)
    joining = command.processes if together else None
    with parting(), reporting(run_dir=command.run_dir, processes=joining):
        if command.keep_compiled:
            compilation_cache.keep()
        if command.share and not shared:
            raise configuration.ConfigError(
                f"experiments.{experiment} is one piece: its fine-tunings cannot be shared among "
                "processes; give the command without --plan, --only and --work"
            )
        if command.processes and not together:
            raise configuration.ConfigError(
                f"experiments.{experiment} is done by one process; give the command without "
                "--distributed"
            )
        build = presets.get(command.preset)
        what = "" if build is None else f": {summary(build)}"
        log.info("%s %s%s", experiment, command.preset, what)
        seeds = getattr(command.config, "seeds", ())
        log.info(
            "seed%s %s; results go to %s",
            "s" if len(seeds) > 1 else "", ", ".join(map(str, seeds)) or "–", command.run_dir,
        )  # fmt: skip
        run(command)


@contextlib.contextmanager
def reporting(
    status: int = 1, run_dir: Path | None = None, processes: Processes | None = None
) -> Iterator[None]:
    """Log to the terminal; foreseen errors and signals end in a sentence, not a traceback.

    Args:
        status: of errors that the library foresees.
        run_dir: what an error that it does not foresee names.
        processes: that are joined first; of these, the first alone logs what is no warning.

    Raises:
        SystemExit: ``status`` for an error that the library foresees, 130 for Ctrl-C,
            :data:`linearize.train.REQUEUE` for SIGTERM, 129 for SIGHUP, 141 where nobody reads
            standard output any more.
    """
    forgive()
    who = ""
    try:
        with logged() as narrator, raised(), hosts.reached():
            if processes is not None:
                processes.join()
                if not hosts.first():
                    who = f"process {jax.process_index()}: "
                    narrator.whisper(who)
                log.info("%d processes, %d devices", jax.process_count(), jax.device_count())
            yield
            sys.stdout.flush()
    except KeyboardInterrupt as stop:
        print(f"\nstopped: {str(stop) or 'nothing is lost'}", file=sys.stderr)
        print("the same command goes on from here", file=sys.stderr)
        raise Told(130) from None
    except Terminated as stop:
        with contextlib.suppress(OSError):  # the terminal that hung up takes no words
            print(farewell(stop.number), file=sys.stderr)
        raise Told(stop.code) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else its end is an error
        raise SystemExit(141) from None
    except Exception as error:
        if said := sentence(error):
            print(f"{who}error: {said}", file=sys.stderr)
            raise SystemExit(status) from None
        if run_dir is not None:
            error.add_note(
                f"error: not foreseen, so the lines above are for who mends it. What was measured "
                f"is in {run_dir}, and the same command goes on from there"
            )
        raise


def sentence(error: Exception) -> str | None:
    """What to tell the user of an error that can be foreseen; None of any other."""
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; mend that, and the same command goes on from here"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"the Python package {error.name!r} is missing: pip install {error.name}"
    if isinstance(error, MemoryError) or str(error).startswith("RESOURCE_EXHAUSTED"):
        return f"out of memory; lower the batch sizes ({str(error).partition(chr(10))[0]})"
    return (str(error) or type(error).__name__) if isinstance(error, FORESEEN) else None


def _preset(name: str, presets: Mapping[str, Callable[[], C]], usage: str) -> C:
    if name in presets:
        return presets[name]()
    if name.endswith(".json"):
        kind = type(next(iter(presets.values()))())
        try:
            return configuration.load_config(kind, name)
        except configuration.ConfigError as error:
            stop(str(error))
        except (TypeError, ValueError) as error:
            stop(f"{name}: not a configuration of this experiment ({error})")
    stop(f"unknown preset {name!r}{choices.hint(name, presets)}\n{usage}")
    raise AssertionError


def _run_dir(words: list[str], default: Path) -> tuple[Path, list[str]]:
    rest, run_dir = [], default
    iterator = iter(words)
    for word in iterator:
        if word == "--run-dir":
            value = next(iterator, "")
        elif word.startswith("--run-dir="):
            value = word.partition("=")[2]
        else:
            rest.append(word)
            continue
        if not value or value.startswith("--"):
            stop(f"--run-dir needs a directory, and {value!r} is none")
        run_dir = Path(value)
    return run_dir, rest


NO_CACHE = "--no-compilation-cache"


def split_cache(words: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether what is compiled is to be kept for the next run, and a command's other words."""
    rest = [word for word in words if word != NO_CACHE]
    return len(rest) == len(words), rest


SHARES = """\
--plan lists its fine-tunings, a command each; --only NAME makes one of them; --work makes this one
of several processes that share them. What is compiled is kept in the user's cache directory for the
next run, which --no-compilation-cache leaves alone.
"""


def split_share(words: Sequence[str]) -> tuple[Share, list[str]]:
    """The share that a command line asks for, and its other words.

    Raises:
        SystemExit: two shares, or ``--only`` without a name (exit status 2).
    """
    given: dict[str, Any] = {}
    rest, iterator = [], iter(words)
    for word in iterator:
        if word in ("--plan", "--work"):
            given[word[2:]] = True
        elif word.partition("=")[0] == "--only":
            value = word.partition("=")[2] or next(iterator, None)
            if value is None:
                stop("--only needs the name of a fine-tuning, as --plan lists them")
            given["only"] = value
        else:
            rest.append(word)
    try:
        return Share(**given), rest
    except ValueError as error:
        stop(str(error))
        raise


def claim(run_dir: Path, config: object) -> None:
    """Write ``config.json`` and ``versions.json``, or refuse a directory of another configuration.

    An option that did not exist when the directory was made counts as its default. Seeds that are
    added are written down: the run goes on with them. Whoever calls this holds the directory's
    lock; ``run.json`` then says which run the files in it are of, with ``config.json`` or without.

    Raises:
        configuration.ConfigError: the directory holds a run of another configuration (each
            difference is listed), or cannot be written to.
    """
    path, mark = run_dir / "config.json", run_dir / sealed.RUN
    ours = configuration.to_dict(config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        begun, there = _said(mark), ours
        if path.exists():
            if not may_go_on(run_dir, type(config), ours):
                there = io.read_json(path)
                if begun.get("config", _digest(there)) != _digest(there):
                    raise configuration.ConfigError(
                        f"{path} was changed after it was written, so what lies beside it is of "
                        "another configuration; undo that, or choose another --run-dir"
                    )
        elif begun.get("run", _digest(ours)) != _digest(ours):
            raise configuration.ConfigError(
                f"{path} is missing, and {mark.name} beside it is of another configuration; put "
                "it back, or choose another --run-dir"
            )
        if there is ours:
            io.write_json(path, ours)
        marked = {"run": begun.get("run", _digest(there)), "config": _digest(there)}
        if marked != begun:
            io.write_json(mark, marked)
        io.write_json(run_dir / "versions.json", io.versions())
    except OSError as error:
        raise configuration.ConfigError(
            f"cannot use run directory {run_dir}: {error}; choose another --run-dir"
        ) from error


def mark(run_dir: Path, ours: Mapping[str, Any]) -> None:
    """Say of which configuration a new run directory is, before anything is written into it."""
    run_dir.mkdir(parents=True)
    io.write_json(run_dir / "config.json", dict(ours))
    io.write_json(run_dir / sealed.RUN, {"run": _digest(ours), "config": _digest(ours)})


def _said(mark: Path) -> dict[str, Any]:
    try:
        return io.read_json(mark)
    except (FileNotFoundError, ValueError):
        return {}


def _digest(values: Mapping[str, Any]) -> str:
    """Of a configuration without its seeds, which may be added to."""

    def without(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        return {k: without(v) for k, v in value.items() if k != "seeds"}

    return hashlib.sha256(json.dumps(without(values), sort_keys=True).encode()).hexdigest()


def may_go_on(run_dir: Path, kind: type, ours: Mapping[str, Any]) -> bool:
    """Whether this configuration adds to what the directory's ``config.json`` says.

    Raises:
        configuration.ConfigError: it is another configuration; each difference is listed.
    """
    path = run_dir / "config.json"
    try:
        theirs = configuration.completed(kind, io.read_json(path))
    except (TypeError, ValueError) as error:
        raise configuration.ConfigError(
            f"{path} is damaged ({error}); move it away if the run is of this configuration, or "
            "choose another --run-dir"
        ) from error
    changed = configuration.hindrances(theirs, ours)
    if changed:
        raise configuration.ConfigError(
            f"{run_dir} holds a run of another configuration; choose another --run-dir or "
            "move it away. Differences (there -> here):\n  " + "\n  ".join(changed)
        )
    return bool(configuration.differences(theirs, ours))

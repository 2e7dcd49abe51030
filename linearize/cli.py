"""Command line of an experiment: ``python -m experiments.NAME PRESET --a.b value``."""

import contextlib
import dataclasses
import difflib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import tyro

from linearize import config as configuration
from linearize import io
from linearize.assets import AssetError
from linearize.data import DataError
from linearize.io import CorruptFileError
from linearize.models import WeightsError
from linearize.ntk import NotConvergedError
from linearize.report import ResultsError
from linearize.train import (
    CheckpointError,
    NonFiniteLossError,
    RunDirectoryError,
    RunLockedError,
    RunMismatchError,
)
from linearize.tree import NonFiniteError, StructureMismatch

C = TypeVar("C")

FORESEEN = (
    AssetError,
    CheckpointError,
    CorruptFileError,
    DataError,
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
)
"""Errors whose message says what to do."""


@dataclasses.dataclass(frozen=True)
class Command(Generic[C]):
    """A parsed command line: what to do, and where its results go."""

    preset: str
    config: C
    run_dir: Path


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
    usage = f"usage: {program} PRESET [--run-dir DIR] [--option value ...]\npresets:\n" + "\n".join(
        f"  {name:<12} {(build.__doc__ or '').strip().splitlines()[0]}"
        for name, build in presets.items()
    )
    if not words or words[0] in ("-h", "--help"):
        print(usage)
        raise SystemExit(0 if words else 2)
    name, *rest = words
    default = _preset(name, presets, usage)
    run_dir, rest = _run_dir(rest, Path("runs") / experiment / Path(name).stem)
    try:
        config = tyro.cli(
            type(default),
            default=default,
            args=rest,
            prog=f"{program} {name}",
            config=(tyro.conf.AvoidSubcommands,),
        )
    except configuration.ConfigError as error:
        _stop(str(error))
    return Command(Path(name).stem, config, run_dir)


def launch(
    experiment: str,
    presets: Mapping[str, Callable[[], C]],
    run: Callable[[Command[C]], None],
) -> None:
    """Parse the command line and run, :func:`reporting`.

    Raises:
        SystemExit: status 2 for a command line that cannot be run, 1 for an error that the library
            foresees, 130 for Ctrl-C.
    """
    command = parse(experiment, presets)
    with reporting():
        run(command)


@contextlib.contextmanager
def reporting(status: int = 1) -> Iterator[None]:
    """Log to the terminal; foreseen errors and Ctrl-C end in one line, not a traceback.

    Raises:
        SystemExit: ``status`` for an error that the library foresees, 130 for Ctrl-C.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for name in ("linearize", "experiments", "__main__"):
        logging.getLogger(name).setLevel(logging.INFO)
    try:
        yield
    except KeyboardInterrupt as stop:
        print(f"\nstopped: {str(stop) or 'nothing is lost'}", file=sys.stderr)
        print("the same command goes on from here", file=sys.stderr)
        raise SystemExit(130) from None
    except FORESEEN as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(status) from None


def _preset(name: str, presets: Mapping[str, Callable[[], C]], usage: str) -> C:
    if name in presets:
        return presets[name]()
    if name.endswith(".json"):
        kind = type(next(iter(presets.values()))())
        try:
            return configuration.load_config(kind, name)
        except configuration.ConfigError as error:
            _stop(str(error))
    near = difflib.get_close_matches(name, presets, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    _stop(f"unknown preset {name!r}{hint}\n{usage}")
    raise AssertionError


def _run_dir(words: list[str], default: Path) -> tuple[Path, list[str]]:
    rest, run_dir = [], default
    iterator = iter(words)
    for word in iterator:
        if word == "--run-dir":
            value = next(iterator, None)
            if value is None:
                _stop("--run-dir needs a directory")
            run_dir = Path(str(value))
        elif word.startswith("--run-dir="):
            run_dir = Path(word.partition("=")[2])
        else:
            rest.append(word)
    return run_dir, rest


def _stop(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def claim(run_dir: Path, config: object) -> None:
    """Write ``config.json`` and ``versions.json``, or refuse a directory of another configuration.

    An option that did not exist when the directory was made counts as its default.

    Raises:
        configuration.ConfigError: the directory holds a run of another configuration (each
            difference is listed), or cannot be written to.
    """
    path = run_dir / "config.json"
    ours = configuration.to_dict(config)
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        if path.exists():
            theirs = configuration.completed(type(config), json.loads(path.read_text()))
            changed = configuration.differences(theirs, ours)
            if changed:
                raise configuration.ConfigError(
                    f"{run_dir} holds a run of another configuration; choose another --run-dir or "
                    "remove it. Differences (there -> here):\n  " + "\n  ".join(changed)
                )
        else:
            io.write_json(path, ours)
        io.write_json(run_dir / "versions.json", io.versions())
    except (OSError, json.JSONDecodeError) as error:
        raise configuration.ConfigError(
            f"cannot write to run directory {run_dir}: {error}; choose another --run-dir"
        ) from error

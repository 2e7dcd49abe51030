"""A run of an experiment, from its command line to its report."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from linearize import cli, io, report
from linearize import config as configuration
from linearize.study import Store
from linearize.study.store import Record
from linearize.train.lock import exclusive

log = logging.getLogger(__name__)

C = TypeVar("C")


@contextmanager
def claimed(run_dir: Path, config: object) -> Iterator[None]:
    """Hold a run directory for one configuration, alone: what it says is read under the lock.

    Raises:
        RunLockedError: another process works there, and nothing in it was touched.
        RunDirectoryError: it cannot be made or written.
        ConfigError: it holds a run of another configuration.
    """
    with exclusive(run_dir):
        cli.claim(run_dir, config)
        yield


def about(experiment: str, preset: str, config: Any) -> Record:
    """What every ``results.json`` says of its run; ``config`` has ``seeds``."""
    return {
        "schema": 1,
        "experiment": experiment,
        "preset": preset,
        "versions": io.versions(),
        "config": configuration.to_dict(config),
        "seeds": list(config.seeds),
    }


def finish(run_dir: Path, results: Record) -> Path:
    """Write ``results.json`` and everything that is drawn from it; the page's path."""
    Store.of(run_dir).write("results.json", results)
    log.info("figures, tables and page")
    return report.write_all(run_dir)


def launch(
    experiment: str,
    presets: Mapping[str, Callable[[], C]],
    run: Callable[[C, Path, str], Path],
) -> None:
    """Parse the command line, run, print the tables, say where the report is."""

    def present(command: cli.Command[C]) -> None:
        page = run(command.config, command.run_dir, command.preset)
        report.read_page(command.run_dir).print()
        print(f"report: {page}")

    cli.launch(experiment, presets, present)

"""A run of an experiment, from its command line to its report."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments import report
from linearize import cli, io
from linearize import config as configuration
from linearize.report import schema
from linearize.report.run import Run
from linearize.study import Store
from linearize.study.store import Record
from linearize.train.lock import exclusive

log = logging.getLogger(__name__)


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


def about(experiment: str, preset: str, config: Any, model: Record) -> Record:
    """The head of :class:`linearize.report.run.Run`; ``config`` has ``seeds``."""
    return {
        "experiment": experiment,
        "preset": preset,
        "versions": io.versions(),
        "config": configuration.to_dict(config),
        "seeds": list(config.seeds),
        "model": model,
    }


def finish(run_dir: Path, results: Run) -> Path:
    """Write ``results.json`` and everything that is drawn from it; the page's path."""
    Store.of(run_dir).write("results.json", schema.record(results))
    log.info("figures, tables and page")
    return report.write_all(run_dir)


def launch(experiment: str, run: Callable[[Any, Path, str], Path]) -> None:
    """Parse the command line, run, print the tables, say where the report is."""
    from configs import PRESETS  # which import the experiments' configurations

    def present(command: cli.Command[Any]) -> None:
        page = run(command.config, command.run_dir, command.preset)
        report.read_page(command.run_dir).print()
        print(f"report: {page}")

    cli.launch(experiment, PRESETS[experiment], present)

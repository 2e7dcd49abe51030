"""A run of an experiment, from its command line to its report."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

from experiments import report, vectors
from linearize import cli, hosts, io
from linearize import config as configuration
from linearize.report import schema
from linearize.report.run import Run
from linearize.study import FineTuning, Job, Store
from linearize.study.store import Record
from linearize.train import lock

log = logging.getLogger(__name__)


def claimed(run_dir: Path, config: object, *, shared: bool = False) -> AbstractContextManager[None]:
    """Hold a run directory for one configuration, alone: what it says is read under the lock.

    Args:
        run_dir: made where absent.
        config: of the run.
        shared: among other processes of the same configuration.

    Raises:
        RunLockedError: another process works there, and nothing in it was touched.
        RunDirectoryError: it cannot be made or written.
        ConfigError: it holds a run of another configuration, or of other borrowed vectors.
    """
    return lock.claimed(run_dir, partial(vectors.claim, run_dir, config), shared=shared)


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
    return Path(hosts.told(lambda: str(report.write_all(run_dir))))


def launch(
    experiment: str,
    run: Callable[[Any, Path, str], Path],
    fine_tunings: Callable[[Any, Path], Sequence[FineTuning]] | None = None,
    settled: Callable[[Any], Any] = lambda config: config,
) -> None:
    """Parse the command line, run, print the tables, say where the report is.

    Args:
        experiment: its name.
        run: all of it, of a configuration, a run directory and a preset's name; the page's path.
        fine_tunings: those that it is made of, of the first two, where processes may share them.
        settled: the configuration that a run directory is of, of the one that is given.
    """
    from configs import PRESETS  # which import the experiments' configurations

    def present(command: cli.Command[Any]) -> None:
        config, run_dir = settled(command.config), command.run_dir
        job = Job(
            run_dir,
            fine_tunings(config, run_dir) if fine_tunings and command.share else (),
            partial(claimed, run_dir, config, shared=True),
            partial(run, config, run_dir, command.preset),
        )
        page = cli.carry_out(command.share, job, command.words)
        if page is not None and hosts.first():
            report.read_page(run_dir).print()
            print(f"report: {page}")

    shared = fine_tunings is not None
    cli.launch(experiment, PRESETS[experiment], present, shared=shared, together=True)

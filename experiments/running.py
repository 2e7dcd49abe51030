"""A run of an experiment, from its command line to its report."""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from experiments.records import Record, keep, stack, total_seconds
from linearize import cli, report
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


def every_seed(measure: Callable[..., Record], run_dir: Path, config: Any, *given: Any) -> Record:
    """``measure(directory, config, *given, seed)`` of each seed, stacked; ``seconds`` is the sum.

    ``measure`` is :func:`experiments.records.recorded`, and ``config`` has ``seeds``.
    """
    records = [measure(run_dir / f"seed_{seed}", config, *given, seed) for seed in config.seeds]
    return stack(records) | {"seconds": total_seconds(records)}


def finish(run_dir: Path, results: Record) -> Path:
    """Write ``results.json`` and everything that is drawn from it; the page's path."""
    keep(run_dir / "results.json", results)
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

"""Seeds that were run apart, on machines that share no disk, as one run directory.

    python -m experiments.gather runs/a runs/b --into runs/whole

Each seed's ``record.json`` is copied, its hash checked: all the numbers that it measured. The
experiment's own command on the new directory then measures nothing of these seeds again; it lays
them together, and what it wants beside them, such as arrays of a live page, it makes anew.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from experiments.seeds import RECORD, records_of
from linearize import cli, io
from linearize import config as configuration
from linearize.config import ConfigError
from linearize.study import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gather:
    """Which runs, and to where."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Run directories of one configuration, or records that ``experiments.publish`` kept."""
    into: Annotated[Path, tyro.conf.arg(name="into")]
    """A directory that is not there yet."""


def gather(job: Gather) -> tuple[int, ...]:
    """Copy the records; the seeds that there are now.

    Raises:
        ConfigError: runs of different configurations, none, or one without a finished seed; a seed
            of two runs whose numbers differ; a directory that is there already.
        CorruptFileError: a record was changed after it was written.
    """
    if not job.runs:
        raise ConfigError("runs=(): name one run directory or more")
    if job.into.exists():
        raise ConfigError(f"into={job.into} is there already; choose another directory")
    configs = [_config(run) for run in job.runs]
    for run, config in zip(job.runs[1:], configs[1:], strict=True):
        if _but_seeds(config) != _but_seeds(configs[0]):
            differ = configuration.differences(_but_seeds(configs[0]), _but_seeds(config))
            raise ConfigError(
                f"{run} is of another configuration than {job.runs[0]}; gather runs that differ in "
                "their seeds alone. Differences (there -> here):\n  " + "\n  ".join(differ)
            )
    versions = [io.read_json(p) for r in job.runs if (p := r / "versions.json").is_file()]
    if any(each != versions[0] for each in versions):
        log.warning("the runs were made by different versions: %s", versions)
    found: dict[Path, bytes] = {}
    for run in job.runs:
        records = records_of(run)
        if not records:
            raise ConfigError(f"{run} has no finished seed; let it finish one, or leave it out")
        for place, data in records.items():
            if found.setdefault(place, data) != data:
                raise ConfigError(f"{run}: its {place} says other numbers than an earlier run's")
    seeds = tuple(sorted({int(_folder(place).removeprefix("seed_")) for place in found}))
    cli.mark(job.into, _with_seeds(configs[0], seeds))
    for place, data in found.items():
        Store(job.into / place.parent).write(RECORD, json.loads(data))
    return seeds


def _folder(place: Path) -> str:
    return place.parent.name


def _config(run: Path) -> dict[str, Any]:
    try:
        return io.read_json(run / "config.json")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{run} is no run directory ({error})") from error


def _but_seeds(config: Any) -> Any:
    return _with_seeds(config, ())


def _with_seeds(config: Any, seeds: Iterable[int]) -> Any:
    """With other seeds, wherever a configuration has them."""
    if not isinstance(config, Mapping):
        return config
    return {k: list(seeds) if k == "seeds" else _with_seeds(v, seeds) for k, v in config.items()}


def main() -> None:
    """Parse, copy, say what to do next."""
    with cli.reporting():
        job = tyro.cli(Gather, prog="python -m experiments.gather")
        seeds = " ".join(map(str, gather(job)))
        print(f"{job.into} holds seeds {seeds}. The experiment's command with")
        print(f"  --seeds {seeds} --run-dir {job.into}")
        print("lays them together.")


if __name__ == "__main__":
    main()

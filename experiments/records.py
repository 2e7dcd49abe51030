"""What the experiments measure, kept as files: measured once, stacked over seeds."""

import functools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from linearize import config as configuration
from linearize import io

log = logging.getLogger(__name__)

Record = dict[str, Any]
T = TypeVar("T")
P = ParamSpec("P")


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


def kept(path: Path, compute: Callable[[], T]) -> T:
    """What a file of JSON holds, or else what is computed and then written to it."""
    if path.exists():
        log.info("%s: measured before", path)
        return json.loads(path.read_text())
    value = compute()
    io.write_json(path, value)
    return value


def recorded(
    measure: Callable[Concatenate[Path, P], Record],
) -> Callable[Concatenate[Path, P], Record]:
    """Measure once a run directory, and say how long it took, if it was done in one go."""

    @functools.wraps(measure)
    def once(run_dir: Path, *args: P.args, **options: P.kwargs) -> Record:
        def timed() -> Record:
            resumed, started = run_dir.exists(), time.perf_counter()
            record = measure(run_dir, *args, **options)
            seconds = time.perf_counter() - started
            log.info("%s: measured in %.0f s", run_dir.name, seconds)
            return record | {"seconds": None if resumed else seconds}

        return kept(run_dir / "record.json", timed)

    return once


def stack(records: list[Record]) -> Record:
    """A list of records to one record of lists, through nested mappings.

    >>> stack([{"a": 1, "b": {"c": 2}}, {"a": 3, "b": {"c": 4}}])
    {'a': [1, 3], 'b': {'c': [2, 4]}}
    """
    stacked: Record = {}
    for key, value in records[0].items():
        column = [record[key] for record in records]
        stacked[key] = stack(column) if isinstance(value, dict) else column
    return stacked


def total_seconds(records: list[Record]) -> float | None:
    """How long all of them took; None where one was interrupted."""
    seconds = [record["seconds"] for record in records]
    return None if None in seconds else sum(seconds)

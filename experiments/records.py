"""What the experiments measure, kept as files: measured once, stacked over seeds.

A file that was changed, cut short or brought from another run is set aside by name, and measured
again (:mod:`linearize.sealed`).
"""

import dataclasses
import functools
import json
import logging
import time
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from linearize import config as configuration
from linearize import io, sealed

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


@dataclasses.dataclass
class _Plan:
    """How many parts the measuring of a directory has, and how many have begun."""

    run_dir: Path
    total: int
    begun: int = 0

    @property
    def name(self) -> str:
        return self.run_dir.name.replace("_", " ")


_plan: ContextVar[_Plan | None] = ContextVar("plan", default=None)


def begin(part: str) -> None:
    """Say that a part begins: its name, and where that is among the parts of its directory."""
    plan = _plan.get()
    if plan is None:
        log.info("%s", part)
    else:
        plan.begun += 1
        log.info("%s [%d/%d] %s", plan.name, plan.begun, plan.total, part)


def kept(path: Path, compute: Callable[[], T]) -> T:
    """What a file of JSON holds, or else what is computed and then written to it; a part each."""
    plan = _plan.get()
    within = path if plan is None else path.relative_to(plan.run_dir)
    name = ", ".join(part for part in within.with_suffix("").parts if part != "parts")
    found = _read(path)
    if found is not _ABSENT:
        begin(f"{name}: measured before")
        return found
    begin(name)
    value = compute()
    keep(path, value)
    return value


_ABSENT: Any = object()


def _read(path: Path) -> Any:
    data = sealed.read(path)
    if data is None:
        return _ABSENT
    try:
        return json.loads(data)
    except ValueError as error:
        sealed.set_aside(path, f"is no JSON ({error})")
        return _ABSENT


def keep(path: Path, value: Any) -> None:
    """Write a file of JSON, with its hash."""
    text = json.dumps(io.to_json(value), indent=2, allow_nan=False)
    sealed.write(path, text + "\n")


def recorded(
    parts: Callable[[Any], int],
) -> Callable[
    [Callable[Concatenate[Path, Any, P], Record]], Callable[Concatenate[Path, Any, P], Record]
]:
    """Measure once a run directory, and say how long it took, if it was done in one go.

    ``parts`` tells how often the measuring of a configuration comes to :func:`begin`.
    """

    def decorate(
        measure: Callable[Concatenate[Path, Any, P], Record],
    ) -> Callable[Concatenate[Path, Any, P], Record]:
        @functools.wraps(measure)
        def once(run_dir: Path, config: Any, *args: P.args, **options: P.kwargs) -> Record:
            path, plan = run_dir / "record.json", _Plan(run_dir, parts(config))
            found = _read(path)
            lost = sealed.lost(run_dir)
            if found is not _ABSENT and not lost:
                log.info("%s: measured before", plan.name)
                return found
            if found is not _ABSENT:
                log.warning("%s: %s lost or damaged; made anew", plan.name, ", ".join(lost))
            resumed, started = run_dir.exists(), time.perf_counter()
            outer = _plan.set(plan)
            try:
                record = measure(run_dir, config, *args, **options)
            finally:
                _plan.reset(outer)
            seconds = time.perf_counter() - started
            log.info("%s: measured in %.0f s", plan.name, seconds)
            if plan.begun != plan.total:
                log.warning("%s: %d parts began, not %d", plan.name, plan.begun, plan.total)
            record |= {"seconds": None if resumed else seconds}
            keep(path, record)
            return record

        return once

    return decorate


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

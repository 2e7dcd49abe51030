"""Where the demo's minutes go: the parts of a run, what of each is tracing and compiling.

The demo runs twice, each time as the README's command does, in a process of its own: first with an
empty compilation cache, then with what the first run kept there.
"""

import json
import logging
import os
import re
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.monitoring

from experiments.bench.measure import Goal, Row
from experiments.bench.workload import Size

CASE = "demo"
PRESETS = {"full": "demo", "tiny": "debug"}
GOAL = 300
"""Seconds, on two cores that do nothing else."""

KINDS = {
    "/jax/core/compile/jaxpr_trace_duration": "tracing",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "tracing",
    "/jax/core/compile/backend_compile_duration": "compiling",
}
"""What JAX tells the length of; of a program that the cache has, "compiling" is reading it."""

_PART = re.compile(r"\[\d+/\d+\] (?P<part>.+)")
_MANY = re.compile(r"(?P<kind>single|addition|negation|map|merge)_")


def rows(size: Size) -> list[Row]:
    """Both runs; seconds by part of the first, beside the second's."""
    preset = PRESETS[size.kernels]
    with tempfile.TemporaryDirectory() as folder:
        first, second = (_run(preset, Path(folder), turn) for turn in ("first", "second"))
    cores = f"{len(os.sched_getaffinity(0))} cores" if hasattr(os, "sched_getaffinity") else ""
    goal: Goal | None = ("<=", GOAL) if preset == "demo" else None
    out = [
        Row(CASE, "wall time, nothing compiled before", first.seconds, "s", goal, note=cores),
        Row(
            CASE,
            "wall time, second run / first",
            second.seconds / first.seconds,
            "x",
            note=f"{second.seconds:.0f} s / {first.seconds:.0f} s; processor time "
            f"{second.processor:.0f} s / {first.processor:.0f} s",
        ),
    ]
    ours, again = first.parts(), second.parts()
    for name, spent in ours.items():
        later = again.get(name, {"all": 0.0})["all"]
        note = f"tracing {spent['tracing']:.1f} s, compiling {spent['compiling']:.1f} s"
        out.append(Row(CASE, name, spent["all"], "s", note=f"{note}; second run {later:.1f} s"))
    return out


@dataclass(eq=False)
class Ledger(logging.Handler):
    """Of a run: when each part began, and the stretches that were spent in tracing and compiling.

    Attributes:
        begun: parts and the times at which they began, in order; seconds since the epoch.
        stretches: of each kind, beginnings and ends; one may lie in another.
        end: when the run was over.
        processor: seconds of user and system time.
    """

    begun: list[tuple[str, float]]
    stretches: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    end: float = 0.0
    processor: float = 0.0

    def __post_init__(self) -> None:
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """A line of the log, which may begin a part."""
        message = record.getMessage()
        if found := _PART.search(message):
            self.begun.append((kind(found["part"]), record.created))
        elif "measured in" in message:
            self.begun.append(("results and page", record.created))

    def heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        """What ``jax.monitoring`` tells of a stretch that ends now."""
        if event in KINDS:
            now = time.time()
            self.stretches.setdefault(KINDS[event], []).append((now - duration_secs, now))

    @property
    def seconds(self) -> float:
        """From the first part's beginning to the end."""
        return self.end - self.begun[0][1]

    def parts(self) -> dict[str, dict[str, float]]:
        """Seconds by part, in order of first appearance: in all, of tracing, of compiling."""
        out: dict[str, dict[str, float]] = {}
        ends = [at for _, at in self.begun[1:]] + [self.end]
        for (name, start), end in zip(self.begun, ends, strict=True):
            of = out.setdefault(name, {"all": 0.0, "tracing": 0.0, "compiling": 0.0})
            of["all"] += end - start
            for what in ("tracing", "compiling"):
                of[what] += covered(self.stretches.get(what, ()), start, end)
        return out


def kind(part: str) -> str:
    """Parts of one kind under one name.

    >>> [kind(part) for part in ("addition_linear", "map_a_b", "linear fine-tuning", "joint")]
    ['addition', 'map', 'linear fine-tuning', 'joint']
    """
    found = _MANY.match(part)
    return found["kind"] if found else part


def covered(stretches: Iterable[Sequence[float]], start: float, end: float) -> float:
    """The length of what stretches cover between two times, however they overlap.

    >>> covered([(0, 2), (1, 3), (1, 2), (5, 9)], 0.5, 6)
    3.5
    """
    out, reached = 0.0, start
    for begin, over in sorted((max(a, start), min(b, end)) for a, b in stretches):
        out += max(0.0, over - max(begin, reached))
        reached = max(reached, over)
    return out


def _run(preset: str, folder: Path, turn: str) -> Ledger:
    """A run in a process of its own; its parts begin with starting Python."""
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    start = time.time()
    answer = folder / f"{turn}.json"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "experiments.bench.demo",
            answer,
            preset,
            "--run-dir",
            folder / turn,
        ],
        stdout=subprocess.DEVNULL,
        check=True,
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
    )
    told: Mapping[str, Any] = json.loads(answer.read_text())
    ledger = Ledger([("starting Python", start), *map(tuple, told["begun"])], told["stretches"])
    ledger.end, ledger.processor = time.time(), told["processor"]
    return ledger


def main(answer: str, *arguments: str) -> None:
    """The README's command with these arguments, watched; what was seen becomes a file."""
    ledger = Ledger([("reading and heads", time.time())])
    logging.getLogger().addHandler(ledger)
    jax.monitoring.register_event_duration_secs_listener(ledger.heard)
    sys.argv = ["experiments.compare", *arguments]
    try:
        runpy.run_module("experiments.compare", run_name="__main__")
    finally:
        used = resource.getrusage(resource.RUSAGE_SELF)
        seen = {
            "begun": ledger.begun,
            "stretches": ledger.stretches,
            "processor": used.ru_utime + used.ru_stime,
        }
        Path(answer).write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What a linearized step on this CPU consists of: XLA's own trace of it, by kind of operation.

XLA traces what its compiled loops take, each on the thread that runs it. Matrix products hand most
of their work to other threads, where no trace sees it: they are what is left of the processors'
time, with the waiting. Loops are timed by the clock: on a machine that is not idle they come out
too long, and what is left may be negative.
"""

import collections
import dataclasses
import itertools
import os
import re
import resource
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import jax
from jax.profiler import ProfileData

from experiments import hlo
from experiments.bench.against_torch import OURS
from experiments.bench.measure import Row
from experiments.bench.step import operations
from experiments.bench.workload import Size, Step, train_step, workload

CASE = "profile"
STEPS = 3

_CALLS = re.compile(r"calls=%?([\w.\-]+)")
_OUTER = {"while", "call", "conditional"}
_MOVES = {
    *("parameter", "constant", "bitcast", "copy", "transpose", "reshape", "broadcast", "tuple"),
    *("slice", "dynamic-slice", "dynamic-update-slice", "concatenate", "pad", "iota", "select"),
    *("add", "compare", "convert", "get-tuple-element"),
}
KINDS: tuple[tuple[str, set[str]], ...] = (
    ("sums", {"reduce", "reduce-window"}),
    ("slices of stacked leaves, writes into stacks", {"dynamic-slice", "dynamic-update-slice"}),
    ("copies and transpositions", {"copy", "transpose"}),
    ("exponentials and error functions", {"exponential", "erf", "tanh", "log", "power"}),
)
"""What a loop is, by the first row of which it has an operation; the middle two only move."""


def rows(size: Size) -> list[Row]:
    """Both image sizes."""
    out = []
    for image_size in dict.fromkeys((size.image_size, size.large_image_size)):
        here = dataclasses.replace(size, image_size=image_size)
        out += _rows(train_step(workload(here, **OURS), "linear"), image_size)
    return out


def kinds(text: str) -> dict[str, str]:
    """The kind of each instruction of a compiled program, by its name.

    Args:
        text: of ``jax.stages.Compiled.as_text``.
    """
    bodies = dict(hlo.computations(text))
    inside = {name: {each.kind for each in lines} for name, lines in bodies.items()}
    out = {}
    for each in itertools.chain(*bodies.values()):
        calls = _CALLS.search(each.rest) if each.kind == "fusion" else None
        if each.kind not in _OUTER:
            out[each.name] = _kind(inside[calls[1]] if calls else {each.kind})
    return out


def _kind(operations: set[str]) -> str:
    if operations & {"dot", "custom-call", "convolution"}:
        return "products"
    moves = operations <= _MOVES
    for name, own in KINDS:
        if operations & own and (moves or not own & _MOVES):
            return name
    return "broadcasts, zeros" if operations <= _MOVES - {"add", "select"} else "element by element"


def thread_seconds(folder: Path, kind_of: Mapping[str, str]) -> dict[str, float]:
    """Seconds of all threads by kind, of a trace that ``jax.profiler.trace`` wrote."""
    out: dict[str, float] = collections.defaultdict(float)
    for path in folder.rglob("*.xplane.pb"):
        for plane in ProfileData.from_file(str(path)).planes:
            for line in plane.lines:
                for event in line.events:
                    if event.name in kind_of:
                        out[kind_of[event.name]] += event.duration_ns / 1e9
    return out


def _rows(step: Step, pixels: int) -> list[Row]:
    for _ in range(2):
        jax.block_until_ready(step())
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(STEPS):
        jax.block_until_ready(step())
    wall = (time.perf_counter() - start) / STEPS
    after = resource.getrusage(resource.RUSAGE_SELF)
    busy = sum(getattr(after, n) - getattr(before, n) for n in ("ru_utime", "ru_stime")) / STEPS
    kernel = (after.ru_stime - before.ru_stime) / STEPS
    faults = (after.ru_minflt - before.ru_minflt) / STEPS
    program: jax.stages.Wrapped = step.run  # type: ignore[assignment]
    kind_of = kinds(program.lower(*step.arguments()).compile().as_text() or "")
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(STEPS):
                jax.block_until_ready(step())
        parts = thread_seconds(Path(folder), kind_of)
    threads = wall * (os.cpu_count() or 1)
    seen = {name: seconds / STEPS for name, seconds in parts.items() if name != "products"}
    seen["matrix products, and waiting for them"] = busy - sum(seen.values())
    seen["no thread at work"] = threads - busy
    flops = operations(step) / 1e9

    def row(name: str, seconds: float, note: str = "") -> Row:
        told = f"{1e3 * seconds:.0f} ms of {1e3 * threads:.0f} ms of all cores in a step{note}"
        return Row(CASE, f"{name}, {pixels} px", 100 * seconds / threads, "%", note=told)

    out = [row(name, seen[name]) for name in sorted(seen, key=lambda n: -seen[n])]
    out.append(row("of all this in the kernel", kernel, f"; {faults:.0f} page faults a step"))
    note = f"{flops:.1f} GFLOP in {wall:.3f} s"
    return [
        *out,
        Row(CASE, f"rate of the whole step, {pixels} px", flops / wall, "GFLOP/s", note=note),
    ]

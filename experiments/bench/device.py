"""Training steps of the papers' image encoders on an accelerator: speed, utilisation, memory."""

import dataclasses
import functools
import itertools
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from experiments import budget
from experiments.bench import against_torch, peaks
from experiments.bench.measure import Row
from experiments.bench.policies import BATCH, PRESETS, REGIMES, ROOM, of_step
from experiments.bench.workload import FULL, Size, Step, train_step, workload
from linearize.config import CompareConfig
from linearize.narration import Console

CASE = "clip_device"
DTYPES: tuple[Literal["bfloat16", "float32"], ...] = ("bfloat16", "float32")
STRIDE = 8
"""What the largest batch is a multiple of."""
WARM_UP = 3
POOL = {"XLA_PYTHON_CLIENT_PREALLOCATE": "true", "XLA_CLIENT_MEM_FRACTION": "0.95"}
"""Of a process that measures: in one piece, and more than the 75 % that JAX takes by itself."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What one process measures; ``blocks`` is how many are kept, ``room`` bytes to fit."""

    preset: str
    dtype: Literal["bfloat16", "float32"]
    regime: budget.Regime
    batch: int = BATCH
    repeats: int = 20
    blocks: int | None = None
    room: float = ROOM * 1e9

    def __str__(self) -> str:
        return f"{self.preset}, {self.dtype}, {self.regime}"

    @property
    def wanted(self) -> bool:
        """Whether goals are set for it."""
        return (self.preset, self.dtype) == ("vit_l14", "bfloat16")

    def config(self) -> CompareConfig:
        """The preset at this dtype and batch."""
        changed = {"dtype": self.dtype, "blocks": self.blocks}
        return of_step(self.preset, self.regime, self.batch, **changed)

    def step(self) -> Step:
        """The library's step, as the preset's recipe compiles it, at random weights."""
        config = self.config()
        model = config.model
        size = Size(model.name, model.image_size, batch=self.batch, pretrained=False)
        options = {"dtype": model.dtype, "scan": model.scan, "remat": model.remat}
        made = workload(size, blocks=model.blocks, **options)
        return train_step(made, self.regime, getattr(config, self.regime).optim)


def jobs(size: Size) -> list[Job]:
    """Every preset, dtype and regime; at a tiny size a single block of one."""
    if size != FULL:
        return [Job(PRESETS[0], "bfloat16", "linear", STRIDE, size.repeats, size.blocks, 0.4e9)]
    return [Job(*chosen) for chosen in itertools.product(PRESETS, DTYPES, REGIMES)]


def rows(size: Size) -> list[Row]:
    """Speed, utilisation and memory of a step, and the largest batch, by preset and dtype."""
    if size == FULL and jax.default_backend() == "cpu":
        Console(stderr=True).print(f"{CASE}: needs an accelerator, and JAX has a CPU alone")
        return []
    out = []
    for job in jobs(size):
        found = _ask("search", job)
        assert found is not None
        out += batch_rows(job, found, lambda job: _ask("time", job) is not None)
        timed = _ask("time", job) if found["largest"] >= job.batch else None
        if timed is not None:
            out += [*time_rows(job, timed), *memory_rows(job, found, timed)]
    return out


def batch_rows(job: Job, found: Mapping[str, Any], runs: Callable[[Job], bool]) -> list[Row]:
    """The largest batch that fits as compiled, and whether a step of it runs."""
    largest = found["largest"]
    out = [
        Row(
            CASE,
            f"{job}: largest batch that fits",
            largest,
            goal=(">=", BATCH) if job.wanted else None,
            note=f"a multiple of {STRIDE}; arguments, results and temporaries, as compiled, in "
            f"{found['room'] / 1e9:.1f} GB; remat={job.config().model.remat!r}",
        )
    ]
    if largest:
        ran = runs(dataclasses.replace(job, batch=largest, repeats=1))
        what = f"{job}: steps of that batch run"
        out.append(Row(CASE, what, int(ran), goal=("==", 1), note="0: out of memory"))
    return out


def time_rows(job: Job, timed: Mapping[str, Any]) -> list[Row]:
    """Seconds, images a second and, where the device's peak is known, utilisation."""
    seconds, kind = timed["seconds"], timed["kind"]
    low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    arithmetic, note = _arithmetic(job, timed["precision"])
    peak = peaks.peaks(kind).get(arithmetic)
    note = f"batch {job.batch} on {kind}; median and quartiles of {len(seconds)} steps{note}"
    if peak is None:
        note += f"; no utilisation, for want of the peak of {kind!r} in {arithmetic}: set "
        note += f"{peaks.GIVEN}, such as {peaks.GIVEN}=bfloat16=989e12"
    rates = (job.batch / high, job.batch / low)
    out = [
        Row(CASE, f"{job}: time of a step", middle, "s", None, (low, high), note),
        Row(CASE, f"{job}: images a second", job.batch / middle, "", None, rates),
    ]
    if peak is not None:
        flops = useful_flops(job)
        share = [peaks.utilisation(flops, job.batch, s, peak) for s in (high, middle, low)]
        out.append(
            Row(
                CASE,
                f"{job}: model FLOP utilisation",
                share[1],
                "",
                (">=", 0.4) if job.wanted and job.regime == "linear" else None,
                (share[0], share[2]),
                f"{flops / 1e9:.1f} GFLOP an image, counted with remat='none', of "
                f"{peak / 1e12:.4g} TFLOP/s, dense, in {arithmetic}",
            )
        )
    return out


def _arithmetic(job: Job, precision: str | None) -> tuple[str, str]:
    """In what the step's products are computed, and how that is known."""
    if job.dtype == "bfloat16":
        return "bfloat16", ""
    found = peaks.FLOAT32.get(precision, f"{precision}")
    why = f"(jax_default_matmul_precision={precision})"
    return found, f"; products in {found}, if an NVIDIA GPU from Ampere on {why}"


def memory_rows(job: Job, found: Mapping[str, Any], timed: Mapping[str, Any]) -> list[Row]:
    """What the device's allocator and the compiler tell of a step; nothing without the former."""
    if timed["peak"] is None:
        return []
    seen = "peak_bytes_in_use of a process of its own, compilation included"
    told = "arguments, results and temporaries of the compiled step"
    return [
        Row(CASE, f"{job}: {what}", value / 1e9, "GB", note=f"batch {job.batch}; {note}")
        for what, value, note in (
            ("peak memory", timed["peak"], seen),
            ("compiled memory", found["bytes"], told),
        )
    ]


def useful_flops(job: Job) -> float:
    """Operations an image of the gradient, without those that ``remat`` repeats."""
    config = job.config()
    model = dataclasses.replace(config.model, remat="none")
    return budget.step_flops(dataclasses.replace(config, model=model), job.regime)


def largest_batch(held: Callable[[int], float], room: float, start: int = BATCH) -> int:
    """The largest multiple of :data:`STRIDE` that fits, by doubling and bisecting; 0 if none does.

    Args:
        held: bytes of a batch, growing with it.
        room: bytes at most.
        start: where doubling starts, a multiple of :data:`STRIDE`.
    """
    low, high = 0, start
    while held(high) <= room:
        low, high = high, 2 * high
    while high - low > STRIDE:
        middle = (low + high) // 2 // STRIDE * STRIDE
        low, high = (middle, high) if held(middle) <= room else (low, middle)
    return low


def compiled_bytes(step: Step, batch: int) -> float:
    """Bytes that a compiled step holds at once; infinite if compiling it runs out of memory."""
    state, fixed, given = step.arguments()
    shapes = {n: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for n, x in given.items()}
    program: Any = step.run
    try:
        memory = program.lower(state, fixed, shapes).compile().memory_analysis()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return math.inf
    arguments, results = memory.argument_size_in_bytes, memory.output_size_in_bytes
    return arguments + results - memory.alias_size_in_bytes + memory.temp_size_in_bytes


def _ask(do: str, job: Job) -> dict[str, Any] | None:
    """A process's answer; ``None`` if its steps run out of the device's memory."""
    try:
        return against_torch.in_process("device", {"do": do, "job": dataclasses.asdict(job)})
    except RuntimeError as error:
        if do == "search" or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return None


def _time(job: Job) -> dict[str, Any]:
    step, seconds = job.step(), []
    values: Sequence[Any] = ()
    for _ in range(WARM_UP + job.repeats):
        start = time.perf_counter()
        values, _ = jax.block_until_ready((step(), step.state))
        seconds.append(time.perf_counter() - start)
    if not np.isfinite(values).all():
        raise FloatingPointError(f"{job}: a step measured {values}; it trains nothing")
    return {
        "seconds": seconds[WARM_UP:],
        "peak": _statistics().get("peak_bytes_in_use"),
        "kind": jax.devices()[0].device_kind,
        "precision": jax.config.values["jax_default_matmul_precision"],
    }


def _search(job: Job) -> dict[str, Any]:
    step = dataclasses.replace(job, batch=STRIDE).step()
    held = functools.cache(lambda batch: compiled_bytes(step, batch))
    room = min(job.room, _statistics().get("bytes_limit", math.inf))
    largest = largest_batch(held, room, job.batch)
    return {"largest": largest, "bytes": held(job.batch), "room": room}


def _statistics() -> dict[str, Any]:
    """Of the first device's allocator; empty where the backend keeps none."""
    return jax.devices()[0].memory_stats() or {}


def main(request: Mapping[str, Any]) -> dict[str, Any]:
    """Do one job in a process that has done nothing else."""
    os.environ.pop("XLA_PYTHON_CLIENT_MEM_FRACTION", None)  # an error beside its new name
    os.environ.update(POOL)
    return {"time": _time, "search": _search}[request["do"]](Job(**request["job"]))


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))

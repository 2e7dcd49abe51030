"""A kernel that no machine computes in an afternoon: on paper, and a fraction of it by a run.

Two processes, each on its half of the cores, compute the first pairs of blocks and write them to
one folder. One of them is killed within a round; both are started again and go on. What the whole
takes is extrapolated from seconds a pair, and from operations and bytes that are counted.
"""

import json
import logging
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jax.tree_util import Partial

from experiments.bench.measure import Row
from experiments.bench.stream import BUDGET, LAST
from experiments.bench.workload import FULL, TINY, Size, workload
from linearize import hosts, io, ntk
from linearize.models.heads import apply_head
from linearize.types import Apply, Array, Params

CASE = "kernel_fraction"
PROCESSES = 2
HOSTS = (1, 8, 64)
_CHECKED = 8
_SILENCE = 10
"""Seconds after which the other process takes one for dead."""


@dataclass(frozen=True)
class Fraction:
    """How many examples the kernel has, and how many pairs of its blocks are computed.

    Attributes:
        n: examples.
        pairs: of blocks, all in the first row of blocks.
        batch_size: examples per side of a block; from the memory budget by default.
    """

    n: int
    pairs: int
    batch_size: int | None = None


FRACTIONS = {"full": Fraction(100_000, 12), "tiny": Fraction(12, 12, 1)}


def rows(size: Size) -> list[Row]:
    """The plan, and what a run of a fraction of it says."""
    folder = _folder(size)
    first, killed, resumed = runs(size)
    asked, how = FRACTIONS[size.kernels], _how(size)
    f, params, one = how.pop("f"), how.pop("params"), _images(size, 3)
    paper = {
        (output, count): ntk.kernel_cost(
            f, params, one, asked.n, output=output, processes=PROCESSES * count, **how
        )
        for output in ("trace", "full")
        for count in HOSTS
    }
    lost = killed.pairs()
    every = [*first.pairs(), *lost, *resumed.pairs()]
    plan = paper["trace", 1]
    difference = _difference(size, folder / "kernel", plan.rows)
    blocks, total = ntk.count_blocks(folder / "kernel")
    files = [p.stat().st_size for p in (folder / "kernel/array.zarr/c").rglob("*") if p.is_file()]
    steady = [p["computed"] for p in every if not p["first"]]
    middle, written = statistics.median(steady), [p["written"] for p in every]
    note = (
        f"{len(steady)} pairs by {PROCESSES} processes on half of {os.cpu_count()} cores each, "
        "the first of each left out, that compiles and is checked"
    )
    out = [
        *(row for output in ("trace", "full") for row in _paper(output, asked.n, paper)),
        Row(CASE, "fraction computed", asked.pairs / plan.pairs, "", None, None,
            f"{asked.pairs} of {plan.pairs} pairs, {blocks} of {total} blocks, random images"),
        Row(CASE, "seconds a pair and process", middle, "s", None, _quartiles(steady), note),
        Row(CASE, "operations a second", PROCESSES * plan.flops / plan.pairs / middle / 1e9,
            "GFLOP/s", None, None, "of both processes; counted operations of a pair"),
        Row(CASE, "seconds a pair is written", statistics.median(written), "s", None,
            _quartiles(written), "both blocks of a pair, with their fsync, beside computation"),
        Row(CASE, "bytes a block, measured / planned", sum(files) / len(files) * total
            / plan.stored, "", ("==", 1.0), None, f"{len(files)} files, {sum(files)} bytes"),
        Row(CASE, "pairs lost to a kill", len(lost) - killed.said["noted"], "", None, None,
            f"one process was killed when the two had computed {len(lost)}, of which "
            f"{killed.said['noted']} were noted; those under way are lost too; the other process "
            f"ended {killed.said['noticed']:.0f} s after it"),
        Row(CASE, "seconds from the resumed start to its first pair", resumed.until_first(), "s",
            None, None, "imports, meeting, plan, compilation from its cache, blocks read again"),
        Row(CASE, "largest difference of sampled entries", difference, "", ("<=", 1e-5), None,
            f"{2 * _CHECKED} examples of computed blocks to a kernel in memory by 'jacobian', of "
            "the largest entry"),
    ]  # fmt: skip
    for count in HOSTS:
        each = paper["trace", count].pairs_each
        out.append(
            Row(CASE, f"days, {count} x this machine, trace", each * middle / 86400, "d",
                None, None, f"extrapolated: {each} pairs a process")
        )  # fmt: skip
        full = paper["full", count].flops_each / paper["trace", count].flops_each
        out.append(
            Row(CASE, f"days, {count} x this machine, full", each * middle * full / 86400, "d",
                None, None, f"extrapolated: {full:.3g} times the operations, at the same rate")
        )  # fmt: skip
    shutil.rmtree(folder)
    return out


def runs(size: Size) -> "tuple[_Run, _Run, _Run]":
    """Runs of two thirds of the pairs; of the rest, killed; and of the rest again.

    What is known of each is kept until all is told, so that they may be had one by one.
    """
    folder, pairs = _folder(size), FRACTIONS[size.kernels].pairs
    first, killed, resumed = (_Run(size, name) for name in ("first", "killed", "resumed"))
    if not first.kept():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        first.start(pairs * 2 // 3).end()
    if not killed.kept():
        killed.start(pairs - killed.noted()).kill()
    if not resumed.kept():
        resumed.start(pairs - resumed.noted()).end()
    return first.read(), killed.read(), resumed.read()


def _folder(size: Size) -> Path:
    return Path("runs/bench") / f"{CASE}_{size.kernels}_{FRACTIONS[size.kernels].n}"


def _paper(output: str, n: int, paper: dict[Any, ntk.KernelCost]) -> list[Row]:
    plan = paper[output, 1]
    return [
        Row(CASE, f"N = {n}, {output}: pairs of blocks", plan.pairs, "", None, None,
            f"of {plan.rows} examples a side, {plan.implementation}; "
            f"{plan.differentiated} examples differentiated, {plan.outputs} reverse passes each; "
            f"holds {plan.held / 1e9:.3g} GB of derivatives and {plan.held_blocks / 1e6:.3g} MB "
            "of blocks"),
        Row(CASE, f"N = {n}, {output}: operations", plan.flops / 1e15, "PFLOP", None, None,
            "counted; with more processes: " + ", ".join(
                f"{PROCESSES * c}: {paper[output, c].flops / plan.flops - 1:+.2%}" for c in HOSTS)),
        Row(CASE, f"N = {n}, {output}: on disk", plan.stored / 1e9, "GB", None, None, "counted"),
    ]  # fmt: skip


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


class _Run:
    """Processes that compute pairs of blocks together, and what each wrote of it."""

    def __init__(self, size: Size, name: str) -> None:
        self.size, self.folder, self.name = size, _folder(size), name
        self.processes: list[subprocess.Popen[bytes]] = []
        self.said: dict[str, Any] = {}

    def start(self, pairs: int) -> "_Run":
        """Start the processes, which compute so many pairs at most."""
        self.said["begun"] = time.time()
        with socket.socket() as free:
            free.bind(("localhost", 0))
            at = f"localhost:{free.getsockname()[1]}"
        given = [self.size.kernels, str(self.folder), self.name, str(pairs), at]
        self.processes = [
            subprocess.Popen([sys.executable, "-m", "experiments.bench.fraction", *given, str(p)])
            for p in range(PROCESSES)
        ]
        return self

    def read(self) -> "_Run":
        """What was kept of it."""
        self.said = json.loads((self.folder / f"{self.name}.json").read_text())
        return self

    def _keep(self) -> None:
        io.write_json(self.folder / f"{self.name}.json", self.said)

    def pairs(self) -> list[dict[str, Any]]:
        """What the processes' logs say of each pair."""
        out: list[dict[str, Any]] = []
        for process in range(PROCESSES):
            file = self.folder / f"{self.name}_{process}.jsonl"
            *lines, _ = file.read_text().split("\n") if file.exists() else [""]
            seen = set[bool]()
            for line in map(json.loads, lines):
                same = line["i"] == line["j"]
                out.append({**line, "process": process, "first": same not in seen})
                seen.add(same)
        return out

    def noted(self) -> int:
        """Pairs that count: in the first row, all of them computed from left to right."""
        kernel = self.folder / "kernel"
        blocks = ntk.count_blocks(kernel)[0] if (kernel / "kernel.json").exists() else 0
        return (blocks + 1) // 2

    def kept(self) -> bool:
        """Whether it was run."""
        return (self.folder / f"{self.name}.json").exists()

    def kill(self) -> None:
        """Kill the last process once each has computed a pair, in the middle of a round."""
        before = self.noted()
        while len({p["process"] for p in self.pairs()}) < PROCESSES:
            time.sleep(0.05)
            if any(p.poll() is not None for p in self.processes):
                raise RuntimeError("a process ended before it was killed")
        self.processes[-1].send_signal(signal.SIGKILL)
        killed = time.time()
        for process in self.processes:
            process.wait()
        self.said |= {"noticed": time.time() - killed, "noted": self.noted() - before}
        self._keep()

    def end(self) -> None:
        """Until all are through."""
        for process in self.processes:
            if process.wait():
                raise RuntimeError(f"{' '.join(map(str, process.args))} failed")  # type: ignore[arg-type]
        self._keep()

    def until_first(self) -> float:
        """Seconds from the start until the first pair was begun."""
        return (
            min(p["at"] - p["computed"] - p["written"] for p in self.pairs()) - self.said["begun"]
        )


def _how(size: Size) -> dict[str, Any]:
    """The kernel that is asked for, but for its examples."""
    made = workload(size)
    readout = Partial(apply_head, made.head)

    def f(params: Params, images: Array) -> Array:
        return readout(made.backbone.f(params, images))

    function: Apply = f
    return {
        "f": function,
        "params": made.backbone.params,
        "trainable": made.backbone.last(min(LAST, size.blocks)),
        "memory": BUDGET,
        "batch_size": FRACTIONS[size.kernels].batch_size,
    }


def _images(size: Size, n: int) -> np.ndarray:
    side = size.image_size
    return np.random.default_rng(1).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def _difference(size: Size, path: Path, rows: int) -> float:
    """Of entries between examples of the first block and others of computed blocks."""
    asked, how = FRACTIONS[size.kernels], _how(size)
    f, params = how.pop("f"), how.pop("params")
    images, rng = _images(size, asked.n), np.random.default_rng(2)
    kernel = ntk.open_kernel(path, unfinished=True)
    there = np.flatnonzero(~np.isnan(np.asarray(kernel[0])))
    some1 = np.sort(rng.choice(min(rows, asked.n), min(rows, _CHECKED), replace=False))
    some2 = np.sort(rng.choice(there, min(len(there), _CHECKED), replace=False))
    stored = np.asarray(kernel[some1, :][:, some2])
    mirrored = np.asarray(kernel[some2, :][:, some1])
    expected = ntk.kernel(
        f,
        params,
        images[some1],
        images[some2],
        output="trace",
        trainable=how["trainable"],
        implementation="jacobian",
    )
    wrong = np.maximum(np.abs(stored - expected), np.abs(mirrored.T - expected))
    return float(wrong.max() / np.abs(expected).max())


class _Told(logging.Handler):
    """Seconds of each pair, as the library logs them, a line of JSON each."""

    def __init__(self, path: Path) -> None:
        super().__init__(logging.DEBUG)
        self.path = path

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what is said of a block."""
        if record.msg.startswith("block (%d, %d): %.3f s"):
            i, j, computed, written = record.args  # type: ignore[misc]
            told = {"i": i, "j": j, "computed": computed, "written": written, "at": time.time()}
            with self.path.open("a") as file:
                file.write(json.dumps(told) + "\n")


def main(kind: str, folder: Path, name: str, pairs: int, at: str, process: int) -> None:
    """One of the processes, on its share of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    own = cores[process * len(cores) // PROCESSES : (process + 1) * len(cores) // PROCESSES]
    os.sched_setaffinity(0, own or cores)
    hosts.initialize(at, PROCESSES, process, silence=_SILENCE)
    hosts.together("bench")  # what connects them waits 30 s at most for one that still plans
    compute(FULL if kind == "full" else TINY, folder, name, pairs, process)


def compute(size: Size, folder: Path, name: str, pairs: int, process: int) -> None:
    """So many pairs at most, and a log of each."""
    logger, told = logging.getLogger("linearize.ntk.kernel"), folder / f"{name}_{process}.jsonl"
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler := _Told(told))
    how = _how(size)
    images = _images(size, FRACTIONS[size.kernels].n)
    f, params = how.pop("f"), how.pop("params")
    ntk.kernel(f, params, images, output="trace", out=folder / "kernel", max_pairs=pairs, **how)
    logger.removeHandler(handler)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5],
         int(sys.argv[6]))  # fmt: skip

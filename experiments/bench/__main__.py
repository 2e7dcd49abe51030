"""``python -m experiments.bench [--case NAME ...] [--image-size PIXELS] [--out FILE] [--tiny]``."""

import argparse
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.bench import (
    against_torch,
    clip,
    demo,
    device,
    dual,
    fraction,
    generation,
    kernels,
    language,
    maps,
    measure,
    policies,
    profile,
    steady,
    step,
    stream,
)
from experiments.bench.measure import Row
from experiments.bench.workload import FULL, TINY, Size
from linearize import cli, io
from linearize.narration import Console

log = logging.getLogger(__name__)

CASES: dict[str, Callable[[Size], list[Row]]] = {
    step.CASE: step.rows,
    step.REMAT_CASE: step.remat_rows,
    maps.CASE: maps.rows,
    steady.CASE: steady.rows,
    against_torch.CASE: against_torch.rows,
    profile.CASE: profile.rows,
    clip.CASE: clip.rows,
    clip.LOAD_CASE: clip.load_rows,
    policies.CASE: policies.rows,
    language.CASE: language.rows,
    device.CASE: device.rows,
    kernels.CASE: kernels.rows,
    dual.CASE: dual.rows,
    stream.CASE: stream.rows,
    fraction.CASE: fraction.rows,
    demo.CASE: demo.rows,
    generation.CASE: generation.rows,
}


def main(args: Sequence[str] | None = None) -> int:
    """Run the cases, print the table, write the JSON; 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m experiments.bench", description=measure.ABOUT)
    parser.add_argument("--case", action="append", choices=CASES, help="may be repeated")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/bench.json"))
    parser.add_argument(
        "--image-size", type=int, metavar="PIXELS", help="of cases with two sizes, this one alone"
    )
    parser.add_argument("--tiny", action="store_true", help="for tests: the numbers mean nothing")
    chosen = parser.parse_args(args)
    size = TINY if chosen.tiny else FULL
    if chosen.image_size is not None:
        only = chosen.image_size
        size = dataclasses.replace(size, image_size=only, large_image_size=only)
    console = Console(stderr=True)
    rows: list[Row] = []
    seconds = {}
    # an accelerator's memory is left to the cases' own processes
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    facts = measure.facts()
    names = chosen.case or list(CASES)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names, 1):
        log.info("[%d/%d] case %s", i, len(names), name)
        start = time.perf_counter()
        rows += CASES[name](size)
        seconds[name] = time.perf_counter() - start
        record = {
            "schema": 1,
            "experiment": "bench",
            "size": vars(size),
            "facts": facts,
            "seconds": seconds,
            "rows": [row.record() for row in rows],
        }
        io.write_json(chosen.out, record)  # a later case may fail
    measure.show(rows)
    console.print(f"written to {chosen.out}", markup=False)
    return int(any(row.holds is False for row in rows))


if __name__ == "__main__":
    with cli.reporting(status=2):  # 1 is said of a goal that was missed
        sys.exit(main())

"""Ratios of times, rows of a table, and what machine they come from."""

import importlib.metadata
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import jax
from rich.table import Table

from linearize.narration import Console

ABOUT = (
    "Speed and memory of linearize. Every speed is a ratio of two programs timed in turns in one "
    "run; operations and compiled memory are exact."
)


Goal = tuple[Literal["<=", ">=", "=="], float]


@dataclass(frozen=True)
class Row:
    """A measured quantity and, if it has one, its goal.

    Attributes:
        case: the case's name.
        quantity: what was measured.
        value: the number; for ratios of times the median over interleaved pairs.
        unit: ``"x"`` for ratios, ``"F"`` for forward passes, ``"MB"``, or ``""`` for counts.
        goal: ``("<=", 5.1)``, or ``None`` for a number that is only told.
        spread: first and third quartile of the pairs' ratios.
        note: how it was measured.
    """

    case: str
    quantity: str
    value: float
    unit: str = ""
    goal: Goal | None = None
    spread: tuple[float, float] | None = None
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met; ``None`` without a goal."""
        if self.goal is None:
            return None
        sign, bound = self.goal
        return {"<=": self.value <= bound, ">=": self.value >= bound, "==": self.value == bound}[
            sign
        ]

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"holds": self.holds}


class Times(NamedTuple):
    """Two programs timed in turns, seconds; ``ratios`` are first over second, pair by pair."""

    first: list[float]
    second: list[float]

    @property
    def ratios(self) -> list[float]:
        """First over second, pair by pair."""
        return [a / b for a, b in zip(self.first, self.second, strict=True)]

    @property
    def ratio(self) -> float:
        """The median of the pairs' ratios: a slow spell of the machine strikes both of a pair."""
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """First and third quartile of the pairs' ratios."""
        if len(self.ratios) < 2:
            return (self.ratio, self.ratio)
        low, _, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return (low, high)

    @property
    def medians(self) -> tuple[float, float]:
        """Seconds of either program."""
        return (statistics.median(self.first), statistics.median(self.second))


def in_turns(
    first: Callable[[], Any], second: Callable[[], Any], repeats: int, warm_up: int = 1
) -> Times:
    """Time two programs in turns, A B A B ...; each call waits for its results.

    Args:
        first: returns JAX arrays, or anything already computed.
        second: likewise.
        repeats: number of timed pairs, after ``warm_up`` untimed ones.
    """
    for _ in range(warm_up):
        jax.block_until_ready(first())
        jax.block_until_ready(second())
    times = Times([], [])
    for _ in range(repeats):
        for program, seconds in ((first, times.first), (second, times.second)):
            start = time.perf_counter()
            jax.block_until_ready(program())
            seconds.append(time.perf_counter() - start)
    return times


def facts() -> dict[str, Any]:
    """Versions and machine."""
    packages = ("linearize", "jax", "jaxlib", "flax", "optax", "numpy", "torch")
    versions: dict[str, str | None] = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_bytes": _memory(),
        "devices": [str(d) for d in jax.devices()],
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def show(rows: Sequence[Row], console: Console | None = None) -> None:
    """The table in the terminal."""
    table = Table(title="linearize: speed and memory")
    for column in ("case", "quantity", "measured", "goal", "", "how"):
        side: Literal["right", "left"] = "right" if column in ("measured", "goal") else "left"
        table.add_column(column, justify=side, overflow="fold")
    last = None
    for row in rows:
        if last not in (None, row.case):
            table.add_section()
        measured = f"{row.value:.4g} {row.unit}".rstrip()
        if row.spread is not None:
            measured += f"\n[{row.spread[0]:.3g}, {row.spread[1]:.3g}]"
        goal = "" if row.goal is None else f"{row.goal[0]} {row.goal[1]:g}"
        verdict = {None: "", True: "[green]holds[/]", False: "[red]missed[/]"}[row.holds]
        table.add_row(
            row.case if row.case != last else "", row.quantity, measured, goal, verdict, row.note
        )
        last = row.case
    console = console or Console()
    if not console.is_terminal:
        console.width = 150
    console.print(table)

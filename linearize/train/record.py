"""Metrics of a run: in memory, as JSON lines, for TensorBoard, and as a progress bar."""

import contextlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from linearize import files, hosts, io, narration
from linearize.train.board import Board
from linearize.train.lock import guarded

log = logging.getLogger(__name__)

Row = dict[str, Any]


class Recorder:
    """Rows of metrics, each with its ``step``, appended to a file of JSON lines.

    Args:
        directory: of ``metrics.jsonl`` and ``tensorboard/``; None keeps rows in memory only.
        resumed_at: rows of later steps, which will be written again, are dropped.
        tensorboard: whether to write TensorBoard files as well.
        run: the run's hash; each row of the file begins with it.
    """

    def __init__(
        self, directory: Path | None, resumed_at: int, tensorboard: bool, run: str = ""
    ) -> None:
        self.rows: list[Row] = []
        self._run = run
        self._file: Any = None
        self._board: Board | None = None
        self._directory = directory
        self._start = time.perf_counter()
        if directory is None:
            return
        with guarded(directory):
            path = directory / "metrics.jsonl"
            self.rows = [row for row in read_rows(path) if row["step"] <= resumed_at]
            io.atomic_write(path, "".join(map(self._line, self.rows)))
            self._file = path.open("a", encoding="utf-8")
        if self.rows:
            self._start -= self.rows[-1].get("seconds", 0.0)
        if tensorboard:
            with guarded(directory):
                self._board = Board(
                    directory / "tensorboard", purge_step=resumed_at + 1 if resumed_at else None
                )

    @property
    def seconds(self) -> float:
        """Since the run began, without the time between an interruption and its resumption."""
        return time.perf_counter() - self._start

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Add a row."""
        row = {"step": step, **io.to_json(values), "seconds": round(self.seconds, 3)}
        self.rows.append(row)
        if self._file is not None and self._directory is not None:
            with guarded(self._directory):
                self._file.write(self._line(row))
                self._file.flush()
                if self._board is not None:
                    numbers = {n: v for n, v in row.items() if isinstance(v, int | float)}
                    del numbers["step"]
                    self._board.write(step, numbers)

    def _line(self, row: Row) -> str:
        return json.dumps({"run": self._run, **row} if self._run else row) + "\n"

    def close(self) -> None:
        """Write out what is buffered. A full disk has been reported by :meth:`write`."""
        for file in (self._file, self._board):
            if file is not None:
                with contextlib.suppress(OSError):
                    file.close()


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of JSON lines, up to the first that is not whole."""
    return [{k: v for k, v in row.items() if k != "run"} for row in _whole_rows(path)]


def runs(path: Path) -> set[str | None]:
    """The runs that the rows of a file are of; None for rows that do not say."""
    return {row.get("run") for row in _whole_rows(path)}


def _whole_rows(path: Path) -> list[Row]:
    rows: list[Row] = []
    if path.exists():
        for line in files.read_bytes(path).decode(errors="replace").splitlines():
            try:
                row = json.loads(line)
                rows += [row] if isinstance(row["step"], int) else []
            except (ValueError, KeyError, TypeError):
                break
    return rows


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} steps/s" if task.speed else "compiling")


class Bar:
    """Where training stands."""

    def __init__(self, progress: Progress | None, total: int, done: int, title: str) -> None:
        self._progress, self._pace = progress, narration.Pace(title, total)
        if progress is not None:
            self._task = progress.add_task(title, total=total, completed=done, loss="")

    def at(self, step: int) -> None:
        """So many steps are done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)
        else:
            self._pace.at(step)

    def loss(self, value: float) -> None:
        """The loss to show."""
        if self._progress is not None:
            self._progress.update(self._task, loss=f"loss {value:.4f}")


@contextlib.contextmanager
def progress_bar(show: bool, total: int, done: int, title: str) -> Iterator[Bar]:
    """One process's bar with rate and remaining time, on a terminal; lines in the log elsewhere."""
    log.info("%s: %d steps%s", title, total, f", from step {done} on" if done else "")
    console = narration.screen(show and hosts.first())
    if console is None:
        yield Bar(None, total, done, title)
        return
    columns = (
        TextColumn("{task.description}", markup=False),  # a task may be called "[/x]"
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress, total, done, title)

"""What takes long says how far it is: to a logger, and from there to standard error."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from typing import TypeVar

import rich.console
from rich.file_proxy import FileProxy

log = logging.getLogger(__name__)

T = TypeVar("T")

SILENCE = 10.0
"""Seconds after which something is said again."""

NAMES = ("linearize", "experiments", "__main__")
"""Loggers that are heard: the library's, and the experiments'."""


class Pace:
    """Logs how far something is, about once in :data:`SILENCE`."""

    def __init__(self, label: str, total: int) -> None:
        self.label, self.total = label, total
        self.said = time.monotonic()

    def at(self, done: int) -> None:
        """So much is done."""
        if time.monotonic() - self.said >= 0.9 * SILENCE and done < self.total:
            self.said = time.monotonic()
            log.info("%s: %d of %d", self.label, done, self.total)


def paced(items: Sequence[T], label: str) -> Iterable[T]:
    """The items; where they take long, the log says how far they are."""
    pace = Pace(label, len(items))
    for done, item in enumerate(items):
        pace.at(done)
        yield item


class Narrator(logging.Handler):
    """Lines on standard error, above a progress bar where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        self.last: logging.LogRecord | None = None
        self.spoke = time.monotonic()

    def whisper(self, who: str) -> None:
        """From now on say warnings alone, and whose they are."""
        self.setLevel(logging.WARNING)
        self.setFormatter(logging.Formatter(f"%(asctime)s {who}%(message)s", "%H:%M:%S"))
        self.last = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line."""
        self.last, self.spoke = record, time.monotonic()
        try:
            print(self.format(record), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)  # a run outlives who reads it

    def remind(self) -> None:
        """Say what goes on, where nothing was said for :data:`SILENCE` and no bar moves."""
        if self.last is None or time.monotonic() - self.spoke < SILENCE or drawing():
            return
        with self.lock or contextlib.nullcontext(), contextlib.suppress(OSError):
            self.spoke = time.monotonic()
            lasts = time.time() - self.last.created
            clock = time.strftime("%H:%M:%S")
            print(
                f"{clock}   … {self.last.getMessage()}: {lasts:.0f} s", file=sys.stderr, flush=True
            )


class Console(rich.console.Console):
    """Rich's, whose reader may go away: an error on standard output, silence on standard error.

    Rich itself would end the process with status 1 and without a word.
    """

    def on_broken_pipe(self) -> None:
        """Called by rich where it finds a pipe that nobody reads."""
        if not self.stderr:
            raise BrokenPipeError
        self.quiet = True


def screen(wanted: bool) -> Console | None:
    """Standard error, if a progress bar is wanted and it can be drawn there, or in a notebook."""
    console = Console(stderr=True)
    return console if wanted and (console.is_terminal or console.is_jupyter) else None


def forgive() -> None:
    """Let standard output and error show "?" for what their encoding lacks, such as "±"."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):  # closed, or not what it was
                stream.reconfigure(errors="replace")


def drawing() -> bool:
    """Whether a progress bar moves on standard error: ours, or tqdm's, which downloads draw."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return isinstance(sys.stderr, FileProxy) or bool(getattr(tqdm, "_instances", ()))


@contextlib.contextmanager
def logged() -> Iterator[Narrator]:
    """Let the library be heard for the time of the block."""
    narrator, root, over = Narrator(), logging.getLogger(), threading.Event()
    for name in NAMES:
        logging.getLogger(name).setLevel(logging.INFO)

    def watch() -> None:
        while not over.wait(SILENCE / 10):
            narrator.remind()

    root.addHandler(narrator)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield narrator
    finally:
        over.set()
        root.removeHandler(narrator)

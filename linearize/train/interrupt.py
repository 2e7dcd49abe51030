"""Ctrl-C, and the signals that clusters send, as requests that are answered between two steps."""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from linearize.joining import HostError, Told, joined, vanish

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], None]

_TERMINAL = signal.SIGINT
_SENT = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n))

REQUEUE = 75
"""Exit status after SIGTERM, by which preemption and time limits come: EX_TEMPFAIL of sysexits, a
failure that passes. What there is to save is saved, and the same command goes on from it, so that a
scheduler which is told of this status starts it again."""

GRACE = 20.0
"""Seconds that a block of :func:`raised` has to end by itself after a signal: fewer than the 30
after which SLURM (``KillWait``) and Kubernetes kill it by default."""
_GRACE_TOGETHER = 5.0
"""The same where others wait for this process, for :data:`linearize.joining.PARTING` at most."""
_TICK = 0.05
_busy: list["Request"] = []
"""Of the blocks of :func:`deferred` that are under way."""


def status(number: int) -> int:
    """The exit status after a signal: :data:`REQUEUE` after SIGTERM, else 128 + its number."""
    return REQUEUE if number == signal.SIGTERM else 128 + number


def farewell(number: int) -> str:
    """What to say in the end."""
    name = signal.Signals(number).name
    return f"stopped by {name}; the same command goes on from here (exit status {status(number)})"


class Terminated(Told):
    """SIGTERM or SIGHUP came. Where nobody catches it, :func:`status` is the exit status."""

    def __init__(self, message: str, number: int) -> None:
        self.number = number
        super().__init__(status(number))
        self.message, self.name = message, signal.Signals(number).name

    def __str__(self) -> str:
        return f"stopped by {self.name}{self.message and ': '}{self.message}"


class Request:
    """The signal that came, 0 while none has."""

    number = 0
    unsaved = False
    """Whether there is something that will be saved before it is answered."""

    def answer(self, message: str) -> BaseException:
        """What to raise: ``KeyboardInterrupt`` after Ctrl-C, else :class:`Terminated`."""
        if self.number == _TERMINAL:
            return KeyboardInterrupt(message)
        stop = Terminated(message, self.number)
        log.warning("%s", stop)  # a SystemExit that nobody catches is silent
        return stop


@contextlib.contextmanager
def deferred() -> Iterator[Request]:
    """Note the first Ctrl-C, SIGTERM or SIGHUP; let a Ctrl-C after it through.

    Outside the main thread, where Python delivers no signals, nothing is changed, and what is
    ignored (SIGHUP under ``nohup``) stays so.

    Raises:
        KeyboardInterrupt: a signal came, and then another process was lost, which it came to too.
        Terminated: likewise.
    """
    request = Request()

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number

    with _handled((_TERMINAL, *_SENT), note):
        _busy.append(request)
        try:
            yield request
        except HostError as error:
            if request.number:
                raise request.answer(str(error)) from error
            raise
        finally:
            _busy.remove(request)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """SIGTERM and SIGHUP as :class:`Terminated`, at once, as Ctrl-C is ``KeyboardInterrupt``.

    Where that does not end the block within :data:`GRACE`, the process ends: Python answers no
    signal while a compiler or a long program runs, and swallows what is raised while it collects
    garbage. All that there is to lose is on the disk, but for the steps of a fine-tuning, which are
    waited for, until they are saved.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated("", number)

    with _handled(_SENT, stop), _ended():
        yield


@contextlib.contextmanager
def _ended() -> Iterator[None]:
    """End the process where a signal has not ended the block."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    over = threading.Event()

    def watch() -> None:
        with ours:
            while came := ours.recv(64):
                numbers = [number for number in came if number in _SENT]
                if numbers and _outlasts(over):
                    with contextlib.suppress(OSError):
                        os.write(2, f"\n{farewell(numbers[0])}\n".encode())
                    vanish(status(numbers[0]), told=True)

    threading.Thread(target=watch, daemon=True, name="signals").start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        theirs.close()


def _outlasts(over: threading.Event) -> bool:
    """Whether the block goes on for as long as it may, time to save not counted."""
    left = min(GRACE, _GRACE_TOGETHER) if joined() else GRACE
    while left > 0:
        if over.wait(_TICK):
            return False
        left -= 0 if any(each.unsaved for each in _busy) else _TICK
    return True


def _known(number: int, frame: FrameType | None) -> None:
    """A signal that says what was said already."""


@contextlib.contextmanager
def _handled(numbers: tuple[int, ...], handler: Handler) -> Iterator[None]:
    """One handler for the first of some signals; within the block, the rest are known.

    SIGTERM and SIGHUP come in pairs (a terminal that closes sends SIGHUP, and so does its shell;
    systemd sends both), so those after the first say nothing new. A Ctrl-C is let through.
    """
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, earlier in before.items():
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)

    def once(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, before[one] or signal.SIG_DFL if one == _TERMINAL else _known)
        handler(number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            earlier = signal.getsignal(number)
            if number == _TERMINAL or earlier is not signal.SIG_IGN:
                before[number] = earlier
                signal.signal(number, once)
    try:
        yield
    finally:
        restore()

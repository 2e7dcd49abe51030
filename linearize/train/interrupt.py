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

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], None]

_TERMINAL = signal.SIGINT
_SENT = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGHUP") if hasattr(signal, n))

GRACE = 30.0
"""Seconds that a block of :func:`raised` has to end by itself after a signal."""
_TICK = 0.05
_busy: list[object] = []
"""The blocks of :func:`deferred` that are under way, which end when they have saved their state."""


class Terminated(SystemExit):
    """SIGTERM or SIGHUP came. Where nobody catches it, the exit status is 128 + the signal's."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(128 + number)
        self.message, self.name = message, signal.Signals(number).name

    def __str__(self) -> str:
        return f"stopped by {self.name}{self.message and ': '}{self.message}"


class Request:
    """The signal that came, 0 while none has."""

    number = 0

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
    """
    request = Request()

    def note(number: int, frame: FrameType | None) -> None:
        request.number = number

    with _handled((_TERMINAL, *_SENT), note):
        _busy.append(request)
        try:
            yield request
        finally:
            _busy.remove(request)


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """SIGTERM and SIGHUP as :class:`Terminated`, at once, as Ctrl-C is ``KeyboardInterrupt``.

    Where that does not end the block within :data:`GRACE`, the process ends: Python answers no
    signal while a compiler or a long program runs, and swallows what is raised while it collects
    garbage. Outside fine-tuning, which saves its state, all that there is to lose is on the disk.
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
                    name = signal.Signals(numbers[0]).name
                    words = f"\nstopped by {name}; the same command goes on from here\n"
                    with contextlib.suppress(OSError):
                        os.write(2, words.encode())
                    os._exit(128 + numbers[0])

    threading.Thread(target=watch, daemon=True, name="signals").start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        theirs.close()


def _outlasts(over: threading.Event) -> bool:
    """Whether the block goes on for as long as it may, fine-tuning not counted."""
    left = GRACE
    while left > 0:
        if over.wait(_TICK):
            return False
        left -= 0 if _busy else _TICK
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

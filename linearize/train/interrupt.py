"""Ctrl-C as a request that is answered between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Request:
    """Whether Ctrl-C was pressed."""

    made = False


@contextlib.contextmanager
def deferred() -> Iterator[Request]:
    """Note the first Ctrl-C; let the second one through.

    Outside the main thread, where Python delivers no signals, nothing is changed.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: object) -> None:
        request.made = True
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)

    signal.signal(signal.SIGINT, note)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.SIG_DFL)

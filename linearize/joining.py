"""How processes come together, and part: where they meet, and what ends one that lost another."""

import atexit
import contextlib
import functools
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import jax


class HostError(RuntimeError):
    """What another process met, or in what it differs."""


class Told(SystemExit):
    """A signal told this process to end, and so, from a scheduler or a terminal, the others too."""


LOST = (
    "another process ended, or cannot be reached. What was saved is whole: start the same command "
    "in all processes, and it goes on from there"
)
FOUND_BY = ("slurm", "ompi", "mpi4py", "k8s", "gcetpu", "gketpu")
"""What JAX finds processes by. MPI4Py is asked where it is named alone."""
PARTING = 10.0
"""Seconds that a process which was told to end waits for the others to be as far: JAX aborts those
that are not when the first is gone, whatever they would have said."""


@dataclass(frozen=True)
class Processes:
    """Where the processes of a run meet, how many there are, and which this is.

    Without arguments they are found by themselves, under SLURM, Open MPI 4 and Kubernetes and on
    Cloud TPU (``jax.distributed.initialize``).

    >>> Processes("10.0.0.1:1234", processes=2, process=2)
    Traceback (most recent call last):
    ValueError: process=2 of processes=2; they are counted from 0, so give 0 to 1
    """

    at: str | None = None
    """``HOST:PORT`` of process 0, which all can reach; or a name of :data:`FOUND_BY`."""
    processes: int | None = None
    """How many."""
    process: int | None = None
    """Which this is, from 0."""
    wait: int = 300
    """Seconds that they have to come."""
    silence: int = 30
    """Seconds after which one that gives no sign of life is taken for dead, and the others end."""

    def __post_init__(self) -> None:
        """Check what is given.

        Raises:
            ValueError: it is none of these.
        """
        for name in ("wait", "silence"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}; give 1 second or more")
        numbers = {"processes": self.processes, "process": self.process}
        given = [name for name, value in numbers.items() if value is not None]
        if self.found_by:
            if self.at not in (None, *FOUND_BY):
                raise ValueError(
                    f"at={self.at!r}; expected HOST:PORT of process 0, or what the processes are "
                    f"found by: {', '.join(FOUND_BY)}"
                )
            if given:
                raise ValueError(
                    f"{' and '.join(f'{n}={numbers[n]}' for n in given)} without HOST:PORT of "
                    "process 0; give all three, or none where the processes are found by themselves"
                )
            return
        host, _, port = str(self.at).rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ValueError(f"at={self.at!r}; expected HOST:PORT, such as 10.0.0.1:1234")
        if missing := [name for name in numbers if name not in given]:
            raise ValueError(
                f"at={self.at!r} without {' and '.join(missing)}; give the address of process 0, "
                "how many processes there are, and which this is"
            )
        assert self.processes is not None
        assert self.process is not None
        if self.processes < 1:
            raise ValueError(f"processes={self.processes}; give 1 or more")
        if not 0 <= self.process < self.processes:
            raise ValueError(
                f"process={self.process} of processes={self.processes}; they are counted from 0, "
                f"so give 0 to {self.processes - 1}"
            )

    @property
    def found_by(self) -> bool:
        """Whether JAX finds them."""
        return self.at is None or ":" not in self.at

    def join(self) -> None:
        """Meet the others; nothing may have been computed yet.

        Where a process dies or is silent, the others end, within ``silence`` and 15 seconds, by a
        HostError, or by JAX, which aborts (status 134) and after which the same sentence is said.
        An error that nobody catches ends a process at once, and so the others soon. JAX's own
        answer to SIGTERM is switched off.

        Raises:
            HostError: they were not found, or did not come, or JAX was used before.
        """
        _epitaph.begin(self._unmet)
        jax.config.update("jax_enable_preemption_service", False)
        try:
            jax.distributed.initialize(
                None if self.found_by else self.at,
                self.processes,
                self.process,
                cluster_detection_method=self.at if self.found_by else None,
                initialization_timeout=self.wait,
                heartbeat_timeout_seconds=self.silence,
                shutdown_timeout_seconds=self.silence + int(PARTING),
            )
        except (KeyError, ValueError, RuntimeError) as error:
            _epitaph.end()
            raise HostError(f"{self._why(error)} ({error})") from error
        _epitaph.joined()
        sys.excepthook = functools.partial(_uncaught, sys.excepthook)

    @property
    def _unmet(self) -> str:
        where = "" if self.found_by else f" at {self.at}"
        return (
            f"the processes did not meet{where} within {self.wait} s; see that all were started, "
            "with the same address and number of processes, and that each reaches process 0"
        )

    def _why(self, error: Exception) -> str:
        said = str(error)
        if "must be called before" in said or "only be called once" in said:
            return (
                "JAX was used before the processes met; call hosts.initialize first of all, once, "
                "before any array is made"
            )
        if isinstance(error, KeyError) or "should be defined" in said or "must be defined" in said:
            return (
                "nothing here says which processes there are: no variables of SLURM, Open MPI or "
                "Kubernetes, and no TPU; give HOST:PORT of process 0, how many processes there "
                "are, and which this is"
            )
        return self._unmet


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    wait: int = 300,
    silence: int = 30,
) -> None:
    """Join the other processes, before JAX is used: :meth:`Processes.join`.

    Args:
        coordinator: as ``at`` of :class:`Processes`; None where they are found by themselves.
        processes: how many.
        process: which this is, from 0.
        wait: seconds that they have to come.
        silence: seconds without a sign of life after which one is taken for dead.

    Raises:
        ValueError: a part is missing, or is none of these.
        HostError: they were not found, or did not come, or JAX was used before.
    """
    Processes(coordinator, processes, process, wait, silence).join()


class _Epitaph:
    """Says, by a shell, why this process was ended where Python has no word any more.

    JAX aborts a process that has lost another. The shell is told "joined" and "ended"; what it was
    not told when this process is gone, it was about.
    """

    shell: subprocess.Popen | None = None

    def begin(self, unmet: str) -> None:
        """From now on, say that the processes did not meet."""
        say = "echo error: {} >&2".format
        first, then = say(shlex.quote(unmet)), say(shlex.quote(f"ended, or {LOST}"))
        script = f'read word || {first}; [ "$word" != joined ] || read word || {then}'
        self.shell = subprocess.Popen(
            ["/bin/sh", "-c", script],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        atexit.register(self.end)

    def joined(self) -> None:
        """From now on, that another process is gone."""
        if self.shell is not None and self.shell.stdin is not None:
            self.shell.stdin.write(b"joined\n")
            self.shell.stdin.flush()

    def end(self) -> None:
        """Say nothing."""
        if self.shell is not None and self.shell.poll() is None:
            self.shell.communicate(b"ended\n")


_epitaph = _Epitaph()


def _uncaught(said_by: Callable[..., object], *error: Any) -> None:
    said_by(*error)
    told = isinstance(error[1], KeyboardInterrupt)
    leave(130 if told else 1, told)


def joined() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def leave(status: int, told: bool = False) -> NoReturn:
    """End at once, so that the others see it: a process that ends by itself waits for them.

    Args:
        status: to end with.
        told: whether a signal told all to end; then they go together, within :data:`PARTING`.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    vanish(status, told)


def vanish(status: int, told: bool = False) -> NoReturn:
    """As :func:`leave`, from any thread: whoever holds a stream may never give it back."""
    _going.acquire()  # never given back: of two threads, one ends the process
    if told and joined():
        going = threading.Thread(target=_shut, daemon=True)
        going.start()
        with contextlib.suppress(KeyboardInterrupt):
            going.join(PARTING)
    _epitaph.end()
    os._exit(status)


_going = threading.Lock()


def _shut() -> None:
    with contextlib.suppress(RuntimeError):
        jax.distributed.shutdown()  # returns when all have called it


@contextlib.contextmanager
def parting() -> Iterator[None]:
    """An exit from the block ends this process at once, if it has joined others."""
    try:
        yield
    except SystemExit as stop:
        if joined():
            status = stop.code if isinstance(stop.code, int) else stop.code is not None
            leave(status, isinstance(stop, Told))
        raise

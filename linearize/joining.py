"""How processes come together, and part: where they meet, and what ends one that lost another."""

import contextlib
import functools
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn
from unittest import mock

import jax


class HostError(RuntimeError):
    """What another process met, or in what it differs."""


_HEARTBEAT = 30
"""Seconds after which a process that says nothing is taken for dead, and the others end."""
_LAST_WORDS = 5
"""Seconds that the main thread then has, to end by an error of its own."""
LOST = (
    "another process ended, or cannot be reached. What was saved is whole: start the same command "
    "in all processes, and it goes on from there"
)
FOUND_BY = ("slurm", "ompi", "mpi4py", "k8s", "tpu", "gcetpu", "gketpu")
"""What JAX finds processes by. MPI4Py is asked where it is named alone."""


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

    def __post_init__(self) -> None:
        """Check what is given.

        Raises:
            ValueError: it is none of these.
        """
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

        Where a process dies or is not heard of for 30 s, the others end, within 45 s, with status 1
        and a sentence. JAX's own answer to SIGTERM is switched off, as ours is another.

        Raises:
            HostError: they were not found, or did not come, or JAX was used before.
        """
        jax.config.update("jax_enable_preemption_service", False)
        try:
            with _noticed():
                jax.distributed.initialize(
                    None if self.found_by else self.at,
                    self.processes,
                    self.process,
                    cluster_detection_method=self.at if self.found_by else None,
                    initialization_timeout=self.wait,
                    heartbeat_timeout_seconds=_HEARTBEAT,
                    shutdown_timeout_seconds=_HEARTBEAT,
                )
        except (ValueError, RuntimeError) as error:
            raise HostError(f"{self._why(str(error))} ({_brief(error)})") from error

    def _why(self, said: str) -> str:
        if "must be called before" in said or "only be called once" in said:
            return (
                "JAX was used before the processes met; call hosts.initialize first of all, once, "
                "before any array is made"
            )
        if "should be defined" in said or "must be defined" in said:
            return (
                "nothing here says which processes there are: no variables of SLURM, Open MPI or "
                "Kubernetes, and no TPU; give HOST:PORT of process 0, how many processes there "
                "are, and which this is"
            )
        where = "" if self.found_by else f" at {self.at}"
        return (
            f"the processes did not meet{where} within {self.wait} s; see that all were started, "
            "with the same address and number of processes, and that each reaches process 0"
        )


def _brief(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    *,
    wait: int = 300,
) -> None:
    """Join the other processes, before JAX is used: :meth:`Processes.join`.

    Args:
        coordinator: as ``at`` of :class:`Processes`; None where they are found by themselves.
        processes: how many.
        process: which this is, from 0.
        wait: seconds that they have to come.

    Raises:
        ValueError: a part is missing, or is none of these.
        HostError: they were not found, or did not come, or JAX was used before.
    """
    Processes(coordinator, processes, process, wait).join()


@contextlib.contextmanager
def _noticed() -> Iterator[None]:
    """Have JAX's client say that another process is gone by a sentence, where it would abort.

    JAX offers no way to ask for it; where it makes the client otherwise, it aborts as ever.
    """
    try:
        from jax._src.lib import _jax

        make = functools.partial(
            _jax.get_distributed_runtime_client, missed_heartbeat_callback=_end
        )
    except (ImportError, AttributeError):
        yield
        return
    with mock.patch.object(_jax, "get_distributed_runtime_client", make):
        yield


def _end(said: Any) -> None:
    if threading.current_thread() is threading.main_thread():
        return  # it is joining, and is told by an error
    time.sleep(_LAST_WORDS)
    with contextlib.suppress(OSError):
        os.write(2, f"\nerror: {LOST} ({_brief(said)})\n".encode())
    os._exit(1)


def joined() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def leave(status: int) -> NoReturn:
    """End at once, so that the others see it: a process that ends by itself waits for them."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


@contextlib.contextmanager
def parting() -> Iterator[None]:
    """What ends the block ends this process, if it has joined others, and soon all of them."""
    try:
        yield
    except BaseException as error:
        if not joined():
            raise
        if isinstance(error, SystemExit):
            leave(error.code if isinstance(error.code, int) else error.code is not None)
        traceback.print_exception(error)
        leave(1)

"""One process a directory: a lock that ends with its holder, on one machine and over several.

On one machine ``flock`` is all there is to it: the system releases it when its holder dies. Over
several machines a shared file system passes it on (NFS since Linux 2.6.12, most of those of
clusters) or keeps it to each machine (NFS with ``local_lock``, Lustre with ``localflock``). So the
holder also makes a file beside it, ``lock.held``, with ``O_EXCL``, which of all machines' processes
one alone can, and touches it every :data:`BEAT` seconds. One of another machine that was touched
within :data:`SILENT` seconds, by the file system's own clock, is respected, whatever ``flock``
says. An older one is replaced, by a rename and with a warning, and whoever made it, if it runs
after all, ends at its next step (:meth:`Claim.check`).
"""

import contextlib
import errno
import fcntl
import logging
import math
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from linearize import hosts
from linearize.train.errors import RunDirectoryError, RunLockedError

log = logging.getLogger(__name__)

BEAT = 15.0
"""Seconds between two signs of life."""
SILENT = 300.0
"""Seconds without one, after which a process of another machine is taken to be dead."""

_TICK = 0.1
_MOST = 1000


class Claim:
    """A lock that is held.

    Attributes:
        before: what the file said before.
        signature: what it says meanwhile.
        note: what it is to say afterwards.
        lost: who took the lock over; empty while it is held.
    """

    def __init__(self, path: Path, before: str) -> None:
        self.path, self.before, self.signature = path, before, _signature()
        self.note = self.lost = ""

    def check(self) -> None:
        """See that nobody took it over.

        Raises:
            RunLockedError: another machine did, which saw no sign of life for too long.
        """
        if self.lost:
            raise RunLockedError(
                f"{self.path.parent} was taken over by {self.lost}, as this process gave no sign "
                f"of life for {SILENT:.0f} s; nothing is written there any more, and the other "
                "goes on from the last checkpoint"
            )

    @property
    def held(self) -> Path:
        """The file that other machines look at."""
        return _held(self.path)

    def beat(self) -> None:
        """Give a sign of life, if the lock is still this process's."""
        found = said(self.held)
        with contextlib.suppress(OSError):
            if found == self.signature:
                os.utime(self.held)
            elif found:
                self.lost = _first(found)

    def end(self) -> None:
        """Leave it to others."""
        if said(self.held) == self.signature:
            with contextlib.suppress(OSError):
                self.held.unlink()


@contextlib.contextmanager
def exclusive(directory: Path, *, file: str = "lock", wait: bool = False) -> Iterator[Claim]:
    """Hold ``directory/lock`` for the time of the block.

    Args:
        directory: made where absent.
        file: the lock's name.
        wait: until it is free.

    Raises:
        RunLockedError: another process, or another run of this one, holds it.
        RunDirectoryError: the directory cannot be made or written.
    """
    handle, writable, before = _taken(directory, file, fcntl.LOCK_EX, wait)
    claim = Claim(directory / file, before)
    try:
        if writable:
            with guarded(directory):
                _say(handle, claim.signature)
            _alive.add(claim)
            _heart()
        yield claim
    finally:
        _alive.discard(claim)
        if writable and not claim.lost:
            with contextlib.suppress(OSError):
                _say(handle, claim.note)
            claim.end()
        os.close(handle)


@contextlib.contextmanager
def together(directory: Path) -> Iterator[None]:
    """Hold ``directory/lock`` as others do at the same time, while nobody holds it alone.

    Raises:
        RunLockedError, RunDirectoryError: as :func:`exclusive`.
    """
    handle, *_ = _taken(directory, "lock", fcntl.LOCK_SH, False)
    try:
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def claimed(directory: Path, claim: Callable[[], None], *, shared: bool = False) -> Iterator[None]:
    """Hold a run's directory once ``claim`` has seen that it is this run's, one process at a time.

    Of several that have joined (:mod:`linearize.hosts`) the first holds it for all.

    Args:
        directory: made where absent.
        claim: writes down what it is of, or refuses it.
        shared: among others that hold it so, and not alone.

    Raises:
        RunLockedError, RunDirectoryError: as :func:`exclusive`.
        HostError: in others than the first, with what kept it.
    """
    with hosts.held(_claimed(directory, claim, shared)):
        yield


@contextlib.contextmanager
def _claimed(directory: Path, claim: Callable[[], None], shared: bool) -> Iterator[None]:
    with together(directory) if shared else exclusive(directory):
        in_turn = exclusive(directory, file="claiming", wait=True)
        with in_turn if shared else contextlib.nullcontext():
            claim()
        yield


def said(path: Path) -> str:
    """What a lock's file says: who holds it, or what its last holder left; empty where absent."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _taken(directory: Path, file: str, kind: int, wait: bool) -> tuple[int, bool, str]:
    """The lock's handle, whether it can be written, and what the file said."""
    while True:
        with guarded(directory):
            directory.mkdir(parents=True, exist_ok=True)
            handle, writable = _open(directory / file)
        try:
            before = os.pread(handle, _MOST, 0).decode(errors="replace")
            try:
                fcntl.flock(handle, kind | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise unusable(directory, error) from error
                raise _in_use(directory, before) from error
            with guarded(directory):
                if kind == fcntl.LOCK_EX and writable:
                    _make(_held(directory / file))
                else:
                    _check(_held(directory / file))
            return handle, writable, os.pread(handle, _MOST, 0).decode(errors="replace").strip()
        except BaseException as error:
            os.close(handle)
            if not (wait and isinstance(error, RunLockedError)):
                raise
        time.sleep(_TICK)


def _in_use(directory: Path, holder: str, more: str = "") -> RunLockedError:
    return RunLockedError(
        f"run_dir={directory} is in use by {_first(holder)}{more}; wait for it to end, or choose "
        "another run_dir"
    )


def _first(said: str) -> str:
    return said.partition("\n")[0].strip() or "another process"


def _held(path: Path) -> Path:
    return path.with_name(f"{path.name}.held")


def _make(held: Path) -> None:
    """Make the file, or put one's own in place of a dead process's, as one of several that try.

    Raises:
        RunLockedError: its maker lives, or another process is about to take it over.
    """
    try:
        _sign(held)
        return
    except FileExistsError:
        found = _check(held)
    heir = held.with_name(f"{held.name}.next")
    try:
        _sign(heir)
    except FileExistsError:
        if _is_of_here(said(heir)) or SILENT < _silence(heir) < math.inf:
            heir.unlink(missing_ok=True)  # its maker died before it came to it
        raise _in_use(held.parent, found) from None
    try:
        found = _check(held)  # another may have been the first
    except BaseException:
        heir.unlink(missing_ok=True)
        raise
    try:
        heir.replace(held)
    except FileNotFoundError:
        raise _in_use(held.parent, found) from None
    if found and not _is_of_here(found):
        log.warning(
            "%s: %s gave no sign of life for %.0f s and is taken to be dead",
            *(held.parent, _first(found), SILENT),
        )


def _sign(path: Path) -> None:
    """Make a file that says who made it.

    Raises:
        FileExistsError: there is one; of all machines' processes one alone makes it.
    """
    with path.open("x") as file:
        try:
            file.write(_signature())
            file.flush()
        except OSError:
            path.unlink(missing_ok=True)
            raise


def _check(held: Path) -> str:
    """What the file of a dead process says, if there is one.

    Raises:
        RunLockedError: a process of another machine made it, and gave a sign of life not long ago.
    """
    found = said(held)
    if not held.exists() or _is_of_here(found):
        return found
    silence = _silence(held)
    if silence < SILENT:
        more = (
            f", which gave a sign of life {max(silence, 0):.0f} s ago (where that machine is dead, "
            f"this is free after {SILENT:.0f} s)"
        )
        raise _in_use(held.parent, found, more)
    return found


def _is_of_here(signature: str) -> bool:
    """Whether a process of this machine signed, of which ``flock`` knows whether it lives."""
    return signature.partition("\nboot ")[2] == _boot()


def _silence(path: Path) -> float:
    """Seconds since a file was touched, by the file system's clock; endless where it is gone."""
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        os.utime(probe.fileno())
        now = os.fstat(probe.fileno()).st_mtime
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


@cache
def _boot() -> str:
    """Which machine this is, since it was last started: two may have one name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def _signature() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}\nboot {_boot()}"


def _say(handle: int, text: str) -> None:
    os.ftruncate(handle, 0)
    os.pwrite(handle, text.encode(), 0)


_alive: set[Claim] = set()


@cache
def _heart() -> threading.Thread:
    """The thread that gives signs of life of all that is held."""

    def go_on() -> None:
        while True:
            time.sleep(BEAT)
            for claim in tuple(_alive):
                claim.beat()

    thread = threading.Thread(target=go_on, daemon=True, name="signs of life")
    thread.start()
    return thread


def _open(path: Path) -> tuple[int, bool]:
    """A handle, and whether it can be written; a finished run may lie on a read-only disk."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), True
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES) or not path.exists():
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False


@contextlib.contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Turn an ``OSError`` of reading or writing a run directory into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise unusable(directory, error) from error


def unusable(directory: Path, error: OSError) -> RunDirectoryError:
    """The error that says why a run directory cannot be used."""
    where = f" ({error.filename})" if error.filename else ""
    reason = (error.strerror or str(error)).partition(" (nothing was written")[0]
    return RunDirectoryError(
        f"run_dir={directory} cannot be used: {reason}{where}; make room, permit writing, or "
        "choose another run_dir. What was saved before is untouched"
    )

"""One process a directory: an advisory lock that the system releases when its holder dies."""

import contextlib
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from linearize.train.errors import RunDirectoryError, RunLockedError


@contextlib.contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold ``directory/lock`` for the time of the block.

    Raises:
        RunLockedError: another process, or another run of this one, holds it.
        RunDirectoryError: the directory cannot be made or written.
    """
    with guarded(directory):
        directory.mkdir(parents=True, exist_ok=True)
        handle, writable = _open(directory / "lock")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
        os.close(handle)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise RunLockedError(
                f"run_dir={directory} is in use by {holder or 'another process'}; wait for it to "
                "end, or choose another run_dir"
            ) from error
        raise unusable(directory, error) from error
    try:
        if writable:
            with guarded(directory):
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


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

"""Checkpoints that are whole, or are not there.

A checkpoint is written by Orbax into ``STEP.writing``; the files' SHA-256 go into a list beside
them, and only then is the directory renamed to ``STEP``. A process killed at any instant leaves the
earlier checkpoints and at most one ``.writing`` directory, which is swept away. A step is never
overwritten. Orbax loads a flipped byte silently, so the hashes are checked before it reads.
"""

import concurrent.futures
import functools
import hashlib
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from linearize import hosts, io, tree
from linearize.train.errors import CheckpointError
from linearize.train.lock import guarded
from linearize.types import PyTree

log = logging.getLogger(__name__)

HASHES = "sha256.json"
"""The list of a checkpoint's files, each with its SHA-256, and the run that it is of."""


class _Later:
    """What is done when it is waited for."""

    def __init__(self, result: Callable[[], None]) -> None:
        self.result = result


class Checkpoints:
    """The checkpoints of one run, kept by count, written in the background.

    Args:
        directory: made on first use.
        keep: how many of the newest remain.
        run: the hash of the run, which each says that it is of.
    """

    def __init__(self, directory: Path, keep: int, run: str = "") -> None:
        self._run = run
        self.directory, self.keep = directory.absolute(), keep  # Orbax refuses relative paths
        self._pool = concurrent.futures.ThreadPoolExecutor(1, "checkpoint")
        self._writing: concurrent.futures.Future | _Later | None = None

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, oldest first; their hashes are not checked here."""
        if not self.directory.is_dir():
            return []
        return sorted(int(p.name) for p in self.directory.iterdir() if p.name.isdigit())

    def save(self, step: int, state: Mapping[str, PyTree]) -> None:
        """Begin to write a checkpoint; the state may be donated as soon as this returns.

        A step that is there already is left alone.

        Raises:
            CheckpointError: the one before could not be written, or this one cannot be begun.
        """
        self.wait()
        if hosts.told(lambda: step in self.steps()):
            return
        ocp = _orbax()
        part = self.directory / f"{step}.writing"
        try:
            hosts.told(lambda: self._begin(part))
            response = ocp.save_async(part / "state", _snapshot(state))
        except Exception as error:
            raise self._failed(step, error) from error
        if hosts.several():  # whose processes meet in their main threads alone
            self._writing = _Later(lambda: self._seal_together(step, part, response))
        else:
            self._writing = self._pool.submit(self._finish, step, part, response)

    def _begin(self, part: Path) -> None:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)

    def _seal_together(self, step: int, part: Path, response: Any) -> None:
        response.result()
        hosts.together(f"checkpoint {step}")
        hosts.told(lambda: self._finish(step, part, response))

    def _finish(self, step: int, part: Path, response: Any) -> None:
        try:
            response.result()
            io.write_json(part / HASHES, {"run": self._run, "step": step, "files": _hashes(part)})
            part.rename(self.directory / str(step))
        except Exception as error:
            raise self._failed(step, error) from error
        for old in self.steps()[: -self.keep]:
            shutil.rmtree(self.directory / str(old), ignore_errors=True)

    def _failed(self, step: int, error: Exception) -> CheckpointError:
        shutil.rmtree(self.directory / f"{step}.writing", ignore_errors=True)
        kept = self.steps()
        return CheckpointError(
            f"the checkpoint of step {step} could not be written to {self.directory}: {error}; "
            + (f"that of step {kept[-1]} is whole. " if kept else "there is none before it. ")
            + "Make room or permit writing, then start the same run again: it resumes"
        )

    def wait(self) -> None:
        """Until what was begun is on the disk.

        Raises:
            CheckpointError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def restore(self, like: Mapping[str, PyTree]) -> tuple[int, dict[str, PyTree]] | None:
        """The newest whole checkpoint, ``(step, state)``; None where there is none.

        A damaged one is logged by name and set aside as ``STEP.damaged``; the one before it is
        tried next.

        Args:
            like: ``jax.ShapeDtypeStruct`` with shardings, which may differ from those at saving.
        """
        with guarded(self.directory):
            hosts.told(self._sweep)
            while (step := hosts.told(self._newest)) is not None:
                try:
                    return step, _load(self.directory / str(step) / "state", like)
                except (ValueError, KeyError, TypeError) as error:
                    hosts.told(functools.partial(self._set_aside, step, str(error)))
        return None

    def _sweep(self) -> None:
        for leftover in self.directory.glob("*.writing"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _newest(self) -> int | None:
        """The step of the newest checkpoint whose files are whole; what is damaged is set aside."""
        for step in reversed(self.steps()):
            problem = damage(self.directory / str(step))
            if not problem:
                return step
            self._set_aside(step, problem)
        return None

    def _set_aside(self, step: int, problem: str) -> None:
        path = self.directory / str(step)
        aside = self.directory / f"{step}.damaged"
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        log.warning(
            "checkpoint %s is damaged (%s); it is set aside as %s and the one before it is tried",
            path,
            problem,
            aside.name,
        )

    def clear(self) -> None:
        """Delete them all."""
        self.wait()
        if hosts.first():
            shutil.rmtree(self.directory, ignore_errors=True)

    def close(self) -> None:
        """End the writing thread, after what it writes."""
        self._pool.shutdown()


def damage(path: Path) -> str:
    """What is wrong with a checkpoint's files; empty where all have the hashes they were given."""
    try:
        expected = io.read_json(path / HASHES)["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{HASHES}: {error}"
    found = _hashes(path)
    for name, digest in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} was changed after it was written"
    return ""


def _hashes(path: Path) -> dict[str, str]:
    return {
        file.relative_to(path).as_posix(): _sha256(file)
        for file in sorted(path.rglob("*"))
        if file.is_file() and file.name != HASHES
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def _orbax() -> Any:
    # imported late: 0.7 s that runs without checkpoints need not spend
    from orbax.checkpoint import v1

    # each of Orbax's threads logs the traceback of an error that is raised here once
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    return v1


def _snapshot(state: Mapping[str, PyTree]) -> dict[str, jax.Array]:
    """The leaves by name. On CPU, where host and device share memory, they are copied first."""
    flat = tree.flatten(state)
    if any(device.platform == "cpu" for leaf in flat.values() for device in leaf.devices()):
        flat = jax.block_until_ready({name: jnp.copy(leaf) for name, leaf in flat.items()})
    return flat


def _load(path: Path, like: Mapping[str, PyTree]) -> dict[str, PyTree]:
    flat = _orbax().load(path, tree.flatten(like))
    return jax.tree.unflatten(jax.tree.structure(like), [flat[name] for name in tree.names(like)])

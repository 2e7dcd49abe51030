"""A directory that holds one run: what it computes, how far it got, what came out.

config.json              what the run computes, in full, with versions
metrics.jsonl            one row a logged step; tensorboard/ the same
checkpoints/STEP         while the run goes on
vectors/step_K.safetensors
task_vector.safetensors  the result
done.json                written last: the run is finished; with hashes of itself and the metrics
lock                     held by the process that works here

Every file but the last says which run it is of, by the SHA-256 of the run's identity: a file of
another run is refused, with ``config.json`` beside it or without. Directories from before the
hashes have neither these nor their functions' identities; they are read where the loss was
cross-entropy, with a warning.
"""

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from linearize import files, hosts, io
from linearize.identity import PROGRAM
from linearize.task_vector import TaskVector
from linearize.train import checkpoint, record
from linearize.train.errors import RunDirectoryError, RunMismatchError
from linearize.train.identity import data_fingerprint as data_fingerprint
from linearize.train.lock import Claim, exclusive, guarded

log = logging.getLogger(__name__)


class RunDirectory:
    """A run directory whose lock this process holds, or the first of several; made by
    :func:`open_run`.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], claim: Claim | None = None) -> None:
        self.path, self._claim = path, claim
        self.identity: dict[str, Any] = io.to_json(identity)
        self.hash = _hash(self.identity)

    def check(self) -> None:
        """See that the lock is still held.

        Raises:
            RunLockedError: another machine took it over.
        """
        if self._claim is not None:
            self._claim.check()

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    def vector_at(self, step: int) -> Path:
        """The file of an intermediate task vector."""
        return self.path / "vectors" / f"step_{step}.safetensors"

    def stamped(self, vector: TaskVector) -> TaskVector:
        """The vector, which remembers that it is this run's."""
        return replace(vector, meta={**vector.meta, "run": self.hash})

    def finished(self) -> tuple[TaskVector, dict[str, Any]] | None:
        """The result and its record, where the run is over and its files are whole."""
        found = None

        def look() -> bool:
            nonlocal found
            found = self._finished()
            return found is not None

        there = hosts.told(look)
        return self._finished() if there and found is None else found

    def _finished(self) -> tuple[TaskVector, dict[str, Any]] | None:
        record = _read(self.path / "done.json")
        if record is None:
            return None
        try:
            self._check_sealed(record)
            vector = TaskVector.load(self.path / "task_vector.safetensors")
            if vector.base != self.identity["base"]:
                raise io.CorruptFileError("task_vector.safetensors is of another base model")
            for step in self.identity.get("config", {}).get("save_vectors_at", ()):
                TaskVector.load(self.vector_at(step))
        except (OSError, ValueError) as error:
            log.warning("the finished run in %s is damaged, and repeated: %s", self.path, error)
            return None
        return vector, record

    def finish(self, vector: TaskVector, record: Mapping[str, Any]) -> None:
        """Write the result, then the mark that it is one.

        Raises:
            RunLockedError: the directory was taken over meanwhile.
            RunDirectoryError: it cannot be written; the error carries the vector.
        """
        try:
            self.check()
            hosts.told(lambda: self._finish(vector, record))
        except RunDirectoryError as error:
            error.vector = vector
            raise

    def _finish(self, vector: TaskVector, record: Mapping[str, Any]) -> None:
        with guarded(self.path):
            self.stamped(vector).save(self.path / "task_vector.safetensors")
            sealed = {**io.to_json(record), "run": self.hash, "metrics": self._metrics()}
            io.write_json(self.path / "done.json", {**sealed, "sha256": _hash(sealed)})

    def _check_sealed(self, record: Mapping[str, Any]) -> None:
        """The record, and the metrics where they are there, are as the run left them.

        Raises:
            CorruptFileError: they are not.
        """
        if "sha256" not in record:  # of an earlier version
            return
        if record["sha256"] != _hash({k: v for k, v in record.items() if k != "sha256"}):
            raise io.CorruptFileError("done.json was changed after it was written")
        if (found := self._metrics()) and found != record["metrics"]:
            raise io.CorruptFileError("metrics.jsonl was changed after the run was over")

    def _metrics(self) -> str | None:
        """SHA-256 of ``metrics.jsonl``."""
        path = self.path / "metrics.jsonl"
        return hashlib.sha256(files.read_bytes(path)).hexdigest() if path.exists() else None

    def clear(self) -> None:
        """Forget the run's progress and its end, so that it starts anew."""
        hosts.told(self._clear)

    def _clear(self) -> None:
        with guarded(self.path):
            (self.path / "done.json").unlink(missing_ok=True)
            (self.path / "metrics.jsonl").unlink(missing_ok=True)
            for name in ("checkpoints", "vectors", "tensorboard"):
                shutil.rmtree(self.path / name, ignore_errors=True)


@contextlib.contextmanager
def open_run(
    path: Path, identity: Mapping[str, Any], record: Mapping[str, Any], needs: int
) -> Iterator[RunDirectory]:
    """Lock a run directory, and see that it is this run's.

    Args:
        path: made where absent.
        identity: what decides the result; compared with what is there.
        record: what else to write to ``config.json``.
        needs: bytes that the run will want on the disk.

    Raises:
        RunLockedError: another process works there.
        RunMismatchError: it holds a run that differs; the message lists in what.
        RunDirectoryError: it cannot be written, or the disk is too full.
        HostError: in other processes than the first, which opens it for all.
    """
    with hosts.held(_locked(path, identity, record, needs)) as claim:
        yield RunDirectory(path, identity, claim)


@contextlib.contextmanager
def _locked(
    path: Path, identity: Mapping[str, Any], record: Mapping[str, Any], needs: int
) -> Iterator[Claim]:
    with exclusive(path) as claim:
        run = RunDirectory(path, identity)
        with guarded(path):
            config = path / "config.json"
            before = _described(config) if config.exists() else None
            if before is not None:
                _compare(path, before, run)
            _check_files(run, before)
            free = shutil.disk_usage(path).free
            if free < needs and not (path / "done.json").exists():
                raise RunDirectoryError(
                    f"run_dir={path} has {free / 1e6:.1f} MB free and the run wants about "
                    f"{needs / 1e6:.1f} MB; make room, lower keep, or choose another run_dir"
                )
            if before is None:
                io.write_json(config, {"identity": run.identity, "run": run.hash, **record})
        yield claim


def _hash(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _described(config: Path) -> dict[str, Any]:
    """What ``config.json`` holds, if it is whole."""
    before = _read(config) or {}
    there = before.get("identity")
    if not isinstance(there, dict) or before.get("run", _hash(there)) != _hash(there):
        raise RunMismatchError(
            f"{config} is damaged or is no run's; choose another run_dir than {config.parent}, or "
            "move this one away to train anew"
        )
    return before


def _compare(path: Path, before: Mapping[str, Any], run: RunDirectory) -> None:
    there, now = dict(before["identity"]), dict(run.identity)
    if "functions" not in there:
        if there.get("loss") == "own":
            raise RunMismatchError(
                f"run_dir={path} is of an earlier version, which did not note which loss it was "
                "trained with; choose another run_dir, or move this one away to train anew"
            )
        log.warning(
            "run_dir=%s is of an earlier version, which did not note which function was trained; "
            "it is taken for the run of f. If f is another one, choose another run_dir",
            path,
        )
        now.pop("functions", None)
    left, right = files.flat(there), files.flat(now)
    changed = [n for n in sorted(left.keys() | right.keys()) if left.get(n) != right.get(n)]
    if not changed:
        return
    listed = [f"{name}: there {left.get(name)!r}, now {right.get(name)!r}" for name in changed]
    versions = (before.get("versions") or {}).get("jax"), io.versions()["jax"]
    programs = [n for n in changed if str(left.get(n)).startswith(PROGRAM)]
    if programs == changed and versions[0] != versions[1]:
        listed.append(
            f"(programs of jax {versions[0]} and {versions[1]} cannot be compared: with the same "
            "function, go on under the earlier version, or give the function a fingerprint)"
        )
    raise RunMismatchError(
        f"run_dir={path} holds another run; choose another run_dir, or move this one away. "
        "What differs:\n  " + "\n  ".join(listed)
    )


def _check_files(run: RunDirectory, config: Mapping[str, Any] | None) -> None:
    """Every file there is this run's; one of an earlier version, beside its config, may be silent.

    Raises:
        RunMismatchError: a file is another run's, or nothing says which it is of.
    """
    earlier = config is not None and "functions" not in config["identity"]
    for file, stated in _stated(run.path):
        if stated == run.hash or (earlier and stated is None):
            continue
        lost = "" if config is not None else "config.json is missing, and "
        which = "does not say which run it is of" if stated is None else "is another run's"
        raise RunMismatchError(
            f"run_dir={run.path}: {lost}{file.relative_to(run.path)} {which}; "
            + ("put config.json back, " if config is None else "")
            + ("move that file away, " if config is not None else "")
            + "choose another run_dir, or move this one away to train anew"
        )


def _stated(path: Path) -> Iterator[tuple[Path, str | None]]:
    """Each file that a result can come from, and the run that it names; damaged ones are left."""
    for file in (path / "done.json", *sorted(path.glob(f"checkpoints/*/{checkpoint.HASHES}"))):
        if file.parent == path or file.parent.name.isdigit():
            found = _read(file)
            if found is not None:
                yield file, found.get("run")
    for run in sorted(record.runs(path / "metrics.jsonl"), key=str):
        yield path / "metrics.jsonl", run
    for file in (path / "task_vector.safetensors", *sorted(path.glob("vectors/*.safetensors"))):
        with contextlib.suppress(OSError, ValueError):
            yield file, json.loads(io.read_notes(file).get("meta", "{}")).get("run")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return files.read_json(path)
    except (FileNotFoundError, ValueError):
        return None

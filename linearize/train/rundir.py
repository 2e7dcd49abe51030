"""A directory that holds one run: what it computes, how far it got, what came out.

config.json              what the run computes, in full, with versions
metrics.jsonl            one row a logged step; tensorboard/ the same
checkpoints/STEP         while the run goes on
vectors/step_K.safetensors
task_vector.safetensors  the result
done.json                written last: the run is finished
lock                     held by the process that works here
"""

import contextlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from linearize import io, tree
from linearize.task_vector import TaskVector
from linearize.train import feed
from linearize.train.errors import RunDirectoryError, RunMismatchError
from linearize.train.lock import exclusive, guarded

log = logging.getLogger(__name__)


class RunDirectory:
    """A run directory whose lock this process holds; made by :func:`open_run`."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path = path
        self.identity: dict[str, Any] = io.to_json(identity)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints lie."""
        return self.path / "checkpoints"

    def vector_at(self, step: int) -> Path:
        """The file of an intermediate task vector."""
        return self.path / "vectors" / f"step_{step}.safetensors"

    def finished(self) -> tuple[TaskVector, dict[str, Any]] | None:
        """The result and its record, where the run is over and its files are whole."""
        record = _read(self.path / "done.json")
        if record is None:
            return None
        try:
            vector = TaskVector.load(self.path / "task_vector.safetensors")
            if vector.base != self.identity["base"]:
                raise io.CorruptFileError("task_vector.safetensors is of another base model")
        except (OSError, ValueError) as error:
            log.warning("the finished run in %s is damaged, and repeated: %s", self.path, error)
            return None
        return vector, record

    def finish(self, vector: TaskVector, record: Mapping[str, Any]) -> None:
        """Write the result, then the mark that it is one.

        Raises:
            RunDirectoryError: it cannot be written; the error carries the vector.
        """
        try:
            with guarded(self.path):
                vector.save(self.path / "task_vector.safetensors")
                io.write_json(self.path / "done.json", record)
        except RunDirectoryError as error:
            error.vector = vector
            raise

    def clear(self) -> None:
        """Forget the run's progress and its end, so that it starts anew."""
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
    """
    with exclusive(path):
        run = RunDirectory(path, identity)
        with guarded(path):
            config = path / "config.json"
            if config.exists():
                before = _read(config)
                if before is None or not isinstance(before.get("identity"), dict):
                    raise RunMismatchError(
                        f"{config} is damaged or is no run's; delete run_dir={path} to train "
                        "anew, or choose another"
                    )
                _compare(path, before["identity"], run.identity)
            free = shutil.disk_usage(path).free
            if free < needs and not (path / "done.json").exists():
                raise RunDirectoryError(
                    f"run_dir={path} has {free / 1e6:.1f} MB free and the run wants about "
                    f"{needs / 1e6:.1f} MB; make room, lower keep, or choose another run_dir"
                )
            if not config.exists():
                io.write_json(config, {"identity": run.identity, **record})
        yield run


def _compare(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    left, right = _leaves(before), _leaves(now)
    problems = [
        f"{name}: there {left.get(name)!r}, now {right.get(name)!r}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name)
    ]
    if problems:
        raise RunMismatchError(
            f"run_dir={path} holds another run; choose another run_dir, or delete this one. "
            "What differs:\n  " + "\n  ".join(problems)
        )


def _leaves(value: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        if isinstance(entry, Mapping):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in _leaves(entry).items()}
        else:
            flat[name] = entry
    return flat


def _read(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def data_fingerprint(data: feed.Data, whole_below: int = 1 << 30) -> str:
    """A fingerprint of a data set; of 4,096 evenly spaced examples where it is larger."""
    if isinstance(data, feed.Loader):
        return f"{data.examples} examples, {data.fingerprint}"
    flat = tree.flatten(dict(data))
    length = len(next(iter(flat.values())))
    # images on disk know theirs without being decoded
    flat = {
        name: _known(leaf) if hasattr(leaf, "fingerprint") else leaf for name, leaf in flat.items()
    }
    if sum(leaf.nbytes for leaf in flat.values()) > whole_below:
        every = max(1, length // 4096)
        flat = {name: leaf[::every] for name, leaf in flat.items()}
    return f"{length} examples, {tree.fingerprint(flat)}"


def _unread(leaf: Any) -> Any:
    """Images on disk by their own fingerprint, for which none is decoded; arrays as they are."""
    known = getattr(leaf, "fingerprint", None)
    return leaf if known is None else np.frombuffer(known.encode(), np.uint8)

"""The arrays of the live explorer, read and checked."""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from linearize import files, sealed
from linearize.report.compare.results import Results
from linearize.report.node import ResultsError


@dataclass(frozen=True)
class TaskLogits:
    """A task's cached logits in the tangent views: logits(α) = logits0 + Σ_k α_k dlogits[m][k]."""

    name: str
    logits0: NDArray[np.float32]  # (E, C)
    dlogits: Mapping[str, NDArray[np.float32]]
    """By method, the page's first, (T, E, C)."""
    labels: NDArray[np.int32]  # (E,)
    shown: NDArray[np.int64]
    """(K,): which of the examples have an image; none in early runs and where there are none."""
    images: NDArray[np.uint8]
    """(K, height, width, 3)."""


def load_explorer(run_dir: Path | str, results: Results) -> tuple[TaskLogits, ...] | None:
    """Reads ``explorer.npz``: the first seed's tangent-view logits of each task's examples.

    Returns:
        One entry a task, in the results' order; None where the file does not exist.

    Raises:
        ResultsError: the file is damaged or does not fit the results.
    """
    path = Path(run_dir) / "explorer.npz"
    if not path.exists():
        return None
    if wrong := sealed.problem(path):
        raise ResultsError(
            f"{path} {wrong}; delete it for a page without the live explorer, or run the "
            "experiment again"
        )
    try:
        with files.open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except OSError as error:
        raise ResultsError(f"{path} cannot be read: {error}") from None
    except (ValueError, EOFError, TypeError, zlib.error, zipfile.BadZipFile) as error:
        raise ResultsError(
            f"{path} is damaged ({error}); move it away for a page without the live explorer, "
            "or run the experiment again"
        ) from None
    return tuple(_task_logits(path, arrays, task, results) for task in results.tasks)


def _task_logits(
    path: Path, arrays: Mapping[str, NDArray[Any]], task: str, results: Results
) -> TaskLogits:
    missing = [
        k for k in (f"{task}/{n}" for n in ("logits0", "dlogits", "labels")) if k not in arrays
    ]
    if missing:
        raise ResultsError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(arrays)}")
    logits0 = arrays[f"{task}/logits0"].astype(np.float32)
    others = {
        m: arrays[f"{task}/dlogits/{m}"]
        for m in results.look.ordered(results.single)
        if f"{task}/dlogits/{m}" in arrays
    }
    dlogits = {
        m: along.astype(np.float32)
        for m, along in {results.shown: arrays[f"{task}/dlogits"], **others}.items()
    }
    labels = arrays[f"{task}/labels"]
    for along in dlogits.values():
        if (
            logits0.ndim != 2
            or not logits0.size
            or along.shape != (len(results.tasks), *logits0.shape)
        ):
            raise ResultsError(
                f"{path}: {task}/logits0 {logits0.shape} and {task}/dlogits {along.shape} do not "
                f"fit (E, C) and ({len(results.tasks)}, E, C)"
            )
        if not (np.isfinite(logits0).all() and np.isfinite(along).all()):
            raise ResultsError(f"{path}: the logits of {task} hold NaN or infinity")
    classes = logits0.shape[1]
    if labels.shape != logits0.shape[:1] or labels.min() < 0 or labels.max() >= classes:
        raise ResultsError(
            f"{path}: {task}/labels {labels.shape} must be {logits0.shape[0]} class numbers below "
            f"{classes}"
        )
    named = results.classes.get(task)
    if named is not None and len(named) != classes:
        raise ResultsError(
            f"{path}: {task} has {classes} logits, results.json {len(named)} classes"
        )
    shown = arrays.get(f"{task}/shown", np.zeros(0, np.int64))
    images = arrays.get(f"{task}/images", np.zeros((0, 1, 1, 3), np.uint8))
    wanted = (*shown.shape, *images.shape[1:3], 3)
    if images.dtype != np.uint8 or images.shape != wanted or np.any(shown >= len(labels)):
        raise ResultsError(
            f"{path}: {task}/images {images.dtype}{images.shape} and {task}/shown {shown.shape} "
            f"must be (K, height, width, 3) uint8 and K of {len(labels)} examples"
        )
    return TaskLogits(task, logits0, dlogits, labels.astype(np.int32), shown, images)

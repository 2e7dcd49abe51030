"""The result of measuring disentanglement: a plain record that files keep."""

import io as bytes_io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from linearize import files, io
from linearize.evaluate import Interval, binomial_interval

_KIND = "linearize.error_map"


@dataclass(frozen=True)
class Preview:
    """How good an interpolated map is, seen at grid points that were also evaluated truly."""

    nodes: int
    """Chebyshev points a side."""
    held_out: int
    """Grid points compared."""
    mean_error: float
    """Mean of \\|preview − true\\| of the total over these points."""
    max_error: float
    """The largest of them."""

    def __str__(self) -> str:
        return (
            f"Chebyshev preview, {self.nodes} nodes a side: error of the total at "
            f"{self.held_out} held-out grid points: mean {self.mean_error:.4f}, "
            f"max {self.max_error:.4f}"
        )


@dataclass(frozen=True, eq=False)
class ErrorMap:
    """Disentanglement errors of T tasks on a grid of coefficients (G_1 × ... × G_T)."""

    alphas: tuple[np.ndarray, ...]
    """One axis per task, float64."""
    per_task: np.ndarray
    """(T, G_1, ..., G_T): mean distance on each task's own examples, float64."""
    total: np.ndarray
    """(G_1, ..., G_T): the sum (range [0, T] for binary distances) or the mean over tasks."""
    n: np.ndarray
    """(T,): examples evaluated per task, int64."""
    regime: str
    distance: str
    reduction: str
    binary: bool
    """The distance is 0 or 1 and each example counts 1, so that each entry of ``per_task`` is a
    proportion of ``n``."""
    passes: int
    """Forward passes over one task's examples that were made (0 where all came from a cache; a
    pass with T tangents counts 1 + 2T)."""
    preview: Preview | None = None
    """For interpolated maps: their measured error."""

    def interval(self, level: float = 0.95) -> Interval:
        """Wilson's binomial interval of each entry of ``per_task``, taking examples as draws.

        Raises:
            ValueError: the distance is not 0 or 1, or examples do not count 1 each (those of a
                language model count as many tokens as are asked for), or ``level`` lies outside
                (0, 1).
        """
        if not self.binary:
            raise ValueError(
                f"distance={self.distance!r} is not 0 or 1 of each example, so no binomial "
                "interval holds; measure distance='argmax' of classification, or bootstrap over "
                "examples"
            )
        n = self.n.reshape(-1, *(1,) * (self.per_task.ndim - 1))
        return binomial_interval(np.rint(self.per_task * n), n, level)

    def total_interval(self, level: float = 0.95) -> Interval:
        """Interval of ``total``: the tasks' Wilson intervals combined as independent proportions.

        Recovers each variance from the interval (Zou and Donner 2008, eq. 2).

        Raises:
            ValueError: as :meth:`interval`.
        """
        p, low, high = self.interval(level)
        share = 1.0 if self.reduction == "sum" else 1 / len(p)
        below = np.sqrt(((p - low) ** 2).sum(0))
        above = np.sqrt(((high - p) ** 2).sum(0))
        return Interval(self.total, self.total - share * below, self.total + share * above)

    def plot(self, ax: Any = None, **how: Any) -> Any:
        """Draw the total of two tasks, axes in, axes out (:func:`linearize.plot.error_map`).

        Raises:
            ValueError: a map of another number of tasks than two.
        """
        from linearize import plot  # matplotlib, which only who draws should wait for

        return plot.error_map(self.alphas, self.total, ax, **how)

    def save(self, path: str | Path) -> Path:
        """Write an ``.npz`` without pickle, whole or not at all.

        Raises:
            OSError: the file cannot be written; what was there is untouched.
        """
        notes = {
            "kind": _KIND,
            "regime": self.regime,
            "distance": self.distance,
            "reduction": self.reduction,
            "binary": self.binary,
            "passes": self.passes,
            "preview": None if self.preview is None else vars(self.preview),
        }
        arrays: dict[str, Any] = {f"alphas_{t}": axis for t, axis in enumerate(self.alphas)}
        arrays |= {"per_task": self.per_task, "total": self.total, "n": self.n}
        buffer = bytes_io.BytesIO()
        np.savez_compressed(buffer, notes=np.array(json.dumps(notes)), **arrays)
        return io.atomic_write(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "ErrorMap":
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptFileError: the file is damaged, or holds no error map.
        """
        data = files.read_bytes(path)
        try:
            with np.load(bytes_io.BytesIO(data), allow_pickle=False) as file:
                arrays = dict(file)
            notes = json.loads(str(arrays.pop("notes")))
            if notes.pop("kind") != _KIND:
                raise KeyError("kind")
            preview = notes.pop("preview")
            axes = tuple(arrays.pop(f"alphas_{t}") for t in range(len(arrays["n"])))
            return cls(
                alphas=axes, **arrays, **notes, preview=Preview(**preview) if preview else None
            )
        except Exception as error:  # a damaged archive fails in a dozen ways, zlib's among them
            raise io.CorruptFileError(
                f"{path} ({len(data)} bytes) is damaged or holds no error map: {error}; if it is "
                "to be one, measure anew"
            ) from error

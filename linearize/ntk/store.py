"""Where a kernel's blocks go: host memory, or a zarr array on disk that a killed run resumes."""

import json
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorstore as ts

from linearize import io

_PROGRESS = "blocks.txt"
_DESCRIPTION = "kernel.json"


class Store(Protocol):
    """A kernel that takes blocks in any order."""

    def holds(self, start: tuple[int, int]) -> bool:
        """Whether the block that starts at these rows and columns is there already."""

    def put(self, start: tuple[int, int], block: np.ndarray) -> None:
        """Write a block."""

    def result(self) -> Any:
        """The kernel, once all blocks are there."""


class Memory:
    """A NumPy array on the host."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.array = np.empty(shape, dtype)

    def holds(self, start: tuple[int, int]) -> bool:
        """Never: memory does not outlive a run."""
        return False

    def put(self, start: tuple[int, int], block: np.ndarray) -> None:
        """Write a block."""
        self.array[_window(start, block)] = block

    def result(self) -> np.ndarray:
        """The array."""
        return self.array


class Disk:
    """A zarr array (version 3) in a folder, with what it is and which blocks are written.

    Raises:
        FileExistsError: the folder holds another kernel, or other files.
    """

    def __init__(
        self,
        path: str | Path,
        shape: tuple[int, ...],
        dtype: np.dtype,
        rows: int,
        description: dict[str, Any],
    ) -> None:
        self.path = Path(path).absolute()
        described = {**description, "shape": list(shape), "dtype": str(dtype), "rows": rows}
        self._claim(json.loads(json.dumps(described)))
        chunk = [min(rows, shape[0]), min(rows, shape[1]), *shape[2:]]
        self.array = ts.open(
            _spec(self.path),
            open=True,
            create=True,
            dtype=ts.dtype(dtype),
            shape=shape,
            chunk_layout=ts.ChunkLayout(chunk_shape=chunk),
        ).result()
        done = self.path / _PROGRESS
        lines = done.read_text().splitlines() if done.exists() else []
        # a line without its full stop was being written when the run was killed
        whole = [line[:-1].split() for line in lines if line.endswith(".")]
        self._done = {(int(i), int(j)) for i, j in whole}

    def _claim(self, described: dict[str, Any]) -> None:
        file = self.path / _DESCRIPTION
        if file.exists():
            held = json.loads(file.read_text())
            changed = sorted(k for k in held | described if held.get(k) != described.get(k))
            if changed:
                raise FileExistsError(
                    f"out={self.path} holds another kernel (it differs in {', '.join(changed)}); "
                    "give another folder, or delete this one"
                )
        elif self.path.exists() and any(self.path.iterdir()):
            raise FileExistsError(f"out={self.path} holds other files; give an empty or new folder")
        else:
            self.path.mkdir(parents=True, exist_ok=True)
            io.write_json(file, described)

    def holds(self, start: tuple[int, int]) -> bool:
        """Whether a block was written whole, by this run or one before."""
        return start in self._done

    def put(self, start: tuple[int, int], block: np.ndarray) -> None:
        """Write a block, and only then note that it is there."""
        self.array[_window(start, block)].write(block).result()
        with open(self.path / _PROGRESS, "a") as file:
            file.write(f"{start[0]} {start[1]}.\n")
            file.flush()
            os.fsync(file.fileno())
        self._done.add(start)

    def result(self) -> ts.TensorStore:
        """The array on disk; ``numpy.asarray`` reads all of it, indexing and ``read`` a part."""
        return self.array


def open_kernel(path: str | Path) -> ts.TensorStore:
    """A kernel on disk, for reading: ``numpy.asarray(open_kernel(path)[:100, :100])``.

    Raises:
        FileNotFoundError: there is no kernel.
    """
    if not (Path(path) / _DESCRIPTION).exists():
        raise FileNotFoundError(
            f"{path} holds no kernel; give the folder that was passed to kernel(..., out=...)"
        )
    return ts.open(_spec(Path(path).absolute()), open=True, read=True).result()


def _spec(path: Path) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path / 'array.zarr'}/"}}


def _window(start: tuple[int, int], block: np.ndarray) -> tuple[slice, slice]:
    (i, j), (n1, n2) = start, block.shape[:2]
    return slice(i, i + n1), slice(j, j + n2)

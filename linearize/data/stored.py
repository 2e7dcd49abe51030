"""Images that stay on disk: decoded when asked for, or once into a memory-mapped array."""

import copy
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from linearize import io
from linearize.assets.cache import atomic
from linearize.data import preprocess
from linearize.data.raw import Raw, cached
from linearize.data.records import DataError

log = logging.getLogger(__name__)

_CHUNK = 256


class StoredImages:
    """(N, S, S, 3) uint8 that is read, decoded and preprocessed when it is indexed.

    It has an array's ``shape``, ``dtype``, ``nbytes`` and indexing by rows, which give arrays in
    memory; ``np.asarray`` gives them all.

    Args:
        raw: where the images lie.
        rows: (N,) row numbers in ``raw``.
        size: S, in pixels.
        workers: threads that decode.
    """

    def __init__(self, raw: Raw, rows: np.ndarray, size: int, workers: int = 4) -> None:
        self.parts: tuple[Raw, ...] = (raw,)
        self.part, self.rows = np.zeros(len(rows), np.int32), np.asarray(rows)
        self.size, self.workers = size, workers

    def _with(self, **changed: Any) -> "StoredImages":
        """The same but for some attributes."""
        other = copy.copy(self)
        vars(other).update(changed)
        return other

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, S, S, 3)."""
        return len(self.rows), self.size, self.size, 3

    ndim = 4
    dtype = np.dtype(np.uint8)

    @property
    def nbytes(self) -> int:
        """Bytes that all of it would take in memory."""
        return int(np.prod(self.shape))

    @property
    def fingerprint(self) -> str:
        """A hash of the data, the rows and the preprocessing."""
        decided_by = [part.fingerprint for part in self.parts], self.size, preprocess.VERSION
        rows = np.stack([self.part, self.rows]).astype(np.int64)
        return hashlib.sha256(repr(decided_by).encode() + rows.tobytes()).hexdigest()

    def __len__(self) -> int:
        """The number of images."""
        return len(self.rows)

    def __getitem__(self, at: Any) -> np.ndarray:
        """(S, S, 3) for a number; (M, S, S, 3) for a slice, a mask or row numbers.

        Raises:
            DataError: an image does not decode; it is named.
        """
        chosen = np.arange(len(self))[at]
        if np.ndim(chosen) == 0:
            return self.pixels(int(chosen))
        images = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for start, pixels in self.decoded(chosen):
            images[start : start + len(pixels)] = pixels
        return images

    def subset(self, at: Any) -> "StoredImages":
        """The images of a slice, a mask or row numbers, still on disk."""
        return self._with(part=self.part[at], rows=self.rows[at])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it in memory."""
        images = self[:]
        return images if dtype is None else images.astype(dtype)

    def decoded(self, chosen: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
        """Pieces of the chosen images, of all by default, each with the number it begins at."""
        chosen = np.arange(len(self)) if chosen is None else chosen
        with ThreadPoolExecutor(self.workers) as pool:
            for start in range(0, len(chosen), _CHUNK):
                few = chosen[start : start + _CHUNK].tolist()
                yield start, np.stack(list(pool.map(self.pixels, few)))

    def pixels(self, position: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """(S, S, 3): the image as CLIP sees it in evaluation, or a random crop where ``rng`` is.

        Raises:
            DataError: it does not decode; it is named.
        """
        raw, row = self.parts[self.part[position]], int(self.rows[position])
        try:
            image = preprocess.open_image(raw.image(row))
            if rng is None:
                return preprocess.clip_image(image, self.size)
            return preprocess.random_crop(image, self.size, rng)
        except preprocess.READ_ERRORS as error:
            raise DataError(_undecodable(raw, row, error)) from error

    def joined(self, others: Sequence["StoredImages"]) -> "StoredImages":
        """These images and then the others', as one."""
        all_of_them = [self, *others]
        if len({images.size for images in all_of_them}) > 1:
            raise DataError(f"images of sizes {[i.size for i in all_of_them]} do not join")
        offsets = np.cumsum([0, *(len(images.parts) for images in all_of_them[:-1])])
        return self._with(
            parts=tuple(part for images in all_of_them for part in images.parts),
            part=np.concatenate([i.part + o for i, o in zip(all_of_them, offsets, strict=True)]),
            rows=np.concatenate([images.rows for images in all_of_them]),
            workers=max(images.workers for images in all_of_them),
        )


def _undecodable(raw: Raw, row: int, error: Exception) -> str:
    return (
        f"{raw.name}: example {row} {raw.about(row)[1]!r} does not decode "
        f"({type(error).__name__}: {error}); prepare the data set anew, or leave such images out "
        "with on_bad_image='skip'"
    )


def readable(raw: Raw, rows: np.ndarray, workers: int) -> np.ndarray:
    """The rows whose images decode; each that does not is logged. Found once, kept in the cache."""
    path = cached("readable", raw, rows, "json")
    bad = _read_list(path)
    if bad is None:

        def broken(row: int) -> bool:
            try:
                preprocess.open_image(raw.image(row))
            except preprocess.READ_ERRORS:
                return True
            return False

        with ThreadPoolExecutor(workers) as pool:
            found = list(pool.map(broken, rows.tolist(), chunksize=16))
        bad = [int(row) for row, is_bad in zip(rows, found, strict=True) if is_bad]
        io.write_json(path, bad)
    for row in bad:
        log.warning("%s: example %d %r does not decode; left out", raw.name, row, raw.about(row)[1])
    return rows[~np.isin(rows, bad)]


def _read_list(path: Path) -> list[int] | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def memory_mapped(images: StoredImages) -> np.memmap:
    """The same images as an array on disk: decoded once, then mapped, never held in memory whole.

    Kept in the cache under a name that says data set, rows in their order, size and preprocessing;
    written whole or not at all. Records are read in the order in which they lie on disk.

    Args:
        images: of one part.

    Raises:
        DataError: an image does not decode (it is named), or the disk is too full.
    """
    path = mapped_path(images)
    if path.is_file():
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if found.shape == images.shape and found.dtype == images.dtype:
                return found
        except (OSError, ValueError, EOFError):
            pass  # damaged: written anew below
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if free < images.nbytes:
        raise DataError(
            f"{path.parent} has {free / 1e9:.1f} GB free and {images.parts[0].name} at "
            f"{images.size} px takes {images.nbytes / 1e9:.1f} GB there; make room, or set "
            "LINEARIZE_CACHE elsewhere"
        )

    def write(temporary: Path) -> None:
        target = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=images.dtype, shape=images.shape
        )
        by_row = np.argsort(images.rows, kind="stable")
        for start, pixels in images.decoded(by_row):
            target[by_row[start : start + len(pixels)]] = pixels
        target.flush()

    atomic(path, write)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def mapped_path(images: StoredImages) -> Path:
    """Where :func:`memory_mapped` keeps them."""
    (part,) = images.parts
    return cached(f"{images.size}px", part, images.rows, "npy", images.size, preprocess.VERSION)

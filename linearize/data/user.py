"""A user's own images: a folder with one sub-folder a class, or arrays."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from linearize.data import folders
from linearize.data.images import resize, square, upright_rgb
from linearize.data.prepare import build, prepare
from linearize.data.records import (
    DataError,
    Limits,
    Task,
    check_images,
    check_labels,
    image_task,
)
from linearize.data.sources import Source
from linearize.data.split import FRACTIONS, content_keys, stratified_order

log = logging.getLogger(__name__)

SUFFIXES = folders.SUFFIXES


def from_folder(
    path: str | Path,
    *,
    name: str | None = None,
    image_size: int | None = 28,
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    licence: str = "not stated",
) -> Task:
    """A folder of images with one sub-folder a class.

    Where the folder holds a training, a validation and a test folder, each with the classes inside,
    these are the splits: ``train``, ``Training``, ``val``, ``dev``, ``Test_Set``, ``holdout`` and
    the like (:data:`linearize.data.folders.SPLIT_NAMES`). Otherwise the images are split by
    content, near-duplicates together. Links are followed. Hidden files, files that are not images
    by their suffix, images outside the classes and frames after an image's first are passed over,
    with a warning in the log, and counted in ``Task.skipped``. Pixels become 8-bit RGB as
    :func:`linearize.data.images.to_rgb` says, turned upright where EXIF says how.

    Args:
        path: the folder.
        name: of the task; the folder's by default.
        image_size: side in pixels, of the largest centred square; ``None`` keeps images that all
            have one size.
        limit: as in :func:`load_task`.
        seed: as in :func:`load_task`.
        fractions: as in :func:`load_task`.
        licence: to be shown with results.

    Raises:
        DataError: no such folder, no image, an image that cannot be read, has no known scale or is
            a link to nothing (named); splits that are incomplete or beside classes; images of
            several sizes with ``image_size=None``, and as :func:`from_arrays`.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"path={str(path)!r} is not a folder")
    name = name or root.resolve().name
    parts = folders.splits(root)
    if parts:
        _check_unsplit(fractions, str(root))
        classes = _classes(parts["train"])
        found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        skipped: dict[str, int] = {}
        for split, folder in parts.items():
            images, labels, over = _read(folder, classes, image_size)
            found[split] = _limited(images, labels, limit, split, seed)
            skipped |= {f"{split}: {reason}": n for reason, n in over.items()}
        return image_task(
            name, found, classes, licence=licence, provenance=str(root), skipped=skipped
        )
    classes = _classes(root)
    images, labels, over = _read(root, classes, image_size)
    source = Source(list(images), labels, classes)
    if len(classes) < 2:
        raise DataError(
            f"{str(root)!r} holds the classes {list(classes)}; two or more sub-folders are needed"
        )
    task = build(prepare(source, None), name, classes, limit, seed, fractions, licence, str(root))
    return dataclasses.replace(task, skipped=over)


def _check_unsplit(fractions: Sequence[float], what: str) -> None:
    if tuple(fractions) != FRACTIONS:
        raise DataError(
            f"fractions={tuple(fractions)}: {what} has its own train, validation and test; leave "
            "fractions out"
        )


def _classes(folder: Path) -> tuple[str, ...]:
    return tuple(p.name for p in folders.subfolders(folder))


def _read(
    folder: Path, classes: tuple[str, ...], image_size: int | None
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    if unknown := set(_classes(folder)) - set(classes):
        raise DataError(
            f"{str(folder)!r} has the classes {sorted(unknown)}, which the training folder lacks"
        )
    if lacking := set(classes) - set(_classes(folder)):
        raise DataError(
            f"{str(folder)!r} has no folder for the classes {sorted(lacking)}, which the training "
            "folder has"
        )
    files, over = folders.images(folder, classes)
    if not files:
        raise DataError(
            f"{str(folder)!r} holds no image; expected one sub-folder a class with files that end "
            f"in one of {' '.join(sorted(folders.SUFFIXES))}"
        )
    images = []
    for file, _ in files:
        image, frames = _open(file, image_size)
        images.append(image)
        over["frames after the first"] += frames - 1
    over = +over
    if over:
        passed = ", ".join(f"{n} {reason}" for reason, n in over.items())
        log.warning("%s: passed over %s", folder, passed)
    if len({x.shape for x in images}) > 1:
        raise DataError(
            f"images in {str(folder)!r} have several sizes; pass image_size to resize them"
        )
    return np.stack(images), np.array([label for _, label in files], np.int32), dict(over)


def _open(file: Path, image_size: int | None) -> tuple[np.ndarray, int]:
    """The image, and how many frames its file has."""
    try:
        with Image.open(file) as opened:
            # a photograph's second picture is a preview or another lens's
            frames = 1 if opened.format == "MPO" else getattr(opened, "n_frames", 1)
            opened.load()
            image = upright_rgb(opened)
    except Image.DecompressionBombError as error:
        raise DataError(f"the image {str(file)!r} is too large: {error}") from error
    except Exception as error:  # a damaged file fails in a dozen ways, struct.error among them
        raise DataError(
            f"cannot read the image {str(file)!r} ({error}); repair it or take it out"
        ) from error
    if image_size is None:
        return np.asarray(image), frames
    return resize(np.asarray(square(image)), image_size), frames


def _limited(
    images: np.ndarray, labels: np.ndarray, limit: Limits | int | None, split: str, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    rows = stratified_order(labels, content_keys(list(images)), seed)
    rows = rows[: getattr(Limits.of(limit), split)]
    return images[rows], labels[rows]


def from_arrays(
    images: np.ndarray | None = None,
    labels: np.ndarray | None = None,
    *,
    classes: Sequence[str],
    train: tuple[np.ndarray, np.ndarray] | None = None,
    validation: tuple[np.ndarray, np.ndarray] | None = None,
    test: tuple[np.ndarray, np.ndarray] | None = None,
    name: str = "arrays",
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    licence: str = "not stated",
    provenance: str = "given by the user",
) -> Task:
    """Arrays of images and labels, split here by content or given in three splits.

    Args:
        images: (N, H, W, 3) uint8, to be split; near-duplicates stay together.
        labels: (N,) integers.
        classes: the classes' names, by label.
        train: images and labels, in place of ``images`` and ``labels``; as ``validation`` and
            ``test``. Splits that are given are kept as they are.
        validation: see ``train``.
        test: see ``train``.
        name: of the task.
        limit: as in :func:`load_task`.
        seed: as in :func:`load_task`.
        fractions: as in :func:`load_task`.
        licence: to be shown with results.
        provenance: to be shown with results.

    Raises:
        DataError: wrong shapes, dtypes or labels, both or neither way of giving arrays, and as
            :func:`image_task`.
    """
    classes = tuple(str(c) for c in classes)
    given = {"train": train, "validation": validation, "test": test}
    if images is not None and labels is not None and not any(given.values()):
        images = np.asarray(images)
        check_images(name, images)
        source = Source(list(images), np.asarray(labels), classes)
        check_labels(name, np.asarray(labels), len(images), len(classes))
        if not len(images):
            raise DataError(f"task {name!r} has no image")
        return build(
            prepare(source, None), name, classes, limit, seed, fractions, licence, provenance
        )
    if images is not None or labels is not None or not all(given.values()):
        raise DataError(
            "give images and labels, or all of train, validation and test as (images, labels); "
            f"got {[k for k, v in given.items() if v]} and images={images is not None}, "
            f"labels={labels is not None}"
        )
    _check_unsplit(fractions, name)
    parts = {}
    for split, pair in given.items():
        assert pair is not None
        x, y = np.asarray(pair[0]), np.asarray(pair[1])
        check_images(f"{name}/{split}", x)
        check_labels(f"{name}/{split}", y, len(x), len(classes))
        parts[split] = _limited(x, y.astype(np.int32), limit, split, seed)
    return image_task(name, parts, classes, licence=licence, provenance=provenance)

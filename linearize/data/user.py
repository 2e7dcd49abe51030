"""A user's own images: a folder with one sub-folder a class, or arrays."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from linearize.data.images import resize, square, to_rgb
from linearize.data.prepare import build, prepare
from linearize.data.records import (
    SPLITS,
    DataError,
    Limits,
    Split,
    Task,
    check_images,
    check_labels,
)
from linearize.data.sources import Source
from linearize.data.split import FRACTIONS, content_keys, stratified_order

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"}


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

    Where the folder holds ``train``, ``validation`` (or ``val``) and ``test``, each with the
    classes inside, these are the splits; otherwise the images are split by content, near-duplicates
    together. Hidden files and files that are not images by their suffix are passed over.

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
        DataError: no such folder, no image, an image that cannot be read (named), images of several
            sizes with ``image_size=None``, and as :class:`Task`.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"path={str(path)!r} is not a folder")
    name = name or root.resolve().name
    folders = {split: _split_folder(root, split) for split in SPLITS}
    present = [split for split, folder in folders.items() if folder is not None]
    if "train" in present and len(present) > 1:
        if len(present) < 3:
            missing = [s for s in SPLITS if s not in present]
            raise DataError(
                f"{str(root)!r} has {present} and lacks {missing}; give all three, or put the "
                "classes right into the folder and let them be split"
            )
        classes = _classes(folders["train"])
        parts = {}
        for split, folder in folders.items():
            images, labels = _read(folder, classes, image_size)
            parts[split] = _limited(images, labels, limit, split, seed)
        return Task(
            name, parts["train"], parts["validation"], parts["test"], classes, licence, str(root)
        )
    classes = _classes(root)
    images, labels = _read(root, classes, image_size)
    source = Source(list(images), labels, classes)
    if len(classes) < 2:
        raise DataError(
            f"{str(root)!r} holds the classes {list(classes)}; two or more sub-folders are needed"
        )
    return build(prepare(source, None), name, classes, limit, seed, fractions, licence, str(root))


def _split_folder(root: Path, split: str) -> Path | None:
    for alias in {"validation": ("validation", "val", "valid")}.get(split, (split,)):
        if (root / alias).is_dir() and any(p.is_dir() for p in (root / alias).iterdir()):
            return root / alias
    return None


def _classes(folder: Path | None) -> tuple[str, ...]:
    assert folder is not None
    return tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )


def _read(
    folder: Path | None, classes: tuple[str, ...], image_size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    assert folder is not None
    if unknown := set(_classes(folder)) - set(classes):
        raise DataError(
            f"{str(folder)!r} has the classes {sorted(unknown)}, which the training folder lacks"
        )
    images, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted((folder / name).rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
            if file.is_file() and not hidden and file.suffix.lower() in SUFFIXES:
                images.append(_open(file, image_size))
                labels.append(label)
    if not images:
        raise DataError(
            f"{str(folder)!r} holds no image; expected one sub-folder a class with files that end "
            f"in one of {' '.join(sorted(SUFFIXES))}"
        )
    if len({x.shape for x in images}) > 1:
        raise DataError(
            f"images in {str(folder)!r} have several sizes; pass image_size to resize them"
        )
    return np.stack(images), np.array(labels, np.int32)


def _open(file: Path, image_size: int | None) -> np.ndarray:
    try:
        with Image.open(file) as opened:
            opened.load()
            image = to_rgb(ImageOps.exif_transpose(opened))
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DataError(
            f"cannot read the image {str(file)!r} ({error}); repair it or take it out"
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(f"the image {str(file)!r} is too large: {error}") from error
    return (
        np.asarray(image) if image_size is None else resize(np.asarray(square(image)), image_size)
    )


def _limited(
    images: np.ndarray, labels: np.ndarray, limit: Limits | int | None, split: str, seed: int
) -> Split:
    rows = stratified_order(labels, content_keys(list(images)), seed)
    return Split(images, labels).take(rows[: getattr(Limits.of(limit), split)])


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
            :class:`Task`.
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
    parts = {}
    for split, pair in given.items():
        assert pair is not None
        x, y = np.asarray(pair[0]), np.asarray(pair[1])
        check_images(f"{name}/{split}", x)
        check_labels(f"{name}/{split}", y, len(x), len(classes))
        parts[split] = _limited(x, y.astype(np.int32), limit, split, seed)
    return Task(
        name, parts["train"], parts["validation"], parts["test"], classes, licence, provenance
    )

"""What a task is: three splits of labelled images, with the names of their classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """A data set that cannot be used; the message says where and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Labelled images.

    Attributes:
        images: (N, H, W, 3) uint8, 0 to 255, RGB: an array, in memory or mapped from disk, or
            :class:`linearize.data.stored.StoredImages`, which are decoded when indexed.
        labels: (N,) int32, indices into the task's ``classes``.
    """

    images: Any
    labels: np.ndarray

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.labels)

    def take(self, rows: Any) -> "Split":
        """The examples at ``rows`` (indices, a slice or a mask); images on disk stay there."""
        subset = getattr(self.images, "subset", self.images.__getitem__)
        return Split(subset(rows), self.labels[rows])


@dataclasses.dataclass(frozen=True)
class Limits:
    """At most so many examples of each split; ``None`` keeps all."""

    train: int | None = None
    validation: int | None = None
    test: int | None = None

    @classmethod
    def of(cls, limit: "Limits | int | None") -> "Limits":
        """A limit as given to :func:`load_task`: a bare number limits ``train`` alone."""
        return limit if isinstance(limit, Limits) else cls(train=limit)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A classification task.

    Attributes:
        name: as in ``TASKS``, or the user's.
        train, validation, test: splits with images of one size; each class is in each split.
        classes: the classes' names, by label.
        licence: what the data's publishers state.
        provenance: where the data come from.
        every_class: whether each split must hold each class. A validation split that is drawn at
            random as a paper draws it may lack some.
        skipped: how many examples were left out: by split those that do not decode, or, of a
            user's folder, by reason.

    Raises:
        DataError: an empty split, fewer than two classes, a class missing in a split, images or
            labels of wrong shape or dtype, or labels out of range.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    licence: str = "not stated"
    provenance: str = "given by the user"
    every_class: bool = True
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.classes) < 2:
            raise DataError(
                f"task {self.name!r} has the classes {list(self.classes)}; classification needs "
                "two or more"
            )
        for split in SPLITS:
            wanted = self.classes if self.every_class else ()
            check_split(f"{self.name}/{split}", getattr(self, split), len(self.classes), wanted)
        sizes = {split: getattr(self, split).images.shape[1:3] for split in SPLITS}
        if len(set(sizes.values())) > 1:
            raise DataError(
                f"task {self.name!r} has images of different sizes: {sizes}; pass image_size to "
                "resize them all"
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images, in pixels."""
        _, height, width, _ = self.train.images.shape
        return height, width

    @property
    def counts(self) -> dict[str, int]:
        """Number of examples by split."""
        return {split: len(getattr(self, split)) for split in SPLITS}


def check_images(name: str, images: Any) -> None:
    """Images are (N, H, W, 3) uint8.

    Raises:
        DataError: with the shape and dtype that were got, and what to do.
    """
    if not hasattr(images, "__array__") or images.dtype != np.uint8:
        got = getattr(images, "dtype", type(images).__name__)
        raise DataError(
            f"images of {name!r} are {got}, expected uint8 from 0 to 255{_as_uint8(images)}"
        )
    if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape[1:]:
        raise DataError(
            f"images of {name!r} have the shape {images.shape}, expected (N, H, W, 3); grey ones "
            "become that by `np.repeat(x[..., None], 3, -1)`"
        )


def _as_uint8(images: Any) -> str:
    """How images of another dtype become uint8, as far as their numbers tell."""
    if not hasattr(images, "__array__") or images.dtype.kind not in "biuf" or not images.size:
        return ""
    low, high = float(np.min(images)), float(np.max(images))
    if images.dtype.kind == "b" or (images.dtype.kind == "f" and low >= 0 and high <= 1):
        return "; numbers in [0, 1] become that by `(255 * x).round().astype('uint8')`"
    if low >= 0 and high <= 255:
        return "; numbers in [0, 255] become that by `x.round().astype('uint8')`"
    return f"; theirs run from {low:g} to {high:g}: scale them to that range"


def check_labels(name: str, labels: np.ndarray, n: int, n_classes: int) -> None:
    """Labels are (n,) integers from 0 to ``n_classes`` - 1.

    Raises:
        DataError: with the offending value.
    """
    if np.ndim(labels) != 1 or len(labels) != n:
        raise DataError(
            f"labels of {name!r} have the shape {np.shape(labels)}, expected ({n},): one an image"
        )
    if not np.issubdtype(np.asarray(labels).dtype, np.integer):
        raise DataError(f"labels of {name!r} are {np.asarray(labels).dtype}, expected integers")
    if n and (np.min(labels) < 0 or np.max(labels) >= n_classes):
        bad = np.flatnonzero((labels < 0) | (labels >= n_classes))
        raise DataError(
            f"labels of {name!r} must lie in 0..{n_classes - 1} for {n_classes} classes; row "
            f"{bad[0]} has {labels[bad[0]]} ({len(bad)} such rows)"
        )


def check_split(name: str, split: Split, n_classes: int, classes: Sequence[str]) -> None:
    """A split is well formed, not empty, and holds each of ``classes``.

    Raises:
        DataError: otherwise.
    """
    check_images(name, split.images)
    check_labels(name, split.labels, len(split.images), n_classes)
    if not len(split):
        raise DataError(f"split {name!r} is empty; every split needs examples of each class")
    present = np.unique(split.labels)
    if len(present) < len(classes):
        missing = [str(c) for i, c in enumerate(classes) if i not in present]
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"split {name!r} ({len(split)} examples) holds no example of {len(missing)} of "
            f"{len(classes)} classes: {shown}; add some, leave these classes out, or raise a limit "
            "that is too small"
        )

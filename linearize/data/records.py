"""What a task is: three splits of examples, with the names of their classes."""

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from linearize.choices import one_of
from linearize.examples import Examples
from linearize.fields import integer

SPLITS = ("train", "validation", "test")


class DataError(ValueError):
    """A data set that cannot be used; the message says where and what to do."""


def Split(images: Any, labels: ArrayLike) -> Examples:  # noqa: N802
    """Deprecated: ``Examples(images, {"labels": labels})``."""
    warnings.warn(
        "linearize.data.Split(images, labels) is now linearize.Examples(images, "
        "{'labels': labels}); the former name will go",
        DeprecationWarning,
        stacklevel=2,
    )
    return Examples(images, {"labels": labels})


@dataclasses.dataclass(frozen=True)
class Limits:
    """At most so many examples of each split; ``None`` keeps all.

    Raises:
        ValueError: a limit that is no integer, 1 or more.
    """

    train: int | None = None
    validation: int | None = None
    test: int | None = None

    def __post_init__(self) -> None:
        for split in SPLITS:
            if (limit := getattr(self, split)) is not None:
                integer(f"limit: {split}", limit, low=1)

    @classmethod
    def of(cls, limit: "Limits | int | None") -> "Limits":
        """A limit as given to :func:`load_task`: a bare number limits ``train`` alone."""
        return limit if isinstance(limit, Limits) else cls(train=limit)


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """What a model is trained and tested on: three splits of examples, of any kind.

    Attributes:
        name: as in ``TASKS``, or the user's.
        train, validation, test: examples, in any form that :meth:`linearize.Examples.of` takes.
        classes: the classes' names, by label; empty where there are none.
        licence: what the data's publishers state.
        provenance: where the data come from.
        every_class: whether each split must hold each class. A validation split that is drawn at
            random as a paper draws it may lack some.
        skipped: how many examples were left out: by split those that do not decode, or, of a
            user's folder, by reason.

    Raises:
        DataError: a split that :class:`linearize.Examples` refuses; where there are classes, one
            class alone, labels that are missing, no (N,) integers or out of range, or, with
            ``every_class``, a class missing in a split.

    >>> x, y = np.eye(4), np.array([0, 1, 0, 1])
    >>> task = Task("mine", train=(x, y), validation=(x, y), test=(x, y), classes=("no", "yes"))
    >>> task.counts
    {'train': 4, 'validation': 4, 'test': 4}
    """

    name: str
    train: Examples
    validation: Examples
    test: Examples
    classes: tuple[str, ...] = ()
    licence: str = "not stated"
    provenance: str = "given by the user"
    every_class: bool = False
    skipped: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if len(self.classes) == 1:
            raise DataError(
                f"task {self.name!r} has the classes {list(self.classes)}; classification needs "
                "two or more"
            )
        for split in SPLITS:
            try:
                examples = Examples.of(getattr(self, split))
                labels = examples.labels if self.classes else None
            except ValueError as error:
                raise DataError(f"task {self.name!r}, split {split!r}: {error}") from error
            object.__setattr__(self, split, examples)
            if labels is not None:
                name = f"{self.name}/{split}"
                check_labels(name, labels, len(examples), len(self.classes))
                if self.every_class:
                    check_every_class(name, labels, self.classes)

    def split(self, name: str) -> Examples:
        """The examples of ``train``, ``validation`` or ``test``.

        Raises:
            ValueError: another name; the nearest is suggested.
        """
        return getattr(self, one_of("split", name, SPLITS))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the inputs, in pixels, where they are images (N, H, W, 3)."""
        _, height, width, _ = self.train.inputs.shape
        return height, width

    @property
    def counts(self) -> dict[str, int]:
        """Number of examples by split."""
        return {split: len(self.split(split)) for split in SPLITS}


def image_task(
    name: str,
    splits: Mapping[str, tuple[Any, np.ndarray]],
    classes: Sequence[str],
    *,
    every_class: bool = True,
    **about: Any,
) -> Task:
    """A task of images, all of one size.

    Args:
        name: of the task.
        splits: images (N, H, W, 3) uint8, RGB, and labels (N,) integers, by the split's name.
        classes: two or more.
        every_class: as in :class:`Task`.
        **about: its further fields.

    Raises:
        DataError: an empty split, fewer than two classes, images or labels of wrong shape or dtype,
            images of several sizes, and as :class:`Task`.
    """
    if len(classes) < 2:
        raise DataError(
            f"task {name!r} has the classes {list(classes)}; classification needs two or more"
        )
    for split, (images, labels) in splits.items():
        check_images(f"{name}/{split}", images)
        check_labels(f"{name}/{split}", labels, len(images), len(classes))
        if not len(images):
            raise DataError(
                f"split {name + '/' + split!r} is empty; every split needs examples of each class"
            )
    sizes = {split: images.shape[1:3] for split, (images, _) in splits.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(
            f"task {name!r} has images of different sizes: {sizes}; pass image_size to resize "
            "them all"
        )
    train, validation, test = (Examples.of(splits[split]) for split in SPLITS)
    return Task(name, train, validation, test, tuple(classes), every_class=every_class, **about)


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
            f"labels of {name!r} have the shape {np.shape(labels)}, expected ({n},): one an example"
        )
    labels = np.asarray(labels)
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"labels of {name!r} are {labels.dtype}, expected integers")
    if n and (np.min(labels) < 0 or np.max(labels) >= n_classes):
        bad = np.flatnonzero((labels < 0) | (labels >= n_classes))
        raise DataError(
            f"labels of {name!r} must lie in 0..{n_classes - 1} for {n_classes} classes; row "
            f"{bad[0]} has {labels[bad[0]]} ({len(bad)} such rows)"
        )


def check_every_class(name: str, labels: np.ndarray, classes: Sequence[str]) -> None:
    """A split holds each of ``classes``.

    Raises:
        DataError: with the names of those that are missing.
    """
    present = np.unique(labels)
    if len(present) < len(classes):
        missing = [str(c) for i, c in enumerate(classes) if i not in present]
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"split {name!r} ({len(labels)} examples) holds no example of {len(missing)} of "
            f"{len(classes)} classes: {shown}; add some, leave these classes out, or raise a limit "
            "that is too small"
        )

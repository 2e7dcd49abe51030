"""From a source to a task: one size, keys and near-duplicates, splits, limits."""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from linearize.data import split as splitting
from linearize.data.images import colour, resize_all, thumbnails, tinted
from linearize.data.records import SPLITS, DataError, Limits, Task, check_labels, image_task
from linearize.data.sources import Source


@dataclasses.dataclass(frozen=True, eq=False)
class Placed:
    """Arrays that decide every split of a data set, as they are cached on disk.

    Attributes:
        labels: (N,) int32.
        keys: (N,) uint64 hashes of each example's content.
        groups: (N,) uint64; rows of one group are never parted.
        links: (P, 2) int32 near-duplicate pairs.
        given: (N,) int8, 0, 1 or 2 where the source fixes the split, else -1.
    """

    labels: np.ndarray
    keys: np.ndarray
    groups: np.ndarray
    links: np.ndarray
    given: np.ndarray

    chained: ClassVar[bool] = True
    """Texts are linked to the first of their like; pictures' links are all pairs."""

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    def rows(
        self,
        name: str,
        limit: Limits | int | None = None,
        seed: int = 0,
        fractions: Sequence[float] = splitting.FRACTIONS,
    ) -> dict[str, np.ndarray]:
        """The rows of each split, in :func:`linearize.data.split.stratified_order`.

        Raises:
            DataError: a split without any, a limit below the number of classes, or fractions that
                are not three shares of 1.
        """
        place = splitting.assign(
            self.labels,
            self.groups,
            self.links,
            self.given,
            fractions,
            seed,
            chained=self.chained,
        )
        limits, found = Limits.of(limit), {}
        for code, split in enumerate(SPLITS):
            rows = np.flatnonzero(place == code)
            if not len(rows):
                left_out = int((place == splitting.DROPPED).sum())
                raise DataError(
                    f"split {name + '/' + split!r} is empty: of {len(place)} examples {left_out} "
                    "were left out as duplicates of validation or test, and "
                    f"fractions={tuple(fractions)} leave it none of {len(np.unique(self.groups))} "
                    "groups; give more examples or a larger fraction"
                )
            most = getattr(limits, split)
            label, key = self.labels[rows], self.keys[rows]
            found[split] = rows[splitting.limited(label, key, seed, most, f"{name}/{split}")]
        return found


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared(Placed):
    """Images and what decides their splits; keys are of images before resizing.

    Attributes:
        images: (N, S, S) or (N, S, S, 3) uint8.
    """

    images: np.ndarray

    chained: ClassVar[bool] = False


def prepare(
    source: Source, image_size: int | None, larger: Sequence[np.ndarray] | None = None
) -> Prepared:
    """Hashes, near-duplicates and resized images of a source.

    Args:
        source: decides keys, groups and near-duplicates.
        image_size: side in pixels; ``None`` keeps the source's own.
        larger: the same rows drawn larger, to be resized instead of the source's images.
    """
    if source.names is None:
        keys = splitting.content_keys(source.images)
    else:
        keys = splitting.name_keys(source.names)
    small = thumbnails(source.images) if source.threshold > 0 else np.zeros((len(keys), 1, 1))
    links = splitting.near_duplicates(small, keys, source.threshold)
    if source.groups is None:
        groups = splitting.together(keys, links)
    else:
        groups = splitting.name_keys(source.groups)
    given = np.full(len(keys), splitting.FREE, np.int8)
    if source.test is not None:
        given[source.test] = 2
    images = resize_all(source.images if larger is None else larger, image_size)
    if source.tint is not None:
        images = tinted(images, *source.tint)
    labels = np.asarray(source.labels, np.int32)
    return Prepared(labels, keys, groups, links, given, images)


def build(
    prepared: Prepared,
    name: str,
    classes: Sequence[str],
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = splitting.FRACTIONS,
    licence: str = "not stated",
    provenance: str = "given by the user",
) -> Task:
    """Splits, limits and checks.

    Raises:
        DataError: as :func:`image_task`, or a limit below the number of classes.
    """
    check_labels(name, prepared.labels, len(prepared.labels), len(classes))
    parts = {
        split: (colour(prepared.images[rows]), prepared.labels[rows])
        for split, rows in prepared.rows(name, limit, seed, fractions).items()
    }
    return image_task(name, parts, classes, licence=licence, provenance=provenance)

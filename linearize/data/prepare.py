"""From a source to a task: one size, keys and near-duplicates, splits, limits."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from linearize.data import split as splitting
from linearize.data.images import colour, resize_all, thumbnails, tinted
from linearize.data.records import SPLITS, DataError, Limits, Task, check_labels, image_task
from linearize.data.sources import Source


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """Arrays that decide every split of a data set, as they are cached on disk.

    Attributes:
        images: (N, S, S) or (N, S, S, 3) uint8.
        labels: (N,) int32.
        keys: (N,) uint64 hashes of each image before resizing.
        groups: (N,) uint64; rows of one group are never parted.
        links: (P, 2) int32 near-duplicate pairs.
        given: (N,) int8, 0, 1 or 2 where the source fixes the split, else -1.
    """

    images: np.ndarray
    labels: np.ndarray
    keys: np.ndarray
    groups: np.ndarray
    links: np.ndarray
    given: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The fields by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}


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
        joined = splitting.components(links, len(keys))
        groups = np.full(joined.max(initial=-1) + 1, np.iinfo(np.uint64).max, np.uint64)
        np.minimum.at(groups, joined, keys)
        groups = groups[joined]
    else:
        groups = splitting.name_keys(source.groups)
    given = np.full(len(keys), splitting.FREE, np.int8)
    if source.test is not None:
        given[source.test] = 2
    images = resize_all(source.images if larger is None else larger, image_size)
    if source.tint is not None:
        images = tinted(images, *source.tint)
    return Prepared(
        images,
        np.asarray(source.labels, np.int32),
        keys,
        groups,
        links,
        given,
    )


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
    place = splitting.assign(
        prepared.labels, prepared.groups, prepared.links, prepared.given, fractions, seed
    )
    limits = Limits.of(limit)
    parts = {}
    for code, split in enumerate(SPLITS):
        rows = np.flatnonzero(place == code)
        if not len(rows):
            left_out = int((place == splitting.DROPPED).sum())
            raise DataError(
                f"split {name + '/' + split!r} is empty: of {len(place)} examples {left_out} were "
                f"left out as duplicates of validation or test, and fractions={tuple(fractions)} "
                f"leave it none of {len(np.unique(prepared.groups))} groups; give more examples "
                "or a larger fraction"
            )
        order = splitting.limited(
            prepared.labels[rows],
            prepared.keys[rows],
            seed,
            getattr(limits, split),
            f"{name}/{split}",
        )
        rows = rows[order]
        parts[split] = colour(prepared.images[rows]), prepared.labels[rows]
    return image_task(name, parts, classes, licence=licence, provenance=provenance)

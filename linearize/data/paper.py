"""From a row of ``VISION`` to a task: opened, checked, and split as in the papers."""

import dataclasses
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np

from linearize.assets import cache_dir
from linearize.data.originals import ORIGINALS
from linearize.data.raw import Raw, TfdsRecords, check_rows, folder_fingerprint, index
from linearize.data.records import SPLITS, DataError, Limits, Task, image_task
from linearize.data.split import stratified_order
from linearize.data.stored import StoredImages, memory_mapped, readable
from linearize.data.tfds import import_tfds
from linearize.data.vision import VisionSet, held_out, vision_set

log = logging.getLogger(__name__)

LISTS = ("train", "test")
"""The splits that have a file list."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """How images are read from disk.

    Attributes:
        data_dir: where prepared data lie; ``tfds`` in the cache where None.
        workers: threads that decode.
        on_bad_image: what to do with an image that does not decode.
    """

    data_dir: str | Path | None = None
    workers: int = 4
    on_bad_image: Literal["error", "skip"] = "error"

    @property
    def folder(self) -> Path:
        """``data_dir``, or its default."""
        return Path(self.data_dir) if self.data_dir is not None else cache_dir() / "tfds"


@dataclasses.dataclass(frozen=True, eq=False)
class Opened:
    """A data set's records: nothing is read but its metadata.

    Attributes:
        train: what training and validation come from.
        test: records of the test set; None where it is cut out of ``train``.
        classes: their names.
        provenance: where the records come from.
    """

    train: Raw
    test: Raw | None
    classes: tuple[str, ...]
    provenance: str


def load_vision(
    name: str,
    *,
    image_size: int | None = 224,
    limit: Limits | int | None = None,
    seed: int = 0,
    reading: Reading | None = None,
) -> Task:
    """One of the papers' tasks, from prepared data.

    Training images stay on disk and are decoded when they are indexed
    (:class:`linearize.data.stored.StoredImages`); those of validation and test are decoded once
    into a memory-mapped array in the cache. Both are preprocessed as CLIP wants them.

    Validation is 10 % of the training rows, at most 5,000, as in the papers; which rows is decided
    by a NumPy permutation of ``seed``, so they are not the rows of the papers' torch generator.
    Each split begins with one example of each class and goes on with the classes in proportion, as
    those of packaged tasks do (:func:`linearize.data.split.stratified_order`), however sorted the
    data lie on disk: labels are read before images, so this costs no pass over the data.

    Args:
        name: a key of ``VISION``.
        image_size: side in pixels.
        limit: at most so many examples of each split, drawn by the same permutation; a smaller
            limit keeps a subset of a larger one's.
        seed: of validation rows, limits and order.
        reading: where data lie and how they are read.

    Raises:
        DataError: an unknown name, a data set that is not prepared (the message says how),
            classes that are not the table's, an empty split, an image that does not decode.
    """
    row, reading = vision_set(name), reading or Reading()
    if image_size is None:
        raise DataError(f"image_size=None: images of {name!r} have many sizes; give one, say 224")
    return split_vision(
        name, row, open_vision(name, row, reading), image_size, limit, seed, reading
    )


def open_vision(name: str, row: VisionSet, reading: Reading) -> Opened:
    """The records of a prepared data set.

    Raises:
        DataError: it is not there, or not what the table says.
    """
    folder = reading.folder
    if reading.data_dir is not None and not folder.is_dir():
        raise DataError(
            f"data_dir={str(folder)!r} is not a folder; name the one that prepare_data filled"
        )
    if row.original and (folder / row.original).is_dir():
        train, test, classes = ORIGINALS[row.original](folder / row.original)
        log.info("%s: the original in %s", name, folder / row.original)
        _check_classes(name, row, classes)
        if row.names and classes != row.names:
            raise DataError(
                f"{name!r} in {folder / row.original} has the classes {', '.join(classes)}; name "
                f"the folders {', '.join(row.names)}"
            )
        return Opened(train, test, classes, f"the original in {row.original}/")
    if not row.tfds:
        hand = row.by_hand.format(data_dir=folder)
        raise DataError(f"{name!r} is not in {folder / row.original}; {hand}")
    place = row.folder(folder)
    if not (place / "dataset_info.json").is_file():
        raise DataError(not_prepared(name, row, folder))
    return open_tfds(name, row, import_tfds().builder(row.tfds, data_dir=str(folder)), place)


def not_prepared(name: str, row: VisionSet, folder: Path) -> str:
    """What to say where a data set is missing."""
    others = sorted(p.name for p in row.folder(folder).parent.glob("*.*.*"))
    found = f" (version {', '.join(others)} is there)" if others else ""
    hand = f"; {row.by_hand.format(data_dir=folder)}" if row.by_hand else ""
    return (
        f"{name!r} ({row.tfds}) is not prepared in {folder}{found}; run "
        f"`python -m experiments.prepare_data {name} --data-dir {folder}` "
        f"(download: {row.downloads}){hand}"
    )


def open_tfds(name: str, row: VisionSet, builder: Any, place: Path | None) -> Opened:
    """Records of a TFDS builder whose classes are the table's.

    Args:
        name: of the task.
        row: of the table.
        builder: with the data prepared.
        place: the prepared folder; None for mocked data, which have none.

    Raises:
        DataError: other classes, or not array_record.
    """
    # a builder takes the names that lie beside prepared data; one without data has TFDS's own
    plain = import_tfds().builder(row.tfds, data_dir=str(cache_dir() / "tfds-without-data"))
    classes = _names(row, builder)
    _check_classes(name, row, classes)
    _check_names(name, _names(row, plain), classes)
    encoded = {
        key: import_tfds().decode.SkipDecoding()
        for key, feature in builder.info.features.items()
        if type(feature).__name__ == "Image"
    }
    fingerprint = "mocked" if place is None else folder_fingerprint(place)

    def records(part: str, split: str) -> TfdsRecords:
        try:
            decoders = None if place is None else encoded
            source = builder.as_data_source(split=split, decoders=decoders)
        except (NotImplementedError, ValueError) as error:
            raise DataError(
                f"{name!r} in {place} cannot be read ({str(error).splitlines()[0]}); it must be "
                "prepared with file_format='array_record': what is there may be whole in another "
                f"format; move the folder away and run `python -m experiments.prepare_data {name}`"
            ) from error
        hashed = f"{fingerprint}, {split}"
        return TfdsRecords(f"{name}/{part}", source, ("image", "label"), hashed)

    return Opened(
        records("train", row.train),
        records("test", row.test) if row.test else None,
        classes,
        f"TFDS {builder.info.full_name}; {builder.info.homepage}",
    )


def _names(row: VisionSet, builder: Any) -> tuple[str, ...]:
    """The classes by label; of the table where the builder, which has no archive, has numbers."""
    found = tuple(builder.info.features["label"].names)
    numbers = tuple(map(str, range(len(found))))
    return row.names if row.names and found == numbers else found


def _check_classes(name: str, row: VisionSet, classes: tuple[str, ...]) -> None:
    if len(classes) != row.classes:
        raise DataError(
            f"{name!r} has {len(classes)} classes and the table {row.classes}; prepare "
            f"{row.tfds or row.original} anew, or correct linearize/data/vision.py"
        )


def _check_names(name: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    if ours != theirs:
        pairs = zip(ours, theirs, strict=False)
        at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))
        raise DataError(
            f"{name!r} was prepared with {len(theirs)} classes of other names than TFDS has for "
            f"this version: class {at} is {theirs[at : at + 1]} there and {ours[at : at + 1]} "
            "here; move its folder away and prepare it anew"
        )


def split_vision(
    name: str,
    row: VisionSet,
    opened: Opened,
    image_size: int,
    limit: Limits | int | None,
    seed: int,
    reading: Reading,
) -> Task:
    """The task of opened records, each split in :func:`linearize.data.split.stratified_order`.

    Raises:
        DataError: as :func:`load_vision`.
    """
    test = opened.test if opened.test is not None else opened.train
    sources = {"train": opened.train, "validation": opened.train, "test": test}
    parts: dict[str, tuple[Any, np.ndarray]] = {}
    skipped: dict[str, int] = {}
    for split, rows in rows_of(name, row, opened, limit, seed, reading).items():
        source = sources[split]
        if not len(rows):
            raise DataError(
                f"split {name + '/' + split!r} is empty: {source.name} has {len(source)} examples; "
                "prepare the data set anew, or raise the limit"
            )
        if reading.on_bad_image == "skip":
            kept = readable(source, rows, reading.workers)
            skipped[split], rows = len(rows) - len(kept), kept
        labels = index(source, rows, reading.workers).labels
        check_rows(source, labels, rows, len(opened.classes))
        order = stratified_order(labels, rows.astype(np.uint64), seed)
        images = StoredImages(source, rows[order], image_size, reading.workers)
        parts[split] = images if split == "train" else memory_mapped(images), labels[order]
    return image_task(
        name,
        parts,
        opened.classes,
        licence=row.licence,
        provenance=opened.provenance,
        every_class=False,
        skipped=skipped,
    )


def rows_of(
    name: str,
    row: VisionSet,
    opened: Opened,
    limit: Limits | int | None,
    seed: int,
    reading: Reading,
) -> dict[str, np.ndarray]:
    """Which records are in which split: sorted row numbers, after limits."""
    n = len(opened.train)
    order = np.random.default_rng(seed).permutation(n)
    if row.shares is not None and (lists := _lists(name, opened, order, reading)):
        orders = lists
    elif row.shares is not None:
        counts = [round(share * n) for share in row.shares]
        train, validation, test = np.split(order[: sum(counts)], np.cumsum(counts)[:2])
        orders = {"train": train, "validation": validation, "test": test}
    else:
        assert opened.test is not None
        orders = {
            **_held_out(order),
            "test": np.random.default_rng([seed, 1]).permutation(len(opened.test)),
        }
    limits = Limits.of(limit)
    return {split: np.sort(orders[split][: getattr(limits, split)]) for split in SPLITS}


def _held_out(order: np.ndarray) -> dict[str, np.ndarray]:
    """Training rows in two: validation is the papers' share of them."""
    held = held_out(len(order))
    return {"train": order[held:], "validation": order[:held]}


def _lists(name: str, opened: Opened, order: np.ndarray, reading: Reading) -> dict[str, np.ndarray]:
    """The splits that file lists in ``data_dir/lists`` name, in the permutation's order."""
    paths = {split: reading.folder / "lists" / f"{name}-{split}.txt" for split in LISTS}
    if not all(path.is_file() for path in paths.values()):
        return {}
    log.info("%s: split by the lists in %s", name, reading.folder / "lists")
    files = index(opened.train, np.arange(len(order)), reading.workers).files[order]
    orders: dict[str, np.ndarray] = {}
    for split, path in paths.items():
        wanted = set(path.read_text().split())
        orders[split] = order[np.isin(files, list(wanted))]
        if len(orders[split]) != len(wanted):
            raise DataError(
                f"{path} lists {len(wanted)} files, of which {len(orders[split])} are in "
                f"{opened.train.name}; prepare the data set anew, or move the list away"
            )
    return orders | _held_out(orders["train"])

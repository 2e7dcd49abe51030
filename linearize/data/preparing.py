"""Bring published data sets to the disk, and see that they are what the table says."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from linearize.assets import RegistryError
from linearize.data.originals import ORIGINALS
from linearize.data.paper import Reading
from linearize.data.records import DataError, Limits
from linearize.data.text.sets import text_set
from linearize.data.tfds import import_tfds
from linearize.data.vision import VisionSet, held_out, vision_set
from linearize.data.without_tensorflow import without_tensorflow


@dataclasses.dataclass(frozen=True)
class Status:
    """What is known of one data set on this disk.

    Attributes:
        name: a key of ``VISION`` or of ``TEXT_SETS``.
        there: whether it is prepared.
        counts: examples by TFDS split, or by split of the original's folder.
        expected: of the real data set.
        problem: why it cannot be used, or how it differs; empty where all is well.
    """

    name: str
    there: bool
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    expected: Mapping[str, int] = dataclasses.field(default_factory=dict)
    problem: str = ""

    @property
    def ready(self) -> bool:
        """Whether it is there and has the real data set's counts."""
        return self.there and not self.problem


def status(name: str, reading: Reading) -> Status:
    """What is there of a data set; nothing is read but its metadata."""
    row = text_set(name) or vision_set(name)
    if isinstance(row, VisionSet) and row.original and (reading.folder / row.original).is_dir():
        try:
            train, test, _ = ORIGINALS[row.original](reading.folder / row.original)
        except DataError as error:
            return Status(name, False, problem=str(error))
        counts, expected = (
            {"train": len(train), "test": len(test)},
            row.original_counts or row.counts,
        )
        return Status(name, True, counts, expected, _counted(counts, expected))
    if not row.tfds or not (row.folder(reading.folder) / "dataset_info.json").is_file():
        return Status(name, False, expected=row.counts)
    builder = import_tfds().builder(row.tfds, data_dir=str(reading.folder))
    counts = {split: info.num_examples for split, info in builder.info.splits.items()}
    return Status(name, True, counts, row.counts, _counted(counts, row.counts))


def _counted(counts: Mapping[str, int], expected: Mapping[str, int]) -> str:
    wrong = {s: counts.get(s, 0) for s, n in expected.items() if counts.get(s, 0) != n}
    if not wrong:
        return ""
    listed = ", ".join(f"{split} {n:,} of {expected[split]:,}" for split, n in wrong.items())
    return f"not the real data set's counts: {listed}"


def prepare_set(name: str, reading: Reading) -> None:
    """Download what is missing and write it as array_record; archives that are there are reused.

    Raises:
        AssetError: it could not be downloaded or read; the message says what to fetch by hand.
    """
    row, tfds = text_set(name) or vision_set(name), import_tfds()
    if not row.tfds:
        raise RegistryError(f"{name!r}: {row.by_hand.format(data_dir=reading.folder)}")
    builder = tfds.builder(row.tfds, data_dir=str(reading.folder), file_format="array_record")
    downloads = reading.folder / "downloads"
    (downloads / "manual").mkdir(parents=True, exist_ok=True)
    config = tfds.download.DownloadConfig(manual_dir=str(downloads / "manual"))
    try:
        with without_tensorflow(builder):
            builder.download_and_prepare(download_dir=str(downloads), download_config=config)
    except Exception as error:  # of requests, of TFDS and of the builder
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        hand = row.by_hand.format(data_dir=reading.folder) or (
            f"connect to the network and run again ({row.downloads}), or prepare it "
            f"elsewhere and copy {row.folder(Path())} into {reading.folder}"
        )
        raise RegistryError(
            f"{name!r} could not be prepared ({type(error).__name__}: {first}); {hand}"
        ) from error


def evaluation_bytes(name: str, image_size: int, limit: Limits) -> int:
    """What validation and test of the real data set take in the cache."""
    row = vision_set(name)
    train = sum(row.counts[split] for split in row.train.split("+"))
    if row.shares is not None:
        validation, test = (round(share * train) for share in row.shares[1:])
    else:
        validation, test = held_out(train), row.counts[row.test]
    kept = min(validation, limit.validation or validation) + min(test, limit.test or test)
    return kept * 3 * image_size**2

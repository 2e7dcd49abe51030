"""Data sets as their authors publish them, in a folder: TFDS has a changed version, or none."""

import csv
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from linearize.data import folders
from linearize.data.raw import FolderRecords, file_digest
from linearize.data.records import DataError

Original = tuple[FolderRecords, FolderRecords, tuple[str, ...]]
"""Training and test records, and the classes' names as TFDS has them."""

GTSRB_CLASSES = 43


def read_gtsrb(root: Path) -> Original:
    """The German Traffic Sign Recognition Benchmark, laid out as torchvision's ``GTSRB`` does.

    ``GTSRB/Training/00000/*.ppm`` (from GTSRB-Training_fixed.zip, 26,640 images as in the papers;
    ``GTSRB/Final_Training/Images`` serves too), ``GTSRB/Final_Test/Images/*.ppm`` and
    ``GT-final_test.csv``, all from sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370.

    Raises:
        DataError: a part is missing; it is named.
    """
    places = [root / "GTSRB" / "Training", root / "GTSRB" / "Final_Training" / "Images"]
    training = next((place for place in places if place.is_dir()), None)
    test, truth = root / "GTSRB" / "Final_Test" / "Images", root / "GT-final_test.csv"
    missing = [str(place) for place in (test, truth) if not place.exists()]
    if training is None:
        missing.insert(0, str(places[0]))
    if missing or training is None:
        raise DataError(
            f"the original GTSRB in {root} lacks {', '.join(missing)}; unpack "
            "GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and GTSRB_Final_Test_GT.zip "
            "there, or move the folder away to use TFDS's version"
        )
    files = sorted(training.glob("*/*.ppm"))
    numbers = [int(path.parent.name) for path in files]
    with truth.open(newline="") as opened:
        rows = list(csv.DictReader(opened, delimiter=";", skipinitialspace=True))
    if absent := [row["Filename"] for row in rows if not (test / row["Filename"]).is_file()]:
        raise DataError(
            f"{test} lacks {len(absent)} of the {len(rows)} images that {truth.name} lists, such "
            f"as {absent[0]}; unpack GTSRB_Final_Test_Images.zip anew"
        )
    return (
        _records("gtsrb/train", training, [str(p.relative_to(training)) for p in files], numbers),
        _records(
            "gtsrb/test", test, [r["Filename"] for r in rows], [int(r["ClassId"]) for r in rows]
        ),
        tuple(str(number) for number in range(GTSRB_CLASSES)),
    )


def _records(name: str, root: Path, files: list[str], labels: list[int]) -> FolderRecords:
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        contents = pool.map(lambda file: file_digest(root / file), files)
        for file, label, content in zip(files, labels, contents, strict=True):
            digest.update(f"{file}\0{label}\0{content}\0".encode())
    return FolderRecords(name, root, tuple(files), np.array(labels, np.int32), digest.hexdigest())


def read_classes(root: Path, name: str) -> Original:
    """A folder a class, ``train/CLASS/*`` and ``test/CLASS/*``; classes by their names' order.

    Raises:
        DataError: a part is missing, or test has other classes.
    """
    parts = {split: root / split for split in ("train", "test")}
    classes = {
        split: tuple(f.name for f in folders.subfolders(folder)) if folder.is_dir() else ()
        for split, folder in parts.items()
    }
    if not classes["train"] or classes["train"] != classes["test"]:
        raise DataError(
            f"{name!r} in {root} has the classes {list(classes['train'])} in train/ and "
            f"{list(classes['test'])} in test/; put the same folders, one a class, into both"
        )
    found = []
    for split, folder in parts.items():
        files, _ = folders.images(folder, classes["train"])
        paths = [str(path.relative_to(folder)) for path, _ in files]
        found.append(_records(f"{name}/{split}", folder, paths, [label for _, label in files]))
    return found[0], found[1], classes["train"]


ORIGINALS: dict[str, Callable[[Path], Original]] = {
    "gtsrb": read_gtsrb,
    "fer2013": partial(read_classes, name="fer2013"),
    "rendered-sst2": partial(read_classes, name="rendered_sst2"),
}
"""Readers by the value of :attr:`linearize.data.vision.VisionSet.original`."""

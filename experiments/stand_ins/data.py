"""Small data sets that lie on disk exactly as the papers' do, for runs without a data host.

    python -m experiments.stand_ins.data --folder DIR --names cars dtd --per-class 4

Each is written by TFDS's own builder of that data set, with its name, version, features, class
names and splits, as array_record, or as a folder a class where TFDS has none. Only the images
differ: each class is a pattern of stripes of its
own direction, frequency and two colours, in rectangles of several sizes and with noise, so that
resizing and cropping matter and a small model can learn them. The ordinary loading path reads them.
"""

import contextlib
import io
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image

from linearize import cli
from linearize.data.paper import Reading, open_vision
from linearize.data.tfds import import_tfds
from linearize.data.vision import VISION, VisionSet, vision_set

log = logging.getLogger(__name__)

SHORT, LONG = 36, 54
"""Sides in pixels lie between these where a data set's images have no fixed size."""

FEW = {
    "imagenet": 1,
    "imagenet_sketch": 1,
    **dict.fromkeys(("sun397", "cifar100", "flowers", "food101"), 2),
    **dict.fromkeys(("cars", "pets"), 3),
}
"""Images a class in each TFDS split, where the classes are many."""
UNLABELLED = {"gtsrb": "test", "stl10": "unlabelled"}
"""TFDS splits whose labels are -1: the decathlon keeps the test labels to itself."""


ALL = tuple(name for name in VISION if name != "svhn_extra")


def make(
    folder: str | Path, names: tuple[str, ...] = ALL, per_class: int = 6, seed: int = 0
) -> Path:
    """Write the stand-ins that are not there yet; the folder is a ``data_dir``.

    Args:
        folder: made where absent.
        names: keys of ``VISION``; others, such as packaged tasks, are passed over.
        per_class: images a class in each TFDS split, at most ``FEW`` where that names the set, and
            so many that a tenth of them is one.
        seed: of noise and sizes; patterns depend on the class alone.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(n for n in names if n in VISION):
        row = vision_set(name)
        place = row.folder(folder) / "dataset_info.json" if row.tfds else folder / row.original
        if not place.exists():
            count = max(min(per_class, FEW.get(name, per_class)), -(-10 // row.classes))
            write_one = write if row.tfds else write_folders
            write_one(name, row, folder, count, seed)
        open_vision(name, row, Reading(folder))
    return folder


def write(name: str, row: VisionSet, folder: Path, per_class: int, seed: int) -> None:
    """One data set, through its own TFDS builder."""
    tfds = import_tfds()
    builder = tfds.builder(row.tfds, data_dir=str(folder), file_format="array_record")
    splits = {
        split: examples(builder.info.features, split, per_class, [seed, number])
        for number, split in enumerate(row.counts)
    }
    if hidden := UNLABELLED.get(name):
        splits[hidden] = _unlabelled(splits[hidden])
    builder._split_generators = lambda _: splits
    with quiet():
        builder.download_and_prepare()
    log.info("%s: %s", name, {s: i.num_examples for s, i in builder.info.splits.items()})


def write_folders(name: str, row: VisionSet, folder: Path, per_class: int, seed: int) -> None:
    """One data set that TFDS has not: a folder a class in ``train`` and in ``test``."""
    for number, split in enumerate(row.counts):
        rng = np.random.default_rng([seed, number])
        for i in range(row.classes * per_class):
            label = i % row.classes
            place = folder / row.original / split / row.names[label]
            place.mkdir(parents=True, exist_ok=True)
            size = (int(rng.integers(SHORT, LONG)), int(rng.integers(SHORT, LONG)))
            drawn = pattern(label, row.classes, size, rng)
            (place / f"{split}_{i:06d}.png").write_bytes(encode(drawn, 3, "png").getvalue())
    log.info("%s: %d images a class", name, per_class)


def examples(
    features: Mapping[str, Any], split: str, per_class: int, seed: list[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and examples with every feature of the real data set."""
    rng = np.random.default_rng(seed)
    label, image = features["label"], features["image"]
    for i in range(label.num_classes * per_class):
        number = i % label.num_classes
        key = f"{split}_{i:06d}"
        example: dict[str, Any] = {"label": number}
        for feature, kind in features.items():
            if type(kind).__name__ == "Text":
                example[feature] = f"{key}.jpg"
            elif type(kind).__name__ == "BBoxFeature":
                example[feature] = import_tfds().features.BBox(0.0, 0.0, 1.0, 1.0)
            elif type(kind).__name__ == "ClassLabel":
                example.setdefault(feature, 0)
            elif kind is not image and type(kind).__name__ == "Image":
                example[feature] = encode(np.zeros((SHORT, SHORT, 3), np.uint8), 1, "png")
        height, width, channels = image.shape
        size = height or int(rng.integers(SHORT, LONG)), width or int(rng.integers(SHORT, LONG))
        drawn = pattern(number, label.num_classes, size, rng)
        example["image"] = encode(drawn, channels, image.encoding_format or "png")
        yield key, example


def _unlabelled(
    made: Iterator[tuple[str, dict[str, Any]]],
) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, example in made:
        yield key, example | {"label": -1}


def pattern(
    number: int, classes: int, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """(H, W, 3) uint8: a class's stripes, at a random phase and with noise."""
    own = np.random.default_rng([classes, number])
    colours = own.uniform(0, 255, (2, 3))
    angle, waves = own.uniform(0, math.pi), own.uniform(1.5, 5)
    finest = max(1, min(size) // 64)  # what is larger than 64 pixels is drawn coarser, to be quick
    rows, columns = -(-size[0] // finest), -(-size[1] // finest)
    y, x = np.mgrid[:rows, :columns] / min(rows, columns)
    wave = np.sin(
        2 * math.pi * (waves * (x * math.cos(angle) + y * math.sin(angle)) + rng.random())
    )
    mixed = 0.5 + 0.5 * wave[..., None]
    image = colours[0] * mixed + colours[1] * (1 - mixed) + rng.normal(0, 8, (rows, columns, 3))
    coarse = image.clip(0, 255).astype(np.uint8)
    return coarse.repeat(finest, 0).repeat(finest, 1)[: size[0], : size[1]]


def encode(image: np.ndarray, channels: int, encoding: str) -> io.BytesIO:
    """A file as the data set keeps it."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    options = {"compress_level": 1} if encoding == "png" else {}
    (picture.convert("L") if channels == 1 else picture).save(buffer, encoding, **options)
    buffer.seek(0)
    return buffer


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without TFDS's progress bars and prints."""
    import_tfds().disable_progress_bar()
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        import_tfds().enable_progress_bar()


if __name__ == "__main__":
    with cli.reporting():
        tyro.cli(make)

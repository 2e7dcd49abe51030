"""The packaged tasks: a table of readers, and the loader that caches what they give."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linearize import assets, choices
from linearize.data import glyphs, icons, sources
from linearize.data.kept import kept_arrays
from linearize.data.paper import Reading, load_vision
from linearize.data.prepare import Prepared, build, prepare
from linearize.data.records import DataError, Limits, Task
from linearize.data.sources import Paths, Source
from linearize.data.split import FRACTIONS
from linearize.data.toy import TOYS
from linearize.data.vision import VISION
from linearize.fields import integer

VERSION = 3
"""Raised whenever a reader or the preparation changes what it gives."""

DRAWN_SIDE = 64


@dataclasses.dataclass(frozen=True)
class PackagedTask:
    """A row of ``TASKS``.

    Attributes:
        read: its reader; ``None`` for the papers' tasks, which :data:`VISION` describes.
        assets: names in ``linearize.assets.REGISTRY``.
        classes: how many.
        drawn: whether the reader renders at a size of our choice.
        tfds: for the papers' tasks, the data set's name in TensorFlow Datasets, if it has one.
        about: one line.
    """

    read: Callable[[Paths, int], Source] | None
    assets: tuple[str, ...]
    classes: int
    about: str
    drawn: bool = False
    tfds: str = ""

    @property
    def providers(self) -> tuple[str, ...]:
        """Who serves it: ``pypi`` alone means that pip alone can fetch it; none draws it here."""
        if self.read is None:
            return ("tfds" if self.tfds else "by hand",)
        return tuple(sorted({assets.REGISTRY[a].provider for a in self.assets}))

    @property
    def licence(self) -> str:
        """The licences of its assets; our own where it is drawn here."""
        if not self.assets and self.read:
            return "Apache-2.0"
        return "; ".join(dict.fromkeys(assets.REGISTRY[a].licence for a in self.assets))

    @property
    def provenance(self) -> str:
        """Where its assets come from."""
        if not self.assets and self.read:
            return "drawn by linearize.data.toy"
        found = list(dict.fromkeys(assets.REGISTRY[a].provenance for a in self.assets))
        if len(found) > 4:
            return f"{len(found)} font families, such as {found[0]}"
        return "; ".join(found)


def _fonts(families: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"font/{family}" for family in sorted(set(families)))


_SCRIPT_FAMILIES = [family for group in glyphs.SCRIPT_FAMILIES.values() for family in group]

TASKS: dict[str, PackagedTask] = {
    "mnist": PackagedTask(
        sources.read_mnist, ("mnist_5k",), 10, "handwritten digits, 5,000 of MNIST"
    ),
    "animals": PackagedTask(
        sources.read_animals, ("animals_images", "animals_labels"), 10, "silhouettes of animals"
    ),
    "digits": PackagedTask(
        sources.read_digits, ("optdigits",), 10, "handwritten digits at 8 × 8, other writers"
    ),
    "landsat": PackagedTask(
        sources.read_landsat, ("satimage",), 6, "ground cover in 3 × 3 pixels of a satellite scene"
    ),
    "letters": PackagedTask(
        glyphs.read_letters,
        _fonts(glyphs.LETTER_FAMILIES),
        26,
        "capital letters in unseen font families",
        drawn=True,
    ),
    "scripts": PackagedTask(
        glyphs.read_scripts,
        _fonts(_SCRIPT_FAMILIES),
        len(glyphs.SCRIPTS),
        "the writing system of a letter, in unseen font families",
        drawn=True,
    ),
    "emoji": PackagedTask(
        sources.read_openmoji,
        ("openmoji", "emoji_names"),
        len(sources.EMOJI),
        "category of an emoji, OpenMoji's drawings",
        drawn=True,
    ),
    "emoji_google": PackagedTask(
        functools.partial(sources.read_emoji, vendor="google"),
        ("emoji_google", "emoji_names"),
        len(sources.EMOJI),
        "the same emoji in Google's drawings",
    ),
    "emoji_twitter": PackagedTask(
        functools.partial(sources.read_emoji, vendor="twitter"),
        ("emoji_twitter", "emoji_names"),
        len(sources.EMOJI),
        "the same emoji in Twitter's drawings",
    ),
    "signs": PackagedTask(sources.read_signs, ("signs",), 4, "kind of a traffic sign", drawn=True),
    **{
        f"icons_{style}": PackagedTask(
            functools.partial(icons.read_icons, style=style),
            ("iconify",),
            len(icons.OBJECTS),
            f"objects in icons of unseen sets, {style}",
            drawn=True,
        )
        for style in icons.STYLES
    },
    "fashion_mnist": PackagedTask(
        sources.read_fashion_mnist,
        tuple(
            f"fashion_mnist_{part}-{kind}"
            for part in ("train", "t10k")
            for kind in ("images-idx3", "labels-idx1")
        ),
        10,
        "articles of clothing; the source's own test set",
    ),
    **{
        name: PackagedTask(toy.read, (), toy.classes, "angles of gratings, for tests and debugging")
        for name, toy in TOYS.items()
    },
    **{
        name: PackagedTask(
            None,
            (),
            row.classes,
            f"{row.about}, {'through TFDS' if row.tfds else 'from a folder'}",
            tfds=row.tfds,
        )
        for name, row in VISION.items()
    },
}
"""The tasks that :func:`load_task` knows, by name."""


def load_task(
    name: str,
    *,
    image_size: int | None = 28,
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    reading: Reading | None = None,
) -> Task:
    """A packaged task, fetched on first use and read from the cache afterwards; or one of the
    papers', which ``experiments.prepare_data`` has prepared (:func:`load_vision`).

    Rows that are equal or nearly so, and rows of one group (a font family, a region of a scene, an
    emoji's variants), never lie in two splits. A smaller limit keeps a subset of what a larger one
    keeps, with the classes in proportion.

    Args:
        name: a key of ``TASKS``.
        image_size: side in pixels; ``None`` keeps the source's own.
        limit: at most so many training examples, or :class:`Limits` for each split.
        seed: of the split and of what a limit keeps.
        fractions: shares of train, validation and test; where the source has a test set of its
            own, the other two share the rest in proportion. The papers' tasks have their own.
        reading: where the papers' tasks lie and how their images are read.

    Raises:
        DataError: an unknown name (the nearest is suggested), arguments that leave a split
            without a class, or one of the papers' tasks that is not prepared.
        AssetError: the data are not cached and could not be fetched.
    """
    task = choices.row("task", name, TASKS, DataError)
    integer("seed", seed)
    if image_size is not None and not 1 <= integer("image_size", image_size) <= 1024:
        raise DataError(f"image_size={image_size} must lie in 1..1024, or be None")
    if task.read is None:
        if tuple(fractions) != FRACTIONS:
            raise DataError(f"fractions={tuple(fractions)}: {name!r} is split as in the papers")
        return load_vision(name, image_size=image_size, limit=limit, seed=seed, reading=reading)
    prepared, classes = _cached(name, task, image_size)
    return build(
        prepared,
        name,
        classes,
        limit=limit,
        seed=seed,
        fractions=fractions,
        licence=task.licence,
        provenance=task.provenance,
    )


def prefetch(names: Iterable[str], image_size: int | None = 28) -> None:
    """Bring what several packaged tasks need in one go, which is faster than one by one.

    Unknown names and what is cached are passed over: :func:`load_task` has the last word.

    Raises:
        AssetError: the data are not cached and could not be fetched.
    """
    wanted = [
        asset
        for name in names
        if name in TASKS and TASKS[name].read and not _path(name, TASKS[name], image_size).is_file()
        for asset in TASKS[name].assets
    ]
    if wanted:
        assets.fetch_all(dict.fromkeys(wanted))


def _path(name: str, task: PackagedTask, image_size: int | None) -> Path:
    """Where a task's arrays are kept; the name says everything that decides them."""
    style = getattr(task.read, "__self__", None)  # of what is drawn here and not fetched
    hashes = [assets.REGISTRY[a].sha256 for a in task.assets]
    decided_by = [VERSION, image_size, *hashes, *([repr(style)] if style else [])]
    digest = hashlib.sha256(json.dumps(decided_by).encode()).hexdigest()[:16]
    return assets.cache_dir() / "tasks" / f"{name}-{image_size or 'own'}-{digest}.npz"


def _cached(
    name: str, task: PackagedTask, image_size: int | None
) -> tuple[Prepared, tuple[str, ...]]:
    """Arrays on disk, prepared if they are not there or damaged."""

    def made() -> dict[str, Any]:
        assert task.read is not None
        paths = assets.fetch_all(task.assets)
        source = task.read(paths, DRAWN_SIDE)
        larger = None
        if task.drawn and image_size is not None and image_size > DRAWN_SIDE:
            larger = task.read(paths, image_size).images
        prepared = prepare(source, image_size, larger)
        return {"classes": np.array(source.classes), **prepared.arrays()}

    fields = [f.name for f in dataclasses.fields(Prepared)]
    arrays = kept_arrays(_path(name, task, image_size), ["classes", *fields], made)
    return Prepared(**{n: arrays[n] for n in fields}), tuple(map(str, arrays["classes"]))

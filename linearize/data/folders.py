"""What a folder of images holds: classes or splits of classes, and the images of each class."""

import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from linearize.data.records import SPLITS, DataError

log = logging.getLogger(__name__)

SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".webp", ".avif", ".jp2", ".tga", ".ppm", ".pgm", ".pbm", ".pnm",
})  # fmt: skip

SPLIT_NAMES: Mapping[str, str] = {
    "train": "train", "training": "train", "trainset": "train", "trainingset": "train",
    "trn": "train", "traindata": "train", "trainingdata": "train",
    "validation": "validation", "val": "validation", "valid": "validation", "valset": "validation",
    "validset": "validation", "validationset": "validation", "validate": "validation",
    "validating": "validation", "dev": "validation", "devel": "validation",
    "development": "validation", "devset": "validation",
    "test": "test", "testing": "test", "tst": "test", "testset": "test", "testingset": "test",
    "testdata": "test", "holdout": "test", "heldout": "test",
    "eval": "validation", "evaluation": "validation", "evalset": "validation",
}  # fmt: skip
"""What splits are called, in small letters without digits and signs; ``eval`` is the test split
where another folder is the validation split."""

_FILLERS = frozenset({
    "data", "dataset", "set", "split", "subset", "part", "images", "image", "imgs", "img",
    "pictures", "photos", "files", "folder", "dir",
})  # fmt: skip
"""Words beside a split's that say nothing: ``train_images``, ``Val Split``."""

_HIDDEN, _OTHER, _OUTSIDE = "hidden", "no image by its suffix", "outside the classes"


def splits(root: Path) -> dict[str, Path]:
    """The folders of the three splits, or none where the classes lie right in ``root``.

    Names are those of :data:`SPLIT_NAMES`, in any case, with digits and signs (``Test_Set``,
    ``val2017``, ``TrainImages``). A folder of such a name that holds images itself is a class among
    other classes. Folders that all hold folders of the same names are taken for classes, with a
    warning.

    Raises:
        DataError: splits that are missing, given twice or beside classes; splits without classes,
            or inside them; folders of classes whose names only contain those of splits
            (``seg_train``, ``seg_test``). With what to do.
    """
    folders = subfolders(root)
    named = {f: split for f in folders if (split := _split_named(f.name))}
    whole = {f: split for f, split in named.items() if subfolders(f)}
    if not whole:
        if len(folders) > 1 and len(named) == len(folders):
            raise DataError(
                f"{str(root)!r} holds {_listed(folders)}, which are named like splits, and none "
                "holds a folder a class; sort each one's images into folders named by their classes"
            )
        within = {f: split for f in folders if (split := _split_within(f.name)) and subfolders(f)}
        if len(set(within.values())) > 1:
            raise DataError(
                f"{str(root)!r} holds {_listed(within)}, whose names say splits among other "
                "things. If they are, rename them to train, validation and test; if they are "
                "classes, put their images right into them"
            )
        _warn_of_alike(root, folders)
        for folder in folders:
            inner = {_split_named(f.name) for f in subfolders(folder)}
            if "train" in inner and len(inner - {None}) > 1:
                raise DataError(
                    f"{str(folder)!r} holds splits inside a class, whose test images would be "
                    "trained on; put the splits on top: train/CLASS, validation/CLASS, test/CLASS"
                )
        return {}
    beside = [f for f in folders if f not in whole]
    if beside:
        raise DataError(
            f"{str(root)!r} holds {_listed(whole)}, named like splits, beside {_listed(beside)}, "
            "which are not splits with one folder a class. Take these out; or, if a class is "
            "called like that, put its images right into its folder"
        )
    if "validation" in {s for f, s in whole.items() if not _is_eval(f)}:
        whole = {f: "test" if _is_eval(f) else split for f, split in whole.items()}
    found: dict[str, Path] = {}
    for folder, split in whole.items():
        if split in found:
            raise DataError(
                f"{str(root)!r} holds {_listed([found[split], folder])}, which both say {split}; "
                "join or rename them"
            )
        found[split] = folder
    missing = [split for split in SPLITS if split not in found]
    if missing:
        alone = found.get("train")
        remedy = f", or give path={str(alone)!r} alone to have it split" if alone else ""
        raise DataError(
            f"{str(root)!r} has {_listed(whole)} and lacks {missing}; give all three{remedy}, or "
            "put the classes right into the folder and let them be split"
        )
    return {split: found[split] for split in SPLITS}


def subfolders(folder: Path) -> list[Path]:
    """Folders and links to folders, but no hidden ones, by name."""
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def images(folder: Path, classes: tuple[str, ...]) -> tuple[list[tuple[Path, int]], Counter[str]]:
    """The images below each class's folder, with their labels; and what was passed over.

    Links are followed, to folders as well, but to none that holds the link.

    Raises:
        DataError: an image's name that leads to no file: a link to nothing, or a pipe, say.
    """
    found, over = [], Counter[str]()
    for label, name in enumerate(classes):
        for file in _files(folder / name):
            if any(part.startswith(".") for part in file.relative_to(folder).parts):
                over[_HIDDEN] += 1
            elif file.suffix.lower() not in SUFFIXES:
                over[_OTHER] += 1
            elif not file.is_file():
                what = "a link to nothing" if file.is_symlink() else "no regular file"
                raise DataError(f"the image {str(file)!r} is {what}; mend it or take it out")
            else:
                found.append((file, label))
    over[_OUTSIDE] = sum(
        not p.is_dir() and p.suffix.lower() in SUFFIXES and not p.name.startswith(".")
        for p in folder.iterdir()
    )
    return found, +over


def _files(folder: Path, inside: tuple[str, ...] = ()) -> Iterator[Path]:
    inside = (*inside, os.path.realpath(folder))
    for entry in sorted(folder.iterdir()):
        if not entry.is_dir():
            yield entry
        elif os.path.realpath(entry) not in inside:
            yield from _files(entry, inside)


def _warn_of_alike(root: Path, folders: list[Path]) -> None:
    """Splits of names that are not known here would be classes."""
    inner = [{f.name for f in subfolders(folder)} for folder in folders]
    if len(inner) > 1 and len(inner[0]) > 1 and all(names == inner[0] for names in inner):
        log.warning(
            "%s: each of %s holds the same folders, %s; they are taken for classes. If they are "
            "splits, rename them to train, validation and test",
            root,
            _listed(folders),
            sorted(inner[0])[:5],
        )


def _words(name: str) -> list[str]:
    """``TrainImages``, ``train_images`` and ``TRAIN-images 2`` in words."""
    return [w.casefold() for w in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]


def _split_named(name: str) -> str | None:
    letters = re.sub(r"[^a-z]", "", name.casefold())
    telling = "".join(word for word in _words(name) if word not in _FILLERS)
    return SPLIT_NAMES.get(letters) or SPLIT_NAMES.get(telling)


def _split_within(name: str) -> str | None:
    """The split that a name contains among other words, if one."""
    found = {SPLIT_NAMES[word] for word in _words(name) if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 else None


def _is_eval(folder: Path) -> bool:
    return any(word.startswith("eval") for word in _words(folder.name))


def _listed(folders: Iterable[Path]) -> list[str]:
    return [f.name for f in folders]

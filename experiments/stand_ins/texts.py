"""Small text data sets that lie on disk exactly as TFDS prepares the real ones.

Each is written by TFDS's own builder of that data set, with its name, version, features and class
names, as array_record. Only the sentences differ: they are made of a few words, one of which tells
the class.
"""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from experiments.stand_ins.data import quiet
from linearize.data.tfds import import_tfds

log = logging.getLogger(__name__)

NOUNS = (
    *("cat", "dog", "king", "ship", "tree", "river", "child", "cook", "bird", "house", "road"),
    *("stone", "lamp", "horse", "queen", "train", "cloud", "garden", "letter", "window", "clock"),
    *("coat", "bridge", "field", "door", "song", "table", "wheel", "island", "market"),
)
VERBS = (
    *("sees", "finds", "likes", "leaves", "hears", "moves", "keeps", "knows", "meets", "needs"),
    *("draws", "holds", "seeks", "takes", "passes"),
)
SIGNS = ("surely", "maybe", "never", "often")
"""A word of each class, that sentences of it have."""
STARS = (1, 5)
"""A rating of each class."""
SPLITS: Mapping[str, tuple[str, ...]] = {
    "glue/mnli": ("train", "validation_matched"),
    **dict.fromkeys(("snli", "sci_tail"), ("train", "validation", "test")),
    "yelp_polarity_reviews": ("train", "test"),
    "amazon_us_reviews/Mobile_Electronics_v1_00": ("train",),
}
"""TFDS splits that are written; of others ``train`` and ``validation``, as GLUE's labels go."""
WORDS = (*NOUNS, *VERBS, *SIGNS, "the", "and")


def make(folder: str | Path, names: tuple[str, ...], count: int = 240, seed: int = 0) -> Path:
    """Write the sets that are not there yet; the folder is a ``data_dir``.

    Args:
        folder: made where absent.
        names: of TFDS, such as ``glue/mrpc``, and ``sick``, which is a file of its own; what is
            neither is passed over.
        count: examples of ``train``; the other splits have a third of them.
        seed: of the sentences.
    """
    folder, tfds = Path(folder), import_tfds()
    folder.mkdir(parents=True, exist_ok=True)
    for name in dict.fromkeys(names):
        if name == "sick":
            _sick(folder / "sick" / "SICK.txt", count, seed)
            continue
        try:
            builder = tfds.builder(name, data_dir=str(folder), file_format="array_record")
        except tfds.core.registered.DatasetNotFoundError:
            continue
        if (Path(builder.data_dir) / "dataset_info.json").exists():
            continue
        splits = SPLITS.get(name, ("train", "validation"))
        written = {
            split: examples(builder.info.features, split, count // (1 if i == 0 else 3), [seed, i])
            for i, split in enumerate(splits)
        }
        builder._split_generators = lambda _, written=written: written
        with quiet():
            builder.download_and_prepare()
        log.info("%s: %d training sentences", name, count)
    return folder


_COLUMNS = (
    *("pair_ID", "sentence_A", "sentence_B", "entailment_label", "relatedness_score"),
    *("entailment_AB", "entailment_BA", "sentence_A_original", "sentence_B_original"),
    *("sentence_A_dataset", "sentence_B_dataset", "SemEval_set"),
)


def _sick(path: Path, count: int, seed: int) -> None:
    """SICK as its authors hand it out (Marelli et al. 2014): one table, three sets."""
    if path.exists():
        return
    lines, rng = ["\t".join(_COLUMNS)], np.random.default_rng([seed, 3])
    for kind, many in (("TRAIN", count), ("TRIAL", count // 3), ("TEST", count // 3)):
        for i in range(many):
            label = i % 3
            said, told = sentence(label, rng), sentence(label, rng)
            name = ("ENTAILMENT", "NEUTRAL", "CONTRADICTION")[label]
            more = ("3.5", f"A_{name}_B", f"B_{name}_A", said, told, "FLICKR", "FLICKR", kind)
            lines.append("\t".join([str(len(lines)), said, told, name, *more]))
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join([*lines, ""]))


def examples(
    features: Mapping[str, Any], split: str, count: int, seed: list[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Keys and examples with every feature of the real data set."""
    rng = np.random.default_rng(seed)
    classes = features["label"].num_classes if "label" in features else len(STARS)
    for i in range(count):
        yield f"{split}_{i:06d}", _filled(features, i, i % classes, rng)


def _filled(
    features: Mapping[str, Any], i: int, label: int, rng: np.random.Generator
) -> dict[str, Any]:
    told = {"label": label, "star_rating": STARS[label % len(STARS)], "idx": i}
    found: dict[str, Any] = {}
    for name, kind in features.items():
        if hasattr(kind, "keys"):
            found[name] = _filled(kind, i, label, rng)
        elif name in told:
            found[name] = told[name]
        else:
            found[name] = 0 if np.issubdtype(kind.np_dtype, np.integer) else sentence(label, rng)
    return found


def sentence(label: int, rng: np.random.Generator) -> str:
    """A few words, one of which tells the class."""
    a, b = rng.choice(NOUNS, 2)
    words = ["the", a, SIGNS[label], rng.choice(VERBS), "the", b]
    if rng.random() < 0.5:
        words += ["and", "the", rng.choice(NOUNS)]
    return " ".join(map(str, words))

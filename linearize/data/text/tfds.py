"""Labelled texts of TensorFlow Datasets, prepared as array_record and read without TensorFlow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from linearize.choices import hint
from linearize.data.records import DataError, Limits
from linearize.data.text.documents import Documents
from linearize.data.text.task import TextTask, split_documents
from linearize.data.tfds import open_builder

HIDDEN = {"train": "train", "test": "validation"}
"""Where the labels of the test set are kept by its hosts: validation is cut out of training."""


@dataclass(frozen=True)
class TextSet:
    """A row: which features of a data set are what, and which of its splits.

    Attributes:
        text: the feature of texts; slashes lead inwards.
        pair: that of second texts; None where texts stand alone.
        splits: TFDS's split of ``train`` and, where there are, ``test`` and ``validation``.
        label: the feature of class numbers; examples with −1 are left out.
        classes: names of classes, and which values of ``label`` are each's; examples of others are
            left out. The feature's own where empty.
    """

    text: str
    pair: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: HIDDEN)
    label: str = "label"
    classes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


THREE = {"train": "train", "validation": "validation", "test": "test"}
STARS = {"negative": (1, 2), "positive": (4, 5)}
TFDS_TEXTS: Mapping[str, TextSet] = {
    "glue/cola": TextSet("sentence"),
    "glue/sst2": TextSet("sentence"),
    "glue/mrpc": TextSet("sentence1", "sentence2"),
    "glue/qqp": TextSet("question1", "question2"),
    "glue/rte": TextSet("sentence1", "sentence2"),
    "glue/wnli": TextSet("sentence1", "sentence2"),
    "glue/qnli": TextSet("question", "sentence"),
    "glue/mnli": TextSet("premise", "hypothesis", {"train": "train", "test": "validation_matched"}),
    "snli": TextSet("premise", "hypothesis", THREE),
    "sci_tail": TextSet("premise", "hypothesis", THREE),
    "yelp_polarity_reviews": TextSet(
        "text",
        splits={"train": "train", "test": "test"},
        classes={"negative": (0,), "positive": (1,)},
    ),
    **{
        f"amazon_us_reviews/{category}_v1_00": TextSet(
            "data/review_body", splits={"train": "train"}, label="data/star_rating", classes=STARS
        )
        for category in ("Electronics", "Mobile_Electronics", "Books", "Kitchen", "Video_DVD")
    },
}
"""The sets that :func:`from_tfds` knows, by TFDS's name."""


def from_tfds(
    dataset: str,
    row: TextSet | None = None,
    *,
    data_dir: str | Path | None = None,
    download: bool = True,
    limit: Limits | int | None = None,
    seed: int = 0,
) -> TextTask:
    """A labelled set of texts, in its own splits; those that it has not are cut out of training.

    Args:
        dataset: TFDS's name of it.
        row: which features and splits are what, of a set that :data:`TFDS_TEXTS` does not hold.
        data_dir: where prepared data lie; the cache by default.
        download: whether to download and prepare what is missing.
        limit: at most so many training documents, or :class:`Limits` for each split.
        seed: of what is cut out and kept.

    Raises:
        DataError: an unknown set, features or splits that it has not, and as
            :func:`linearize.data.text.split_documents`.
        AssetError: it is not prepared and could not be downloaded.
    """
    row = row or TFDS_TEXTS.get(dataset)
    if row is None:
        known = f"give row=TextSet(...); there are: {', '.join(TFDS_TEXTS)}"
        raise DataError(f"no set of texts is named {dataset!r}{hint(dataset, TFDS_TEXTS, known)}")
    builder = open_builder(dataset, data_dir, download)
    features = builder.info.features
    for name in filter(None, (row.text, row.pair, row.label)):
        if _inner(features, name) is None:
            raise DataError(f"{dataset!r} has no feature {name!r}; it has {', '.join(features)}")
    names = tuple(getattr(_inner(features, row.label), "names", None) or ())
    classes = row.classes or {name: (value,) for value, name in enumerate(names)}
    if not classes:
        raise DataError(f"{dataset!r}: the feature {row.label!r} is of no classes")
    there = builder.info.splits
    if missing := [name for name in row.splits.values() if name not in there]:
        raise DataError(f"{dataset!r} has no split {', '.join(missing)}; it has {', '.join(there)}")
    parts = {
        split: _documents(
            builder.as_data_source(split=source), row, classes, f"{dataset}, {source}"
        )
        for split, source in row.splits.items()
    }
    info = builder.info
    return split_documents(
        dataset.replace("/", "_"),
        **parts,
        limit=limit,
        seed=seed,
        provenance=f"TFDS {info.full_name}; {info.homepage or 'no homepage'}",
    )


def _inner(values: Any, name: str) -> Any:
    """What lies under a name, whose slashes lead inwards; None where there is nothing."""
    for part in name.split("/"):
        if not hasattr(values, "keys") or part not in values:
            return None
        values = values[part]
    return values


def _documents(
    source: Any, row: TextSet, classes: Mapping[str, tuple[int, ...]], place: str
) -> Documents:
    texts, pairs, labels, places = [], [], [], []
    number = {value: i for i, values in enumerate(classes.values()) for value in values}
    for i, example in enumerate(source):
        label = number.get(int(_inner(example, row.label)))
        text = _text(_inner(example, row.text))
        if label is None or not text.strip():  # nobody agreed on one, or wrote a word
            continue
        texts.append(text)
        pairs.append(_text(_inner(example, row.pair)) if row.pair else "")
        labels.append(label)
        places.append(f"{place}, example {i}")
    return Documents(
        texts,
        np.array(labels, np.int32),
        tuple(classes),
        pairs if row.pair else None,
        places=places,
    )


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)

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
        text: the feature of texts.
        pair: that of second texts; None where texts stand alone.
        splits: TFDS's split of ``train``, ``test`` and, where there is one, ``validation``.
        label: the feature of class numbers; examples with −1 are left out.
    """

    text: str
    pair: str | None = None
    splits: Mapping[str, str] = field(default_factory=lambda: HIDDEN)
    label: str = "label"


THREE = {"train": "train", "validation": "validation", "test": "test"}
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
        if name not in features:
            raise DataError(f"{dataset!r} has no feature {name!r}; it has {', '.join(features)}")
    classes = tuple(getattr(features[row.label], "names", None) or ())
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


def _documents(source: Any, row: TextSet, classes: tuple[str, ...], place: str) -> Documents:
    texts, pairs, labels, places = [], [], [], []
    for i, example in enumerate(source):
        label = int(example[row.label])
        if label < 0:  # nobody agreed on one
            continue
        texts.append(_text(example[row.text]))
        pairs.append(_text(example[row.pair]) if row.pair else "")
        labels.append(label)
        places.append(f"{place}, example {i}")
    return Documents(
        texts, np.array(labels, np.int32), classes, pairs if row.pair else None, places=places
    )


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)

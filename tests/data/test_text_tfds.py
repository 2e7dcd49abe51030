"""Sets of texts as TFDS prepares them, written by its own builders."""

import numpy as np
import pytest

from experiments.stand_ins import texts
from linearize.assets import AssetError
from linearize.data import DataError, text

STARS = "amazon_us_reviews/Mobile_Electronics_v1_00"
NAMES = ("glue/cola", "glue/mrpc", "glue/mnli", "snli", "sci_tail", "yelp_polarity_reviews", STARS)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return texts.make(tmp_path_factory.mktemp("tfds"), NAMES, count=60)


@pytest.mark.parametrize("name", NAMES)
def test_a_set_is_what_was_written(place, name):
    task = text.from_tfds(name, data_dir=place, download=False)
    row, classes = text.TFDS_TEXTS[name], task.classes
    assert len(classes) == (3 if "nli" in name else 2)
    for split in ("train", "validation", "test"):
        documents = task.split(split)
        assert (documents.pairs is None) == (row.pair is None)
        for words, label in zip(documents.texts, documents.labels, strict=True):
            assert texts.SIGNS[label] in words.split()
        assert set(documents.labels.tolist()) == set(range(len(classes)))
    # what is given stays where it is, but for near-duplicates; what is not is cut out of training
    assert task.counts["test"] == 20 or "test" not in row.splits
    if "validation" in row.splits:
        assert 15 <= task.counts["validation"] <= 20
    else:
        assert 0 < task.counts["validation"] < task.counts["train"] <= 60


def test_an_unlabelled_example_is_left_out(place, monkeypatch):
    written = texts.examples

    def some(features, split, count, seed):
        for i, (key, example) in enumerate(written(features, split, count, seed)):
            yield key, example | ({"label": -1} if i % 3 == 0 else {})

    monkeypatch.setattr(texts, "examples", some)
    folder = texts.make(place / "unlabelled", ("snli",), count=60)
    task = text.from_tfds("snli", data_dir=folder, download=False)
    assert task.counts["test"] <= 13
    assert np.min(task.train.labels) == 0


def test_what_is_not_there_is_named(place):
    with pytest.raises(DataError, match=r"named 'glue/colla'; did you mean 'glue/cola'\?"):
        text.from_tfds("glue/colla", data_dir=place)
    with pytest.raises(AssetError, match="'glue/rte' is not prepared"):
        text.from_tfds("glue/rte", data_dir=place, download=False)
    with pytest.raises(DataError, match=r"no feature .words.; it has .*sentence"):
        text.from_tfds("glue/cola", text.TextSet("words"), data_dir=place, download=False)
    for row, said in (
        (text.TextSet("sentence", label="idx"), "'idx' is of no classes"),
        (text.TextSet("sentence", splits={"train": "train", "test": "dev"}), "no split dev"),
    ):
        with pytest.raises(DataError, match=said):
            text.from_tfds("glue/cola", row, data_dir=place, download=False)

"""Text sets of TFDS without TensorFlow: mocked, and written by builders here as array_record."""

import warnings

import numpy as np
import pytest

from experiments.stand_ins import texts
from linearize.data import DataError, Limits, text
from linearize.data.text import sets
from linearize.data.text.sets import TEXT_SETS, read_set, text_set

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tfds = pytest.importorskip("tensorflow_datasets")

pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def passage(*numbers):
    return " ".join(f"{WORDS[n % 10]} {n}" for n in numbers)


def written(folder, features, splits):
    """A prepared data set; ``splits`` are lists of examples."""

    class Made(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, dl_manager):
            return {split: enumerate(rows) for split, rows in splits.items()}

        def _generate_examples(self):
            raise NotImplementedError

    builder = Made(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    return builder


def pairs(n, first=0):
    return [
        {"sentence1": passage(first + i), "sentence2": passage(2 * i), "label": i % 2, "idx": i}
        for i in range(n)
    ]


@pytest.fixture(scope="module")
def inference(tmp_path_factory):
    features = {
        "sentence1": tfds.features.Text(),
        "sentence2": tfds.features.Text(),
        "label": tfds.features.ClassLabel(names=["entailment", "not_entailment"]),
        "idx": np.int32,
    }
    hidden = [{**row, "label": -1} for row in pairs(5, 300)]
    splits = {
        "train": [*pairs(50), {**pairs(1)[0], "sentence2": " "}],
        "validation": pairs(20, 100),
        "test": hidden,
    }
    return written(tmp_path_factory.mktemp("rte"), features, splits)


def test_published_splits_stay_and_validation_is_cut_out_of_training(inference):
    task = read_set("glue/rte", TEXT_SETS["glue/rte"], inference)
    published = {
        (row["sentence1"], row["sentence2"]): row["label"] for row in pairs(50) + pairs(20, 100)
    }
    assert task.counts["test"] == 20
    assert task.counts["train"] + task.counts["validation"] == 50
    assert task.counts["validation"] in (4, 5)
    assert task.skipped == {"empty": 1}
    for split in ("train", "validation", "test"):
        documents = task.split(split)
        both = list(zip(documents.texts, documents.pairs, strict=True))
        assert [published[each] for each in both] == documents.labels.tolist()
    assert set(task.test.texts) == {row["sentence1"] for row in pairs(20, 100)}
    small = read_set("glue/rte", TEXT_SETS["glue/rte"], inference, limit=Limits(7, 2, 3))
    assert tuple(small.counts.values()) == (7, 2, 3)
    assert small.train.texts == task.train.texts[:7]
    assert small.test.place(0).startswith("glue/rte/test, example ")


def test_hidden_labels_are_refused(inference):
    row = sets.dataclasses.replace(TEXT_SETS["glue/rte"], splits=("train", "", "test"))
    with pytest.raises(DataError, match="has the label -1, and there are 2 classes"):
        read_set("glue/rte", row, inference)
    row = sets.dataclasses.replace(row, splits=("train", "", "tests"))
    with pytest.raises(DataError, match="split 'tests' cannot be read"):
        read_set("glue/rte", row, inference)
    with pytest.raises(DataError, match="has no feature 'sentence' among"):
        read_set("glue/sst2", TEXT_SETS["glue/sst2"], inference)
    row = sets.dataclasses.replace(TEXT_SETS["glue/rte"], classes=("a", "b", "c"))
    with pytest.raises(DataError, match=r"has the classes .* and the table"):
        read_set("glue/rte", row, inference)


def test_numbers_become_classes_and_what_has_no_test_split_is_cut_by_text(tmp_path):
    """Reviews with stars: three are left out, near-duplicates stay together."""
    features = {"data": {"review_body": tfds.features.Text(), "star_rating": np.int32}}
    rows = [
        {"data": {"review_body": passage(*range(i, i + 9)).upper(), "star_rating": i % 5 + 1}}
        for i in range(0, 400, 10)
    ] + [
        {"data": {"review_body": passage(*range(i, i + 9)), "star_rating": i % 7 % 5 + 1}}
        for i in range(300, 700, 7)
    ]
    builder = written(tmp_path, features, {"train": rows})
    task = read_set("amazon_us_reviews", TEXT_SETS["amazon_us_reviews"], builder)
    stars = {row["data"]["review_body"]: row["data"]["star_rating"] for row in rows}
    assert sum(task.counts.values()) == sum(star != 3 for star in stars.values())
    for split in ("train", "validation", "test"):
        documents = task.split(split)
        assert [stars[t] > 3 for t in documents.texts] == (documents.labels == 1).tolist()
    seen = [{t.lower() for t in task.split(s).texts} for s in ("train", "validation", "test")]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
    few = read_set(
        "amazon_us_reviews", TEXT_SETS["amazon_us_reviews"], builder, limit=Limits(8, 4, 6)
    )
    assert tuple(few.counts.values()) == (8, 4, 6)


def test_pages_are_without_the_words_that_tell_their_parts(tmp_path):
    page = (
        "\n_START_ARTICLE_\nTitle {0}\n_START_SECTION_\nEarly life\n_START_PARAGRAPH_\n"
        "Born in {0}._NEWLINE_Moved on.\n_START_SECTION_\nLater\n_START_PARAGRAPH_\nDied.\n"
    )
    features = {"text": tfds.features.Text()}
    rows = [{"text": page.format(i)} for i in range(6)]
    splits = dict.fromkeys(("train", "validation", "test"), rows)
    task = read_set("wiki40b", TEXT_SETS["wiki40b"], written(tmp_path, features, splits))
    wanted = "Title {0}\n\nEarly life\n\nBorn in {0}.\nMoved on.\n\nLater\n\nDied."
    assert sorted(task.test.texts) == [wanted.format(i) for i in range(6)]
    empty = [{"text": "\n_START_ARTICLE_\n_START_PARAGRAPH_\n_NEWLINE_"}, *rows]
    builder = written(tmp_path / "empty", features, {**splits, "test": empty})
    assert read_set("wiki40b", TEXT_SETS["wiki40b"], builder).skipped == {"empty": 1}


def test_toxicity_between_the_bounds_is_left_out(tmp_path):
    features = {"text": tfds.features.Text(), "toxicity": np.float32}
    scores = [0.1, 0.5, 0.9, 0.2, 0.8, 0.81]
    rows = [{"text": passage(i), "toxicity": scores[i % 6]} for i in range(60)]
    builder = written(tmp_path, features, dict.fromkeys(("train", "validation", "test"), rows))
    task = read_set("civil_comments", TEXT_SETS["civil_comments"], builder)
    assert task.counts == dict.fromkeys(("train", "validation", "test"), 30)
    assert sorted(
        {
            (int(t.split()[1]) % 6, y)
            for t, y in zip(task.test.texts, task.test.labels.tolist(), strict=True)
        }
    ) == [(0, 0), (2, 1), (5, 1)]


@pytest.mark.parametrize("name", TEXT_SETS)
def test_rows_fit_tfds_own_features(name, tmp_path):
    """A mocked data set has TFDS's features and classes, and random texts."""
    row = sets.dataclasses.replace(
        TEXT_SETS[name],
        splits=("train", "train", "train"),
        label_of=lambda value: int(value) % len(TEXT_SETS[name].classes),
    )
    with tfds.testing.mock_data(num_examples=12):
        builder = tfds.builder(row.tfds, data_dir=str(tmp_path))
        task = read_set(name, row, builder)
    assert task.classes == row.classes
    assert 1 <= task.counts["train"] <= 12
    assert (task.train.pairs is not None) == bool(row.pair)
    assert (task.train.labels is not None) == bool(row.classes)
    names = getattr(dict(builder.info.features).get(row.label), "names", None)
    if names and names[0].isalpha():
        assert [n.lower()[:3] for n in names] == [n.lower()[:3] for n in row.classes]


WRITTEN = ("glue/cola", "glue/mrpc", "glue/mnli", "snli", "sci_tail")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return texts.make(tmp_path_factory.mktemp("tfds"), WRITTEN, count=60)


@pytest.mark.parametrize("name", WRITTEN)
def test_sets_of_tfds_own_builders_are_what_was_written(place, name):
    task = text.load_text(name, data_dir=place)
    for split in ("train", "validation", "test"):
        documents = task.split(split)
        for words, label in zip(documents.texts, documents.labels, strict=True):
            assert texts.SIGNS[label] in words.split()
    cut = 0 if name in ("snli", "sci_tail") else 6
    assert tuple(task.counts.values()) == (60 - cut, cut or 20, 20)


def test_an_example_that_nobody_agreed_on_is_left_out(place, monkeypatch):
    written = texts.examples

    def some(features, split, count, seed):
        for i, (key, example) in enumerate(written(features, split, count, seed)):
            yield key, example | ({"label": -1} if i % 3 == 0 else {})

    monkeypatch.setattr(texts, "examples", some)
    folder = texts.make(place / "unlabelled", ("snli",), count=60)
    assert text.load_text("snli", data_dir=folder).counts["test"] == 13


def test_what_is_not_prepared_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"prepare_data glue/mrpc --data-dir"):
        text.load_text("glue/mrpc", data_dir=tmp_path)
    with pytest.raises(DataError, match="Apache Beam"):
        text.load_text("wiki40b", data_dir=tmp_path)
    assert text_set("amazon_us_reviews/Music_v1_00").tfds == "amazon_us_reviews/Music_v1_00:0.1.0"
    with pytest.raises(DataError, match="did you mean 'glue/mrpc'"):
        text.load_text("glue/mrcp")

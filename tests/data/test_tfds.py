"""TensorFlow Datasets without TensorFlow: mocked, and a builder that is really prepared."""

import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from linearize.assets import AssetError
from linearize.data import DataError, from_tfds

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    tfds = pytest.importorskip("tensorflow_datasets")

pytestmark = pytest.mark.filterwarnings("ignore")


def picture(index, label):
    generator = np.random.default_rng([index, label])
    return generator.integers(0, 256, (9, 9, 3), np.uint8)


class Dots(tfds.core.GeneratorBasedBuilder):
    """Sixty pictures in three classes, and fifteen for test, five of them as in train."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(9, 9, 3)),
                    "label": tfds.features.ClassLabel(names=["ant", "bee", "cat"]),
                }
            ),
            homepage="https://example.org/dots",
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 60), "test": self._generate_examples(55, 70)}

    def _generate_examples(self, start, stop):
        for i in range(start, stop):
            image = Image.fromarray(picture(i, i % 3))
            yield i, {"image": image, "label": i % 3}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    builder = Dots(data_dir=str(folder), file_format="array_record")
    builder.download_and_prepare()
    return builder.data_path


def test_a_prepared_data_set_is_read(prepared):
    task = from_tfds(str(prepared), name="dots", image_size=None)
    assert task.classes == ("ant", "bee", "cat")
    assert task.counts["test"] == 15
    assert task.counts["train"] + task.counts["validation"] == 55
    assert "dots" in task.provenance
    expected = {picture(i, i % 3).tobytes(): i % 3 for i in range(70)}
    for split in (task.train, task.validation, task.test):
        for image, label in zip(split.inputs, split.labels, strict=True):
            assert expected[image.tobytes()] == label


def test_training_rows_that_recur_in_test_are_left_out(prepared):
    task = from_tfds(str(prepared), image_size=None)
    test = {x.tobytes() for x in task.test.inputs}
    assert not test & {x.tobytes() for x in task.train.inputs}
    assert not test & {x.tobytes() for x in task.validation.inputs}


def test_splits_may_be_slices(prepared):
    splits = {"train": "train[:30]", "validation": "train[30:45]", "test": "test"}
    task = from_tfds(str(prepared), image_size=6, splits=splits)
    assert task.counts["test"] == 15
    assert 25 <= task.counts["train"] <= 30  # at most five recur in test
    assert 10 <= task.counts["validation"] <= 15
    assert task.image_size == (6, 6)


def test_no_train_split_is_refused(prepared):
    with pytest.raises(DataError, match="say which is which"):
        from_tfds(str(prepared), splits={"test": "test"})
    with pytest.raises(DataError, match="'tset'"):
        from_tfds(str(prepared), splits={"train": "train", "tset": "test"})


@pytest.mark.parametrize(("dataset", "classes"), [("mnist", 10), ("svhn_cropped", 10)])
def test_mocked_data_sets_are_read(dataset, classes, tmp_path):
    splits = {"train": "train"}  # a mocked data set lists none, and gives each the same rows
    with tfds.testing.mock_data(num_examples=400):
        task = from_tfds(dataset, data_dir=tmp_path, image_size=16, splits=splits)
    assert len(task.classes) == classes
    assert task.image_size == (16, 16)
    assert task.train.inputs.dtype == np.uint8


def test_sets_without_labels_are_refused(tmp_path):
    with (
        tfds.testing.mock_data(num_examples=2),
        pytest.raises(DataError, match="not an image classification set"),
    ):
        from_tfds("imdb_reviews", data_dir=tmp_path)


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(DataError, match="no_such_set"):
        from_tfds("no_such_set", data_dir=tmp_path)


def test_what_is_not_prepared_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(AssetError, match="pass download=True"):
        from_tfds("mnist", data_dir=tmp_path, download=False)

    def offline(self, *args, **kwargs):
        raise ConnectionError("no route")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", offline)
    with pytest.raises(AssetError, match=r"no route.*connect to the network"):
        from_tfds("mnist", data_dir=tmp_path)


def test_tensorflow_stays_out(prepared):
    from_tfds(str(prepared))
    assert "tensorflow" not in sys.modules

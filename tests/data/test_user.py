"""A user's arrays and folders: what is wrong is named."""

import io

import numpy as np
import pytest
from PIL import Image

from linearize.data import DataError, Limits, Split, Task, from_arrays, from_folder

CLASSES = ("ant", "bee", "cat")


def test_arrays_are_split_with_every_class(make_images):
    images, labels = make_images(90)
    task = from_arrays(images, labels, classes=CLASSES)
    assert task.counts == {"train": 63, "validation": 9, "test": 18}
    assert task.image_size == (8, 8)
    whole = {x.tobytes(): y for x, y in zip(images, labels, strict=True)}
    seen = [
        (x.tobytes(), y)
        for s in (task.train, task.validation, task.test)
        for x, y in zip(s.images, s.labels, strict=True)
    ]
    assert len({x for x, _ in seen}) == 90
    assert all(whole[x] == y for x, y in seen)
    assert task.train.labels.dtype == np.int32


def test_near_duplicates_do_not_cross_splits(make_images):
    images, labels = make_images(90)
    noise = np.random.default_rng(1).integers(-3, 4, images.shape)
    noisy = np.clip(images.astype(int) + noise, 0, 255)
    mirrored = noisy[:, :, ::-1]
    every = np.concatenate([images, noisy.astype(np.uint8), mirrored.astype(np.uint8)])
    task = from_arrays(every, np.tile(labels, 3), classes=CLASSES)
    assert sum(task.counts.values()) == 270
    position = {x.tobytes(): i % 90 for i, x in enumerate(every)}
    origins = [
        {position[x.tobytes()] for x in s.images} for s in (task.train, task.validation, task.test)
    ]
    assert not origins[0] & origins[1]
    assert not origins[0] & origins[2]
    assert not origins[1] & origins[2]


def test_limits_keep_a_subset_with_every_class(make_images):
    images, labels = make_images(300)
    small, large = (
        from_arrays(images, labels, classes=CLASSES, limit=Limits(n, 6, 9)) for n in (12, 60)
    )
    assert small.counts == {"train": 12, "validation": 6, "test": 9}
    assert {x.tobytes() for x in small.train.images} < {x.tobytes() for x in large.train.images}
    np.testing.assert_array_equal(np.bincount(small.train.labels), [4, 4, 4])
    np.testing.assert_array_equal(small.test.images, large.test.images)


def test_given_splits_are_kept(make_images):
    images, labels = make_images(30)
    parts = {"train": (images[:12], labels[:12]), "validation": (images[12:18], labels[12:18])}
    task = from_arrays(classes=CLASSES, **parts, test=(images[18:], labels[18:]))
    assert task.counts == {"train": 12, "validation": 6, "test": 12}
    assert {x.tobytes() for x in task.test.images} == {x.tobytes() for x in images[18:]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y: (x.astype(np.float32) / 255, y), "float32, expected uint8"),
        (lambda x, y: (x[..., 0], y), r"shape \(30, 8, 8\), expected \(N, H, W, 3\)"),
        (lambda x, y: (x[..., :1], y), r"expected \(N, H, W, 3\)"),
        (lambda x, y: (x, y[:-1]), r"shape \(29,\), expected \(30,\)"),
        (lambda x, y: (x, y.astype(float)), "float64, expected integers"),
        (lambda x, y: (x, y + 1), r"0\.\.2 for 3 classes; row 2 has 3"),
        (lambda x, y: (x, y - 1), "row 0 has -1"),
        (lambda x, y: (x[:0], y[:0]), "no image"),
        (lambda x, y: (x, np.minimum(y, 1)), "no example of 1 of 3 classes: cat"),
    ],
)
def test_bad_arrays_are_refused(make_images, change, words):
    images, labels = change(*make_images(30))
    with pytest.raises(DataError, match=words):
        from_arrays(images, labels, classes=CLASSES)


def test_one_class_is_refused(make_images):
    images, _ = make_images(30)
    with pytest.raises(DataError, match="two or more"):
        from_arrays(images, np.zeros(30, int), classes=("only",))


def test_an_empty_split_is_refused(make_images):
    images, labels = make_images(30)
    with pytest.raises(DataError, match="'arrays/validation' is empty"):
        from_arrays(images, labels, classes=CLASSES, fractions=(0.5, 0.0, 0.5))
    part = images, labels
    with pytest.raises(DataError, match="'arrays/test' is empty"):
        from_arrays(classes=CLASSES, train=part, validation=part, test=(images[:0], labels[:0]))


def test_half_given_arrays_are_refused(make_images):
    part = make_images(30)
    with pytest.raises(DataError, match=r"all of train, validation and test.*\['train'\]"):
        from_arrays(classes=CLASSES, train=part)
    with pytest.raises(DataError, match="give images and labels"):
        from_arrays(part[0], classes=CLASSES)


def test_splits_of_several_sizes_are_refused(make_images):
    a, b = (Split(x, y.astype(np.int32)) for x, y in (make_images(9), make_images(9, side=9)))
    with pytest.raises(DataError, match="different sizes"):
        Task("t", a, a, b, CLASSES)


@pytest.fixture
def folder(tmp_path, make_images):
    images, labels = make_images(90, side=12)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = tmp_path / "pets" / CLASSES[label] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
    return tmp_path / "pets"


def test_a_folder_becomes_a_task(folder):
    (folder / "ant" / ".DS_Store").write_bytes(b"hidden")
    (folder / "ant" / ".hidden.png").write_bytes(b"hidden")
    (folder / "notes.txt").write_text("not an image")
    (folder / ".git").mkdir()
    task = from_folder(folder, image_size=10)
    assert task.name == "pets"
    assert task.classes == CLASSES
    assert task.counts == {"train": 63, "validation": 9, "test": 18}
    assert task.train.images.shape[1:] == (10, 10, 3)


def test_images_arrive_as_they_are_without_image_size(folder, make_images):
    images, labels = make_images(90, side=12)
    task = from_folder(folder, image_size=None)
    expected = {x.tobytes(): y for x, y in zip(images, labels, strict=True)}
    for x, y in zip(task.test.images, task.test.labels, strict=True):
        assert expected[x.tobytes()] == y


def test_sub_folders_may_be_the_splits(tmp_path, make_images):
    for n, (part, seed) in enumerate({"train": 0, "val": 1, "test": 2}.items()):
        images, labels = make_images(6 + 3 * n, seed=seed)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            place = tmp_path / part / CLASSES[label] / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place)
    task = from_folder(tmp_path, image_size=None)
    assert task.counts == {"train": 6, "validation": 9, "test": 12}
    (tmp_path / "test" / "dog").mkdir()
    with pytest.raises(DataError, match="'dog'"):
        from_folder(tmp_path)
    for file in (tmp_path / "val" / "cat").iterdir():
        file.unlink()
    (tmp_path / "test" / "dog").rmdir()
    with pytest.raises(DataError, match=r"/validation' .* no example of 1 of 3 classes: cat"):
        from_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)],
    ids=["empty", "text", "png"],
)
def test_a_corrupt_image_is_named(folder, content):
    (folder / "bee" / "broken.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bee/broken\.png"):
        from_folder(folder)


def test_a_truncated_image_is_named(folder):
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(
        out, "PNG"
    )
    (folder / "bee" / "broken.png").write_bytes(out.getvalue()[:2000])
    with pytest.raises(DataError, match=r"bee/broken\.png"):
        from_folder(folder)


def test_transparency_palettes_and_16_bits_are_read(tmp_path):
    clear = Image.new("RGBA", (6, 6), (255, 0, 0, 0))
    wide = Image.fromarray(np.full((6, 6), 65535, np.uint16))
    bilevel = Image.new("1", (6, 6), 1)
    for i, image in enumerate((clear, wide, bilevel)):
        place = tmp_path / f"class{i}"
        place.mkdir()
        for k in range(3):
            image.putpixel((k, 0), 0 if image.mode != "RGBA" else (0, 0, 0, 255))
            image.save(place / f"{k}.png")
    task = from_folder(tmp_path, image_size=None, fractions=(0.34, 0.33, 0.33))
    for split in (task.train, task.validation, task.test):
        assert (split.images[:, -1] == 255).all()
        assert (split.images[:, 0, 0] == 0).all()


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda p: None, "not a folder"),
        (lambda p: p.mkdir(), "holds no image"),
        (lambda p: (p / "a").mkdir(parents=True), "holds no image"),
    ],
)
def test_useless_folders_are_refused(tmp_path, prepare, words):
    prepare(tmp_path / "x")
    with pytest.raises(DataError, match=words):
        from_folder(tmp_path / "x")


def test_a_folder_of_one_class_is_refused(folder):
    for name in ("ant", "bee"):
        for file in (folder / name).iterdir():
            file.unlink()
        (folder / name).rmdir()
    with pytest.raises(DataError, match="two or more sub-folders"):
        from_folder(folder)


def test_mixed_sizes_need_image_size(folder):
    Image.new("RGB", (20, 30)).save(folder / "ant" / "large.png")
    with pytest.raises(DataError, match="several sizes; pass image_size"):
        from_folder(folder, image_size=None)
    assert sum(from_folder(folder).counts.values()) == 91

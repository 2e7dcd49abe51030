"""The papers' data sets from their archives: TFDS's builders run whole, without TensorFlow.

The archives are small ones of the same layout; only the download is left out.
"""

import dataclasses
import gzip
import io
import json
import struct
import sys
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io
from PIL import Image

from configs import PRESETS
from configs.compare import PRESETS as COMPARE
from configs.compare import STAND_INS
from experiments import prepare_data, protocol
from experiments.analogies.config import AnalogiesConfig
from experiments.kernel_behavior.config import PromptConfig, ReaderConfig
from experiments.stand_ins import model as stand_in_model
from experiments.stand_ins import reviews
from linearize.assets import AssetError
from linearize.config import CompareConfig, ConfigError, HeadConfig, MapConfig, ModelConfig, study
from linearize.data import TASKS, VISION, Limits, Reading, load_vision, preprocess
from linearize.data.preparing import evaluation_bytes, prepare_set, status
from linearize.data.vision import SUITES, human
from linearize.models.hf import sources
from linearize.train import OptimConfig

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


def binary(labels, side, order):
    """Raw pixels of plain images in the order of CIFAR's and STL-10's files, image by image."""
    pixels = np.full((len(labels), side, side, 3), (0, 120, 7), np.uint8)
    pixels[..., 0] = np.reshape(labels, (-1, 1, 1))
    return [np.transpose(image, order).tobytes() for image in pixels]


def cifar10(raw, manual):
    labels = np.arange(10)
    rows = zip(labels, binary(20 * labels, 32, (2, 0, 1)), strict=True)
    part = b"".join(bytes([label]) + pixels for label, pixels in rows)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {f"cifar-10-batches-bin/{name}.bin": part for name in names}
    files["cifar-10-batches-bin/batches.meta.txt"] = "\n".join(VISION["cifar10"].names).encode()
    tar(raw / "cifar-10-binary.tar.gz", files, "w:gz")
    return list(20 * labels)


def cifar100(raw, manual):
    labels = np.arange(100)
    rows = zip(labels, binary(2 * labels, 32, (2, 0, 1)), strict=True)
    part = b"".join(bytes([label // 5, label]) + pixels for label, pixels in rows)
    files = {f"cifar-100-binary/{name}.bin": part for name in ("train", "test")}
    coarse = "\n".join(f"kind_{i}" for i in range(20))
    files["cifar-100-binary/coarse_label_names.txt"] = coarse.encode()
    fine = "\n".join(VISION["cifar100"].names)
    files["cifar-100-binary/fine_label_names.txt"] = fine.encode()
    tar(raw / "cifar-100-binary.tar.gz", files, "w:gz")
    return list(2 * labels)


def stl10(raw, manual):
    labels = np.arange(20) % 10
    pixels = b"".join(binary(20 * labels, 96, (2, 1, 0)))
    files = {f"stl10_binary/{part}_X.bin": pixels for part in ("train", "test", "unlabeled")}
    files |= {
        f"stl10_binary/{part}_y.bin": bytes((labels + 1).tolist()) for part in ("train", "test")
    }
    files["stl10_binary/class_names.txt"] = "\n".join(VISION["stl10"].names).encode()
    tar(raw / "stl10_binary.tar.gz", files, "w:gz")
    return [20 * n for n in range(10)]


def flowers(raw, manual):
    ids = np.arange(1, 307)
    labels = (ids - 1) % 102
    pictures = {f"jpg/image_{i:05d}.jpg": picture(2 * n) for i, n in zip(ids, labels, strict=True)}
    tar(raw / "102flowers.tgz", pictures, "w:gz")
    scipy.io.savemat(raw / "imagelabels.mat", {"labels": labels + 1})
    splits = dict(zip(("trnid", "valid", "tstid"), np.split(ids, 3), strict=True))
    scipy.io.savemat(raw / "setid.mat", splits)
    return [2 * n for n in range(102)]


def pets(raw, manual):
    images, notes = {}, {}
    for part in ("trainval", "test"):
        lines = []
        for number in range(37):
            breed = "beagle_116" if (part, number) == ("test", 4) else f"{part}_{number}"
            images[f"images/{breed}.jpg"] = picture(6 * number)
            notes[f"annotations/trimaps/{breed}.png"] = picture(1, encoding="png", mode="L")
            lines.append(f"{breed} {number + 1} 1 1")
        notes[f"annotations/{part}.txt"] = "\n".join(lines).encode()
    tar(raw / "images.tar.gz", images, "w:gz")
    tar(raw / "annotations.tar.gz", notes, "w:gz")
    return [6 * n for n in range(37)]


def pcam(raw, manual):
    """As NumPy archives: what stands for h5py reads them."""
    labels = np.arange(20) % 2
    pixels = np.full((20, 96, 96, 3), (0, 120, 7), np.uint8)
    pixels[..., 0] = (100 * labels).reshape(-1, 1, 1)
    for part in ("train", "valid", "test"):
        for key, array in (("x", pixels), ("y", labels.reshape(-1, 1, 1, 1))):
            buffer = io.BytesIO()
            np.savez(buffer, **{key: array})
            name = f"camelyonpatch_level_2_split_{part}_{key}.h5.gz"
            (raw / name).write_bytes(gzip.compress(buffer.getvalue()))
    return [0, 100]


def emnist(raw, manual):
    mnist(raw, manual)
    names = {"train": "train", "t10k": "test"}
    with zipfile.ZipFile(raw / "gzip.zip", "w") as archive:
        for part, called in names.items():
            for kind in ("images-idx3", "labels-idx1"):
                content = (raw / f"{part}-{kind}-ubyte.gz").read_bytes()
                archive.writestr(f"gzip/emnist-digits-{called}-{kind}-ubyte.gz", content)
    return [20 * n for n in range(10)]


def food101(raw, manual):
    names = tfds.builder("food101").info.features["label"].names
    files, lists = {}, {"train": {}, "test": {}}
    for number, name in enumerate(names):
        for split, kept in lists.items():
            kept[name] = [f"{name}/{split}"]
            files[f"food-101/images/{name}/{split}.jpg"] = picture(2 * number)
    for split, kept in lists.items():
        files[f"food-101/meta/{split}.json"] = json.dumps(kept).encode()
    tar(raw / "food-101.tar.gz", files, "w:gz")
    return [2 * n for n in range(101)]


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
    "cifar100": cifar100,
    "stl10": stl10,
    "flowers": flowers,
    "pets": pets,
    "pcam": pcam,
    "emnist": emnist,
    "cifar10": cifar10,
    "food101": food101,
    "fashion_mnist_full": mnist,
    "kmnist": mnist,
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
    for config in tfds.image_classification.EMNIST.BUILDER_CONFIGS:
        monkeypatch.setattr(config, "train_examples", 20)
        monkeypatch.setattr(config, "test_examples", 20)
    h5py = SimpleNamespace(File=lambda path, mode: np.load(path))
    monkeypatch.setitem(sys.modules, "h5py", h5py)
    return Reading(tmp_path / "data")


@pytest.mark.slow(but=[*(name for name in RAW if name not in SUITES), "pets"])
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
        middle = split.inputs[:][:, 8, 8, 0].astype(int)
        assert np.abs(middle - reds[split.labels]).max() <= 3  # jpeg
    assert "tensorflow" not in sys.modules


def test_what_cannot_be_fetched_says_what_to_do(reading):
    with pytest.raises(AssetError, match=r"no route.*connect to the network and run again"):
        prepare_set("dtd", reading)
    with pytest.raises(AssetError, match=r"register at image-net\.org.*downloads/manual"):
        prepare_set("imagenet", reading)
    with pytest.raises(AssetError, match=r"cars.*from a mirror"):
        prepare_set("cars", reading)
    with pytest.raises(AssetError, match=r"fer2013.*msambare/fer2013 unpacks"):
        prepare_set("fer2013", reading)
    assert not status("dtd", reading).there
    assert not status("fer2013", reading).there


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


def targets(*words, **options):
    return [
        t for n in prepare_data.needs(prepare_data.Options(words, **options)) for t in n.targets
    ]


def test_presets_and_mistyped_names():
    wanted = targets("demo")
    config = COMPARE["demo"]().data
    assert [target.name for target in wanted] == [*config.tasks, config.control]
    assert {target.image_size for target in wanted} == {config.image_size}
    with pytest.raises(ConfigError, match="did you mean 'eurosat'"):
        targets("eurosta")


def test_presets_of_every_experiment_are_known():
    """By the name that no other experiment has, or with the experiment's."""
    for experiment, table in PRESETS.items():
        for name, build in table.items():
            assert prepare_data.find_preset(f"{experiment}:{name}") is build
            made_up = name.endswith("debug")  # nothing that could be prepared
            assert targets(f"{experiment}:{name}") or made_up, (experiment, name)
            assert name not in TASKS
    assert prepare_data.find_preset("mlp") is PRESETS["width"]["mlp"]
    assert not prepare_data.needs(prepare_data.Options(("mlp",)))[0].encoder


def test_no_name_that_a_preset_reads_is_passed_over():
    """It is prepared, made up by the run, or named as one's own."""
    for experiment, table in PRESETS.items():
        for name, build in table.items():
            config = build()
            if not hasattr(config, "reads"):
                continue
            (need,) = prepare_data.needs(prepare_data.Options((f"{experiment}:{name}",)))
            told = {each.name for each in (*need.targets, *need.own)}
            made = set(reviews.DOMAINS) | {f"{STAND_INS}/wikitext"}
            assert set(config.reads) - told <= made, (experiment, name)
            assert not told & made


def test_ones_own_files_are_named_with_their_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (need,) = prepare_data.needs(prepare_data.Options(("toxicity:gpt2_large",)))
    only = [dataclasses.replace(need, targets=(), encoder=None)]
    (line,) = prepare_data.prepare_all(only, dry_run=False)
    assert (line.name, line.state) == ("wikitext-103-raw", "missing")
    assert f"not prepared here: a file or folder of texts is expected in {tmp_path}" in line.note
    (tmp_path / "wikitext-103-raw").mkdir()
    (line,) = prepare_data.prepare_all(only, dry_run=True)
    assert line.state == "ready"
    few = PromptConfig(prompted=ReaderConfig(), tasks=("mr", "spam"))
    need = prepare_data._of_preset(few, prepare_data.Options(("spam",)))
    assert [target.name for target in need.targets] == ["spam"]
    (line,) = map(prepare_data._own_files, need.own)
    assert "pass --texts FOLDER, with FOLDER/mr/train.csv and FOLDER/mr/test.csv" in line.note
    few = dataclasses.replace(few, texts=str(tmp_path))
    (own,) = prepare_data._of_preset(few, prepare_data.Options(("spam",))).own
    assert own.path == tmp_path / "mr"


def test_a_preset_asks_for_the_rows_that_it_reads():
    """No control task but in ``compare``; the limits of the preset, not those of a task alone."""
    limit = Limits(40_000, 2_000, 10_000)
    styles = targets("sketches")
    assert [(t.name, t.limit, t.image_size) for t in styles] == [
        ("imagenet", limit, 224),
        ("imagenet_sketch", limit, 224),
    ]
    assert [t.name for t in targets("dtd_sun397")] == ["dtd", "sun397"]
    (control,) = [t for t in targets("vit_b32") if t.name == "imagenet"]
    assert control.limit == Limits(50_000, None, None)
    assert len({*targets("vit_b32"), *targets("vit_l14"), *styles}) == 11  # imagenet's rows twice


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"what": ()}, r"what=\(\): name a preset or a task"),
        (
            {"what": ("packaged",)},
            "several experiments; name analogies:packaged or audit:packaged",
        ),
        ({"what": ("analogy:sketches",)}, "did you mean 'analogies:sketches'"),
        ({"what": ("analogies:sketch",)}, "did you mean 'analogies:sketches'"),
        ({"what": ("sketchs",)}, "did you mean 'sketches'"),
        ({"what": ("???",)}, "experiments: analogies, audit, coefficients, compare"),
        ({"weights": "there"}, "weights='there': they stand for a preset's"),
        ({"weights": ""}, "weights='': give a path"),
        ({"data_dir": ""}, "data-dir='': give a path"),
        ({"data_dir": __file__}, "it is a file; give a folder"),
        ({"image_size": 0}, "image-size=0: give a side from 1"),
        ({"workers": 0}, "workers=0: give one thread"),
    ],
)
def test_options_that_cannot_be_followed(options, message):
    with pytest.raises(ConfigError, match=message) as raised:
        targets(*options.pop("what", ("dtd",)), **options)
    assert "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (wanted,) = targets("dtd", data_dir=str(tmp_path / "file" / "data"))
    line = prepare_data.prepare(wanted, dry_run=False)
    assert line.state == "failed"
    assert "choose another --data-dir" in line.note
    assert "\n" not in line.note


class Stopped(BaseException):
    """As Ctrl-C: nothing that the command handles."""


def stopped_at(call, monkeypatch, owner, name):
    """Raise at the given call of a function; the list counts its calls."""
    calls, original = [], getattr(owner, name)

    def counted(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            raise Stopped
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counted)
    return calls


SMALL = ("eurosat", "svhn")
"""Their small archives have 4 and 2 validation images, 4 and 20 test images."""


@pytest.mark.parametrize(
    ("part", "at", "there", "left"),
    [("writing", 3, False, 22), ("decoding", 6, False, 4 + 22), ("decoding", 8 + 9, True, 20)],
    ids=["writing the second's test split", "decoding the first's", "decoding the second's"],
)
def test_what_is_finished_is_not_done_again(part, at, there, left, reading, tmp_path, monkeypatch):
    """Stopped anywhere, the same command ends with the data of an undisturbed one."""
    for task in SMALL:
        RAW[task](tmp_path / "raw", None)
    options = prepare_data.Options(SMALL, data_dir=str(reading.folder), image_size=16, workers=1)
    stops = {
        "writing": (tfds.core.split_builder.SplitBuilder, "submit_split_generation"),
        "decoding": (preprocess, "clip_image"),
    }
    with monkeypatch.context() as patch:
        stopped_at(at, patch, *stops[part])
        with pytest.raises(Stopped):
            prepare_data.main(options)
    assert status("eurosat", reading).there
    assert status("svhn", reading).there == there
    first = reading.folder / "eurosat"
    written = {p: p.stat().st_mtime_ns for p in first.rglob("*") if p.is_file()}

    fetched = stopped_at(0, monkeypatch, prepare_data.preparing, "prepare_set")
    decoded = stopped_at(0, monkeypatch, preprocess, "clip_image")
    prepare_data.main(options)
    assert [call[0] for call in fetched] == ([] if there else ["svhn"])
    assert len(decoded) == left
    assert written == {p: p.stat().st_mtime_ns for p in first.rglob("*") if p.is_file()}
    again = {n: load_vision(n, image_size=16, reading=reading) for n in SMALL}
    assert len(decoded) == left
    monkeypatch.setenv("LINEARIZE_CACHE", str(tmp_path / "undisturbed"))
    whole = Reading(tmp_path / "undisturbed" / "data")
    prepare_data.main(prepare_data.dataclasses.replace(options, data_dir=str(whole.folder)))
    for task, found in again.items():
        expected = load_vision(task, image_size=16, reading=whole)
        assert status(task, reading).counts == status(task, whole).counts
        for split in ("train", "validation", "test"):
            ours, theirs = getattr(found, split), getattr(expected, split)
            np.testing.assert_array_equal(ours.labels, theirs.labels)
            np.testing.assert_array_equal(ours.inputs[:], theirs.inputs[:])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The stand-in CLIP, with text tower and tokenizer."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    return stand_in_model.make(tmp_path_factory.mktemp("weights") / "clip")


def small(config):
    """A preset on the small archives and a CLIP whose configuration tells its size."""
    replace = prepare_data.dataclasses.replace
    if isinstance(config, AnalogiesConfig):
        return replace(config, setting=small(config.setting))
    names, control = ("eurosat", "svhn"), "mnist_full"
    kept = {"train": 12, "validation": None, "test": 3}
    data = replace(config.data, tasks=names, control=control, image_size=32, **kept)
    model = replace(config.model, name="clip", image_size=32)
    recipe = replace(config.nonlinear, batch_size=4, epochs=3.0, optim=OptimConfig(warmup=1))
    changes = {"epochs": {}, "nonlinear": recipe, "linear": recipe}
    if hasattr(config, "points"):
        changes |= {"points": 2}
    elif hasattr(config, "map"):
        changes |= {"map": MapConfig()}
    return replace(config, model=model, data=data, **changes)


@pytest.mark.network
@pytest.mark.slow(but=["localization:eurosat_svhn", "sketches"])
@pytest.mark.parametrize("name", ["compare:vit_b32", "localization:eurosat_svhn", "sketches"])
def test_a_prepared_preset_decodes_nothing_more(
    name, reading, weights, tmp_path, monkeypatch, capsys
):
    """Every split that the experiment will load is there, and so are weights and tokenizer."""
    for task in ("eurosat", "svhn", "mnist_full"):
        RAW[task](tmp_path / "raw", None)
    config = small(prepare_data.find_preset(name)())
    experiment, _, preset = name.rpartition(":")
    monkeypatch.setitem(PRESETS[experiment or "analogies"], preset, lambda: config)
    options = prepare_data.Options((name,), data_dir=str(reading.folder), weights=str(weights))
    caches = protocol._backbone, study._text_tower
    kept = [cache.cache_info().currsize for cache in caches]
    lines = list(prepare_data.prepare_all(prepare_data.needs(options), dry_run=False))
    state = {line.name: line.state for line in lines}
    assert state.pop("weights of clip") == state.pop("text tower of clip") == "ready"
    assert set(state.values()) == {"differs"}  # a few images, not the real data set
    assert "tokenizer.json, 49,408 tokens" in lines[1].note
    assert lines[0].disk == human((weights / "model.safetensors").stat().st_size)
    assert kept == [cache.cache_info().currsize for cache in caches]

    monkeypatch.setattr(preprocess, "clip_image", None)
    control = isinstance(config, CompareConfig)
    setting = getattr(config, "setting", config)
    data = prepare_data.dataclasses.replace(setting.data, data_dir=str(reading.folder))
    setting = prepare_data.dataclasses.replace(setting, data=data)
    assert set(protocol.load_tasks(setting, control=control)) == set(state)


@pytest.mark.network
def test_names_that_a_text_head_lacks_are_found_beforehand(reading, weights, tmp_path, monkeypatch):
    RAW["eurosat"](tmp_path / "raw", None)
    own = tmp_path / "names.toml"
    own.write_text('[eurosat]\nForest = "forest"\n')
    (wanted,) = targets("eurosat", data_dir=str(reading.folder), image_size=16)
    head = HeadConfig(kind="text", class_names=str(own))
    line = prepare_data.prepare(prepare_data.dataclasses.replace(wanted, head=head), False)
    assert line.state == "failed"
    assert f"class names of eurosat in {own} do not match" in line.note


def encoder_lines(model, dry_run=False, **head):
    encoder = prepare_data.Encoder(model, HeadConfig(kind="text", **head))
    return list(prepare_data.prepare_encoder(encoder, dry_run))


@pytest.mark.network
def test_weights_that_cannot_be_had_say_what_to_do(weights, tmp_path, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")

    def offline(*args, **kwargs):
        raise hub.errors.LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(hub, "hf_hub_download", offline)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *args: None)
    model = COMPARE["vit_b32"]().model
    (line,) = encoder_lines(model)
    assert line.state == "failed"
    assert "pass weights=FOLDER" in line.note
    assert "\n" not in line.note
    (line,) = encoder_lines(model, dry_run=True)
    assert (line.state, line.download) == ("missing", "about 605.1 MB")
    assert "pass --weights FOLDER" in line.note

    replace = prepare_data.dataclasses.replace
    model = replace(model, name="clip", image_size=32)
    (line,) = encoder_lines(replace(model, weights=str(tmp_path)))
    assert "holds none of model.safetensors" in line.note
    (line,) = encoder_lines(replace(model, weights=str(tmp_path)), dry_run=True)
    assert line.state == "missing"
    lines = encoder_lines(replace(model, weights=str(weights)), tokenizer="absent/folder/here")
    assert [line.state for line in lines] == ["ready", "ready"]  # OpenAI's merges stand in
    (tmp_path / "tokenizer.json").write_text("{}")
    lines = encoder_lines(replace(model, weights=str(weights)), tokenizer=str(tmp_path))
    assert [line.state for line in lines] == ["ready", "failed"]
    assert "cannot be read" in lines[1].note


@pytest.mark.network
def test_weights_come_from_the_hub_as_models_take_them(weights, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    def fetch(repository, file):
        asked.append(file)
        if not (weights / file).is_file():
            raise hub.errors.EntryNotFoundError(file)
        return str(weights / file)

    def cached(repository, file):
        return str(weights / file) if (weights / file).is_file() and asked else None

    monkeypatch.setattr(hub, "hf_hub_download", fetch)
    monkeypatch.setattr(hub, "try_to_load_from_cache", cached)
    model = ModelConfig(name="clip", weights="someone/clip", image_size=32, blocks=None)
    assert encoder_lines(model, dry_run=True)[0].state == "missing"
    assert not asked
    assert [line.state for line in encoder_lines(model)] == ["ready", "ready"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(asked)
    count = len(asked)
    (line,) = encoder_lines(model, dry_run=True)
    assert (line.state, len(asked)) == ("ready", count)


def test_files_of_weights_that_lie_here(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    (tmp_path / "1.safetensors").write_bytes(b"1")
    assert sources.held(tmp_path) == sources.held(index) == []
    (tmp_path / "2.safetensors").write_bytes(b"2")
    both = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    assert sources.held(tmp_path) == sources.held(index) == both
    assert sources.held(both[0]) == both[:1]
    assert sources.held(tmp_path / "absent" / "deep") == []

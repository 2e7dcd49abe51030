"""Image classification sets of TensorFlow Datasets, read without TensorFlow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from linearize import files
from linearize.assets import AssetError, ClientMissingError, RegistryError, cache_dir
from linearize.data.images import resize, square, to_rgb
from linearize.data.prepare import Prepared, build
from linearize.data.records import SPLITS, DataError, Limits, Task
from linearize.data.split import FRACTIONS, FREE, content_keys, near_duplicates


def from_tfds(
    dataset: str,
    *,
    name: str | None = None,
    image_size: int | None = 28,
    splits: Mapping[str, str] | None = None,
    data_dir: str | Path | None = None,
    download: bool = True,
    limit: Limits | int | None = None,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
) -> Task:
    """An image classification data set through ``tfds.data_source``.

    It is prepared as array_record, the one format that needs no TensorFlow. Splits that the data
    set has are kept; the others are cut out of ``train`` by content hash, and training images that
    equal one of validation or test are left out.

    Args:
        dataset: a TFDS name such as ``svhn_cropped`` or ``eurosat/rgb:2.0.0``, or the folder of a
            prepared data set.
        name: of the task; the data set's by default.
        image_size: side in pixels, of the largest centred square; ``None`` keeps their own.
        splits: which TFDS split (slices too) is which of ``train``, ``validation``, ``test``;
            by default those that carry these names.
        data_dir: where prepared data lie; the cache by default.
        download: whether to download and prepare what is missing.
        limit: as in :func:`load_task`.
        seed: as in :func:`load_task`.
        fractions: as in :func:`load_task`.

    Raises:
        DataError: no image or no class label in its features, no ``train`` split, images of several
            sizes with ``image_size=None``, and as :func:`linearize.data.from_arrays`.
        AssetError: it is not prepared and could not be downloaded.
    """
    name = name or Path(dataset).name
    builder = _builder(dataset, data_dir, download)
    features = builder.info.features
    image_key, label_key = _keys(name, features)
    splits = splits or {s: s for s in SPLITS if s in builder.info.splits}
    if unknown := set(splits) - set(SPLITS):
        raise DataError(f"splits={dict(splits)} names {sorted(unknown)}; there are {SPLITS}")
    if "train" not in splits:
        raise DataError(
            f"{dataset!r} has the splits {list(builder.info.splits)} and none is named train; say "
            "which is which, such as splits={'train': 'all'}"
        )
    images: list[np.ndarray] = []
    labels: list[int] = []
    given: list[int] = []
    for split, source in splits.items():
        for example in builder.as_data_source(split=source):
            images.append(_image(example[image_key], image_size))
            labels.append(int(example[label_key]))
            given.append(SPLITS.index(split))
    if len({x.shape for x in images}) > 1:
        raise DataError(f"images of {dataset!r} have several sizes; pass image_size")
    place = np.array(given, np.int8)
    if len(splits) < 3:
        place[place == 0] = FREE
    keys = content_keys(images)
    links = near_duplicates(np.zeros((len(keys), 1, 1)), keys, 0.0)
    prepared = Prepared(np.array(labels, np.int32), keys, keys, links, place, np.stack(images))
    info = builder.info
    return build(
        prepared,
        name,
        tuple(features[label_key].names),
        limit=limit,
        seed=seed,
        fractions=fractions,
        licence=(getattr(info, "redistribution_info", None) and _licence(info))
        or "see its homepage",
        provenance=f"TFDS {info.full_name}; {info.homepage or 'no homepage'}",
    )


def _licence(info: Any) -> str:
    return str(getattr(info.redistribution_info, "license", None) or "")


def import_tfds() -> Any:
    """The module ``tensorflow_datasets``.

    Raises:
        ClientMissingError: it is not installed.
    """
    try:
        import tensorflow_datasets
    except ImportError:
        raise ClientMissingError(
            "TFDS data need tensorflow_datasets: pip install tensorflow-datasets"
        ) from None
    return tensorflow_datasets


def _builder(dataset: str, data_dir: str | Path | None, download: bool) -> Any:
    tfds = import_tfds()
    if (Path(dataset) / "dataset_info.json").is_file():
        try:
            for path in Path(dataset).iterdir():
                if not path.is_dir():
                    files.check_regular(path)
            return tfds.builder_from_directory(dataset)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"the TFDS folder {dataset!r} cannot be read ({error}); prepare it anew"
            ) from error
    folder = str(data_dir or cache_dir() / "tfds")
    try:
        builder = tfds.builder(dataset, data_dir=folder, file_format="array_record")
    except tfds.core.registered.DatasetNotFoundError as error:
        raise DataError(
            f"TFDS has no data set {dataset!r}, and it is no folder with a dataset_info.json: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if download:
        try:
            builder.download_and_prepare()
        except Exception as error:  # of requests, of TFDS and of the builder
            raise RegistryError(
                f"{dataset!r} is not prepared in {folder} and could not be downloaded "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
                "connect to the network and run again, or prepare it elsewhere with "
                "file_format='array_record' and pass its data_dir"
            ) from error
    elif not (Path(builder.data_path) / "dataset_info.json").is_file():
        raise AssetError(f"{dataset!r} is not prepared in {folder}; pass download=True")
    return builder


def _keys(name: str, features: Any) -> tuple[str, str]:
    """Names of the image and of the class label among the features."""
    kinds = {key: type(feature).__name__ for key, feature in features.items()}
    images = [k for k, kind in kinds.items() if kind == "Image"]
    labels = [k for k, kind in kinds.items() if kind == "ClassLabel"]
    if not images or not labels:
        raise DataError(
            f"{name!r} is not an image classification set: its features are {kinds}, of which one "
            "must be an Image and one a ClassLabel"
        )
    return (
        "image" if "image" in images else images[0],
        "label" if "label" in labels else labels[0],
    )


def _image(value: np.ndarray, image_size: int | None) -> np.ndarray:
    grey = value[..., 0] if value.ndim == 3 and value.shape[-1] == 1 else value
    image = to_rgb(Image.fromarray(grey))
    if image_size is None:
        return np.asarray(image)
    return resize(np.asarray(square(image)), image_size)

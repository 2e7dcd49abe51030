"""What an image processor beside the weights does to pixels, as fields of our modules.

``f`` takes the bytes of square images: it brings them to its side, by the processor's filter, then
rescales and normalises as the processor does. What part of a photograph those squares show, the
processor's resizing and cropping, comes before ``f`` and is the caller's.
"""

import logging
from collections.abc import Mapping
from typing import Any

from linearize.models import clip, vit
from linearize.models.backbone import WeightsError
from linearize.models.hf import schema

log = logging.getLogger(__name__)

_TO_BYTES = 255.0
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers, and JAX's names of the same filters."""
_NUMBERS = {name: number for number, name in _RESAMPLE.items()}


def _unit(values: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(round(x / _TO_BYTES, 10) for x in values)


_OPENAI = (_unit(clip.MEAN), _unit(clip.STD), 3)
_STANDARD = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
FAMILIES = {
    "clip": _OPENAI,
    "vit": (*_STANDARD, 2),
    "dinov2": (_unit(vit.MEAN), _unit(vit.STD), 3),
}
"""Mean, deviation and filter that the families' publishers use."""
TYPES = {
    "CLIP": _OPENAI,
    "ViT": (*_STANDARD, 2),
    "Bit": _OPENAI,
    "DeiT": (*_STANDARD, 3),
    "Siglip": (*_STANDARD, 3),
}
"""The same, of transformers' processors by name: what they write leaves out such values."""
_WRITTEN = {"clip": "CLIP", "vit": "ViT", "dinov2": "Bit"}
_ENDINGS = ("", "Fast", "Pil")
_TYPES = [f"{n}ImageProcessor{end}" for n in TYPES for end in _ENDINGS]
_TYPES += [f"{n}FeatureExtractor" for n in TYPES]

_GEOMETRY = (
    "do_resize",
    "size",
    "do_center_crop",
    "crop_size",
    "default_to_square",
    "use_square_size",
)
_IGNORED = (
    *_GEOMETRY,
    "do_convert_rgb",
    "data_format",
    "input_data_format",
    "return_tensors",
    "disable_grouping",
    "device",
    "image_seq_length",
    "processor_class",
    "transformers_version",
    "_processor_class",
    "_valid_processor_keys",
    "_valid_kwargs_names",
    "_name_or_path",
    "_commit_hash",
)
"""Keys without influence on the features of an image that has the model's side already."""


def _keys(mean: tuple[float, ...], std: tuple[float, ...], resample: int) -> dict[str, schema.Key]:
    return {
        "do_rescale": schema.flag(True),
        "rescale_factor": schema.number(1 / _TO_BYTES, 1e-9, 1e9),
        "do_normalize": schema.flag(True),
        "image_mean": schema.channels(mean, -1e6, 1e6),
        "image_std": schema.channels(std, 1e-9, 1e6),
        "resample": schema.choice(resample, _RESAMPLE),
        "do_pad": schema.only(False, None),
        "image_processor_type": schema.choice(None, _TYPES),
        "feature_extractor_type": schema.choice(None, _TYPES),
    }


def of_transformers(notes: Mapping[str, Any], family: str, side: int, where: str) -> dict[str, Any]:
    """``mean``, ``std`` and ``resample`` of the folder's image processor, or of the family's.

    transformers 5 keeps the processor in ``processor_config.json``, under ``image_processor``, and
    before 5 in ``preprocessor_config.json``. Where both are there the former is taken, as
    transformers does.

    Args:
        notes: the parsed files.
        family: whose published values stand for absent ones, where no processor is named.
        side: of the model's images, in pixels.
        where: the folder, for messages.

    Raises:
        WeightsError: the processor does what ``f`` cannot.
    """
    new, old = (notes.get(f"{name}_config.json") for name in ("processor", "preprocessor"))
    if new is not None and not isinstance(new, Mapping):
        raise WeightsError(f"{where}/processor_config.json is {schema.said(new)}, not an object")
    nested = None if new is None else new.get("image_processor")
    if nested is None:
        given, name = ({} if old is None else old), "preprocessor_config.json"
    else:
        given, name = nested, "processor_config.json: image_processor"
    values = _values(given, family, f"{where}/{name}")
    if nested is not None and isinstance(old, Mapping) and _values(old, family, where) != values:
        log.warning(
            "%s holds two image processors that differ: that in processor_config.json is taken, as "
            "transformers does, and preprocessor_config.json is not",
            where,
        )
    told = _side(given)
    if told not in (None, side):
        log.info(
            "the image processor of %s makes images of %d pixels a side and its model takes %d; "
            "pass image_size=%d for the processor's",
            where,
            told,
            side,
            told,
        )
    return values


def _values(given: Any, family: str, where: str) -> dict[str, Any]:
    got = schema.read(given, _keys(*FAMILIES[family]), _IGNORED, where=where)
    kind = got["image_processor_type"] or got["feature_extractor_type"]
    if kind is not None:
        published = next(v for n, v in TYPES.items() if kind.startswith(n))
        got = schema.read(given, _keys(*published), _IGNORED, where=where)
    factor = got["rescale_factor"] if got["do_rescale"] else 1.0
    mean, std = (got["image_mean"], got["image_std"]) if got["do_normalize"] else (0.0, 1.0)
    return normalisation(mean, std, factor) | {"resample": _RESAMPLE[got["resample"]]}


def normalisation(mean: Any, std: Any, factor: float = 1 / _TO_BYTES) -> dict[str, Any]:
    """``mean`` and ``std`` on the scale of bytes: ``(factor x - m) / s = (x - m/f) / (s/f)``."""
    return {
        # to as many digits as published values have: without the last bits of the division
        name: tuple(float(f"{x / factor:.11g}") for x in _three(values))
        for name, values in (("mean", mean), ("std", std))
    }


def _three(values: Any) -> tuple[float, ...]:
    return (values,) * 3 if isinstance(values, int | float) else tuple(values)


def _side(given: Mapping[str, Any]) -> int | None:
    """The side of the squares that a processor makes, if it says so in one of the usual ways."""
    size = given.get("crop_size") if given.get("do_center_crop", True) else None
    size = given.get("size") if size is None else size
    if isinstance(size, Mapping):
        size = size.get("height", size.get("shortest_edge"))
    return size if type(size) is int else None


def written(kind: str, architecture: Mapping[str, Any], side: int) -> dict[str, Any]:
    """The processor that does what ``f`` does: squares of this side, rescaled and normalised."""
    return {
        "image_processor_type": f"{_WRITTEN[kind]}ImageProcessor",
        "do_resize": True,
        "size": {"height": side, "width": side},
        "resample": _NUMBERS[architecture["resample"]],
        "do_center_crop": False,
        "do_rescale": True,
        "rescale_factor": 1 / _TO_BYTES,
        "do_normalize": True,
        "image_mean": [x / _TO_BYTES for x in architecture["mean"]],
        "image_std": [x / _TO_BYTES for x in architecture["std"]],
    }

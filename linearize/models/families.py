"""The table of models: what is built under which name, and what its weights may be."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import linen as nn

from linearize import choices
from linearize.models import (
    clip,
    efficientnet,
    onnx_tensors,
    small,
    torch_archive,
    vit,
    vit_focus,
)
from linearize.models.hf import configs, tables
from linearize.models.hf.table import Table

Convert = Callable[[Path], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Family:
    """One row of the table of models.

    Attributes:
        module: the class to build, with fields ``image_size``, ``depth`` and ``dtype``.
        image_size: side in pixels unless told otherwise.
        multiple: what the side must be a multiple of.
        depth: number of blocks unless told otherwise, and at most where there are weights; 0 where
            a configuration beside the weights tells the architecture.
        outputs: what ``output`` may be.
        convert: reads the asset of the model's name into leaves keyed by name.
        options: fields of the module that this row sets.
        kind: the family whose foreign weights it reads, a value of :data:`configs.KINDS`, or "".
        dialects: names that such weights may have.
        text: fields of the text tower that belongs to it.
        hub: where its weights are on the Hub.
    """

    module: Callable[..., nn.Module]
    image_size: int
    depth: int
    multiple: int = 1
    outputs: tuple[str, ...] = ("features",)
    convert: Convert | None = None
    options: Mapping[str, Any] | None = None
    kind: str = ""
    dialects: tuple[Table, ...] = ()
    text: Mapping[str, Any] | None = None
    hub: str = ""


DIALECTS: dict[str, tuple[Table, ...]] = {
    "clip": (tables.CLIP_VISION, tables.OPENAI_VISION),
    "vit": (tables.VIT,),
    "dinov2": (tables.DINOV2, tables.DINOV2_SWIGLU),
}


def foreign(
    kind: str, fields: Mapping[str, Any], hub: str, text: Mapping[str, Any] | None = None
) -> Family:
    """A row of a family whose weights are others'."""
    rest = {k: v for k, v in fields.items() if k != "depth"}
    return Family(
        vit.ViT,
        image_size=fields.get("grid", 0) * fields.get("patch", 0),
        depth=fields.get("depth", 0),
        multiple=fields.get("patch", 1),
        outputs=vit.OUTPUTS,
        options=rest,
        kind=kind,
        dialects=DIALECTS[kind],
        text=text,
        hub=hub,
    )


def _tower(fields: Mapping[str, Any], patch: int, grid: int, size: str) -> dict[str, Any]:
    width, depth = {"s": (384, 12), "b": (768, 12), "l": (1024, 24)}[size]
    shape = {"width": width, "heads": width // 64, "hidden": 4 * width, "depth": depth}
    return {"patch": patch, "grid": grid, **shape, **fields}


_OPENAI = "openai/clip-vit-"
_CLIP_HUB = {
    "clip_vit_b32": f"{_OPENAI}base-patch32",
    "clip_vit_b16": f"{_OPENAI}base-patch16",
    "clip_vit_l14": f"{_OPENAI}large-patch14",
    "clip_vit_l14_336": f"{_OPENAI}large-patch14-336",
}
_VIT, _DINOV2 = configs.VIT_FIELDS, configs.DINOV2_FIELDS

MODELS: dict[str, Family] = {
    "mlp": Family(small.MLP, image_size=28, depth=2),
    "cnn": Family(small.CNN, image_size=28, depth=3),
    "cnn_bn": Family(small.CNN, image_size=28, depth=3, options={"batch_norm": True}),
    "efficientnet_lite0": Family(
        efficientnet.EfficientNetLite,
        image_size=224,
        depth=len(efficientnet.LITE0),
        outputs=efficientnet.OUTPUTS,
        convert=lambda path: efficientnet.convert(torch_archive.read(path)),
    ),
    "vit_s_focus": Family(
        vit.ViT,
        image_size=224,
        depth=12,
        multiple=14,
        outputs=vit.OUTPUTS,
        convert=lambda path: vit_focus.convert(onnx_tensors.read(path)),
    ),
    **{
        name: foreign("clip", fields, _CLIP_HUB[name], clip.TEXT[name])
        for name, fields in clip.VISION.items()
    },
    "clip": foreign("clip", {}, _CLIP_HUB["clip_vit_b32"], {}),
    "vit_b16": foreign("vit", _tower(_VIT, 16, 14, "b"), "google/vit-base-patch16-224-in21k"),
    "vit_b32": foreign("vit", _tower(_VIT, 32, 7, "b"), "google/vit-base-patch32-224-in21k"),
    "vit_l16": foreign("vit", _tower(_VIT, 16, 14, "l"), "google/vit-large-patch16-224-in21k"),
    "vit": foreign("vit", {}, "google/vit-base-patch16-224-in21k"),
    "dinov2_s14": foreign("dinov2", _tower(_DINOV2, 14, 37, "s"), "facebook/dinov2-small"),
    "dinov2_b14": foreign("dinov2", _tower(_DINOV2, 14, 37, "b"), "facebook/dinov2-base"),
    "dinov2_l14": foreign("dinov2", _tower(_DINOV2, 14, 37, "l"), "facebook/dinov2-large"),
    "dinov2": foreign("dinov2", {}, "facebook/dinov2-base"),
}
"""``mlp`` and ``cnn`` are for tests, ``cnn_bn`` the latter with batch normalisation. For
``efficientnet_lite0`` and ``vit_s_focus`` there are pretrained weights. The others read weights of
others, and ``clip``, ``vit``, ``dinov2`` take the architecture from the configuration beside
them."""


def row(name: str) -> Family:
    """The row of that name.

    Raises:
        ValueError: there is none; the message has a near one.
    """
    return choices.row("model", name, MODELS)

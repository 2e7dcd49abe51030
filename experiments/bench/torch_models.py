"""Our models as torch has them: which class, of which shape, and whose weight is whose."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.bench.workload import Size
from linearize import tree
from linearize.models import clip, unstack, vit
from linearize.models.hf import export_leaves, tables
from linearize.types import Params

CLIP = "clip_vit_b32"


@dataclass(frozen=True)
class Twin:
    """A model of ours in torch.

    Attributes:
        model: a key of :data:`experiments.bench.torch_step.MODELS`.
        patch: side of a patch in pixels.
        shape: arguments of that class.
        weights: parameters, or a displacement: a linear map, by the torch model's names.
        about: what runs there, for the table.
    """

    model: str
    patch: int
    shape: Callable[[Size], dict[str, Any]]
    weights: Callable[[Params, Size], dict[str, np.ndarray]]
    about: str


def shape(size: Size) -> dict[str, Any]:
    """Arguments of the torch model."""
    return TWINS[size.model].shape(size)


def weights(params: Mapping[str, Any], size: Size) -> dict[str, np.ndarray]:
    """Parameters (or a displacement: the map is linear) by the torch model's names.

    Kernels are transposed, and the table of positions is resized to the image's grid.
    """
    return TWINS[size.model].weights(params, size)


def tokens(size: Size) -> int:
    """Patches of an image, and the class token."""
    return (size.image_size // TWINS[size.model].patch) ** 2 + 1


def _resized(table: np.ndarray, side: int) -> np.ndarray:
    """``(g, g, D)`` positions on a grid of another side."""
    if side == table.shape[0]:
        return table
    resize = vit.bicubic(table.shape[0], side)
    return np.einsum("ai,bj,ijd->abd", resize, resize, table)


def _vit_shape(size: Size) -> dict[str, Any]:
    return {
        "image_size": size.image_size,
        "blocks": size.blocks,
        "width": 384,
        "heads": 6,
        "hidden": 1536,
        "patch": 14,
    }


def _vit_weights(params: Mapping[str, Any], size: Size) -> dict[str, np.ndarray]:
    out = {}
    for name, leaf in tree.flatten(unstack(params)).items():
        value = np.asarray(leaf)
        *path, last = name.split("/")
        if path and path[0].startswith("block_"):
            path = ["blocks", path[0].removeprefix("block_"), *path[1:]]
        if last == "positions":
            value = _resized(value, size.image_size // 14).reshape(-1, value.shape[-1])
        elif last == "kernel":
            last, value = "weight", value.T
        elif last == "scale":
            last = "weight"
        if path and path[-1] in ("scale_1", "scale_2"):
            last = path.pop()
        out[".".join([*path, last])] = np.ascontiguousarray(value, np.float32)
    return out


def _clip_shape(size: Size) -> dict[str, Any]:
    fields = clip.VISION[CLIP]
    return {
        "image_size": size.image_size,
        "num_hidden_layers": size.blocks,
        "patch_size": fields["patch"],
        "hidden_size": fields["width"],
        "num_attention_heads": fields["heads"],
        "intermediate_size": fields["hidden"],
        "projection_dim": fields["projection"],
        "hidden_act": fields["activation"],
        "layer_norm_eps": fields["eps"],
    }


def _clip_weights(params: Mapping[str, Any], size: Size) -> dict[str, np.ndarray]:
    leaves: dict[str, Any] = dict(tree.flatten(unstack(params)))
    if "positions" in leaves:
        table = _resized(np.asarray(leaves["positions"]), size.image_size // TWINS[CLIP].patch)
        leaves["positions"] = table
    return {f"clip.{n}": x for n, x in export_leaves(leaves, tables.CLIP_VISION).items()}


TWINS: dict[str, Twin] = {
    "vit_s_focus": Twin("vit", 14, _vit_shape, _vit_weights, "functional_call"),
    CLIP: Twin(
        "clip",
        clip.VISION[CLIP]["patch"],
        _clip_shape,
        _clip_weights,
        "transformers' CLIPVisionModelWithProjection, eager attention, functional_call",
    ),
}
"""By the names of :func:`linearize.models.load`."""

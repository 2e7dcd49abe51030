"""``load(name)``: a model of the table below, at its pretrained or at random weights."""

import contextlib
import difflib
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from linearize import assets, functional, io, tree
from linearize.models import (
    efficientnet,
    layers,
    onnx_tensors,
    small,
    torch_archive,
    transformer,
    vit,
    vit_focus,
)
from linearize.models.backbone import Backbone
from linearize.types import Params

Convert = Callable[[Path], Mapping[str, np.ndarray]]

_CONVERSION = 1
"""Raised whenever a ``convert`` changes, so that older converted files are not read."""


@dataclass(frozen=True)
class Family:
    """One row of the table of models.

    Attributes:
        module: the class to build, with fields ``image_size``, ``depth`` and ``dtype``.
        image_size: side in pixels unless told otherwise.
        multiple: what the side must be a multiple of.
        depth: number of blocks unless told otherwise, and at most where there are weights.
        outputs: what ``output`` may be.
        convert: reads the asset of the model's name into leaves keyed by name.
        options: fields of the module that this row sets.
    """

    module: Callable[..., nn.Module]
    image_size: int
    depth: int
    multiple: int = 1
    outputs: tuple[str, ...] = ("features",)
    convert: Convert | None = None
    options: Mapping[str, Any] | None = None


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
}
"""``mlp`` and ``cnn`` are for tests, ``cnn_bn`` the latter with batch normalisation. For
``efficientnet_lite0`` and ``vit_s_focus`` there are pretrained weights."""


def load(
    name: str,
    *,
    pretrained: bool = True,
    seed: int = 0,
    image_size: int | None = None,
    blocks: int | None = None,
    output: str = "features",
    dtype: Any = jnp.float32,
    remat: str = "none",
    scan: bool = False,
    weights: str | Path | None = None,
) -> Backbone:
    """A model ``f(params, images)`` with its parameters θ0.

    Args:
        name: a key of :data:`MODELS`.
        pretrained: take the packaged weights, where the model has any; otherwise, and for the
            small models always, weights are drawn at random.
        seed: of the random weights.
        image_size: side in pixels that images are resized to; a multiple of 14 for the ViT.
        blocks: keep the first so many blocks.
        output: ``"features"``; ``"logits"`` for EfficientNet's 1000 ImageNet classes;
            ``"class_token"`` or ``"patch_mean"`` for the ViT, whose features are both.
        dtype: of the computation, ``float32`` or ``bfloat16``. Parameters and output stay float32.
        remat: what the ViT's blocks keep for the backward pass: ``"none"`` (everything is kept),
            ``"dots"`` (matrix products) or ``"full"`` (a block's input only).
        scan: run the ViT's blocks as one scanned block with parameters stacked under ``blocks/``
            (:func:`linearize.models.stack`): faster to compile, and the form in which ``remat``
            saves memory on a CPU too.
        weights: a safetensors file of one's own in place of the packaged weights, with this
            model's names: ``io.save_tree(path, backbone.params)``. Batch statistics not named
            there are the packaged ones.

    Raises:
        ValueError: an argument that the model does not know; the message says which it does.
        WeightsError: the weights are unreadable or of another model.
        StructureMismatch: likewise, with every missing and mis-shaped name.
        NonFiniteError: the weights hold NaN or infinity.
        AssetError: the packaged weights could not be fetched.
    """
    family = _row(name)
    module = _build(
        name,
        family,
        image_size=family.image_size if image_size is None else image_size,
        depth=family.depth if blocks is None else blocks,
        output=output,
        dtype=dtype,
        remat=remat,
        scan=scan,
    )
    shapes = _shapes(module.clone(scan=False) if scan else module)
    leaves = _packaged(name, family) if pretrained and family.convert else _draw(module, seed)
    tree.check_match(
        shapes, {n: leaves[n] for n in shapes if n in leaves}, what=f"weights of {name}"
    )
    if weights is not None:
        leaves = {**leaves, **_own(weights, shapes)}
    tree.check_finite({n: leaves[n] for n in shapes}, what=f"weights of {name}")
    params = layers.nest({n: jnp.asarray(leaves[n]) for n in shapes if not _is_statistic(n)})
    stats = layers.nest({n: jnp.asarray(leaves[n]) for n in shapes if _is_statistic(n)})
    if scan:
        params = layers.stack(params)
    fixed = {"batch_stats": stats} if stats else {}
    f, params = functional.from_linen(module, {"params": params, **fixed})
    out = jax.eval_shape(f, params, _example(module))
    return Backbone(
        name=name,
        f=f,
        params=params,
        image_size=module.image_size,
        feature_dim=out.shape[-1],
        blocks=("blocks",) if scan else tuple(f"block_{i}" for i in range(module.depth)),
        batch_stats=stats or None,
    )


def _row(name: str) -> Family:
    if name in MODELS:
        return MODELS[name]
    near = difflib.get_close_matches(name, MODELS, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(MODELS)}"
    raise ValueError(f"no model is named {name!r}; {hint}")


def _build(
    name: str,
    family: Family,
    *,
    image_size: int,
    depth: int,
    output: str,
    dtype: Any,
    remat: str,
    scan: bool,
) -> Any:
    """The family's module, after all options have been checked."""
    if image_size < 1 or image_size % family.multiple:
        size = max(1, round(image_size / family.multiple)) * family.multiple
        raise ValueError(
            f"image_size={image_size}; {name} takes positive multiples of {family.multiple}: "
            f"try {size}"
        )
    most = family.depth if family.convert else None
    if depth < 1 or (most is not None and depth > most):
        bound = f"from 1 to {most}" if most else "1 or more"
        raise ValueError(f"blocks={depth}; {name} takes {bound}")
    if output not in family.outputs:
        raise ValueError(f"output={output!r}; {name} has {', '.join(map(repr, family.outputs))}")
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)):
        raise ValueError(f"dtype={dtype!r}; expected float32 or bfloat16")
    if remat not in transformer.REMAT:
        raise ValueError(f"remat={remat!r}; expected {', '.join(map(repr, transformer.REMAT))}")
    if family.module is not vit.ViT and (remat != "none" or scan):
        raise ValueError(f"remat={remat!r}, scan={scan}; {name} has neither, only the ViT has")
    options: dict[str, Any] = dict(family.options or {})
    if len(family.outputs) > 1:
        options["output"] = output
    if family.module is vit.ViT:
        options.update(scan=scan, remat=remat)
    return family.module(image_size=image_size, depth=depth, dtype=jnp.dtype(dtype), **options)


def _example(module: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, module.image_size, module.image_size, 3), jnp.uint8)


def _shapes(module: nn.Module) -> dict[str, Any]:
    """Leaves of all collections, keyed by name within the collection."""
    return _merge(jax.eval_shape(module.init, jax.random.key(0), _example(module)))


def _merge(variables: Mapping[str, Params]) -> dict[str, Any]:
    return {n: leaf for inner in variables.values() for n, leaf in tree.flatten(inner).items()}


def _is_statistic(name: str) -> bool:
    return name.rsplit("/", 1)[-1] in ("mean", "var")


def _draw(module: Any, seed: int) -> dict[str, Any]:
    """Random leaves; a ViT draws its blocks at once, which compiles one block only."""
    if isinstance(module, vit.ViT):
        module = module.clone(scan=True)
    images = jnp.zeros(_example(module).shape, jnp.uint8)
    return dict(layers.unstack(_merge(_initialiser(module)(jax.random.key(seed), images))))


@functools.cache
def _initialiser(module: nn.Module) -> Callable[..., Any]:
    return jax.jit(module.init)


def _packaged(name: str, family: Family) -> Mapping[str, np.ndarray]:
    """All leaves of the packaged weights, converted once and then read from the cache."""
    assert family.convert is not None
    digest = assets.REGISTRY[name].sha256
    path = assets.cache_dir() / "converted" / f"{name}-{digest[:12]}-{_CONVERSION}.safetensors"
    with contextlib.suppress(OSError, io.CorruptFileError):
        return io.load_tree(path)[0]
    leaves = family.convert(assets.fetch(name))
    tree.check_finite(leaves, what=f"weights of {name}")
    with contextlib.suppress(OSError):  # a full or read-only cache costs time only
        io.save_tree(path, leaves, {"source": digest})
    return leaves


def _own(path: str | Path, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
    found = io.load_tree(path)[0]
    if any(n.startswith("blocks/") for n in found):
        found = layers.unstack(found)
    wanted = {n: s for n, s in shapes.items() if not _is_statistic(n) or n in found}
    tree.check_match(wanted, found, what=str(path))
    return found

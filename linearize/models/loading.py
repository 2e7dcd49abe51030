"""``load(name)``: a model of the table below, at its pretrained or at random weights."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from linearize import assets, fields, functional, io, tree
from linearize.choices import one_of
from linearize.compiled import jit
from linearize.models import hf, layers, vit
from linearize.models.backbone import Backbone, WeightsError
from linearize.models.families import MODELS as MODELS
from linearize.models.families import Family, row
from linearize.models.hf import adapters, configs, processors, sources
from linearize.models.weights import (
    agree,
    architecture,
    check_size,
    check_ways,
    fingerprint,
    is_statistic,
    own_leaves,
)
from linearize.types import Params

_CONVERSION = 1
"""Raised whenever a ``convert`` changes, so that older converted files are not read."""


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
    weights: str | Path | hf.Source | None = None,
    activation: str | None = None,
) -> Backbone:
    """A model ``f(params, images)`` with its parameters θ0.

    Args:
        name: a key of :data:`MODELS`.
        pretrained: take the packaged weights, where the model has any; otherwise, and for the
            small models always, weights are drawn at random.
        seed: of the random weights.
        image_size: side in pixels that images are resized to, a multiple of the ViT's patch; that
            of the configuration beside the weights by default.
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
            there are the packaged ones. CLIP, ViT and DINOv2 also read what others wrote, wherever
            :func:`linearize.models.hf.read` finds it; ``"clip"``, ``"vit"`` and ``"dinov2"`` take
            their architecture from the ``config.json`` there. What a configuration or an image
            processor there says is honoured, or refused by name.
        activation: of the MLPs of CLIP, ViT and DINOv2, where the weights come without a
            configuration that tells it: OpenCLIP's own models have ``"gelu"``, OpenAI's
            ``"quick_gelu"``.

    Raises:
        ValueError: an argument that the model does not know; the message says which it does.
        FileNotFoundError: there are no weights where ``weights`` points.
        WeightsError: the weights are unreadable or of another model: one error names all that is
            missing, unknown or mis-shaped; or a repository that cannot be fetched.
        StructureMismatch: likewise for weights under this model's own names.
        NonFiniteError: the weights hold NaN or infinity.
        AssetError: the packaged weights could not be fetched.
    """
    family, source = _resolve(name, row(name), weights, activation, pretrained)
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
    shapes = _shapes(module)
    room = None
    if source is not None:
        check_size(shapes, source)
        whole = _shapes(module.clone(depth=family.depth, output="features"))
        room = layers.Room(shapes, stacked=scan)
        leaves: Mapping[str, Any] = hf.import_leaves(
            source.tensors,
            family.dialects,
            shapes,
            known=whole.keys() - shapes.keys(),
            what=str(weights),
            out=room.leaves,
        )
    elif family.kind and weights is not None:
        leaves = own_leaves(hf.read(weights).path, shapes)
    else:
        leaves = _packaged(name, family) if pretrained and family.convert else _draw(module, seed)
    tree.check_match(
        shapes, {n: leaves[n] for n in shapes if n in leaves}, what=f"weights of {name}"
    )
    if weights is not None and not family.kind:
        leaves = {**leaves, **own_leaves(str(weights), shapes)}
    tree.check_finite({n: leaves[n] for n in shapes}, what=f"weights of {name}")
    stats = layers.nest({n: jnp.asarray(leaves[n]) for n in shapes if is_statistic(n)})
    if room is not None:
        params = room.to_device()
    else:
        params = layers.nest({n: jnp.asarray(leaves[n]) for n in shapes if not is_statistic(n)})
        params = layers.stack(params) if scan else params
    fixed = {"batch_stats": stats} if stats else {}
    f, params = functional.from_linen(module, {"params": params, **fixed})
    f.fingerprint = fingerprint(module, stats)  # type: ignore[attr-defined]
    example = _example(module)
    return Backbone(
        f,
        params,
        name=name,
        blocks=("blocks",) if scan else tuple(f"block_{i}" for i in range(module.depth)),
        example=jax.ShapeDtypeStruct(example.shape[1:], example.dtype),
        about={
            "image_size": module.image_size,
            "feature_dim": _traced(module)[0].shape[-1],
            "batch_stats": stats or None,
            "kind": family.kind,
            "architecture": architecture(module) if family.kind else None,
            "weights": None if source is None else source.path,
        },
    )


def _resolve(
    name: str,
    family: Family,
    weights: str | Path | hf.Source | None,
    activation: str | None,
    pretrained: bool,
) -> tuple[Family, hf.Source | None]:
    """The row as the configuration beside the weights completes it, and weights of others."""
    if not family.kind:
        if activation is not None:
            raise ValueError(f"activation={activation!r}; {name} has no choice of it")
        return family, None
    if weights is None:
        if pretrained or not family.depth:
            random = ", or pretrained=False for random ones" if family.depth else ""
            raise ValueError(
                f"{name} has no packaged weights; pass weights=, a folder or file of them or a "
                f"repository on the Hub such as {family.hub!r}{random}"
            )
        source, told = None, None
    else:
        source = hf.read(weights)
        folder = source.path.parent
        found = configs.kind(source.notes, folder)
        if found not in (None, family.kind):
            raise WeightsError(
                f"{weights} holds a {found!r}, and {name} is a {family.kind!r}; load it by the "
                f"name {found!r}"
            )
        told = configs.vision(source.notes, folder)
    ours = {"depth": family.depth, **(family.options or {})}
    if source is not None and told is None and family.depth:  # a processor may lie there alone
        side = ours["grid"] * ours["patch"]
        told = processors.of_transformers(source.notes, family.kind, side, str(folder))
    fields = agree(name, ours, told)
    if activation is not None:
        fields["activation"] = configs.activation(activation)
    if not fields["depth"]:
        raise WeightsError(
            f"{weights} has no configuration beside it that tells the architecture; load it by the "
            f"name of one: {', '.join(n for n, f in MODELS.items() if f.kind and f.depth)}"
        )
    family = dataclasses.replace(
        family,
        image_size=fields.pop("image_size", fields["grid"] * fields["patch"]),
        multiple=fields["patch"],
        depth=fields.pop("depth"),
        options=fields,
    )
    own = source is not None and any("/" in n for n in source.tensors)
    return family, None if own else source


def open_model(where: str, **options: Any) -> Backbone:
    """A model by its weights, a folder, a file or a repository; or by its name in the table.

    Args:
        where: weights of a CLIP, ViT or DINOv2 with the configuration beside them; or, where no
            such path exists, a row of :data:`MODELS` whose weights are packaged.
        options: as :func:`load` takes them.

    Raises:
        ValueError: no configuration says what the weights are of.
        WeightsError: and whatever else :func:`load` raises.
    """
    if where in MODELS and not Path(where).exists():
        return load(where, **options)
    source = hf.read(where)
    found = configs.kind(source.notes, source.path.parent)
    if found is None and sources.beside(source, (adapters.CONFIG,)) is not None:
        raise WeightsError(
            f"{where} is an adapter, no model; open its base, and give the adapter to "
            "linearize.models.task_vector(base, adapter), or linearize merge --base"
        )
    if found is None:
        raise ValueError(
            f"no configuration beside {where} says what model it is of; load it by the name of "
            f"one: linearize.models.load(NAME, weights={where!r}), NAME one of {', '.join(MODELS)}"
        )
    return load(found, weights=source, **options)


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
    most = family.depth if family.convert or family.kind else None
    if depth < 1 or (most is not None and depth > most):
        bound = f"from 1 to {most}" if most else "1 or more"
        raise ValueError(f"blocks={depth}; {name} takes {bound}")
    one_of(f"{name}: output", output, family.outputs)
    check_ways(dtype, remat)
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


def _shapes(module: Any) -> dict[str, Any]:
    """Leaves of all collections, keyed by name within the collection; blocks one by one."""
    return _traced(module)[1]


@functools.cache
def _traced(module: Any) -> tuple[jax.ShapeDtypeStruct, dict[str, Any]]:
    """Shapes of the output and of all leaves; of a ViT's blocks one is traced, for all."""
    if isinstance(module, vit.ViT):
        module = module.clone(scan=True)
    out, variables = jax.eval_shape(module.init_with_output, jax.random.key(0), _example(module))
    return out, layers.unstack({n: layers.shape_only(s) for n, s in _merge(variables).items()})


def _merge(variables: Mapping[str, Params]) -> dict[str, Any]:
    return {n: leaf for inner in variables.values() for n, leaf in tree.flatten(inner).items()}


def _draw(module: Any, seed: int) -> dict[str, Any]:
    """Random leaves; a ViT draws its blocks at once, which compiles one block only."""
    if isinstance(module, vit.ViT):
        module = module.clone(scan=True)
    images = jnp.zeros(_example(module).shape, jnp.uint8)
    key = jax.random.key(fields.seed("seed", seed))
    return dict(layers.unstack(_merge(_initialiser(module)(key, images))))


@functools.cache
def _initialiser(module: nn.Module) -> Callable[..., Any]:
    return jit(module.init)


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

"""``load_language(name)``: a language model of the table, at pretrained or at random weights."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from linearize import assets, fields, functional, tree
from linearize.compiled import jit
from linearize.models import hf, layers
from linearize.models.backbone import WeightsError
from linearize.models.hf import schema
from linearize.models.hf.table import unwrap
from linearize.models.language.families import LANGUAGE, row
from linearize.models.language.model import LanguageFamily, LanguageModel
from linearize.models.weights import (
    agree,
    architecture,
    check_size,
    check_ways,
    fingerprint,
    own_leaves,
)
from linearize.types import Apply, Array, Params

_INPUTS = {
    "tokens": np.zeros((1, 2), np.int32),
    "mask": np.ones((1, 2), bool),
    "answer": np.zeros((1, 2), np.int32),
}
"""The least that a model takes, to trace it with."""


def load_language(
    name: str,
    *,
    weights: str | Path | hf.Source | None = None,
    pretrained: bool = True,
    seed: int = 0,
    blocks: int | None = None,
    dtype: Any = jnp.float32,
    remat: str = "none",
    scan: bool = False,
) -> LanguageModel:
    """A language model ``f(params, tokens, ...) -> logits`` with its parameters θ0.

    Args:
        name: a key of :data:`linearize.models.language.families.LANGUAGE`.
        weights: in place of packaged ones: what :func:`linearize.models.hf.read` finds, in
            transformers' names; a GGUF file; or a safetensors file of this model's own names,
            ``io.save_tree(path, model.params)``. A name that is a kind's (``"llama"``) takes its
            architecture from the ``config.json`` there, or from the GGUF's own notes.
        pretrained: whether packaged weights are taken; where not, weights are drawn at random.
        seed: of the random weights.
        blocks: keep the first so many blocks, of an encoder–decoder of either stack.
        dtype: of the computation, ``float32`` or ``bfloat16``. Parameters and logits are float32.
        remat: what the blocks keep for the backward pass: ``"none"`` (everything is kept),
            ``"dots"`` (matrix products) or ``"full"`` (a block's input only).
        scan: run the blocks as one scanned block with parameters stacked under ``blocks/``.

    Raises:
        ValueError: an argument that the model does not know; the message says which it does.
        FileNotFoundError: there are no weights where ``weights`` points.
        WeightsError: the weights are unreadable or of another model: one error names all that is
            missing, unknown or mis-shaped; a configuration that says what is not computed here; or
            a repository that cannot be fetched.
        StructureMismatch: likewise for weights under this model's own names.
        NonFiniteError: the weights hold NaN or infinity.
        AssetError: the packaged weights could not be fetched.
    """
    check_ways(dtype, remat)
    family = row(name)
    source = _source(name, family, weights, pretrained)
    config = {**family.config, **_told(name, family, source)}
    if not config:
        raise WeightsError(
            f"{source or name} has no configuration beside it that tells the architecture; load it "
            f"by the name of one: {', '.join(n for n, f in LANGUAGE.items() if f.config)}"
        )
    where = name if source is None else _noted(source)
    whole = family.module(**{**family.configure(config, where), **_parts(family, source)})
    depth = whole.depth if blocks is None else blocks
    if not 1 <= depth <= whole.depth:
        raise ValueError(f"blocks={blocks}; {name} takes from 1 to {whole.depth}")
    stacks = {"depth": family.deep, **family.also}
    cut = {field: getattr(whole, field) for field in stacks}
    if blocks is not None:
        cut = {field: min(depth, count) for field, count in cut.items()}
    module = whole.clone(**cut, dtype=jnp.dtype(dtype), remat=remat, scan=scan)
    shapes = _shapes(module, family.inputs)
    if source is None:
        key = jax.random.key(fields.seed("seed", seed))
        drawn = _initialiser(module.clone(scan=True), family.inputs)(key)["params"]
        params = drawn if scan else layers.unstack(drawn)
    else:
        check_size(shapes, source)
        params = _read(name, family, source, shapes, _shapes(whole, family.inputs).keys(), scan)
    tree.check_finite(params, what=f"weights of {name}")
    config = {**config, "model_type": family.kind}
    config |= {word: cut[field] for field, word in stacks.items()}
    if config.get(family.each):
        config[family.each] = config[family.each][:depth]
    made = functools.partial(_function, module, params)
    hidden = made("__call__")
    headed = _headed(module)
    return LanguageModel(
        made(_logits) if headed else hidden,
        params,
        name=name,
        blocks=layers.blocks(tree.names(params)),
        about={
            "vocabulary": module.vocabulary,
            "context": module.context,
            "width": module.width,
            "kind": family.kind,
            "family": family,
            "architecture": architecture(module),
            "config": config,
            "weights": None if source is None else source.path,
        },
        hidden=hidden,
        head=made("logits") if headed else None,
        step=made("step") if hasattr(module, "step") else None,
        cache=getattr(module, "cache", None),
        encode=made("encode") if hasattr(module, "encode") else None,
    )


def _source(
    name: str, family: LanguageFamily, weights: str | Path | hf.Source | None, pretrained: bool
) -> hf.Source | None:
    """Weights of others, or this library's own; None where they are drawn."""
    if weights is not None:
        return hf.read(weights)
    if pretrained and family.packaged:
        return hf.read(assets.fetch(family.packaged))
    if pretrained or not family.config:
        random = ", or pretrained=False for random ones" if family.config else ""
        raise ValueError(
            f"{name} has no packaged weights; pass weights=, a folder or file of them or a "
            f"repository on the Hub such as {family.hub!r}{random}"
        )
    return None


def _told(name: str, family: LanguageFamily, source: hf.Source | None) -> Mapping[str, Any]:
    """The configuration beside the weights, which must be that of the name; empty for none."""
    if source is None or "config.json" not in source.notes:
        return {}
    where, told = _noted(source), source.notes["config.json"]
    found = told.get("model_type") if isinstance(told, Mapping) else None
    if found != family.kind:
        names = [n for n, f in LANGUAGE.items() if f.kind == found]
        there = f"load it by a name of its own: {', '.join(names)}"
        kinds = f"there are: {', '.join(sorted({f.kind for f in LANGUAGE.values()}))}"
        raise WeightsError(
            f"{where} is of model_type {schema.said(found)}, and {name} is a {family.kind!r}; "
            f"{there if names else kinds}"
        )
    fields = family.configure(told, where)
    if family.config:
        ours = family.configure(family.config, name)
        agree(name, ours, fields, [n for n, v in ours.items() if type(v) is int and n != "context"])
    return told


def _noted(source: hf.Source) -> str:
    """The file that tells the configuration."""
    return str(source.path if source.path.suffix == ".gguf" else source.path.parent / "config.json")


def _parts(family: LanguageFamily, source: hf.Source | None) -> dict[str, bool]:
    """Which optional parts of a model a file holds, under others' names or this library's own."""
    if source is None or not family.optional:
        return {}
    held = set(source.tensors)
    own: dict[str, str] = {}
    for table in family.dialects:
        held |= {table.canonical(name) for name in unwrap(source.tensors).values()}
        own |= {theirs: ours for theirs, ours, _ in table.rows}
    return {field: x in held or own[x] in held for field, x in family.optional.items()}


def _read(
    name: str,
    family: LanguageFamily,
    source: hf.Source,
    shapes: Mapping[str, Any],
    known: Any,
    scan: bool,
) -> Params:
    if any("/" in n for n in source.tensors):
        leaves = own_leaves(source.path, shapes)
        flat = {n: jnp.asarray(leaves[n]) for n in shapes}
        return layers.nest(layers.stack(flat) if scan else flat)
    room = layers.Room(shapes, stacked=scan)
    hf.import_leaves(
        hf.untied(source.tensors, family.dialects, family.repeated, shapes, str(source)),
        family.dialects,
        shapes,
        known=known - shapes.keys(),
        what=str(source),
        out=room.leaves,
    )
    return room.to_device()


def _function(module: nn.Module, params: Params, method: str | Callable[..., Any]) -> Apply:
    f, _ = functional.from_linen(module, {"params": params}, method=method)
    word = method if isinstance(method, str) else method.__name__
    told = f"{type(module).__module__}.{word} {fingerprint(module, {})}"
    f.fingerprint = told  # type: ignore[attr-defined]
    return f


def _logits(module: Any, *inputs: Array) -> Array:
    hidden = module(*inputs)
    return module.logits(hidden) if _headed(module) else hidden


def _headed(module: Any) -> bool:
    return hasattr(module, "logits") and getattr(module, "headed", True)


@functools.cache
def _initialiser(module: nn.Module, inputs: str) -> Callable[..., Any]:
    given = [_INPUTS[word] for word in inputs.split()]
    return jit(lambda key: module.init(key, *given, method=_logits))


@functools.cache
def _shapes(module: Any, inputs: str) -> dict[str, Any]:
    """Leaves by name, blocks one by one; of the blocks one is traced, for all."""
    init = _initialiser(module.clone(scan=True), inputs)
    traced = jax.eval_shape(init, jax.random.key(0))["params"]
    return layers.unstack({n: layers.shape_only(s) for n, s in tree.flatten(traced).items()})

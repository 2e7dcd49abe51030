"""What the loaders of images' and of language's models share: sizes, names and identities."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from linearize import io, tree
from linearize.choices import one_of
from linearize.models import hf, layers, transformer
from linearize.models.backbone import WeightsError
from linearize.task_vector import KIND
from linearize.types import Params

_FUNCTION = 1
"""Raised whenever what a module computes changes, so that older runs of it are not gone on with."""

SIZES = ("patch", "grid", "width", "heads", "hidden", "depth", "projection")
"""Fields that a configuration beside the weights and the name of a model must agree in."""


def check_size(shapes: Mapping[str, Any], source: hf.Source) -> None:
    """A configuration may describe a model that no memory holds: its file must be near it in size.

    Raises:
        WeightsError: the file has not a tenth of the model.
    """
    wanted = sum(math.prod(x.shape) for x in shapes.values())
    if source.size is not None and wanted > 10 * source.size + 10**7:
        raise WeightsError(
            f"{source} holds {source.size} bytes of tensors and the configuration beside it "
            f"describes a model of {wanted} parameters: is it another model's?"
        )


def agree(
    name: str,
    ours: Mapping[str, Any],
    told: Mapping[str, Any] | None,
    sizes: Collection[str] = SIZES,
) -> dict[str, Any]:
    """Fields of a named architecture, completed by what the configuration tells.

    Raises:
        WeightsError: the two have other sizes; all are listed.
    """
    if told is None:
        return dict(ours)
    wrong = [
        f"{key} is {told[key]}, expected {ours[key]}"
        for key in sizes
        if ours.get(key) and told.get(key) and told[key] != ours[key]
    ]
    if wrong:
        raise WeightsError(
            f"the configuration beside the weights is not that of {name}: " + "; ".join(wrong)
        )
    return {**ours, **told}


def architecture(module: Any) -> dict[str, Any]:
    """The fields that make the function, without those that choose how it is computed."""
    ways = ("parent", "name", "dtype", "scan", "remat")
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module)}
    return {name: value for name, value in fields.items() if name not in ways}


def fingerprint(module: Any, stats: Params) -> str:
    """All that decides ``f``, but for its parameters (:mod:`linearize.identity`)."""
    fields = {f.name: (f, getattr(module, f.name)) for f in dataclasses.fields(module)}
    told = sorted(
        (name, str(value))
        for name, (field, value) in fields.items()
        if name not in ("parent", "name")
        and not (field.metadata.get("later") and value == field.default)
    )
    return f"{type(module).__name__} {_FUNCTION} {told} {tree.fingerprint(stats)}"


def check_ways(dtype: Any, remat: str) -> None:
    """How a module is computed is one of the ways there are.

    Raises:
        ValueError: it is not.
    """
    if jnp.dtype(dtype) not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)):
        raise ValueError(f"dtype={dtype!r}; expected float32 or bfloat16")
    one_of("remat", remat, transformer.REMAT)


def own_leaves(path: str | Path, shapes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leaves of a file under this library's own names, as :func:`linearize.io.save_tree` writes it.

    Raises:
        WeightsError: the file holds a task vector.
        StructureMismatch: leaves of other names or shapes; batch statistics may be absent.
    """
    found, notes = io.load_tree(path)
    if notes.get("kind") == KIND:
        raise WeightsError(
            f"{path} holds a task vector, no weights; load the base, and add it: "
            "TaskVector.load(path).apply_to(base.params)"
        )
    if layers.is_stacked(found):
        found = layers.unstack(found)
    wanted = {n: s for n, s in shapes.items() if not is_statistic(n) or n in found}
    tree.check_match(wanted, found, what=str(path))
    return found


def is_statistic(name: str) -> bool:
    """Whether a leaf of that name is of batch statistics."""
    return name.rsplit("/", 1)[-1] in ("mean", "var")

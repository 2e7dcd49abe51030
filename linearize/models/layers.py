"""Layers stacked for a scan, and back: ``block_0/...``, ``block_1/...`` <-> ``blocks/...``.

A model of several stacks has a word before: ``encoder/block_0/...`` <-> ``encoder/blocks/...``.
"""

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.types import Array, Params, PyTree

_BLOCK = re.compile(r"^((?:\w+/)?)block_(\d+)/(.+)$")
_STACKED = re.compile(r"^((?:\w+/)?)blocks/(.+)$")
_ALIGNMENT = 64


def stack(params: PyTree) -> Params:
    """Parameters of a layer-scanned model from those of its unrolled twin.

    Args:
        params: a nested tree, or a flat mapping such as a task vector's, with leaves
            ``block_i/...`` for i = 0, 1, ..., k - 1. Other leaves are kept.

    Returns:
        The same kind of mapping, with leaves ``blocks/...`` of one more leading axis, k.

    Raises:
        StructureMismatch: a block lacks a leaf that another has.
    """
    rest: dict[str, Any] = {}
    layers: dict[tuple[str, str], dict[int, Array]] = {}
    for name, leaf in tree.flatten(params).items():
        match = _BLOCK.match(name)
        if match:
            layers.setdefault((match[1], match[3]), {})[int(match[2])] = leaf
        else:
            rest[name] = leaf
    depth: dict[str, int] = {}
    for (where, _), found in layers.items():
        depth[where] = max(depth.get(where, 0), 1 + max(found))
    missing = [
        f"missing: {where}block_{i}/{inner}"
        for (where, inner), found in layers.items()
        for i in range(depth[where])
        if i not in found
    ]
    if missing:
        blocks = " and ".join(map(str, depth.values()))
        raise tree.StructureMismatch(
            f"stacking wants the same leaves in all {blocks} blocks; {len(missing)} problem(s):\n  "
            + "\n  ".join(missing)
        )
    for (where, inner), found in layers.items():
        rest[f"{where}blocks/{inner}"] = jnp.stack([found[i] for i in range(depth[where])])
    return rest if is_flat(params) else nest(rest)


def unstack(params: PyTree) -> Params:
    """The inverse of :func:`stack`."""
    out = {}
    for name, leaf in tree.flatten(params).items():
        match = _STACKED.match(name)
        if match:
            where, inner = match.groups()
            out.update({f"{where}block_{i}/{inner}": leaf[i] for i in range(leaf.shape[0])})
        else:
            out[name] = leaf
    return out if is_flat(params) else nest(out)


class Room:
    """Float32 memory for the leaves of a model, filled leaf by leaf and then JAX's without a copy.

    Attributes:
        leaves: arrays to fill, under the names of the unrolled model: slices where blocks are
            stacked.
    """

    def __init__(self, shapes: Mapping[str, Any], *, stacked: bool) -> None:
        whole: dict[str, tuple[int, ...]] = {}
        for name, leaf in shapes.items():
            match = _BLOCK.match(name) if stacked else None
            if match is None:
                whole[name] = leaf.shape
            else:
                key = f"{match[1]}blocks/{match[3]}"
                whole[key] = (max(whole.get(key, (0,))[0], int(match[2]) + 1), *leaf.shape)
        self._whole = {n: _aligned(shape) for n, shape in whole.items()}
        self.leaves: dict[str, np.ndarray] = unstack(self._whole) if stacked else dict(self._whole)

    def to_device(self) -> Params:
        """The nested parameters; the room is empty afterwards."""
        self.leaves = {}
        return nest({n: jax.device_put(self._whole.pop(n)) for n in list(self._whole)})


def blocks(names: Collection[str]) -> tuple[str, ...]:
    """The prefixes of a model's blocks, stacked or not, from input to output.

    Numbers are in order, and an encoder before the decoder that reads it.

    >>> blocks(["block_10/scale", "norm/scale", "block_2/scale"])
    ('block_2', 'block_10')
    >>> blocks(["decoder/blocks/scale", "encoder/blocks/scale"])
    ('encoder/blocks', 'decoder/blocks')
    """
    found = {(m[1], int(m[2])): f"{m[1]}block_{m[2]}" for n in names if (m := _BLOCK.match(n))}
    found |= {(m[1], 0): f"{m[1]}blocks" for n in names if (m := _STACKED.match(n))}
    return tuple(found[key] for key in sorted(found, key=lambda k: (k[0] == "decoder/", *k)))


def shape_only(leaf: Any) -> np.ndarray:
    """An array of this shape and dtype that holds one number, to slice as one would the real one.

    >>> shape_only(jax.ShapeDtypeStruct((12, 768, 3072), jnp.float32))[0].shape
    (768, 3072)
    """
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """Uninitialised float32, where a CPU's ``device_put`` takes over the memory as it is."""
    size = 4 * math.prod(shape)
    buffer = np.empty(size + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + size].view(np.float32).reshape(shape)


def is_stacked(names: Collection[str]) -> bool:
    """Whether leaves of these names are a scanned model's."""
    return any(map(_STACKED.match, names))


def are_stacks(blocks: Collection[str]) -> bool:
    """Whether a model's blocks (:attr:`linearize.Model.blocks`) are scanned."""
    return bool(blocks) and all(f"/{block}".endswith("/blocks") for block in blocks)


def is_flat(params: PyTree) -> bool:
    """Whether a mapping is keyed by whole names."""
    return all(not isinstance(value, dict) for value in params.values())


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """A nested tree from leaves keyed by name.

    >>> nest({"a/b": 1, "a/c": 2, "d": 3})
    {'a': {'b': 1, 'c': 2}, 'd': 3}
    """
    out: dict[str, Any] = {}
    for name, leaf in flat.items():
        *path, last = name.split("/")
        inner = out
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = leaf
    return out

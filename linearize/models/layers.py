"""Layers stacked for a scan, and back: ``block_0/...``, ``block_1/...`` <-> ``blocks/...``."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.types import Array, Params, PyTree

_BLOCK = re.compile(r"^block_(\d+)/(.+)$")
_STACKED = re.compile(r"^blocks/(.+)$")
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
    layers: dict[str, dict[int, Array]] = {}
    for name, leaf in tree.flatten(params).items():
        match = _BLOCK.match(name)
        if match:
            layers.setdefault(match[2], {})[int(match[1])] = leaf
        else:
            rest[name] = leaf
    depth = 1 + max((i for found in layers.values() for i in found), default=-1)
    missing = [
        f"missing: block_{i}/{inner}"
        for inner, found in layers.items()
        for i in range(depth)
        if i not in found
    ]
    if missing:
        raise tree.StructureMismatch(
            f"stacking wants the same leaves in all {depth} blocks; {len(missing)} problem(s):\n  "
            + "\n  ".join(missing)
        )
    for inner, found in layers.items():
        rest[f"blocks/{inner}"] = jnp.stack([found[i] for i in range(depth)])
    return rest if is_flat(params) else nest(rest)


def unstack(params: PyTree) -> Params:
    """The inverse of :func:`stack`."""
    out = {}
    for name, leaf in tree.flatten(params).items():
        match = _STACKED.match(name)
        if match:
            out.update({f"block_{i}/{match[1]}": leaf[i] for i in range(leaf.shape[0])})
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
                key = f"blocks/{match[2]}"
                whole[key] = (max(whole.get(key, (0,))[0], int(match[1]) + 1), *leaf.shape)
        self._whole = {n: _aligned(shape) for n, shape in whole.items()}
        self.leaves: dict[str, np.ndarray] = unstack(self._whole) if stacked else dict(self._whole)

    def to_device(self) -> Params:
        """The nested parameters; the room is empty afterwards."""
        self.leaves = {}
        return nest({n: jax.device_put(self._whole.pop(n)) for n in list(self._whole)})


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

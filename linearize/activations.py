"""Where a model's activations lie while a step over several devices is traced: as its batch does.

Left to itself, XLA may gather the whole batch on every device and keep each leaf of the parameters
split: of CLIP's L/14, fully sharded over 256 devices, each then sends 1.5 TB in a step, and 6 GB
where activations are held to their place and leaves are gathered instead (counted:
``python -m experiments.meshes``).
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import jax
from jax.sharding import NamedSharding

from linearize.types import PyTree


@dataclass
class Batch:
    """How a batch lies, and whether the model that is traced holds to it."""

    sharding: NamedSharding
    """Of axis 0."""
    ways: int
    """Into how many parts it is split."""
    kept: bool = False
    """Whether :func:`keep` was called."""


_LIES: ContextVar[Batch | None] = ContextVar("activations", default=None)


@contextlib.contextmanager
def lying(sharding: NamedSharding, ways: int) -> Iterator[Batch]:
    """While this lasts, :func:`keep` holds activations to a batch's sharding.

    Args:
        sharding: of axis 0.
        ways: into how many parts it is split.
    """
    batch = Batch(sharding, ways)
    token = _LIES.set(batch)
    try:
        yield batch
    finally:
        _LIES.reset(token)


def keep(x: PyTree) -> PyTree:
    """The same values, split along axis 0 as the batch is; called by models between blocks.

    Nothing is said of an array that cannot be split so, and nothing outside :func:`lying`.

    Args:
        x: activations, a tree of arrays whose axis 0 is the batch's.
    """
    batch = _LIES.get()
    if batch is None:
        return x
    batch.kept = True

    def leaf(each: jax.Array) -> jax.Array:
        if not each.ndim or not each.shape[0] or each.shape[0] % batch.ways:
            return each
        return jax.lax.with_sharding_constraint(each, batch.sharding)

    return jax.tree.map(leaf, x)

"""Where a model's activations lie while a step over several devices is traced: as its batch does.

Left to itself, XLA may gather the whole batch on every device and keep each leaf of the parameters
split: of CLIP's L/14, fully sharded over 256 devices, each then sends 1.5 TB in a step, and 5 GB
where activations are held to their place and leaves are gathered instead (counted:
``python -m experiments.meshes``).
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax
from jax.sharding import NamedSharding

from linearize.types import PyTree

_LIE: ContextVar[tuple[NamedSharding, int] | None] = ContextVar("activations", default=None)


@contextlib.contextmanager
def lying(batch: NamedSharding, ways: int) -> Iterator[None]:
    """While this lasts, :func:`keep` holds activations to a batch's sharding.

    Args:
        batch: how axis 0 is split.
        ways: into how many parts.
    """
    token = _LIE.set((batch, ways))
    try:
        yield
    finally:
        _LIE.reset(token)


def keep(x: PyTree) -> PyTree:
    """The same values, split along axis 0 as the batch is; called by models between blocks.

    Nothing is said of an array that cannot be split so, and nothing outside :func:`lying`.

    Args:
        x: activations, a tree of arrays whose axis 0 is the batch's.
    """
    lie = _LIE.get()
    if lie is None:
        return x
    sharding, ways = lie

    def leaf(each: jax.Array) -> jax.Array:
        if not each.ndim or not each.shape[0] or each.shape[0] % ways:
            return each
        return jax.lax.with_sharding_constraint(each, sharding)

    return jax.tree.map(leaf, x)

"""Arithmetic on task vectors, by the names of *Editing Models with Task Arithmetic* (§2)."""

import zlib
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linearize import fields, tree
from linearize.agreement import agree, once
from linearize.compiled import jit
from linearize.lazy import now
from linearize.task_vector import TaskVector
from linearize.types import Array


def add(taus: Iterable[TaskVector]) -> TaskVector:
    """Σ τ_t: one vector that carries every task.

    Raises:
        ValueError: there is no vector.
        StructureMismatch: vectors of other names, shapes or bases.

    >>> import jax.numpy as jnp
    >>> one, two = TaskVector({"w": jnp.array([1.0])}), TaskVector({"w": jnp.array([2.0])})
    >>> add([one, two]).delta
    {'w': Array([3.], dtype=float32)}
    """
    taus = list(taus)
    if not taus:
        raise ValueError("taus is empty; give at least one task vector to add")
    return sum(taus[1:], start=taus[0])


def negate(tau: TaskVector) -> TaskVector:
    """−τ: the way to forget a task.

    >>> import jax.numpy as jnp
    >>> negate(TaskVector({"w": jnp.array([2.0])})).delta
    {'w': Array([-2.], dtype=float32)}
    """
    return -tau


def analogy(a: TaskVector, b: TaskVector, c: TaskVector) -> TaskVector:
    """τ_c + (τ_b − τ_a): "A is to B as C is to" what the result stands for.

    Where the two parts want coefficients of their own, write ``s * c + t * (b - a)``.

    Raises:
        StructureMismatch: vectors of other names, shapes or bases.

    >>> import jax.numpy as jnp
    >>> a, b, c = (TaskVector({"w": jnp.array([x])}) for x in (1.0, 4.0, 10.0))
    >>> analogy(a, b, c).delta
    {'w': Array([13.], dtype=float32)}
    """
    return c + (b - a)


def random_like(tau: TaskVector, seed: int) -> TaskVector:
    """A random direction in which each tensor has the norm that it has in ``tau``.

    The baseline of the paper's negation tables: what moving by as much, but nowhere in particular,
    does. Normally distributed, then scaled; a zero tensor stays zero.

    Args:
        tau: the vector to match.
        seed: of the draw; every tensor draws by its own name, so leaves left out change no other.

    Raises:
        ValueError: ``seed`` is no integer from 0 to 2³² − 1.
        NonFiniteError: ``tau`` holds NaN or infinity, or a tensor so large that the dtype has no
            such draw.
        DisagreementError: a drawn tensor has another norm.
    """
    seed = fields.seed("seed", seed)
    tree.check_finite(tau, what="tau")
    keys = {name: _named_key(seed, name) for name in tau.delta}
    drawn = {name: _matched(keys[name], now(leaf)) for name, leaf in tau.delta.items()}
    tree.check_finite(drawn, what="the random vector, whose tensors have the norms of tau's,")
    for name, leaf in tau.delta.items():
        once(partial(_check, drawn[name], leaf, name), "random_like", arrays=leaf)
    return replace(tau, delta=drawn, meta={**tau.meta, "random_like": seed})


def _named_key(seed: int, name: str) -> Array:
    return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def _check(drawn: Array, leaf: Array, name: str) -> None:
    sizes = (np.abs(np.asarray(x)).astype(np.float64) for x in (drawn, leaf))
    found, expected = (float(np.linalg.norm(size)) for size in sizes)
    agree(
        found,
        expected,
        scale=expected,
        dtypes=(leaf.dtype,),
        terms=leaf.size,
        what="the norm of a random tensor that is to have that of the vector's",
        entry=name,
    )


@jit
def _matched(key: Array, leaf: Array) -> Array:
    noise = jax.random.normal(key, leaf.shape, leaf.dtype)
    wide = noise.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    return (wide / tree.norm(wide) * tree.norm(leaf)).astype(leaf.dtype)

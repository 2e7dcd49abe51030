"""Products of derivatives in each layout of a kernel.

Derivatives of N examples' C outputs come as a Jacobian (N, C, ...), or as the two factors that a
layer's Jacobian is the product of (:class:`Factors`), which are multiplied more cheaply apart.
"""

import itertools
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linearize.types import Array

Output = Literal["full", "trace", "diagonal"]
A = TypeVar("A", Array, np.ndarray)

_CHUNKS = 4  # a symmetric product as 10 of its 16 blocks


class Factors(NamedTuple):
    """A weight that meets T inputs: ``J[n, c] = Σ_t inputs[n, t] ⊗ slopes[n, c, t]``.

    ``inputs`` are (N, T, K), or integers (N, T) where the layer looks up rows of its weight;
    ``slopes`` (N, C, T, M) are the derivatives of the outputs with respect to what it gives.
    """

    inputs: Array
    slopes: Array


Derivatives: TypeAlias = Array | Factors


def full(left: Array, right: Array) -> Array:
    """Every output with every output: (N1, N2, C1, C2)."""
    (n1, c1), (n2, c2) = left.shape[:2], right.shape[:2]
    product = _rows(left.reshape(n1 * c1, -1), right.reshape(n2 * c2, -1))
    return product.reshape(n1, c1, n2, c2).transpose(0, 2, 1, 3)


def trace(left: Array, right: Array) -> Array:
    """The sum over outputs of each with itself, not divided by their number: (N1, N2)."""
    return _rows(left.reshape(left.shape[0], -1), right.reshape(right.shape[0], -1))


def diagonal(left: Array, right: Array) -> Array:
    """Each output with itself: (N1, N2, C)."""
    left, right = (side.reshape(*side.shape[:2], -1) for side in (left, right))
    numbers = (((2,), (2,)), ((1,), (1,)))
    product = lax.dot_general(left, right, numbers, precision=lax.Precision.HIGHEST)
    return product.transpose(1, 2, 0)


def _rows(left: Array, right: Array) -> Array:
    numbers = (((1,), (1,)), ((), ()))
    return lax.dot_general(left, right, numbers, precision=lax.Precision.HIGHEST)


LAYOUTS: dict[Output, Callable[[Array, Array], Array]] = {
    "full": full,
    "trace": trace,
    "diagonal": diagonal,
}
"""How the outputs' axes enter, by name."""


def contract(left: Derivatives, right: Derivatives, output: Output) -> Array:
    """The kernel that two sets of examples' derivatives in one weight give, in a layout."""
    if isinstance(left, Factors) and isinstance(right, Factors):
        return _contract_factors(left, right, output)
    assert not isinstance(left, Factors)
    assert not isinstance(right, Factors)
    return LAYOUTS[output](left, right)


def _contract_factors(left: Factors, right: Factors, output: Output) -> Array:
    met = _meet(left.inputs, right.inputs)  # (N1, T, N2, T)
    if output == "trace":
        slopes = (side.slopes.transpose(0, 2, 1, 3) for side in (left, right))
        n1, t1, n2, t2 = met.shape
        product = _rows(*(s.reshape(s.shape[0] * s.shape[1], -1) for s in slopes))
        return (met * product.reshape(met.shape)).sum((1, 3))
    n1, t1, n2, t2 = met.shape
    if output == "full":
        c1, c2 = left.slopes.shape[1], right.slopes.shape[1]
        product = _rows(*(s.reshape(-1, s.shape[-1]) for s in (left.slopes, right.slopes)))
        product = product.reshape(n1, c1, t1, n2, c2, t2)
        return jnp.einsum("ntms,nctmds->nmcd", met, product)
    product = diagonal(
        left.slopes.transpose(0, 2, 1, 3).reshape(n1 * t1, -1, left.slopes.shape[-1]),
        right.slopes.transpose(0, 2, 1, 3).reshape(n2 * t2, -1, right.slopes.shape[-1]),
    )
    return jnp.einsum("ntms,ntmsc->nmc", met, product.reshape(n1, t1, n2, t2, -1))


def _meet(left: Array, right: Array) -> Array:
    """Inner products of the inputs of two sets of examples: (N1, T, N2, T)."""
    (n1, t1), (n2, t2) = left.shape[:2], right.shape[:2]
    if left.ndim == 2:
        return (left[:, :, None, None] == right[None, None]).astype(jnp.float32)
    met = _rows(left.reshape(n1 * t1, -1), right.reshape(n2 * t2, -1))
    return met.reshape(n1, t1, n2, t2)


def gram(derivatives: Derivatives, output: Output) -> Array:
    """``contract`` of a set of examples with itself, each pair of blocks computed once."""
    n = jax.tree.leaves(derivatives)[0].shape[0]
    if n < 4 * _CHUNKS:
        return contract(derivatives, derivatives, output)
    edges = [n * k // _CHUNKS for k in range(_CHUNKS + 1)]
    parts = [
        jax.tree.map(lambda d, a=a, b=b: d[a:b], derivatives) for a, b in itertools.pairwise(edges)
    ]
    blocks: dict[tuple[int, int], Array] = {}
    for i in range(_CHUNKS):
        for j in range(i, _CHUNKS):
            blocks[i, j] = contract(parts[i], parts[j], output)
            if i < j:
                blocks[j, i] = mirror(blocks[i, j], output)
    return jnp.concatenate(
        [jnp.concatenate([blocks[i, j] for j in range(_CHUNKS)], axis=1) for i in range(_CHUNKS)]
    )


def shape(output: Output, n1: int, n2: int, outputs: int) -> tuple[int, ...]:
    """The shape of a kernel in this layout."""
    trailing = {"full": (outputs, outputs), "trace": (), "diagonal": (outputs,)}[output]
    return (n1, n2, *trailing)


def mirror(block: A, output: Output) -> A:
    """The block (j, i) of a symmetric kernel from its block (i, j)."""
    swapped = block.swapaxes(0, 1)
    return swapped.swapaxes(2, 3) if output == "full" else swapped

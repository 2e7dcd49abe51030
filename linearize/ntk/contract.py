"""Products of derivatives in each layout of a kernel.

Derivatives of N examples' C outputs come as a Jacobian (N, C, ...), or as the two factors that a
layer's Jacobian is the product of (:class:`Factors`), which are multiplied more cheaply apart.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, TypeAlias, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linearize import cost
from linearize.types import Array

Output = Literal["full", "trace", "mean", "diagonal"]
A = TypeVar("A", Array, np.ndarray)

_CHUNKS = 4
"""A symmetric product is taken as 10 of its 16 blocks, where it takes ``_WORTH`` operations."""

_WORTH = 10**9


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


def mean(left: Array, right: Array) -> Array:
    """The trace divided by the number of outputs: (N1, N2)."""
    return trace(left, right) / left.shape[1]


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
    "mean": mean,
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
    """Σ_t of what the left's position t gives with all of the right's, one t after another."""
    inputs, slopes = jnp.moveaxis(right.inputs, 1, 0), jnp.moveaxis(right.slopes, 2, 0)

    def at(position: tuple[Array, Array]) -> Array:
        met = _meet(position[0], inputs)
        return _FACTORED[output](met, position[1], slopes)

    positions = jnp.moveaxis(left.inputs, 1, 0), jnp.moveaxis(left.slopes, 2, 0)
    if positions[0].shape[0] == 1:
        return at(jax.tree.map(lambda side: side[0], positions))
    n1, n2, c1, c2 = (side.slopes.shape[i] for i in (0, 1) for side in (left, right))
    zero = jnp.zeros(shape(output, n1, n2, c1, c2), left.slopes.dtype)
    return lax.scan(lambda total, t: (total + at(t), None), zero, positions)[0]


def _full_factors(met: Array, left: Array, right: Array) -> Array:
    (n1, c1, _), (t2, n2, c2, _) = left.shape, right.shape
    product = _rows(left.reshape(n1 * c1, -1), right.reshape(t2 * n2 * c2, -1))
    product = product.reshape(n1, c1, t2, n2, c2)
    return (product * met[:, None, :, :, None]).sum(2).transpose(0, 2, 1, 3)


def _trace_factors(met: Array, left: Array, right: Array) -> Array:
    (n1, *_), (t2, n2, *_) = left.shape, right.shape
    product = _rows(left.reshape(n1, -1), right.reshape(t2 * n2, -1))
    return (product.reshape(n1, t2, n2) * met).sum(1)


def _mean_factors(met: Array, left: Array, right: Array) -> Array:
    return _trace_factors(met, left, right) / left.shape[1]


def _diagonal_factors(met: Array, left: Array, right: Array) -> Array:
    (n1, *_), (t2, n2, c, m) = left.shape, right.shape
    product = diagonal(left, right.reshape(t2 * n2, c, m)).reshape(n1, t2, n2, c)
    return (product * met[..., None]).sum(1)


_FACTORED = {
    "full": _full_factors,
    "trace": _trace_factors,
    "mean": _mean_factors,
    "diagonal": _diagonal_factors,
}
"""``(met (N1, T, N2), slopes (N1, C, M), slopes (T, N2, C, M))`` to a layout, by name."""


def _meet(left: Array, right: Array) -> Array:
    """Inner products of inputs (N1, K) and (T, N2, K), or which are equal: (N1, T, N2)."""
    if left.ndim == 1:
        return (left[:, None, None] == right[None]).astype(jnp.float32)
    product = _rows(left, right.reshape(-1, right.shape[-1]))
    return product.reshape(-1, *right.shape[:2])


def gram(derivatives: Derivatives, output: Output) -> Array:
    """``contract`` of a set of examples with itself, each pair of blocks computed once."""
    n = jax.tree.leaves(derivatives)[0].shape[0]
    whole = partial(contract, output=output)
    spec = jax.eval_shape(whole, derivatives, derivatives)
    if n < 4 * _CHUNKS or cost.count_flops(whole, derivatives, derivatives) < _WORTH:
        return whole(derivatives, derivatives)
    rows = -(-n // _CHUNKS)
    starts = np.minimum(rows * np.arange(_CHUNKS), n - rows)
    pairs = np.stack([starts[k] for k in np.triu_indices(_CHUNKS)], axis=1)

    def place(total: Array, block: Array, i: Array, j: Array) -> Array:
        return lax.dynamic_update_slice(total, block, (i, j, *[0] * (block.ndim - 2)))

    # one pair after another: slices of all pairs at once would be a second copy of the derivatives
    def step(total: Array, pair: Array) -> tuple[Array, None]:
        i, j = pair
        left, right = (
            jax.tree.map(lambda d, k=k: lax.dynamic_slice_in_dim(d, k, rows), derivatives)
            for k in (i, j)
        )
        block = whole(left, right)
        return place(place(total, mirror(block, output), j, i), block, i, j), None

    return lax.scan(step, jnp.zeros(spec.shape, spec.dtype), jnp.asarray(pairs))[0]


def shape(
    output: Output, n1: int, n2: int, outputs: int, outputs2: int | None = None
) -> tuple[int, ...]:
    """The shape of a kernel in this layout."""
    second = outputs if outputs2 is None else outputs2
    trailing = {"full": (outputs, second), "diagonal": (outputs,)}.get(output, ())
    return (n1, n2, *trailing)


def mirror(block: A, output: Output) -> A:
    """The block (j, i) of a symmetric kernel from its block (i, j)."""
    swapped = block.swapaxes(0, 1)
    return swapped.swapaxes(2, 3) if output == "full" else swapped

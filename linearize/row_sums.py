"""Sums over rows as matrix products, and inner products in pieces, for XLA on CPUs.

A bias or a scale is shared by all rows (examples and tokens), so its gradient is a sum over them.
XLA for CPUs adds up such an array column by column, past the cache: 20 ms of processor time for
3,200 rows of 1,536, where products with rows of ones take 0.7 ms and round less. And where the
gradient of a kernel is contracted over examples and tokens, two axes, one side is transposed and
copied first; over one axis it is not. Of an inner product over all axes XLA writes out the
products and adds them up after (80 ms for 28 million numbers); in pieces that stay in the cache it
takes 12. :func:`as_products` writes all three so in the program of any function, in its loops too.
``docs/results/bench.md`` has what a training step saves.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from linearize.types import Array, PyTree

_FEW = 32
"""Rows up to which XLA sums them in one go."""

_LONG = 4096
"""Rows that one product sums at most."""

_PIECE, _PIECES = 1 << 17, 8
"""Numbers of an inner product that are multiplied and summed at once, at most (a quarter of it at
least), and pieces that are worth a loop."""

_INNER = {
    "scan": ("jaxpr",),
    "jit": ("jaxpr",),
    "while": ("body_jaxpr",),
    "cond": ("branches",),
    "checkpoint": ("jaxpr",),
    "remat2": ("jaxpr",),
    "closed_call": ("call_jaxpr",),
}
"""Primitives with programs inside, by the names of their parameters."""


def as_products(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """The same function, its sums over leading axes and products over several written otherwise.

    Args:
        function: of trees of arrays. It is its program that is rewritten: a gradient whose sums
            are meant is taken inside.

    >>> gradient = jax.grad(lambda bias, x: (x * jnp.broadcast_to(bias, x.shape)).sum())
    >>> x = jnp.ones((8, 8, 32))
    >>> as_products(gradient)(jnp.zeros(32), x)[:3].tolist()
    [64.0, 64.0, 64.0]
    """

    def rewritten(*args: PyTree) -> PyTree:
        program, shape = jax.make_jaxpr(function, return_shape=True)(*args)
        out = _evaluate(program, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), out)

    return rewritten


def _evaluate(program: core.ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    jaxpr = program.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, program.consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(variables: Sequence[Any]) -> list[Any]:
        return [v.val if isinstance(v, core.Literal) else values[v] for v in variables]

    for equation in jaxpr.eqns:
        with equation.ctx.manager:
            results = _results(equation, read(equation.invars))
        values.update(zip(equation.outvars, results, strict=True))
    return read(jaxpr.outvars)


def _results(equation: core.JaxprEqn, operands: list[Any]) -> list[Any]:
    write = _WRITTEN.get(equation.primitive.name)
    if write is not None and (result := write(equation, operands)) is not None:
        return [result]
    params = equation.params
    inside = {n: _inside(params[n]) for n in _INNER.get(equation.primitive.name, ())}
    params = equation.primitive.get_bind_params(dict(params) | inside)
    bound = equation.primitive.bind(*operands, **params)
    return list(bound) if equation.primitive.multiple_results else [bound]


def _inside(program: Any) -> Any:
    """A program within a primitive's parameters, or several."""
    if isinstance(program, tuple):
        return tuple(map(_inside, program))
    closed = program if isinstance(program, core.ClosedJaxpr) else core.ClosedJaxpr(program, ())
    if closed.jaxpr.constvars or closed.jaxpr.effects or not _has_any(closed.jaxpr):
        return program
    shapes = [
        jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype, weak_type=v.aval.weak_type)
        for v in closed.jaxpr.invars
    ]
    new = jax.make_jaxpr(lambda *args: _evaluate(closed, args))(*shapes)
    if new.consts:
        return program
    return new if isinstance(program, core.ClosedJaxpr) else new.jaxpr


def _has_any(jaxpr: core.Jaxpr) -> bool:
    """Whether there is anything to rewrite."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in _WRITTEN:
            return True
        for name in _INNER.get(equation.primitive.name, ()):
            found = equation.params[name]
            for each in found if isinstance(found, tuple) else (found,):
                if _has_any(each.jaxpr if isinstance(each, core.ClosedJaxpr) else each):
                    return True
    return False


def _sum(equation: core.JaxprEqn, operands: list[Array]) -> Array | None:
    """Σ over many rows, as ``1ᵀ X``; None where it is another sum."""
    (x,), axes = operands, equation.params["axes"]
    rows, rest = math.prod(x.shape[: len(axes)]), x.shape[len(axes) :]
    if tuple(axes) != tuple(range(len(axes))) or not rest or rows <= _FEW:
        return None
    if x.dtype not in (jnp.float32, jnp.float64) or math.prod(rest) < _FEW:
        return None
    # each product sums naively: the parts keep the error that of a few hundred rows
    parts = next(n for n in range(_FEW, 0, -1) if rows % n == 0)
    if rows > _LONG * parts:
        return None
    numbers = (((2,), (1,)), ((0,), (0,)))
    ones, apart = jnp.ones((parts, 1, rows // parts), x.dtype), x.reshape(parts, rows // parts, -1)
    sums = lax.dot_general(ones, apart, numbers, precision=lax.Precision.HIGHEST)
    return sums.sum((0, 1)).reshape(rest)


def _product(equation: core.JaxprEqn, operands: list[Array]) -> Array | None:
    """``Σ_bt a[b, t] ⊗ c[b, t]`` over one axis; None where it is another product."""
    (left, right), params = operands, equation.params
    contracted, batched = params["dimension_numbers"]
    count = len(contracted[0])
    leading = tuple(range(count))
    if batched[0] or any(tuple(axes) != leading for axes in contracted):
        return None
    if count == left.ndim == right.ndim:
        same = params["preferred_element_type"] in (None, left.dtype)
        return _inner_product(left, right) if same else None
    if count < 2:
        return None
    return lax.dot_general(
        left.reshape(-1, *left.shape[count:]),
        right.reshape(-1, *right.shape[count:]),
        (((0,), (0,)), ((), ())),
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )


def _inner_product(left: Array, right: Array) -> Array | None:
    """Σ a·b piece by piece; None where the arrays are small or do not come apart evenly."""
    if left.dtype != right.dtype or left.dtype not in (jnp.float32, jnp.float64):
        return None
    counts = range(max(-(-left.size // _PIECE), _PIECES), 4 * left.size // _PIECE + 1)
    count = next((n for n in counts if left.size % n == 0), None)
    if count is None:
        return None

    def add(total: Array, pieces: tuple[Array, Array]) -> tuple[Array, None]:
        return total + (pieces[0] * pieces[1]).sum(), None

    pieces = left.reshape(count, -1), right.reshape(count, -1)
    return lax.scan(add, jnp.zeros((), left.dtype), pieces)[0]


_WRITTEN: dict[str, Callable[[core.JaxprEqn, list[Array]], Array | None]] = {
    "reduce_sum": _sum,
    "dot_general": _product,
}
"""Primitives that are written otherwise, and how."""

"""Exact operation counts, read off the jaxpr: what a program costs before it is compiled.

XLA's ``cost_analysis`` counts the body of a loop once; these counts multiply it by its length.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval


def count_flops(f: Callable[..., Any], *args: Any) -> int:
    """Floating-point operations of ``f(*args)`` in matrix products and convolutions.

    A multiply-add counts as two. Elementwise operations, a few per cent in networks, are left out.
    A scan's body counts ``length`` times, a while loop's body once (its length is not known), a
    conditional as its dearest branch, and the body of a ``shard_map`` as on one device. What no
    output depends on is not counted: the compiler drops it. Nothing is run, so arguments may be
    ``jax.ShapeDtypeStruct``.

    >>> x = jax.ShapeDtypeStruct((8, 3), "float32")
    >>> w = jax.ShapeDtypeStruct((3, 5), "float32")
    >>> count_flops(lambda x, w: x @ w, x, w)
    240
    """
    jaxpr = jax.make_jaxpr(f)(*args).jaxpr
    needed, _ = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _flops(needed)


def equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
    """All equations of a jaxpr, those of inner jaxprs (loops, jit, remat, custom rules) included.

    >>> doubled = jax.make_jaxpr(jax.jit(lambda x: 2 * x))(1.0).jaxpr
    >>> [equation.primitive.name for equation in equations(doubled)]
    ['jit', 'mul']
    """
    for equation in jaxpr.eqns:
        yield equation
        for body in inner(equation):
            yield from equations(body)


def inner(equation: core.JaxprEqn) -> list[core.Jaxpr]:
    """The jaxprs that an equation holds: the bodies of loops, jit, remat and custom rules."""
    found = []
    for value in jax.tree.leaves(
        list(equation.params.values()),
        is_leaf=lambda v: isinstance(v, core.Jaxpr | core.ClosedJaxpr),
    ):
        if isinstance(value, core.ClosedJaxpr):
            found.append(value.jaxpr)
        elif isinstance(value, core.Jaxpr):
            found.append(value)
    return found


def _flops(jaxpr: core.Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        bodies = [_flops(body) for body in inner(equation)]
        if name == "dot_general":
            total += 2 * _dot(equation)
        elif name == "conv_general_dilated":
            total += 2 * _convolution(equation)
        elif name == "cond":
            total += max(bodies)
        elif name == "scan":
            total += equation.params["length"] * sum(bodies)
        else:
            total += sum(bodies)
    return total


def _shapes(variables: Sequence[Any]) -> list[tuple[int, ...]]:
    return [v.aval.shape for v in variables]


def _dot(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    (left, _), (out,) = _shapes(equation.invars), _shapes(equation.outvars)
    return math.prod(out) * math.prod(left[d] for d in contracted)


def _convolution(equation: core.JaxprEqn) -> int:
    """Multiply-adds that meet an input element: padding and dilation's zeros are not counted.

    So the two gradients of a convolution cost what the convolution does, as with matrices.
    """
    p = equation.params
    numbers = p["dimension_numbers"]
    (image, kernel), (out,) = _shapes(equation.invars), _shapes(equation.outvars)
    batch, features, *places = numbers.out_spec
    _, channels, *taps = numbers.rhs_spec  # the channels of one group
    count = out[batch] * out[features] * kernel[channels]
    for axis, (o, k, i) in enumerate(zip(places, taps, numbers.lhs_spec[2:], strict=True)):
        # where along this axis each pair of an output place and a kernel tap looks
        looks = (
            p["window_strides"][axis] * np.arange(out[o])[:, None]
            + p["rhs_dilation"][axis] * np.arange(kernel[k])[None, :]
            - p["padding"][axis][0]
        )
        spread = p["lhs_dilation"][axis]
        inside = (looks >= 0) & (looks <= spread * (image[i] - 1)) & (looks % spread == 0)
        count *= int(inside.sum())
    return count

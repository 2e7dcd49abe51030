"""Which leaves a model scans through, and so have an axis of layers before the others."""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core

from linearize import cost, identity, tree
from linearize.types import Apply, Params, PyTree


def scanned(f: Apply, params0: Params, *inputs: PyTree) -> frozenset[str]:
    """Names of the leaves that a ``jax.lax.scan`` in ``f`` goes through along axis 0.

    Args:
        f: the model, which is traced.
        params0: θ0.
        *inputs: arrays or their shapes.

    >>> f = lambda p, x: p["a"] * jax.lax.scan(lambda y, w: (y @ w, None), x, p["w"])[0]
    >>> ones = jax.numpy.ones
    >>> scanned(f, {"a": ones(()), "w": ones((3, 2, 2))}, ones((1, 2)))
    frozenset({'w'})
    """
    traced = jax.make_jaxpr(f)(params0, *identity.shapes(inputs)).jaxpr
    names = dict(zip(traced.invars, tree.names(params0), strict=False))
    return frozenset(_scanned(traced, names))


def _scanned(jaxpr: core.Jaxpr, names: dict[Any, str]) -> Iterator[str]:
    for equation in jaxpr.eqns:
        given = [None if isinstance(v, core.Literal) else names.get(v) for v in equation.invars]
        if equation.primitive.name == "scan":
            first = equation.params["num_consts"] + equation.params["num_carry"]
            yield from filter(None, given[first:])
        elif equation.primitive.name == "convert_element_type" and given[0]:
            names[equation.outvars[0]] = given[0]
        for inner in cost.inner(equation):
            if len(inner.invars) == len(given):
                below = zip(inner.invars, given, strict=True)
                yield from _scanned(inner, {v: name for v, name in below if name})

"""The layers of a traced model whose Jacobian is a product of two factors.

A weight that is multiplied once by an activation, ``z = a W``, has the derivative
``∂f/∂W = Σ_t a_t ⊗ ∂f/∂z_t``. Both factors come from one reverse pass: the activation is read
where the model computes it, and ∂f/∂z is the derivative with respect to a zero that is added
there. Dense layers, attention projections, convolutions (through patches) and embeddings are of
this kind (*Fast Finite Width Neural Tangent Kernel*, §3.3: structured derivatives). What is not
recognised (a weight used twice, inside a loop or a custom rule) keeps its ordinary Jacobian.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend import core

from linearize.ntk.pointwise import Inputs, Pointwise
from linearize.types import Array, Flat, Params

Path = tuple[int, ...]

_INLINED = {
    "jit": "jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
}


@dataclass(frozen=True)
class Layer:
    """One recognised use of a weight.

    Attributes:
        weight: name of the leaf.
        path: place of the equation in the jaxpr, call by call.
        positions: T, how many inputs of an example meet the weight.
        inner: K, the width of each input (rows of the weight, for a look-up).
        outer: M, the width of what each gives.
        inputs: from the equation's operands to the T inputs: (T, K), or integers (T,).
        place: from a (T, M) array to the shape of the equation's result.
        looks_up: whether the inputs are integers.
    """

    weight: str
    path: Path
    positions: int
    inner: int
    outer: int
    inputs: Callable[[Sequence[Array]], Array]
    place: Callable[[Array], Array]
    looks_up: bool = False


@dataclass(frozen=True)
class Traced:
    """A model as a jaxpr of ``(params, named, example)``, with the layers found in it."""

    jaxpr: core.ClosedJaxpr
    layers: dict[str, Layer]

    def __call__(
        self, params: Params, named: Flat, example: Inputs, zeros: Flat
    ) -> tuple[Array, dict[str, Array]]:
        """The outputs (C,) with ``zeros`` (T, M) added in their layers, and the layers' inputs."""
        args = jax.tree.leaves((params, dict(named), example))
        inputs: dict[str, Array] = {}
        tapped = {layer.path: layer for n, layer in self.layers.items() if n in zeros}
        (out,) = _evaluate(self.jaxpr.jaxpr, self.jaxpr.consts, args, (), tapped, zeros, inputs)
        return out, inputs


def trace_layers(point: Pointwise) -> Traced:
    """Trace the model for one example and find its factored layers."""
    named = point.named
    closed = jax.make_jaxpr(point)(point.params, named, point.inputs)
    before = len(jax.tree.leaves(point.params))
    roles: dict[Any, str] = dict(zip(closed.jaxpr.invars[before:], sorted(named), strict=False))
    uses: dict[str, list[Layer | None]] = {n: [] for n in named}
    _find(closed.jaxpr, roles, (), uses)
    found = {n: used[0] for n, used in uses.items() if len(used) == 1}
    return Traced(closed, {n: layer for n, layer in found.items() if layer is not None})


def _find(
    jaxpr: core.Jaxpr, roles: dict[Any, str], path: Path, uses: dict[str, list[Layer | None]]
) -> dict[Any, str]:
    """Record every use of a weight; returns which variables are weights under other names."""
    roles = dict(roles)
    for k, equation in enumerate(jaxpr.eqns):
        here, name = (*path, k), equation.primitive.name
        carried = [(i, roles[v]) for i, v in enumerate(equation.invars) if _is(v, roles)]
        if not carried:
            continue
        if name == "convert_element_type" and jnp.issubdtype(
            _spec(equation.outvars[0]).dtype, jnp.floating
        ):
            roles[equation.outvars[0]] = carried[0][1]
        elif name in _INLINED:
            inner = _body(equation)
            below = {inner.invars[i]: weight for i, weight in carried}
            seen = _find(inner, below, here, uses)
            for outer_variable, variable in zip(equation.outvars, inner.outvars, strict=True):
                if _is(variable, seen):
                    roles[outer_variable] = seen[variable]
        else:
            recognise = _RECOGNISED.get(name)
            for i, weight in carried:
                layer = recognise(equation, i, weight, here) if recognise else None
                uses[weight].append(layer)
    for variable in jaxpr.outvars:
        if not path and _is(variable, roles):
            uses[roles[variable]].append(None)
    return roles


def _spec(variable: Any) -> Any:
    """Shape and dtype of a variable of a jaxpr."""
    return variable.aval


def _is(variable: Any, roles: dict[Any, str]) -> bool:
    return not isinstance(variable, core.Literal) and variable in roles


def _body(equation: core.JaxprEqn) -> core.Jaxpr:
    body = equation.params[_INLINED[equation.primitive.name]]
    return body.jaxpr if isinstance(body, core.ClosedJaxpr) else body


def _evaluate(
    jaxpr: core.Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Any],
    path: Path,
    tapped: dict[Path, Layer],
    zeros: Flat,
    inputs: dict[str, Array],
) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for k, equation in enumerate(jaxpr.eqns):
        here = (*path, k)
        operands = [v.val if isinstance(v, core.Literal) else values[v] for v in equation.invars]
        if any(p[: len(here)] == here and len(p) > len(here) for p in tapped):
            body = equation.params[_INLINED[equation.primitive.name]]
            inner = body.consts if isinstance(body, core.ClosedJaxpr) else ()
            results = _evaluate(_body(equation), inner, operands, here, tapped, zeros, inputs)
        else:
            params = equation.primitive.get_bind_params(equation.params)
            with equation.ctx.manager:
                bound = equation.primitive.bind(*operands, **params)
            results = list(bound) if equation.primitive.multiple_results else [bound]
        if here in tapped:
            layer = tapped[here]
            inputs[layer.weight] = layer.inputs(operands)
            added = layer.place(zeros[layer.weight])
            results = [results[0] + added.astype(results[0].dtype)]
        values.update(zip(equation.outvars, results, strict=True))
    return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars]


def _dense(equation: core.JaxprEqn, side: int, weight: str, path: Path) -> Layer | None:
    contracted, batched = equation.params["dimension_numbers"]
    if batched[0]:
        return None
    activation = 1 - side
    shape = _spec(equation.invars[activation]).shape
    inner = contracted[activation]
    free = [d for d in range(len(shape)) if d not in inner]
    # the weight's own contracted axes may come in another order; it is the same on both sides
    K, T = math.prod(shape[d] for d in inner), math.prod(shape[d] for d in free)
    result = _spec(equation.outvars[0]).shape
    M = math.prod(result) // T

    def inputs(operands: Sequence[Array]) -> Array:
        return operands[activation].transpose(*free, *inner).reshape(T, K)

    def place(added: Array) -> Array:
        return (added if side == 1 else added.T).reshape(result)

    return Layer(weight, path, T, K, M, inputs, place)


def _convolution(equation: core.JaxprEqn, side: int, weight: str, path: Path) -> Layer | None:
    p = equation.params
    if side != 1 or p["feature_group_count"] != 1 or p["batch_group_count"] != 1:
        return None
    numbers = p["dimension_numbers"]
    kernel, result = _spec(equation.invars[1]).shape, _spec(equation.outvars[0]).shape
    batch, features, *places = numbers.out_spec
    M = result[features]
    T, K = math.prod(result) // M, math.prod(kernel) // M
    order = (batch, *places, features)
    back = [order.index(d) for d in range(len(order))]

    def inputs(operands: Sequence[Array]) -> Array:
        rows, channels, *sides_in = numbers.lhs_spec
        image = operands[0].transpose(rows, *sides_in, channels)
        sides = [result[d] for d in places]
        taps = [kernel[d] for d in numbers.rhs_spec[2:]]
        return _patches(image, sides, taps, p).reshape(T, K)

    def place(added: Array) -> Array:
        return added.reshape([result[d] for d in order]).transpose(back)

    return Layer(weight, path, T, K, M, inputs, place)


def _patches(
    image: Array, sides: Sequence[int], taps: Sequence[int], p: Mapping[str, Any]
) -> Array:
    """What each place of a convolution's output sees, (B, *sides, taps * channels), by slicing.

    ``lax.conv_general_dilated_patches`` would multiply with ones and zeros.
    """
    edges = zip(p["padding"], p["lhs_dilation"], strict=True)
    spread = [(0, 0, 0), *((low, high, d - 1) for (low, high), d in edges), (0, 0, 0)]
    padded = lax.pad(image, jnp.zeros((), image.dtype), spread)
    strides = (1, *p["window_strides"], 1)
    seen = []
    for tap in itertools.product(*map(range, taps)):
        first = [0, *(k * d for k, d in zip(tap, p["rhs_dilation"], strict=True)), 0]
        last = [
            start + (side - 1) * stride + 1
            for start, side, stride in zip(
                first, (image.shape[0], *sides, image.shape[-1]), strides, strict=True
            )
        ]
        seen.append(lax.slice(padded, first, last, strides))
    return jnp.concatenate(seen, axis=-1)


def _embedding(equation: core.JaxprEqn, side: int, weight: str, path: Path) -> Layer | None:
    numbers, table = equation.params["dimension_numbers"], _spec(equation.invars[0]).shape
    result = _spec(equation.outvars[0]).shape
    trailing = tuple(range(len(result) - len(table) + 1, len(result)))
    plain = (
        side == 0
        and tuple(numbers.collapsed_slice_dims) == (0,)
        and tuple(numbers.start_index_map) == (0,)
        and not numbers.operand_batching_dims
        and tuple(equation.params["slice_sizes"]) == (1, *table[1:])
        and tuple(numbers.offset_dims) == trailing
    )
    if not plain:
        return None
    M = math.prod(table[1:])
    T = math.prod(result) // M

    def inputs(operands: Sequence[Array]) -> Array:
        return jnp.clip(operands[1].reshape(T), 0, table[0] - 1)

    return Layer(weight, path, T, table[0], M, inputs, lambda a: a.reshape(result), looks_up=True)


_RECOGNISED = {
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "gather": _embedding,
}
"""Primitives that multiply a weight by an activation, and how."""

"""The layers of a traced model whose Jacobian is a product of two factors.

A weight that is multiplied once by an activation, ``z = a W``, has the derivative
``∂f/∂W = Σ_t a_t ⊗ ∂f/∂z_t``. Both factors come from one reverse pass: the activation is read
where the model computes it, and ∂f/∂z is the derivative with respect to a zero that is added
there. Dense layers, attention projections, convolutions (through patches) and embeddings are of
this kind (*Fast Finite Width Neural Tangent Kernel*, §3.3: structured derivatives). A weight used
several times, or by each step of a scan, has one such product a use (:func:`trace_uses`); kernels
take those of a single one, and those of a table of which rows are looked up, however often
(:func:`trace_layers`). What is not recognised (a custom rule, a loop of
unknown length) keeps its ordinary Jacobian.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import core

from linearize.ntk.pointwise import Inputs, Pointwise
from linearize.types import Array, Flat, Params

Path = tuple[int, ...]

Steps = tuple[tuple[str, tuple[int, ...]], ...]
"""``("transpose", axes)`` and ``("reshape", shape)``, one after another."""

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
        inputs: from the equation's operands to the T inputs: (T, K), or integers (T,), K where a
            look-up reads no row.
        place: from a (T, M) array to the shape of the equation's result.
        looks_up: whether the inputs are integers.
        axes: of the equation's result, those along which the M lie.
        steps: from the leaf, or a scan's slice of it, to the matrix (K, M).
        repeats: lengths of the scans around it; inputs and what is added have these axes first.
        stacked: which of those scans go along the leaf's first axes.
        bias: a leaf that is added to what the weight gives, and to nothing else.
        packed: how many layers lie side by side in the weight: what it gives is read in that many
            equal runs of its M columns, as are queries, keys and values of one kernel.
    """

    weight: str
    path: Path
    positions: int
    inner: int
    outer: int
    inputs: Callable[[Sequence[Array]], Array]
    place: Callable[[Array], Array]
    looks_up: bool = False
    axes: Path = ()
    steps: Steps = ()
    repeats: tuple[int, ...] = ()
    stacked: tuple[int, ...] = ()
    bias: str | None = None
    packed: int = 1

    @property
    def by_rows(self) -> bool:
        """Whether an example looks up fewer rows of a table than there are."""
        return self.looks_up and self.positions < self.inner


@dataclass(frozen=True)
class Other:
    """Any other use of a leaf.

    Attributes:
        stacked: as of a layer.
        adds_to: weight and path of the layer to whose result alone it is added.
    """

    stacked: tuple[int, ...] = ()
    adds_to: tuple[str, Path] | None = None


Use = Layer | Other


@dataclass(frozen=True)
class Traced:
    """A model as a jaxpr of ``(params, named, example)``, with the layers found in it."""

    jaxpr: core.ClosedJaxpr
    layers: dict[str, Layer]
    """By the weight's name, or, of one with several, by name and number."""
    rest: dict[str, int] = field(default_factory=dict)
    """All other leaves, each with the number of its first axes that scans go along."""

    @property
    def weights(self) -> dict[str, Layer]:
        """A layer of each weight, with the positions of all that it has."""
        found: dict[str, Layer] = {}
        for layer in self.layers.values():
            more = found[layer.weight].positions if layer.weight in found else 0
            found[layer.weight] = replace(layer, positions=layer.positions + more)
        return found

    def __call__(
        self, params: Params, named: Flat, example: Inputs, zeros: Flat
    ) -> tuple[Array, dict[str, Array]]:
        """The outputs (C,) with ``zeros`` (T, M) added in their layers, and the layers' inputs."""
        args = jax.tree.leaves((params, dict(named), example))
        inputs: dict[str, Array] = {}
        tapped: Tapped = {}
        for name in zeros:
            layer = self.layers[name]
            tapped.setdefault(layer.path, {})[name] = layer
        (out,) = _evaluate(self.jaxpr.jaxpr, self.jaxpr.consts, args, (), tapped, zeros, inputs)
        return out, inputs


Tapped = dict[Path, dict[str, Layer]]
"""By place in the jaxpr, and there by name: a product of two weights is a use of both."""


def trace_layers(point: Pointwise) -> Traced:
    """Trace the model for one example; the layers of weights that are used once or looked up."""
    closed, uses = _uses(point)
    layers: dict[str, Layer] = {}
    for n, used in uses.items():
        found = [use for use in used if isinstance(use, Layer) and not use.repeats]
        if len(found) == len(used) and (len(used) == 1 or all(use.looks_up for use in found)):
            layers.update(_keyed(n, found))
    return Traced(closed, layers)


def trace_tables(point: Pointwise) -> Traced:
    """Those of the tables of which an example looks up fewer rows than there are."""
    traced = trace_layers(point)
    tables = {n for n, k in traced.weights.items() if k.by_rows}
    return replace(traced, layers={n: k for n, k in traced.layers.items() if k.weight in tables})


def trace_uses(point: Pointwise) -> Traced:
    """Trace the model for one example and find all layers, a weight's several uses and scans too.

    A leaf is in ``rest`` if one of its uses is no layer; a bias is part of its weight's.
    """
    closed, uses = _uses(point)
    layers: dict[str, Layer] = {}
    rest: dict[str, int] = {}
    biases = {weight: n for n in uses if (weight := _added_to(n, uses)) is not None}
    for n, used in uses.items():
        whole = [use for use in used if isinstance(use, Layer)]
        if whole and len(whole) == len(used):
            for key, layer in _keyed(n, whole).items():
                packed = _packed(closed.jaxpr, layer)
                layers[key] = replace(layer, bias=biases.get(n), packed=packed)
        elif n not in biases.values():
            depths = {len(use.stacked) for use in used}
            rest[n] = depths.pop() if len(depths) == 1 else 0
    return Traced(closed, layers, rest)


def _keyed(name: str, layers: Sequence[Layer]) -> dict[str, Layer]:
    """The layers of a weight under its name, or, of several, under what is no leaf's name."""
    return {(name if len(layers) == 1 else f"{name}\0{i}"): x for i, x in enumerate(layers)}


def _added_to(bias: str, uses: Mapping[str, Sequence[Use]]) -> str | None:
    """The weight to whose every result, and to nothing else, the leaf is added."""
    places = {(use.adds_to, use.stacked) if isinstance(use, Other) else None for use in uses[bias]}
    weights = {place[0][0] for place in places if place and place[0]}
    if len(weights) != 1:
        return None
    (weight,) = weights
    results = {
        ((weight, use.path), use.stacked) if isinstance(use, Layer) and not use.looks_up else None
        for use in uses[weight]
    }
    return weight if places == results and None not in places else None


def _packed(jaxpr: core.Jaxpr, layer: Layer) -> int:
    """Follows the columns of a layer's result to where they are read, each read's by itself."""
    *outer, last = layer.path
    for k in outer:
        jaxpr = _body(jaxpr.eqns[k])
    (result,) = jaxpr.eqns[last].outvars
    shape = _spec(result).shape
    own = [n if d in layer.axes else 1 for d, n in enumerate(shape)]
    first = np.broadcast_to(np.arange(layer.outer).reshape(own), shape)
    columns: dict[Any, np.ndarray] = {result: first}
    read: list[np.ndarray] = []
    for equation in jaxpr.eqns[last + 1 :]:
        seen = [columns[v] for v in equation.invars if _is(v, columns)]
        move = _MOVED.get(equation.primitive.name) if len(seen) == 1 else None
        moved = move(equation, seen[0]) if move else None
        if moved is None:
            read += seen
        else:
            columns.update(zip(equation.outvars, moved, strict=True))
    read += [columns[v] for v in jaxpr.outvars if _is(v, columns)]
    runs = {(np.bincount(x.ravel(), minlength=layer.outer) > 0).tobytes() for x in read}
    equal = np.repeat(np.eye(len(runs), dtype=bool), layer.outer // (len(runs) or 1), axis=1)
    return len(runs) if runs and runs == {run.tobytes() for run in equal} else 1


def _elementwise(equation: core.JaxprEqn, x: np.ndarray) -> list[np.ndarray] | None:
    return [x] if _spec(equation.outvars[0]).shape == x.shape else None


def _reordered(equation: core.JaxprEqn, x: np.ndarray) -> list[np.ndarray] | None:
    shape = _spec(equation.outvars[0]).shape
    return [x.reshape(shape)] if math.prod(shape) == x.size else None


def _sliced(equation: core.JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    p = equation.params
    ranges = p["start_indices"], p["limit_indices"], p["strides"] or [1] * x.ndim
    return [x[tuple(itertools.starmap(slice, zip(*ranges, strict=True)))]]


def _split(equation: core.JaxprEqn, x: np.ndarray) -> list[np.ndarray]:
    ends = np.cumsum(equation.params["sizes"])[:-1]
    return np.split(x, ends, equation.params["axis"])


_MOVED: dict[str, Callable[[core.JaxprEqn, np.ndarray], list[np.ndarray] | None]] = {
    **dict.fromkeys(("add", "sub", "mul", "div", "convert_element_type"), _elementwise),
    **dict.fromkeys(("reshape", "squeeze", "expand_dims", "broadcast_in_dim"), _reordered),
    "transpose": lambda equation, x: [x.transpose(equation.params["permutation"])],
    "slice": _sliced,
    "split": _split,
}
"""Primitives after which columns are themselves, in other places; None where they are not."""


def _uses(point: Pointwise) -> tuple[core.ClosedJaxpr, dict[str, list[Use]]]:
    named = point.named
    closed = jax.make_jaxpr(point)(point.params, named, point.inputs)
    before = len(jax.tree.leaves(point.params))
    views = map(_View, sorted(named))
    roles: dict[Any, _View | Layer] = dict(zip(closed.jaxpr.invars[before:], views, strict=False))
    uses: dict[str, list[Use]] = {n: [] for n in named}
    _find(closed.jaxpr, roles, (), uses)
    return closed, uses


@dataclass(frozen=True)
class _View:
    """A leaf under another name, in another order or shape, or repeated along other axes."""

    weight: str
    steps: Steps = ()
    axes: Path | None = None
    """Those along which it varies; None for all."""
    repeats: tuple[int, ...] = ()
    stacked: tuple[int, ...] = ()

    def other(self, adds_to: tuple[str, Path] | None = None) -> Other:
        return Other(self.stacked, adds_to)


def _find(
    jaxpr: core.Jaxpr, roles: dict[Any, Any], path: Path, uses: dict[str, list[Use]]
) -> dict[Any, Any]:
    """Record every use of a leaf; returns which variables are leaves, and which layers' results."""
    roles = dict(roles)
    read: Counter[Any] = Counter(
        v for e in jaxpr.eqns for v in e.invars if not isinstance(v, core.Literal)
    )
    read.update(v for v in jaxpr.outvars if not isinstance(v, core.Literal))
    for k, equation in enumerate(jaxpr.eqns):
        here, name = (*path, k), equation.primitive.name
        carried = [(i, roles[v]) for i, v in enumerate(equation.invars) if _is(v, roles)]
        views = [(i, role) for i, role in carried if isinstance(role, _View)]
        if not carried:
            continue
        if name in _RENAMED and (new := _RENAMED[name](equation, carried[0][1])) is not None:
            if isinstance(carried[0][1], _View) or read[equation.invars[0]] == 1:
                roles[equation.outvars[0]] = new
        elif name in _INLINED or name == "scan":
            inner = _body(equation)
            below = {}
            for i, view in views:
                inside = _in_scan(equation, i, view) if name == "scan" else view
                if inside is None:
                    uses[view.weight].append(view.other())
                else:
                    below[inner.invars[i]] = inside
            seen = _find(inner, below, here, uses)
            for outer_variable, variable in zip(equation.outvars, inner.outvars, strict=True):
                if not _is(variable, seen):
                    continue
                if name in _INLINED:
                    roles[outer_variable] = seen[variable]
                elif isinstance(seen[variable], _View):  # what a scan gives of a leaf
                    uses[seen[variable].weight].append(Other())
        else:
            recognise = _RECOGNISED.get(name)
            for i, view in views:
                plain = view.axes is None and recognise is not None
                layer = recognise(equation, i, view, here) if plain and recognise else None
                to = _fold(equation, i, view, roles, read) if name in ("add", "add_any") else None
                uses[view.weight].append(layer or view.other(to))
                if layer is not None:
                    roles[equation.outvars[0]] = layer
    for variable in jaxpr.outvars:
        if not path and _is(variable, roles) and isinstance(roles[variable], _View):
            uses[roles[variable].weight].append(roles[variable].other())
    # a result that is read inside too is not another's alone outside
    return {v: role for v, role in roles.items() if isinstance(role, _View) or read[v] == 1}


def _in_scan(equation: core.JaxprEqn, i: int, view: _View) -> _View | None:
    """A leaf, or a slice of it, in the body of a scan; None where it is carried along."""
    consts, carry = equation.params["num_consts"], equation.params["num_carry"]
    repeats = (*view.repeats, equation.params["length"])
    if i < consts:
        return replace(view, repeats=repeats)
    if i < consts + carry or view.steps or view.axes is not None:
        return None
    return replace(view, repeats=repeats, stacked=(*view.stacked, len(view.repeats)))


def _fold(
    equation: core.JaxprEqn, i: int, view: _View, roles: Mapping[Any, Any], read: Counter
) -> tuple[str, Path] | None:
    """The layer whose result a leaf is added to: one number to each of its M outputs."""
    other = equation.invars[1 - i]
    layer = roles.get(other) if not isinstance(other, core.Literal) else None
    if not isinstance(layer, Layer) or read[other] != 1 or layer.looks_up:
        return None
    spec, result = _spec(equation.invars[i]), _spec(equation.outvars[0])
    axes = view.axes if view.axes is not None else tuple(range(len(spec.shape)))
    varies = tuple(d for d in axes if spec.shape[d] > 1)
    outer = tuple(d for d in layer.axes if result.shape[d] > 1)
    in_order = all(kind == "reshape" for kind, _ in view.steps)
    fits = varies == outer and spec.shape and _spec(other).shape == result.shape
    return (layer.weight, layer.path) if fits and in_order else None


def _converted(equation: core.JaxprEqn, role: Any) -> Any:
    floating = jnp.issubdtype(_spec(equation.outvars[0]).dtype, jnp.floating)
    return role if floating else None


def _transposed(equation: core.JaxprEqn, role: Any) -> Any:
    if not isinstance(role, _View) or role.axes is not None:
        return None
    return replace(role, steps=(*role.steps, ("transpose", tuple(equation.params["permutation"]))))


def _reshaped(equation: core.JaxprEqn, role: Any) -> Any:
    if not isinstance(role, _View) or role.axes is not None:
        return None
    return replace(role, steps=(*role.steps, ("reshape", _spec(equation.outvars[0]).shape)))


def _broadcast(equation: core.JaxprEqn, role: Any) -> Any:
    """The same numbers along more axes; those of length 1 may grow."""
    if not isinstance(role, _View):
        return None
    shape = _spec(equation.invars[0]).shape
    to, places = equation.params["shape"], equation.params["broadcast_dimensions"]
    if math.prod(to) == math.prod(shape):
        return _reshaped(equation, role)
    kept = range(len(shape)) if role.axes is None else role.axes
    return replace(role, axes=tuple(places[d] for d in kept if shape[d] == to[places[d]]))


_RENAMED: dict[str, Callable[[core.JaxprEqn, Any], Any]] = {
    "convert_element_type": _converted,
    "transpose": _transposed,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "expand_dims": _reshaped,
    "broadcast_in_dim": _broadcast,
}
"""Primitives after which a leaf is itself, in another order or shape."""


def _spec(variable: Any) -> Any:
    """Shape and dtype of a variable of a jaxpr."""
    return variable.aval


def _is(variable: Any, roles: Mapping[Any, Any]) -> bool:
    return not isinstance(variable, core.Literal) and variable in roles


def _body(equation: core.JaxprEqn) -> core.Jaxpr:
    body = equation.params[_INLINED.get(equation.primitive.name, "jaxpr")]
    return body.jaxpr if isinstance(body, core.ClosedJaxpr) else body


def _evaluate(
    jaxpr: core.Jaxpr,
    consts: Sequence[Any],
    args: Sequence[Any],
    path: Path,
    tapped: Tapped,
    zeros: Flat,
    inputs: dict[str, Array],
) -> list[Any]:
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    for k, equation in enumerate(jaxpr.eqns):
        here = (*path, k)
        operands = [v.val if isinstance(v, core.Literal) else values[v] for v in equation.invars]
        inside = {p: layers for p, layers in tapped.items() if p[: len(here)] == here and p != here}
        if inside and equation.primitive.name == "scan":
            results = _scan(equation, operands, here, inside, zeros, inputs)
        elif inside:
            body = equation.params[_INLINED[equation.primitive.name]]
            inner = body.consts if isinstance(body, core.ClosedJaxpr) else ()
            results = _evaluate(_body(equation), inner, operands, here, inside, zeros, inputs)
        else:
            params = equation.primitive.get_bind_params(equation.params)
            with equation.ctx.manager:
                bound = equation.primitive.bind(*operands, **params)
            results = list(bound) if equation.primitive.multiple_results else [bound]
        for key, layer in tapped.get(here, {}).items():
            inputs[key] = layer.inputs(operands)
            added = zeros[key]
            if layer.looks_up:  # what is filled in moves with no row
                added = jnp.where((inputs[key] < layer.inner)[:, None], added, 0)
            results = [results[0] + layer.place(added).astype(results[0].dtype)]
        values.update(zip(equation.outvars, results, strict=True))
    return [v.val if isinstance(v, core.Literal) else values[v] for v in jaxpr.outvars]


def _scan(
    equation: core.JaxprEqn,
    operands: Sequence[Any],
    path: Path,
    tapped: Tapped,
    zeros: Flat,
    inputs: dict[str, Array],
) -> list[Any]:
    """A scan whose steps each take their own zeros and give their own inputs."""
    p = equation.params
    first, then = p["num_consts"], p["num_consts"] + p["num_carry"]
    own = {key: zeros[key] for layers in tapped.values() for key in layers}

    def body(carry: list[Any], slices: tuple[list[Any], Flat]) -> tuple[list[Any], Any]:
        xs, each = slices
        seen: dict[str, Array] = {}
        given = [*operands[:first], *carry, *xs]
        out = _evaluate(p["jaxpr"].jaxpr, p["jaxpr"].consts, given, path, tapped, each, seen)
        return out[: p["num_carry"]], (out[p["num_carry"] :], seen)

    carry, (ys, seen) = lax.scan(
        body,
        list(operands[first:then]),
        (list(operands[then:]), own),
        length=p["length"],
        reverse=p["reverse"],
    )
    inputs.update(seen)
    return [*carry, *ys]


def _dense(equation: core.JaxprEqn, side: int, view: _View, path: Path) -> Layer | None:
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
    rows = contracted[side]
    columns = [d for d in range(len(_spec(equation.invars[side]).shape)) if d not in rows]
    axes = range(len(free), len(result)) if side == 1 else range(len(columns))

    def inputs(operands: Sequence[Array]) -> Array:
        return operands[activation].transpose(*free, *inner).reshape(T, K)

    def place(added: Array) -> Array:
        return (added if side == 1 else added.T).reshape(result)

    layer = Layer(view.weight, path, T, K, M, inputs, place)
    return _placed(layer, view, (*rows, *columns), axes)


def _placed(layer: Layer, view: _View, order: Sequence[int], axes: Sequence[int]) -> Layer:
    """A layer with what is known of its weight: the axes' order that makes it (K, M)."""
    to = ("transpose", tuple(order)), ("reshape", (layer.inner, layer.outer))
    return replace(
        layer,
        axes=tuple(axes),
        steps=(*view.steps, *to),
        repeats=view.repeats,
        stacked=view.stacked,
    )


def _convolution(equation: core.JaxprEqn, side: int, view: _View, path: Path) -> Layer | None:
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

    out, into, *sides = numbers.rhs_spec
    layer = Layer(view.weight, path, T, K, M, inputs, place)
    return _placed(layer, view, (*sides, into, out), (features,))


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


def _nearest(found: Array, K: int) -> Array:
    return jnp.clip(found, 0, K - 1)


def _none(found: Array, K: int) -> Array:
    return jnp.where((found >= 0) & (found < K), found, K)


_OUT_OF_RANGE = {
    lax.GatherScatterMode.CLIP: _nearest,
    lax.GatherScatterMode.FILL_OR_DROP: _none,
    # a broken promise reads the nearest row, but reverse mode drops its derivative
    lax.GatherScatterMode.PROMISE_IN_BOUNDS: _none,
}
"""The row whose derivative a look-up out of range is in reverse mode; K for none."""


def _embedding(equation: core.JaxprEqn, side: int, view: _View, path: Path) -> Layer | None:
    """Whole rows of a table, along any one of its axes, by integers."""
    numbers, table = equation.params["dimension_numbers"], _spec(equation.invars[0]).shape
    result = _spec(equation.outvars[0]).shape
    along = tuple(numbers.collapsed_slice_dims)
    plain = (
        side == 0
        and len(along) == 1
        and tuple(numbers.start_index_map) == along
        and not numbers.operand_batching_dims
        and all(n == 1 or n == table[d] for d, n in enumerate(equation.params["slice_sizes"]))
        and math.prod(equation.params["slice_sizes"]) * table[along[0]] == math.prod(table)
        and equation.params["mode"] in _OUT_OF_RANGE
    )
    if not plain:
        return None
    (axis,) = along
    columns = tuple(numbers.offset_dims)
    rest = [d for d in range(len(table)) if d != axis]
    K, M = table[axis], math.prod(table[d] for d in rest)
    T = math.prod(result) // M
    places = [d for d in range(len(result)) if d not in columns]
    order = [*places, *columns]
    back = [order.index(d) for d in range(len(order))]

    out_of_range = _OUT_OF_RANGE[equation.params["mode"]]

    def inputs(operands: Sequence[Array]) -> Array:
        found = operands[1].reshape(T)
        # K may be more than narrow integers hold
        found = found.astype(jnp.int64 if found.dtype.itemsize == 8 else jnp.int32)
        return out_of_range(found, K)

    def place(added: Array) -> Array:
        return added.reshape([result[d] for d in order]).transpose(back)

    layer = Layer(view.weight, path, T, K, M, inputs, place, looks_up=True)
    return _placed(layer, view, (axis, *rest), columns)


_RECOGNISED = {
    "dot_general": _dense,
    "conv_general_dilated": _convolution,
    "gather": _embedding,
}
"""Primitives that multiply a weight by an activation, and how."""

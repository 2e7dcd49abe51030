"""First-order Taylor expansion of ``f(params, *inputs)`` around ``params0``, and its kin.

    f_lin(x; θ) = f(x; θ0) + J_θ f(x; θ0) · (θ − θ0)

One forward-mode pass gives both terms (*Task Arithmetic in the Tangent Space*, eq. 4). Only the
named leaves of a displacement carry a tangent, so untrained leaves cost nothing.

Three things hold for all functions here. Outputs are any pytree; 16-bit ones come back as float32,
since f0 + Jτ rounds small changes away in less. Integer, boolean and key leaves of θ0 stay at θ0,
and those of the output do not move. And where a ``custom_vjp`` (a fused attention kernel, say)
forbids forward mode, two reverse passes give the same number at the same cost in a training step:
``method="auto"`` finds out, ``"jvp"`` and ``"double_vjp"`` decide.
"""

from collections.abc import Callable, Iterable, Sequence
from math import factorial
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp

from linearize import cost, fields, tree
from linearize.choices import one_of
from linearize.types import Apply, Array, Flat, Params, PyTree

Method = Literal["auto", "jvp", "double_vjp"]
Line = Callable[[Array], tuple[list[PyTree], PyTree]]
_X = TypeVar("_X")


_MODELS = {
    ("flax.linen", "Module"): "f, params = linearize.from_linen(module, variables)",
    ("flax.nnx", "Module"): "f, params = linearize.from_nnx(model)",
    ("flax.training", "TrainState"): (
        "f = lambda params, *inputs: state.apply_fn({'params': params}, *inputs), with state.params"
    ),
    ("equinox", "Module"): (
        "params, static = equinox.partition(model, equinox.is_inexact_array) and "
        "f = lambda params, x: jax.vmap(equinox.combine(params, static))(x)"
    ),
    (
        "haiku",
        "Transformed",
    ): "f = lambda params, *inputs: transformed.apply(params, None, *inputs)",
    ("torch", "Module"): "a Flax model that holds the same weights",
    ("keras", "Layer"): "f = lambda params, x: model.stateless_call(params, state, x)[0]",
}
"""Packages and classes of model objects, and what is wanted in place of one."""


def check_function(f: object) -> None:
    """``f`` is a function of ``(params, *inputs)``, and not a model that holds its parameters.

    Raises:
        TypeError: another object, with the way from a model to a function.

    >>> check_function(3)
    Traceback (most recent call last):
        ...
    TypeError: f is a int; expected a function f(params, *inputs)
    """
    found = f"f is a {type(f).__name__}; expected a function f(params, *inputs)"
    for kind in type(f).__mro__:
        for (package, name), remedy in _MODELS.items():
            if kind.__name__ == name and f"{kind.__module__}.".startswith(f"{package}."):
                raise TypeError(f"{found}: make one by {remedy}")
    if not callable(f):
        raise TypeError(found)


def linearize(
    f: Apply,
    params0: Params,
    *,
    trainable: tree.Pattern = None,
    has_aux: bool = False,
    method: Method = "auto",
) -> Apply:
    """The linearization of ``f`` around ``params0``: ``f_lin(params, *inputs)``, affine in params.

    Args:
        f: ``f(params, *inputs) -> outputs``; any pytrees.
        params0: the expansion point θ0.
        trainable: pattern of the leaves to linearize in (:func:`linearize.tree.select`); the
            others stay at θ0.
        has_aux: ``f`` returns ``(outputs, aux)``; ``aux`` is passed through, evaluated at θ0.
        method: how to take the derivative, see above.

    Returns:
        A function of ``f``'s signature and output structure.

    For training prefer :func:`tangent`, which takes τ itself: θ − θ0 loses 2e-5 of a typical τ to
    rounding in float32, and most of it in bfloat16.

    >>> f = lambda params, x: jnp.sin(params["w"] * x)
    >>> f_lin = linearize(f, {"w": 0.0})
    >>> float(f_lin({"w": 3.0}, 2.0))
    6.0
    """
    f_tan = tangent(f, has_aux=has_aux, method=method)
    tree.select(params0, trainable)  # a pattern that picks nothing is refused here, not in a call

    def f_lin(params: Params, *inputs: PyTree) -> PyTree:
        return f_tan(params0, tree.subtract(params, params0, trainable), *inputs)

    return f_lin


def tangent(f: Apply, *, has_aux: bool = False, method: Method = "auto") -> Apply:
    """``f_tan(params0, tau, *inputs) = f(x; θ0) + J τ``: the linear regime, parametrised by τ.

    ``tau`` is a task vector, a tree like ``params0``, or a flat mapping of some of its names; keep
    it in float32 and so are its gradients, whatever θ0 is in. θ0 and the data are arguments, so
    that ``jit`` does not fold the primal pass into a constant. ``has_aux``, ``method``: as in
    :func:`linearize`.

    >>> f_tan = tangent(lambda params, x: jnp.exp(params["w"]) * x)
    >>> float(f_tan({"w": 0.0}, {"w": 0.5}, 2.0))
    3.0
    """
    check_function(f)

    def f_tan(params0: Params, tau: PyTree, *inputs: PyTree) -> PyTree:
        flat = tree.flatten(tau)
        out, moved, aux = _pushforward(f, params0, flat, inputs, has_aux, method)(flat)
        total = jax.tree.map(lambda y, dy: y + dy if tree.is_trainable(y) else y, out, moved)
        return (total, aux) if has_aux else total

    return f_tan


def displaced(f: Apply) -> Apply:
    """``f_dis(params0, tau, *inputs) = f(x; θ0 + τ)``: the non-linear regime in τ's own terms."""
    check_function(f)

    def f_dis(params0: Params, tau: PyTree, *inputs: PyTree) -> PyTree:
        return f(tree.add(params0, tau), *inputs)

    return f_dis


def affine_terms(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    *inputs: PyTree,
    has_aux: bool = False,
    method: Method = "auto",
) -> tuple[PyTree, ...]:
    """All that the linear regime knows of ``inputs``: ``f_lin(θ0 + Σ α_t τ_t) = f0 + Σ α_t Jτ_t``.

    One primal pass is shared by all tangents: 1 + 2T forward passes' work instead of 3T.

    Args:
        f: ``f(params, *inputs) -> outputs``.
        params0: the expansion point θ0.
        taus: T ≥ 1 task vectors, trees or flat mappings; a leaf that one of them lacks counts as
            zero there.
        *inputs: the other arguments of ``f``.
        has_aux: as in :func:`linearize`.
        method: as in :func:`linearize`.

    Returns:
        ``(f0, jvps)``, or ``(f0, jvps, aux)``: the outputs at θ0, and the tangents stacked on axis
        0, shape (T, ...). Floating outputs in at least float32; an integer output keeps its dtype
        in ``f0`` and has float32 zeros in ``jvps``.

    Raises:
        ValueError: ``taus`` is empty.
        StructureMismatch: a task vector names or shapes a leaf that θ0 has not.

    >>> f = lambda params, x: params["w"] ** 2 * x
    >>> affine_terms(f, {"w": 3.0}, [{"w": 1.0}, {"w": 0.5}], 1.0)
    (Array(9., dtype=float32), Array([6., 3.], dtype=float32))
    """
    check_function(f)
    flats = [tree.flatten(tau) for tau in taus]
    if not flats:
        raise ValueError("taus is empty; affine_terms needs at least one task vector")
    for t, flat in enumerate(flats):
        tree.check_subset(params0, flat, what=f"taus[{t}]")
    trainable = tree.select(params0)
    union = {n: leaf for flat in flats for n, leaf in flat.items() if n in trainable}
    stacked = {
        n: jnp.stack([flat.get(n, jnp.zeros_like(like)) for flat in flats])
        for n, like in union.items()
    }
    push = _pushforward(f, params0, union, inputs, has_aux, method)
    each = jax.vmap(push, out_axes=(None, 0, None), axis_size=len(flats))  # of no leaf, too
    out, moved, aux = each(stacked)
    return (out, moved, aux) if has_aux else (out, moved)


def along(f: Apply, params0: Params, tau: PyTree, *inputs: PyTree) -> tuple[PyTree, PyTree]:
    """:func:`affine_terms` of one task vector, ``(f0, Jτ)``, without an axis of vectors.

    >>> along(lambda params, x: params["w"] ** 2 * x, {"w": 3.0}, {"w": 1.0}, 1.0)
    (Array(9., dtype=float32), Array(6., dtype=float32))
    """
    check_function(f)
    flat = tree.flatten(tau)
    out, moved, _ = _pushforward(f, params0, flat, inputs, False, "auto")(flat)
    return out, moved


def taylor_expand(
    f: Apply,
    params0: Params,
    order: int,
    *,
    trainable: tree.Pattern = None,
    has_aux: bool = False,
    method: Method = "auto",
) -> Apply:
    """The Taylor polynomial of ``f`` around ``params0``: ``f_k(params, *inputs)``.

    Derivatives along θ − θ0 come from nested forward mode, so the cost grows as 2^order forward
    passes; ``order=1`` is :func:`linearize`, ``order=0`` is ``f`` at θ0. The other arguments are
    those of :func:`linearize`.

    Raises:
        ValueError: ``order`` is no integer, or negative.

    >>> f_2 = taylor_expand(lambda params, x: params["w"] ** 3 * x, {"w": 1.0}, order=2)
    >>> float(f_2({"w": 2.0}, 1.0))  # 1 + 3 + 3, where w ** 3 is 8
    7.0
    """
    check_function(f)
    order = fields.integer("order", order, low=0)
    tree.select(params0, trainable)

    def f_k(params: Params, *inputs: PyTree) -> PyTree:
        delta = tree.subtract(params, params0, trainable)

        def line(t: Array) -> tuple[list[PyTree], PyTree]:
            moving, fixed = _split(f, tree.add(params0, delta, scale=t), inputs, has_aux)
            return [moving], fixed

        here = jnp.zeros(())
        way = _choose(method, line, here, jnp.ones(()))
        derivatives: Line = line
        for _ in range(order):
            derivatives = _with_next_derivative(derivatives, way)
        terms, (fixed, aux) = derivatives(here)
        scaled = [
            jax.tree.map(lambda y, k=k: _widen(y) / factorial(k), y) for k, y in enumerate(terms)
        ]
        total = _join(jax.tree.map(lambda *ys: sum(ys), *scaled), fixed)
        return (total, aux) if has_aux else total

    return f_k


def _with_next_derivative(line: Line, method: Method) -> Line:
    """From ``t -> [y, y', ..., y^(k)]`` to ``t -> [y, y', ..., y^(k+1)]``."""

    def longer(t: Array) -> tuple[list[PyTree], PyTree]:
        terms, slopes, rest = _jvp(line, t, jnp.ones_like(t), method)
        return [*terms, slopes[-1]], rest

    return longer


def _pushforward(
    f: Apply,
    params0: Params,
    like: Iterable[str],
    inputs: tuple[PyTree, ...],
    has_aux: bool,
    method: Method,
) -> Callable[[Flat], tuple[PyTree, PyTree, PyTree]]:
    """``push(tau) -> (f0, J tau, aux)`` for displacements of the leaves that ``like`` names."""
    base = tree.flatten(params0)

    def push(tau: Flat) -> tuple[PyTree, PyTree, PyTree]:
        tree.check_subset(params0, tau, what="displacement")
        primal = {n: jnp.asarray(base[n]) for n in like if tree.is_trainable(base[n])}
        dot = {n: jnp.asarray(tau[n], leaf.dtype) for n, leaf in primal.items()}

        def g(named: Flat) -> tuple[PyTree, PyTree]:
            return _split(f, tree.update(params0, named), inputs, has_aux)

        out, moved, (fixed, aux) = _jvp(g, primal, dot, _choose(method, g, primal, dot))
        out, moved = jax.tree.map(_widen, (out, moved))
        still = jax.tree.map(lambda y: jnp.zeros(jnp.shape(y)), fixed)
        return _join(out, fixed), _join(moved, still), aux

    return push


def _jvp(
    g: Callable[[_X], tuple[PyTree, PyTree]], x: _X, dx: _X, method: Method
) -> tuple[PyTree, PyTree, PyTree]:
    """``(y, J dx, rest)`` of ``g(x) = (y, rest)``."""
    if method == "jvp":
        return jax.jvp(g, (x,), (dx,), has_aux=True)
    y, pullback, rest = jax.vjp(g, x, has_aux=True)
    return y, jax.linear_transpose(lambda ct: pullback(ct)[0], y)(dx)[0], rest


def _choose(method: Method, g: Callable[[_X], Any], x: _X, dx: _X) -> Method:
    """What ``"auto"`` means for ``g``, found by tracing it: the answer is the same under ``jit``,
    ``grad`` and ``vmap``, where the refusal of a ``custom_vjp`` comes late and in many guises.
    """
    if one_of("method", method, ("auto", "jvp", "double_vjp")) != "auto":
        return method
    pushed = jax.make_jaxpr(lambda x, dx: _jvp(g, x, dx, "jvp")[:2])(x, dx)
    refuses = any(e.primitive.name == "custom_lin" for e in cost.equations(pushed.jaxpr))
    return "double_vjp" if refuses else "jvp"


def _split(
    f: Apply, params: Params, inputs: tuple[PyTree, ...], has_aux: bool
) -> tuple[PyTree, tuple[PyTree, PyTree]]:
    """``(floating outputs, (other outputs, aux))``, with None in each place of the other."""
    out, aux = f(params, *inputs) if has_aux else (f(params, *inputs), None)
    floating = jax.tree.map(lambda y: y if tree.is_trainable(y) else None, out)
    other = jax.tree.map(lambda y: None if tree.is_trainable(y) else y, out)
    return floating, (other, aux)


def _join(floating: PyTree, other: PyTree) -> PyTree:
    return jax.tree.map(
        lambda y, z: z if y is None else y, floating, other, is_leaf=lambda y: y is None
    )


def _widen(y: Array) -> Array:
    return jnp.asarray(y, jnp.promote_types(jnp.result_type(y), jnp.float32))

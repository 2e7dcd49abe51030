"""First-order Taylor expansion of ``f(params, *inputs)`` around ``params0``, and its kin.

    f_lin(x; θ) = f(x; θ0) + J_θ f(x; θ0) · (θ − θ0)

One forward-mode pass gives both terms (*Task Arithmetic in the Tangent Space*, eq. 4). Only the
named leaves of a displacement carry a tangent, so untrained leaves cost nothing.
"""

from collections.abc import Callable, Sequence
from math import factorial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from linearize import tree
from linearize.types import Apply, Array, Flat, Params, PyTree

Method = Literal["auto", "jvp", "double_vjp"]


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
        params0: the expansion point θ0. Integer leaves are left there.
        trainable: pattern of the leaves to linearize in (:func:`linearize.tree.select`); the
            others stay at θ0.
        has_aux: ``f`` returns ``(outputs, aux)``; ``aux`` is passed through, evaluated at θ0.
        method: ``"jvp"``; ``"double_vjp"`` where a ``custom_vjp`` forbids forward mode;
            ``"auto"`` tries the first and falls back on the second.

    Returns:
        A function of ``f``'s signature and output structure. 16-bit outputs come back as float32,
        since f0 + Jτ rounds small changes away in less.

    For training prefer :func:`tangent`, which takes τ itself: θ − θ0 loses 2e-5 of a typical τ to
    rounding in float32, and most of it in bfloat16.

    >>> f = lambda params, x: jnp.sin(params["w"] * x)
    >>> f_lin = linearize(f, {"w": 0.0})
    >>> float(f_lin({"w": 3.0}, 2.0))
    6.0
    """
    f_tan = tangent(f, has_aux=has_aux, method=method)

    def f_lin(params: Params, *inputs: PyTree) -> PyTree:
        return f_tan(params0, tree.subtract(params, params0, trainable), *inputs)

    return f_lin


def tangent(f: Apply, *, has_aux: bool = False, method: Method = "auto") -> Apply:
    """``f_tan(params0, tau, *inputs) = f(x; θ0) + J τ``: the linear regime, parametrised by τ.

    ``tau`` is a task vector, a tree like ``params0``, or a flat mapping of some of its names.
    θ0 and the data are arguments, so that ``jit`` does not fold the primal pass into a constant.
    """

    def f_tan(params0: Params, tau: PyTree, *inputs: PyTree) -> PyTree:
        flat = tree.flatten(tau)
        out, moved, aux = _pushforward(f, params0, flat, inputs, has_aux, method)(flat)
        total = jax.tree.map(_plus, out, moved)
        return (total, aux) if has_aux else total

    return f_tan


def displaced(f: Apply) -> Apply:
    """``f_dis(params0, tau, *inputs) = f(x; θ0 + τ)``: the non-linear regime in τ's own terms."""

    def f_dis(params0: Params, tau: PyTree, *inputs: PyTree) -> PyTree:
        return f(tree.add(params0, tau), *inputs)

    return f_dis


def affine_terms(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    *inputs: PyTree,
    method: Method = "auto",
) -> tuple[PyTree, PyTree]:
    """All that the linear regime knows of ``inputs``: ``f_lin(θ0 + Σ α_t τ_t) = f0 + Σ α_t Jτ_t``.

    One primal pass is shared by all tangents: 1 + 2T forward passes' work instead of 3T.

    Args:
        f: ``f(params, *inputs) -> outputs``.
        params0: the expansion point θ0.
        taus: T ≥ 1 task vectors, trees or flat mappings; a leaf that one of them lacks counts as
            zero there.

    Returns:
        ``(f0, jvps)``: the outputs at θ0, and the tangents stacked on axis 0, shape (T, ...). Both
        in at least float32.

    Raises:
        ValueError: ``taus`` is empty.
        StructureMismatch: a task vector names or shapes a leaf that θ0 has not.
    """
    flats = [tree.flatten(tau) for tau in taus]
    if not flats:
        raise ValueError("taus is empty; affine_terms needs at least one task vector")
    for flat in flats:
        tree.check_subset(params0, flat, what="task vector")
    union = {n: leaf for flat in flats for n, leaf in flat.items()}
    stacked = {
        n: jnp.stack([flat.get(n, jnp.zeros_like(like)) for flat in flats])
        for n, like in union.items()
    }
    push = jax.vmap(
        _pushforward(f, params0, union, inputs, False, method), out_axes=(None, 0, None)
    )
    out, moved, _ = push(stacked)
    return jax.tree.map(_widen, out), jax.tree.map(_widen, moved)


def taylor_expand(f: Apply, params0: Params, order: int) -> Apply:
    """The Taylor polynomial of ``f`` around ``params0``: ``f_k(params, *inputs)``.

    Derivatives along θ − θ0 come from nested forward mode, so the cost grows as 2^order forward
    passes; ``order=1`` is :func:`linearize`, ``order=0`` is ``f`` at θ0.

    Raises:
        ValueError: ``order`` is negative.

    >>> f_2 = taylor_expand(lambda params, x: params["w"] ** 3 * x, {"w": 1.0}, order=2)
    >>> float(f_2({"w": 2.0}, 1.0))  # 1 + 3 + 3, where w ** 3 is 8
    7.0
    """
    if order < 0:
        raise ValueError(f"order={order}; a Taylor expansion has order 0 or more")

    def f_k(params: Params, *inputs: PyTree) -> PyTree:
        delta = tree.subtract(params, params0)

        def along_line(t: Array) -> PyTree:
            return f(tree.add(params0, delta, scale=t), *inputs)

        total = jax.tree.map(_widen, along_line(jnp.zeros(())))
        derivative = along_line
        for k in range(1, order + 1):
            derivative = _derivative(derivative)
            term = derivative(jnp.zeros(()))
            total = jax.tree.map(lambda y, dy: _plus(y, dy, 1 / factorial(k)), total, term)  # noqa: B023
        return total

    return f_k


def _derivative(g: Callable[[Array], PyTree]) -> Callable[[Array], PyTree]:
    return lambda t: jax.jvp(g, (t,), (jnp.ones_like(t),))[1]


def _pushforward(
    f: Apply,
    params0: Params,
    like: Flat,
    inputs: tuple[PyTree, ...],
    has_aux: bool,
    method: Method,
) -> Callable[[Flat], tuple[PyTree, PyTree, Any]]:
    """``push(tau) -> (f0, J tau, aux)`` for displacements of the leaves that ``like`` names."""
    tree.check_subset(params0, like, what="displacement")
    if method not in ("auto", "jvp", "double_vjp"):
        raise ValueError(f"method={method!r}; expected 'auto', 'jvp' or 'double_vjp'")
    base = tree.flatten(params0)
    primal = {n: jnp.asarray(base[n]) for n in like}

    def g(named: Flat) -> tuple[PyTree, Any]:
        out = f(tree.update(params0, named), *inputs)
        return out if has_aux else (out, None)

    def cast(tau: Flat) -> Flat:
        return {n: jnp.asarray(tau[n], primal[n].dtype) for n in primal}

    def forward(tau: Flat) -> tuple[PyTree, PyTree, Any]:
        return jax.jvp(g, (primal,), (cast(tau),), has_aux=True)

    def backward_twice(tau: Flat) -> tuple[PyTree, PyTree, Any]:
        out, pullback, aux = jax.vjp(g, primal, has_aux=True)
        transposed = jax.linear_transpose(lambda ct: pullback(ct)[0], out)
        return out, transposed(cast(tau))[0], aux

    def either(tau: Flat) -> tuple[PyTree, PyTree, Any]:
        try:
            return forward(tau)
        except TypeError as error:
            if "custom_vjp" not in str(error):
                raise
            return backward_twice(tau)

    return {"auto": either, "jvp": forward, "double_vjp": backward_twice}[method]


def _widen(y: Array) -> Array:
    return y.astype(jnp.promote_types(y.dtype, jnp.float32)) if tree.is_trainable(y) else y


def _plus(y: Array, dy: Array, scale: float = 1.0) -> Array:
    if not tree.is_trainable(y):
        return y
    return _widen(y) + scale * _widen(dy)

"""Derivatives of a block of examples, some leaves at a time, and the kernel that they add up to.

    K(x, x') = Σ_leaves J_leaf(x) J_leaf(x')ᵀ

(*Fast Finite Width Neural Tangent Kernel*, §3.1 Jacobian contraction, §3.3 structured derivatives.)
The leaves are taken in groups, so that the whole Jacobian of a block is never held.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from linearize.ntk.contract import Derivatives, Factors, Output, contract, gram
from linearize.ntk.layers import Layer, Traced
from linearize.ntk.pointwise import Inputs, Pointwise
from linearize.types import Array, Params, PyTree

Block = Callable[[Params, Inputs, Inputs | None], Array]
"""``block(params, x1, x2)``: a part of the kernel; symmetric where ``x2`` is None."""

Derive = Callable[[Params, Inputs], PyTree]
Meet = Callable[[Params, PyTree, Inputs | None], Array]


@dataclass(frozen=True)
class Part:
    """Some leaves' part of the kernel.

    Attributes:
        block: a block at once.
        derive: the derivatives of one side's examples alone, to be kept while they meet several
            other blocks; None where none are formed.
        meet: ``meet(params, derive(params, x1), x2)`` is ``block(params, x1, x2)``.
    """

    block: Block
    derive: Derive | None = None
    meet: Meet | None = None


Factor = Callable[[Array], Array]


class Rule(NamedTuple):
    """What each side's derivatives pass through before they are multiplied."""

    left: Factor
    right: Factor

    @property
    def symmetric(self) -> bool:
        """Whether k(x, x') = k(x', x)."""
        return self.left is self.right

    @property
    def plain(self) -> bool:
        """Whether this is the NTK itself, for which a Jacobian need not be formed."""
        return self.left is identity and self.right is identity


def identity(derivative: Array) -> Array:
    """The derivative as it is."""
    return derivative


RULES = {
    "sgd": Rule(identity, identity),
    "signgd": Rule(jnp.sign, jnp.sign),
    "asymmetric_signgd": Rule(identity, jnp.sign),
}
"""Kernels by the optimizer whose early steps they describe (*A Kernel-Based View of Language Model
Fine-Tuning*, §3 and Definition 3.1): ⟨∇f, ∇f'⟩, ⟨sign ∇f, sign ∇f'⟩ and ⟨∇f, sign ∇f'⟩."""


def jacobian_part(
    point: Pointwise,
    group: Sequence[str],
    *,
    output: Output,
    rule: Rule,
    dtype: jnp.dtype,
    at_once: int,
    traced: Traced | None = None,
    factored: Sequence[str] = (),
) -> Part:
    """The part of the kernel that a group of leaves gives, by Jacobian contraction.

    Args:
        point: the model.
        group: names of leaves.
        output: layout of the kernel.
        rule: a row of :data:`RULES`.
        dtype: in which derivatives are multiplied and summed.
        at_once: examples differentiated together.
        traced: the model's layers; those of the group's weights among them take their derivative
            from the layer's two factors.
        factored: weights whose factors are multiplied apart, their Jacobian never formed. Under a
            rule these are tables, of which each row that occurs is one.
    """
    layers = {k: x for k, x in traced.layers.items() if x.weight in group} if traced else {}
    keys: dict[str, list[str]] = {}
    for key, layer in layers.items():
        keys.setdefault(layer.weight, []).append(key)
    plain = [n for n in group if n not in keys]

    def derivatives(params: Params, example: Inputs) -> dict[str, Derivatives]:
        named = point.pick(params)
        zeros = {n: jnp.zeros((k.positions, k.outer), dtype) for n, k in layers.items()}

        def outputs(moving: dict[str, Array], zeros: dict[str, Array]) -> tuple[Array, Any]:
            if traced is None or not layers:
                return point(params, {**named, **moving}, example), {}
            return traced(params, {**named, **moving}, example, zeros)

        (rows, slopes), inputs = jax.jacrev(outputs, argnums=(0, 1), has_aux=True)(
            {n: named[n] for n in plain}, zeros
        )
        found: dict[str, Derivatives] = {n: rows[n].astype(dtype) for n in plain}
        for n, used in keys.items():
            met = jnp.concatenate([inputs[key] for key in used])
            slope = jnp.concatenate([slopes[key].astype(dtype) for key in used], axis=1)
            if n in factored and not rule.plain:
                slope = merged(met, slope)
            found[n] = _layer(layers[used[0]], met, slope, n in factored)
        return found

    def derive(params: Params, x: Inputs) -> dict[str, Derivatives]:
        return over_examples(partial(derivatives, params), x, at_once)

    def meet(params: Params, left: dict[str, Derivatives], x2: Inputs | None) -> Array:
        if x2 is None and rule.symmetric:
            return reduce(jnp.add, (gram(_apply(rule.left, left[n]), output) for n in group))
        right = left if x2 is None else derive(params, x2)
        return reduce(
            jnp.add,
            (
                contract(_apply(rule.left, left[n]), _apply(rule.right, right[n]), output)
                for n in group
            ),
        )

    def block(params: Params, x1: Inputs, x2: Inputs | None) -> Array:
        return meet(params, derive(params, x1), x2)

    return Part(block, derive, meet)


def _layer(layer: Layer, inputs: Array, slopes: Array, factored: bool) -> Derivatives:
    inputs = inputs if layer.looks_up else inputs.astype(slopes.dtype)
    if factored:
        return Factors(inputs, slopes)
    if layer.looks_up:
        inputs = jax.nn.one_hot(inputs, layer.inner, dtype=slopes.dtype)
    return jnp.einsum("tk,ctm->ckm", inputs, slopes, precision=lax.Precision.HIGHEST)


def merged(rows: Array, slopes: Array) -> Array:
    """Slopes (C, T, M) of looked-up rows (T,), summed where a row occurs first, elsewhere zero."""
    first = jnp.argmax(rows[:, None] == rows[None], axis=1)
    return jnp.zeros_like(slopes).at[:, first].add(slopes)


def _apply(transform: Factor, derivatives: Derivatives) -> Derivatives:
    if transform is identity:
        return derivatives
    if isinstance(derivatives, Factors):  # of a table, each row once
        return derivatives._replace(slopes=transform(derivatives.slopes))
    return transform(derivatives)


def over_examples(one: Callable[[Inputs], PyTree], inputs: Inputs, at_once: int) -> PyTree:
    """``one(example)`` for each example, ``at_once`` of them together, stacked on axis 0."""
    n = jax.tree.leaves(inputs)[0].shape[0]
    return jax.vmap(one)(inputs) if at_once >= n else lax.map(one, inputs, batch_size=at_once)

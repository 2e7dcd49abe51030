"""A model seen one example at a time: what a kernel between examples is made of."""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import agreement, cost, tree
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.batches import window
from linearize.examples import count
from linearize.ntk.programs import remembered
from linearize.taylor import check_function
from linearize.types import Apply, Array, Flat, Params, PyTree

Inputs = tuple[PyTree, ...]

_PROBED = 3
_INDEPENDENT = 0.05  # of the largest output: far above rounding in bfloat16, far below batch norm


@dataclass(frozen=True)
class Pointwise:
    """``f`` at ``params`` for single examples, differentiable in the leaves that are ``picked``."""

    f: Apply
    params: Params
    """The specification (shapes and dtypes) of θ; arrays are arguments of what is computed."""
    picked: tuple[str, ...]
    inputs: Inputs
    """The specification of one example's inputs, without the batch axis."""

    def __call__(self, params: Params, named: Flat, example: Inputs) -> Array:
        """All outputs of one example, raveled in the order of ``jax.tree.leaves``: (C,)."""
        batch = jax.tree.map(lambda x: x[None], example)
        out = jax.tree.leaves(self.f(tree.update(params, self.join(named)), *batch))
        return jnp.concatenate([y.ravel() for y in out]) if len(out) > 1 else out[0].ravel()

    def pick(self, params: Params) -> dict[str, Array]:
        """The leaves in which derivatives are taken, from parameters of the same names.

        A complex leaf counts as its real and imaginary parts, stacked on axis 0: kernels of
        complex parameters are Re(J Jᴴ).
        """
        flat = tree.flatten(params)
        return {n: _as_real(jnp.asarray(flat[n])) for n in self.picked}

    def join(self, named: Flat) -> dict[str, Array]:
        """Leaves, or displacements of them, as the parameters have them: complex where θ is."""
        flat = tree.flatten(self.params)
        return {
            n: jax.lax.complex(x[0], x[1]) if _is_complex(flat[n]) else x for n, x in named.items()
        }

    @cached_property
    def named(self) -> dict[str, Array]:
        """The specification of what :meth:`pick` gives."""
        return jax.eval_shape(self.pick, self.params)

    @property
    def key(self) -> Hashable:
        """Equal for equal models: what is compiled for one serves the other."""
        leaves, structure = jax.tree.flatten((self.params, self.inputs))
        return self.f, self.picked, structure, tuple(leaves)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Number of entries of each picked leaf."""
        return {n: leaf.size for n, leaf in self.named.items()}

    @cached_property
    def outputs(self) -> int:
        """C, the number of outputs of an example."""
        named = self.named
        spec = jax.eval_shape(self, self.params, named, self.inputs)
        return prod(spec.shape)

    @cached_property
    def widest(self) -> int:
        """Entries of the largest array on the way from an example to its outputs."""
        traced = jax.make_jaxpr(self)(self.params, self.named, self.inputs).jaxpr
        made: list[Any] = [v.aval for e in cost.equations(traced) for v in e.outvars]
        weights = {leaf.shape for leaf in jax.tree.leaves(self.params)}
        return max(prod(a.shape) for a in made if hasattr(a, "shape") and a.shape not in weights)

    @cached_property
    def narrowest(self) -> np.dtype:
        """The floating dtype of fewest digits on the way from an example to its outputs."""
        return agreement.narrowest(self, self.params, self.named, self.inputs)

    @cached_property
    def dtype(self) -> np.dtype:
        """What kernels are summed in unless the caller says: float32, or wider if θ or f is."""
        spec = jax.eval_shape(self, self.params, self.named, self.inputs)
        wide = [jnp.float32, spec.dtype, *(leaf.dtype for leaf in self.named.values())]
        return jnp.result_type(*wide)


def pointwise(f: Apply, params: Params, inputs: Inputs, pattern: tree.Pattern = None) -> Pointwise:
    """Check that ``f`` has a kernel, and see it as a function of single examples.

    Args:
        f: ``f(params, *inputs) -> outputs``, any pytree of floating arrays with examples on axis 0.
        params: the point θ at which derivatives are taken.
        inputs: the arguments of ``f`` after ``params``; arrays with examples on axis 0.
        pattern: which leaves derivatives are taken in (:func:`linearize.tree.select`).

    Raises:
        ValueError: no example; outputs that are empty, not floating, or without examples on axis
            0; examples that change each other's outputs, as in training-mode batch norm.
    """
    check_function(f)
    n = count(inputs)
    f = current(f, params, *window(inputs, 0, 1))
    seen = Pointwise(f, _like(params), tree.select(params, pattern), specification(inputs))
    point = remembered(("point", seen.key), lambda: seen)
    few = jax.tree.map(lambda x: jnp.asarray(x[: min(_PROBED, n)]), inputs)
    together = tree.flatten(jit(f)(params, *few))
    size = min(_PROBED, n)
    for name, y in together.items():
        where = f"output {name!r}" if name else "the output"
        if y.ndim == 0 or y.shape[0] != size:
            raise ValueError(
                f"{where} of f has shape {y.shape} for {size} examples; a kernel needs examples "
                "on axis 0"
            )
        if not jnp.issubdtype(y.dtype, jnp.floating):
            raise ValueError(
                f"{where} of f is {y.dtype}; a kernel needs floating outputs: give an f that "
                "returns features or logits, not classes"
            )
    if not together or not point.outputs:
        raise ValueError("f has no output; give an f that returns features or logits")
    joined = jnp.concatenate([y.reshape(size, -1) for y in together.values()], axis=1)
    apart = remembered(
        ("pointwise", point.key, size), lambda: jit(jax.vmap(point, in_axes=(None, None, 0)))
    )
    alone = apart(params, point.pick(params), few)
    _check_independent(np.asarray(joined, np.float64), np.asarray(alone, np.float64))
    return point


def _check_independent(together: np.ndarray, alone: np.ndarray) -> None:
    scale, gap = np.abs(alone).max(), np.abs(together - alone).max()
    if np.isfinite(gap) and gap > _INDEPENDENT * scale:
        raise ValueError(
            f"f gives an example another output alone than among others (they differ by "
            f"{gap:.3g} of {scale:.3g}), so there is no kernel between examples; take f in "
            "evaluation mode (batch norm with stored statistics, no dropout)"
        )


def specification(inputs: Inputs) -> Inputs:
    """Shapes and dtypes of one example."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x)[1:], _dtype(x)), inputs)


def _is_complex(leaf: Array) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating))


def _as_real(leaf: Array) -> Array:
    return jnp.stack([leaf.real, leaf.imag]) if _is_complex(leaf) else leaf


def _like(params: Params) -> Params:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), _dtype(x)), params)


def _dtype(leaf: Array) -> Any:
    """What JAX makes of it; keys have a dtype of their own."""
    return jax.dtypes.canonicalize_dtype(jnp.result_type(leaf), allow_extended_dtype=True)

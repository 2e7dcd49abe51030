"""The function whose Jacobian the curvature is of: features as they are, of length 1, or some."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from linearize.objectives.distances import aligned
from linearize.types import Apply, Array, Params, PyTree


@dataclass(frozen=True)
class Normalized:
    """``f`` with outputs of Euclidean length 1 along their last axis."""

    f: Apply

    def __call__(self, params: Params, *inputs: PyTree) -> PyTree:
        """``f / ‖f‖``, in float32 or wider; NaN where an output is zero."""
        return jax.tree.map(_unit, self.f(params, *inputs))


@dataclass(frozen=True)
class Asked:
    """``f`` of one more argument: flags of its outputs' first axes, by which they are multiplied.

    What is not asked for, such as what follows a text's last token, is so 0 whatever moves.
    """

    f: Apply

    def __call__(self, params: Params, *inputs: PyTree) -> PyTree:
        """``f`` of all but the last of the inputs, times the last."""
        *given, flags = inputs

        def kept(y: Array) -> Array:
            return y * aligned(flags, y).astype(y.dtype)

        return jax.tree.map(kept, self.f(params, *given))


def _unit(y: jax.Array) -> jax.Array:
    wide = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return wide / jnp.sqrt((wide**2).sum(-1, keepdims=True))

"""The function whose Jacobian the curvature is of: features as they are, or of length 1."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from linearize.types import Apply, Params, PyTree


@dataclass(frozen=True)
class Normalized:
    """``f`` with outputs of Euclidean length 1 along their last axis."""

    f: Apply

    def __call__(self, params: Params, *inputs: PyTree) -> PyTree:
        """``f / ‖f‖``, in float32 or wider; NaN where an output is zero."""
        return jax.tree.map(_unit, self.f(params, *inputs))


def _unit(y: jax.Array) -> jax.Array:
    wide = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    return wide / jnp.sqrt((wide**2).sum(-1, keepdims=True))

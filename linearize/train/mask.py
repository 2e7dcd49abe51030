"""A mask: which entries of the trained leaves move; τ is exactly 0 at all others."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.types import Array, Params, PyTree


def checked(mask: PyTree, params0: Params, trainable: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The mask as booleans by name, in the order of the trained leaves.

    Args:
        mask: 0 and 1, or booleans, of the shapes of the trained leaves: a tree like ``params0`` or
            a mapping by name; 1 where τ is trained.
        params0: θ0.
        trainable: names of the trained leaves.

    Raises:
        ValueError: a leaf is missing, is not trained, has another shape, or holds another number
            than 0 and 1; or nothing is left to train. All such leaves are named.
    """
    given, base = tree.flatten(mask), tree.flatten(params0)
    problems = [
        f"{name}: missing; give np.ones({np.shape(base[name])}, bool) to train all of it"
        for name in trainable
        if name not in given
    ]
    problems += [
        f"{name}: is not trained; leave it out, or widen trainable"
        for name in given
        if name not in trainable
    ]
    found: dict[str, np.ndarray] = {}
    for name in trainable:
        if name in given:
            values, shape = np.asarray(given[name]), np.shape(base[name])
            kinds = (np.bool_, np.integer, np.floating)
            real = any(jnp.issubdtype(values.dtype, kind) for kind in kinds)
            if values.shape != shape:
                problems.append(f"{name}: shape {values.shape}; the leaf has {shape}")
            elif not real:
                problems.append(f"{name}: dtype {values.dtype}; give 0 and 1, or booleans")
            elif (other := values[(values != 0) & (values != 1)]).size:
                problems.append(
                    f"{name}: {other.size} entries are neither 0 nor 1, such as {other.flat[0]}; "
                    "compare scores with a threshold first"
                )
            else:
                found[name] = values.astype(bool)
    if problems:
        raise ValueError("mask does not fit the trained leaves:\n  " + "\n  ".join(problems))
    if not any(kept.any() for kept in found.values()):
        raise ValueError(
            "mask is 0 everywhere, so there is nothing to train; it is 1 where entries move"
        )
    return found


def masked(flat: dict[str, Array], mask: Mapping[str, Array] | None) -> dict[str, Array]:
    """Named arrays, exactly 0 where the mask is."""
    if mask is None:
        return flat
    return {n: jnp.where(mask[n], x, jnp.zeros((), x.dtype)) for n, x in flat.items()}


def outside(flat: Mapping[str, Array], mask: Mapping[str, Array]) -> Array:
    """How many numbers are not 0 where the mask is: int32."""
    return jnp.stack([jnp.count_nonzero(x * ~mask[n]) for n, x in flat.items()]).sum()

"""What task vectors do to examples, exactly and by part of the model: ‖J(x)τ‖².

Where f is affine in its weights a vector harms another task through J(x)τ alone, and J(x)τ is a sum
over the parts that τ moves. Each part takes forward mode once for all vectors, in one program for
however many parts; of a few, :func:`linearize.disentangle.moved.moved` costs less and says more.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from linearize import taylor, tree
from linearize.agreement import SEED, agree, once, precision
from linearize.choices import hint
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.affine import affine_outputs, affine_step, check_one_array, stack
from linearize.evaluate.batches import gather, split_batches
from linearize.types import Apply, Array, Flat, Params, PyTree

Part = Mapping[str, tuple[int, ...]]
"""Leaves by name, each with an index of its first axes: () for all of it, (3,) for a slice."""


def interference(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    inputs: PyTree,
    parts: Mapping[str, Part],
    *,
    batch_size: int = 64,
    method: taylor.Method = "auto",
    progress: bool = False,
) -> np.ndarray:
    """‖J(x)τ‖² of every example, task vector and part: (1 + 2T) L forward passes' work.

    Args:
        f: ``f(params, *inputs) -> (B, ...)``, one array; features of length 1 by
            :class:`linearize.curvature.Normalized`.
        params0: θ0.
        taus: T ≥ 1 task vectors; a leaf that one lacks counts as zero there.
        inputs: arrays with N examples on axis 0; a tuple for a model of several arguments.
        parts: L parts by label, which may share leaves; what is in none does not move.
        batch_size: examples per pass; T tangents of that many are held at once.
        method: as :func:`linearize.taylor.linearize`.
        progress: draw a progress bar.

    Returns:
        (T, L, N) float32 or wider, squared norms over all axes of the outputs.

    Raises:
        ValueError: no part, or one of a leaf or a slice that θ0 has not; what
            :func:`linearize.evaluate.affine.affine_outputs` refuses.
        NonFiniteError: a number that is NaN or infinite.
        DisagreementError: a sampled part alone gives another number.

    >>> f = lambda params, x: params["w"] * x + params["b"] ** 2
    >>> parts = {"w": {"w": ()}, "all": {"w": (), "b": ()}}
    >>> tau = {"w": 1.0, "b": 1.0}
    >>> interference(f, {"w": 1.0, "b": 2.0}, [tau], np.arange(2.0), parts).tolist()
    [[[0.0, 1.0], [16.0, 25.0]]]
    """
    taylor.check_function(f)
    stacked = stack(params0, taus)
    check_parts(parts, tree.flatten(params0))
    moving = {name for part in parts.values() for name in part}
    stacked = {name: leaf for name, leaf in stacked.items() if name in moving}
    scales = {name: _scales(name, leaf.shape[1:], parts) for name, leaf in stacked.items()}
    batches = split_batches(inputs, batch_size)
    f = current(f, params0, *batches.items[0])
    step = partial(_step, f, method, params0, stacked, scales)
    found = gather(step, batches, axes=2, progress=progress)
    tree.check_finite({"squared norms": found}, "what task vectors do to examples")
    once(
        partial(_check, f, params0, taus, batches.items[0], parts, found),
        f"interference {method}",
        f,
        arrays=(params0, stacked, scales, batches.items[0]),
    )
    return found.swapaxes(0, 1)


def restricted(tau: PyTree, part: Part) -> dict[str, Array]:
    """A task vector that moves this part alone.

    >>> moved = restricted({"w": jnp.ones((2, 2)), "b": jnp.ones(1)}, {"w": (1,)})
    >>> {name: leaf.tolist() for name, leaf in moved.items()}
    {'w': [[0.0, 0.0], [1.0, 1.0]]}
    """
    flat = tree.flatten(tau)
    leaves = {name: (jnp.asarray(flat[name]), at) for name, at in part.items() if name in flat}
    return {n: jnp.zeros_like(leaf).at[at].set(leaf[at]) for n, (leaf, at) in leaves.items()}


def check_parts(parts: Mapping[str, Part], base: Flat) -> None:
    """Refuse parts that θ0 has not.

    Raises:
        ValueError: no part, or one of a leaf or a slice that is not there.
    """
    if not parts:
        raise ValueError("parts is empty; give one at least, such as a card's parts")
    for label, part in parts.items():
        for name, at in part.items():
            if name not in base:
                raise ValueError(f"parts[{label!r}]: θ0 has no leaf {name}{hint(name, base)}")
            shape = jnp.shape(base[name])
            if at not in np.ndindex(shape[: len(at)]):
                raise ValueError(f"parts[{label!r}]: {name} has shape {shape} and no slice {at}")


def _scales(name: str, shape: tuple[int, ...], parts: Mapping[str, Part]) -> np.ndarray:
    """1 where a part holds the leaf, (L, *first axes)."""
    depth = max(len(part[name]) for part in parts.values() if name in part)
    found = np.zeros((len(parts), *shape[:depth]), np.float32)
    for l, part in enumerate(parts.values()):
        if name in part:
            found[l, *part[name]] = 1
    return found


@partial(jit, static_argnums=(0, 1))
def _step(
    f: Apply,
    method: taylor.Method,
    params0: Params,
    stacked: Flat,
    scales: Flat,
    args: tuple[PyTree, ...],
) -> Array:
    """(L, T, B) of one batch; one part after another, in one compiled program."""

    def of_part(scale: Flat) -> Array:
        moved = {
            name: leaf * jnp.expand_dims(by, (0, *range(1 + by.ndim, leaf.ndim)))
            for name, leaf in stacked.items()
            for by in [scale[name]]
        }
        f0, jvps = affine_step(f, method, params0, moved, args)
        check_one_array(f0)
        return (jnp.abs(jvps) ** 2).reshape(*jvps.shape[:2], -1).sum(-1)

    return jax.lax.map(of_part, scales)


def _check(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    args: tuple[PyTree, ...],
    parts: Mapping[str, Part],
    found: np.ndarray,
) -> None:
    """A vector's part beside the affine pass of that part alone."""
    rng = np.random.default_rng(SEED)
    (l, t), labels = (int(rng.integers(n)) for n in found.shape[:2]), list(parts)
    size = len(jax.tree.leaves(args)[0])
    alone = affine_outputs(f, params0, [restricted(taus[t], parts[labels[l]])], args, size)
    n = int(rng.integers(min(size, found.shape[2])))
    expected = float((np.abs(alone.jvps[0, n]).astype(np.float64) ** 2).sum())
    agree(
        found[l, t, n],
        expected,
        scale=expected,
        dtypes=(precision(f, params0, *args), found.dtype),
        terms=alone.jvps[0, n].size,
        what="‖J(x)τ‖² by parts",
        entry=f"of {labels[l]}, task vector {t}, example {n}",
    )

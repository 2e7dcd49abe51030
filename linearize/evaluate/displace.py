"""The non-linear regime: ``f(x; θ0 + Σ α_t τ_t)``, one pass per combination of coefficients."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import tree
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.affine import stack
from linearize.evaluate.batches import Batches, check_inputs, split_batches
from linearize.evaluate.grid import check_labels, check_points
from linearize.evaluate.metrics import predicted
from linearize.evaluate.readout import Readout, as_readout
from linearize.taylor import check_function
from linearize.types import Apply, Array, Params, PyTree

_POINTS_IN_FLIGHT = 2
_Point = TypeVar("_Point")


def displaced_accuracy(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    inputs: PyTree,
    alphas: ArrayLike,
    readout: Readout,
    labels: ArrayLike,
    batch_size: int = 256,
) -> np.ndarray:
    """Top-1 accuracy of ``f`` at each ``θ0 + Σ α_t τ_t``: :func:`grid_accuracy`, non-linear.

    Args:
        f: ``f(params, *inputs) -> features (B, D)``.
        params0: the base model θ0.
        taus: T ≥ 1 task vectors.
        inputs: arrays with N examples on axis 0; a tuple for a model of several arguments.
        alphas: (G, T) coefficients.
        readout: features to logits (B, C); ``None`` where ``f`` gives logits.
        labels: (N,) integers in [0, C).
        batch_size: examples per pass.

    Returns:
        (G,), float64 in [0, 1]. A prediction that is not finite is wrong.

    Raises:
        ValueError: bad ``alphas``, labels out of range, no example, no task vector.
        StructureMismatch: a task vector does not fit ``params0``.
        NonFiniteError: NaN or infinity in ``params0``, a task vector or the inputs.
    """
    check_function(f)
    points = check_points(alphas, len(taus))
    stacked = stack(params0, taus)
    check_inputs(inputs)
    batches = split_batches(inputs, batch_size, balanced=True)
    f, read = current(f, params0, *batches.items[0]), as_readout(readout)
    shapes = _read.eval_shape(f, read, params0, batches.items[0])
    y = pad_rows(check_labels(labels, batches.n, shapes.shape[-1]), batches)

    def hits(point: np.ndarray) -> list[Array]:
        params = displace(params0, stacked, point)
        return [
            _batch_hits(f, read, params, args, row)
            for args, row in zip(batches.items, y, strict=True)
        ]

    found = [sum(int(h) for h in each) for each in in_turn(hits, points)]
    return np.asarray(found, np.float64) / batches.n


def in_turn(work: Callable[[_Point], PyTree], points: Iterable[_Point]) -> Iterable[PyTree]:
    """``work`` at each point, fetched with a lag: the device stays busy, its memory bounded."""
    pending: deque[PyTree] = deque()
    for point in points:
        pending.append(work(point))
        if len(pending) > _POINTS_IN_FLIGHT:
            yield jax.device_get(pending.popleft())
    for result in pending:
        yield jax.device_get(result)


@jit
def displace(params0: Params, stacked: dict[str, Array], alphas: Array) -> Params:
    """``θ0 + Σ α_t τ_t`` for task vectors stacked on axis 0 and coefficients (T,)."""
    return tree.add(params0, combine(stacked, alphas))


@jit
def combine(stacked: dict[str, Array], alphas: Array) -> dict[str, Array]:
    """``Σ α_t τ_t`` for task vectors stacked on axis 0 and coefficients (T,)."""
    precise = jax.lax.Precision.HIGHEST
    return {n: jnp.tensordot(alphas, d, 1, precision=precise) for n, d in stacked.items()}


def pad_rows(rows: np.ndarray, batches: Batches, fill: int = -1) -> list[Array]:
    """(N,) per-example numbers as (size,) a batch, on the device; ``fill`` where it is padded."""
    size = len(jax.tree.leaves(batches.items[0])[0])
    padded = np.full(len(batches.items) * size, fill, rows.dtype)
    padded[: len(rows)] = rows
    return [jax.device_put(row) for row in padded.reshape(-1, size)]


@partial(jit, static_argnums=0)
def _read(f: Apply, readout: jax.tree_util.Partial, params: Params, args: PyTree) -> Array:
    return readout(f(params, *args))


@partial(jit, static_argnums=0)
def _batch_hits(
    f: Apply, readout: jax.tree_util.Partial, params: Params, args: PyTree, labels: Array
) -> Array:
    return jnp.sum(predicted(_read(f, readout, params, args)) == labels)

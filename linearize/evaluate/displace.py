"""The non-linear regime: ``f(x; θ0 + Σ α_t τ_t)``, one pass per combination of coefficients."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from linearize.evaluate.batches import Batches, forward, split_batches, window
from linearize.evaluate.grid import check_points
from linearize.examples import check_inputs, count
from linearize.objectives import Classify, Objective, Targets
from linearize.objectives.readout import Readout
from linearize.taylor import check_function
from linearize.types import Apply, Array, Batch, Params, PyTree

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
    values = displaced_values(
        f, params0, taus, inputs, alphas, Classify(readout), {"labels": labels}, batch_size
    )
    return values["accuracy"]


def displaced_values(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    inputs: PyTree,
    alphas: ArrayLike,
    objective: Objective,
    targets: Targets,
    batch_size: int = 256,
) -> dict[str, np.ndarray]:
    """Each metric of an objective at each ``θ0 + Σ α_t τ_t``: :func:`grid_values`, non-linear.

    Args:
        f: ``f(params, *inputs) -> outputs (B, ...)``.
        params0: the base model θ0.
        taus: T ≥ 1 task vectors.
        inputs: arrays with N examples on axis 0; a tuple for a model of several arguments.
        alphas: (G, T) coefficients.
        objective: what is measured.
        targets: the examples' targets by role, (N, ...).
        batch_size: examples per pass.

    Returns:
        By metric (G,), float64.

    Raises:
        ValueError: bad ``alphas``, targets that do not fit the outputs, no example, no task vector.
        StructureMismatch: a task vector does not fit ``params0``.
        NonFiniteError: NaN or infinity in ``params0``, a task vector or the inputs.
    """
    check_function(f)
    points = check_points(alphas, len(taus))
    stacked = stack(params0, taus)
    check_inputs(inputs)
    batches = split_batches(inputs, batch_size, balanced=True)
    f = current(f, params0, *batches.items[0])
    check_targets(objective, forward.eval_shape(f, params0, batches.items[0]), targets, batches.n)
    rows = list(target_rows(targets, batches))

    def totals(point: np.ndarray) -> list[dict[str, Array]]:
        params = displace(params0, stacked, point)
        return [
            _batch_totals(f, objective, params, args, *row)
            for args, row in zip(batches.items, rows, strict=True)
        ]

    return objective.values(joined(map(summed, in_turn(totals, points))))


def check_targets(objective: Objective, shapes: PyTree, targets: Targets, n: int) -> None:
    """Targets of all N examples fit the outputs, of which the shapes of a batch are known.

    Raises:
        ValueError: as :meth:`linearize.objectives.Objective.check`.
    """
    whole = jax.tree.map(lambda y: jax.ShapeDtypeStruct((n, *y.shape[1:]), y.dtype), shapes)
    objective.check(whole, targets)


def target_rows(targets: Targets, batches: Batches) -> Iterator[tuple[Batch, Array]]:
    """Each batch's targets on the device, and its mask (size,): false where it is padded."""
    size = count(batches.items[0])
    host = {name: np.asarray(values) for name, values in targets.items()}
    for start in range(0, batches.n, size):
        mask = np.arange(start, start + size) < batches.n
        yield jax.device_put((window(host, start, size), mask))


def summed(parts: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Totals of batches as one, in int64 or float64."""
    wide = [
        {k: np.asarray(v, np.result_type(v, np.int64)) for k, v in part.items()} for part in parts
    ]
    return {name: np.sum([part[name] for part in wide], 0) for name in wide[0]}


def joined(points: Iterable[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Totals of points, (G, ...) each."""
    found = list(points)
    return {name: np.stack([point[name] for point in found]) for name in found[0]}


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
def _batch_totals(
    f: Apply, objective: Objective, params: Params, args: PyTree, targets: Batch, mask: Array
) -> dict[str, Array]:
    return objective.total(f(params, *args), targets, mask)

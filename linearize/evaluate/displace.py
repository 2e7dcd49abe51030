"""The non-linear regime: ``f(x; θ0 + Σ α_t τ_t)``, one pass per combination of coefficients."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import tree
from linearize.agreement import agree, once
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.affine import stack
from linearize.evaluate.batches import Batches, output_shapes, split_batches, window
from linearize.evaluate.grid import check_points
from linearize.evaluate.statistics import check_statistics
from linearize.examples import check_inputs, count
from linearize.objectives import Classify, Objective, Targets
from linearize.objectives.readout import Readout
from linearize.single import Sample, drawn, hold, wide
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
    """Top-1 accuracy at each ``θ0 + Σ α_t τ_t``, (G,): :func:`displaced_values` of classification.

    Args and raises as there; ``readout`` takes features to logits (B, C), or is ``None`` where
    ``f`` gives them, and ``labels`` are (N,) integers in [0, C). A prediction that is not finite is
    wrong.
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
    objective.check(output_shapes(f, params0, batches), targets)
    rows = [row for row, _ in target_rows(targets, batches)]

    def statistics(point: np.ndarray) -> list[dict[str, Array]]:
        params = displace(params0, stacked, point)
        return [
            _statistics(f, objective, params, args, row)
            for args, row in zip(batches.items, rows, strict=True)
        ]

    farthest, totals = int(np.abs(points).sum(1).argmax()), []
    for p, each in enumerate(in_turn(statistics, points)):
        if p == farthest:
            given = (params0, stacked, points[p])
            check_pass(f, objective, given, batches, rows[0], found=each[0])
        totals.append(summed(each, batches.n))
    return objective.values({name: np.stack([t[name] for t in totals]) for name in totals[0]})


def target_rows(targets: Targets, batches: Batches) -> Iterator[tuple[Batch, Array]]:
    """Each batch's targets on the device, and its mask (size,): false where it is padded."""
    size = count(batches.items[0])
    host = {name: np.asarray(values) for name, values in targets.items()}
    for start in range(0, batches.n, size):
        mask = np.arange(start, start + size) < batches.n
        yield jax.device_put((window(host, start, size), mask))


def summed(
    batches: Sequence[Mapping[str, np.ndarray]], n: int | None = None
) -> dict[str, np.ndarray]:
    """Statistics of all batches' first n examples, (B, ...) each; or, without n, totals of batches.

    In int64 or float64.
    """
    join = np.stack if n is None else np.concatenate
    whole = {name: join([batch[name] for batch in batches])[:n] for name in batches[0]}
    return {k: np.sum(v, 0, dtype=np.result_type(v, np.int64)) for k, v in whole.items()}


def check_pass(
    f: Apply,
    objective: Objective,
    displaced: tuple[Params, Mapping[str, Array], np.ndarray],
    batches: Batches,
    targets: Batch,
    found: Mapping[str, np.ndarray],
) -> None:
    """The statistics of one example of the first batch, once for each program.

    Raises:
        DisagreementError: its predictions by a second way have others; or a displaced parameter is
            not θ0 + Σ α τ.
    """
    args, (params0, stacked, point) = batches.items[0], displaced
    n = drawn(min(batches.n, count(args)))
    read, rest = objective.opened()

    def check() -> None:
        params = displace(params0, stacked, point)
        check_displaced(params, params0, stacked, point)
        row = {name: np.asarray(each)[n : n + 1] for name, each in targets.items()}
        one = {name: np.asarray(each)[n] for name, each in found.items()}

        def same(sample: Sample) -> None:
            whole = sample._replace(row=sample.row[None])
            what, entry = "the displaced model's statistics", f"of example {n} at {point.tolist()}"
            check_statistics(one, rest, [(whole, row)], what, entry)

        hold(same, f, params, args, n, read)

    once(check, "displaced", f, arrays=(objective, params0, dict(stacked), args))


def check_displaced(
    params: Params, params0: Params, stacked: Mapping[str, Array], alphas: np.ndarray
) -> None:
    """One number of each displaced leaf.

    Raises:
        DisagreementError: it is not θ0 + Σ α τ.
    """
    moved, base = tree.flatten(params), tree.flatten(params0)
    for name, leaf in stacked.items():
        here = np.asarray(moved[name]).ravel()
        if not len(here):
            continue
        k = drawn(len(here))
        steps = alphas * wide(np.asarray(leaf).reshape(len(leaf), -1)[:, k])
        terms = [wide(np.asarray(base[name]).ravel()[k]), *steps]
        found, expected = complex(here[k]), complex(sum(terms))
        agree(
            found.real + found.imag,
            expected.real + expected.imag,
            scale=float(np.abs(terms).sum()),
            dtypes=(moved[name].dtype, leaf.dtype),
            terms=len(terms),
            what=f"θ0 + Σ α τ in {name}",
            entry=str(k),
        )


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


@partial(jit, static_argnums=0)
def _statistics(
    f: Apply, objective: Objective, params: Params, args: PyTree, targets: Batch
) -> dict[str, Array]:
    return objective.statistics(f(params, *args), targets)

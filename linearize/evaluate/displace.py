"""The non-linear regime: ``f(x; θ0 + Σ α_t τ_t)``, one pass per combination of coefficients."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby, islice

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import shares, tree
from linearize.agreement import agree, once
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.affine import stack
from linearize.evaluate.batches import Batches, fetched, output_shapes, split_batches, window
from linearize.evaluate.grid import CHUNK_FLOATS, check_points
from linearize.evaluate.statistics import check_statistics
from linearize.examples import check_inputs, count
from linearize.objectives import Classify, Objective, Targets
from linearize.objectives.readout import Readout
from linearize.single import Sample, drawn, hold, wide
from linearize.taylor import check_function
from linearize.types import Apply, Array, Batch, Params, PyTree


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
    n = len(batches.items)
    rows = [target_row(targets, batches, b)[0] for b in range(n)]

    def statistics(passes: Sequence[int]) -> Iterator[dict[str, Array]]:
        where = np.unique([i // n for i in passes])
        farthest = where[np.abs(points[where]).sum(1).argmax()]
        for p, own in groupby(passes, lambda i: i // n):
            params = displace(params0, stacked, points[p])
            for k, b in enumerate(i % n for i in own):
                found = _statistics(f, objective, params, batches.items[b], rows[b])
                if p == farthest and not k:
                    given = (params0, stacked, points[p])
                    check_pass(f, objective, given, batches, b, rows[b], found)
                yield found

    held = max(1, CHUNK_FLOATS // batches.n)
    found = shares.each(lambda own: fetched(statistics(own)), len(points) * n, held * n)
    totals = [summed(list(islice(found, n)), batches.n) for _ in points]
    return objective.values({name: np.stack([t[name] for t in totals]) for name in totals[0]})


def target_row(targets: Targets, batches: Batches, b: int) -> tuple[Batch, Array]:
    """A batch's targets on the device, and its mask (size,): false where it is padded."""
    size = count(batches.items[0])
    host = {name: np.asarray(values) for name, values in targets.items()}
    mask = np.arange(b * size, (b + 1) * size) < batches.n
    return jax.device_put((window(host, b * size, size), mask))


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
    b: int,
    targets: Batch,
    found: Batch,
) -> None:
    """The statistics of one example of batch b, once for each program.

    Raises:
        DisagreementError: its predictions by a second way have others; or a displaced parameter is
            not θ0 + Σ α τ.
    """
    args, (params0, stacked, point) = batches.items[b], displaced
    n = drawn(min(batches.n - b * count(args), count(args)))
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

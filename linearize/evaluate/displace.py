"""The non-linear regime: ``f(x; θ0 + Σ α_t τ_t)``, one pass per combination of coefficients."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import tree
from linearize.agreement import agree, once
from linearize.compiled import jit
from linearize.evaluate.affine import stack
from linearize.evaluate.batches import Batches, check_inputs, split_batches
from linearize.evaluate.grid import check_labels, check_points
from linearize.evaluate.metrics import predicted
from linearize.evaluate.readout import Readout, as_readout
from linearize.single import check_class, drawn, hold, wide
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
        DisagreementError: a sampled example, computed alone, is of another class.
    """
    check_function(f)
    points = check_points(alphas, len(taus))
    stacked = stack(params0, taus)
    check_inputs(inputs)
    batches = split_batches(inputs, batch_size, balanced=True)
    read = as_readout(readout)
    shapes = _read.eval_shape(f, read, params0, batches.items[0])
    y = check_labels(labels, batches.n, shapes.shape[-1])

    def classes(point: np.ndarray) -> list[Array]:
        params = displace(params0, stacked, point)
        return [_classes(f, read, params, args) for args in batches.items]

    farthest, hits = int(np.abs(points).sum(1).argmax()), []
    for p, rows in enumerate(in_turn(classes, points)):
        if p == farthest:
            check_pass(f, read, params0, stacked, points[p], batches, chosen=rows[0])
        hits.append(np.count_nonzero(np.concatenate(rows)[: batches.n] == y))
    return np.asarray(hits, np.float64) / batches.n


def check_pass(
    f: Apply,
    readout: jax.tree_util.Partial,
    params0: Params,
    stacked: Mapping[str, Array],
    point: np.ndarray,
    batches: Batches,
    chosen: np.ndarray,
) -> None:
    """The class of one example of the first batch, once for each program.

    Raises:
        DisagreementError: another has a larger logit; or a displaced parameter is not θ0 + Σ α τ.
    """
    args = batches.items[0]
    n = drawn(min(batches.n, len(chosen)))

    def check() -> None:
        params = displace(params0, stacked, point)
        check_displaced(params, params0, stacked, point)
        what = f"the class of example {n} at α = {point.tolist()}"
        agree_on_class = partial(check_class, int(chosen[n]), what=what, entry="of the classes")
        hold(agree_on_class, f, params, args, n, readout)

    once(check, "displaced accuracy", f, arrays=(readout, params0, dict(stacked), args))


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
def _classes(f: Apply, readout: jax.tree_util.Partial, params: Params, args: PyTree) -> Array:
    return predicted(_read(f, readout, params, args))

"""Accuracy along a direction in weight space, in any view: what the searches ask for."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from linearize.agreement import once
from linearize.evaluate import AffineOutputs, Readout, grid_accuracy
from linearize.evaluate.affine import stack
from linearize.evaluate.displace import check_displaced, combine
from linearize.evaluate.view import view_of
from linearize.examples import Examples
from linearize.objectives import Classify
from linearize.task_vector import TaskVector
from linearize.types import Apply, Params, PyTree


def regime_accuracies(
    f: Apply | None,
    params0: Params,
    taus: PyTree | Sequence[PyTree],
    splits: Sequence[Any],
    readouts: Readout | Sequence[Readout],
    alphas: ArrayLike,
    regime: str,
    *,
    direction: ArrayLike | None = None,
    batch_size: int = 256,
    cached: Sequence[AffineOutputs] | None = None,
) -> np.ndarray:
    """Top-1 accuracy on S data sets at θ0 + α Σ d_t τ_t, for each α.

    A :class:`linearize.evaluate.view.View` of one vector, Σ d_t τ_t. Addition takes
    ``direction=None`` (all ones); a single task ``direction`` one-hot and ``alphas=[1.0]``;
    negation ``direction`` minus one-hot, with the target's and the control task's data as
    ``splits``.

    Args:
        f: ``f(params, *inputs) -> features (B, D)``.
        params0: the base model θ0.
        taus: T task vectors, or one.
        splits: S data sets (:meth:`linearize.Examples.of`).
        readouts: each data set's features to logits, or one for all.
        alphas: (A,) coefficients.
        regime: as of :func:`linearize.evaluate.view.view_of`.
        direction: (T,) weights d of the vectors.
        batch_size: examples per pass.
        cached: in the tangent view, each data set's outputs along the T vectors, which then
            serve in place of ``f``, ``params0`` and ``taus`` (to be given as ``None``, or not
            looked at); one cache serves every direction.

    Returns:
        (A, S), float64 in [0, 1].

    Raises:
        ValueError: unknown regime, numbers that differ, bad coefficients, labels out of range, no
            example.
        StructureMismatch: a task vector does not fit ``params0`` or stems from another base.
        NonFiniteError: NaN or infinity in ``params0``, a task vector or cached outputs.
        DisagreementError: a sampled number of a compiled program is another by a second way.

    >>> f = lambda params, x: x @ params["w"]
    >>> data = (np.array([[1.0, 2.0], [3.0, 1.0]]), np.array([0, 0]))
    >>> tau = {"w": np.diag([2.0, 0.0])}
    >>> regime_accuracies(f, {"w": np.eye(2)}, tau, [data], None, [0.0, 1.0], "linear").tolist()
    [[0.5], [1.0]]
    """
    view = view_of(regime)
    if not len(splits):
        raise ValueError("splits is empty; give at least one data set")
    if cached is not None and view.passes:
        raise ValueError(f"cached holds affine outputs, which regime={regime!r} cannot use")
    if cached is not None and len(cached) != len(splits):
        raise ValueError(f"cached has {len(cached)} entries for {len(splits)} splits")
    if isinstance(readouts, Sequence) and len(readouts) != len(splits):
        raise ValueError(f"readouts has {len(readouts)} entries for {len(splits)} splits")
    reads = list(readouts) if isinstance(readouts, Sequence) else [readouts] * len(splits)
    steps = np.asarray(alphas, np.float64)
    if steps.ndim != 1:
        raise ValueError(f"alphas has shape {steps.shape}; expected (A,)")
    data = [Examples.of(split) for split in splits]
    if cached is not None:
        points = [np.outer(steps, _direction(direction, len(a.jvps))) for a in cached]
        rows = [
            grid_accuracy(affine, p, read, each.labels)
            for affine, p, read, each in zip(cached, points, reads, data, strict=True)
        ]
        return np.stack(rows, 1)
    if f is None:
        raise ValueError("f is needed where no cached outputs are given")
    several = list(taus) if isinstance(taus, list | tuple) else [taus]
    stacked, weights = stack(params0, several), _direction(direction, len(several))
    total = combine(stacked, weights)
    nothing = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in total.items()}
    once(partial(check_displaced, total, nothing, stacked, weights), "sum", arrays=stacked)
    seen = view(f, params0, {"direction": TaskVector(total)}, batch_size)
    rows = [
        seen.values(steps[:, None], each, Classify(read))["accuracy"]
        for read, each in zip(reads, data, strict=True)
    ]
    return np.stack(rows, 1)


def _direction(direction: ArrayLike | None, n_taus: int) -> np.ndarray:
    d = np.ones(n_taus) if direction is None else np.asarray(direction, np.float64)
    if d.shape != (n_taus,) or not (np.abs(d) <= np.finfo(np.float32).max).all():
        raise ValueError(
            f"direction={direction}; expected ({n_taus},) finite numbers, in float32 as well, "
            "one per task vector"
        )
    return d

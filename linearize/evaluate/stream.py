"""The linear regime of outputs too large to keep: every point is measured while a batch is there.

A vocabulary's logits along T task vectors are (T, N, L, V) numbers; of them only statistics are
kept, summed over examples, for all points at once.
"""

from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize import taylor
from linearize.current import current
from linearize.evaluate.affine import AffineOutputs, affine_step, stack
from linearize.evaluate.batches import forward, split_batches
from linearize.evaluate.displace import check_targets, summed, target_rows
from linearize.evaluate.grid import affine_totals, check_points
from linearize.evaluate.second_way import check_terms
from linearize.examples import check_inputs
from linearize.objectives import Objective, Targets
from linearize.types import Apply, Params, PyTree


def streamed_values(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    inputs: PyTree,
    alphas: ArrayLike,
    objective: Objective,
    targets: Targets,
    batch_size: int = 256,
) -> dict[str, np.ndarray]:
    """Each metric at each ``f0 + Σ α_t Jτ_t``: :func:`linearize.evaluate.grid_values`, in one pass.

    Args:
        f: ``f(params, *inputs) -> (B, ...)``, one array.
        params0: the expansion point θ0.
        taus: T ≥ 1 task vectors.
        inputs: arrays with N examples on axis 0; a tuple for a model of several arguments.
        alphas: (G, T) coefficients.
        objective: what is measured.
        targets: the examples' targets by role, (N, ...).
        batch_size: examples per pass; T tangents of that many are held at once.

    Returns:
        By metric (G,), float64.

    Raises:
        ValueError: bad ``alphas``, targets that do not fit the outputs, no example, no task vector.
        StructureMismatch: a task vector does not fit ``params0``.
        NonFiniteError: NaN or infinity in ``params0``, a task vector, the inputs or the outputs.
        DisagreementError: an example of the first batch, alone and in reverse, has other outputs.
    """
    taylor.check_function(f)
    points = check_points(alphas, len(taus))
    stacked = stack(params0, taus)
    check_inputs(inputs)
    batches = split_batches(inputs, batch_size)
    f = current(f, params0, *batches.items[0])
    check_targets(objective, forward.eval_shape(f, params0, batches.items[0]), targets, batches.n)
    step = partial(affine_step, f, "auto", params0, stacked)
    parts: list[dict[str, np.ndarray]] = []
    for args, (rows, mask) in zip(batches.items, target_rows(targets, batches), strict=True):
        affine = AffineOutputs(*step(args))
        affine.check_finite()
        if not parts:
            check_terms(f, "auto", params0, stacked, args, affine.f0, affine.jvps)
        parts.append(jax.device_get(affine_totals(affine, points, objective, rows, mask)))
    return objective.values(summed(parts))

"""Statistics of a sampled point or example, from predictions by a second way, uncompiled.

A statistic may jump (the class of the largest logit), so what rounding may make of a prediction is
tried: a number is wrong where none of these gives it.
"""

from collections.abc import Iterable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from linearize.agreement import agree
from linearize.objectives import Objective, Targets
from linearize.single import Sample, narrowed, roundings, wide
from linearize.types import Array


def check_statistics(
    found: Mapping[str, Array | np.ndarray],
    objective: Objective,
    pieces: Iterable[tuple[Sample, Targets]],
    what: str,
    entry: str,
) -> None:
    """Statistics summed over examples.

    Args:
        found: the program's, by name.
        objective: of the predictions (:meth:`linearize.objectives.Objective.opened`).
        pieces: predictions (N, ...) of some examples, by a second way, and their targets by role;
            one after the other, so that no more than a piece is held.
        what: for the message.
        entry: likewise.

    Raises:
        DisagreementError: one is another for every prediction that rounding may have made.
    """
    terms, dtypes = 0, tuple[np.dtype, ...]()
    sums: dict[str, np.ndarray] = {}
    for predictions, targets in pieces:
        terms, dtypes = terms + len(predictions.row), predictions.dtypes
        for name, each in _with_slack(objective, predictions, targets).items():
            sums[name] = sums.get(name, 0.0) + each
    for name, (totals, slack, size) in sums.items():
        ours = wide(found[name])
        for place in np.ndindex(totals.shape):
            agree(
                ours[place],
                float(totals[place]),
                scale=float(size[place]) * (not np.issubdtype(found[name].dtype, np.integer)),
                dtypes=dtypes,
                terms=terms,
                what=f"{what}: {name}",
                entry=entry,
                slack=float(slack[place]),
            )


def _with_slack(
    objective: Objective, predictions: Sample, targets: Targets
) -> dict[str, np.ndarray]:
    """By name (3, ...): sums over examples, how far rounding moves them, and of magnitudes."""
    given = {role: jnp.asarray(each) for role, each in targets.items()}

    def of(outputs: np.ndarray) -> dict[str, np.ndarray]:
        with jax.disable_jit():
            each = objective.statistics(jnp.asarray(outputs), given)
        return {name: wide(value) for name, value in each.items()}

    right = of(narrowed(predictions.row))
    near = [of(other) for other in roundings(predictions.row, predictions)]
    sums = {}
    for name, each in right.items():
        with np.errstate(invalid="ignore"):
            apart = np.max([np.abs(other[name] - each) for other in near], axis=0)
        sums[name] = np.stack([each.sum(0), np.nansum(apart, axis=0), np.nansum(abs(each), axis=0)])
    return sums

"""Statistics of a sampled point or example, from predictions by a second way, uncompiled.

A statistic may jump (the class of the largest logit), so what rounding may make of a prediction is
tried: a number is wrong where none of these gives it.
"""

from collections.abc import Mapping

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
    predictions: Sample,
    targets: Targets,
    what: str,
    entry: str,
) -> None:
    """Statistics summed over examples.

    Args:
        found: the program's, by name.
        objective: of the predictions (:meth:`linearize.objectives.Objective.opened`).
        predictions: (N, ...), by a second way.
        targets: of these examples, by role, (N, ...).
        what: for the message.
        entry: likewise.

    Raises:
        DisagreementError: one is another for every prediction that rounding may have made.
    """
    given = {role: jnp.asarray(each) for role, each in targets.items()}

    def of(outputs: np.ndarray) -> dict[str, np.ndarray]:
        with jax.disable_jit():
            each = objective.statistics(jnp.asarray(outputs), given)
        return {name: wide(value) for name, value in each.items()}

    right = of(narrowed(predictions.row))
    near = [of(other) for other in roundings(predictions.row, predictions)]
    for name, each in right.items():
        with np.errstate(invalid="ignore"):
            apart = np.max([np.abs(other[name] - each) for other in near], axis=0)
        totals, slack = each.sum(0), np.nansum(apart, axis=0)
        ours, size = wide(found[name]), np.nansum(np.abs(each), axis=0)
        for place in np.ndindex(totals.shape):
            agree(
                ours[place],
                float(totals[place]),
                scale=float(size[place]) * (not np.issubdtype(found[name].dtype, np.integer)),
                dtypes=predictions.dtypes,
                terms=len(each),
                what=f"{what}: {name}",
                entry=entry,
                slack=float(slack[place]),
            )

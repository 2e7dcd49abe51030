"""Sampled cells and predictions of error maps by direct evaluation, model and distance uncompiled.

Distances may jump (the class of the largest logit), so what rounding may make of a prediction is
tried: a number is wrong where none of these gives it.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np

from linearize.agreement import agree, once
from linearize.disentangle.compared import Compared
from linearize.disentangle.passes import Passes
from linearize.evaluate.displace import check_displaced
from linearize.single import Sample, drawn, hold, narrowed, roundings, same_row
from linearize.types import Array


def check_distance(
    found: float, compared: Compared, kept: np.ndarray, logits: Sample, what: str, entry: str
) -> None:
    """The summed distance of predictions to ``kept``.

    Args:
        found: the program's.
        compared: how predictions of these N examples are compared.
        kept: (N, ...), what is kept of other predictions.
        logits: (N, ...), predictions by a second way.
        what: for the message.
        entry: likewise.

    Raises:
        DisagreementError: it is another for every prediction that rounding may have made.
    """
    z, given = narrowed(logits.row), jnp.asarray(kept)
    distances = (
        compared.apart(given, compared.kept(jnp.asarray(other)))
        for other in (z, -z, *roundings(logits.row, logits))
    )
    right, far, *near = (np.asarray(d, np.float64) for d in distances)
    agree(
        found,
        float(right.sum()),
        scale=float(np.nansum(np.abs(right) + np.abs(far))),  # a distance of 0 is rounded as well
        dtypes=logits.dtypes,
        terms=len(right),
        what=what,
        entry=entry,
        slack=float(np.nansum(np.max([np.abs(other - right) for other in near], axis=0))),
    )


def check_passes(passes: Passes, points: np.ndarray) -> None:
    """One example of each task at the point that is displaced most, once for each program.

    Raises:
        DisagreementError: it has other logits, or another distance to its own prediction or to that
            of its negative logits.
    """
    point = points[np.abs(points).sum(1).argmax()]
    for task in range(len(passes.batches)):
        given = passes.reads[task], passes.params0, passes.stacked, passes.batches[task].items[0]
        first = passes.compared[task][0]
        if len(first.real):
            check = partial(_check_pass, passes, task, point)
            once(check, "map", passes.f, arrays=(*given, first))


def _check_pass(passes: Passes, task: int, point: np.ndarray) -> None:
    params, first = passes.params(point), passes.compared[task][0]
    check_displaced(params, passes.params0, passes.stacked, point)
    args = passes.batches[task].items[0]
    made = passes.logits(task, params, first=True)[0]
    logits, code = np.asarray(made), np.array(passes.encode(first, made))
    n = int(first.real[drawn(len(first.real))])
    where = f"of example {n} of task {task} at α = {point.tolist()}"
    one = first.take(np.array([n]))
    alone = first._replace(counts=np.where(np.arange(len(logits)) == n, first.counts, 0))
    own = jnp.asarray(code[n][None])

    def check(sample: Sample) -> None:
        row = Sample(sample.row[None], np.asarray(sample.scale), sample.dtypes)
        same_row(logits[n], sample, "a pass of the model", where)
        found = float(np.sum(one.apart(own, own)))
        check_distance(found, one, code[n][None], row, "the prediction kept", where)
        for sign in (1.0, -1.0):
            other = code.copy()
            other[n] = one.kept(jnp.asarray(sign * narrowed(row.row)))[0]
            found = float(passes.distance_to(task, params, args, alone, other))
            what = f"the distance to a kept prediction of logits times {sign:g}"
            check_distance(found, one, other[n][None], row, what, where)

    hold(check, passes.f, params, args, n, passes.reads[task])


def check_cell(
    found: np.ndarray,
    compared: Compared,
    logits: Sample,
    singles: Array | np.ndarray,
    which: np.ndarray,
    cell: int,
) -> None:
    """The summed distance at one point of a map of affine outputs.

    Raises:
        DisagreementError: it is another.
    """
    name = compared.objective.distance.name
    what = f"the {name} distance of predictions summed over examples"
    kept = np.asarray(singles)[which[cell]]
    check_distance(float(found[cell]), compared, kept, logits, what, f"at point {cell} of the map")

"""Sampled cells and predictions of error maps by direct evaluation, model and distance uncompiled.

Distances may jump (the class of the largest logit), so what rounding may make of a prediction is
tried: a number is wrong where none of these gives it.
"""

from collections.abc import Iterable
from functools import partial
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from linearize.agreement import agree, once
from linearize.disentangle.compared import Compared
from linearize.disentangle.passes import Passes
from linearize.evaluate import AffineOutputs
from linearize.evaluate.displace import check_displaced
from linearize.evaluate.grid import blocks, directly
from linearize.single import Sample, drawn, hold, narrowed, roundings, same_row


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
    _agree(found, [(compared, kept, logits)], what, entry)


def _agree(
    found: float, pieces: Iterable[tuple[Compared, np.ndarray, Sample]], what: str, entry: str
) -> None:
    sums, terms, dtypes = np.zeros(3), 0, tuple[np.dtype, ...]()
    for compared, kept, logits in pieces:
        z, given = narrowed(logits.row), jnp.asarray(kept)
        others = chain((z, -z), roundings(logits.row, logits))  # one at a time: they may be large
        distances = (compared.apart(given, compared.kept(jnp.asarray(other))) for other in others)
        right, far, *near = (np.asarray(d, np.float64) for d in distances)
        slack = np.max([np.abs(other - right) for other in near], axis=0)
        # a distance of 0 is rounded as well
        sums += right.sum(), np.nansum(np.abs(right) + np.abs(far)), np.nansum(slack)
        terms, dtypes = terms + len(right), logits.dtypes
    value, scale, rounding = map(float, sums)
    agree(
        found,
        value,
        scale=scale,
        dtypes=dtypes,
        terms=terms,
        what=what,
        entry=entry,
        slack=rounding,
    )


def check_passes(passes: Passes, points: np.ndarray) -> None:
    """One example at the point that is displaced most, once for each program.

    Raises:
        DisagreementError: it has other logits, or another distance to its own prediction or to that
            of its negative logits.
    """
    point = points[np.abs(points).sum(1).argmax()]
    given = passes.read, passes.params0, passes.stacked, passes.batches.items[0]
    first = passes.compared[0]
    if len(first.real):
        check = partial(_check_pass, passes, point)
        once(check, "map", passes.f, arrays=(*given, first))


def _check_pass(passes: Passes, point: np.ndarray) -> None:
    params, first = passes.params(point), passes.compared[0]
    check_displaced(params, passes.params0, passes.stacked, point)
    args = passes.batches.items[0]
    made = passes.logits(params, first=True)[0]
    logits, code = np.asarray(made), np.array(passes.encode(first, made))
    n = int(first.real[drawn(len(first.real))])
    where = f"of example {n} of task {passes.task} at α = {point.tolist()}"
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
            found = float(passes.distance_to(params, args, alone, other))
            what = f"the distance to a kept prediction of logits times {sign:g}"
            check_distance(found, one, other[n][None], row, what, where)

    hold(check, passes.f, params, args, n, passes.read)


def check_cell(
    found: np.ndarray,
    compared: Compared,
    read: jax.tree_util.Partial,
    affine: AffineOutputs,
    weights: np.ndarray,
    single: np.ndarray,
    cell: int,
) -> None:
    """The summed distance at one point (T,) of a map of affine outputs to what is kept there.

    Raises:
        DisagreementError: it is another.
    """
    name = compared.objective.distance.name
    what = f"the {name} distance of predictions summed over examples"
    pieces = (
        (compared.take(rows), single[rows], directly(read, affine.take(rows), weights))
        for rows in blocks(np.arange(len(affine.f0)), affine)
    )
    _agree(float(found[cell]), pieces, what, f"at point {cell} of the map")

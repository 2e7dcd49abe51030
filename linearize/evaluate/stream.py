"""The linear regime of outputs too large to keep: every point is measured while a batch is there.

A vocabulary's logits along T task vectors are (T, N, L, V) numbers; of them only statistics are
kept, summed over examples, for all points at once.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize import shares, taylor
from linearize.current import current
from linearize.evaluate.affine import AffineOutputs, affine_step, check_one_array, stack
from linearize.evaluate.batches import Batches, output_shapes, split_batches, track
from linearize.evaluate.displace import summed, target_row
from linearize.evaluate.grid import affine_totals, check_points
from linearize.evaluate.second_way import check_terms
from linearize.examples import check_inputs, count
from linearize.objectives import Objective, Targets
from linearize.types import Apply, Flat, Params, PyTree


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

    Args and raises as :func:`linearize.evaluate.displaced_values`, but that ``f`` gives one array,
    and T tangents of a batch are held at once.

    Raises:
        DisagreementError: an example of the first batch, alone and in reverse, has other outputs.
    """
    taylor.check_function(f)
    points = check_points(alphas, len(taus))
    stacked = stack(params0, taus)
    check_inputs(inputs)
    batches = split_batches(inputs, batch_size)
    f = current(f, params0, *batches.items[0])
    shapes = output_shapes(f, params0, batches)
    check_one_array(shapes)
    objective.check(shapes, targets)

    def totals(numbers: Sequence[int]) -> Iterator[dict[str, Any]]:
        terms = streamed_terms(f, params0, stacked, batches, numbers)
        for b, affine in zip(numbers, terms, strict=True):
            rows, mask = target_row(targets, batches, b)
            yield jax.device_get(affine_totals(affine, points, objective, rows, mask))

    return objective.values(summed(list(shares.each(totals, len(batches.items)))))


def streamed_terms(
    f: Apply,
    params0: Params,
    stacked: Flat,
    batches: Batches,
    numbers: Sequence[int],
    progress: bool = False,
) -> Iterator[AffineOutputs]:
    """f0 and Jτ of one batch after the other, in float32 or wider; padded as the batches are.

    Args:
        f: ``f(params, *inputs) -> (B, ...)``, one array.
        params0: the expansion point θ0.
        stacked: task vectors (T, ...), by name.
        batches: from :func:`linearize.evaluate.batches.split_batches`.
        numbers: of the batches that are passed.
        progress: draw a progress bar.

    Raises:
        NonFiniteError: NaN or infinity in the outputs.
        DisagreementError: an example of the first, alone and in reverse, has other outputs.
    """
    size = count(batches.items[0])
    for b in track(numbers, progress):
        args, start = batches.items[b], b * size
        f0, jvps = affine_step(f, "auto", params0, stacked, args)
        affine, left = AffineOutputs(f0, jvps), batches.n - start
        what = (
            f"the model's outputs of examples from {start} on" if start else "the model's outputs"
        )
        AffineOutputs(np.asarray(f0)[:left], np.asarray(jvps)[:, :left]).check_finite(what)
        if b == numbers[0]:
            check_terms(f, "auto", params0, stacked, args, f0, jvps)
        yield affine

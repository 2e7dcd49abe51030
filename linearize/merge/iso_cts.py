"""Iso-CTS: the sum's leading directions and the tasks' own, all singular values alike.

(*No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces*, Marczak et
al. 2025.)
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from linearize import tree
from linearize.merge.matrices import (
    SCANNED,
    isotropic,
    leading,
    matrixwise,
    one_each,
    share,
    side_by_side,
)
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector


def iso_cts(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    common: float = 0.8,
    matrices: tree.Pattern = None,
    scanned: tree.Pattern = SCANNED,
) -> dict[str, TaskVector]:
    """As :func:`~linearize.merge.iso_c.iso_c`, the least of the directions given to the tasks' own.

    Of r directions, the smaller side of the matrix, the leading ⌊0.8 r⌋ or so are those of the sum;
    the others are shared equally among the tasks, each of which gives the leading ones of its
    matrix without the common *outputs*. All are whitened together. Where r is so small that this
    share rounds to 0, a matrix is merged as by Iso-C, as in the authors' code.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        common: share of the directions that are the sum's, in [0, 1].
        matrices: which leaves are, as :func:`linearize.merge.matrices.matrixwise` takes them.
        scanned: likewise.

    Returns:
        The direction, as ``{"iso_cts": τ}``.

    Raises:
        ValueError: no vector, ``common`` out of range, or below 1 with a matrix of fewer rows or
            columns than there are tasks, which leaves none to a task.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector.
    """
    if not 0 <= common <= 1:
        raise ValueError(f"common={common}; expected a share in [0, 1]")

    def merged(name: str, each: np.ndarray, rounding: float) -> np.ndarray:
        T, r = len(each), min(each.shape[1:])
        most = share("iso_cts", name, *each.shape) if common < 1 else 0
        own = min(round((r - int(r * common)) / T), most)
        top = leading(each.sum(0), r - T * own, rounding)
        rest = each - each @ top[2].conj().T @ top[2]
        sizes = np.linalg.norm(each, axis=(1, 2))
        parts = [leading(m, own, rounding, size) for m, size in zip(rest, sizes, strict=True)]
        return isotropic(*side_by_side([top, *parts], rounding))

    return {"iso_cts": matrixwise(taus, merged, matrices=matrices, scanned=scanned)}


ISO_CTS = Merge(
    "iso_cts",
    "Iso-CTS",
    iso_cts,
    needs=partial(one_each, "iso_cts"),
    about="The sum’s leading directions and the tasks’ own, all singular values alike (Marczak et "
    "al. 2025).",
)
"""Common and task-specific directions, all of them as far."""

"""TSV-M: each task's leading singular vectors, whitened together.

(*Task Singular Vectors: Reducing Task Interference in Model Merging*, Gargiulo et al. 2025.)
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from linearize import tree
from linearize.merge.matrices import SCANNED, leading, matrixwise, one_each, share, side_by_side
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector


def tsv_m(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    matrices: tree.Pattern = None,
    scanned: tree.Pattern = SCANNED,
) -> dict[str, TaskVector]:
    """Of each matrix U⊥ Σ V⊥ᵀ of ⌊r / T⌋ singular triples a task; of all else the mean.

    r is the smaller side of the matrix, U⊥ = P Qᵀ of the SVD of all tasks' left singular vectors
    side by side, V⊥ likewise. A task's triples that are rounding take no part, and vectors that
    several tasks share are shared: the authors' code fills both places with directions of LAPACK's
    choice, at full size where a vector comes twice. Where neither occurs, the result is theirs.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        matrices: which leaves are, as :func:`linearize.merge.matrices.matrixwise` takes them.
        scanned: likewise.

    Returns:
        The direction, as ``{"tsv_m": τ}``.

    Raises:
        ValueError: no vector, or a matrix of fewer rows or columns than there are tasks.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector.
    """

    def merged(name: str, each: np.ndarray, rounding: float) -> np.ndarray:
        count = share("tsv_m", name, *each.shape)
        triples = [leading(matrix, count, rounding) for matrix in each]
        u, s, vh = side_by_side(triples, rounding)
        return (u * s) @ vh

    return {"tsv_m": matrixwise(taus, merged, matrices=matrices, scanned=scanned)}


TSV_M = Merge(
    "tsv_m",
    "TSV-M",
    tsv_m,
    needs=partial(one_each, "tsv_m"),
    about="Each task’s leading singular vectors, a share of the rank for each, whitened together "
    "so that no direction counts twice (Gargiulo et al. 2025).",
)
"""A share of the rank for each task, and no direction that two of them claim twice."""

"""TSV-M: each task's leading singular vectors, whitened together.

(*Task Singular Vectors: Reducing Task Interference in Model Merging*, Gargiulo et al. 2025.)
"""

from collections.abc import Mapping

import numpy as np

from linearize import tree
from linearize.merge.matrices import SCANNED, as_matrices, leading, matrixwise, side_by_side
from linearize.merge.merge import Merge, Shapes
from linearize.study import Study
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
        triples = [leading(matrix, _share(name, *each.shape), rounding) for matrix in each]
        u, s, vh = side_by_side(triples, rounding)
        return (u * s) @ vh

    return {"tsv_m": matrixwise(taus, merged, matrices=matrices, scanned=scanned)}


def _share(name: str, tasks: int, rows: int, columns: int) -> int:
    """How many singular triples of a matrix a task has."""
    if share := min(rows, columns) // tasks:
        return share
    raise ValueError(
        f"tsv_m: {name} is a matrix of {rows} × {columns}, in which {tasks} tasks have no singular "
        "vector each; give matrices= a pattern that leaves it out, and it is averaged"
    )


def needs(study: Study, moving: Shapes) -> None:
    """A singular vector for each task in every matrix.

    Raises:
        ValueError: a matrix of fewer rows or columns than there are tasks.
    """
    for name, shape in moving.items():
        layers = as_matrices(name, np.broadcast_to(0.0, (1, *shape)), study.scanned)
        if layers is not None:
            _share(name, len(study.names), *layers.shape[-2:])


TSV_M = Merge(
    "tsv_m",
    "TSV-M",
    tsv_m,
    needs=needs,
    about="Each task’s leading singular vectors, a share of the rank for each, whitened together "
    "so that no direction counts twice (Gargiulo et al. 2025).",
)
"""A share of the rank for each task, and no direction that two of them claim twice."""

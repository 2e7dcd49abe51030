"""Iso-C: the sum, with all singular values of a matrix alike.

(*No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces*, Marczak et
al. 2025.)
"""

from collections.abc import Mapping

import numpy as np

from linearize import tree
from linearize.merge.matrices import SCANNED, isotropic, matrixwise, svd
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector


def iso_c(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    matrices: tree.Pattern = None,
    scanned: tree.Pattern = SCANNED,
) -> dict[str, TaskVector]:
    """Of each matrix U σ̄ Vᵀ of the sum's SVD, σ̄ the mean singular value; of all else the mean.

    Of a sum that lacks rank, σ̄ is the mean of the singular values that are not rounding, and their
    directions alone move; the authors' code moves LAPACK's choice of the others as far.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        matrices: which leaves are, as :func:`linearize.merge.matrices.matrixwise` takes them.
        scanned: likewise.

    Returns:
        The direction, as ``{"iso_c": τ}``.

    Raises:
        ValueError: no vector.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector.
    """

    def merged(name: str, each: np.ndarray, rounding: float) -> np.ndarray:
        return isotropic(*svd(each.sum(0), rounding))

    return {"iso_c": matrixwise(taus, merged, matrices=matrices, scanned=scanned)}


ISO_C = Merge(
    "iso_c",
    "Iso-C",
    iso_c,
    about="The sum, with all singular values of a matrix alike (Marczak et al. 2025).",
)
"""The sum's directions, all of them as far."""

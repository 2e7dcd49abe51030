"""WUDI in closed form: least interference with each task's inputs, as its own matrix spans them.

(*Whoever Started the Interference Should End It: Guiding Data-Free Model Merging via Task Vectors*,
Cheng et al. 2025.)
"""

from collections.abc import Mapping

import numpy as np

from linearize import tree
from linearize.merge.matrices import SCANNED, matrixwise, svd
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector


def wudi(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    ridge: float = 1e-3,
    matrices: tree.Pattern = None,
    scanned: tree.Pattern = SCANNED,
) -> dict[str, TaskVector]:
    """Of each matrix the Δ that minimises Σ_t ‖(Δ − ΔW_t) ΔW_tᵀ‖² / ‖ΔW_t‖²; of all else the mean.

    With G_t = ΔW_tᵀ ΔW_t and c_t = ‖ΔW_t‖⁻², W of outputs by inputs, that is
    Δ = (Σ c_t ΔW_t G_t)(Σ c_t G_t + ε I)⁻¹, which the authors come near by 300 steps of Adam. It is
    solved as the least squares that it is, by an SVD, whose conditioning is not squared. With ε = 0
    Δ is the smallest solution, which is far larger than any ΔW_t where tasks disagree along what
    their matrices hardly reach: some ε keeps it in bounds. A task whose matrix is zero asks for
    nothing.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        ridge: ε as a share of the largest eigenvalue of Σ c_t G_t, 0 or more.
        matrices: which leaves are, as :func:`linearize.merge.matrices.matrixwise` takes them.
        scanned: likewise.

    Returns:
        The direction, as ``{"wudi": τ}``.

    Raises:
        ValueError: no vector, or ``ridge`` below 0.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector.
    """
    if not 0 <= ridge < np.inf:
        raise ValueError(f"ridge={ridge}; expected a finite number, 0 or more")

    def merged(name: str, each: np.ndarray, rounding: float) -> np.ndarray:
        sizes = np.linalg.norm(each, axis=(1, 2), keepdims=True)
        rows = np.divide(each, sizes, out=np.zeros_like(each), where=sizes > 0)
        rows = rows.conj().swapaxes(1, 2)  # (T, out, in): √c_t ΔW_t
        wanted = rows @ each
        u, s, vh = svd(rows.reshape(-1, each.shape[1]), rounding)
        shrunk = s / (s**2 + ridge * np.square(s).max(initial=0))
        return (vh.conj().T * shrunk) @ (u.conj().T @ wanted.reshape(-1, each.shape[2]))

    return {"wudi": matrixwise(taus, merged, matrices=matrices, scanned=scanned)}


WUDI = Merge(
    "wudi",
    "WUDI",
    wudi,
    {"ridge": (1e-3, 1e-2, 0.0)},
    about="The matrices that differ least from each task’s own on the inputs that its vector "
    "spans, in closed form (Cheng et al. 2025).",
)
"""On the inputs that move a task's matrix, the merged matrix does what the task's does."""

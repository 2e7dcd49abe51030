"""KnOTS: TIES in coordinates that the tasks' matrices share.

(*Model Merging with SVD to Tie the Knots*, Stoica et al. 2025.)
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.merge.leafwise import of_leaves, stacked, together, wide
from linearize.merge.matrices import SCANNED, as_matrices, rounding_of, svd
from linearize.merge.merge import Merge
from linearize.merge.ties import DENSITY, ties
from linearize.task_vector import TaskVector
from linearize.types import Array


def knots(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    density: float = DENSITY,
    matrices: tree.Pattern = None,
    scanned: tree.Pattern = SCANNED,
) -> dict[str, TaskVector]:
    """TIES of Σ V_tᵀ, where [ΔW_1 … ΔW_T] = U Σ [V_1ᵀ … V_Tᵀ], multiplied by U again.

    W is of outputs by inputs, so that U is of the outputs, which the tasks share. It is made for
    LoRA, whose r·T directions are few, and takes any vectors. Leaves that are no matrices take part
    in TIES as they are: its threshold is one for all. Merged by the sum, coordinates would give the
    plain sum back.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.
        density: share of the coordinates that TIES keeps, in (0, 1].
        matrices: which leaves are, as :func:`linearize.merge.matrices.matrixwise` takes them.
        scanned: likewise.

    Returns:
        The direction, as ``{"knots": τ}``.

    Raises:
        ValueError: no vector, or ``density`` out of range.
        StructureMismatch: vectors of other names, shapes or bases.
        NonFiniteError: NaN or infinity in a vector.
    """
    total, picked = together(taus), tree.finder(matrices)
    bases: dict[str, list[np.ndarray]] = {}
    parts: list[dict[str, Array]] = [{} for _ in taus]
    for name in total.delta:
        coordinates = {name: stacked(taus, name)}
        layers = as_matrices(name, coordinates[name], scanned) if picked(name) else None
        if layers is not None:
            rounding = rounding_of(taus, name, layers.shape[-2:])
            each = layers.swapaxes(0, 1)
            bases[name] = [svd(np.concatenate(layer), rounding)[2] for layer in each]
            coordinates = {
                _part(name, i): layer @ basis.conj().T
                for i, (layer, basis) in enumerate(zip(each, bases[name], strict=True))
            }
        for part, values in coordinates.items():
            for task, own in zip(parts, values, strict=True):
                task[part] = jnp.asarray(own)
    tasks = {task: TaskVector(own) for task, own in zip(taus, parts, strict=True)}
    tied = {n: wide(d) for n, d in ties(tasks, seed, density=density)["ties"].delta.items()}
    for name, shared in bases.items():
        tied[name] = np.stack([tied[_part(name, i)] @ basis for i, basis in enumerate(shared)])
    return {"knots": of_leaves(total, tied.__getitem__)}


def _part(name: str, layer: int) -> str:
    return f"{name} {layer}"


KNOTS = Merge(
    "knots",
    "KnOTS",
    knots,
    {"density": (0.2, 0.5, 1.0)},
    whole=True,
    about="TIES in coordinates that the tasks’ matrices share (Stoica et al. 2025).",
)
"""TIES where vectors of low rank meet."""

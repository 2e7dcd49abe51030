"""MetaGPT: the coefficients that are best where losses are alike and quadratic, without any data.

(*MetaGPT: Merging Large Language Models Using Model Exclusive Task Arithmetic*, Zhou et al. 2024.)
"""

from collections.abc import Mapping

import numpy as np

from linearize.merge.leafwise import leafwise, total_square
from linearize.merge.merge import Merge
from linearize.task_vector import TaskVector


def metagpt(taus: Mapping[str, TaskVector], seed: int = 0) -> dict[str, TaskVector]:
    """Σ λ_t τ_t with λ_t = ‖τ_t‖² / Σ_k ‖τ_k‖², over all leaves together.

    Args:
        taus: T task vectors of the same leaves.
        seed: not used.

    Returns:
        The direction, as ``{"metagpt": τ}``.

    Raises:
        ValueError: no vector, or all of them are zero.
        StructureMismatch: vectors of other names, shapes or bases.

    >>> one, two = (TaskVector({"w": np.float32(w)}) for w in ([1, 0], [0, 3]))
    >>> [round(float(w), 4) for w in metagpt({"a": one, "b": two})["metagpt"].delta["w"]]
    [0.1, 2.7]
    """
    squares = np.array([total_square(tau) for tau in taus.values()])
    if len(squares) and not squares.any():
        raise ValueError(
            f"taus: the vectors of {', '.join(map(repr, taus))} are zero, so that none has a "
            "weight; give vectors of fine-tunings that moved"
        )
    weights = squares / max(squares.sum(), np.finfo(float).tiny)
    return {"metagpt": leafwise(taus, lambda _, leaves: np.tensordot(weights, leaves, 1))}


METAGPT = Merge(
    "metagpt",
    "MetaGPT",
    metagpt,
    about="A sum whose coefficients follow from the vectors’ norms, without any data (Zhou et al. "
    "2024).",
)
"""A sum whose coefficients follow from the vectors' norms."""

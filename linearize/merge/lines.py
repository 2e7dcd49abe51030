"""LiNeS: scale a merged vector's layers up with their depth.

(*LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging*, Wang et al.
2025.)
"""

import re
from collections.abc import Mapping
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from linearize import edit, tree
from linearize.merge.leafwise import wide
from linearize.merge.matrices import SCANNED
from linearize.merge.merge import Merge
from linearize.merge.sum import SUM
from linearize.task_vector import TaskVector
from linearize.types import Array

NUMBERED = r"(?:^|/)(?:\w*?_)?(?:block|layer|h)s?[_/](\d+)(?=/|$)"
"""The leaves of a numbered layer: ``block_3/kernel``, ``encoder/layers/3/kernel``."""


def lines(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    slope: float = 0.5,
    merge: Merge = SUM,
    numbered: str = NUMBERED,
    scanned: tree.Pattern = SCANNED,
) -> dict[str, TaskVector]:
    """A merged vector whose layer l of L is scaled by a + b · l / (L − 1).

    a = (‖Σ τ_t‖₁ / ‖merged‖₁) / T, which is 1 / T for the sum. What belongs to no numbered layer,
    before the first or after the last, is scaled by a, as in the authors' code.

    Args:
        taus: T task vectors of the same leaves.
        seed: of the merge.
        slope: b.
        merge: what is scaled: the sum of its directions.
        numbered: regular expression whose group is a layer's number in its leaves' names.
        scanned: pattern of the leaves with an axis of layers before the others.

    Returns:
        The direction, as ``{"lines": τ}``.

    Raises:
        ValueError: no vector, the merged vector is zero, or names show fewer than two layers.
        StructureMismatch: vectors of other names, shapes or bases.

    >>> tau = TaskVector({f"block_{i}/w": np.ones(1) for i in range(3)})
    >>> {n: float(w[0]) for n, w in lines({"a": tau}, slope=1.0)["lines"].delta.items()}
    {'block_0/w': 1.0, 'block_1/w': 1.5, 'block_2/w': 2.0}
    """
    total = edit.add(taus.values())
    merged = edit.add(merge.directions(taus, seed).values())
    size = _total(merged)
    if not size:
        raise ValueError(
            f"merge={merge.name!r} of these task vectors is zero, so there is nothing to scale; "
            "give vectors of fine-tunings that moved"
        )
    stacked = tree.finder(scanned)
    layers = {name: re.search(numbered, name) for name in merged.delta}
    numbers = {name: int(found[1]) for name, found in layers.items() if found}
    depths = [1 + number for number in numbers.values()]
    depths += [jnp.shape(leaf)[0] for name, leaf in merged.delta.items() if stacked(name)]
    depth = max(depths, default=0)
    if depth < 2:
        raise ValueError(
            f"taus name {depth} layer(s), as numbered={numbered!r} or scanned={scanned!r} find "
            f"them in {', '.join(list(merged.delta)[:4])}, ...; give the pattern of these names"
        )
    scales = _total(total) / size / len(taus) + slope * np.arange(depth) / (depth - 1)

    def scaled(name: str, leaf: Array) -> Array:
        scale = scales[: jnp.shape(leaf)[0]] if stacked(name) else scales[numbers.get(name, 0)]
        by = jnp.asarray(scale).reshape(-1, *[1] * (jnp.ndim(leaf) - 1)) if stacked(name) else scale
        return leaf * jnp.asarray(by, jnp.result_type(leaf))

    return {"lines": replace(merged, delta={n: scaled(n, d) for n, d in merged.delta.items()})}


def _total(tau: TaskVector) -> float:
    """‖τ‖₁ in float64."""
    return sum(float(np.abs(wide(leaf)).sum()) for leaf in tau.delta.values())


LINES = Merge("lines", "LiNeS", lines, {"slope": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)})
"""The sum, with more of its deep layers than of its shallow ones."""

"""LiNeS: scale a merged vector's layers up with their depth.

(*LiNeS: Post-training Layer Scaling Prevents Forgetting and Enhances Model Merging*, Wang et al.
2025.)
"""

import re
from collections.abc import Mapping

import numpy as np

from linearize import edit, tree
from linearize.merge.leafwise import leafwise, together, wide
from linearize.merge.matrices import SCANNED, layers_of
from linearize.merge.merge import Merge, Shapes
from linearize.merge.sum import SUM
from linearize.study import Study
from linearize.task_vector import TaskVector

NUMBERED = r"(?:^|/)(?:\w*?_)?(?:block|layer|h)s?[_/](\d+)(?=/|$)"
"""The leaves of a numbered layer: ``block_3/kernel``, ``encoder/layers/3/kernel``."""


def lines(
    taus: Mapping[str, TaskVector],
    seed: int = 0,
    *,
    slope: float = 0.4,
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
        numbered: regular expression whose first group is a layer's number in its leaves' names.
        scanned: pattern of the leaves with an axis of layers before the others.

    Returns:
        The direction, as ``{"lines": τ}``.

    Raises:
        ValueError: no vector, the merged vector is zero, ``numbered`` is no such expression, or
            names show fewer than two layers.
        StructureMismatch: vectors of other names, shapes or bases.

    >>> tau = TaskVector({f"block_{i}/w": np.ones(1) for i in range(3)})
    >>> {n: float(w[0]) for n, w in lines({"a": tau}, slope=1.0)["lines"].delta.items()}
    {'block_0/w': 1.0, 'block_1/w': 1.5, 'block_2/w': 2.0}
    """
    total = together(taus)
    merged = edit.add(merge.directions(taus, seed).values())
    size = _total(merged)
    if not size:
        raise ValueError(
            f"merge={merge.name!r} of these task vectors is zero, so there is nothing to scale; "
            "give vectors of fine-tunings that moved"
        )
    shapes = {name: np.shape(leaf) for name, leaf in merged.delta.items()}
    numbers, depths, L = _layers(shapes, numbered, scanned)
    scales = _total(total) / size / len(taus) + slope * np.arange(L) / (L - 1)

    def scaled(name: str, leaves: np.ndarray) -> np.ndarray:
        depth = depths[name]
        scale = scales[numbers.get(name, 0)] if depth is None else scales[:depth]
        return (leaves[0].T * scale).T  # along the first axis, where there is one of layers

    return {"lines": leafwise({"merged": merged}, scaled)}


def _layers(
    shapes: Shapes, numbered: str, scanned: tree.Pattern
) -> tuple[dict[str, int], dict[str, int | None], int]:
    """Numbers of the leaves that have one, layers that leaves are scanned through, and L."""
    try:
        pattern = re.compile(numbered)
    except re.error as error:
        raise ValueError(f"numbered={numbered!r} is no regular expression: {error}") from None
    found = {name: pattern.search(name) for name in shapes}
    said = {
        name: match[1] if pattern.groups else match[0] for name, match in found.items() if match
    }
    if wrong := [f"{word!r} of {name}" for name, word in said.items() if not str(word).isdecimal()]:
        raise ValueError(
            f"numbered={numbered!r} finds {wrong[0]}; give an expression whose first group is a "
            r"layer's number, such as block_(\d+)"
        )
    numbers = {name: int(word) for name, word in said.items()}
    depths = {name: layers_of(name, shape, scanned) for name, shape in shapes.items()}
    counts = [*(1 + number for number in numbers.values()), *filter(None, depths.values())]
    L = max(counts, default=0)
    if L < 2:
        raise ValueError(
            f"lines: numbered={numbered!r} and scanned={scanned!r} find {L} layer(s) in the leaves "
            f"{', '.join(list(depths)[:4])}, ...; give the pattern of names with a layer's number"
        )
    return numbers, depths, L


def needs(study: Study, moving: Shapes) -> None:
    """Layers that can be told by their names, or are scanned through.

    Raises:
        ValueError: names show fewer than two layers.
    """
    if moving:
        _layers(moving, NUMBERED, study.scanned)


def _total(tau: TaskVector) -> float:
    """‖τ‖₁ in float64."""
    return sum(float(np.abs(wide(leaf)).sum()) for leaf in tau.delta.values())


LINES = Merge(
    "lines",
    "LiNeS",
    lines,
    {"slope": (0.4, 0.0, 0.2, 0.6, 0.8, 1.0)},
    needs=needs,
    about="The sum, with more of its deep layers than of its shallow ones (Wang et al. 2025).",
)
"""The sum, with more of its deep layers than of its shallow ones."""

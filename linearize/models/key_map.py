"""Foreign names to ours: a table of regular expressions, all failures in one error."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from linearize.models.backbone import WeightsError

Transform = Callable[[np.ndarray], np.ndarray]
Rule = tuple[str, str | None, Transform | None]
"""Pattern of a whole foreign name; our name with its groups, or ``None`` to drop; reshaping."""


def rename(tensors: Mapping[str, np.ndarray], rules: Sequence[Rule]) -> dict[str, np.ndarray]:
    r"""Tensors under our names, by the first rule that fits each.

    Raises:
        WeightsError: names that no rule fits, or two tensors under one name; all are listed.

    >>> rename({"fc.weight": np.zeros((2, 3))}, [(r"fc\.weight", "head/kernel", np.transpose)])[
    ...     "head/kernel"
    ... ].shape
    (3, 2)
    """
    out: dict[str, np.ndarray] = {}
    problems = []
    for theirs, tensor in tensors.items():
        for pattern, replacement, transform in rules:
            match = re.fullmatch(pattern, theirs)
            if match is None:
                continue
            if replacement is not None:
                ours = match.expand(replacement)
                if ours in out:
                    problems.append(f"second tensor for {ours}: {theirs}")
                out[ours] = tensor if transform is None else transform(tensor)
            break
        else:
            problems.append(f"unknown: {theirs} {tensor.shape}")
    if problems:
        raise WeightsError(
            f"{len(problems)} of {len(tensors)} tensors do not belong to this model:\n  "
            + "\n  ".join(problems)
        )
    return out

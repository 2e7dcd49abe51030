"""Coefficients of directions, chosen on a target's validation examples, and what they are worth."""

from collections.abc import Mapping, Sequence

import numpy as np

from linearize.evaluate.view import View
from linearize.study import Study

_TIE = 1e-12

Direction = Mapping[str, float]
"""Weights of a view's vectors, by name; none of the model as it is."""


def square(axis: np.ndarray) -> np.ndarray:
    """(G², 2) every two of G coefficients.

    >>> square(np.array([0.0, 1.0])).tolist()
    [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    """
    return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)


def chosen(
    study: Study, view: View, directions: Sequence[Direction], points: np.ndarray, target: str
) -> dict[str, float]:
    """The target's test value at the coefficients that validation chooses, and at all of them 1.

    Of points that are as good on validation examples, the nearest to 0 is taken; one alone needs
    none.

    Args:
        study: of the target.
        view: of the vectors that directions are made of.
        directions: K of them, 1 or 2.
        points: (P, K) coefficients that are tried; (P,) of one direction.
        target: whose validation and test examples are looked at.

    Returns:
        ``alpha`` and, of two directions, ``beta``; ``accuracy``, the objective's first metric
        there; and ``at one``.
    """
    tried = np.reshape(points, (len(points), -1))
    names = {name for direction in directions for name in direction}

    def values(coefficients: np.ndarray, split: str) -> np.ndarray:
        at = {n: coefficients @ [d.get(n, 0.0) for d in directions] for n in names}
        return np.broadcast_to(study.measure(view, at, target, split), len(coefficients))

    point = tried[0]
    if len(tried) > 1:
        gain = study.objectives[target].primary.sign * values(tried, "validation")
        best = tried[gain >= gain.max() - _TIE]
        point = best[np.linalg.norm(best, axis=1).argmin()]
    few, place = np.unique([point, np.ones(len(point))], axis=0, return_inverse=True)
    accuracy, at_one = values(few, "test")[place.ravel()]
    found = dict(zip(("alpha", "beta"), map(float, point), strict=False))
    return found | {"accuracy": float(accuracy), "at one": float(at_one)}

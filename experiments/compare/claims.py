"""What the papers claim of the three regimes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.claims import Claim

Results = Mapping[str, Any]


def _over_tasks(values: Any) -> np.ndarray:
    return np.mean(np.asarray(values, float), axis=-1)


def _single(results: Results, regime: str) -> np.ndarray:
    return _over_tasks(results["single"][regime])


def _added(results: Results, regime: str, what: str = "accuracy") -> np.ndarray:
    return _over_tasks(results["addition"][regime][what])


def _negated(results: Results, regime: str) -> np.ndarray:
    return _over_tasks(results["negation"][regime]["target"])


def _xi(results: Results, regime: str) -> np.ndarray:
    """Mean ξ inside the search box, over the maps, for each seed."""
    boxed = []
    for entry in results["maps"]:
        grid, (low, high) = np.asarray(entry["alphas"]), entry["search_box"]
        inside = (grid >= low - 1e-9) & (grid <= high + 1e-9)
        total = np.asarray(entry["total"][regime], float)
        boxed.append(total[:, inside][:, :, inside].mean(axis=(1, 2)))
    if not boxed:
        raise KeyError("maps")
    return np.mean(boxed, axis=0)


def _off_diagonal(results: Results, regime: str) -> np.ndarray:
    cosine = np.abs(np.asarray(results["cosine"][regime], float))
    count = cosine.shape[-1]
    return (cosine.sum(axis=(1, 2)) - count) / (count * (count - 1))


def _beats_both(of: Callable[[Results, str], np.ndarray], results: Results) -> np.ndarray:
    """How far the linear regime lies above the better of the other two."""
    return of(results, "linear") - np.maximum(of(results, "nonlinear"), of(results, "posthoc"))


CLAIMS: tuple[Claim[Results], ...] = (
    Claim(
        "Post-hoc linearization lowers single-task accuracy (TAT, fig. 2)",
        lambda r: _single(r, "nonlinear") - _single(r, "posthoc"),
        "non-linear minus post-hoc, mean of tasks",
    ),
    Claim(
        "Post-hoc linearization lowers absolute accuracy after addition (TAT, table 1)",
        lambda r: _added(r, "nonlinear") - _added(r, "posthoc"),
        "non-linear minus post-hoc",
    ),
    Claim(
        "Post-hoc linearization raises normalized accuracy after addition (TAT, table 1)",
        lambda r: _added(r, "posthoc", "normalized") - _added(r, "nonlinear", "normalized"),
        "post-hoc minus non-linear",
    ),
    Claim(
        "Linear fine-tuning beats both in absolute accuracy after addition (TAT, table 1)",
        lambda r: _beats_both(_added, r),
        "linear minus the better of the two",
    ),
    Claim(
        "Linear fine-tuning beats both in normalized accuracy after addition (TAT, table 1)",
        lambda r: _beats_both(lambda s, regime: _added(s, regime, "normalized"), r),
        "linear minus the better of the two",
    ),
    Claim(
        "Linear fine-tuning forgets most in negation (TAT, table 2)",
        lambda r: _beats_both(lambda s, regime: -_negated(s, regime), r),
        "target accuracy of the better of the two minus linear's",
    ),
    Claim(
        "Addition in the linear regime improves on the pre-trained model (TA, TAT)",
        lambda r: _added(r, "linear") - _over_tasks(r["pretrained"]),
        "linear minus pre-trained",
    ),
    Claim(
        "The linear regime is more disentangled (TAT, fig. 6)",
        lambda r: np.minimum(_xi(r, "nonlinear"), _xi(r, "posthoc")) - _xi(r, "linear"),
        "mean ξ in the search box, the better of the two minus linear",
    ),
    Claim(
        "Disentanglement comes from pre-training, non-linear (TAT, sec. 5)",
        lambda r: _xi(r["random"], "nonlinear") - _xi(r, "nonlinear"),
        "mean ξ in the search box, random initialization minus pre-trained",
    ),
    Claim(
        "Disentanglement comes from pre-training, linear (TAT, sec. 5)",
        lambda r: _xi(r["random"], "linear") - _xi(r, "linear"),
        "mean ξ in the search box, random initialization minus pre-trained",
    ),
    Claim(
        "Task vectors are close to orthogonal, non-linear (TA, fig. 5)",
        lambda r: 0.1 - _off_diagonal(r, "nonlinear"),
        "0.1 minus the mean |cosine| of two tasks",
    ),
    Claim(
        "Task vectors are close to orthogonal, linear",
        lambda r: 0.1 - _off_diagonal(r, "linear"),
        "0.1 minus the mean |cosine| of two tasks",
    ),
)

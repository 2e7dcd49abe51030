"""What the papers claim, held against a run's own results.

A claim *held* where the 95 % interval over seeds of the paired difference lies on its side of
zero, *failed* where it lies on the other, and is *undecided* otherwise; one seed decides nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from linearize.evaluate import seed_interval

Results = Mapping[str, Any]
Claim = tuple[str, Callable[[Results], np.ndarray], str]
"""Its words, what is positive in each seed where it holds, and what that is."""


def judge(results: Results, claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """One row a claim: its words, whether it held, and the measured evidence.

    A claim on what the results do not hold is left out.
    """
    return [
        row
        for claim, measure, text in claims
        for row in [_row(claim, measure, text, results)]
        if row is not None
    ]


def _row(
    claim: str, measure: Callable[[Results], np.ndarray], text: str, results: Results
) -> dict[str, Any] | None:
    try:
        values = np.asarray(measure(results), float)
    except KeyError:
        return None
    mean, low, high = seed_interval(values)
    held = None
    if len(values) > 1:
        held = True if low > 0 else False if high < 0 else None
    interval = f"[{low:+.3f}, {high:+.3f}]" if len(values) > 1 else "no interval: one seed"
    return {"claim": claim, "held": held, "evidence": f"{text}: {mean:+.3f} {interval}"}


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


COMPARE: tuple[Claim, ...] = (
    (
        "Post-hoc linearization lowers single-task accuracy (TAT, fig. 2)",
        lambda r: _single(r, "nonlinear") - _single(r, "posthoc"),
        "non-linear minus post-hoc, mean of tasks",
    ),
    (
        "Post-hoc linearization lowers absolute accuracy after addition (TAT, table 1)",
        lambda r: _added(r, "nonlinear") - _added(r, "posthoc"),
        "non-linear minus post-hoc",
    ),
    (
        "Post-hoc linearization raises normalized accuracy after addition (TAT, table 1)",
        lambda r: _added(r, "posthoc", "normalized") - _added(r, "nonlinear", "normalized"),
        "post-hoc minus non-linear",
    ),
    (
        "Linear fine-tuning beats both in absolute accuracy after addition (TAT, table 1)",
        lambda r: _beats_both(_added, r),
        "linear minus the better of the two",
    ),
    (
        "Linear fine-tuning beats both in normalized accuracy after addition (TAT, table 1)",
        lambda r: _beats_both(lambda s, regime: _added(s, regime, "normalized"), r),
        "linear minus the better of the two",
    ),
    (
        "Linear fine-tuning forgets most in negation (TAT, table 2)",
        lambda r: _beats_both(lambda s, regime: -_negated(s, regime), r),
        "target accuracy of the better of the two minus linear's",
    ),
    (
        "Addition in the linear regime improves on the pre-trained model (TA, TAT)",
        lambda r: _added(r, "linear") - _over_tasks(r["pretrained"]),
        "linear minus pre-trained",
    ),
    (
        "The linear regime is more disentangled (TAT, fig. 6)",
        lambda r: np.minimum(_xi(r, "nonlinear"), _xi(r, "posthoc")) - _xi(r, "linear"),
        "mean ξ in the search box, the better of the two minus linear",
    ),
    (
        "Disentanglement comes from pre-training, non-linear (TAT, sec. 5)",
        lambda r: _xi(r["random"], "nonlinear") - _xi(r, "nonlinear"),
        "mean ξ in the search box, random initialization minus pre-trained",
    ),
    (
        "Disentanglement comes from pre-training, linear (TAT, sec. 5)",
        lambda r: _xi(r["random"], "linear") - _xi(r, "linear"),
        "mean ξ in the search box, random initialization minus pre-trained",
    ),
    (
        "Task vectors are close to orthogonal, non-linear (TA, fig. 5)",
        lambda r: 0.1 - _off_diagonal(r, "nonlinear"),
        "0.1 minus the mean |cosine| of two tasks",
    ),
    (
        "Task vectors are close to orthogonal, linear",
        lambda r: 0.1 - _off_diagonal(r, "linear"),
        "0.1 minus the mean |cosine| of two tasks",
    ),
)


def _along(results: Results, measure: str, optimizer: str, step: int = -1) -> np.ndarray:
    """A measure after a fine-tuning's last (or another) step, mean over tasks, (S,)."""
    runs = results["along"].values()
    return np.mean([np.asarray(r[optimizer][measure], float)[:, step] for r in runs], axis=0)


def _solved(results: Results, kernel: str) -> np.ndarray:
    found = results["solutions"].values()
    return np.mean([np.asarray(r[kernel]["accuracy"], float) for r in found], axis=0)


KERNEL_BEHAVIOR: tuple[Claim, ...] = (
    (
        "The NTK's solution is as accurate as fine-tuning by SGD, or better (KLM, table 1)",
        lambda r: _solved(r, "ntk") - _along(r, "accuracy", "sgd"),
        "NTK minus SGD, mean of tasks",
    ),
    (
        "Adam leaves the kernel regime further than SGD: gradients change more",
        lambda r: _along(r, "feature_change", "adam") - _along(r, "feature_change", "sgd"),
        "relative change of gradients, Adam minus SGD",
    ),
    (
        "The kernel aligns with the labels as SGD goes on (Baratin et al. 2021)",
        lambda r: _along(r, "target_alignment", "sgd") - _along(r, "target_alignment", "sgd", 0),
        "alignment after minus before",
    ),
    (
        "The kernel aligns with the labels as Adam goes on",
        lambda r: _along(r, "target_alignment", "adam") - _along(r, "target_alignment", "adam", 0),
        "alignment after minus before",
    ),
    (
        "The linearization at θ_t is less accurate than the model, SGD (TAT, fig. 2)",
        lambda r: _along(r, "gap_accuracy", "sgd"),
        "f minus f_lin at the last θ_t",
    ),
    (
        "The linearization at θ_t is less accurate than the model, Adam (TAT, fig. 2)",
        lambda r: _along(r, "gap_accuracy", "adam"),
        "f minus f_lin at the last θ_t",
    ),
)

"""What the papers claim of the kernel along a fine-tuning."""

import numpy as np

from experiments.claims import Claim
from experiments.kernel_behavior.results import Results


def _along(results: Results, measure: str, optimizer: str, step: int = -1) -> np.ndarray:
    """A measure after a fine-tuning's last (or another) step, mean over tasks, (S,)."""
    runs = results.along.values()
    return np.mean([getattr(run[optimizer], measure)[:, step] for run in runs], axis=0)


def _solved(results: Results, kernel: str) -> np.ndarray:
    return np.mean([found[kernel].accuracy for found in results.solutions.values()], axis=0)


CLAIMS: tuple[Claim[Results], ...] = (
    Claim(
        "The NTK's solution is as accurate as fine-tuning by SGD, or better (KLM, table 1)",
        lambda r: _solved(r, "ntk") - _along(r, "accuracy", "sgd"),
        "NTK minus SGD, mean of tasks",
    ),
    Claim(
        "Adam leaves the kernel regime further than SGD: gradients change more",
        lambda r: _along(r, "feature_change", "adam") - _along(r, "feature_change", "sgd"),
        "relative change of gradients, Adam minus SGD",
    ),
    Claim(
        "The kernel aligns with the labels as SGD goes on (Baratin et al. 2021)",
        lambda r: _along(r, "target_alignment", "sgd") - _along(r, "target_alignment", "sgd", 0),
        "alignment after minus before",
    ),
    Claim(
        "The kernel aligns with the labels as Adam goes on",
        lambda r: _along(r, "target_alignment", "adam") - _along(r, "target_alignment", "adam", 0),
        "alignment after minus before",
    ),
    Claim(
        "The linearization at θ_t is less accurate than the model, SGD (TAT, fig. 2)",
        lambda r: _along(r, "gap_accuracy", "sgd"),
        "f minus f_lin at the last θ_t",
    ),
    Claim(
        "The linearization at θ_t is less accurate than the model, Adam (TAT, fig. 2)",
        lambda r: _along(r, "gap_accuracy", "adam"),
        "f minus f_lin at the last θ_t",
    ),
)

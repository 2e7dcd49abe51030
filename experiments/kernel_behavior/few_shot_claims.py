"""What the paper claims of kernels and fine-tuning on a few examples."""

import numpy as np

from experiments.claims import Claim
from experiments.kernel_behavior.few_shot_results import Results
from linearize.report.node import Floats


def _less(results: Results, one: str, other: str, way: str = "prompted") -> Floats:
    """Accuracy of a method less that of another, mean over tasks, at the most examples."""
    k = max(results.shots)
    return results.over_tasks(way, k, one) - results.over_tasks(way, k, other)


def _tuned(results: Results, way: str, optimizer: str, measure: str) -> Floats:
    cells = results.cells(way, max(results.shots)).values()
    return np.mean([getattr(cell.tuned[optimizer], measure) for cell in cells], axis=0)


def _claims(way: str, words: str) -> tuple[Claim[Results], ...]:
    return (
        Claim(
            f"{words}, the kernel's solution is as accurate as SGD, or better (KLM, table 1)",
            lambda r: _less(r, "sgd, least_squares", "sgd", way),
            "NTK minus SGD, mean of tasks",
        ),
        Claim(
            f"{words}, asymmetric SignGD's solution is as accurate as Adam, or better (KLM)",
            lambda r: _less(r, "asymmetric_signgd, least_squares", "adam", way),
            "asymmetric SignGD minus Adam, mean of tasks",
        ),
        Claim(
            f"{words}, the linearization at θ_t is less accurate than the model, SGD",
            lambda r: (
                _tuned(r, way, "sgd", "accuracy") - _tuned(r, way, "sgd", "linearized_accuracy")
            ),
            "f minus f_lin",
        ),
    )


CLAIMS: tuple[Claim[Results], ...] = (
    *_claims("prompted", "With a prompt"),
    *_claims("plain", "Without a prompt"),
    Claim(
        "With a prompt, fine-tuning by SGD is nearer to its kernel than without one (KLM, §6)",
        lambda r: (
            _tuned(r, "plain", "sgd", "feature_change")
            - _tuned(r, "prompted", "sgd", "feature_change")
        ),
        "change of gradients, without minus with",
    ),
)

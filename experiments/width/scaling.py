"""Slopes against width on doubly logarithmic axes, and what the papers claim of them.

A slope is fitted for each seed over the widths; intervals are over seeds. A bound is *held* where
the whole 95 % interval lies below it and *failed* where it lies above. An exponent is held where
the interval lies within :data:`MARGIN` of it and failed where it lies wholly outside; O(1) is a
slope below :data:`MARGIN`. All else, and one seed, is undecided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from linearize.evaluate import seed_interval

MARGIN = 0.1

Slopes = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Claim:
    """What a paper says of a quantity's exponent in the width."""

    text: str
    quantity: str
    kind: Literal["at most", "equals"]
    exponent: float
    ntk_only: bool = False
    """Whether it is about the ``"ntk"`` parametrization."""


CLAIMS = (
    Claim(
        "The kernel's drift is O(width^−1/2) (Lee et al. 2019, Theorem 2.1)",
        "drift", "at most", -0.5,
    ),
    Claim(
        "The kernel's drift is closer to 1/width than to width^−1/2 (Lee et al. 2019, Fig. 1)",
        "drift", "at most", -0.75, ntk_only=True,
    ),
    Claim(
        "f and f_lin, each trained, differ by O(width^−1/2) (Lee et al. 2019, Theorem 2.1)",
        "gap", "at most", -0.5,
    ),
    Claim(
        "The weights' distance from θ0 is O(1) (Lee et al. 2019, Theorem 2.1)",
        "distance", "at most", MARGIN, ntk_only=True,
    ),
    Claim(
        "Input weights move as width^−1/2, relatively (Lee et al. 2019, Fig. 1)",
        "input", "equals", -0.5, ntk_only=True,
    ),
    Claim(
        "Hidden weights move as 1/width, relatively (Lee et al. 2019, Fig. 1)",
        "hidden", "equals", -1.0, ntk_only=True,
    ),
    Claim(
        "Output weights move as width^−1/2, relatively (Lee et al. 2019, Fig. 1)",
        "output", "equals", -0.5, ntk_only=True,
    ),
    Claim(
        "The kernel at θ0 approaches the analytic NTK as width^−1/2 (Jacot et al. 2018, "
        "Theorem 1, for the limit; Hanin and Nica 2020 for the rate)",
        "ntk_error", "equals", -0.5,
    ),
    Claim(
        "The last layer's kernel at θ0 approaches the analytic NNGP as width^−1/2 (Lee et al. "
        "2018, for the limit)",
        "nngp_error", "equals", -0.5,
    ),
)  # fmt: skip


def slopes(
    measured: Mapping[str, Any], widths: Sequence[int], fit_from: int
) -> dict[str, dict[str, list[float]]]:
    """Each quantity's slope by seed, from ``fit_from`` on (``"fit"``) and over ``"all"`` widths.

    Args:
        measured: by quantity (S, W), or (S, W, T) at some steps, of which the largest counts: the
            theorems bound the supremum over training.
        widths: W widths, ascending.
        fit_from: the smallest that ``"fit"`` takes in.

    >>> slopes({"drift": [[1.0, 0.5, 0.25]]}, widths=[2, 4, 8], fit_from=4)
    {'drift': {'fit': [-1.0], 'all': [-1.0]}}
    """
    wide = np.asarray(widths) >= fit_from
    found = {}
    for name in dict.fromkeys(claim.quantity for claim in CLAIMS) | dict.fromkeys(MORE):
        if name in measured:
            values = np.asarray(measured[name], np.float64)
            largest = values.max(-1) if values.ndim == 3 else values
            found[name] = {
                "fit": _slopes(np.asarray(widths)[wide], largest[:, wide]),
                "all": _slopes(np.asarray(widths), largest),
            }
    return found


MORE = ("feature_drift", "gap_at_theta")
"""Quantities with a slope that no claim is about."""


def judge(slopes: Slopes, parametrization: str) -> list[dict[str, Any]]:
    """One row a claim: its words, whether it held, and the measured slope."""
    return [
        _row(claim, slopes[claim.quantity]["fit"])
        for claim in CLAIMS
        if claim.quantity in slopes and not (claim.ntk_only and parametrization != "ntk")
    ]


def _slopes(widths: np.ndarray, values: np.ndarray) -> list[float]:
    fitted = np.polyfit(np.log(widths), np.log(values).T, 1)[0]
    return [round(float(slope), 12) for slope in fitted]


def _row(claim: Claim, values: Sequence[float]) -> dict[str, Any]:
    mean, low, high = seed_interval(np.asarray(values))
    theory = claim.exponent
    held = None
    if len(values) > 1 and claim.kind == "at most":
        held = True if high < theory else False if low > theory else None
    elif len(values) > 1:
        inside = theory - MARGIN <= low and high <= theory + MARGIN
        outside = high < theory - MARGIN or low > theory + MARGIN
        held = True if inside else False if outside else None
    interval = f"[{low:+.3f}, {high:+.3f}]" if len(values) > 1 else "no interval: one seed"
    wanted = f"{theory:+g}" if claim.kind == "at most" else f"{theory:+g} ± {MARGIN:g}"
    return {
        "claim": claim.text,
        "held": held,
        "evidence": f"slope {mean:+.3f} {interval}; {claim.kind} {wanted}",
    }

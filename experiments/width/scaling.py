"""Slopes against width on doubly logarithmic axes, and what the papers claim of them.

A slope is fitted for each seed over the widths; intervals are over seeds. A bound is *held* where
the whole 95 % interval lies below it and *failed* where it lies above. An exponent is held where
the interval lies within :data:`MARGIN` of it and failed where it lies wholly outside; O(1) is a
slope below :data:`MARGIN`. All else, and one seed, is undecided.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from experiments.claims import no_interval
from experiments.width.results import Slopes
from linearize.evaluate import seed_interval
from linearize.report.claims import Verdict

MARGIN = 0.1


@dataclass(frozen=True)
class ScalingLaw:
    """What a paper says of a quantity's exponent in the width."""

    text: str
    quantity: str
    kind: Literal["at most", "equals"]
    exponent: float
    ntk_only: bool = False
    """Whether it is about the ``"ntk"`` parametrization."""

    def verdict(self, slopes: np.ndarray) -> Verdict:
        """Whether slopes (S,), one a seed, bear it out."""
        mean, low, high = seed_interval(slopes)
        theory, wanted = self.exponent, f"{self.kind} {self.exponent:+g}"
        if self.kind == "at most":
            held, failed = high < theory, low > theory
        else:
            least, most = theory - MARGIN, theory + MARGIN
            held, failed = least <= low and high <= most, high < least or low > most
            wanted += f" ± {MARGIN:g}"
        if np.isnan(low):
            return Verdict(self.text, None, f"slope {mean:+.3f} {no_interval(slopes)}; {wanted}")
        interval = f"[{low:+.3f}, {high:+.3f}]"
        decided = bool(held) if held or failed else None
        return Verdict(self.text, decided, f"slope {mean:+.3f} {interval}; {wanted}")


LAWS = (
    ScalingLaw(
        "The kernel's drift is O(width^−1/2) (Lee et al. 2019, Theorem 2.1)",
        "drift", "at most", -0.5,
    ),
    ScalingLaw(
        "The kernel's drift is closer to 1/width than to width^−1/2 (Lee et al. 2019, Fig. 1)",
        "drift", "at most", -0.75, ntk_only=True,
    ),
    ScalingLaw(
        "f and f_lin, each trained, differ by O(width^−1/2) (Lee et al. 2019, Theorem 2.1)",
        "gap", "at most", -0.5,
    ),
    ScalingLaw(
        "The weights' distance from θ0 is O(1) (Lee et al. 2019, Theorem 2.1)",
        "distance", "at most", MARGIN, ntk_only=True,
    ),
    ScalingLaw(
        "Input weights move as width^−1/2, relatively (Lee et al. 2019, Fig. 1)",
        "input", "equals", -0.5, ntk_only=True,
    ),
    ScalingLaw(
        "Hidden weights move as 1/width, relatively (Lee et al. 2019, Fig. 1)",
        "hidden", "equals", -1.0, ntk_only=True,
    ),
    ScalingLaw(
        "Output weights move as width^−1/2, relatively (Lee et al. 2019, Fig. 1)",
        "output", "equals", -0.5, ntk_only=True,
    ),
    ScalingLaw(
        "The kernel at θ0 approaches the analytic NTK as width^−1/2 (Jacot et al. 2018, "
        "Theorem 1, for the limit; Hanin and Nica 2020 for the rate)",
        "ntk_error", "equals", -0.5,
    ),
    ScalingLaw(
        "The last layer's kernel at θ0 approaches the analytic NNGP as width^−1/2 (Lee et al. "
        "2018, for the limit)",
        "nngp_error", "equals", -0.5,
    ),
)  # fmt: skip


def slopes(
    values: Mapping[str, ArrayLike], widths: Sequence[int], fit_from: int
) -> dict[str, dict[str, list[float]]]:
    """Each quantity's slopes, from ``fit_from`` on (``"fit"``) and over ``"all"`` widths.

    Args:
        values: by quantity (S, W).
        widths: W widths, ascending.
        fit_from: the smallest that ``"fit"`` takes in.

    >>> slopes({"drift": [[1.0, 0.5, 0.25]]}, widths=[2, 4, 8], fit_from=4)
    {'drift': {'fit': [-1.0], 'all': [-1.0]}}
    """
    wide = np.asarray(widths) >= fit_from
    kinds = {"fit": wide, "all": np.full_like(wide, True)}
    return {
        name: {kind: _fitted(widths, each, among) for kind, among in kinds.items()}
        for name, each in values.items()
    }


def _fitted(widths: ArrayLike, values: ArrayLike, among: np.ndarray) -> list[float]:
    x, y = (np.log(np.asarray(each, np.float64)[..., among]) for each in (widths, values))
    return [round(float(slope), 12) for slope in np.polyfit(x, y.T, 1)[0]]


def judge(slopes: Mapping[str, Slopes], parametrization: str) -> tuple[Verdict, ...]:
    """Whether each law held that is about one of the quantities, in this parametrization."""
    return tuple(
        law.verdict(slopes[law.quantity].fit)
        for law in LAWS
        if law.quantity in slopes and not (law.ntk_only and parametrization != "ntk")
    )

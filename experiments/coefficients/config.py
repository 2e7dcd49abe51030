"""Optimal scaling coefficients."""

import dataclasses

from linearize.config.files import require
from linearize.config.vectors import AnalysisConfig, Regime
from linearize.fields import Natural, NonNegative


@dataclasses.dataclass(frozen=True)
class CoefficientsConfig(AnalysisConfig):
    """Optimal scaling coefficients: one for all, one per task, one per task and part of the model.

    ``regimes`` are affine ones.
    """

    regimes: tuple[Regime, ...] = ("posthoc", "linear")
    parts: Natural = 3
    """Groups of consecutive blocks that have coefficients of their own: with as many parts as
    blocks, or more, one block each. What lies outside the blocks is one more part. 0 leaves the
    parts out."""
    split: tuple[Regime, ...] = ("linear",)
    """Regimes in which coefficients by part are fitted; each part costs 1 + 2T passes, partial
    ones unless ``model.scan`` stacks the blocks."""
    l2: NonNegative = 0.0
    """Weight of a penalty (l2 / 2) ‖α‖² on the coefficients."""
    starts: Natural = 3
    """Random starts of the fit through the normalising head, beside 0, the shared α and the optimum
    of the affine head."""
    start_seed: Natural = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("regimes", "split"):
            known = all(r in ("posthoc", "linear") for r in getattr(self, name))
            require(known, name, getattr(self, name), "only 'posthoc' and 'linear' are affine")
        require(
            set(self.split) <= set(self.regimes), "split", self.split,
            f"must be among regimes={self.regimes}",
        )  # fmt: skip

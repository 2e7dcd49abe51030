"""Addition of every subset of the task vectors."""

import dataclasses
import itertools

from experiments import adding
from linearize.config.files import require
from linearize.config.vectors import AnalysisConfig
from linearize.fields import Count, Natural


@dataclasses.dataclass(frozen=True)
class SubsetsConfig(AnalysisConfig):
    """Addition of every subset of the task vectors."""

    fixed: float = 0.4
    """The coefficient that is used beside the one that validation data choose."""
    grid: tuple[float, ...] = (0.2, 0.4, 0.7, 1.0)
    """Coefficients tried in the non-linear regime, where each costs passes; ``edit`` has those of
    the affine regimes. Ascending, with ``fixed`` among them."""
    sample: Count = 3
    """Subsets of each size from 3 to T − 1 that the non-linear regime is measured on; all pairs,
    singles and the whole set are always measured."""
    sample_seed: Natural = 0
    """Decides the sample, which all seeds share."""

    def __post_init__(self) -> None:
        super().__post_init__()
        rising = all(a < b for a, b in itertools.pairwise(self.grid))
        require(bool(self.grid) and rising, "grid", self.grid, "give numbers, ascending")
        require(self.fixed in self.grid, "fixed", self.fixed, f"must be one of grid={self.grid}")
        T = len(self.data.tasks)
        require(T <= 12, "data.tasks", T, "2^T subsets are too many; name 12 tasks or fewer")

    def subsets(self) -> tuple[tuple[int, ...], ...]:
        """All 2^T − 1 subsets as task numbers, by size, then in order."""
        return adding.every(len(self.data.tasks))

    def sampled(self) -> tuple[tuple[int, ...], ...]:
        """The subsets that the non-linear regime is measured on."""
        return adding.sampled(len(self.data.tasks), self.sample, self.sample_seed)

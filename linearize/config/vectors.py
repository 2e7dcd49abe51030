"""What the analyses of task vectors share: where these come from, and what is looked at."""

import dataclasses
from typing import Literal

from linearize.config.compare import EditConfig
from linearize.config.files import require_distinct
from linearize.config.study import StudyConfig
from linearize.fields import Count

Regime = Literal["nonlinear", "posthoc", "linear"]


@dataclasses.dataclass(frozen=True)
class VectorsConfig(StudyConfig):
    """An analysis of task vectors that ``experiments.compare`` trains; it has no control task."""

    vectors: str | None = None
    """Run directory of ``experiments.compare`` whose task vectors to use; its own configuration
    then decides model, data, heads and training. Where None they are trained."""
    regimes: tuple[Regime, ...] = ("nonlinear", "posthoc", "linear")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_distinct("regimes", self.regimes)


@dataclasses.dataclass(frozen=True)
class AnalysisConfig(VectorsConfig):
    """An analysis of what the vectors merge to."""

    edit: EditConfig = EditConfig()
    """The grid on which the scaling coefficient is searched in the affine regimes."""
    validation: Count | None = None
    """Validation examples of each task to look at, at most; all where None."""
    test: Count | None = None
    """Test examples of each task to look at, at most; all where None."""

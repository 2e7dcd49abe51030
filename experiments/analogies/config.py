"""Task analogies on images: sub-populations, and classes that were never trained on."""

import dataclasses
import itertools

import numpy as np

from experiments.scaling import square
from linearize.config import CompareConfig, DataConfig
from linearize.config.files import ConfigError, require
from linearize.config.vectors import Regime
from linearize.fields import Count, Natural, Share, check
from linearize.train import TrainConfig


@dataclasses.dataclass(frozen=True)
class AnalogiesConfig:
    """Analogies between halves of the classes and styles, and between single classes and styles."""

    setting: CompareConfig = CompareConfig(
        data=DataConfig(tasks=("emoji", "emoji_google"), control="emoji_twitter")
    )
    """``data.tasks`` are the styles: data sets of the same classes. Nothing is measured here on
    ``data.control``, nor what else it compares (methods, merges, baselines, maps, random
    weights)."""
    halves: tuple[tuple[Natural, ...], tuple[Natural, ...]] = ((0, 2, 4, 6, 8), (1, 3, 5, 7))
    """Two disjoint sets of classes; with each style they make a sub-population. None in both leave
    sub-populations out."""
    regimes: tuple[Regime, ...] = ("nonlinear", "linear")
    """In which vectors are trained and evaluated."""
    of_two: Natural = 0
    """Points of each axis of the grid, over the range of ``edit``, on which the analogy has a
    coefficient of τ_C and another of τ_B − τ_A; none leaves that method out."""
    examples: tuple[Count, ...] = (10, 30, 100)
    """Numbers of the target's labelled training examples of the learning curve, ascending; it
    begins at the non-linear regime's analogy, and without that regime there is none."""
    curve: TrainConfig = TrainConfig()
    """Non-linear fine-tuning on them, from θ0 and from the edited model."""
    quadruples: tuple[tuple[Natural, Natural], ...] = ()
    """Pairs of classes (a, b): class b in the second style, never trained on, from b in the first,
    a in the second and a in the first ("queen + man − woman")."""
    single_steps: Count = 20
    """Steps of fine-tuning on the images of a single class, which is soon learned."""
    retained: Share = 0.95
    """Share of the pre-trained accuracy on all other classes that the edit for a single class must
    keep, on validation data."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        known = all(r in ("nonlinear", "linear") for r in self.regimes)
        require(bool(self.regimes) and known, "regimes", self.regimes,
                "name 'nonlinear', 'linear' or both")  # fmt: skip
        a, b = map(set, self.halves)
        good = bool(a) == bool(b) and not a & b
        require(good, "halves", self.halves, "give two sets of classes with none in common")
        require(bool(a or self.quadruples), "halves", self.halves, "give some, or quadruples")
        rising = all(x < y for x, y in itertools.pairwise((0, *self.examples)))
        require(rising, "examples", self.examples, "give positive numbers, ascending")
        require(self.of_two != 1, "of_two", self.of_two, "give 0, or 2 points and more")
        remedy = "tasks here are parts of the styles; give epochs or steps of the recipes"
        require(not self.setting.epochs, "setting.epochs", self.setting.epochs, remedy)
        for pair in self.quadruples:
            require(pair[0] != pair[1], "quadruples", pair, "give two different classes")
        warmup = max(r.optim.warmup for r in (self.setting.nonlinear, self.setting.linear))
        require(not self.quadruples or self.single_steps > warmup, "single_steps",
                self.single_steps, f"must be more than the {warmup} of warm-up")  # fmt: skip

    @property
    def pair(self) -> np.ndarray:
        """(of_two², 2) the coefficients of τ_C and of τ_B − τ_A that are tried."""
        edit = self.setting.edit
        return square(np.linspace(edit.low, edit.high, self.of_two))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The setting's."""
        return self.setting.seeds

"""Kernel behaviour against width."""

import dataclasses
import itertools
from typing import Literal

from linearize.config.files import ConfigError, require, require_distinct
from linearize.fields import Count, Positive, Seed, check


@dataclasses.dataclass(frozen=True)
class WidthConfig:
    """One fully-connected ReLU network at many widths, trained on one task by gradient descent."""

    task: str = "mnist"
    image_size: Count = 14
    """Side in pixels; images are greyed and centred."""
    scale: Positive = 0.3
    """Norm of every input as a share of √(pixels). Smaller means smaller outputs at θ0, whose
    unlearning is then less of what training does."""
    train: Count = 128
    test: Count = 64
    data_seed: Seed = 0
    """Decides the splits and what the limits keep."""
    depth: Count = 3
    """Hidden layers."""
    widths: tuple[Count, ...] = (128, 256, 512, 1024, 2048)
    """Units of each hidden layer, ascending."""
    fit_from: Count = 256
    """The smallest width that slopes are fitted to; below it higher orders of 1/width show."""
    parametrization: Literal["ntk", "standard"] = "ntk"
    weight_std: Positive = 2**0.5
    bias_std: Positive | None = 0.1
    """Of the biases; None for a network without any."""
    rate: Positive = 0.35
    """Learning rate, as a share of the largest that the infinite-width kernel permits."""
    steps: tuple[Count, ...] = (1, 3, 10, 32, 96)
    """Steps of gradient descent at which everything is measured, ascending; training ends there."""
    seeds: tuple[Seed, ...] = tuple(range(10))
    """Each draws its own weights at every width; intervals are over them."""
    draws: Count = 32
    """Weights at every width whose kernels at θ0 are held against the analytic ones; no training,
    so there may be more than seeds."""
    float64: bool = False
    """Networks and kernels in double precision."""

    def __post_init__(self) -> None:
        check(self, "", ConfigError)
        for name in ("widths", "steps"):
            values = getattr(self, name)
            rising = all(a < b for a, b in itertools.pairwise((0, *values)))
            require(bool(values) and rising, name, values, "give positive numbers, ascending")
        fitted = [w for w in self.widths if w >= self.fit_from]
        require(
            len(fitted) >= 2,
            "fit_from",
            self.fit_from,
            f"a slope needs two widths or more from there on; widths are {self.widths}",
        )
        require(0 < self.rate < 1, "rate", self.rate, "a share in (0, 1); beyond, descent diverges")
        require_distinct("seeds", self.seeds)

"""What a run of ``experiments.width`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from linearize.report.node import Floats, ResultsError
from linearize.report.run import Run
from linearize.report.schema import Axes, key

Along = Annotated[Floats, Axes("S", "W", "T")]
"""By seed, width and step."""
Drawn = Annotated[Floats, Axes("D", "W")]
"""At θ0, by draw of the weights and width."""


@dataclass(frozen=True)
class Quantity:
    """What a power of the width is expected of: a row of the tables and a curve of the figures."""

    label: str
    short: str
    theory: str
    """Its exponent in the ``"ntk"`` parametrization."""


QUANTITIES = {
    "drift": Quantity("Drift of the NTK", "NTK", "≤ −1/2, near −1"),
    "feature_drift": Quantity("Drift of the last layer's kernel", "last layer", "≤ −1/2"),
    "gap": Quantity("Gap to f_lin, each trained", "each trained", "≤ −1/2"),
    "gap_at_theta": Quantity("Gap to f_lin at the same weights", "same weights", ""),
    "input": Quantity("Movement of input weights", "input", "−1/2"),
    "hidden": Quantity("Movement of hidden weights", "hidden", "−1"),
    "output": Quantity("Movement of output weights", "output", "−1/2"),
    "distance": Quantity("Distance of all weights", "all, absolute", "≤ 0"),
    "ntk_error": Quantity("NTK at θ0 against analytic", "NTK", "−1/2"),
    "nngp_error": Quantity("Last layer's kernel against NNGP", "NNGP", "−1/2"),
}


@dataclass(frozen=True)
class Learning:
    """How far learning is: the training loss as a share of its beginning, and test accuracy."""

    loss: Along
    accuracy: Annotated[Floats, Axes("S", "W", "T", upper=1.0)]


@dataclass(frozen=True)
class Measured:
    """Of f, trained, and of f_lin; errors are of kernels at θ0 against the analytic ones."""

    drift: Along
    feature_drift: Along
    gap: Along
    gap_at_theta: Along
    gap_share: Along
    agreement: Along
    input: Along
    output: Along
    distance: Along
    f: Learning
    f_lin: Learning
    ntk_error: Drawn
    nngp_error: Drawn
    hidden: Along | None = None
    """None for one hidden layer."""

    @property
    def largest(self) -> dict[str, Floats]:
        """Each quantity's largest value over the steps, (S, W) or (D, W).

        The theorems bound a supremum over training.
        """
        found = {name: getattr(self, name) for name in QUANTITIES}
        return {n: v.max(-1) if v.ndim == 3 else v for n, v in found.items() if v is not None}


@dataclass(frozen=True)
class Slopes:
    """A quantity's slope by seed or draw, over the widths that are fitted and over all."""

    fit: Annotated[Floats, Axes("N")]
    every: Annotated[Floats, Axes("N")] = key("all")


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    task: str
    counts: Mapping[str, int]
    """Examples to train on and to test with."""
    inputs: int
    outputs: int
    widths: Annotated[tuple[int, ...], Axes("W")]
    steps: Annotated[tuple[int, ...], Axes("T")]
    fit_from: int
    measured: Measured
    slopes: Mapping[str, Slopes]
    error_of_mean: Mapping[str, Annotated[Floats, Axes("W")]]
    """Of the kernels' means over the draws."""

    def __post_init__(self) -> None:
        for name, values in self.measured.largest.items():
            slopes = len(self.slopes[name].fit) if name in self.slopes else 0
            if slopes != len(values):
                raise ResultsError(f"slopes/{name}/fit has {slopes} entries, not {len(values)}")

"""A task vector on a target that it was not trained on, its coefficients chosen on validation."""

from dataclasses import dataclass
from typing import Annotated

from linearize.report.node import Floats
from linearize.report.schema import Axes, key

OF_TWO = "analogy of two"
"""The analogy with a coefficient of τ_C and another of τ_B − τ_A, as the paper has for text."""


@dataclass(frozen=True)
class OnTarget:
    """Accuracy on a target, at the coefficients that its validation examples choose; S seeds."""

    alpha: Annotated[Floats, Axes("S")]
    accuracy: Annotated[Floats, Axes("S", upper=1.0)]
    at_one: Annotated[Floats, Axes("S", upper=1.0)] = key("at one")
    """At α = 1, which no example of the target chose."""
    beta: Annotated[Floats, Axes("S")] | None = None
    """The other coefficient, of τ_B − τ_A, where a method has two."""

"""What a run of ``experiments.toxicity`` measures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from linearize.report.node import Floats, ResultsError
from linearize.report.run import Run
from linearize.report.schema import Axes

PRETRAINED, TRAINED, ASCENT = "pretrained", "fine-tuned", "gradient_ascent"
CLEAN, RANDOM = "other text", "random"
MOST = 1e10
"""Perplexities beyond are written as this."""


@dataclass(frozen=True)
class Scored:
    """What a scorer says of generations."""

    share: Annotated[Floats, Axes("S", upper=1.0)]
    """Of those above the threshold."""
    mean: Annotated[Floats, Axes("S", upper=1.0)]


@dataclass(frozen=True)
class Edited:
    """A model: how it was edited, what it writes, and what the edit cost."""

    alpha: Annotated[Floats, Axes("S")]
    """Of the vector: negative where it is subtracted, 0 of the model as it was."""
    perplexity: Annotated[Floats, Axes("S")]
    """On the control's test text."""
    rise: Annotated[Floats, Axes("S")]
    """Of that, over the model as it was."""
    scores: Mapping[str, Scored]
    """By scorer."""
    texts: tuple[tuple[str, ...], ...] = ()
    """Generations, by seed; none unless they were asked for."""


@dataclass(frozen=True)
class Curve:
    """A regime along α ≥ 0, the vector subtracted."""

    perplexity: Annotated[Floats, Axes("S", "A")]
    """On the control's validation text."""
    share: Annotated[Floats, Axes("S", "P", upper=1.0)]
    """Of generations above the threshold, by the first scorer."""


@dataclass(frozen=True, kw_only=True)
class Results(Run):
    """All that the page shows."""

    target: str
    """What is to be forgotten, in words."""
    others: str
    """The text that it is held against, in words."""
    control: str
    """Whose perplexity may hardly rise, in words."""
    decoding: str
    """How texts were generated, in words."""
    recipe: str
    """How perplexity is measured, in words."""
    chosen_by: str
    """What chose the text that is trained on, in words."""
    scorers: Mapping[str, str]
    """What each scores, by name; the first is what figures show."""
    threshold: float
    generations: int
    """A model and seed."""
    swept: int
    """The same at each point of the curves."""
    tolerance: float
    regimes: tuple[str, ...]
    alphas: Annotated[Floats, Axes("A")]
    points: Annotated[Floats, Axes("P")]
    """α at which texts were generated."""
    edits: Mapping[str, Edited]
    curves: Mapping[str, Curve]
    intervals: Mapping[str, Annotated[Floats, Axes("I", upper=1.0)]]
    """By row, the first scorer's share of all seeds' texts together, and the ends of Wilson's 95 %
    interval: three numbers."""
    along: Mapping[str, Annotated[Floats, Axes("I", "P", upper=1.0)]]
    """The same of the curves, by regime."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """By row, as tables call it."""
    held_out: Mapping[str, Annotated[Floats, Axes("S", upper=1.0)]] = field(default_factory=dict)
    """By scorer, the share of held-out documents of both kinds on whose side it is of 0.5."""

    def __post_init__(self) -> None:
        if not self.scorers:
            raise ResultsError("scorers is empty; run the same command, which measures by one")

    @property
    def first(self) -> str:
        """The scorer that figures and claims go by."""
        return next(iter(self.scorers))

    def share(self, row: str) -> Floats:
        """Of generations above the threshold, by the first scorer, (S,).

        Raises:
            KeyError: there is no such row.
        """
        return self.edits[row].scores[self.first].share

"""What a scorer of texts is, and what is required of its answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from linearize.narration import Pace

BLOCK = 1000
"""Texts that a scorer is given at once, at most."""


class Score(Protocol):
    """``score(texts) -> (N,) float64 in [0, 1]``: how much each text is of a kind.

    A text's score does not depend on the others beside it.
    """

    def __call__(self, texts: Sequence[str], /) -> np.ndarray: ...


class ScorerError(ValueError):
    """A scorer that cannot be had, or whose answers are no scores."""


@dataclass(frozen=True)
class Scorer:
    """A row of the table of scorers.

    Attributes:
        name: how configurations call it.
        what: what a score is, for captions: "probability of ...".
        load: reads it, which may fetch a package.
    """

    name: str
    what: str
    load: Callable[[], Score]


def scores(score: Score, texts: Sequence[str], name: str = "the scorer") -> np.ndarray:
    """A scorer's answers, (N,) float64 in [0, 1].

    Args:
        score: of texts; it is given :data:`BLOCK` of them at a time.
        texts: N ≥ 0 of them; an empty one is a text.
        name: of the scorer, for messages.

    Raises:
        ValueError: ``texts`` is one string, or holds something else than strings.
        ScorerError: it answered with another shape, or with numbers that are no scores.

    >>> scores(lambda texts: [0.5 for _ in texts], ["a", "b"])
    array([0.5, 0.5])
    """
    if isinstance(texts, str):
        raise ValueError("texts is one string; expected a list of them")
    wrong = next((t for t in texts if not isinstance(t, str)), None)
    if wrong is not None:
        raise ValueError(f"texts holds a {type(wrong).__name__}; expected strings")
    pace, found = Pace(f"texts scored by {name}", len(texts)), [np.zeros(0)]
    for start in range(0, len(texts), BLOCK):
        pace.at(start)
        found.append(_answer(score, texts[start : start + BLOCK], name))
    whole = np.concatenate(found)
    bad = ~((whole >= 0) & (whole <= 1))
    if bad.any():
        n = int(bad.argmax())
        raise ScorerError(
            f"{name} gave {whole[n]} for text {n} ({bad.sum()} of {len(texts)} such); a score lies "
            "between 0 and 1"
        )
    return whole


def _answer(score: Score, texts: Sequence[str], name: str) -> np.ndarray:
    """A number each."""
    try:
        found = np.asarray(score(texts), np.float64)
    except (TypeError, ValueError) as error:
        raise ScorerError(f"{name} gave no numbers for {len(texts)} texts: {error}") from error
    if found.shape != (len(texts),):
        raise ScorerError(
            f"{name} gave an array of shape {found.shape} for {len(texts)} texts; expected "
            f"({len(texts)},), one score each"
        )
    return found

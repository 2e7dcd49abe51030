"""Scorers of texts: how much each is of a kind, such as toxic; packaged ones, and one's own."""

import importlib

from linearize.choices import one_of
from linearize.scorers import comments, hate, profanity
from linearize.scorers.scorer import Score as Score
from linearize.scorers.scorer import Scorer as Scorer
from linearize.scorers.scorer import ScorerError as ScorerError
from linearize.scorers.scorer import scores as scores
from linearize.scorers.words import WordScore as WordScore
from linearize.scorers.words import fit as fit

SCORERS: dict[str, Scorer] = {
    row.name: row
    for row in (
        Scorer(
            "profanity",
            "probability of profanity by alt-profanity-check, a linear SVM over words",
            profanity.load,
        ),
        Scorer(
            "comments",
            "probability of a toxic comment by toxic-comment-classifier, a bidirectional LSTM",
            comments.load,
        ),
        Scorer(
            "hate",
            "probability of hate speech or offensive language by hatesonar, logistic over words",
            hate.load,
        ),
    )
}
"""By name; a row of one's own is added by assignment."""


def named(name: str) -> Scorer:
    """A row of :data:`SCORERS`, or a function of one's own, ``package.module:function``.

    Raises:
        ScorerError: no such row, module or function.
    """
    module, colon, function = name.partition(":")
    if not colon:
        one_of("scorer", name, SCORERS, ScorerError)
        return SCORERS[name]
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ScorerError(
            f"scorer={name!r}: {error}; expected the name of a function that can be imported, "
            "'module:function'"
        ) from error
    if not callable(found):
        raise ScorerError(f"scorer={name!r} is a {type(found).__name__}; expected a function")
    return Scorer(name, f"score of {name}", lambda: found)

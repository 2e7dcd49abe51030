"""What the paper claims of negation in language models, held against a run's own results."""

import numpy as np

from experiments.claims import Claim
from experiments.toxicity.results import ASCENT, CLEAN, PRETRAINED, RANDOM, Results

NEGATED = "nonlinear"


def _less(results: Results, row: str, other: str) -> np.ndarray:
    return results.share(other) - results.share(row)


CLAIMS: tuple[Claim[Results], ...] = (
    Claim(
        "A negated vector makes the model write less of the kind (TA, sec. 3)",
        lambda r: _less(r, NEGATED, PRETRAINED),
        "share before minus after",
    ),
    Claim(
        "The perplexity of its control rises by no more than the tolerance, on test text too",
        lambda r: r.tolerance - r.edits[NEGATED].rise,
        "tolerance minus the rise",
    ),
    Claim(
        "Negation does better than fine-tuning on other text (TA, sec. 3)",
        lambda r: _less(r, NEGATED, CLEAN),
        "share after fine-tuning on other text minus share after negation",
    ),
    Claim(
        "Negation does better than a random vector of the same size (TA, sec. 3)",
        lambda r: _less(r, NEGATED, RANDOM),
        "share after the random vector minus share after negation",
    ),
    Claim(
        "Gradient ascent destroys the model (TA, sec. 3)",
        lambda r: r.edits[ASCENT].rise - 10 * r.tolerance,
        "rise of the perplexity minus ten times the tolerance",
    ),
    Claim(
        "Linear fine-tuning forgets more than non-linear fine-tuning (TAT, sec. 5)",
        lambda r: _less(r, "linear", NEGATED),
        "share after the non-linear vector minus share after the linear one",
    ),
)

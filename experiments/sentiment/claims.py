"""What the paper claims of analogies between domains, held against a run's own results."""

from collections.abc import Iterator

from experiments.claims import Claim
from experiments.on_target import OF_TWO
from experiments.sentiment.results import Results

WORDS = {"nonlinear": "non-linear", "posthoc": "post-hoc", "linear": "linear", "tau_jp": "τJp"}


def _each(text: str, method: str, over: str, evidence: str) -> Iterator[Claim[Results]]:
    """A claim for each regime, of what one method gains over another in it."""
    for regime, words in WORDS.items():
        yield Claim(
            text.format(words),
            lambda r, regime=regime: r.mean(regime, method, "accuracy", over),  # type: ignore[misc]
            f"{evidence}, mean of targets",
        )


CLAIMS: tuple[Claim[Results], ...] = (
    *_each(
        "The analogy with two coefficients is better than the auxiliary domain's sentiment alone, "
        "{} (TA, sec. 5)",
        OF_TWO,
        "auxiliary",
        "two coefficients minus auxiliary",
    ),
    *_each(
        "It is better than the model as it is, {}",
        OF_TWO,
        "pretrained",
        "two coefficients minus pre-trained",
    ),
    *_each("Two coefficients beat one, {}", OF_TWO, "analogy", "two coefficients minus one"),
    *_each(
        "The target's own labels are worth more still, {} (TA, sec. 5)",
        "target",
        OF_TWO,
        "target minus two coefficients",
    ),
)

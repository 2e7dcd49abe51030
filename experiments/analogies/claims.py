"""What the paper claims of analogies, held against a run's own results."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from experiments.analogies.results import Results
from experiments.claims import Claim
from experiments.on_target import OF_TWO

WORDS: Mapping[str, str] = {"nonlinear": "non-linear", "linear": "linear"}


def _each(
    text: str, gain: Callable[[str, Results], np.ndarray], evidence: str
) -> Iterator[Claim[Results]]:
    """A claim for each regime, of what is gained in it."""
    for regime, words in WORDS.items():
        yield Claim(text.format(words), partial(gain, regime), evidence)


def _ahead(results: Results) -> np.ndarray:
    """How far the edited start lies above θ0, mean over numbers of examples and targets, (S,)."""
    gain = results.curve("edited") - results.curve("pretrained")
    return gain[:, 1:].mean(-1)


CLAIMS: tuple[Claim[Results], ...] = (
    *_each(
        "The analogy improves zero-shot accuracy on the target, {} (TA, sec. 5)",
        lambda regime, r: r.on_targets(regime, "analogy", "accuracy", over="pretrained"),
        "analogy minus pre-trained, mean of targets",
    ),
    *_each(
        "It is better than the vector of the same classes in the other style alone, {}",
        lambda regime, r: r.on_targets(regime, "analogy", "accuracy", over="same classes"),
        "analogy minus same classes, mean of targets",
    ),
    *_each(
        "Two coefficients, of the same classes and of the styles' difference, beat one, {}",
        lambda regime, r: r.on_targets(regime, OF_TWO, "accuracy", over="analogy"),
        "two coefficients minus one, mean of targets",
    ),
    *_each(
        "With two, the difference of the styles adds to the same classes' vector, {}",
        lambda regime, r: r.on_targets(regime, OF_TWO, "accuracy", over="same classes"),
        "two coefficients minus same classes, mean of targets",
    ),
    Claim(
        "With labelled examples of the target, the edited model stays ahead (TA, sec. 5)",
        _ahead,
        "edited minus pre-trained start, mean of numbers of examples and targets",
    ),
    *_each(
        "A class never trained on is learned from three related ones, {} (TA, sec. 5)",
        lambda regime, r: r.on_classes(regime, "analogy", "target", over="pretrained"),
        "accuracy on the class, analogy minus pre-trained, mean of quadruples",
    ),
)

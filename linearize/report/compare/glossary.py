"""What the words of a comparison's page mean; only those that the page uses.

Methods and merges bring their own sentence in the results; the papers' regimes have one here, for
runs that did not.
"""

from collections.abc import Callable, Mapping

from linearize.report.compare.results import Results
from linearize.report.section import definitions

Words = Mapping[str, tuple[str, Callable[[Results], object]]]

FIRST: Words = {
    "Task vector τ": (
        "The fine-tuned parameters of a task less the pre-trained ones, θ − θ0.",
        lambda results: results.single,
    ),
    "Coefficient α": (
        "What a task vector is multiplied by before it is added. 1 is the vector as it was "
        "trained, 0 the pre-trained model.",
        lambda results: results.single,
    ),
}
REGIMES: Words = {
    "Non-linear": (
        "The model itself, fine-tuned, and evaluated at θ0 + Σ α τ.",
        lambda results: "nonlinear" in results.single,
    ),
    "Post-hoc linearized": (
        "Task vectors of non-linear fine-tuning, put into the model’s first-order Taylor expansion "
        "around θ0.",
        lambda results: "posthoc" in results.single,
    ),
    "Linear": (
        "That expansion itself fine-tuned: f(θ0) + J(θ0) τ, affine in τ.",
        lambda results: "linear" in results.single,
    ),
}
WORDS: Words = {
    "Addition": (
        "All task vectors added with one α, which validation data choose; measured on every task.",
        lambda results: results.addition,
    ),
    "Negation": (
        "One task vector subtracted, so that its task, the target, is forgotten and another, the "
        "control, is not.",
        lambda results: results.negation,
    ),
    "Normalized": (
        "After the edit, as a share of what the task’s own vector alone reaches under the same "
        "method.",
        lambda results: results.addition,
    ),
    "Disentanglement error ξ": (
        "How often the prediction for one task’s inputs changes when another task’s vector is "
        "added, summed over both tasks; 0 where vectors do not interfere.",
        lambda results: results.maps,
    ),
    "Search box": (
        "The coefficients among which α is searched, drawn in red on the maps.",
        lambda results: any(pair.search_box for pair in results.maps),
    ),
    "Seed": (
        "Decides the order of the data, the heads’ examples and the draws; an interval over seeds "
        "says how much that matters.",
        lambda results: True,
    ),
}


def section(results: Results) -> str:
    """The words that a run's page uses, as a list of definitions."""
    parts = (_used(FIRST, results), _used(REGIMES, results), results.about, _used(WORDS, results))
    return definitions({word: text for part in parts for word, text in part.items()})


def _used(words: Words, results: Results) -> dict[str, str]:
    return {word: text for word, (text, used) in words.items() if used(results)}

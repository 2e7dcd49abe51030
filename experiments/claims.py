"""What the papers claim, held against a run's own results.

A claim *held* where the 95 % interval over seeds of the paired difference lies on its side of
zero, *failed* where it lies on the other, and is *undecided* otherwise. One seed says nothing of
others; of itself it says as much as its test examples do, where results can be drawn anew.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from linearize.evaluate import seed_interval
from linearize.report.claims import Verdict
from linearize.report.run import Run

R = TypeVar("R")
J = TypeVar("J", bound=Run)


class Claim(NamedTuple, Generic[R]):
    """A statement that a run's results decide."""

    text: str
    margin: Callable[[R], np.ndarray]
    """(S,): positive in each seed where it holds."""
    evidence: str
    """What that is."""


def judge(
    results: R, claims: Sequence[Claim[R]], again: Callable[[R], R] | None = None
) -> tuple[Verdict, ...]:
    """Whether each claim held; one on what the results do not hold is left out.

    Args:
        results: of a run.
        claims: on it.
        again: of one seed's results, what they could have been with other test examples, in the
            place of the seeds.
    """
    other = again(results) if again else None
    return tuple(verdict for claim in claims for verdict in _decided(claim, results, other))


def judged(results: J, claims: Sequence[Claim[J]], again: Callable[[J], J] | None = None) -> J:
    """The results with their verdicts; ``again`` is asked of one seed alone."""
    alone = again if len(results.seeds) == 1 else None
    return dataclasses.replace(results, claims=judge(results, claims, alone))


def no_interval(values: np.ndarray) -> str:
    """Why there is no interval over seeds (S,).

    >>> no_interval(np.array([0.1, np.nan, 0.2])), no_interval(np.array([0.1]))
    ('no interval: 1 of 3 seeds without a value', 'no interval: one seed')
    """
    if len(values) == 1:
        return "no interval: one seed"
    missing = np.count_nonzero(~np.isfinite(values))
    return f"no interval: {missing} of {len(values)} seeds without a value"


def _decided(claim: Claim[R], results: R, other: R | None) -> list[Verdict]:
    try:
        values = np.asarray(claim.margin(results), float).round(12)  # of means that tie, rounding
        drawn = values[:0] if other is None else np.asarray(claim.margin(other), float)
    except KeyError:
        return []
    mean, low, high = seed_interval(values)
    scope = ""
    if len(drawn) > 1:  # what is no share of examples is the same in all of them
        low, high = np.quantile(drawn, [0.025, 0.975])
        scope = "in this seed"
    held = True if low > 0 else False if high < 0 else None
    interval = f"[{low:+.3f}, {high:+.3f}]" if not np.isnan(low) else no_interval(values)
    return [Verdict(claim.text, held, f"{claim.evidence}: {mean:+.3f} {interval}", scope)]

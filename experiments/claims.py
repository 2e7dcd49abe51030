"""What the papers claim, held against a run's own results.

A claim *held* where the 95 % interval over seeds of the paired difference lies on its side of
zero, *failed* where it lies on the other, and is *undecided* otherwise; one seed decides nothing.
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


def judge(results: R, claims: Sequence[Claim[R]]) -> tuple[Verdict, ...]:
    """Whether each claim held; one on what the results do not hold is left out."""
    return tuple(verdict for claim in claims for verdict in _decided(claim, results))


def judged(results: J, claims: Sequence[Claim[J]]) -> J:
    """The results with their verdicts."""
    return dataclasses.replace(results, claims=judge(results, claims))


def _decided(claim: Claim[R], results: R) -> list[Verdict]:
    try:
        values = np.asarray(claim.margin(results), float)
    except KeyError:
        return []
    mean, low, high = seed_interval(values)
    held = None
    if len(values) > 1:
        held = True if low > 0 else False if high < 0 else None
    interval = f"[{low:+.3f}, {high:+.3f}]" if len(values) > 1 else "no interval: one seed"
    return [Verdict(claim.text, held, f"{claim.evidence}: {mean:+.3f} {interval}")]

"""What a run of ``experiments.localization`` left, checked."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from linearize.report.node import Floats, Node

INITIALIZATIONS = ("pretrained", "random")


@dataclass(frozen=True)
class Spectrum:
    """Eigenfunctions of one target's kernel on its and a control's points; S seeds, k of them."""

    values: Floats
    """(S, k), descending."""
    weights: Floats
    """(S, k): shares of the target's squared coefficients."""
    control: Floats
    """(S, k): local energy on the control's points; 2 minus that is the task's."""


@dataclass(frozen=True)
class Relation:
    """A rank correlation: of the means over seeds with its interval over tasks, and by seed."""

    share: float
    regime: str
    coefficients: str
    kind: str
    mean: float
    low: float
    high: float
    seeds: Floats


@dataclass(frozen=True)
class Results:
    """All that the page shows."""

    seeds: tuple[int, ...]
    tasks: Mapping[str, tuple[str, ...]]
    """By initialization; none at random weights where these were not asked for."""
    pairs: tuple[tuple[str, str], ...]
    points: int
    shares: tuple[float, ...]
    energy: Mapping[str, Floats]
    """By initialization, (S, K, T, T): seed, share, target, control; NaN on the diagonal."""
    captured: Mapping[str, Floats]
    """The same: how much of the target these eigenfunctions represent."""
    spectra: Mapping[tuple[str, str, str], Spectrum]
    """By initialization, target and control, of the drawn pairs."""
    xi: Mapping[str, Mapping[str, Floats]]
    """By regime and coefficients, (S, T, T): target, control; 0 on the diagonal."""
    relations: tuple[Relation, ...]

    @classmethod
    def parse(cls, node: Node) -> "Results":
        """Read and check.

        Raises:
            ResultsError: with the key that is missing or misshapen.
        """
        seeds = node.integers("seeds")
        shares = tuple(float(share) for share in node.list("shares"))
        tasks = {i: node.child("tasks").names(i) for i in INITIALIZATIONS}
        pairs = tuple((str(a), str(b)) for a, b in node.list("pairs"))
        S, K, T = len(seeds), len(shares), len(tasks["pretrained"])
        drawn = [i for i in INITIALIZATIONS if tasks[i]]
        parts = {
            part: {i: _matrices(node.child(f"energy/{i}/{part}"), tasks[i], S, K) for i in drawn}
            for part in ("control", "captured")
        }
        spectra = {}
        for i, (a, b) in itertools.product(drawn, pairs):
            for target, control in ((a, b), (b, a)):
                if {a, b} <= set(tasks[i]):
                    found = node.child(f"energy/{i}/spectra/{target}/{control}")
                    arrays = (found.numbers(p, (S, None)) for p in ("values", "weights", "control"))
                    spectra[i, target, control] = Spectrum(*arrays)
        xi = {
            regime: {p: node.numbers(f"xi/{regime}/{p}", (S, T, T), 1.0) for p in ("box", "one")}
            for regime in node.mapping("xi")
        }
        relations = tuple(
            _relation(row, kind, S)
            for row in node.children("relation")
            for kind in ("pairs", "ordered")
        )
        return cls(
            seeds,
            tasks,
            pairs,
            int(node.get("points")),
            shares,
            parts["control"],
            parts["captured"],
            spectra,
            xi,
            relations,
        )


def _matrices(node: Node, tasks: tuple[str, ...], S: int, K: int) -> Floats:
    found = np.full((S, K, len(tasks), len(tasks)), np.nan)
    for (i, target), (j, control) in itertools.product(enumerate(tasks), repeat=2):
        if i != j:
            found[:, :, i, j] = node.child(target).numbers(control, (S, K))
    return found


def _relation(row: Node, kind: str, S: int) -> Relation:
    found = row.child(kind)
    mean, low, high = (float(found.numbers(p, ())) for p in ("mean", "low", "high"))
    names = (str(row.get("regime")), str(row.get("coefficients")))
    share = float(row.numbers("share", ()))
    return Relation(share, *names, kind, mean, low, high, found.numbers("seeds", (S,)))

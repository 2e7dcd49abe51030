"""How localization relates to ξ over the pairs of tasks, and what the paper claims of it.

A claim *held* where its 95 % interval lies on its side of zero, *failed* where it lies on the
other, and is *undecided* otherwise.
"""

import numpy as np

from experiments import claims
from experiments.claims import Claim
from experiments.localization.results import Correlation, Relation, Results
from linearize.evaluate import rank_correlation
from linearize.report.claims import Verdict
from linearize.report.node import Floats


def relate(results: Results) -> tuple[Relation, ...]:
    """Spearman's ρ of the energy on the control with ξ, by share, regime and coefficients."""
    energy = results.matrix("control", "pretrained")
    return tuple(
        Relation(
            share,
            regime,
            place,
            _correlation(_both(energy[:, k]), _both(error)),
            _correlation(energy[:, k], error),
        )
        for k, share in enumerate(results.shares)
        for regime, xi in results.xi.items()
        for place, error in (("box", xi.box), ("one", xi.one))
    )


def _both(matrix: Floats) -> Floats:
    return matrix + matrix.swapaxes(-1, -2)


def _correlation(energy: Floats, error: Floats) -> Correlation:
    """Of (S, T, T) each; the interval over tasks is :func:`linearize.evaluate.rank_correlation`."""
    seeds = [float(rank_correlation(*each).mean) for each in zip(energy, error, strict=True)]
    return Correlation(
        np.array(seeds), *map(float, rank_correlation(energy.mean(0), error.mean(0)))
    )


def judge(results: Results) -> tuple[Verdict, ...]:
    """Whether each claim held; that on the relation by its interval over tasks."""
    first = results.relation[0]
    mean, low, high = first.pairs.mean, first.pairs.low, first.pairs.high
    decided = np.isfinite(low) and np.isfinite(high)
    interval = f"[{low:+.3f}, {high:+.3f}]" if decided else "no interval: too few tasks"
    relation = Verdict(
        "Pairs of tasks with less energy on the control have a smaller ξ",
        True if low > 0 else False if high < 0 else None,
        f"Spearman's ρ over the pairs, {first.regime} regime, search box, interval over tasks: "
        f"{mean:+.3f} {interval}",
    )
    return (*claims.judge(results, CLAIMS), relation)


def _energy(results: Results, initialization: str, names: tuple[str, ...] = ()) -> Floats:
    """On the control, of all eigenfunctions, the mean over ordered pairs of tasks, (S,)."""
    return np.nanmean(results.matrix("control", initialization, names)[:, 0], axis=(1, 2))


def _after_pretraining(results: Results) -> Floats:
    """Energy at random weights minus that at pre-trained ones, on the tasks that both have."""
    return _energy(results, "random") - _energy(results, "pretrained", results.random)


CLAIMS: tuple[Claim[Results], ...] = (
    Claim(
        "Eigenfunctions that carry a task's target have less energy on other tasks' inputs than "
        "ones that live everywhere (TAT, sec. 5)",
        lambda r: 1 - _energy(r, "pretrained"),
        "1 minus the energy on the control, mean of all pairs, interval over seeds",
    ),
    Claim(
        "They are more localized after pre-training than at random initialization (TAT, sec. 5)",
        _after_pretraining,
        "energy on the control, random initialization minus pre-trained, mean of common pairs, "
        "interval over seeds",
    ),
)

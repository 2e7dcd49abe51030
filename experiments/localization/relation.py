"""How localization relates to ξ over the pairs of tasks, and what the paper claims of it.

A claim *held* where its 95 % interval lies on its side of zero, *failed* where it lies on the
other, and is *undecided* otherwise.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import claims
from linearize.evaluate import rank_correlation

Results = Mapping[str, Any]

PLACES = ("box", "one")


def relate(results: Results) -> list[dict[str, Any]]:
    """Spearman's ρ of the energy on the control with ξ, by share, regime and coefficients.

    ``pairs`` over unordered pairs, the energy's mean and ξ's sum over both orders; ``ordered`` over
    ordered ones. Each once for every seed, and for the means over seeds with the interval over
    tasks of :func:`linearize.evaluate.rank_correlation`.
    """
    energy = on_control(results, "pretrained")
    rows = []
    for k, share in enumerate(results["shares"]):
        for regime, xi in results["xi"].items():
            for place in PLACES:
                error = np.asarray(xi[place], float)
                row = {"share": share, "regime": regime, "coefficients": place}
                for name, both in (("pairs", True), ("ordered", False)):
                    a, b = (_both(m) if both else m for m in (energy[:, k], error))
                    found = rank_correlation(a.mean(0), b.mean(0))
                    seeds = [float(rank_correlation(*m).mean) for m in zip(a, b, strict=True)]
                    row[name] = {
                        "seeds": seeds,
                        **{part: float(x) for part, x in found._asdict().items()},
                    }
                rows.append(row)
    return rows


def on_control(results: Results, initialization: str) -> np.ndarray:
    """Weighted energies (S, K, T, T): seed, share, target, control; NaN on the diagonal."""
    names = results["tasks"][initialization]
    S, K, T = len(results["seeds"]), len(results["shares"]), len(names)
    energy = np.full((S, K, T, T), np.nan)
    for target, row in results["energy"][initialization]["control"].items():
        for control, values in row.items():
            energy[:, :, names.index(target), names.index(control)] = values
    return energy


def _both(matrix: np.ndarray) -> np.ndarray:
    return matrix + matrix.swapaxes(-1, -2)


def judge(results: Results) -> list[dict[str, Any]]:
    """One row a claim: its words, whether it held, and the measured evidence."""
    first = results["relation"][0]
    mean, low, high = (first["pairs"][part] for part in ("mean", "low", "high"))
    decided = np.isfinite(low) and np.isfinite(high)
    interval = f"[{low:+.3f}, {high:+.3f}]" if decided else "no interval: too few tasks"
    relation = {
        "claim": "Pairs of tasks with less energy on the control have a smaller ξ",
        "held": True if low > 0 else False if high < 0 else None,
        "evidence": f"Spearman's ρ over the pairs, {first['regime']} regime, search box, interval "
        f"over tasks: {mean:+.3f} {interval}",
    }
    return [*claims.judge(results, CLAIMS), relation]


def _off_diagonal(energy: np.ndarray) -> np.ndarray:
    """Of all eigenfunctions, the mean over ordered pairs of tasks, (S,)."""
    return np.nanmean(energy[:, 0], axis=(1, 2))


def _after_pretraining(results: Results) -> np.ndarray:
    """Energy at random weights minus that at pre-trained ones, on the tasks that both have."""
    random = on_control(results, "random")
    names = results["tasks"]["random"]
    index = [results["tasks"]["pretrained"].index(name) for name in names]
    both = on_control(results, "pretrained")[:, :, index][..., index]
    return _off_diagonal(random) - _off_diagonal(both)


CLAIMS: tuple[claims.Claim, ...] = (
    (
        "Eigenfunctions that carry a task's target have less energy on other tasks' inputs than "
        "ones that live everywhere (TAT, sec. 5)",
        lambda r: 1 - _off_diagonal(on_control(r, "pretrained")),
        "1 minus the energy on the control, mean of all pairs, interval over seeds",
    ),
    (
        "They are more localized after pre-training than at random initialization (TAT, sec. 5)",
        _after_pretraining,
        "energy on the control, random initialization minus pre-trained, mean of common pairs, "
        "interval over seeds",
    ),
)

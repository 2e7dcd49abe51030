"""How localization relates to ξ over the pairs of tasks, and what the paper claims of it.

A claim *held* where its 95 % interval lies on its side of zero, *failed* where it lies on the
other, and is *undecided* otherwise.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from linearize.evaluate import Interval, rank_correlation, seed_interval

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
    before = on_control(results, "pretrained")[:, 0]
    off = ~np.eye(before.shape[-1], dtype=bool)
    rows = [
        _row(
            "Eigenfunctions that carry a task's target have less energy on other tasks' inputs "
            "than ones that live everywhere (TAT, sec. 5)",
            "1 minus the energy on the control, mean of all pairs, interval over seeds",
            seed_interval((1 - before[:, off]).mean(1)),
        )
    ]
    names = results["tasks"]["random"]
    if names:
        random = on_control(results, "random")[:, 0]
        index = [results["tasks"]["pretrained"].index(name) for name in names]
        same = ~np.eye(len(names), dtype=bool)
        less = random[:, same] - before[:, index][:, :, index][:, same]
        rows.append(
            _row(
                "They are more localized after pre-training than at random initialization "
                "(TAT, sec. 5)",
                "energy on the control, random initialization minus pre-trained, mean of the "
                f"pairs of {len(names)} tasks, interval over seeds",
                seed_interval(less.mean(1)),
            )
        )
    found = results["relation"][0]["pairs"]
    rows.append(
        _row(
            "Pairs of tasks with less energy on the control have a smaller ξ",
            f"Spearman's ρ over the pairs, {results['relation'][0]['regime']} regime, search box, "
            "interval over tasks",
            Interval(*(np.asarray(found[part]) for part in ("mean", "low", "high"))),
        )
    )
    return rows


def _row(claim: str, text: str, found: Interval) -> dict[str, Any]:
    mean, low, high = (float(x) for x in found)
    held = True if low > 0 else False if high < 0 else None
    interval = f"[{low:+.3f}, {high:+.3f}]" if np.isfinite(low) else "no interval"
    return {"claim": claim, "held": held, "evidence": f"{text}: {mean:+.3f} {interval}"}

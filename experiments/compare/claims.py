"""What the papers claim of the three regimes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from scipy.special import betaincinv

from experiments.claims import Claim
from experiments.compare.results import PairMap, Results
from linearize.objectives.metric import ACCURACY
from linearize.report.compare.results import ARGMAX, Addition


def _single(results: Results, regime: str) -> np.ndarray:
    return results.single[regime].mean(-1)


def _added(results: Results, regime: str) -> np.ndarray:
    return results.addition[regime].accuracy.mean(-1)


def _normalized(results: Results, regime: str) -> np.ndarray:
    found = results.addition[regime].normalized
    if found is None:
        raise KeyError("normalized")
    return found.mean(-1)


def _negated(results: Results, regime: str) -> np.ndarray:
    return results.negation[regime].target.mean(-1)


def _xi(maps: Sequence[PairMap], regime: str) -> np.ndarray:
    """Mean ξ inside the search box, over the maps, for each seed."""
    if not maps:
        raise KeyError("maps")
    return np.mean([pair.boxed(regime).mean(axis=(1, 2)) for pair in maps], axis=0)


def _at_random(results: Results, regime: str) -> np.ndarray:
    """How much larger that is from random weights."""
    other = () if results.random is None else results.random.maps
    return _xi(other, regime) - _xi(results.maps, regime)


def _off_diagonal(results: Results, regime: str) -> np.ndarray:
    cosine = np.abs(results.cosine[regime])
    count = cosine.shape[-1]
    return (cosine.sum(axis=(1, 2)) - count) / (count * (count - 1))


def _beats_both(of: Callable[[Results, str], np.ndarray], results: Results) -> np.ndarray:
    """How far the linear regime lies above the better of the other two."""
    return of(results, "linear") - np.maximum(of(results, "nonlinear"), of(results, "posthoc"))


DRAWS = 20_000
"""Of a posterior, for intervals that are printed with three digits."""


def redrawn(results: Results) -> Results:
    """One seed's results as other test examples might have made them: draws in place of seeds.

    Each accuracy k / n is drawn from Jeffreys' posterior, Beta(k + ½, n − k + ½), whatever the
    others are. Methods share their test examples, so that intervals of their differences are wider
    than they need be. So are those of error maps (:func:`_maps_redrawn`). Cosines stay what they
    are, accuracies of a run that has not the numbers of its test examples, and other metrics.
    """
    results = _maps_redrawn(results)
    n = np.array([results.counts.get(task, {}).get("test", 0) for task in results.tasks])
    if results.measures.shared != ACCURACY or (n == 0).any():
        return results
    rng = np.random.default_rng(0)

    def draw(values: np.ndarray) -> np.ndarray:
        hits = values[0] * n
        return rng.beta(hits + 0.5, n - hits + 0.5, (DRAWS, len(n)))

    single = {m: draw(values) for m, values in results.single.items()}
    added = {}
    for m, of in results.addition.items():
        accuracy = draw(of.accuracy)
        normalized = accuracy / single[m] if m in single else of.normalized
        added[m] = Addition(accuracy, normalized)
    negated = {m: replace(of, target=draw(of.target)) for m, of in results.negation.items()}
    return replace(
        results,
        pretrained=draw(results.pretrained),
        single=single,
        addition=added,
        negation=negated,
    )


def _maps_redrawn(results: Results) -> Results:
    """The same of error maps: for each task and method its mean error in the search box.

    An example's part in that mean is the share of the box where its prediction changes, in [0, 1],
    whose variance is at most m (1 − m) where m is the mean: that of n draws that change or do not.
    So m is drawn from Beta(n m + ½, n (1 − m) + ½), and what is drawn varies no less than the mean
    does. Maps that share a task share its examples, and move together. The drawn map is the same
    everywhere. Maps of other distances, and of runs that did not note each task's part or the
    number of examples, stay what they are.
    """
    rng = np.random.default_rng(1)

    def again(maps: Sequence[PairMap]) -> tuple[PairMap, ...]:
        places: dict[tuple[str, str], np.ndarray] = {}

        def draw(pair: PairMap, method: str, k: int, n: int) -> np.ndarray:
            where = places.setdefault((method, pair.tasks[k]), rng.random(DRAWS))
            changed = n * pair.per_task[method][0, k][np.ix_(pair.inside, pair.inside)].mean()
            return np.asarray(betaincinv(changed + 0.5, n - changed + 0.5, where))

        def redraw(pair: PairMap) -> PairMap:
            n = pair.examples or (() if pair.n_eval is None else (pair.n_eval,) * 2)
            if (pair.distance, pair.farthest) != (ARGMAX, 1.0) or not n:
                return pair
            if pair.per_task.keys() != pair.total.keys():
                return pair
            G, of = len(pair.alphas), np.sum if pair.reduction == "sum" else np.mean
            drawn = {m: of([draw(pair, m, k, n[k]) for k in range(2)], axis=0) for m in pair.total}
            total = {m: np.broadcast_to(d[:, None, None], (DRAWS, G, G)) for m, d in drawn.items()}
            return replace(pair, total=total, per_task={})

        return tuple(map(redraw, maps))

    random = results.random and replace(results.random, maps=again(results.random.maps))
    return replace(results, maps=again(results.maps), random=random)


CLAIMS: tuple[Claim[Results], ...] = (
    Claim(
        "Post-hoc linearization lowers single-task accuracy (TAT, fig. 2)",
        lambda r: _single(r, "nonlinear") - _single(r, "posthoc"),
        "non-linear minus post-hoc, mean of tasks",
    ),
    Claim(
        "Post-hoc linearization lowers absolute accuracy after addition (TAT, table 1)",
        lambda r: _added(r, "nonlinear") - _added(r, "posthoc"),
        "non-linear minus post-hoc",
    ),
    Claim(
        "Post-hoc linearization raises normalized accuracy after addition (TAT, table 1)",
        lambda r: _normalized(r, "posthoc") - _normalized(r, "nonlinear"),
        "post-hoc minus non-linear",
    ),
    Claim(
        "Linear fine-tuning beats both in absolute accuracy after addition (TAT, table 1)",
        lambda r: _beats_both(_added, r),
        "linear minus the better of the two",
    ),
    Claim(
        "Linear fine-tuning beats both in normalized accuracy after addition (TAT, table 1)",
        lambda r: _beats_both(_normalized, r),
        "linear minus the better of the two",
    ),
    Claim(
        "Linear fine-tuning forgets most in negation (TAT, table 2)",
        lambda r: _beats_both(lambda s, regime: -_negated(s, regime), r),
        "target accuracy of the better of the two minus linear's",
    ),
    Claim(
        "Addition in the linear regime improves on the pre-trained model (TA, TAT)",
        lambda r: _added(r, "linear") - r.pretrained.mean(-1),
        "linear minus pre-trained",
    ),
    Claim(
        "The linear regime is more disentangled (TAT, fig. 6)",
        lambda r: _beats_both(lambda s, regime: -_xi(s.maps, regime), r),
        "mean ξ in the search box, the better of the two minus linear",
    ),
    Claim(
        "Disentanglement comes from pre-training, non-linear (TAT, sec. 5)",
        lambda r: _at_random(r, "nonlinear"),
        "mean ξ in the search box, random initialization minus pre-trained",
    ),
    Claim(
        "Disentanglement comes from pre-training, linear (TAT, sec. 5)",
        lambda r: _at_random(r, "linear"),
        "mean ξ in the search box, random initialization minus pre-trained",
    ),
    Claim(
        "Task vectors are close to orthogonal, non-linear (TA, fig. 5)",
        lambda r: 0.1 - _off_diagonal(r, "nonlinear"),
        "0.1 minus the mean |cosine| of two tasks",
    ),
    Claim(
        "Task vectors are close to orthogonal, linear",
        lambda r: 0.1 - _off_diagonal(r, "linear"),
        "0.1 minus the mean |cosine| of two tasks",
    ),
)

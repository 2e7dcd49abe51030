"""How far to go along a direction: coefficients chosen by a metric on validation data.

Evaluation arrives as an argument, so that every regime and every cache can answer it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike

from linearize.fields import each, near_zero
from linearize.objectives import ACCURACY, Control, Metric

ALPHAS = np.linspace(0.0, 1.0, 21)
"""The papers' search grid."""

_TIE = 1e-12

Sweep = Callable[[float], ArrayLike] | ArrayLike
"""``alpha -> values (T,)`` of each task's metric, or the table (A, T) of them."""

TaskMetrics = Metric | Sequence[Metric]
"""Each task's metric, or one for all."""


@dataclass(frozen=True, eq=False)
class ScaleSearch:
    """One coefficient for all tasks, and what it was chosen from."""

    alpha: float
    index: int
    """Row of the chosen coefficient."""
    alphas: np.ndarray
    """(A,), float64."""
    values: np.ndarray
    """(A, T), float64: each task's metric."""
    normalized: np.ndarray
    """(A, T): :meth:`linearize.objectives.Metric.score`, accuracy ÷ single-task accuracy."""

    @property
    def accuracy(self) -> np.ndarray:
        """:attr:`values`, by the name that they have in classification."""
        return self.values


@dataclass(frozen=True, eq=False)
class NegationSearch:
    """A coefficient for each task, and what it was chosen from; scalars if one task was given."""

    alpha: np.ndarray
    """(T,), float64: how far to go along −τ_t; 0, the unedited model, where none qualifies."""
    index: np.ndarray
    """(T,): row of the chosen coefficient; −1 where none qualifies."""
    qualified: np.ndarray
    """(T,) bool: some coefficient kept what is wanted of the control's metric."""
    target: np.ndarray
    """(T,): the target's metric at the chosen coefficient; NaN where none qualifies."""
    control: np.ndarray
    """(T,): the control's metric at the chosen coefficient; NaN where none qualifies."""
    alphas: np.ndarray
    """(A,), float64."""
    sweep_target: np.ndarray
    """(A, T), float64."""
    sweep_control: np.ndarray
    """(A, T), float64."""


def normalized_accuracy(merged: ArrayLike, single: ArrayLike) -> np.ndarray:
    """Merged top-1 ÷ single-task top-1: :meth:`linearize.objectives.Metric.normalized` of accuracy.

    The papers' figure is its mean over the tasks, which are on the last axis.

    >>> normalized_accuracy([[0.4, 0.9]], [0.8, 0.9]).tolist()
    [[0.5, 1.0]]
    """
    return ACCURACY.normalized(merged, single)


def search_scale(
    evaluate: Sweep,
    single: ArrayLike,
    alphas: ArrayLike = ALPHAS,
    *,
    metrics: TaskMetrics = ACCURACY,
    names: Sequence[str] | None = None,
) -> ScaleSearch:
    """The α shared by all tasks that maximises mean normalised accuracy on validation data.

    Of other metrics than accuracy, the mean of their :meth:`~linearize.objectives.Metric.score`.

    Args:
        evaluate: ``alpha -> values (T,)`` of θ0 + α Σ τ_t, or the table (A, T) of them.
        single: (T,) single-task values of the same regime and split.
        alphas: (A,) candidates; by default 21 points on [0, 1].
        metrics: what the values are.
        names: the tasks', for messages.

    Returns:
        The choice; equal means go to the coefficient nearest 0.

    Raises:
        ValueError: candidates that are not 1-D and finite, a table of another shape, values out of
            their metric's bounds or not finite, a single-task accuracy of 0.

    >>> search_scale(lambda alpha: [0.9 - (alpha - 0.25) ** 2, 0.8], [0.9, 0.8]).alpha
    0.25
    """
    grid = _alphas(alphas)
    values = _table("evaluate", evaluate, grid)
    alone = np.asarray(single, np.float64)
    if alone.ndim != 1 or values.shape != (len(grid), len(alone)):
        raise ValueError(
            f"evaluate gives a table of shape {values.shape} and single has {alone.shape}; "
            "expected (A, T) and (T,)"
        )
    kinds = each("metrics", metrics, len(alone))
    columns = [_score(m, values, alone, t, names) for t, m in enumerate(kinds)]
    normalized = np.concatenate(columns, 1)
    score = normalized.mean(1)
    best = _nearest_zero(grid, score >= score.max() - _TIE)
    return ScaleSearch(float(grid[best]), best, grid, values, normalized)


def _score(
    metric: Metric, values: np.ndarray, alone: np.ndarray, task: int, names: Sequence[str] | None
) -> np.ndarray:
    """(A, 1)."""
    try:
        return metric.score(values[:, task, None], alone[task, None])
    except ValueError as error:
        raise ValueError(f"task {task if names is None else repr(names[task])}: {error}") from None


def search_negation(
    target: Sweep,
    control: Sweep,
    alphas: ArrayLike = ALPHAS,
    *,
    retained: float = 0.95,
    control_pretrained: ArrayLike | None = None,
    tolerance: Control | None = None,
    metrics: TaskMetrics = ACCURACY,
    control_metric: Metric = ACCURACY,
) -> NegationSearch:
    """Each task's α that forgets most along −τ_t while the control task is retained.

    Minimises target accuracy subject to control accuracy ≥ ``retained`` × that of the pre-trained
    model (both papers' protocol, on validation data). α = 0 always qualifies. Of other metrics, the
    target's becomes as bad as it can while the control's stays within its tolerance.

    Args:
        target: ``alpha -> accuracies (T,)`` of θ0 − α τ_t on task t's own data, or the table
            (A, T); for one task a number, or the column (A,).
        control: the same models on the control task's data.
        alphas: (A,) candidates; by default 21 points on [0, 1].
        retained: share of the control accuracy to keep, in [0, 1].
        tolerance: in place of ``retained``: a share, or units of the control's metric.
        metrics: what the targets' values are.
        control_metric: what the control's values are.
        control_pretrained: (T,) control accuracy of θ0 on the same split, or one for all tasks; by
            default that of the candidate α = 0.

    Returns:
        The choices; equal accuracies go to the coefficient nearest 0. Where no candidate
        qualifies (0 was not among them), ``qualified`` is False and α is 0.

    Raises:
        ValueError: as :func:`search_scale`; ``retained`` outside [0, 1]; no ``control_pretrained``
            and no candidate 0.

    >>> alphas = [0.0, 0.2, 0.4, 0.6]
    >>> found = search_negation([0.9, 0.5, 0.3, 0.1], [0.8, 0.79, 0.77, 0.6], alphas)
    >>> float(found.alpha)  # 0.6 would keep 75 % of the control accuracy
    0.4
    """
    tolerance = Control(retained) if tolerance is None else tolerance
    grid = _alphas(alphas)
    targets, controls = (_table(n, v, grid) for n, v in (("target", target), ("control", control)))
    control_metric.check("control", controls)
    if targets.shape != controls.shape:
        raise ValueError(f"target has shape {targets.shape} and control {controls.shape}; one each")
    shape = targets.shape[1:]
    if control_pretrained is not None:
        reference = control_metric.check("control_pretrained", control_pretrained)
    elif (grid == 0).any():
        reference = controls[int(np.argmin(np.abs(grid)))]
    else:
        raise ValueError("alphas lacks 0, the pre-trained model; add it or give control_pretrained")
    if reference.shape not in ((), shape):
        raise ValueError(
            f"control_pretrained has shape {reference.shape}; expected {shape}, one per task, or "
            "a scalar"
        )
    allowed = tolerance.allows(control_metric, controls, np.broadcast_to(reference, shape))
    by_task = targets.reshape(len(grid), -1).T
    kinds = each("metrics", metrics, len(by_task))
    left = [m.sign * m.check("target", column) for m, column in zip(kinds, by_task, strict=True)]
    columns = zip(left, allowed.reshape(len(grid), -1).T, strict=True)
    index = np.array([_forget(grid, *column) for column in columns]).reshape(shape)
    qualified, row = index >= 0, np.maximum(index, 0)

    def chosen(table: np.ndarray) -> np.ndarray:
        return np.where(qualified, np.take_along_axis(table, row[None], 0)[0], np.nan)

    return NegationSearch(
        alpha=np.where(qualified, grid[row], 0.0),
        index=index,
        qualified=qualified,
        target=chosen(targets),
        control=chosen(controls),
        alphas=grid,
        sweep_target=targets,
        sweep_control=controls,
    )


def _forget(grid: np.ndarray, target: np.ndarray, allowed: np.ndarray) -> int:
    if not allowed.any():
        return -1
    return _nearest_zero(grid, allowed & (target <= target[allowed].min() + _TIE))


def _nearest_zero(grid: np.ndarray, candidates: np.ndarray) -> int:
    rows = np.flatnonzero(candidates)
    return int(rows[np.argmin(np.abs(grid[rows]))])


def _alphas(alphas: ArrayLike) -> np.ndarray:
    grid = np.asarray(alphas, np.float64)
    if grid.ndim != 1 or not len(grid) or not np.isfinite(grid).all():
        raise ValueError(f"alphas={alphas}; expected finite numbers on one axis, at least one")
    return near_zero(grid)


def _table(name: str, values: Sweep, grid: np.ndarray) -> np.ndarray:
    rows = [values(float(a)) for a in grid] if callable(values) else values
    table = np.asarray(rows, np.float64)
    if table.ndim not in (1, 2) or len(table) != len(grid):
        raise ValueError(
            f"{name} gives a table of shape {table.shape}; expected ({len(grid)}, T): one row per "
            "alpha, one column per task"
        )
    return table

"""Newton's method on a penalised cross-entropy, wherever its points live: dual or weights.

The objective L(τ) = mean cross-entropy + (l2 / 2) ‖τ‖² of an affine model is strongly convex with
constant l2, so its gradient says how far the optimum can be:

    L(τ) − min L ≤ ‖∇L(τ)‖² / (2 l2)        ‖τ − τ*‖ ≤ ‖∇L(τ)‖ / l2

Steps are solved inexactly, to a residual that shrinks with the gradient (Eisenstat & Walker 1996),
and backtracked on the objective along the line, which is known in closed form: outputs are affine
in the step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from linearize.ntk import checks

X = TypeVar("X")

_PATIENCE = 3
"""Steps in a row that may neither lower the gradient nor, visibly, the objective."""


@dataclass(frozen=True, eq=False)
class Point(Generic[X]):
    """Where the iteration stands."""

    x: X
    objective: float
    square: float
    """Squared Euclidean norm of the gradient with respect to τ."""
    state: Any = None
    """What a step from here wants to know again."""


@dataclass(frozen=True, eq=False)
class Step(Generic[X]):
    """A direction of descent, and all that a line search along it needs."""

    derivative: float
    """Of the objective along the direction, here; negative."""
    objective: Callable[[float], float]
    """The objective after ``length`` times the direction."""
    point: Callable[[float], X]
    """Where that is."""


@dataclass(frozen=True, eq=False)
class Found(Generic[X]):
    """Where the iteration ended."""

    point: Point[X]
    iterations: int
    converged: bool


def minimise(
    at: Callable[[X], Point[X]],
    step: Callable[[Point[X], float], Step[X] | None],
    start: X,
    *,
    l2: float,
    tolerance: float,
    max_iterations: int,
    rounding: float = float(np.finfo(np.float64).eps),
) -> Found[X]:
    """Newton steps until ``‖∇L‖² / (2 l2) ≤ tolerance``.

    Args:
        at: evaluates a point.
        step: the Newton step from a point, its system solved to a relative residual; None to stop.
        start: the first point.
        l2: weight of the penalty, above 0.
        tolerance: on the objective, in nats.
        max_iterations: steps at most.
        rounding: unit of the objective's precision; decreases below it cannot be seen.

    Returns:
        The point of least gradient. It has not converged where ``max_iterations`` were taken,
        ``step`` gave up, no length lowers the objective, or a gradient of mere rounding no longer
        falls.

    >>> found = minimise(
    ...     lambda x: Point(x, 2 * x**2, (4 * x) ** 2),
    ...     lambda here, _: Step(
    ...         -4 * here.x**2, lambda t: 2 * (here.x - t * here.x) ** 2, lambda t: here.x * (1 - t)
    ...     ),
    ...     start=3.0, l2=4.0, tolerance=1e-9, max_iterations=5,
    ... )
    >>> found.point.x, found.iterations
    (0.0, 1)
    """
    here = at(start)
    first, lowest, stalled = here.square, here, 0
    for iteration in range(max_iterations + 1):
        if here.square <= 2 * l2 * tolerance:
            return Found(here, iteration, True)
        if iteration == max_iterations or stalled == _PATIENCE:
            break
        ahead = step(here, min(0.5, (here.square / first) ** 0.25))
        if ahead is None:
            break
        slack = 8 * rounding * abs(here.objective)
        length = backtrack(ahead, here.objective, slack)
        if length == 0:
            break
        here = at(ahead.point(length))
        stalled = 0 if here.square < lowest.square or -ahead.derivative > slack else stalled + 1
        lowest = min(lowest, here, key=lambda point: point.square)
    return Found(lowest, iteration, False)


def backtrack(ahead: Step[Any], here: float, slack: float) -> float:
    """The largest of 1, 1/2, 1/4, ... that lowers the objective enough (Armijo); 0 if none does.

    >>> backtrack(Step(-1.0, lambda t: (3 * t - 1) ** 2, lambda t: t), here=1.0, slack=0.0)
    0.5
    """
    length = 1.0
    while length > 1e-12:
        if ahead.objective(length) <= here + 1e-4 * length * ahead.derivative + slack:
            return length
        length /= 2
    return 0.0


def check_l2(l2: float) -> float:
    """A penalty that makes the optimum finite and unique.

    Raises:
        ValueError: negative, infinite, or 0.
    """
    if not checks.nonnegative("l2", l2):
        raise ValueError(
            "l2=0: separable training data (any, where the kernel has full rank) has no finite "
            "optimum; give a small l2 such as 1e-6, or stop descent after some steps with "
            "cross_entropy_descent"
        )
    return float(l2)


def check_tolerance(tolerance: float | None, dtype: Any) -> float:
    """The tolerance asked for, or what the precision permits: 1e-10 nats, 1e-6 below float64.

    Raises:
        ValueError: not positive.
    """
    if tolerance is None:
        return 1e-10 if np.dtype(dtype).itemsize >= 8 else 1e-6
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}; expected a positive number of nats")
    return float(tolerance)


def not_converged(
    found: Found[Any], l2: float, tolerance: float, remedy: str, solution: Any = None
) -> checks.NotConvergedError:
    """The error of an iteration that ended too early: how far it came, and what may help."""
    square = found.point.square
    return checks.NotConvergedError(
        f"the objective is within {square / (2 * l2):.1e} of its optimum by the gradient norm "
        f"{square**0.5:.1e} after {found.iterations} iterations, but tolerance={tolerance:.0e} was "
        f"asked for; raise l2 ({l2}), the tolerance, or {remedy}",
        solution,
    )

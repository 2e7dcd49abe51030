"""The grid of coefficients: one axis per task, points in row-major order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from linearize.fields import near_zero

DEFAULT_AXIS = np.linspace(-3.0, 3.0, 25)
"""The range of the paper's maps; −1, 0 and 1 are on it."""


@dataclass(frozen=True, eq=False)
class CoefficientGrid:
    """All combinations of T axes."""

    axes: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, alphas: ArrayLike | Sequence[ArrayLike] | None, n_tasks: int) -> "CoefficientGrid":
        """One axis for all tasks, a sequence of one per task, or the default.

        Raises:
            ValueError: axes that are empty, not 1-D or not finite, or not one per task.
        """
        if alphas is None:
            return cls((DEFAULT_AXIS,) * n_tasks)
        several = isinstance(alphas, list | tuple) and any(np.ndim(a) for a in alphas)
        axes: Sequence[Any] = alphas if several else [alphas] * n_tasks  # type: ignore[assignment]
        if len(axes) != n_tasks:
            raise ValueError(f"alphas has {len(axes)} axes for {n_tasks} tasks; give one per task")
        return cls(tuple(_axis(a) for a in axes))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of coefficients per axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def index(self) -> np.ndarray:
        """(P, T): position on each axis of every grid point."""
        return np.stack(np.unravel_index(np.arange(np.prod(self.shape)), self.shape), 1)

    @property
    def points(self) -> np.ndarray:
        """(P, T) float32: coefficients of every grid point."""
        columns = [axis[i] for axis, i in zip(self.axes, self.index.T, strict=True)]
        return np.stack(columns, 1).astype(np.float32)

    def single(self, task: int) -> np.ndarray:
        """(G, T) float32: the points where ``task`` moves alone, along its axis."""
        points = np.zeros((len(self.axes[task]), len(self.axes)), np.float32)
        points[:, task] = self.axes[task]
        return points

    def alone(self, task: int) -> np.ndarray:
        """(P,) bool: the grid points that are single-task points of ``task``."""
        others = np.delete(self.points, task, axis=1)
        return (others == 0).all(1)


def _axis(alphas: ArrayLike) -> np.ndarray:
    axis = np.asarray(alphas, np.float64)
    if axis.ndim != 1 or not len(axis):
        raise ValueError(f"alphas has an axis of shape {axis.shape}; expected 1-D, not empty")
    if not (np.abs(axis) <= np.finfo(np.float32).max).all():
        raise ValueError(f"alphas={axis.tolist()}; expected finite numbers, in float32 as well")
    return near_zero(axis)


def reduce(per_task: np.ndarray, reduction: str) -> np.ndarray:
    """The tasks' errors (T, ...) as one: their sum, or their mean."""
    return per_task.sum(0) if reduction == "sum" else per_task.mean(0)

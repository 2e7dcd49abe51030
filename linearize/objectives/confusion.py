"""Metrics of a confusion matrix, which is a sum over examples: Matthews correlation and F1."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from linearize.objectives.metric import ACCURACY, Metric
from linearize.types import Array


@dataclass(frozen=True)
class OfConfusion:
    """A metric, and how it is read off matrices (..., C, C + 1): see :func:`confusion`."""

    metric: Metric
    value: Callable[[np.ndarray], np.ndarray]


def confusion(predicted: Array, labels: Array, classes: int) -> Array:
    """One example's part of the matrix, (B, C, C + 1) int32: true class by predicted class.

    The last column is of predictions that are no class (:data:`linearize.objectives.NO_CLASS`).
    """
    column = jnp.where((predicted >= 0) & (predicted < classes), predicted, classes)
    own = jax.nn.one_hot(labels, classes, dtype=jnp.int32)
    return own[:, :, None] * jax.nn.one_hot(column, classes + 1, dtype=jnp.int32)[:, None]


def matthews(matrix: np.ndarray) -> np.ndarray:
    """Matthews correlation of C classes (Gorodkin 2004), (...) float64; 0 where it is 0 / 0.

    >>> float(matthews(np.array([[2, 0, 0], [0, 3, 0]])))
    1.0
    """
    m = np.asarray(matrix, np.float64)
    true, said, n = m.sum(-1), m.sum(-2), m.sum((-1, -2))
    right = np.trace(m, axis1=-2, axis2=-1)
    both = (true * said[..., :-1]).sum(-1)
    spread = (n**2 - (true**2).sum(-1)) * (n**2 - (said**2).sum(-1))
    return _ratio(right * n - both, np.sqrt(spread))


def f1(matrix: np.ndarray) -> np.ndarray:
    """F1 of the class 1, (...) float64; 0 where it is neither there nor said.

    >>> float(f1(np.array([[2, 1, 0], [0, 3, 0]]))) == 6 / 7
    True
    """
    return _f1(matrix)[..., 1]


def macro_f1(matrix: np.ndarray) -> np.ndarray:
    """Mean of the F1 of the classes that are there or said, (...) float64."""
    m = np.asarray(matrix, np.float64)
    there = (m.sum(-1) + m.sum(-2)[..., :-1]) > 0
    return _ratio((_f1(m) * there).sum(-1), there.sum(-1))


def _f1(matrix: np.ndarray) -> np.ndarray:
    m = np.asarray(matrix, np.float64)
    right = np.diagonal(m, axis1=-2, axis2=-1)
    return _ratio(2 * right, m.sum(-1) + m.sum(-2)[..., :-1])


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)


OF_CONFUSION: Mapping[str, OfConfusion] = {
    "matthews": OfConfusion(Metric("Matthews correlation", "higher", -1.0, 1.0), matthews),
    "f1": OfConfusion(Metric("F1", "higher", 0.0, 1.0, percent=True), f1),
    "macro_f1": OfConfusion(Metric("macro F1", "higher", 0.0, 1.0, percent=True), macro_f1),
}
"""``matthews``: as CoLA is measured. ``f1``: of the class 1, as MRPC and QQP are. ``macro_f1``: the
mean over classes."""


def of_confusion(name: str, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """A row's value, and the accuracy, of matrices (..., C, C + 1), by the metrics' names."""
    row, m = OF_CONFUSION[name], np.asarray(matrix, np.float64)
    right = np.trace(m, axis1=-2, axis2=-1)
    return {row.metric.name: row.value(m), ACCURACY.name: right / m.sum((-1, -2))}

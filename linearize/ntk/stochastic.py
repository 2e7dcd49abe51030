"""Trace and log-determinant of a kernel from products with random sign vectors."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import scipy.linalg
from scipy.special import stdtrit

from linearize.fields import integer
from linearize.ntk.checks import nonnegative
from linearize.ntk.matvec import Product, check_symmetric, flat_product


@dataclass(frozen=True)
class Estimate:
    """A mean over independent probes, or a function of such means."""

    value: float
    standard_error: float
    """Of the value, from the probes' own spread (divisor probes − 1)."""
    probes: int
    truncation: float | None = None
    """Of a log-determinant, how far ``value`` may lie above what the same probes give in exact
    quadrature, never below it; ``None`` without a ridge, where no such bound is known."""

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's confidence interval, of probes − 1 degrees of freedom.

        Args:
            level: its coverage where the samples are normal, in (0, 1).

        Raises:
            ValueError: ``level`` out of range.

        >>> Estimate(1.0, 0.0, 8).interval()
        (1.0, 1.0)
        """
        if not 0 < level < 1:
            raise ValueError(f"level={level}; expected a coverage in (0, 1), such as 0.95")
        half = float(stdtrit(self.probes - 1, (1 + level) / 2)) * self.standard_error
        return self.value - half, self.value + half


def trace(matvec: Product, shape: tuple[int, ...], *, probes: int = 32, seed: int = 0) -> Estimate:
    """Hutchinson's estimate of tr K: the mean of zᵀ K z over random signs z (Hutchinson 1989).

    Args:
        matvec: the product with a square kernel.
        shape: of its argument, (N, C) or (N,).
        probes: sign vectors, 2 or more; a product each.
        seed: of the signs.

    Raises:
        ValueError: fewer than two probes; products that are not finite or of another shape.

    >>> trace(lambda v: 3 * v, (4, 2))
    Estimate(value=24.0, standard_error=0.0, probes=32, truncation=None)
    """
    product = flat_product(matvec, shape)
    drawn = signs(prod(shape), probes, np.random.default_rng(seed))
    return _estimate(np.array([z @ product(z) for z in drawn]))


def log_determinant(
    matvec: Product,
    shape: tuple[int, ...],
    *,
    ridge: float = 0.0,
    probes: int = 32,
    steps: int = 32,
    seed: int = 0,
) -> Estimate:
    """Estimate log det(K + ridge I) by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017).

    Args:
        matvec: the product with a symmetric positive semi-definite kernel.
        shape: of its argument, (N, C) or (N,).
        ridge: added to the diagonal, ≥ 0.
        probes: random sign vectors, 2 or more.
        steps: Lanczos steps for each probe, a product each; with N·C or more, quadrature is exact.
            The error of fewer falls as exp(−4 steps / √condition number).
        seed: of the signs.

    Returns:
        The estimate. Gauss quadrature lies above the logarithm's exact form, and Gauss–Radau with
        a node at ``ridge`` below (Golub & Meurant 2010, §6); ``truncation`` is their mean distance.

    Raises:
        ValueError: fewer than two probes, no step, a negative ridge; products that are not finite,
            of another shape or not symmetric; a kernel with an eigenvalue at or below −ridge.

    >>> estimate = log_determinant(lambda v: 3 * v, (4, 2), ridge=1.0)
    >>> bool(np.isclose(estimate.value, 8 * np.log(4)))
    True
    """
    ridge = nonnegative("ridge", ridge)
    if integer("steps", steps) < 1:
        raise ValueError(f"steps={steps}; expected 1 or more Lanczos steps for each probe")
    size, product = prod(shape), flat_product(matvec, shape)
    check_symmetric(product, size, np.random.default_rng(seed))

    def shifted(v: np.ndarray) -> np.ndarray:
        return product(v) + ridge * v

    upper, lower = [], []
    for z in signs(size, probes, np.random.default_rng(seed)):
        diagonal, off = tridiagonal(shifted, z, min(steps, size))
        gauss, smallest = _quadrature(diagonal, off[:-1])
        if smallest <= 0:
            raise ValueError(
                f"kernel + ridge is not positive definite: smallest Ritz value {smallest:.3g} with "
                f"ridge={ridge:.3g}; add a ridge above {ridge - smallest:.3g}"
            )
        upper.append(size * gauss)
        if ridge:
            node = (1 - 1e-6) * min(ridge, smallest)
            lower.append(size * _radau(diagonal, off, node))
    found = _estimate(np.array(upper))
    gap = float(np.mean(np.subtract(upper, lower))) if ridge else None
    return Estimate(found.value, found.standard_error, probes, gap)


def signs(size: int, probes: int, rng: np.random.Generator) -> np.ndarray:
    """Random ±1, (probes, size).

    Raises:
        ValueError: fewer than two probes.
    """
    if integer("probes", probes) < 2:
        raise ValueError(f"probes={probes}; a standard error needs 2 or more")
    return rng.choice([-1.0, 1.0], size=(probes, size))


def _estimate(samples: np.ndarray) -> Estimate:
    error = samples.std(ddof=1) / np.sqrt(len(samples))
    return Estimate(float(samples.mean()), float(error), len(samples))


def tridiagonal(
    product: Callable[[np.ndarray], np.ndarray], start: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Lanczos with full reorthogonalisation: diagonal (m,), and off-diagonal (m,) whose last entry
    couples to the step not taken, 0 where the Krylov space is exhausted.
    """
    basis = np.zeros((steps, len(start)))
    diagonal: list[float] = []
    off: list[float] = []
    q = start / np.linalg.norm(start)
    for j in range(steps):
        basis[j] = q
        w = product(q)
        diagonal.append(float(q @ w))
        for _ in range(2):
            w = w - basis[: j + 1].T @ (basis[: j + 1] @ w)
        length = float(np.linalg.norm(w))
        exhausted = length <= 1e-12 * max(np.abs(diagonal).max(), *off, 0.0)
        off.append(0.0 if exhausted or j + 1 == len(start) else length)
        if off[-1] == 0:
            break
        q = w / length
    return np.array(diagonal), np.array(off)


def _quadrature(diagonal: np.ndarray, off: np.ndarray) -> tuple[float, float]:
    """e₁ᵀ log(T) e₁ and the smallest eigenvalue of the tridiagonal T."""
    nodes, vectors = scipy.linalg.eigh_tridiagonal(diagonal, off)
    if nodes[0] <= 0:
        return np.nan, float(nodes[0])
    return float(vectors[0] ** 2 @ np.log(nodes)), float(nodes[0])


def _radau(diagonal: np.ndarray, off: np.ndarray, node: float) -> float:
    """As :func:`_quadrature`, with one more node, fixed below the spectrum."""
    if off[-1] == 0:
        return _quadrature(diagonal, off[:-1])[0]
    banded = np.zeros((2, len(diagonal)))
    banded[0, 1:], banded[1] = off[:-1], diagonal - node
    right = np.zeros(len(diagonal))
    right[-1] = off[-1] ** 2
    last = node + scipy.linalg.solveh_banded(banded, right)[-1]
    return _quadrature(np.append(diagonal, last), off)[0]

"""Softmax cross-entropy on f_lin without the model: gradient descent and the optimum on the kernel.

With τ = −J(X)ᵀ c, f = s f0 − K c and G = ∂(mean cross-entropy)/∂f, (N, C), weight space and the
dual say the same:

    L(τ) = 1/N Σ_n cross-entropy(f(x_n), y_n) + (l2 / 2) ‖τ‖²,    ‖τ‖² = cᵀ K c
    ∇_τ L = Jᵀ (G − l2 c),    ‖∇_τ L‖² = hᵀ K h    for h = G − l2 c

One output (C = 1) is one logit: labels 0 and 1, logistic loss. All of it is NumPy in float64: at
N C = 1280 a step is one product with a 13 MB matrix, as fast as a compiled scan without its
compilation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike
from scipy.special import expit, log_softmax, softmax

from linearize.ntk import checks, newton
from linearize.ntk.layout import product
from linearize.ntk.provenance import traced_outputs, warn_of_trace
from linearize.ntk.regression import Dual


def cross_entropy(
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    l2: float,
    f0_scale: float = 1.0,
    *,
    tolerance: float | None = None,
    max_iterations: int = 200,
) -> Dual:
    """The global optimum of mean cross-entropy + (l2 / 2) ‖τ‖², with a certificate.

    L is convex in τ, strongly with constant l2, so ``L(c) − min L ≤ gradient_norm² / (2 l2)`` and
    ``‖τ − τ*‖ ≤ gradient_norm / l2``: the iteration stops where the first bound meets the
    tolerance. Newton steps (l2 I + ∂G/∂f K) d = h by conjugate gradients in the inner product
    aᵀ K b, with backtracking: K is only multiplied with, so all layouts and singular kernels are
    welcome.

    Args:
        kernel: K(X, X): (N, N) shared by all outputs (``output="mean"`` of
            :func:`linearize.ntk.kernel`, not ``"trace"``), (N, N, C) or (N, N, C, C). A small l2
            wants one computed in float64.
        f0: outputs at θ0 on X, (N, C).
        labels: (N,) integers in 0, ..., C − 1; 0 or 1 where C = 1.
        l2: weight decay of τ, above 0. ``sklearn``'s ``C`` is 1 / (N l2).
        f0_scale: s, the scale with which f0 is added.
        tolerance: on the objective, in nats; by default 1e-10, or 1e-6 where the kernel is
            narrower than float64 and its rounding permits no more.
        max_iterations: Newton steps at most.

    Returns:
        The coefficients (N, C), ``objective`` and the certificate ``gradient_norm``.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, labels out of range, an asymmetric or
            indefinite kernel; ``l2=0``, for which separable data has no finite optimum.
        NotConvergedError: the tolerance was not met, with what was.

    >>> found = cross_entropy(np.eye(2), np.zeros((2, 1)), [0, 1], l2=0.1)
    >>> bool(found.gradient_norm**2 / (2 * 0.1) <= 1e-10)
    True
    """
    l2 = newton.check_l2(l2)
    tolerance = newton.check_tolerance(tolerance, np.asarray(kernel).dtype)
    p = _CrossEntropy.of(kernel, f0, labels, l2, f0_scale)
    # ∂G/∂f ≤ 1 / (2 N), so an eigenvalue above −N l2 leaves every Newton system definite
    checks.check_semidefinite(p.kernel, slack=len(p.start) * l2)
    found = newton.minimise(
        p.at,
        p.step,
        np.zeros_like(p.start),
        l2=l2,
        tolerance=tolerance,
        max_iterations=max_iterations,
    )
    end = found.point
    dual = Dual(
        end.x,
        p.f0_scale,
        np.array(end.objective),
        np.array(end.square**0.5),
        iterations=found.iterations,
        traced=traced_outputs(kernel),
    )
    if not found.converged:
        remedy = f"max_iterations ({max_iterations}), or compute the kernel in float64"
        raise newton.not_converged(found, l2, tolerance, remedy, dual)
    return dual


def cross_entropy_descent(
    kernel: ArrayLike,
    f0: ArrayLike,
    labels: ArrayLike,
    learning_rates: ArrayLike,
    momentum: float = 0.0,
    l2: float = 0.0,
    f0_scale: float = 1.0,
    *,
    steps: ArrayLike | None = None,
) -> Dual:
    """Full-batch gradient descent on mean cross-entropy + (l2 / 2) ‖τ‖², step by step in the dual.

    Equal, but for rounding, to weight space's ``g = ∇_τ L; v = momentum v + g; τ = τ − η v`` from
    τ = 0, v = 0 (``optax.trace`` or PyTorch's SGD without dampening).

    Args:
        kernel: K(X, X), as in :func:`cross_entropy`.
        f0: outputs at θ0 on X, (N, C).
        labels: (N,) integers in 0, ..., C − 1; 0 or 1 where C = 1.
        learning_rates: (S,), η of each step, for the *mean* over examples.
        momentum: in [0, 1).
        l2: weight decay of τ, that is of θ toward θ0.
        f0_scale: s, the scale with which f0 is added.
        steps: a number or (T,) numbers of steps after which to report; by default S.

    Returns:
        Coefficients (N, C), or (T, N, C) for T numbers of steps.

    Raises:
        ValueError: as :func:`cross_entropy`, but ``l2=0`` is welcome; learning rates, momentum or
            steps out of range; coefficients that overflow.

    >>> found = cross_entropy_descent(np.eye(1), np.zeros((1, 2)), [0], learning_rates=[1.0, 1.0])
    >>> found.coefficients.round(2)  # softmax − one-hot, accumulated
    array([[-0.77,  0.77]])
    """
    p = _CrossEntropy.of(kernel, f0, labels, checks.nonnegative("l2", l2), f0_scale)
    checks.check_semidefinite(p.kernel)
    rates = checks.widen("learning_rates", learning_rates)
    if rates.ndim != 1 or (rates < 0).any():
        raise ValueError(
            f"learning_rates has shape {rates.shape} and its least is {rates.min()}; expected (S,) "
            "numbers of 0 or more, such as np.full(300, 0.1)"
        )
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum={momentum}; expected 0 or more, below 1")
    at = np.asarray(len(rates) if steps is None else steps)
    if (
        at.ndim > 1
        or at.dtype.kind not in "iu"
        or not at.size
        or not ((at >= 0) & (at <= len(rates))).all()
    ):
        raise ValueError(
            f"steps={at.tolist()}; expected whole numbers from 0 to {len(rates)}, the number of "
            "learning_rates"
        )
    if not l2:
        warn_of_trace(kernel, "steps", int(at.max()), depth=1)
    wanted = {int(k) for k in at.ravel()}
    reports = {}
    c = np.zeros_like(p.start)
    velocity = np.zeros_like(c)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(max(wanted) + 1):
            if k in wanted:
                here = p.at(c)
                reports[k] = c, np.array(here.objective), np.array(here.square**0.5)
            if k < len(rates):
                slope = p.slope(p.probabilities(p.times(c))) - p.l2 * c
                velocity = momentum * velocity + slope
                c = c + rates[k] * velocity
    found = [reports[int(k)] for k in at.ravel()]
    coefficients, objective, norm = (np.stack(part) for part in zip(*found, strict=True))
    if not np.isfinite(coefficients).all():
        raise ValueError(
            f"the descent overflowed; lower learning_rates (at most {float(rates.max()):.3g} now) "
            f"or l2 ({l2})"
        )
    return Dual(
        coefficients.reshape(at.shape + c.shape),
        p.f0_scale,
        objective.reshape(at.shape),
        norm.reshape(at.shape),
        traced=traced_outputs(kernel),
    )


@dataclass(frozen=True, eq=False)
class _CrossEntropy:
    kernel: np.ndarray
    start: np.ndarray
    """s f0(X), (N, C)."""
    targets: np.ndarray
    """One-hot labels (N, C); the labels themselves where C = 1."""
    l2: float
    f0_scale: float
    times: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def of(
        cls, kernel: ArrayLike, f0: ArrayLike, labels: ArrayLike, l2: float, f0_scale: float
    ) -> "_CrossEntropy":
        warn_of_trace(kernel, "l2", l2)
        square, initial = checks.kernel_and_outputs(kernel, f0)
        classes = max(initial.shape[1], 2)
        known = checks.class_labels(labels, len(square), classes)
        targets = np.eye(classes)[known] if initial.shape[1] > 1 else known[:, None].astype(float)
        scale = checks.finite("f0_scale", f0_scale)
        return cls(square, scale * initial, targets, l2, scale, product(square))

    def probabilities(self, moved: np.ndarray) -> np.ndarray:
        logits = self.start - moved
        return softmax(logits, axis=1) if logits.shape[1] > 1 else expit(logits)

    def slope(self, probabilities: np.ndarray) -> np.ndarray:
        """∂(mean cross-entropy)/∂f, (N, C)."""
        return (probabilities - self.targets) / len(self.targets)

    def curvature(self, probabilities: np.ndarray, v: np.ndarray) -> np.ndarray:
        """∂²(mean cross-entropy)/∂f² v, (N, C)."""
        p = probabilities
        if p.shape[1] == 1:
            return p * (1 - p) * v / len(p)
        return p * (v - (p * v).sum(1, keepdims=True)) / len(p)

    def objective(self, c: np.ndarray, moved: np.ndarray) -> float:
        logits = self.start - moved
        if logits.shape[1] > 1:
            losses = -(self.targets * log_softmax(logits, axis=1)).sum(1)
        else:
            losses = np.logaddexp(0, logits) - self.targets * logits
        return float(losses.mean() + self.l2 / 2 * np.vdot(c, moved))

    def at(self, c: np.ndarray) -> newton.Point[np.ndarray]:
        """Objective and gradient; a step from here wants p, K c, h and K h again."""
        moved = self.times(c)
        probabilities = self.probabilities(moved)
        slope = self.slope(probabilities) - self.l2 * c
        times_slope = self.times(slope)
        square = abs(float(np.vdot(slope, times_slope)))
        state = probabilities, moved, slope, times_slope
        return newton.Point(c, self.objective(c, moved), square, state)

    def step(self, here: newton.Point[np.ndarray], exactness: float) -> newton.Step[np.ndarray]:
        """Newton's step; the objective along it needs no further product."""
        probabilities, moved, slope, times_slope = here.state
        d, times_d = _newton_step(self, probabilities, slope, times_slope, exactness)

        def objective(length: float) -> float:
            return self.objective(here.x + length * d, moved + length * times_d)

        derivative = -float(np.vdot(slope, times_d))
        return newton.Step(derivative, objective, lambda length: here.x + length * d)


def _newton_step(
    p: _CrossEntropy,
    probabilities: np.ndarray,
    slope: np.ndarray,
    times_slope: np.ndarray,
    exactness: float,
) -> tuple[np.ndarray, np.ndarray]:
    """The step d, and K d, with (l2 I + ∂G/∂f K) d ≈ h: Newton's next point is c + d.

    The operator is self-adjoint and definite in the inner product aᵀ K b; carrying K r and K q
    along leaves one product with K an iteration, and every iterate descends.
    """
    d, times_d = np.zeros_like(slope), np.zeros_like(slope)
    r, times_r = slope, times_slope
    q, times_q = r, times_r
    square = first = float(np.vdot(r, times_r))
    for _ in range(2 * slope.size):
        image = p.l2 * q + p.curvature(probabilities, times_q)
        curvature = float(np.vdot(times_q, image))
        if curvature <= 0:
            break
        length = square / curvature
        d, times_d = d + length * q, times_d + length * times_q
        r = r - length * image
        times_r = p.times(r)
        last, square = square, float(np.vdot(r, times_r))
        if square <= exactness**2 * first:
            break
        q, times_q = r + square / last * q, times_r + square / last * times_q
    return d, times_d

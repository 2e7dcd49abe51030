"""Kernel regression: gradient descent on the squared error of f_lin, in closed form.

The objective is a plain sum over examples, divided by nothing:

    L(τ) = Σ_n ½ ‖f(x_n) − y_n‖² + (ridge / 2) ‖τ‖²,    f(x) = s f0(x) + J(x) τ,    τ = −J(X)ᵀ c

so f(x) = s f0(x) − K(x, X) c. With r0 = s f0(X) − y and K + ridge I = U diag(μ) Uᵀ:

    gradient flow     dc/dt = r0 − (K + ridge I) c            c(t) = U (1 − e^(−μ t)) / μ Uᵀ r0
    gradient descent  c_(k+1) = c_k + η (dc/dt at c_k)        c_k  = U (1 − (1 − η μ)^k) / μ Uᵀ r0
    t = k = ∞                                                 c    = (K + ridge I)⁻¹ r0

(Lee et al. 2019, *Wide neural networks of any depth evolve as linear models*, eqs. 8–11, whose
loss is the same sum.) A loss that is a mean over N examples has the learning rate N η.

A kernel (N, N) stands for that of every output, K ⊗ I. Of several outputs that is
``kernel(..., output="mean")``, which has the full kernel's scale: its trace over outputs is C times
as much, learning rates must be C times smaller with it and a ridge C times larger for the same
result. A trace kernel beside a ridge or a finite time gives a
:class:`linearize.ntk.provenance.TraceKernelWarning`.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike

from linearize.ntk import checks
from linearize.ntk.layout import from_columns, product, to_blocks, to_columns
from linearize.ntk.provenance import traced_outputs, warn_of_another, warn_of_trace


@dataclass(frozen=True, eq=False)
class Dual:
    """A solution in the span of the training Jacobians: f(x) = s f0(x) − K(x, X) c + b."""

    coefficients: np.ndarray
    """c, (..., N, C) float64; leading axes are those of the times or steps asked for. The task
    vector is τ = −J(X)ᵀ c: c accumulates learning rate × gradient with respect to the outputs."""
    f0_scale: float
    """s, the scale with which f0 is added; 0 is a pure kernel method."""
    objective: np.ndarray
    """(...) float64: loss and penalty at c, as the method that found it defines them."""
    gradient_norm: np.ndarray
    """(...) float64: Euclidean norm of the objective's gradient with respect to τ; NaN where the
    objective has none (support vectors)."""
    intercept: np.ndarray | None = None
    """b, (C,); only support vector machines have one, and no task vector can carry it."""
    iterations: int | None = None
    """Newton steps, where it took any."""
    traced: int | None = None
    """C, where K(X, X) is known to have been a trace over C outputs."""


def predict(dual: Dual, kernel: ArrayLike, f0: ArrayLike | None = None) -> np.ndarray:
    """f(x) = s f0(x) − K(x, X) c + b on other inputs.

    Args:
        dual: a solution over N training examples.
        kernel: K(x, X), of the training kernel's layout: (M, N), (M, N, C) or (M, N, C, C).
        f0: outputs at θ0 (M, C); may be ``None`` where ``dual.f0_scale`` is 0.

    Returns:
        (..., M, C) float64.

    Raises:
        ValueError: shapes that do not fit the solution, NaN or infinity, or no f0 where the
            solution adds it.

    A trace kernel beside a solution of another gives a
    :class:`linearize.ntk.provenance.TraceKernelWarning`.

    >>> dual = regression(np.eye(2), f0=np.zeros((2, 1)), y=[[1.0], [3.0]])
    >>> predict(dual, kernel=[[0.5, 0.5]], f0=[[10.0]])
    array([[12.]])
    """
    warn_of_another(kernel, dual.traced)
    moved = -product(checks.widen("kernel", kernel))(dual.coefficients)
    if dual.intercept is not None:
        moved = moved + dual.intercept
    if f0 is None:
        if dual.f0_scale != 0:
            raise ValueError(
                f"f0 is None, but this solution adds f0 with the scale {dual.f0_scale}; give the "
                "outputs at the initial parameters on these inputs"
            )
        return moved
    start = checks.outputs_like("f0", f0, moved.shape[-2], moved.shape[-1])
    return dual.f0_scale * start + moved


def regression(
    kernel: ArrayLike,
    f0: ArrayLike,
    y: ArrayLike,
    ridge: float = 0.0,
    f0_scale: float = 1.0,
) -> Dual:
    """The minimiser of the squared error, and with ridge 0 gradient flow's limit t = ∞.

    Args:
        kernel: K(X, X): (N, N) shared by all outputs (``output="mean"`` of
            :func:`linearize.ntk.kernel`, not ``"trace"``), (N, N, C) or (N, N, C, C); any float
            dtype.
        f0: outputs at θ0 on X, (N, C).
        y: targets, (N, C).
        ridge: ρ of (ρ / 2) ‖τ‖², in the kernel's units.
        f0_scale: s, the scale with which f0 is added; 0 leaves it out.

    Raises:
        ValueError: shapes that do not fit, NaN or infinity, a negative ridge; a kernel that is
            asymmetric, or with the ridge singular or indefinite.

    >>> regression(np.diag([1.0, 2.0]), f0=np.ones((2, 1)), y=np.zeros((2, 1))).coefficients
    array([[1. ],
           [0.5]])
    """
    problem = _Ridge.of(kernel, f0, y, ridge, f0_scale)
    factors = checks.cholesky(problem.kernel, problem.ridge)
    solved = [
        scipy.linalg.cho_solve((factor, True), column)
        for factor, column in zip(factors, problem.columns, strict=True)
    ]
    return problem.solution(np.stack(solved))


def gradient_flow(
    kernel: ArrayLike,
    f0: ArrayLike,
    y: ArrayLike,
    times: ArrayLike,
    ridge: float = 0.0,
    f0_scale: float = 1.0,
) -> Dual:
    """Gradient flow on the squared error from τ = 0, at any times, by one eigendecomposition.

    At time t = k η it is what k steps of gradient descent with a small learning rate η come to.

    Args:
        kernel: K(X, X), as in :func:`regression`.
        f0: outputs at θ0 on X, (N, C).
        y: targets, (N, C).
        times: a number or (T,) numbers ≥ 0; ``inf`` is the limit, where the kernel's null space,
            which moves no output, has coefficient 0; a float32 kernel's rounding counts as signal
            there, so give it a finite time or a ridge.
        ridge: weight decay, as in :func:`regression`.
        f0_scale: s, the scale with which f0 is added.

    Returns:
        Coefficients (N, C), or (T, N, C) for T times.

    Raises:
        ValueError: as :func:`regression`, but a singular kernel is welcome; a negative time.

    >>> flow = gradient_flow(np.eye(1), f0=[[1.0]], y=[[0.0]], times=[0.0, np.log(2), np.inf])
    >>> flow.coefficients.ravel()  # the residual halves
    array([0. , 0.5, 1. ])
    """
    problem = _Ridge.of(kernel, f0, y, ridge, f0_scale)
    at = _axis("times", times)
    _warn_of_stopping(kernel, "times", at, ridge)
    values, vectors = problem.eigh()
    limit = _pseudo_inverse(values)
    with np.errstate(invalid="ignore"):  # 0 · ∞, of which the limit takes the place
        growth = [np.where(np.isinf(t), limit, _saturate(-values * t, t)) for t in at.ravel()]
    return problem.along(vectors, np.stack(growth).reshape(*at.shape, *values.shape))


def gradient_descent(
    kernel: ArrayLike,
    f0: ArrayLike,
    y: ArrayLike,
    learning_rate: float,
    steps: ArrayLike,
    ridge: float = 0.0,
    f0_scale: float = 1.0,
) -> Dual:
    """Full-batch gradient descent on the squared error, after any numbers of steps, in closed form.

    Args:
        kernel: K(X, X), as in :func:`regression`.
        f0: outputs at θ0 on X, (N, C).
        y: targets, (N, C).
        learning_rate: η of θ ← θ − η ∇L, for the *sum* over examples of ½ ‖f − y‖².
        steps: a number or (T,) numbers of steps; ``inf`` is the limit.
        ridge: weight decay, as in :func:`regression`.
        f0_scale: s, the scale with which f0 is added.

    Returns:
        Coefficients (N, C), or (T, N, C) for T numbers of steps.

    Raises:
        ValueError: as :func:`gradient_flow`; a learning rate that is not positive, or above
            :func:`max_learning_rate`, where the descent diverges; steps that are not whole.

    >>> descent = gradient_descent(np.eye(1), [[1.0]], [[0.0]], learning_rate=0.5, steps=[1, 2, 3])
    >>> descent.coefficients.ravel()
    array([0.5  , 0.75 , 0.875])
    """
    problem = _Ridge.of(kernel, f0, y, ridge, f0_scale)
    at = _axis("steps", steps)
    _warn_of_stopping(kernel, "steps", at, ridge)
    if (np.isfinite(at) & (at != np.round(at))).any():
        raise ValueError(f"steps={at.tolist()}; expected whole numbers of steps")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate={learning_rate}; expected a positive number")
    values, vectors = problem.eigh()
    bound = 2 / values.max() if values.max() > 0 else np.inf
    endless = np.isinf(at).any() and learning_rate >= bound
    if learning_rate > bound * (1 + 1e-12) or endless:
        raise ValueError(
            f"learning_rate={learning_rate} is not below the bound 2 / largest eigenvalue = "
            f"{bound:.4g}, where gradient descent on the summed loss diverges; choose one below "
            "it (a loss that is a mean over N examples allows N times as much)"
        )
    rate = learning_rate * values
    limit = _pseudo_inverse(values)
    # log1p keeps the small eigenvalues' digits; beyond 1/2 the power itself is exact
    slow = np.where(rate < 0.5, np.log1p(-np.minimum(rate, 0.5)), 0.0)
    safe = np.where(rate < 0.5, 1.0, values)

    def growth(k: float) -> np.ndarray:
        if np.isinf(k):
            return limit
        small = _ratio(-np.expm1(k * slow), values, learning_rate * k)
        return np.where(rate < 0.5, small, (1 - np.power(1 - rate, k)) / safe)

    return problem.along(
        vectors, np.stack([growth(k) for k in at.ravel()]).reshape(*at.shape, *values.shape)
    )


def max_learning_rate(kernel: ArrayLike, ridge: float = 0.0) -> float:
    """2 / (λ_max + ridge): above it gradient descent on the *summed* squared error diverges.

    The stability bound of a quadratic; Lee et al. 2019 stay below the smaller 2 / (λ_min + λ_max),
    which contracts fastest. For a loss that is a mean over N examples it is N times as large.

    Args:
        kernel: K(X, X), as in :func:`regression`.
        ridge: weight decay, as in :func:`regression`.

    Raises:
        ValueError: no kernel of one set of inputs; an asymmetric one, one of zeros.

    >>> max_learning_rate(np.diag([1.0, 4.0]))
    0.5
    """
    decay = checks.nonnegative("ridge", ridge)
    blocks = to_blocks(checks.square_kernel(kernel))
    last = blocks.shape[-1] - 1
    tops = [scipy.linalg.eigvalsh(b, subset_by_index=(last, last))[0] for b in blocks]
    largest = float(max(tops)) + decay
    if largest <= 0:
        raise ValueError(
            f"kernel has the largest eigenvalue {largest:.1e}: no step moves any output; check "
            "that the trained parameters reach the outputs"
        )
    return 2 / largest


@dataclass(frozen=True, eq=False)
class _Ridge:
    kernel: np.ndarray
    start: np.ndarray
    """s f0(X) − y, (N, C)."""
    ridge: float
    f0_scale: float
    traced: int | None

    @classmethod
    def of(
        cls, kernel: ArrayLike, f0: ArrayLike, y: ArrayLike, ridge: float, f0_scale: float
    ) -> "_Ridge":
        warn_of_trace(kernel, "ridge", ridge)
        square, initial = checks.kernel_and_outputs(kernel, f0)
        targets = checks.outputs_like("y", y, *initial.shape)
        scale = checks.finite("f0_scale", f0_scale)
        ridge = checks.nonnegative("ridge", ridge)
        return cls(square, scale * initial - targets, ridge, scale, traced_outputs(kernel))

    @property
    def columns(self) -> np.ndarray:
        return to_columns(self.start, self.kernel.ndim)

    def eigh(self) -> tuple[np.ndarray, np.ndarray]:
        """Eigenvalues of K + ridge I (B, M), and eigenvectors (B, M, M)."""
        values, vectors = np.linalg.eigh(to_blocks(self.kernel))
        return checks.check_eigenvalues(values, self.ridge), vectors

    def along(self, vectors: np.ndarray, growth: np.ndarray) -> Dual:
        """The solution c = U g Uᵀ r0 for ``growth`` g, (..., B, M)."""
        coordinates = np.swapaxes(vectors, -1, -2) @ self.columns
        return self.solution(vectors @ (growth[..., None] * coordinates))

    def solution(self, columns: np.ndarray) -> Dual:
        c = from_columns(columns, self.kernel.ndim, self.start.shape[1])
        times = product(self.kernel)
        moved = times(c)
        residual = self.start - moved
        slope = residual - self.ridge * c
        objective = 0.5 * (residual**2 + self.ridge * c * moved).sum((-2, -1))
        norm = np.sqrt(np.maximum((slope * times(slope)).sum((-2, -1)), 0))
        return Dual(c, self.f0_scale, objective, norm, traced=self.traced)


def _warn_of_stopping(kernel: ArrayLike, argument: str, at: np.ndarray, ridge: float) -> None:
    """A time that ends regularises as a ridge does; one that was given has been spoken of."""
    if not ridge:
        warn_of_trace(kernel, argument, float(at[np.isfinite(at)].max(initial=0)), depth=2)


def _axis(argument: str, values: ArrayLike) -> np.ndarray:
    at = np.asarray(values, np.float64)
    if at.ndim > 1 or not at.size or not (at >= 0).all():
        raise ValueError(f"{argument}={at.tolist()}; expected numbers of 0 or more, on one axis")
    return at


def _saturate(exponent: np.ndarray, t: float) -> np.ndarray:
    """(1 − e^z) / μ for z = −μ t; its limit at μ = 0 is t."""
    return t * _ratio(-np.expm1(exponent), -exponent, 1.0)


def _ratio(top: np.ndarray, bottom: np.ndarray, at_zero: float) -> np.ndarray:
    zero = bottom == 0
    return np.where(zero, at_zero, top / np.where(zero, 1.0, bottom))


def _pseudo_inverse(values: np.ndarray) -> np.ndarray:
    cut = values.shape[-1] * np.finfo(np.float64).eps * values.max()
    kept = values > cut
    return np.where(kept, 1 / np.where(kept, values, 1.0), 0.0)

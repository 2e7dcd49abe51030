"""Globally optimal scaling coefficients, one for each of many directions, with a certificate.

Where logits are affine in the coefficients, ``f0 + Σ α_k Jτ_k``, their cross-entropy is convex in
them. Along a line it is also *self-concordant-like* (Bach 2010, *Self-concordant analysis for
logistic regression*): its third derivative is at least −R times its second, R being the largest
distance ``‖Jτ(n, c) − Jτ(n, c')‖`` between two classes of an example, as vectors over the K
directions. So the gradient g and the Hessian's smallest eigenvalue m bound what is left to gain:

    L(α) − min L ≤ (m / R²) [(1 − x) log(1 − x) + x]        x = R ‖g‖ / m < 1

which is ‖g‖² / (2 m) where the gradient is small. No α needs a model call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.optimize import minimize

from linearize.compiled import jit
from linearize.evaluate import AffineOutputs, Readout, as_readout
from linearize.evaluate.grid import check_labels
from linearize.evaluate.readout import affine_logits
from linearize.types import Array

_GRADIENT, _GRADIENT_32 = 1e-10, 1e-5
"""Norms at which the iteration stops: closed forms in float64, and autodiff in float32."""


@dataclass(frozen=True, eq=False)
class Optimum:
    """Coefficients, and what is known of the objective there."""

    coefficients: np.ndarray
    """(K,), float64."""
    objective: float
    """Mean cross-entropy + (l2 / 2) ‖α‖², in nats."""
    gradient: float
    """Euclidean norm of its gradient."""
    curvature: float
    """Smallest eigenvalue of its Hessian; positive at a strict minimum."""
    gap: float
    """Upper bound on the objective minus its minimum over all α, in nats; infinite where nothing is
    known: logits that are not affine, or a gradient too large for the curvature."""
    iterations: int = 0


def optimal_coefficients(
    terms: Sequence[AffineOutputs],
    labels: Sequence[ArrayLike],
    readouts: Readout | Sequence[Readout] = None,
    *,
    l2: float = 0.0,
    start: ArrayLike | None = None,
    max_iterations: int = 200,
) -> Optimum:
    """The coefficients of least cross-entropy, mean over data sets of each one's mean.

    Newton steps in a trust region (scipy's ``trust-exact``). Where every readout is ``None`` or a
    head without normalisation, the objective is convex, the minimum global and ``gap`` its
    certificate; elsewhere it is a local minimum that depends on ``start``. Tied coefficients, such
    as one for all tasks, are those of summed directions (:meth:`AffineOutputs.along`).

    Args:
        terms: S data sets' outputs along the same K directions.
        labels: each data set's labels, (N_s,) integers.
        readouts: each data set's features to logits, or one for all.
        l2: weight of the penalty; 0 for none.
        start: (K,) coefficients; 0, the pre-trained model, by default.
        max_iterations: Newton steps at most.

    Raises:
        ValueError: nothing to fit, numbers or shapes that differ, labels out of range, a negative
            ``l2``, or a ``start`` that is not finite.

    >>> terms = AffineOutputs(np.zeros((3, 2)), np.array([[[0.0, 1], [0, 1], [0, 1]]]))
    >>> best = optimal_coefficients([terms], [np.array([1, 1, 0])])
    >>> round(float(best.coefficients[0]), 6), best.gap < 1e-12  # log odds of 2 to 1
    (0.693147, True)
    """
    objective = _objective(terms, labels, readouts, l2)
    first = np.zeros(objective.directions) if start is None else np.asarray(start, np.float64)
    _check_point("start", first, objective.directions)
    at = lru_cache(maxsize=4)(lambda point: objective.derivatives(np.frombuffer(point)))
    found = minimize(
        lambda a: at(a.tobytes())[:2],
        first,
        jac=True,
        hess=lambda a: at(a.tobytes())[2],
        method="trust-exact",
        options={"gtol": objective.tolerance, "maxiter": max_iterations},
    )
    return _certified(objective, found.x, int(found.nit))


def certify(
    terms: Sequence[AffineOutputs],
    labels: Sequence[ArrayLike],
    readouts: Readout | Sequence[Readout] = None,
    *,
    coefficients: ArrayLike,
    l2: float = 0.0,
) -> Optimum:
    """What is known of the objective at coefficients found in another way.

    Args and raises as :func:`optimal_coefficients`.
    """
    objective = _objective(terms, labels, readouts, l2)
    at = np.asarray(coefficients, np.float64)
    _check_point("coefficients", at, objective.directions)
    return _certified(objective, at, 0)


def suboptimality(gradient: float, curvature: float, spread: float) -> float:
    """The module's bound on ``L(α) − min L`` from ‖g‖, m and R; infinite where it says nothing.

    >>> suboptimality(1e-3, 0.5, 0.0) == 1e-6, suboptimality(1.0, 0.5, 2.0)
    (True, inf)
    """
    if curvature <= 0 or not np.isfinite(spread):
        return float("inf")
    x = spread * gradient / curvature
    if x >= 1:
        return float("inf")
    if x < 1e-4:  # the closed form cancels; (1 − x) log(1 − x) + x = x²/2 + x³/6 + ...
        return gradient**2 / (2 * curvature) * (1 + x)
    return float(curvature / spread**2 * ((1 - x) * np.log1p(-x) + x))


_Derivatives = tuple[float, np.ndarray, np.ndarray]
"""Value, gradient (K,) and Hessian (K, K)."""
_Differentiated = Callable[[np.ndarray], _Derivatives]


@dataclass(frozen=True)
class _Objective:
    """The mean over data sets, and the penalty."""

    sets: Sequence[_Differentiated]
    directions: int
    l2: float
    spread: float
    tolerance: float

    def derivatives(self, alphas: np.ndarray) -> _Derivatives:
        values, gradients, hessians = zip(*(each(alphas) for each in self.sets), strict=True)
        return (
            float(np.mean(values)) + self.l2 / 2 * float(alphas @ alphas),
            np.mean(gradients, 0) + self.l2 * alphas,
            np.mean(hessians, 0) + self.l2 * np.eye(self.directions),
        )


def _certified(objective: _Objective, alphas: np.ndarray, iterations: int) -> Optimum:
    value, gradient, hessian = objective.derivatives(alphas)
    norm, least = float(np.linalg.norm(gradient)), float(np.linalg.eigvalsh(hessian)[0])
    gap = suboptimality(norm, least, objective.spread)
    return Optimum(np.asarray(alphas), float(value), norm, least, gap, iterations)


def _objective(
    terms: Sequence[AffineOutputs],
    labels: Sequence[ArrayLike],
    readouts: Readout | Sequence[Readout],
    l2: float,
) -> _Objective:
    if not len(terms) or len(labels) != len(terms):
        raise ValueError(f"terms has {len(terms)} entries and labels {len(labels)}; one each")
    reads = list(readouts) if isinstance(readouts, Sequence) else [readouts] * len(terms)
    if len(reads) != len(terms):
        raise ValueError(f"readouts has {len(reads)} entries for {len(terms)} data sets")
    if not 0 <= l2 < float("inf"):
        raise ValueError(f"l2={l2}; expected 0 or more")
    counts = {len(each.jvps) for each in terms}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"terms have {sorted(counts)} directions; expected one number, 1 or more")
    convex = all(affine_logits(read) for read in reads)
    made = [(_affine if convex else _any)(*each) for each in zip(terms, labels, reads, strict=True)]
    return _Objective(
        sets=[derivatives for derivatives, _ in made],
        directions=counts.pop(),
        l2=l2,
        spread=max(spread for _, spread in made),
        tolerance=_GRADIENT if convex else _GRADIENT_32,
    )


def _check_point(name: str, at: np.ndarray, directions: int) -> None:
    if at.shape != (directions,) or not np.isfinite(at).all():
        raise ValueError(f"{name} has shape {at.shape}; expected ({directions},) finite numbers")


def _affine(
    terms: AffineOutputs, labels: ArrayLike, readout: Readout
) -> tuple[_Differentiated, float]:
    """Logits that are affine in the coefficients: closed forms, in float64; and R."""
    scores = terms.scores(readout)
    assert scores is not None
    f0, jvps = np.asarray(scores.f0, np.float64), np.asarray(scores.jvps, np.float64)
    y = check_labels(labels, *f0.shape)
    n, directions = len(y), len(jvps)

    def derivatives(alphas: np.ndarray) -> _Derivatives:
        logits = f0 + np.tensordot(alphas, jvps, 1)
        logits -= logits.max(1, keepdims=True)
        total = np.log(np.exp(logits).sum(1))
        p = np.exp(logits - total[:, None])
        centred = jvps - np.einsum("knc,nc->kn", jvps, p)[..., None]
        rows = (centred * np.sqrt(p)).reshape(directions, -1)
        value = float((total - logits[np.arange(n), y]).mean())
        return value, -centred[:, np.arange(n), y].mean(1), rows @ rows.T / n

    return derivatives, _spread(jvps)


def _spread(jvps: np.ndarray) -> float:
    """R: the largest distance of two classes of one example, over the directions."""
    rows = np.moveaxis(jvps, 0, -1)
    gram = np.einsum("nck,ndk->ncd", rows, rows)
    squares = np.einsum("ncc->nc", gram)
    return float(np.sqrt(np.maximum(squares[:, :, None] + squares[:, None] - 2 * gram, 0).max()))


def _any(
    terms: AffineOutputs, labels: ArrayLike, readout: Readout
) -> tuple[_Differentiated, float]:
    """Any readout: automatic derivatives, in float32; R is not known."""
    read, f0 = as_readout(readout), jnp.asarray(terms.f0)
    y = jnp.asarray(check_labels(labels, len(f0), jax.eval_shape(read, f0).shape[-1]))
    whole = AffineOutputs(f0, jnp.asarray(terms.jvps))

    def derivatives(alphas: np.ndarray) -> _Derivatives:
        found = _derivatives(read, whole, y, jnp.asarray(alphas, jnp.float32))
        value, gradient, hessian = (np.asarray(part, np.float64) for part in found)
        return float(value), gradient, hessian

    return derivatives, float("inf")


@jit
def _derivatives(
    readout: jax.tree_util.Partial, terms: AffineOutputs, labels: Array, alphas: Array
) -> tuple[Array, Array, Array]:
    loss = partial(_cross_entropy, readout, terms, labels)
    return loss(alphas), jax.grad(loss)(alphas), jax.hessian(loss)(alphas)


def _cross_entropy(
    readout: jax.tree_util.Partial, terms: AffineOutputs, labels: Array, alphas: Array
) -> Array:
    logits = readout(terms.at(alphas)).astype(jnp.float32)
    true = jnp.take_along_axis(logits, labels[:, None], 1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - true)

"""Globally optimal scaling coefficients, one for each of many directions, with a certificate.

Where logits are affine in the coefficients, ``f0 + Σ α_k Jτ_k``, their cross-entropy is convex in
them, whether targets are labels or probabilities. Along a line it is also *self-concordant-like*
(Bach 2010, *Self-concordant analysis for logistic regression*): its third derivative is at least −R
times its second, R being the largest distance ``‖Jτ(n, c) − Jτ(n, c')‖`` between two classes of an
example, as vectors over the K directions. So the gradient g and the Hessian's smallest eigenvalue m
bound what is left to gain:

    L(α) − min L ≤ (m / R²) [(1 − x) log(1 − x) + x]        x = R ‖g‖ / m < 1

which is ‖g‖² / (2 m) where the gradient is small. The bound is taken in coordinates in which the
Hessian is 1 (m = 1, ‖g‖ Newton's decrement), on the span of what the directions do to logits: so
neither their scales nor zero and repeated ones matter to it. Cross-entropy being no less than the
targets' own entropy H, 0 of labels, L(α) − H is a bound as well, and the only one far from a
minimum. No α needs a model call.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from scipy.optimize import minimize

from linearize import fields, tree
from linearize.agreement import SEED, agree, narrowest, once
from linearize.compiled import jit
from linearize.edit.newton import Derivatives, newton, newton_step
from linearize.edit.span import Span
from linearize.evaluate import AffineOutputs, Readout, as_readout
from linearize.objectives.readout import affine_logits
from linearize.objectives.targets import check_labels
from linearize.renamed import formerly
from linearize.types import Array

log = logging.getLogger(__name__)

__getattr__ = formerly(__name__, Optimum="OptimalCoefficients")

_GRADIENT_32 = 1e-5
"""Norm of the gradient at which the iteration by autodiff in float32 stops."""
_STILL = 1e-3
"""Change of a logit, relative to another, below which a Newton step has arrived."""


@dataclass(frozen=True, eq=False)
class OptimalCoefficients:
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
    """Upper bound on the objective minus its infimum over all α, in nats: finite, and rigorous but
    for rounding; of directions that count as nothing, nothing is said. It is the objective less the
    targets' entropy where no more is known: logits that are not affine, or a point too far from a
    minimum."""
    iterations: int = 0
    attained: bool = True
    """Whether this is a minimum, as far as another Newton step moves no logit by 1e-3 beside
    another. False where the steps were too few, and where there is no minimum since the objective
    falls for ever as coefficients grow (separable examples): give ``l2``."""


def optimal_coefficients(
    terms: Sequence[AffineOutputs],
    labels: Sequence[ArrayLike],
    readouts: Readout | Sequence[Readout] = None,
    *,
    l2: float = 0.0,
    start: ArrayLike | None = None,
    max_iterations: int = 200,
) -> OptimalCoefficients:
    """The coefficients of least cross-entropy, mean over data sets of each one's mean.

    Where every readout is ``None`` or a head without normalisation, the objective is convex, the
    minimum global and ``gap`` its certificate: Newton steps in float64. Elsewhere it is a local
    minimum that depends on ``start``: a trust region (scipy's ``trust-exact``) in float32. Tied
    coefficients, such as one for all tasks, are those of summed directions
    (:meth:`AffineOutputs.along`).

    Of all optimal coefficients these are the ones of least norm: 0 for a vector that changes
    nothing, equal ones for a vector given twice. Scaling a vector divides its coefficient. What is
    below the rounding of ``jvps``' dtype counts as nothing: see :mod:`linearize.edit.span`.

    Args:
        terms: S data sets' outputs along the same K directions.
        labels: each data set's labels, (N_s,) integers; or probabilities (N_s, C) to come near,
            such as the experts' predictions.
        readouts: each data set's features to logits, or one for all.
        l2: weight of the penalty; 0 for none.
        start: (K,) coefficients; 0, the pre-trained model, by default.
        max_iterations: Newton steps at most.

    Raises:
        ValueError: nothing to fit, numbers or shapes that differ, labels out of range, a negative
            ``l2``, or a ``start`` that is not finite.
        DisagreementError: derivatives of a readout of one's own are others, uncompiled.

    >>> terms = AffineOutputs(np.zeros((3, 2)), np.array([[[0.0, 1], [0, 1], [0, 1]]]))
    >>> best = optimal_coefficients([terms], [np.array([1, 1, 0])])
    >>> round(float(best.coefficients[0]), 6), best.gap < 1e-12  # log odds of 2 to 1
    (0.693147, True)
    """
    objective = _objective(terms, labels, readouts, l2)
    first = np.zeros(objective.directions) if start is None else np.asarray(start, np.float64)
    _check_point("start", first, objective.directions)
    span = objective.span()
    objective.warn_of_nothing(span)
    found, steps = objective.along(span.gives).minimum(span.reads @ first, max_iterations)
    return objective.certified(span.gives @ found, steps)


def certify(
    terms: Sequence[AffineOutputs],
    labels: Sequence[ArrayLike],
    readouts: Readout | Sequence[Readout] = None,
    *,
    coefficients: ArrayLike,
    l2: float = 0.0,
) -> OptimalCoefficients:
    """What is known of the objective at coefficients found in another way.

    Args and raises as :func:`optimal_coefficients`.
    """
    objective = _objective(terms, labels, readouts, l2)
    at = np.asarray(coefficients, np.float64)
    _check_point("coefficients", at, objective.directions)
    return objective.certified(at, 0)


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


@dataclass(frozen=True, eq=False)
class _Affine:
    """A data set whose logits are affine in the coefficients: closed forms, in float64."""

    f0: np.ndarray
    jvps: np.ndarray
    """(K, N, C), centred over the classes, which no cross-entropy sees."""
    wanted: np.ndarray
    """(N, C) probabilities: of labels, 0 and 1."""

    @classmethod
    def of(cls, terms: AffineOutputs, labels: ArrayLike, readout: Readout) -> "_Affine":
        scores = terms.scores(readout)
        assert scores is not None
        f0, jvps = (_centred(x) for x in (scores.f0, scores.jvps))
        return cls(f0, jvps, _wanted(labels, *f0.shape))

    def derivatives(self, alphas: np.ndarray) -> Derivatives:
        n = len(self.wanted)
        logits = self.f0 + np.tensordot(alphas, self.jvps, 1)
        logits -= logits.max(1, keepdims=True)
        total = np.log(np.exp(logits).sum(1))
        p = np.exp(logits - total[:, None])
        centred = self.jvps - np.einsum("knc,nc->kn", self.jvps, p)[..., None]
        rows = (centred * np.sqrt(p)).reshape(len(centred), self.f0.size)
        value = (total - (self.wanted * logits).sum(1)).mean()
        return float(value), -(self.wanted * centred).sum(-1).mean(1), rows @ rows.T / n

    def along(self, basis: np.ndarray) -> "_Affine":
        return replace(self, jvps=np.tensordot(basis.T, self.jvps, 1))

    @property
    def least(self) -> float:
        """The targets' entropy."""
        return _entropy(self.wanted)

    def reach(self, step: np.ndarray) -> float:
        """The largest change of a logit beside another of its example."""
        return float(np.ptp(np.tensordot(step, self.jvps, 1), axis=1).max())

    def spread(self) -> float:
        """R: the largest distance of two classes of one example, over the directions."""
        rows = np.moveaxis(self.jvps, 0, -1)
        gram = np.einsum("nck,ndk->ncd", rows, rows)
        squares = np.einsum("ncc->nc", gram)
        apart = squares[:, :, None] + squares[:, None] - 2 * gram
        return float(np.sqrt(np.maximum(apart, 0).max()))


@dataclass(frozen=True, eq=False)
class _Any:
    """A data set under any readout: automatic derivatives, in float32."""

    f0: np.ndarray
    jvps: np.ndarray
    wanted: np.ndarray
    """As of :class:`_Affine`."""
    readout: jax.tree_util.Partial

    @classmethod
    def of(cls, terms: AffineOutputs, labels: ArrayLike, readout: Readout) -> "_Any":
        read, f0 = as_readout(readout), np.asarray(terms.f0)
        y = _wanted(labels, len(f0), jax.eval_shape(read, jnp.asarray(f0)).shape[-1])
        return cls(f0, np.asarray(terms.jvps, np.float64), y, read)

    @property
    def least(self) -> float:
        """The targets' entropy."""
        return _entropy(self.wanted)

    @cached_property
    def placed(self) -> tuple[AffineOutputs, Array]:
        """Terms and targets on the device."""
        jvps = jnp.asarray(self.jvps, jnp.float32)
        return AffineOutputs(jnp.asarray(self.f0), jvps), jnp.asarray(self.wanted, jnp.float32)

    def derivatives(self, alphas: np.ndarray) -> Derivatives:
        at = jnp.asarray(alphas, jnp.float32)
        parts = _derivatives(self.readout, *self.placed, at)
        value, gradient, hessian = (np.asarray(part, np.float64) for part in parts)
        found = float(value), gradient, hessian
        once(partial(self._check, at, found), "derivatives", arrays=(self.readout, *self.placed))
        return found

    def _check(self, at: Array, found: Derivatives) -> None:
        """Along random signs v, by forward mode and uncompiled."""
        v = np.random.default_rng(SEED).choice([-1.0, 1.0], at.shape)
        value, gradient, hessian = found
        numbers = (value, float(gradient @ v), float(v @ hessian @ v))
        size = float(np.linalg.norm(v))
        bend = float(np.linalg.norm(hessian)) * size**2
        scales = (1 + abs(value), float(np.linalg.norm(gradient)) * size + bend**0.5, bend)
        loss = partial(_cross_entropy, self.readout, *self.placed)
        sign = jnp.asarray(v, at.dtype)
        with jax.disable_jit():
            along = jax.jvp(lambda a: jax.jvp(loss, (a,), (sign,)), (at,), (sign,))
        expected = map(float, (*along[0], along[1][1]))
        dtypes = narrowest(loss, at), np.dtype(np.float32)
        names = "value", "slope along random signs", "curvature along random signs"
        for name, number, other, scale in zip(names, numbers, expected, scales, strict=True):
            what = f"the {name} of the cross-entropy of coefficients"
            agree(number, other, scale=scale, dtypes=dtypes, terms=1, what=what, entry=f"{at}")

    def along(self, basis: np.ndarray) -> "_Any":
        return replace(self, jvps=np.tensordot(basis.T, self.jvps, 1))


@dataclass(frozen=True, eq=False)
class _Objective:
    """The mean over data sets, and a quadratic penalty (K, K)."""

    sets: Sequence[Any]
    """All :class:`_Affine`, or all :class:`_Any`."""
    penalty: np.ndarray
    dtype: np.dtype
    """Whose rounding the directions' effects carry."""

    @property
    def directions(self) -> int:
        return len(self.penalty)

    @property
    def convex(self) -> bool:
        return all(isinstance(each, _Affine) for each in self.sets)

    def derivatives(self, alphas: np.ndarray) -> Derivatives:
        parts = zip(*(each.derivatives(alphas) for each in self.sets), strict=True)
        value, gradient, hessian = (np.mean(part, 0) for part in parts)
        pulled = self.penalty @ alphas
        return float(value + alphas @ pulled / 2), gradient + pulled, hessian + self.penalty

    def along(self, basis: np.ndarray) -> "_Objective":
        """The same in the coefficients of combinations (K, r) of the directions."""
        sets = [each.along(basis) for each in self.sets]
        return replace(self, sets=sets, penalty=basis.T @ self.penalty @ basis)

    def span(self) -> Span:
        """Coordinates in which the directions are of one size, and none is nothing."""
        size = float(np.sqrt(np.mean([np.mean(np.square(each.f0)) for each in self.sets])))
        unit = 1.0 if self.convex else size or 1.0
        changes = [each.jvps for each in self.sets]
        if self.penalty.any():  # which decides alone what no output sees
            return Span.scaled(changes, unit)
        return Span.of(changes, unit, size, self.dtype)

    def warn_of_nothing(self, span: Span) -> None:
        """Name the directions that change something and count as nothing."""
        moves = np.any([each.jvps.reshape(span.reads.shape[1], -1).any(1) for each in self.sets], 0)
        if (passed := np.flatnonzero(moves & ~span.gives.any(1))).size:
            log.warning(
                "directions %s change outputs by less than the rounding of the outputs and of the "
                "largest direction, and get the coefficient 0; if they are real, scale them up or "
                "leave the largest out",
                passed.tolist(),
            )

    def reach(self, step: np.ndarray) -> float:
        return max(each.reach(step) for each in self.sets)

    def minimum(self, start: np.ndarray, max_iterations: int) -> tuple[np.ndarray, int]:
        """The minimiser and the number of steps."""
        if self.convex or not len(start):
            return newton(self.derivatives, self.reach, start, max_iterations)
        at = lru_cache(maxsize=4)(lambda point: self.derivatives(np.frombuffer(point)))
        found = minimize(
            lambda a: at(a.tobytes())[:2],
            start,
            jac=True,
            hess=lambda a: at(a.tobytes())[2],
            method="trust-exact",
            options={"gtol": _GRADIENT_32, "maxiter": max_iterations},
        )
        return _polished(self.derivatives, found.x), int(found.nit)

    def certified(self, alphas: np.ndarray, iterations: int) -> OptimalCoefficients:
        """What is known of the objective at ``alphas``."""
        value, gradient, hessian = self.derivatives(alphas)
        gives = self.span().gives
        within = gives.T @ gradient, gives.T @ hessian @ gives
        bound, attained = float("inf"), bool(np.linalg.norm(within[0]) <= 10 * _GRADIENT_32)
        if self.convex:
            bound = self._bound(gives, *within)
            attained = self.reach(gives @ newton_step(*within)) <= _STILL
        least = float(np.mean([each.least for each in self.sets]))
        return OptimalCoefficients(
            coefficients=np.asarray(alphas),
            objective=value,
            gradient=float(np.linalg.norm(gradient)),
            curvature=float(np.linalg.eigvalsh(hessian)[0]),
            gap=max(0.0, min(bound, value - least)),
            iterations=iterations,
            attained=attained,
        )

    def _bound(self, gives: np.ndarray, gradient: np.ndarray, hessian: np.ndarray) -> float:
        """The module's bound, where the Hessian is 1."""
        try:
            root = np.linalg.cholesky(hessian)
        except np.linalg.LinAlgError:  # too flat to say anything
            return float("inf")
        metric = np.linalg.inv(root)
        sets = self.along(gives @ metric.T).sets
        spread = max(each.spread() for each in sets)
        return suboptimality(float(np.linalg.norm(metric @ gradient)), 1.0, spread)


def _objective(
    terms: Sequence[AffineOutputs],
    labels: Sequence[ArrayLike],
    readouts: Readout | Sequence[Readout],
    l2: float,
) -> _Objective:
    if not len(terms) or len(labels) != len(terms):
        raise ValueError(f"terms has {len(terms)} entries and labels {len(labels)}; one each")
    reads = fields.each("readouts", readouts, len(terms), "data sets")
    if not 0 <= l2 < float("inf"):
        raise ValueError(f"l2={l2}; expected 0 or more")
    counts = {len(each.jvps) for each in terms}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"terms have {sorted(counts)} directions; expected one number, 1 or more")
    for s, each in enumerate(terms):
        tree.check_finite(each, what=f"terms[{s}]")
    make = _Affine.of if all(affine_logits(read) for read in reads) else _Any.of
    return _Objective(
        sets=[make(*each) for each in zip(terms, labels, reads, strict=True)],
        penalty=l2 * np.eye(counts.pop()),
        dtype=np.result_type(*(np.asarray(each.jvps).dtype for each in terms)),
    )


def _polished(derivatives: Callable[[np.ndarray], Derivatives], at: np.ndarray) -> np.ndarray:
    """Newton steps while they shrink the gradient, which resolves more than values in float32."""
    _, gradient, hessian = derivatives(at)
    while np.linalg.norm(gradient) > 0 and np.linalg.eigvalsh(hessian)[0] > 0:
        new = at + newton_step(gradient, hessian)
        _, slope, bend = derivatives(new)
        if not np.linalg.norm(slope) < np.linalg.norm(gradient) / 2:
            break
        at, gradient, hessian = new, slope, bend
    return at


def _centred(logits: ArrayLike) -> np.ndarray:
    values = np.asarray(logits, np.float64)
    return values - values.mean(-1, keepdims=True)


def _check_point(name: str, at: np.ndarray, directions: int) -> None:
    if at.shape != (directions,) or not np.isfinite(at).all():
        raise ValueError(f"{name} has shape {at.shape}; expected ({directions},) finite numbers")


def _wanted(labels: ArrayLike, n: int, classes: int) -> np.ndarray:
    """Labels, or probabilities, as probabilities (N, C)."""
    given = np.asarray(labels)
    if given.ndim < 2 or not np.issubdtype(given.dtype, np.floating):
        return np.eye(classes)[check_labels(labels, n, classes)]
    found = given.astype(np.float64)
    total = found.sum(-1, keepdims=True)
    if found.shape != (n, classes) or not ((found >= 0).all() and (np.abs(total - 1) < 1e-3).all()):
        raise ValueError(
            f"labels are {given.dtype}{given.shape}; as probabilities they are ({n}, {classes}), 0 "
            "or more, and those of an example sum to 1"
        )
    return found / total


def _entropy(p: np.ndarray) -> float:
    """Mean over examples, in nats."""
    return float(-np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(1).mean())


@jit
def _derivatives(
    readout: jax.tree_util.Partial, terms: AffineOutputs, wanted: Array, alphas: Array
) -> tuple[Array, Array, Array]:
    loss = partial(_cross_entropy, readout, terms, wanted)
    return loss(alphas), jax.grad(loss)(alphas), jax.hessian(loss)(alphas)


def _cross_entropy(
    readout: jax.tree_util.Partial, terms: AffineOutputs, wanted: Array, alphas: Array
) -> Array:
    logp = jax.nn.log_softmax(readout(terms.at(alphas)).astype(jnp.float32))
    return -jnp.where(wanted > 0, wanted * logp, 0).sum(-1).mean()

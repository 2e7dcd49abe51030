"""Exact linear fine-tuning in weight space: Gauss-Newton steps by conjugate gradients.

No kernel is formed, so N·C may be as large as training takes it; memory is that of a training
step, a few vectors of θ's size, and the outputs of the N examples.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize import taylor, tree
from linearize.evaluate.affine import check_taus
from linearize.narration import Console
from linearize.ntk import newton
from linearize.ntk.objective import Reached, TrainingSet, combine, inner, reached, squared
from linearize.objectives.readout import Readout
from linearize.renamed import renamed
from linearize.task_vector import TaskVector
from linearize.types import Apply, Array, Params, PyTree

log = logging.getLogger(__name__)

Vector = dict[str, Array]


@dataclass(frozen=True, eq=False)
class Optimum:
    """A linear fine-tuning taken to its end."""

    tau: TaskVector
    reached: Reached
    """Loss, objective and gradient norm at this τ, measured in weight space."""
    solver: str
    iterations: int
    """Newton steps."""
    products: int
    """Passes over the data of five forward passes' work each; of the dual, those after it."""


@renamed(params_filter="trainable")
def gauss_newton(
    f: Apply,
    params0: Params,
    x: PyTree,
    labels: ArrayLike,
    *,
    readout: Readout = None,
    l2: float,
    trainable: tree.Pattern = None,
    tolerance: float | None = None,
    max_iterations: int = 50,
    max_products: int = 2000,
    batch_size: int = 64,
    start: TaskVector | None = None,
    meta: Mapping[str, Any] | None = None,
    method: taylor.Method = "auto",
    progress: bool = False,
) -> Optimum:
    """The τ that minimises mean cross-entropy of readout(f0 + Jτ) + (l2 / 2) ‖τ‖².

    Where the readout is affine the problem is convex and the result the global optimum, with the
    certificate ``reached.gap``. Where it is not (a head that normalises) steps stop at negative
    curvature (Nocedal & Wright 2006, algorithm 7.1), the result is a stationary point,
    ``reached.certified`` is False, and another ``start`` may end elsewhere.

    Args:
        f: ``f(params, *inputs) -> outputs (B, ...)``: features for the readout, or logits (B, C);
            of one output, the logit of class 1. Compiled once per shapes; give the same function
            object to have the compilation reused.
        params0: θ0.
        x: N training examples: an array, or a tuple for a model of several arguments.
        labels: (N,) integers in 0, ..., C − 1.
        readout: the frozen head; none where ``f`` returns logits.
        l2: weight decay of τ, above 0. ``sklearn``'s ``C`` is 1 / (N l2).
        trainable: which leaves to train (:func:`linearize.tree.select`).
        tolerance: on the objective, in nats, by ``gradient_norm² / (2 l2)``; by default 1e-10, or
            1e-6 where outputs are narrower than float64.
        max_iterations: Newton steps at most.
        max_products: passes at most.
        batch_size: examples per pass.
        start: where to begin; 0 by default. A warm start changes the way, not a convex problem's
            end.
        meta: what else the task vector is to remember.
        method: as :func:`linearize.linearize`.
        progress: show how far it is.

    Returns:
        The task vector, of regime ``"linear"``, in float32 or wider, and what it reaches.

    Raises:
        ValueError: ``l2`` or a tolerance of 0 or less; labels, examples or outputs that do not fit.
        StructureMismatch: ``start`` does not belong to ``params0``.
        NotConvergedError: the tolerance was not met; its ``solution`` is the best
            :class:`Optimum` seen, whose τ is a ``start`` to go on from.

    >>> import jax.numpy as jnp
    >>> f = lambda params, x: x @ params["w"]
    >>> x = np.array([[1.0], [-1.0]], np.float32)
    >>> found = gauss_newton(f, {"w": jnp.zeros((1, 2))}, x, [0, 1], l2=0.1)
    >>> a, b = found.tau.delta["w"][0]
    >>> found.reached.gap <= 1e-6, round(float(a * (1 + np.exp(a - b))), 1)  # stationary: 1 / l2
    (True, 10.0)
    """
    l2 = newton.check_l2(l2)
    passes = TrainingSet.of(f, params0, x, labels, readout, l2, batch_size, method)
    tolerance = newton.check_tolerance(tolerance, passes.batches[0][2].dtype)
    at_zero = tree.zeros(params0, trainable)
    if start is not None:
        check_taus(params0, [start])
        tree.check_match(at_zero, start, what="start")
        at_zero = {n: start.delta[n].astype(leaf.dtype) for n, leaf in at_zero.items()}
    with _status(progress) as say:
        search = _Search(passes, max_products, say)
        found = newton.minimise(
            search.at,
            search.step,
            at_zero,
            l2=l2,
            tolerance=tolerance,
            max_iterations=max_iterations,
            rounding=float(np.finfo(passes.batches[0][2].dtype).eps),
        )
    end = found.point
    notes = {"regime": "linear", "solver": "gauss_newton", "l2": l2, **(meta or {})}
    optimum = Optimum(
        TaskVector(end.x, tree.fingerprint(params0), notes),
        end.state.reached,
        "gauss_newton",
        found.iterations,
        search.products,
    )
    if not found.converged:
        remedy = (
            f"max_iterations ({max_iterations}) or max_products ({max_products}, "
            f"{search.products} were made), or work in float64 (jax_enable_x64)"
        )
        raise newton.not_converged(found, l2, tolerance, remedy, optimum)
    return optimum


@dataclass(frozen=True, eq=False)
class _Here:
    outputs: list[Array]
    gradient: Vector
    tau_square: float
    reached: Reached


class _Search:
    """Points and steps of :func:`linearize.ntk.newton.minimise`, and a count of passes."""

    def __init__(self, passes: TrainingSet, max_products: int, say: Any) -> None:
        self.passes, self.max_products, self.say = passes, max_products, say
        self.products = 0

    def at(self, tau: Vector) -> newton.Point[Vector]:
        outputs, loss, gradient = self.passes.slope(tau)
        self.products += 1
        tau_square, square = squared(tau), squared(gradient)
        measured = reached(self.passes, loss, tau_square, square)
        log.debug("%d passes: %s", self.products, measured)
        self.say(
            f"{self.products} passes: objective {measured.objective:.6f}, gradient norm "
            f"{measured.gradient_norm:.1e}"
        )
        state = _Here(outputs, gradient, tau_square, measured)
        return newton.Point(tau, measured.objective, square, state)

    def step(self, here: newton.Point[Vector], exactness: float) -> newton.Step[Vector] | None:
        if self.products + 2 > self.max_products:
            return None
        state: _Here = here.state
        d, moved = self._solve(state, exactness * here.square**0.5)
        along, square = float(inner(here.x, d)), squared(d)
        l2 = self.passes.l2

        def objective(length: float) -> float:
            penalty = state.tau_square + 2 * length * along + length**2 * square
            return self.passes.loss(state.outputs, moved, length) + l2 / 2 * penalty

        def point(length: float) -> Vector:
            return combine(here.x, length, d)

        return newton.Step(float(inner(state.gradient, d)), objective, point)

    def _solve(self, here: _Here, residual: float) -> tuple[Vector, Sequence[Array]]:
        """Conjugate gradients on (Hessian) d = −∇L; J d is summed along the way."""
        d = jax.tree.map(np.zeros_like, here.gradient)
        moved: Sequence[Array] = jax.tree.map(np.zeros_like, here.outputs)
        r = q = combine(d, -1.0, here.gradient)
        square = squared(r)
        while True:
            u, image = self.passes.curvature(here.outputs, q)
            self.products += 1
            bend = float(inner(q, image))
            if bend <= 0:
                return (d, moved) if squared(d) else (q, u)
            length = square / bend
            d, moved = combine(d, length, q), combine(moved, length, u)
            r = combine(r, -length, image)
            last, square = square, squared(r)
            # a gradient pass for the new point is still to come
            if square**0.5 <= residual or self.products + 1 >= self.max_products:
                return d, moved
            q = combine(r, square / last, q)


@contextlib.contextmanager
def _status(progress: bool) -> Any:
    if not progress:
        yield lambda text: None
        return
    with Console(stderr=True).status("exact linear fine-tuning") as status:
        yield status.update

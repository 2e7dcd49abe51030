"""Exact linear fine-tuning: what AdamW on f_lin would end in, without its steps."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from linearize import cost, evaluate, taylor, tree
from linearize.choices import one_of
from linearize.current import current
from linearize.evaluate.batches import split_batches, window
from linearize.examples import as_arguments, count
from linearize.ntk import newton, plan
from linearize.ntk.checks import NotConvergedError
from linearize.ntk.dual import cross_entropy
from linearize.ntk.gauss_newton import Optimum, gauss_newton
from linearize.ntk.jacobian import RULES
from linearize.ntk.kernel import kernel
from linearize.ntk.objective import linear_objective
from linearize.ntk.pointwise import pointwise
from linearize.ntk.weights import to_task_vector
from linearize.objectives.readout import Readout, affine_logits, as_readout
from linearize.renamed import renamed
from linearize.task_vector import TaskVector
from linearize.types import Apply, Array, Params, PyTree

log = logging.getLogger(__name__)

Formulation = Literal["auto", "dual", "gauss_newton"]

_PASSES = 200
"""Passes of Gauss-Newton that the dual is held against: they are known only afterwards."""

_COPIES = 5
"""Float64 matrices of the kernel's size that the dual's checks and products hold at once."""


@renamed(params_filter="trainable")
def fine_tune_exactly(
    f: Apply,
    params0: Params,
    x: PyTree,
    labels: ArrayLike,
    *,
    readout: Readout = None,
    l2: float,
    solver: Formulation = "auto",
    trainable: tree.Pattern = None,
    tolerance: float | None = None,
    max_iterations: int = 50,
    max_products: int = 2000,
    batch_size: int = 64,
    meta: Mapping[str, Any] | None = None,
    method: taylor.Method = "auto",
    progress: bool = False,
) -> Optimum:
    """Linear fine-tuning to its optimum: a task vector like any other, of regime ``"linear"``.

    Minimises mean cross-entropy of readout(f0 + Jτ) + (l2 / 2) ‖τ‖² over all of τ.

    Args:
        f: ``f(params, *inputs) -> outputs (B, ...)``: features for the readout, or logits (B, C);
            of one output, the logit of class 1.
        params0: θ0.
        x: N training examples: an array, or a tuple for a model of several arguments.
        labels: (N,) integers in 0, ..., C − 1.
        readout: the frozen head; none where ``f`` returns logits.
        l2: weight decay of τ, above 0.
        solver: ``"dual"`` takes the kernel of the logits, (N·C)², and solves on it
            (:func:`linearize.ntk.cross_entropy`): for few examples and an affine readout;
            ``"gauss_newton"`` stays in weight space (:func:`linearize.ntk.gauss_newton`): for any.
            ``"auto"`` takes the dual where it may, fits into a quarter of the free memory, and
            counts fewer operations than 200 of Gauss-Newton's passes.
        trainable: which leaves to train (:func:`linearize.tree.select`).
        tolerance: on the objective, in nats, by ``gradient_norm² / (2 l2)``; by default 1e-10, or
            1e-6 where outputs are narrower than float64.
        max_iterations: Newton steps at most.
        max_products: passes of Gauss-Newton at most.
        batch_size: examples per pass, and per side of a block of the kernel.
        meta: what else the task vector is to remember.
        method: as :func:`linearize.linearize`; the dual finds out by itself.
        progress: show how far it is.

    Returns:
        The task vector and what it reaches, measured in weight space whichever the solver.

    Raises:
        ValueError: ``solver="dual"`` with a readout that is not affine, as one that normalises;
            otherwise as :func:`linearize.ntk.gauss_newton` and :func:`linearize.ntk.cross_entropy`.
        MemoryError: the dual's kernel does not fit.
        NotConvergedError: the tolerance was not met; ``solution`` is the best :class:`Optimum`.

    >>> f = lambda params, x: x @ params["w"]
    >>> found = fine_tune_exactly(f, {"w": jnp.zeros((2, 2))}, jnp.eye(2), [0, 1], l2=0.1)
    >>> found.solver, found.reached.certified
    ('dual', True)
    """
    taylor.check_function(f)
    one_of("solver", solver, ("auto", "dual", "gauss_newton"))
    f = current(f, params0, *window(as_arguments(x), 0, 1))
    l2 = newton.check_l2(l2)
    if solver == "dual" and not affine_logits(readout):
        raise ValueError(
            f"solver='dual' wants logits that are affine in τ, and readout={_name(readout)} is not "
            "known to be affine in the features; use solver='gauss_newton', a Head that does not "
            "normalise (prototype_head(..., normalize=False)), or an f that returns logits"
        )
    if solver == "auto":
        dual = affine_logits(readout) and _dual_pays(
            f, params0, x, readout, trainable, batch_size, method
        )
        solver = "dual" if dual else "gauss_newton"
        log.info("exact linear fine-tuning by %s", solver)
    notes = {"l2": l2, "solver": solver, **(meta or {})}
    if solver == "gauss_newton":
        return gauss_newton(
            f,
            params0,
            x,
            labels,
            readout=readout,
            l2=l2,
            trainable=trainable,
            tolerance=tolerance,
            max_iterations=max_iterations,
            max_products=max_products,
            batch_size=batch_size,
            meta=notes,
            method=method,
            progress=progress,
        )
    logits, joined = _Logits(f), _joined(params0, readout)
    picked = _picked(params0, trainable)
    full = kernel(logits, joined, x, trainable=picked, batch_size=batch_size, progress=progress)
    f0 = evaluate.outputs(logits, joined, x, batch_size)
    failed = None
    try:
        found = cross_entropy(
            full, f0, labels, l2, tolerance=tolerance, max_iterations=max_iterations
        )
    except NotConvergedError as error:
        failed, found = error, error.solution
    moved = to_task_vector(
        logits, joined, x, found, trainable=picked, batch_size=batch_size, meta=notes
    )
    delta = {name.removeprefix("model").removeprefix("/"): x for name, x in moved.delta.items()}
    tau = TaskVector(delta, tree.fingerprint(params0), moved.meta)
    reached = linear_objective(
        f,
        params0,
        tau,
        x,
        labels,
        readout=readout,
        l2=l2,
        batch_size=batch_size,
        method=method,
    )
    optimum = Optimum(tau, reached, "dual", found.iterations or 0, 1)
    if failed is not None:
        failed.solution = optimum
        raise failed
    return optimum


@dataclass(frozen=True)
class _Logits:
    """Features and readout as one model, equal for equal f: heads of one shape share programs."""

    f: Apply

    def __call__(self, params: Params, *inputs: PyTree) -> Array:
        return params["readout"](self.f(params["model"], *inputs))


def _joined(params0: Params, readout: Readout) -> Params:
    return {"model": params0, "readout": as_readout(readout)}


def _picked(params0: Params, trainable: tree.Pattern) -> tuple[str, ...]:
    """The leaves to train by their names in :func:`_joined`."""
    named = (f"model/{n}" if n else "model" for n in tree.select(params0, trainable))
    return tuple(tree.exactly(named))


def _name(readout: Readout) -> str:
    return getattr(readout, "__name__", type(readout).__name__)


def _dual_pays(
    f: Apply,
    params0: Params,
    x: PyTree,
    readout: Readout,
    trainable: tree.Pattern,
    batch_size: int,
    method: taylor.Method,
) -> bool:
    """Whether the kernel is small against memory, and cheaper than Gauss-Newton's passes."""
    inputs = as_arguments(x)
    n = count(inputs)
    joined, picked = _joined(params0, readout), _picked(params0, trainable)
    point = pointwise(_Logits(f), joined, inputs, picked)
    size = n * point.outputs
    free = plan.available_bytes(jax.local_devices(backend="cpu")[0])
    if free is not None and _COPIES * 8 * size**2 > free / 4:
        return False
    task = plan.Computation(
        point=point,
        output="full",
        rule=RULES["sgd"],
        dtype=jnp.dtype(point.dtype),
        n1=n,
        n2=n,
        symmetric=True,
        budget=plan.BUDGET,
    )
    batch = split_batches(inputs, batch_size, balanced=True).items[0]
    tau = tree.zeros(params0, trainable)

    def one_pass(tau: PyTree, args: PyTree) -> PyTree:
        out, pull = jax.vjp(lambda tau: taylor.tangent(f, method=method)(params0, tau, *args), tau)
        return pull(out)

    passes = _PASSES * cost.count_flops(one_pass, tau, batch) * n / count(batch)
    blocks = plan.choose(task, "auto", min(batch_size, n)).total_flops(task)
    return blocks + size**3 / 3 < passes

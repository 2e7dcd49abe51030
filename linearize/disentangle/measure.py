"""Disentanglement error on a grid, in every regime, with as few model passes as exactness allows.

    ξ(α_1, ..., α_T) = Σ_t E_{x∼μ_t} dist( f(x; θ0 + α_t τ_t), f(x; θ0 + Σ_k α_k τ_k) )

(*Task Arithmetic in the Tangent Space*, §4; there T = 2 and dist is argmax disagreement.)
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize import tree
from linearize.choices import one_of
from linearize.disentangle.affine_map import affine_errors
from linearize.disentangle.error_map import ErrorMap
from linearize.disentangle.grid import Grid, reduce
from linearize.disentangle.nonlinear_map import nonlinear_errors, previewed_errors
from linearize.disentangle.passes import Passes
from linearize.evaluate import AffineOutputs, Readout, affine_outputs
from linearize.evaluate.affine import check_taus
from linearize.examples import check_inputs, count
from linearize.objectives.distances import Compare, Distance, as_distance
from linearize.taylor import check_function
from linearize.types import Apply, Params, PyTree

Regime = Literal["nonlinear", "posthoc", "linear"]


def disentanglement_error(
    f: Apply | None,
    params0: Params,
    taus: Sequence[PyTree] | None,
    inputs: Sequence[PyTree] | None,
    *,
    alphas: ArrayLike | Sequence[ArrayLike] | None = None,
    regime: Regime = "nonlinear",
    readouts: Readout | Sequence[Readout] = None,
    distance: str | Distance | Compare = "argmax",
    reduction: Literal["sum", "mean"] = "sum",
    n_eval: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    cached: Sequence[AffineOutputs] | None = None,
    preview: int | None = None,
    progress: bool = False,
) -> ErrorMap:
    """Map the disentanglement error of T ≥ 2 tasks over a grid of their coefficients.

    The affine regimes take T tangents per data set, then algebra. The non-linear one evaluates a
    single-task prediction once per coefficient and a grid point once, reusing the former where all
    other coefficients are 0. Both give what a pass per point gives. A prediction that is not finite
    (displaced too far, say) agrees with none: its distance is the largest there is, NaN for a
    function of one's own.

    Args:
        f: ``f(params, *inputs) -> (B, D)`` features, or logits.
        params0: the base model θ0.
        taus: T task vectors.
        inputs: each task's examples: arrays (N_t, ...); a tuple for a model of several arguments.
        alphas: the grid: one axis for all tasks, or a sequence of T axes, 1-D each. By default 21
            points on [-3, 3], the paper's range.
        regime: ``"nonlinear"`` evaluates f(θ0 + Σ α τ); ``"posthoc"`` and ``"linear"`` evaluate
            f0 + Σ α Jτ, and differ only in how the vectors were trained.
        readouts: each task's features to logits (a function or a head), or one for all; ``None``
            where ``f`` gives logits.
        distance: a row of :data:`DISTANCES`, or a function that JAX can trace,
            ``(logits_a (N, C), logits_b (N, C)) -> (N,)``.
        reduction: ``"sum"`` over the tasks (the paper's) or ``"mean"``.
        n_eval: evaluate on at most this many examples of each task, drawn with ``seed``; see
            :meth:`ErrorMap.interval`. All by default.
        seed: of the draw, and of a preview's held-out points.
        batch_size: examples per pass at most.
        cached: in the affine regimes, each task's :func:`linearize.evaluate.affine_outputs` along
            the T vectors in order; ``f``, ``params0``, ``taus`` and ``inputs`` may then be
            ``None``.
        preview: in the non-linear regime, interpolate the logits between this many Chebyshev
            points a side in place of evaluating each grid point; prints its own error, measured at
            held-out grid points.
        progress: draw a progress bar.

    Returns:
        The map, in float64.

    Raises:
        ValueError: unknown regime, distance or reduction; numbers of tasks that differ; fewer than
            two; axes that are not 1-D and finite; an empty data set; ``n_eval`` below 1.
        StructureMismatch: a task vector does not fit ``params0`` or stems from another base.
        NonFiniteError: NaN or infinity in ``params0``, a task vector, the inputs or cached
            outputs, or in predictions at θ0 (with the task and how many examples).

    >>> import jax.numpy as jnp
    >>> f = lambda params, x: x @ params["w"]
    >>> params0 = {"w": jnp.eye(2)}
    >>> tau_1, tau_2 = {"w": jnp.diag(jnp.array([1.0, 0]))}, {"w": jnp.diag(jnp.array([0, 1.0]))}
    >>> x_1, x_2 = jnp.array([[3.0, 1.7]]), jnp.array([[1.7, 3.0]])
    >>> map = disentanglement_error(f, params0, [tau_1, tau_2], [x_1, x_2], alphas=[0.0, 1.0, 2.0])
    >>> map.total
    array([[0., 1., 1.],
           [1., 0., 0.],
           [1., 0., 0.]])
    """
    one_of("regime", regime, ("nonlinear", "posthoc", "linear"))
    one_of("reduction", reduction, ("sum", "mean"))
    dist = as_distance(distance)
    if regime == "nonlinear" and cached is not None:
        raise ValueError("cached holds affine outputs, which regime='nonlinear' cannot use")
    if regime != "nonlinear" and preview is not None:
        raise ValueError(f"preview={preview} with regime={regime!r}: that map is exact and cheap")
    if preview is not None and preview < 2:
        raise ValueError(f"preview={preview}; interpolation needs 2 points a side or more")
    tasks = _tasks(f, params0, taus, inputs, cached)
    grid = Grid.of(alphas, tasks.number)
    reads = _readouts(readouts, tasks.number)
    rows = [_draw(n, n_eval, seed, t) for t, n in enumerate(tasks.sizes)]
    passes, note = 0, None
    if cached is not None:
        terms = [a if r is None else a.take(r) for a, r in zip(cached, rows, strict=True)]
        for t, term in enumerate(terms):
            term.check_finite(f"cached[{t}]: the outputs")
    else:
        data = [_rows(x, r) for x, r in zip(tasks.inputs, rows, strict=True)]
        for t, x in enumerate(data):
            check_inputs(x, what=f"inputs[{t}]")
    if regime == "nonlinear":
        model = Passes.over(tasks.f, params0, tasks.taus, data, reads, dist, batch_size)
        if preview is None:
            per_task, passes = nonlinear_errors(model, grid, progress)
        else:
            per_task, passes, note = previewed_errors(
                model, grid, preview, reduction, seed, progress
            )
    else:
        if cached is None:
            passes = tasks.number * (1 + 2 * tasks.number)
            terms = [
                _terms(t, tasks.f, params0, tasks.taus, x, batch_size, progress)
                for t, x in enumerate(data)
            ]
        per_task = affine_errors(terms, grid, reads, dist)
    sizes = [n if r is None else len(r) for n, r in zip(tasks.sizes, rows, strict=True)]
    result = ErrorMap(
        alphas=grid.axes,
        per_task=per_task,
        total=reduce(per_task, reduction),
        n=np.array(sizes, np.int64),
        regime=regime,
        distance=dist.name,
        reduction=reduction,
        binary=dist.binary,
        passes=passes,
        preview=note,
    )
    if note is not None:
        print(note)
    return result


def _terms(
    task: int,
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    inputs: PyTree,
    batch_size: int,
    progress: bool,
) -> AffineOutputs:
    try:
        return affine_outputs(f, params0, taus, inputs, batch_size, progress=progress)
    except tree.NonFiniteError as error:
        raise tree.NonFiniteError(f"task {task}: {error}") from error


class _Tasks(NamedTuple):
    f: Apply
    taus: Sequence[PyTree]
    inputs: Sequence[PyTree]
    sizes: tuple[int, ...]

    @property
    def number(self) -> int:
        return len(self.sizes)


def _tasks(
    f: Apply | None,
    params0: Params,
    taus: Sequence[PyTree] | None,
    inputs: Sequence[PyTree] | None,
    cached: Sequence[AffineOutputs] | None,
) -> _Tasks:
    """What is mapped, checked.

    Raises:
        ValueError: fewer than two tasks, numbers that differ, or an empty data set.
        StructureMismatch: a task vector does not fit ``params0``.
    """
    if cached is not None:
        given = {"cached": len(cached)}
        given |= {f"cached[{t}] task vectors": len(a.jvps) for t, a in enumerate(cached)}
        given |= {"taus": len(taus)} if taus is not None else {}
        sizes = tuple(len(a.f0) for a in cached)
    else:
        if f is None or taus is None or inputs is None:
            raise ValueError("f, taus and inputs are needed where no cached outputs are given")
        check_function(f)
        given = {"taus": len(taus), "inputs": len(inputs)}
        sizes = tuple(count(x) for x in inputs)
        check_taus(params0, taus)
    if len(set(given.values())) != 1:
        raise ValueError(f"numbers of tasks differ: {given}")
    if len(sizes) < 2:
        raise ValueError(f"{len(sizes)} task(s) given; disentanglement is between 2 or more")
    if 0 in sizes:
        raise ValueError(f"numbers of examples are {sizes}; give at least one of each task")
    return _Tasks(f or _no_model, taus or (), inputs or (), sizes)


def _no_model(*_: PyTree) -> PyTree:
    raise AssertionError("cached outputs need no model")


def _readouts(readouts: Readout | Sequence[Readout], n_tasks: int) -> list[Readout]:
    if not isinstance(readouts, Sequence):
        return [readouts] * n_tasks
    if len(readouts) != n_tasks:
        raise ValueError(f"readouts has {len(readouts)} entries for {n_tasks} tasks")
    return list(readouts)


def _draw(n: int, n_eval: int | None, seed: int, task: int) -> np.ndarray | None:
    """Rows to evaluate, in order; ``None`` for all."""
    if n_eval is not None and n_eval < 1:
        raise ValueError(f"n_eval={n_eval}; evaluate at least one example, or None for all")
    if n_eval is None or n_eval >= n:
        return None
    return np.sort(np.random.default_rng([seed, task]).permutation(n)[:n_eval])


def _rows(inputs: PyTree, rows: np.ndarray | None) -> PyTree:
    return inputs if rows is None else jax.tree.map(lambda x: x[rows], inputs)

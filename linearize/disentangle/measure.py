"""Disentanglement error on a grid, in every view, with as few model passes as exactness allows.

    ξ(α_1, ..., α_T) = Σ_t E_{x∼μ_t} dist( f(x; θ0 + α_t τ_t), f(x; θ0 + Σ_k α_k τ_k) )

(*Task Arithmetic in the Tangent Space*, §4; there T = 2 and dist is argmax disagreement.) The
distance is the task's objective's, under its targets: a mean over what these ask for.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize import fields
from linearize.choices import one_of
from linearize.current import current
from linearize.disentangle.affine_map import Pieces, affine_sums
from linearize.disentangle.compared import Compared
from linearize.disentangle.error_map import ErrorMap
from linearize.disentangle.grid import CoefficientGrid, reduce
from linearize.disentangle.nonlinear_map import nonlinear_sums, previewed_sums
from linearize.disentangle.passes import Passes
from linearize.evaluate import AffineOutputs, Readout
from linearize.evaluate.affine import check_one_array, check_taus, stack
from linearize.evaluate.batches import Batches, output_shapes, split_batches
from linearize.evaluate.stream import streamed_terms
from linearize.evaluate.view import view_of
from linearize.examples import check_inputs, count
from linearize.objectives import Classify, Objective, Targets
from linearize.objectives.distances import Compare, Distance, as_distance, together
from linearize.taylor import check_function
from linearize.types import Apply, Params, PyTree


def disentanglement_error(
    f: Apply | None,
    params0: Params,
    taus: Sequence[PyTree] | None,
    inputs: Sequence[PyTree] | None,
    *,
    alphas: ArrayLike | Sequence[ArrayLike] | None = None,
    regime: str = "nonlinear",
    readouts: Readout | Sequence[Readout] = None,
    distance: str | Distance | Compare = "argmax",
    objectives: Objective | Sequence[Objective] | None = None,
    targets: Sequence[Targets] | None = None,
    reduction: Literal["sum", "mean"] = "sum",
    n_eval: int | None = None,
    seed: int = 0,
    batch_size: int = 256,
    cached: Sequence[AffineOutputs] | None = None,
    preview: int | None = None,
    progress: bool = False,
) -> ErrorMap:
    """Map the disentanglement error of T ≥ 2 tasks over a grid of their coefficients.

    The affine regimes take T tangents per batch, then algebra while it is there. The non-linear one
    evaluates a single-task prediction once per coefficient and a grid point once, reusing the
    former where all other coefficients are 0. Both give what a pass per point gives. A prediction
    that is not finite (displaced too far, say) agrees with none: its distance is the largest there
    is, NaN for a function of one's own. What is kept of predictions at a time is bounded: where it
    is a distribution over a vocabulary, one batch is compared after the other.

    Args:
        f: ``f(params, *inputs) -> (B, ...)`` features, or logits.
        params0: the base model θ0.
        taus: T task vectors.
        inputs: each task's examples: arrays (N_t, ...); a tuple for a model of several arguments.
        alphas: the grid: one axis for all tasks, or a sequence of T axes, 1-D each. By default 25
            points on [-3, 3], the paper's range.
        regime: ``"nonlinear"`` evaluates f(θ0 + Σ α τ); ``"posthoc"`` and ``"linear"`` evaluate
            f0 + Σ α Jτ, and differ only in how the vectors were trained. Or the name of a view.
        readouts: each task's features to logits (a function or a head), or one for all; ``None``
            where ``f`` gives logits.
        distance: a row of :data:`linearize.disentangle.DISTANCES`, or a function that JAX can
            trace, ``(logits_a (N, C), logits_b (N, C)) -> (N,)``.
        objectives: in place of ``readouts`` and ``distance``, each task's objective, or one for
            all: what it keeps of predictions is as far apart as it says, and an example counts as
            much as it says (of a language model, each token that is asked for alike).
        targets: of these, each task's targets by role, (N_t, ...).
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
            two; axes that are not 1-D and finite; an empty data set; ``n_eval`` below 1 or
            ``preview`` below 2, a ``seed`` below 0, or no whole number; targets
            that do not fit, or ask for nothing; distances of different units; outputs that are not
            one array.
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
    view = view_of(regime)
    one_of("reduction", reduction, ("sum", "mean"))
    fields.integer("seed", seed, low=0)
    if n_eval is not None:
        fields.integer("n_eval", n_eval, low=1)
    if view.passes and cached is not None:
        raise ValueError(f"cached holds affine outputs, which regime={regime!r} cannot use")
    if not view.passes and preview is not None:
        raise ValueError(f"preview={preview} with regime={regime!r}: that map is exact and cheap")
    if preview is not None:
        fields.integer("preview", preview, low=2)
    sizes = _sizes(f, params0, taus, inputs, cached)
    grid = CoefficientGrid.of(alphas, len(sizes))
    objectives = _objectives(objectives, targets, readouts, distance, len(sizes))
    names = together([objective.distance for objective in objectives])
    rows = [_draw(n, n_eval, seed, t) for t, n in enumerate(sizes)]
    given = list(fields.each("targets", {} if targets is None else targets, len(sizes)))
    for t, (roles, n) in enumerate(zip(given, sizes, strict=True)):
        if not isinstance(roles, Mapping):
            raise ValueError(
                f"targets[{t}] is a {type(roles).__name__}; expected arrays by role, such as "
                "{'labels': y}"
            )
        if roles and (found := count(roles, f"targets[{t}]")) != n:
            raise ValueError(f"targets[{t}] are of {found} examples, the inputs of {n}")
    given = [_rows(dict(roles), r) for roles, r in zip(given, rows, strict=True)]
    passes, note = 0, None
    if cached is not None:
        terms = [a if r is None else a.take(r) for a, r in zip(cached, rows, strict=True)]
        for t, term in enumerate(terms):
            term.check_finite(f"cached[{t}]: the outputs")
        outputs = [term.f0 for term in terms]
        tasks = list(map(Compared.of, objectives, given, outputs, range(len(sizes))))
        sums = affine_sums(list(map(Pieces.whole, terms, tasks)), grid)
    else:
        assert f is not None
        assert inputs is not None
        data = [_rows(x, r) for x, r in zip(inputs, rows, strict=True)]
        for t, x in enumerate(data):
            check_inputs(x, what=f"inputs[{t}]")
        batches = [split_batches(x, batch_size, balanced=view.passes) for x in data]
        f, stacked = current(f, params0, *batches[0].items[0]), stack(params0, taus or ())
        shapes = [output_shapes(f, params0, b) for b in batches]
        tasks = list(map(Compared.of, objectives, given, shapes, range(len(sizes))))
        if not view.passes:
            check_one_array(shapes[0])
            passes = len(sizes) * (1 + 2 * len(sizes))

            def pieces(batches: Batches, parts: Sequence[Compared]) -> Pieces:
                def of(numbers: Sequence[int]) -> Iterator[tuple[AffineOutputs, Compared]]:
                    terms = streamed_terms(f, params0, stacked, batches, numbers, progress)
                    for b in numbers:
                        yield next(terms), parts[b]  # zip would hold the last one

                return Pieces(len(parts), of)

            cut = [pieces(b, task.batches(b)) for b, task in zip(batches, tasks, strict=True)]
            sums = affine_sums(cut, grid)
        else:
            models = [
                Passes.over(f, params0, stacked, t, b, task)
                for t, (b, task) in enumerate(zip(batches, tasks, strict=True))
            ]
            if preview is None:
                sums, passes = nonlinear_sums(models, grid, progress)
            else:
                how = (preview, reduction, seed, progress)
                sums, passes, note = previewed_sums(models, grid, *how)
    per_task = sums / np.array([task.total for task in tasks])[:, None]
    per_task = per_task.reshape(-1, *grid.shape)
    result = ErrorMap(
        alphas=grid.axes,
        per_task=per_task,
        total=reduce(per_task, reduction),
        n=np.array([len(task.counts) for task in tasks], np.int64),
        regime=regime,
        distance=names.name,
        reduction=reduction,
        # a mean over positions, or of examples that do not all count alike, is no proportion of n
        binary=names.binary and all((task.counts == 1).all() for task in tasks),
        passes=passes,
        preview=note,
    )
    if note is not None:
        print(note)
    return result


def _sizes(
    f: Apply | None,
    params0: Params,
    taus: Sequence[PyTree] | None,
    inputs: Sequence[PyTree] | None,
    cached: Sequence[AffineOutputs] | None,
) -> tuple[int, ...]:
    """Numbers of examples, of what fits together.

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
    return sizes


def _objectives(
    objectives: Objective | Sequence[Objective] | None,
    targets: Sequence[Targets] | None,
    readouts: Readout | Sequence[Readout],
    distance: str | Distance | Compare,
    n_tasks: int,
) -> list[Objective]:
    """Each task's; of readouts and a distance, classification, of which no label is asked."""
    if (objectives is None) != (targets is None):
        raise ValueError("objectives and targets belong together; give both, or readouts alone")
    if objectives is None:
        measured = as_distance(distance)
        reads = fields.each("readouts", readouts, n_tasks)
        return [Classify(readout, distance=measured) for readout in reads]
    if readouts is not None or distance != "argmax":
        raise ValueError("objectives say what is compared, and how; leave out readouts, distance")
    found = fields.each("objectives", objectives, n_tasks)
    for t, objective in enumerate(found):
        if not isinstance(objective, Objective):
            raise ValueError(
                f"objectives[{t}] is {objective!r}; expected an Objective, such as CausalLM()"
            )
    return found


def _draw(n: int, n_eval: int | None, seed: int, task: int) -> np.ndarray | None:
    """Rows to evaluate, in order; ``None`` for all."""
    if n_eval is None or n_eval >= n:
        return None
    return np.sort(np.random.default_rng([seed, task]).permutation(n)[:n_eval])


def _rows(arrays: PyTree, rows: np.ndarray | None) -> PyTree:
    return arrays if rows is None else jax.tree.map(lambda x: x[rows], arrays)

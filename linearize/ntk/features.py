"""Whether gradients stay where they were: the second condition of kernel behaviour, directly."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linearize import tree
from linearize.agreement import agree
from linearize.compiled import jit
from linearize.examples import as_arguments, count
from linearize.fields import integer
from linearize.ntk.behavior import FixedFeatures
from linearize.ntk.jacobian import merged
from linearize.ntk.layers import trace_tables
from linearize.ntk.pointwise import Inputs, Pointwise, pointwise
from linearize.ntk.programs import remembered
from linearize.ntk.second_way import dot, draw, norm, row
from linearize.renamed import renamed
from linearize.types import Apply, Array, Params, PyTree


@renamed(params_filter="trainable")
def feature_change(
    f: Apply,
    params_t: Params,
    params_0: Params,
    x: PyTree,
    *,
    trainable: tree.Pattern = None,
    batch_size: int = 4,
) -> FixedFeatures:
    """‖∇f_c(x; θ_t) − ∇f_c(x; θ0)‖ / ‖∇f_c(x; θ0)‖ for each example x and output c.

    Condition 2 of kernel behaviour (*A Kernel-Based View of Language Model Fine-Tuning*,
    Definition 3.2: ∇f(ξ; θ_t) ≈ ∇f(ξ; θ0)). Gradients are subtracted before they are squared, so
    that small changes keep their digits; :func:`linearize.ntk.fixed_features` gets along with
    kernels instead. Two reverse passes an example and output, and two gradients held for each of
    ``batch_size`` of them; of a table of which rows are looked up, those rows'.

    Args:
        f: the model, ``f(params, *inputs) -> outputs``.
        params_t: the parameters now.
        params_0: those they began from.
        x: N examples: an array, or a tuple of arrays for a model of several arguments.
        trainable: which leaves gradients are taken in (:func:`linearize.tree.select`).
        batch_size: gradients taken together.

    Raises:
        ValueError: as :func:`linearize.ntk.kernel`; an output whose gradient at θ0 is zero or not
            finite on some example.
        StructureMismatch: the two trees differ in names or shapes.
        DisagreementError: a sampled example's numbers are others by its own reverse passes.

    >>> f = lambda params, x: x @ params["w"] ** 2
    >>> old, new = {"w": jnp.ones((1, 1))}, {"w": 1.5 * jnp.ones((1, 1))}
    >>> feature_change(f, new, old, jnp.array([[2.0]])).per_point.tolist()  # d(w²) = 2 w
    [[0.5]]
    """
    tree.check_match(params_0, params_t, what="params_t")
    batch_size = integer("batch_size", batch_size, low=1)
    inputs = jax.tree.map(jnp.asarray, as_arguments(x))
    point = pointwise(f, params_0, inputs, trainable)
    both, seen = remembered(
        ("feature_change", point.key, batch_size, count(inputs)),
        lambda: (jit(partial(_squares, point, at_once=batch_size)), set[bool]()),
    )
    moved, before = both(params_t, params_0, inputs)
    squares, start = np.asarray(moved, np.float64), np.asarray(before, np.float64)
    if not seen:
        _check(point, params_t, params_0, inputs, squares, start)
        seen.add(True)
    bad = np.argwhere(~np.isfinite(squares) | ~(start > 0) | ~np.isfinite(start))
    if len(bad):
        n, c = bad[0]
        raise ValueError(
            f"the gradient of output {c} of example {n} is zero or not finite ({start[n, c]:.3g} "
            f"squared at θ0), as in {len(bad)} of {start.size} cases; no change is relative to "
            "it: leave such examples out, or check trainable"
        )
    per_point = np.sqrt(squares / start)
    return FixedFeatures(float(per_point.mean()), per_point)


def _check(
    point: Pointwise,
    params_t: Params,
    params_0: Params,
    inputs: Inputs,
    squares: np.ndarray,
    start: np.ndarray,
) -> None:
    """Both numbers of one example and output, by its own reverse passes."""
    n, c = (int(k) for k in draw(*start.shape, many=1)[0])
    then, now = (row(point, p, inputs, n, np.eye(point.outputs)[c]) for p in (params_0, params_t))
    gap = {name: now[name] - then[name] for name in then}
    for what, found, expected, scale in (
        ("‖∇f(θ0)‖²", start[n, c], dot(then, then), dot(then, then)),
        # each gradient is rounded before they are subtracted
        ("‖∇f(θt) − ∇f(θ0)‖²", squares[n, c], dot(gap, gap), (norm(now) + norm(then)) ** 2),
    ):
        agree(
            found,
            expected,
            scale=scale,
            dtypes=(point.narrowest, point.dtype),
            terms=sum(point.sizes.values()),
            what=f"{what} of feature_change",
            entry=f"of example {n}, output {c}",
        )


def _squares(
    point: Pointwise, params_t: Params, params_0: Params, inputs: Inputs, at_once: int
) -> tuple[Array, Array]:
    """‖∇_t − ∇_0‖² and ‖∇_0‖², (N, C) each."""
    traced = trace_tables(point)
    looked_up: dict[str, list[str]] = {}
    for key, layer in traced.layers.items():
        looked_up.setdefault(layer.weight, []).append(key)

    def gradient(params: Params, example: Inputs, e: Array) -> dict[str, Array]:
        named = point.pick(params)
        zeros = {
            key: jnp.zeros((k.positions, k.outer), point.dtype) for key, k in traced.layers.items()
        }

        def output(moving: dict[str, Array], zeros: dict[str, Array]) -> tuple[Array, Any]:
            found, rows = (
                traced(params, {**named, **moving}, example, zeros)
                if zeros
                else (point(params, moving, example), {})
            )
            return jnp.vdot(found, e, precision=lax.Precision.HIGHEST), rows

        whole = {n: leaf for n, leaf in named.items() if n not in looked_up}
        (found, slopes), rows = jax.grad(output, argnums=(0, 1), has_aux=True)(whole, zeros)
        for name, keys in looked_up.items():
            met, slope = (jnp.concatenate([x[key] for key in keys]) for x in (rows, slopes))
            found[name] = merged(met, slope[None])[0]
        return found

    def one(example_and_output: tuple[Inputs, Array]) -> tuple[Array, Array]:
        then, now = (gradient(p, *example_and_output) for p in (params_0, params_t))
        gaps = jax.tree.map(jnp.subtract, now, then)
        moved, norm = (
            sum(jnp.sum(jnp.square(leaf.astype(point.dtype))) for leaf in jax.tree.leaves(g))
            for g in (gaps, then)
        )
        return jnp.asarray(moved), jnp.asarray(norm)

    n, C = jax.tree.leaves(inputs)[0].shape[0], point.outputs
    every = jax.tree.map(lambda a: jnp.repeat(a, C, axis=0), inputs)
    units = jnp.tile(jnp.eye(C, dtype=point.dtype), (n, 1))
    found = lax.map(one, (every, units), batch_size=at_once)
    return found[0].reshape(n, C), found[1].reshape(n, C)

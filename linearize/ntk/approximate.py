"""Cheaper kernels that are not exact, and how far off each is.

The *pNTK* differentiates the sum of an example's outputs once in place of every output
(Mohamadi et al. 2023, *A Fast, Well-Founded Approximation to the Empirical NTK*); the *sketch*
keeps a count sketch of each Jacobian row. Both say how far they are from exact entries.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from linearize import fields, tree
from linearize.choices import one_of
from linearize.compiled import jit
from linearize.examples import as_arguments, count
from linearize.fields import integer
from linearize.ntk.contract import LAYOUTS, Output, contract
from linearize.ntk.jacobian import over_examples
from linearize.ntk.kernel import kernel
from linearize.ntk.pointwise import Inputs, Pointwise, pointwise
from linearize.ntk.provenance import note_trace
from linearize.ntk.second_way import check_vector, draw
from linearize.renamed import renamed
from linearize.types import Apply, Array, Params, PyTree

_AT_ONCE = 16


@dataclass(frozen=True)
class Approximation:
    """An approximate kernel and its error.

    Attributes:
        kernel: (N1, N2, ...) in the layout asked for.
        error: ‖approximate − exact‖ / ‖exact‖ (Frobenius) on the checked entries; 0 where both are
            zero.
        correlation: of approximate with exact entries there; NaN where one of them does not vary.
        checked: rows of both sides whose exact entries were computed, drawn with the seed.
    """

    kernel: np.ndarray
    error: float
    correlation: float
    checked: tuple[np.ndarray, np.ndarray]


@renamed(params_filter="trainable")
def approximate_kernel(
    f: Apply,
    params: Params,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    method: Literal["pntk", "sketch"] = "pntk",
    output: Output = "trace",
    size: int = 1024,
    seed: int = 0,
    checked: int = 8,
    trainable: tree.Pattern = None,
) -> Approximation:
    """An approximate empirical NTK, with its error on a random part that is computed exactly.

    Args:
        f: ``f(params, *inputs) -> outputs``, as for :func:`linearize.ntk.kernel`.
        params: the point θ.
        x1: N1 examples.
        x2: N2 examples; by default ``x1``.
        method: ``"pntk"``: ⟨∇ Σ_c f_c, ∇ Σ_c f_c'⟩, which leaves out nothing but adds the cross
            terms of different outputs, and approximates the trace (or mean) only; one reverse pass
            an example. ``"sketch"``: inner products of count sketches of ``size`` numbers a row,
            unbiased, relative error about 1/√size of the norms; any layout, one reverse pass an
            output.
        output: layout of the kernel; ``"trace"`` is the plain sum over outputs, ``"mean"`` that
            divided by their number.
        size: k, numbers kept of each row in a sketch.
        seed: of the sketch's hash and signs, and of the checked rows.
        checked: rows a side to compare with exact entries.
        trainable: which leaves derivatives are taken in.

    Raises:
        ValueError: an unknown method or layout, ``size`` or ``checked`` below 1; otherwise as
            :func:`linearize.ntk.kernel`.

    >>> f = lambda params, x: x @ params["w"]
    >>> x = np.eye(3, dtype=np.float32)
    >>> found = approximate_kernel(f, {"w": jnp.ones((3, 2))}, x)
    >>> found.kernel.tolist(), round(found.error, 3)  # outputs share no weight: exact here
    ([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]], 0.0)
    """
    one_of("method", method, FEATURES)
    one_of("output", output, LAYOUTS)
    if method == "pntk" and output not in ("trace", "mean"):
        raise ValueError(
            f"output={output!r}: the pNTK is a kernel of the summed outputs and "
            "approximates output='trace' or 'mean' only; use method='sketch'"
        )
    if integer("size", size) < 1:
        raise ValueError(f"size={size}; a sketch keeps 1 number or more")
    integer("checked", checked, low=1)
    seed = fields.seed("seed", seed)
    left = as_arguments(x1)
    right = left if x2 is None else as_arguments(x2)
    point = pointwise(f, params, left, trainable)
    features = FEATURES[method](point, size)

    @jit
    def all_features(params: Params, inputs: Inputs, key: Array) -> Array:
        return over_examples(partial(features, params, key), inputs, _AT_ONCE)

    key = jax.random.key(seed)
    rows1 = all_features(params, jax.tree.map(jnp.asarray, left), key)
    rows2 = rows1 if x2 is None else all_features(params, jax.tree.map(jnp.asarray, right), key)
    _check(point, params, left, features, key, np.asarray(rows1))
    found = np.asarray(contract(rows1, rows2, "trace" if output == "mean" else output))
    found = found / point.outputs if output == "mean" else found
    rng = np.random.default_rng(seed)
    picked = [np.sort(rng.permutation(n)[: min(n, checked)]) for n in (count(left), count(right))]
    exact = kernel(
        f,
        params,
        *(
            jax.tree.map(lambda x, p=p: x[p], side)
            for side, p in zip((left, right), picked, strict=True)
        ),
        output=output,
        trainable=trainable,
    )
    part = found[np.ix_(*picked)]
    return Approximation(
        kernel=note_trace(found, point.outputs) if output == "trace" else found,
        error=_relative(part, exact),
        correlation=_correlation(part, exact),
        checked=(picked[0], picked[1]),
    )


def _relative(part: np.ndarray, exact: np.ndarray) -> float:
    apart, size = float(np.linalg.norm(part - exact)), float(np.linalg.norm(exact))
    return apart / size if size else math.inf if apart else 0.0


def _correlation(part: np.ndarray, exact: np.ndarray) -> float:
    if np.ptp(part) == 0 or np.ptp(exact) == 0:
        return math.nan
    return float(np.corrcoef(part.ravel(), exact.ravel())[0, 1])


def _check(
    point: Pointwise,
    params: Params,
    inputs: Inputs,
    features: "Features",
    key: Array,
    rows: np.ndarray,
) -> None:
    """The rows of one example, computed alone; the kernel made of them meets exact entries."""
    n = int(draw(len(rows), many=1)[0, 0])
    alone = jit(features)(params, key, jax.tree.map(lambda x: jnp.asarray(x[n]), inputs))
    expected = {"rows": np.asarray(alone, np.float64)}
    what = "the norm of an example's rows, with their error, in approximate_kernel"
    check_vector({"rows": rows[n]}, expected, point, what, f"of example {n}")


Features = Callable[[Params, Array, Inputs], Array]
"""``features(params, key, example)``: the rows (C or 1, k) that stand in for a Jacobian."""


def pntk_features(point: Pointwise, size: int) -> Features:
    """The gradient of the sum of the outputs, one row; ``size`` and the key decide nothing."""

    def features(params: Params, key: Array, example: Inputs) -> Array:
        total = jax.grad(lambda named: point(params, named, example).sum())(point.pick(params))
        return jnp.concatenate([g.astype(point.dtype).ravel() for g in total.values()])[None]

    return features


def sketch_features(point: Pointwise, size: int) -> Features:
    """Each output's row of the Jacobian, its entries added with random signs into random places."""

    def features(params: Params, key: Array, example: Inputs) -> Array:
        named = point.pick(params)
        rows = jax.jacrev(lambda named: point(params, named, example))(named)
        total = jnp.zeros((point.outputs, size), point.dtype)
        for name, own in zip(rows, jax.random.split(key, len(rows)), strict=True):
            flat = rows[name].reshape(point.outputs, -1).astype(point.dtype)
            place, sign = jax.random.split(own)
            bucket = jax.random.randint(place, flat.shape[1:], 0, size)
            signed = flat * jax.random.rademacher(sign, flat.shape[1:], flat.dtype)[None]
            total = total.at[:, bucket].add(signed)
        return total

    return features


FEATURES: dict[str, Callable[[Pointwise, int], Features]] = {
    "pntk": pntk_features,
    "sketch": sketch_features,
}
"""Approximate derivatives of one example, by method."""

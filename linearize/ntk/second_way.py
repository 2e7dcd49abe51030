"""Jacobian rows of single examples, multiplied in float64 on the host: what kernels are held to.

One program for each model, ``(params, example, e) -> Jᵀ e``: no batch, no contraction, no loop.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize.agreement import SEED, agree
from linearize.compiled import jit
from linearize.ntk.jacobian import Rule, identity
from linearize.ntk.pointwise import Inputs, Pointwise
from linearize.ntk.programs import remembered
from linearize.types import Array, Params

JacobianRow = dict[str, np.ndarray]
"""A displacement of the picked leaves, float64."""

_ENTRIES = 3
_MANY = 64
_ROUNDED = 0.01


def draw(*sides: int, many: int = _ENTRIES, key: tuple[int, ...] = ()) -> np.ndarray:
    """Places in an array of these sides, (many, sides): the same at every call."""
    rng = np.random.default_rng((SEED, *key))
    return np.stack([rng.integers(0, side, many) for side in sides], axis=1)


def signs(outputs: int) -> np.ndarray:
    """A cotangent (C,) of random signs."""
    return np.random.default_rng(SEED).choice([-1.0, 1.0], outputs)


def row(point: Pointwise, params: Params, inputs: Inputs, n: int, e: ArrayLike) -> JacobianRow:
    """``J(x_n)ᵀ e`` of one example, by its own reverse pass."""
    pull = remembered(("row", point.key), lambda: jit(partial(_pull, point)))
    example = jax.tree.map(lambda x: jnp.asarray(x[n]), inputs)
    found = pull(params, example, jnp.asarray(e, point.dtype))
    return {name: np.asarray(leaf).astype(np.float64) for name, leaf in found.items()}


def _pull(point: Pointwise, params: Params, example: Inputs, e: Array) -> dict[str, Array]:
    out, pull = jax.vjp(lambda named: point(params, named, example), point.pick(params))
    return pull(e.astype(out.dtype))[0]


def dot(a: JacobianRow, b: JacobianRow) -> float:
    """Inner product over all leaves."""
    return float(sum(np.vdot(a[name], b[name]) for name in a))


def norm(a: JacobianRow) -> float:
    """Euclidean norm over all leaves."""
    return dot(a, a) ** 0.5


def check_block(
    point: Pointwise,
    params: Params,
    sides: tuple[Inputs, Inputs],
    starts: tuple[int, int],
    block: np.ndarray,
    *,
    output: str,
    rule: Rule,
    what: str,
    places: np.ndarray | None = None,
) -> None:
    """A few entries of a block of the kernel.

    Args:
        point: the model.
        params: θ.
        sides: both sides' examples.
        starts: where the block begins on each.
        block: (n1, n2, ...) in the layout ``output``.
        output: the layout.
        rule: what derivatives pass through.
        what: for the message.
        places: entries of the block, (k, block.ndim); some are drawn by default.

    Raises:
        DisagreementError: one is another number by the second way.
    """
    C = point.outputs
    summed = output in ("trace", "mean")
    if places is None:
        places = draw(*block.shape, many=1 if summed and C > _MANY else _ENTRIES, key=starts)
    for place in places:
        i, j = (int(k) + start for k, start in zip(place[:2], starts, strict=True))
        outputs = [(c, c) for c in range(C)] if summed else [(int(place[2]), int(place[-1]))]
        expected = scale = slack = 0.0
        for c, d in outputs:
            left, right = (
                row(point, params, side, n, np.eye(C)[k])
                for side, n, k in ((sides[0], i, c), (sides[1], j, d))
            )
            terms = [_terms(left[name], right[name], rule) for name in left]
            expected += sum(t[0] for t in terms)
            scale += sum(t[1] for t in terms) ** 0.5 * sum(t[2] for t in terms) ** 0.5
            slack += sum(t[3] for t in terms)
        share = 1 / C if output == "mean" else 1.0
        agree(
            block[tuple(place)],
            expected * share,
            scale=scale * share,
            dtypes=(point.narrowest, block.dtype),
            terms=sum(point.sizes.values()) * len(outputs),
            what=what,
            entry=str((i, j, *(int(k) for k in place[2:]))),
            slack=slack * share,
        )


def _terms(left: np.ndarray, right: np.ndarray, rule: Rule) -> tuple[float, float, float, float]:
    """⟨l, r⟩, ‖l‖², ‖r‖² of a leaf's transformed derivatives, and what uncertain signs may add."""
    l, r = (
        side if t is identity else np.asarray(t(jnp.asarray(side, jnp.float32)), np.float64)
        for t, side in zip(rule, (left, right), strict=True)
    )
    unsure = 0.0
    for transform, side, other in zip(rule, (left, right), (r, l), strict=True):
        if transform is not identity:  # what rounding leaves of a zero has any sign
            near = np.abs(side) <= _ROUNDED * np.abs(side).max(initial=0)
            unsure += 2 * float(np.abs(other[near]).sum())
    return float(np.vdot(l, r)), float(np.vdot(l, l)), float(np.vdot(r, r)), unsure


def check_vector(
    found: JacobianRow,
    expected: JacobianRow,
    point: Pointwise,
    what: str,
    entry: str,
    scale: float = 0.0,
) -> None:
    """Two displacements of the same leaves, by the norm of their difference.

    ``scale`` is the size of what was summed, where that is more than the sum.

    Raises:
        DisagreementError: they differ by more than rounding.
    """
    size = norm(expected)
    gap = norm({name: np.asarray(found[name], np.float64) - e for name, e in expected.items()})
    agree(
        size + gap,
        size,
        scale=max(size, scale),
        dtypes=(point.narrowest, point.dtype),
        terms=sum(point.sizes.values()),
        what=what,
        entry=entry,
    )

"""From a solution in function space back to weights."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import tree
from linearize.compiled import Program, jit
from linearize.examples import as_arguments, count
from linearize.ntk.pointwise import Pointwise, pointwise
from linearize.ntk.products import pull
from linearize.ntk.programs import remembered
from linearize.ntk.provenance import warn_of_steps
from linearize.ntk.regression import Dual
from linearize.ntk.second_way import check_vector, draw, norm, row
from linearize.renamed import renamed
from linearize.task_vector import TaskVector
from linearize.types import Apply, Params, PyTree


@renamed(params_filter="trainable")
def to_task_vector(
    f: Apply,
    params0: Params,
    x: PyTree,
    coefficients: ArrayLike | Dual,
    *,
    trainable: tree.Pattern = None,
    batch_size: int = 64,
    meta: Mapping[str, Any] | None = None,
) -> TaskVector:
    """The task vector of a dual solution: ``τ = −J(X)ᵀ c``, in one reverse pass over the data.

    The linear regime at θ0 + τ then gives what the dual predicts, ``f0(x) − K(x, X) c`` with the
    full kernel, for every x: a solution of kernel regression is a linearized fine-tuning, reached
    without steps. One on a kernel that outputs share predicts that as far as they do share it.

    Args:
        f: the model, ``f(params, *inputs) -> outputs``.
        params0: θ0, the point of the kernel.
        x: the N training examples of the kernel, in its order.
        coefficients: a solution from :func:`linearize.ntk.regression`, ``cross_entropy`` or
            ``fit``; or its c (N, C).
        trainable: the one the kernel was taken with.
        batch_size: examples per pass.
        meta: what else to remember of the vector's making.

    Returns:
        A task vector of regime ``"linear"``, in float32 or wider.

    Raises:
        ValueError: ``coefficients`` are not (N, C), or not finite; a solution with an intercept or
            another scale of f0 than 1, which no displacement of weights gives.
        DisagreementError: one example's share of τ is another by its own reverse pass, or τ
            depends on the examples' order. The first call so takes three passes.

    A solution on a trace kernel of several outputs gives a
    :class:`linearize.ntk.provenance.TraceKernelWarning`.

    >>> f = lambda params, x: x @ params["w"]
    >>> params, x = {"w": jnp.zeros((2, 1))}, jnp.array([[1.0, 0.0], [0.0, 2.0]])
    >>> to_task_vector(f, params, x, [[-3.0], [1.0]]).delta["w"].ravel().tolist()
    [3.0, -2.0]
    """
    if isinstance(coefficients, Dual):
        if coefficients.intercept is not None or coefficients.f0_scale != 1:
            raise ValueError(
                f"the solution has intercept={coefficients.intercept} and f0_scale="
                f"{coefficients.f0_scale}, which no task vector can carry: f0 + Jτ has neither; "
                "solve by regression or cross_entropy with f0_scale=1"
            )
        warn_of_steps(coefficients.traced)
        coefficients = coefficients.coefficients
    inputs = as_arguments(x)
    point = pointwise(f, params0, inputs, trainable)
    c = jnp.asarray(coefficients, point.dtype)
    if c.shape != (count(inputs), point.outputs):
        raise ValueError(
            f"coefficients have shape {c.shape}; expected ({count(inputs)}, {point.outputs}): a "
            "row per training example and a column per output"
        )
    if not bool(jnp.isfinite(c).all()):
        raise ValueError("coefficients hold NaN or infinity; solve again, with a ridge")
    arrays = jax.tree.map(jnp.asarray, inputs)
    run, seen = remembered(("pull", point.key, batch_size, c.shape), lambda: _program(point))
    if not seen:
        sizes = np.linalg.norm(np.asarray(c, np.float64), axis=1)
        drawn = int(draw(len(c), many=1)[0, 0])
        n = drawn if sizes[drawn] else int(sizes.argmax())
        alone, share = jnp.zeros_like(c).at[n].set(-c[n]), row(point, params0, arrays, n, -c[n])
        what = "the norm of a task vector −J(X)ᵀ c, with its error"
        one = run(params0, arrays, alone, at_once=batch_size)
        check_vector(one, share, point, what, f"of example {n} alone")
    moved = run(params0, arrays, -c, at_once=batch_size)
    if not seen:
        rolled, turned = jax.tree.map(lambda a: jnp.roll(a, len(c) // 2, axis=0), (arrays, -c))
        again = run(params0, rolled, turned, at_once=batch_size)
        summed = norm(share) * sizes.sum() / max(sizes[n], np.finfo(np.float64).tiny)
        check_vector(moved, again, point, what, "begun in the middle of the examples", summed)
        seen.append(True)
    return TaskVector(
        point.join(moved), tree.fingerprint(params0), {"regime": "linear", **(meta or {})}
    )


def _program(point: Pointwise) -> tuple[Program, list[bool]]:
    """The compiled pass, and whether it was checked: empty until then."""
    return jit(partial(pull, point), static_argnames="at_once"), []

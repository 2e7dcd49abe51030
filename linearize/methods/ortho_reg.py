"""OrthoReg: the update of each weight matrix is kept near an orthonormal one.

The loss of fine-tuning gets λ Σ ‖ΔWᵀΔW − 1‖², over the weight matrices (Frobenius norm). The paper
fine-tunes the attention matrices alone, with λ between 0.1 and 100, chosen on validation data, and
the best α: 80.9 % of B/32's eight tasks added, beside 78.1 % without the penalty.

It is a norm control in disguise. Its gradient is 4 (ΔW ΔWᵀ ΔW − ΔW): 0 at ΔW = 0, away from which
it drives each singular value towards 1, whatever the data say. So normalized accuracy compares
vectors whose lengths λ has set. The gradient is the same for ΔW and for its transpose, whose
penalties differ by a constant; the smaller of the two products is formed.
"""

import re
from functools import cache, partial
from math import prod
from typing import Any

import jax.numpy as jnp

from linearize import tree
from linearize.methods.attention_only import attention
from linearize.methods.fine_tuning import fine_tune
from linearize.methods.regimes import posthoc
from linearize.study import Method, Study
from linearize.study.scans import scanned
from linearize.train import Penalty
from linearize.types import Apply, Array, Flat, Params, PyTree

WEIGHT = 1.0
"""λ, of the paper's 0.1 to 100."""

Shape = tuple[int, int]

_NO_MATRIX = re.compile(r"(?i)((bias|scale|embed|token|position)[^/]*|norm[^/]*/[^/]*)$")
"""Ends of names of what is a table or a vector, whatever its shape."""


def orthonormal(
    shapes: tuple[tuple[str, Shape], ...],
    f: Apply,
    params0: Params,
    tau: Flat,
    state: PyTree,
    key: Array,
) -> Array:
    """Σ ‖ΔWᵀΔW − 1‖² over weight matrices.

    Args:
        shapes: of the matrices, by name of the leaf that holds one, or several along axis 0.
        f: not used, like the other arguments but for ``tau``.
        params0: θ0.
        tau: by name; matrices that it lacks do not count.
        state: none.
        key: none.

    Raises:
        ValueError: τ has none of the matrices.
    """
    found = [_distance(tau[name], shape) for name, shape in shapes if name in tau]
    if not found:
        raise ValueError(f"τ has no weight matrix for ortho_reg; it has {', '.join(tau)}")
    return jnp.stack(found).sum()


def _distance(delta: Array, shape: Shape) -> Array:
    matrices = delta.reshape(-1, *shape)
    if shape[0] < shape[1]:
        matrices = matrices.swapaxes(1, 2)
    squares = jnp.matmul(matrices.swapaxes(1, 2).conj(), matrices, precision="highest")
    return jnp.sum(jnp.abs(squares - jnp.eye(squares.shape[-1])[None]) ** 2)


@cache
def _value(shapes: tuple[tuple[str, Shape], ...]) -> Any:
    """One function for all tasks, which so share what is compiled."""
    return partial(orthonormal, shapes)


def matrices(f: Apply, params0: Params, *inputs: PyTree) -> dict[str, Shape]:
    """The shape of the matrices in each leaf that holds a matrix, or a stack of them.

    A leaf that a scan goes through is a stack. Of the ways to read what has more axes (a kernel by
    heads, a convolution's) as one matrix, the one nearest a square is taken.

    Args:
        f: the model.
        params0: θ0.
        *inputs: arrays or their shapes.
    """
    stacked = scanned(f, params0, *inputs)
    found = {}
    for name in tree.select(params0):
        shape = jnp.shape(tree.flatten(params0)[name])[name in stacked :]
        if len(shape) > 1 and not _NO_MATRIX.search(name):
            ways = [(prod(shape[:i]), prod(shape[i:])) for i in range(1, len(shape))]
            found[name] = max(ways, key=min)
    return found


def of_matrices(study: Study, task: str, *, weight: float = WEIGHT) -> Penalty:
    """The penalty on all weight matrices that are trained.

    Raises:
        ValueError: the model has none.
    """
    model = study.model
    shapes = matrices(model.f, model.params, *study.split(task, "train").alone)
    if not shapes:
        raise ValueError(
            "ortho_reg: the model has no weight matrix; its leaves are "
            + ", ".join(tree.names(model.params))
        )
    return Penalty("ortho_reg", _value(tuple(shapes.items())), weight)


ORTHO_REG = Method(
    "ortho_reg",
    "OrthoReg",
    "displaced",
    partial(fine_tune, regime="nonlinear", method="ortho_reg", penalties=[of_matrices]),
    about="Non-linear fine-tuning that keeps the update of each weight matrix near an orthonormal "
    "one, by λ Σ ‖ΔWᵀΔW − 1‖².",
)
"""Non-linear fine-tuning of all leaves with the penalty."""

ATTENTION_ORTHO_REG = Method(
    "attention_ortho_reg",
    "Attention-only, OrthoReg",
    "displaced",
    partial(
        fine_tune,
        regime="nonlinear",
        method="attention_ortho_reg",
        trainable=attention,
        penalties=[of_matrices],
    ),
    about="Non-linear fine-tuning of the attention’s matrices alone, whose updates are kept near "
    "orthonormal ones.",
)
"""As in the paper: the attention matrices alone."""

ORTHO_REG_POSTHOC = posthoc(ORTHO_REG)
ATTENTION_ORTHO_REG_POSTHOC = posthoc(ATTENTION_ORTHO_REG)

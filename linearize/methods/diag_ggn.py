"""The diagonal of the Gauss-Newton matrix of other tasks: how much each weight moves their outputs.

Linear fine-tuning with λ Σ_j d_j τ_j², d the mean over the other tasks of the diagonal of

    G = E_x[Jᵀ H J]

the baseline of *TAK*, whose Kronecker factors keep more of the same matrix (B/32, eight tasks added
at α = 1: 80.1 % beside 85.8). G is of the features (H = 1), of the features divided by their norm,
as in that paper's code, or of the logits, H being cross-entropy's diag(p) − p pᵀ: no labels are
needed. A task's diagonal is computed once and kept in the study's store; a step then takes no pass
of its own. Neither λ nor the number of examples of that baseline is known to us: TAK's λ, 100 in
one code base and 500 in the other, and 128 to 256 examples, are of the factors.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from linearize.choices import one_of
from linearize.compiled import jit
from linearize.curvature import Asked, Normalized
from linearize.examples import as_arguments
from linearize.fields import integer
from linearize.methods.fine_tuning import bound, fine_tune
from linearize.ntk.pointwise import Inputs, Pointwise, pointwise
from linearize.ntk.programs import remembered
from linearize.objectives import Classify
from linearize.objectives.readout import as_readout
from linearize.study import Method, Study
from linearize.train import Penalty
from linearize.types import Apply, Array, Flat, Params

WEIGHT, EXAMPLES, PROBES = 100.0, 128, 1

Sums = dict[str, Array]
Of = Literal["features", "normalized", "logits"]


def quadratic(f: Apply, params0: Params, tau: Flat, state: Flat, key: Array) -> Array:
    """Σ_j d_j τ_j², a complex entry's real and imaginary parts each with their own d.

    Args:
        f: not used, like ``params0`` and ``key``.
        params0: θ0.
        tau: by name.
        state: d by name.
        key: none.
    """
    squares = {n: jnp.square(_as_real(t)) * state[n] for n, t in tau.items()}
    return jnp.stack([square.sum() for square in squares.values()]).sum()


def _as_real(leaf: Array) -> Array:
    return jnp.stack([leaf.real, leaf.imag]) if jnp.iscomplexobj(leaf) else leaf


def _features(readout: None, y: Array) -> Array:
    return y


def _logits(readout: Partial, y: Array) -> Array:
    return readout(y[None])[0]


def _as_it_is(y: Array, u: Array) -> Array:
    return u


def _softmax_root(z: Array, u: Array) -> Array:
    """S u with S Sᵀ = diag(p) − p pᵀ, p the softmax of z."""
    root = jnp.sqrt(jax.nn.softmax(z))
    return root * u - root**2 * jnp.dot(root, u, precision=jax.lax.Precision.HIGHEST)


def _same(f: Apply) -> Apply:
    return f


def _none(study: Study, task: str) -> None:
    return None


def _head(study: Study, task: str) -> Partial:
    objective = study.alike[task]
    if not isinstance(objective, Classify):
        raise ValueError(
            f"diag_ggn of 'logits': objectives[{task!r}] is {type(objective).__name__}, which has "
            "none; give Classify, or take 'features'"
        )
    return as_readout(objective.readout)


OUTPUTS: dict[str, tuple[Callable, Callable, Callable, Callable]] = {
    "features": (_same, _none, _features, _as_it_is),
    "normalized": (Normalized, _none, _features, _as_it_is),
    "logits": (_same, _head, _logits, _softmax_root),
}
"""What G is of: which model's outputs, a task's readout, how outputs (C,) become that, a root of H
there."""


def diagonal(
    study: Study,
    task: str,
    *,
    of: Of = "normalized",
    examples: int = EXAMPLES,
    probes: int | None = PROBES,
) -> dict[str, np.ndarray]:
    """The diagonal of a task's Gauss-Newton matrix, by name of the study's trained leaves, float32.

    Computed once, and then read from the study's store.

    Args:
        study: of the model and the task.
        task: whose training examples are used.
        of: ``"features"``, ``"normalized"`` features, or ``"logits"``.
        examples: how many, drawn by the study's seed; all where there are fewer.
        probes: how many random signs ε of an example, of which E[(JᵀS ε)²] is the diagonal,
            S Sᵀ = H: a reverse pass each; None takes all outputs in turn, which is exact. Drawn by
            the study's seed, the same of all tasks.

    Raises:
        ValueError: another ``of``; no probe; outputs that are no features; logits of another
            objective than Classify.
    """
    model_of, head, through, root = OUTPUTS[one_of("of", of, OUTPUTS)]
    if probes is not None:
        integer("probes", probes, low=1)
    (seen, asked), readout = study.some(task, examples, "diag_ggn"), head(study, task)
    f, inputs = model_of(study.model.f), as_arguments(seen.inputs)
    if asked is not None:
        f, inputs = Asked(f), (*inputs, asked)

    def compute() -> dict[str, np.ndarray]:
        point = pointwise(f, study.model.params, inputs, study.trainable)
        program = remembered(
            ("diagonal", point.key, through, root, probes),
            lambda: jit(partial(_diagonal, point, through, root, probes)),
        )
        found = program(study.model.params, readout, inputs, jax.random.key(study.seed))
        return {name: np.asarray(leaf) for name, leaf in found.items()}

    told = {"of": of, "examples": examples, "probes": probes}
    return study.prepared("diagonals", task, told, compute, readout=readout)


def _diagonal(
    point: Pointwise,
    through: Callable[[Any, Array], Array],
    root: Callable[[Array, Array], Array],
    probes: int | None,
    params: Params,
    readout: Partial | None,
    inputs: Inputs,
    key: Array,
) -> dict[str, Array]:
    """Mean over examples of Σ_u (Jᵀ S u)², in float32."""
    named = point.pick(params)

    def add(total: Sums, at: tuple[Inputs, Array]) -> tuple[Sums, None]:
        example, key = at
        z, pull = jax.vjp(lambda named: through(readout, point(params, named, example)), named)
        along = jnp.eye(z.size, dtype=z.dtype)
        if probes is not None:
            along = jax.random.rademacher(key, (probes, z.size), z.dtype) * probes**-0.5

        def square(total: Sums, u: Array) -> tuple[Sums, None]:
            (slope,) = pull(root(z, u))
            return {n: t + jnp.square(slope[n].astype(t.dtype)) for n, t in total.items()}, None

        return jax.lax.scan(square, total, along)

    zero = {n: jnp.zeros(leaf.shape, jnp.float32) for n, leaf in named.items()}
    n = len(jax.tree.leaves(inputs)[0])
    total, _ = jax.lax.scan(add, zero, (inputs, jax.random.split(key, n)))
    return {name: leaf / n for name, leaf in total.items()}


def of_others(
    study: Study,
    task: str,
    *,
    weight: float = WEIGHT,
    of: Of = "normalized",
    examples: int = EXAMPLES,
    probes: int | None = PROBES,
) -> Penalty:
    """The penalty for one task: the other tasks' diagonals, their mean; as :func:`diagonal`.

    Raises:
        ValueError: there is no other task.
    """
    others = study.others(task, "diag_ggn")
    found = [diagonal(study, other, of=of, examples=examples, probes=probes) for other in others]
    mean = {n: sum(each[n] for each in found) / np.float32(len(found)) for n in found[0]}
    return Penalty("diag_ggn", quadratic, weight, mean)


def diag_ggn(of: Of = "normalized", **how: Any) -> Method:
    """A row; what it is of is in its name and label, where it is not the default.

    Args:
        of: as :func:`diagonal` takes it.
        **how: the other arguments of :func:`of_others`.

    >>> diag_ggn("logits").name
    'diag_ggn_logits'
    """
    one_of("of", of, OUTPUTS)
    more = "" if of == "normalized" else of
    name = "_".join(filter(None, ("diag_ggn", more)))
    penalty = bound(of_others, of=of, **how)
    train = partial(fine_tune, regime="linear", method=name, penalties=[penalty])
    seen = {"normalized": "features, at length 1,"}.get(of, of)
    about = (
        "Linear fine-tuning with the penalty λ Σ d_j τ_j², d the diagonal of G: how far each entry "
        f"alone moves the {seen} of other tasks."
    )
    label = ", ".join(filter(None, ("Diagonal GGN", more)))
    return Method(name, label, "tangent", train, about=about)


DIAG_GGN = diag_ggn()
VARIANTS = (diag_ggn("features"), diag_ggn("logits"))
"""Of other outputs."""

"""The linear regime of a data set, cached: ``f_lin(θ0 + Σ α_t τ_t) = f0 + Σ α_t Jτ_t``.

One pass gives all that any α will ever need (*Task Arithmetic in the Tangent Space*, eq. 4); the
readout that follows is applied at each α.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import taylor, tree
from linearize.agreement import once
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.batches import gather, split_batches
from linearize.evaluate.second_way import check_terms
from linearize.objectives.readout import Readout, class_scores
from linearize.single import Sample, drawn, same_row, wide
from linearize.types import Apply, Array, Params, PyTree


@partial(jax.tree_util.register_dataclass, data_fields=["f0", "jvps"], meta_fields=[])
@dataclass(frozen=True)
class AffineOutputs:
    """The outputs of N examples at θ0, and their derivatives along T task vectors."""

    f0: Array | np.ndarray
    """(N, ...), float32."""
    jvps: Array | np.ndarray
    """(T, N, ...), float32."""

    def check_finite(self, what: str = "the model's outputs") -> None:
        """No number is NaN or infinite, or one error counts the examples that hold some.

        Raises:
            NonFiniteError: outputs at θ0, or along which task vectors, of how many examples.
        """
        bad = [f"{_examples(self.f0)} at θ0"] if not np.isfinite(self.f0).all() else []
        for t, along in enumerate(np.asarray(self.jvps)):
            if not np.isfinite(along).all():
                bad.append(f"{_examples(along)} along task vector {t}")
        if bad:
            raise tree.NonFiniteError(
                f"{what} hold NaN or infinity for {', '.join(bad)}; look at the inputs of these "
                "examples, and at what f does with them"
            )

    def at(self, alphas: ArrayLike) -> Array:
        """Outputs at ``θ0 + Σ α_t τ_t``, shape (N, ...), for coefficients of shape (T,).

        Raises:
            ValueError: another number of coefficients than task vectors.
        """
        alphas = jnp.asarray(alphas, jnp.result_type(self.jvps))
        if alphas.shape != self.jvps.shape[:1]:
            raise ValueError(
                f"alphas has shape {alphas.shape}; expected ({len(self.jvps)},), one coefficient "
                "per task vector"
            )
        moved = jnp.tensordot(alphas, self.jvps, 1, precision=jax.lax.Precision.HIGHEST)
        return jnp.asarray(self.f0) + moved

    def tasks(self, index: int | Sequence[int]) -> "AffineOutputs":
        """The same examples along some of the task vectors, in the order given."""
        return AffineOutputs(self.f0, self.jvps[np.atleast_1d(np.asarray(index))])

    def along(self, basis: ArrayLike) -> "AffineOutputs":
        """The same examples along G combinations of the T task vectors: ``Jτ @ basis``.

        Args:
            basis: (T, G); column g holds the weights of the vectors in direction g.

        Raises:
            ValueError: another number of rows than task vectors.
        """
        weights = np.asarray(basis, np.float64)
        if weights.ndim != 2 or len(weights) != len(self.jvps):
            raise ValueError(f"basis has shape {weights.shape}; expected ({len(self.jvps)}, G)")
        jvps = np.asarray(self.jvps)
        wide = jvps.astype(np.complex128 if np.iscomplexobj(jvps) else np.float64)
        return AffineOutputs(self.f0, np.tensordot(weights.T, wide, 1).astype(jvps.dtype))

    def take(self, rows: ArrayLike) -> "AffineOutputs":
        """Some of the examples: integer rows or a slice's worth of them, in the order given."""
        rows = np.asarray(rows)
        return AffineOutputs(self.f0[rows], self.jvps[:, rows])

    def scores(self, readout: Readout) -> "AffineOutputs | None":
        """Class scores (N, C) with the readout's argmax at every α, where the readout permits.

        For a head that normalises: ``(f0 - center) @ kernel`` and ``Jτ_t @ kernel``. Without
        normalisation: the logits. ``None`` for other readouts (:func:`class_scores`).
        """
        if readout is None:
            return self
        affine_map = class_scores(readout)
        return None if affine_map is None else self.through(affine_map)

    def through(self, affine_map: jax.tree_util.Partial) -> "AffineOutputs":
        """An affine map of the outputs, (N, ...) to (N, C), and its derivative of their changes.

        Raises:
            DisagreementError: a sampled number is another by a second way.
        """
        found = AffineOutputs(*_project(affine_map, self))
        check = partial(_check_scores, affine_map, self, found)
        once(check, "scores", arrays=(affine_map, self))
        return found


def _examples(values: ArrayLike) -> str:
    bad = ~np.isfinite(np.asarray(values)).reshape(len(np.asarray(values)), -1).all(1)
    return f"{np.count_nonzero(bad)} of {len(bad)} examples (the first is {int(bad.argmax())})"


@jit
def _project(affine_map: jax.tree_util.Partial, affine: AffineOutputs) -> tuple[Array, Array]:
    push = jax.vmap(lambda dz: jax.jvp(affine_map, (affine.f0,), (dz,)), out_axes=(None, 0))
    f0, jvps = push(affine.jvps)
    return f0, jvps


def _check_scores(
    affine_map: jax.tree_util.Partial, given: AffineOutputs, found: AffineOutputs
) -> None:
    """An example's scores at θ0, and as far along each task vector as θ0's features are long."""
    n = drawn(len(given.f0))
    f0, jvps = wide(np.asarray(given.f0)[n]), wide(np.asarray(given.jvps)[:, n])
    lengths = [np.linalg.norm(f0) / (np.linalg.norm(dz) or 1.0) for dz in jvps]

    def rows(f0: np.ndarray, jvps: np.ndarray) -> np.ndarray:
        return np.stack([f0, *(f0 + s * dz for s, dz in zip(lengths, jvps, strict=True))])

    dtype = np.asarray(given.f0).dtype
    expected = wide(affine_map(jnp.asarray(rows(f0, jvps), dtype)))
    same_row(
        rows(wide(np.asarray(found.f0)[n]), wide(np.asarray(found.jvps)[:, n])),
        Sample(expected, np.linalg.norm(expected), (dtype, np.dtype(np.float32))),
        what="the class scores of cached outputs",
        entry=f"of example {n}",
    )


def affine_outputs(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    inputs: PyTree,
    batch_size: int = 256,
    *,
    method: taylor.Method = "auto",
    progress: bool = False,
) -> AffineOutputs:
    """Outputs at θ0 and along every task vector, for a whole data set: 1 + 2T forward passes' work.

    Args:
        f: ``f(params, *inputs) -> (B, ...)``, one array. Compiled once per shapes; give the same
            function object to have the compilation reused.
        params0: the expansion point θ0.
        taus: T ≥ 1 task vectors; a leaf that one lacks counts as zero there.
        inputs: arrays with N examples on axis 0; a tuple for a model of several arguments.
        batch_size: examples per pass; T tangents of that many are held at once.
        method: as :func:`linearize.taylor.linearize`.
        progress: draw a progress bar.

    Returns:
        NumPy arrays in float32 or wider: f0 (N, ...), jvps (T, N, ...).

    Raises:
        ValueError: no task vector, no example, or an output without examples on axis 0.
        StructureMismatch: a task vector names or shapes a leaf that θ0 has not, or stems from
            another base.
        NonFiniteError: NaN or infinity in ``params0``, a task vector or what comes out.
        DisagreementError: a sampled example, computed alone and in reverse, has other outputs.

    >>> f = lambda params, x: params["w"] ** 2 * x
    >>> affine = affine_outputs(f, {"w": 3.0}, [{"w": 1.0}, {"w": 2.0}], np.arange(3.0))
    >>> affine.at([1.0, 1.0]).tolist()  # (9 + 6 + 12) x
    [0.0, 27.0, 54.0]
    """
    taylor.check_function(f)
    stacked = stack(params0, taus)
    batches = split_batches(inputs, batch_size)
    f = current(f, params0, *batches.items[0])
    step = partial(affine_step, f, method, params0, stacked)
    f0, jvps = gather(step, batches, axes=(0, 1), progress=progress)
    check_one_array(f0)
    affine = AffineOutputs(f0, jvps)
    affine.check_finite()
    args, rows = batches.first()
    check_terms(f, method, params0, stacked, args, f0[rows], jvps[:, rows])
    return affine


def check_one_array(outputs: PyTree) -> None:
    """Outputs, or their shapes, are one array.

    Raises:
        ValueError: a tuple, a mapping or another tree.
    """
    if not hasattr(outputs, "shape"):
        raise ValueError(
            f"f returns a {type(outputs).__name__}; the tangent view and error maps need one array "
            "with examples on axis 0. Wrap f to pick it"
        )


@partial(jit, static_argnums=(0, 1))
def affine_step(
    f: Apply,
    method: taylor.Method,
    params0: Params,
    stacked: dict[str, Array],
    args: tuple[PyTree, ...],
) -> tuple[PyTree, PyTree]:
    """f0 and Jτ_t of one batch, (B, ...) and (T, B, ...); a compiled program."""

    def along(tau: dict[str, Array]) -> tuple[PyTree, PyTree]:
        f0, jvps = taylor.affine_terms(f, params0, [tau], *args, method=method)
        return f0, jax.tree.map(lambda y: y[0], jvps)

    return jax.vmap(along, out_axes=(None, 0))(stacked)


def stack(params0: Params, taus: Sequence[PyTree]) -> dict[str, Array]:
    """Task vectors stacked on axis 0, by name; a leaf that one of them lacks is zero there.

    Integer, boolean and key leaves of θ0 do not move, so they are left out.

    Raises:
        ValueError: no task vector.
        StructureMismatch: one does not fit ``params0``, or stems from another base.
        NonFiniteError: NaN or infinity, with the names that hold it.
    """
    check_taus(params0, taus)
    flats = [tree.flatten(tau) for tau in taus]
    tree.check_finite(params0, what="params0")
    for t, flat in enumerate(flats):
        tree.check_finite(flat, what=f"taus[{t}]")
    trainable = set(tree.select(params0))
    union = {n: leaf for flat in flats for n, leaf in flat.items() if n in trainable}
    return {
        n: jnp.stack([jnp.asarray(flat.get(n, jnp.zeros_like(like))) for flat in flats])
        for n, like in union.items()
    }


def check_taus(params0: Params, taus: Sequence[PyTree] | Mapping[str, PyTree]) -> None:
    """Every task vector fits ``params0`` and, where it knows its base, stems from it.

    Those of a mapping are called by their names.

    Raises:
        ValueError: ``taus`` is empty.
        StructureMismatch: with every difference by name.
    """
    if not len(taus):
        raise ValueError("taus is empty; give at least one task vector")
    named = dict(taus if isinstance(taus, Mapping) else enumerate(taus))
    bases = {tau.base for tau in named.values() if getattr(tau, "base", "")}
    expected = tree.fingerprint(params0) if bases else ""
    for t, tau in named.items():
        problems = tree.differences(params0, tau, subset=True)
        base = getattr(tau, "base", "")
        if base and base != expected:
            seen = f"fingerprint {base[:16]}..., expected {expected[:16]}..."
            problems = [f"another base model: {seen}", *problems]
        tree.raise_if(problems, f"taus[{t!r}] does not belong to these parameters")

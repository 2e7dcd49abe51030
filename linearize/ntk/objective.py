"""The objective of linear fine-tuning in weight space, pass by pass over the data.

    L(τ) = 1/N Σ_n cross-entropy(R(f(x_n) + J(x_n) τ), y_n) + (l2 / 2) ‖τ‖²

R is the frozen readout. The Gauss-Newton matrix, Jᵀ ∇²(CE ∘ R) J + l2 I with the readout counted to
the loss (Schraudolph 2002), is L's Hessian, for f0 + Jτ is affine; it is positive definite where R
is affine too, and ∇²(CE ∘ R) is R'ᵀ ∇²CE R'. Value and gradient, or the matrix times a vector, cost
five forward passes of the data each: a primal, and a tangent and its transpose of two.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from linearize import taylor, tree
from linearize.agreement import agree, narrowest, once
from linearize.compiled import jit
from linearize.current import current
from linearize.evaluate.affine import check_taus
from linearize.evaluate.batches import split_batches, window
from linearize.evaluate.second_way import Along, check_along, check_terms
from linearize.losses import cross_entropy
from linearize.ntk import checks
from linearize.objectives.readout import Readout, affine_logits, as_readout
from linearize.single import drawn, wide
from linearize.types import Apply, Array, Flat, Params, PyTree


@dataclass(frozen=True)
class Reached:
    """How far training has come: the objective at one τ."""

    loss: float
    """Mean cross-entropy in nats."""
    objective: float
    """Mean cross-entropy + (l2 / 2) ‖τ‖²."""
    gradient_norm: float
    """Euclidean norm of the objective's gradient with respect to τ."""
    l2: float
    certified: bool
    """Whether the objective is known to be convex, which it is where the readout is affine."""

    @property
    def gap(self) -> float:
        """How far the global optimum can be below, ``gradient_norm² / (2 l2)``; else infinity.

        Of the gradient as it was computed: passes in float32 round it.
        """
        convex = self.certified and self.l2 > 0
        return self.gradient_norm**2 / (2 * self.l2) if convex else float("inf")


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """A training set, cut into batches of one shape, and what is asked of it."""

    f: Apply
    params0: Params
    readout: jax.tree_util.Partial
    certified: bool
    batches: Sequence[tuple[tuple[PyTree, ...], Array, Array]]
    """Inputs, labels (B,) and weights (B,) of each: 1/N, and 0 of padding."""
    l2: float
    method: taylor.Method

    @classmethod
    def of(
        cls,
        f: Apply,
        params0: Params,
        x: PyTree,
        labels: ArrayLike,
        readout: Readout,
        l2: float,
        batch_size: int,
        method: taylor.Method,
    ) -> "TrainingSet":
        """Check the examples, and cut them up.

        Raises:
            ValueError: no example, labels that are not classes, outputs that are not logits
                (B, C) where there is no readout.
        """
        taylor.check_function(f)
        cut = split_batches(x, batch_size, balanced=True)
        f = current(f, params0, *cut.items[0])
        read = as_readout(readout)
        logits = jax.eval_shape(lambda p, args: read(f(p, *args)), params0, cut.items[0])
        if getattr(logits, "ndim", 0) != 2:
            raise ValueError(
                f"the readout gives {logits}; expected logits (B, C) of a batch: give a readout, "
                "or an f that returns one array (B, C)"
            )
        known = checks.class_labels(labels, cut.n, max(logits.shape[1], 2)).astype(np.int32)
        size, dtype = logits.shape[0], jnp.promote_types(logits.dtype, jnp.float32)
        batches = [
            (
                args,
                jnp.asarray(window(known, start, size)),
                jnp.asarray((np.arange(start, start + size) < cut.n) / cut.n, dtype),
            )
            for start, args in zip(range(0, cut.n, size), cut.items, strict=True)
        ]
        return cls(f, params0, read, affine_logits(readout), batches, l2, method)

    def slope(self, tau: Flat) -> tuple[list[Array], float, dict[str, Array]]:
        """Outputs f0 + Jτ of each batch, mean cross-entropy, and ∇L."""
        self._once(lambda: self._check_slope(tau), "slope", tau)
        total = _scaled(tau, self.l2)
        outputs, losses = [], []
        for args, labels, weights in self.batches:
            z, loss, total = _slope(
                self.f, self.method, self.params0, tau, total, self.readout, args, labels, weights
            )
            outputs.append(z)
            losses.append((loss, weights))
        return outputs, _sum(losses), total

    def curvature(self, outputs: Sequence[Array], d: Flat) -> tuple[list[Array], dict[str, Array]]:
        """J d of each batch, and the Hessian at these outputs times d."""
        total = _scaled(d, self.l2)
        moved = []
        for z, (args, labels, weights) in zip(outputs, self.batches, strict=True):
            u, total = _curve(
                self.f, self.method, self.params0, d, total, self.readout, args, z, labels, weights
            )
            moved.append(u)
        self._once(lambda: self._check_curvature(outputs, d, moved, total), "curvature", d)
        return moved, total

    def _once(self, check: Callable[[], None], what: str, flat: Flat) -> None:
        arrays = self.params0, self.readout, self.batches[0], dict(flat)
        once(check, what, self.f, self.method, arrays=arrays)

    def _check_slope(self, tau: Flat) -> None:
        """Outputs and gradient of one example, by ‖g‖² = ⟨∂ℓ/∂z, J g⟩."""
        args, labels, weights = self.batches[0]
        n = drawn(int(jnp.count_nonzero(weights)))
        one = jnp.zeros_like(weights).at[n].set(1)
        none = _scaled(tau, 0.0)
        z, _, gradient = _slope(
            self.f, self.method, self.params0, tau, none, self.readout, args, labels, one
        )
        w = jax.grad(lambda z: _examples(self.readout, z[None], labels[n : n + 1])[0])(z[n])
        square = float(inner(gradient, gradient))
        total = float((wide(w) * wide(z[n])).sum().real)
        check_along(
            self.f,
            self.params0,
            {name: jnp.stack([leaf, jnp.asarray(tau[name])]) for name, leaf in gradient.items()},
            args,
            Along(n, wide(w), None, [square, None], np.dtype(z.dtype), total),
            "a pass of the objective: {} along the gradient of an example (task vector 0)",
        )

    def _check_curvature(
        self, outputs: Sequence[Array], d: Flat, moved: Sequence[Array], total: Flat
    ) -> None:
        """J d of an example; and dᵀ (Jᵀ H J) d = uᵀ H u, which takes no pass of the model."""
        stacked = {name: jnp.asarray(leaf)[None] for name, leaf in d.items()}
        args, *_ = self.batches[0]
        check_terms(self.f, self.method, self.params0, stacked, args, None, moved[0][None])
        bent = sum(
            float(_bend(self.readout, z, u, labels, weights))
            for z, u, (_, labels, weights) in zip(outputs, moved, self.batches, strict=True)
        )
        size = {name: float(np.linalg.norm(leaf)) for name, leaf in d.items()}
        decay = self.l2 * sum(value**2 for value in size.values())
        dtype = moved[0].dtype
        agree(
            float(inner(total, d)),
            bent + decay,
            scale=sum(v * float(np.linalg.norm(total[k])) for k, v in size.items()) + decay,
            dtypes=(dtype, narrowest(self.f, self.params0, *args)),
            terms=sum(leaf.size for leaf in d.values()),
            what="the curvature dᵀ (Jᵀ H J + l2) d of a Gauss-Newton pass",
            entry="of the first direction d",
        )

    def loss(self, outputs: Sequence[Array], moved: Sequence[Array], length: float) -> float:
        """Mean cross-entropy at outputs + length · moved: no pass of the model."""
        return _sum(
            [
                (_along(self.readout, z, u, length, labels), weights)
                for z, u, (_, labels, weights) in zip(outputs, moved, self.batches, strict=True)
            ]
        )


def linear_objective(
    f: Apply,
    params0: Params,
    tau: PyTree,
    x: PyTree,
    labels: ArrayLike,
    *,
    readout: Readout = None,
    l2: float = 0.0,
    batch_size: int = 64,
    method: taylor.Method = "auto",
) -> Reached:
    """What linear fine-tuning minimises, at any task vector: AdamW's can be held against it.

    Args:
        f: ``f(params, *inputs) -> outputs``: features for the readout, or logits (B, C); of one
            output, the logit of class 1.
        params0: θ0.
        tau: a task vector; the gradient is taken in its leaves.
        x: N training examples: an array, or a tuple for a model of several arguments.
        labels: (N,) integers.
        readout: the frozen head; none where ``f`` returns logits.
        l2: weight of ‖τ‖² / 2.
        batch_size: examples per pass.
        method: as :func:`linearize.linearize`.

    Raises:
        ValueError: a negative ``l2``; labels, examples or outputs that do not fit.
        StructureMismatch: ``tau`` does not belong to ``params0``.

    >>> f = lambda params, x: x @ params["w"]
    >>> params = {"w": jnp.zeros((2, 2))}
    >>> round(linear_objective(f, params, params, np.eye(2, dtype=np.float32), [0, 1]).loss, 4)
    0.6931
    """
    check_taus(params0, [tau])
    l2 = checks.nonnegative("l2", l2)
    passes = TrainingSet.of(f, params0, x, labels, readout, l2, batch_size, method)
    flat = tree.flatten(tau)
    _, loss, gradient = passes.slope(flat)
    return reached(passes, loss, squared(flat), squared(gradient))


def reached(passes: TrainingSet, loss: float, tau_square: float, gradient_square: float) -> Reached:
    """The record of one point, from its squared norms."""
    objective = loss + passes.l2 / 2 * tau_square
    return Reached(loss, objective, gradient_square**0.5, passes.l2, passes.certified)


def squared(flat: Flat) -> float:
    """Squared Euclidean norm."""
    return float(inner(flat, flat))


@jit
def inner(a: Flat, b: Flat) -> Array:
    """Inner product over all leaves, in float32 or wider."""
    return tree.dot(a, b)


@jit
def combine(a: PyTree, scale: float | Array, b: PyTree) -> PyTree:
    """``a + scale b``, leaf by leaf."""
    return jax.tree.map(lambda x, y: x + jnp.asarray(scale, x.dtype) * y, a, b)


@jit
def _scaled(flat: Flat, scale: float | Array) -> dict[str, Array]:
    return {n: jnp.asarray(scale, leaf.dtype) * leaf for n, leaf in flat.items()}


def _examples(readout: jax.tree_util.Partial, z: Array, labels: Array) -> Array:
    """Cross-entropy of each example, (B,); one logit is class 1's."""
    logits = readout(z)
    if logits.shape[1] == 1:
        return optax.sigmoid_binary_cross_entropy(logits[:, 0], labels)
    return cross_entropy(logits, labels)


@partial(jit, static_argnums=(0, 1))
def _slope(
    f: Apply,
    method: taylor.Method,
    params0: Params,
    tau: Flat,
    total: dict[str, Array],
    readout: jax.tree_util.Partial,
    args: tuple[PyTree, ...],
    labels: Array,
    weights: Array,
) -> tuple[Array, Array, dict[str, Array]]:
    f_tan = taylor.tangent(f, method=method)
    z, pull = jax.vjp(lambda tau: f_tan(params0, tau, *args), dict(tau))
    losses, back = jax.vjp(lambda z: _examples(readout, z, labels), z)
    (gradient,) = pull(back(weights.astype(losses.dtype))[0])
    return z, losses, jax.tree.map(_descended, total, gradient)


@partial(jit, static_argnums=(0, 1))
def _curve(
    f: Apply,
    method: taylor.Method,
    params0: Params,
    d: Flat,
    total: dict[str, Array],
    readout: jax.tree_util.Partial,
    args: tuple[PyTree, ...],
    z: Array,
    labels: Array,
    weights: Array,
) -> tuple[Array, dict[str, Array]]:
    def moved(d: dict[str, Array]) -> Array:
        return taylor.affine_terms(f, params0, [d], *args, method=method)[1][0]

    def loss(z: Array) -> Array:
        return tree.dot(_examples(readout, z, labels), weights)

    u, pull = jax.vjp(moved, dict(d))
    _, bent = jax.jvp(jax.grad(loss), (z,), (u,))
    return u, jax.tree.map(_descended, total, pull(bent)[0])


def _descended(total: Array, gradient: Array) -> Array:
    """JAX's gradients of complex leaves are the conjugates of the directions of ascent."""
    return total + jnp.conj(gradient)


@jit
def _bend(
    readout: jax.tree_util.Partial, z: Array, u: Array, labels: Array, weights: Array
) -> Array:
    def loss(z: Array) -> Array:
        return tree.dot(_examples(readout, z, labels), weights)

    return tree.dot(u, jax.jvp(jax.grad(loss), (z,), (u,))[1])


@jit
def _along(
    readout: jax.tree_util.Partial, z: Array, u: Array, length: float | Array, labels: Array
) -> Array:
    return _examples(readout, z + jnp.asarray(length, z.dtype) * u, labels)


def _sum(batches: Sequence[tuple[Array, Array]]) -> float:
    """Σ weights · losses in float64, where line searches see differences that float32 hides."""
    wide = jax.device_get(list(batches))
    return float(sum(np.vdot(np.float64(loss), np.float64(w)) for loss, w in wide))

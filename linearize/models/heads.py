"""Frozen heads on a backbone's features at θ0, standing in for CLIP's text heads.

A head never trains with the backbone, so that all of a task lies in its task vector.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax

from linearize import identity
from linearize.agreement import agree
from linearize.compiled import jit
from linearize.fields import integer
from linearize.losses import cross_entropy
from linearize.types import Apply, Array, Params, PyTree

_TINY = 1e-12
_NEVER = -1e9


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Head:
    """An affine readout, of normalised features or of plain ones; a pytree.

    ``logits = scale * g(features - center) @ kernel + bias``, where g is division by the Euclidean
    norm if ``normalize`` and the identity otherwise. With ``normalize`` and no bias, the predicted
    class depends on ``(features - center) @ kernel`` alone.

    Attributes:
        center: ``(D,)`` float32.
        kernel: ``(D, C)`` float32.
        bias: ``(C,)`` float32, or None.
        scale: scalar float32 (the inverse of a softmax temperature).
        normalize: whether features are normalised.
    """

    center: Array
    kernel: Array
    bias: Array | None
    scale: Array
    normalize: bool = field(metadata={"static": True})


def apply_head(head: Head, features: Array) -> Array:
    """Logits ``(B, C)`` float32 of features ``(B, D)``.

    Raises:
        ValueError: the features' width is not the head's.
    """
    width, _ = head.kernel.shape
    if features.ndim != 2 or features.shape[1] != width:
        raise ValueError(f"features has shape {features.shape}; this head expects (B, {width})")
    z = features.astype(jnp.float32) - head.center[None]
    if head.normalize:
        z = normalize(z)
    logits = head.scale * (z @ head.kernel)
    return logits if head.bias is None else logits + head.bias[None]


apply_head.fingerprint = "apply_head 1"  # type: ignore[attr-defined]


@cache
def headed(f: Apply) -> Apply:
    """A backbone's logits as a model of their own: of ``{"backbone": θ, "head": head}``.

    What is compiled for one head serves all of as many classes. One function for each ``f``.

    >>> head = Head(jnp.zeros(2), jnp.eye(2), None, jnp.asarray(10.0), False)
    >>> headed(jnp.multiply)({"backbone": 2.0, "head": head}, jnp.array([[0.5, 1.0]])).tolist()
    [[10.0, 20.0]]
    """

    def logits(params: Params, *inputs: PyTree) -> Array:
        return apply_head(params["head"], f(params["backbone"], *inputs))

    if stated := identity.whole(f):
        logits.fingerprint = f"logits of {stated}"  # type: ignore[attr-defined]
    return logits


def normalize(z: Array) -> Array:
    """Rows divided by their Euclidean norm; a zero row stays zero and has finite derivatives.

    >>> normalize(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    return z * jax.lax.rsqrt(jnp.sum(z * z, axis=-1, keepdims=True) + _TINY)


def pad_head(head: Head, n_classes: int) -> Head:
    """The same head with further classes, up to ``n_classes``, that have no probability.

    Heads of one shape share their users' compilation. Predictions, cross-entropy and gradients are
    the head's own; label smoothing would not be, as it gives all classes a share.

    Raises:
        ValueError: ``n_classes`` is below the head's own number.

    >>> head = prototype_head(jnp.eye(3), jnp.arange(3), 3, shots=1)
    >>> jax.nn.softmax(apply_head(pad_head(head, 5), jnp.eye(3)))[:, 3:].max().item()
    0.0
    """
    more = n_classes - head.kernel.shape[1]
    if more < 0:
        raise ValueError(f"n_classes={n_classes}; the head has {head.kernel.shape[1]} already")
    bias = jnp.zeros(head.kernel.shape[1]) if head.bias is None else head.bias
    return replace(
        head,
        kernel=jnp.pad(head.kernel, ((0, 0), (0, more))),
        bias=jnp.pad(bias, (0, more), constant_values=_NEVER),
    )


def join_heads(heads: Sequence[Head]) -> Head:
    """Heads side by side: the classes of one after another's.

    Raises:
        ValueError: one has a bias, or they read features in different ways.

    >>> head = prototype_head(jnp.eye(3), jnp.arange(3), 3, shots=1)
    >>> join_heads([head, head]).kernel.shape
    (3, 6)
    """
    first = heads[0]
    for head in heads:
        same = jnp.array_equal(head.center, first.center) & (head.scale == first.scale)
        if head.bias is not None or head.normalize != first.normalize or not same:
            raise ValueError("heads: expected one center, scale and normalization, and no bias")
    return replace(first, kernel=jnp.concatenate([head.kernel for head in heads], axis=1))


def few_shot(labels: Array, n_classes: int, *, shots: int, seed: int) -> np.ndarray:
    """Which examples a few-shot head sees: ``(n_classes * shots,)`` indices, class by class.

    Features are needed of these alone. The draw depends on labels and seed only.

    Args:
        labels: ``(N,)`` integers from 0 to ``n_classes - 1``.
        n_classes: at least 2.
        shots: examples of each class, without replacement.
        seed: of the draw.

    Raises:
        ValueError: a class has fewer than ``shots`` examples (all such classes are named),
            a label is out of range, or there are fewer than two classes.
    """
    counts = _count(labels, n_classes)
    integer("shots", shots, low=1)
    short = [f"class {c} has {n}" for c, n in enumerate(counts) if n < shots]
    if short:
        raise ValueError(
            f"shots={shots} examples of each class are wanted, but {', '.join(short)}; "
            "lower shots or give more examples"
        )
    rng = np.random.default_rng(seed)
    host = np.asarray(labels)
    drawn = [rng.choice(np.flatnonzero(host == c), shots, replace=False) for c in range(n_classes)]
    return np.concatenate(drawn)


def prototype_head(
    features: Array,
    labels: Array,
    n_classes: int,
    *,
    shots: int | None = 10,
    temperature: float = 20.0,
    seed: int = 0,
    center: bool | Array = True,
    normalize: bool = True,
) -> Head:
    """Nearest-prototype head: cosine similarity to each class's mean direction (Snell et al. 2017).

    ``logits = temperature * normalize(z - center) @ normalize(prototypes)``, a prototype being the
    mean over its class's examples of ``normalize(z - center)``. Without normalisation they are
    affine in z: every ``z - center`` is divided by the mean norm of the examples' instead of its
    own, so that logits keep their magnitude; without a bias, the classes predicted are the same.

    Args:
        features: ``(N, D)`` at θ0; only those that :func:`few_shot` draws are looked at.
        labels: ``(N,)`` integers.
        n_classes: number of classes.
        shots: examples drawn of each class; None takes all that there are.
        temperature: factor of the cosines.
        seed: of the draw.
        center: subtract the mean of the classes' means (True), nothing (False), or a vector
            ``(D,)`` of one's own.
        normalize: whether the head normalises features; the prototypes are the same.

    Raises:
        ValueError: as :func:`few_shot`; features that do not fit or are not finite; a class whose
            prototype is zero.
    """
    z = _features(features, labels)
    host = np.asarray(labels)
    if shots is None:
        shortest = _count(labels, n_classes)
        picked = np.arange(len(host))
        if 0 in shortest:
            raise ValueError(f"class {shortest.index(0)} has no examples; a prototype needs one")
    else:
        picked = few_shot(labels, n_classes, shots=shots, seed=seed)
    if not temperature > 0:
        raise ValueError(f"temperature={temperature}; expected a positive number")
    z, host = z[picked], host[picked]
    if isinstance(center, bool):
        middle = _class_means(z, host, n_classes).mean(axis=0) * center
    else:
        middle = np.asarray(center, np.float64)
        if middle.shape != z.shape[1:]:
            raise ValueError(f"center has shape {middle.shape}; features expect {z.shape[1:]}")
    directions = z - middle
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    directions /= lengths + _TINY
    prototypes = _class_means(directions, host, n_classes)
    norms = np.linalg.norm(prototypes, axis=1, keepdims=True)
    if not (norms > 1e-6).all():
        raise ValueError(
            f"the prototype of class {int(norms.argmin())} is zero: its features equal the center "
            "or cancel; use more shots, center=False, or another model"
        )
    return Head(
        center=jnp.asarray(middle, jnp.float32),
        kernel=jnp.asarray((prototypes / norms).T, jnp.float32),
        bias=None,
        scale=jnp.asarray(temperature / (1 if normalize else lengths.mean()), jnp.float32),
        normalize=normalize,
    )


def linear_probe(
    features: Array,
    labels: Array,
    n_classes: int,
    *,
    l2: float = 1e-3,
    normalize_features: bool = False,
    standardize: bool = True,
    max_iterations: int = 500,
    tolerance: float = 1e-6,
) -> Head:
    """Multinomial logistic regression on frozen features, by L-BFGS.

    Minimises ``mean cross-entropy + l2 / 2 * ||W||²`` over kernel W and bias (not penalised), on
    centred features; scikit-learn's ``LogisticRegression`` with ``C = 1 / (l2 * N)``.

    Args:
        features: ``(N, D)`` at θ0.
        labels: ``(N,)`` integers.
        n_classes: number of classes.
        l2: weight of the penalty.
        normalize_features: fit and apply on L2-normalised centred features.
        standardize: fit on features of unit standard deviation, and fold that into the kernel;
            the penalty is then on the scaled kernel. Not for normalised features.
        max_iterations: of L-BFGS.
        tolerance: stop when no entry of the gradient is larger.

    Raises:
        ValueError: labels out of range, a class without examples, features that do not fit or are
            not finite, or no convergence to a finite loss.
        DisagreementError: the loss is another by NumPy.
    """
    z = _features(features, labels)
    counts = _count(labels, n_classes)
    if 0 in counts:
        raise ValueError(f"class {counts.index(0)} has no examples; a linear probe needs one")
    if l2 < 0:
        raise ValueError(f"l2={l2}; expected 0 or more")
    middle = z.mean(axis=0)
    z = z - middle
    deviation = np.ones(z.shape[1])
    if normalize_features:
        z = z / (np.linalg.norm(z, axis=1, keepdims=True) + _TINY)
    elif standardize:
        deviation = z.std(axis=0)
        deviation = np.where(deviation > 1e-6 * deviation.max(initial=0.0), deviation, 1.0)
    kernel, bias, loss = _fit(
        jnp.asarray(z / deviation, jnp.float32),
        jnp.asarray(labels, jnp.int32),
        jnp.zeros((z.shape[1], n_classes)),
        jnp.asarray(l2, jnp.float32),
        jnp.asarray(max_iterations),
        jnp.asarray(tolerance, jnp.float32),
    )
    if not np.isfinite(float(loss)):
        raise ValueError(f"linear_probe ended at loss {float(loss)}; raise l2={l2} or standardize")
    _check_loss(float(loss), z / deviation, np.asarray(labels), l2, kernel, bias)
    return Head(
        center=jnp.asarray(middle, jnp.float32),
        kernel=kernel / jnp.asarray(deviation, jnp.float32)[:, None],
        bias=bias,
        scale=jnp.ones(()),
        normalize=normalize_features,
    )


@jit
def _fit(
    z: Array, labels: Array, kernel: Array, l2: Array, max_iterations: Array, tolerance: Array
) -> tuple[Array, Array, Array]:
    def loss(weights: tuple[Array, Array]) -> Array:
        kernel, bias = weights
        losses = cross_entropy(z @ kernel + bias[None], labels)
        return losses.mean() + l2 / 2 * jnp.sum(kernel**2)

    solver = optax.lbfgs(memory_size=20)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry: tuple) -> tuple:
        weights, state, _ = carry
        value, gradient = value_and_grad(weights, state=state)
        updates, state = solver.update(
            gradient, state, weights, value=value, grad=gradient, value_fn=loss
        )
        return optax.apply_updates(weights, updates), state, _largest(gradient)

    def unfinished(carry: tuple) -> Array:
        _, state, largest = carry
        return (optax.tree.get(state, "count") < max_iterations) & (largest > tolerance)

    start = (kernel, jnp.zeros(kernel.shape[1]))
    weights, _, _ = jax.lax.while_loop(
        unfinished, step, (start, solver.init(start), jnp.asarray(jnp.inf))
    )
    return *weights, loss(weights)


def _check_loss(
    found: float, z: np.ndarray, labels: np.ndarray, l2: float, kernel: Array, bias: Array
) -> None:
    """The loss at the weights that were found, by NumPy."""
    weights = np.asarray(kernel, np.float64)
    logits = z @ weights + np.asarray(bias, np.float64)
    largest = logits.max(1)
    total = np.log(np.exp(logits - largest[:, None]).sum(1)) + largest
    penalty = l2 / 2 * float(np.sum(weights**2))
    agree(
        found,
        float((total - logits[np.arange(len(z)), labels]).mean()) + penalty,
        scale=float(np.abs(logits).max(1).mean()) + 1 + penalty,
        dtypes=(np.dtype(np.float32),),
        terms=1,
        what="the loss of a linear probe",
        entry="at the end",
    )


def _largest(weights: Sequence[Array]) -> Array:
    return jnp.stack([jnp.abs(w).max() for w in weights]).max()


def _count(labels: Array, n_classes: int) -> list[int]:
    """Examples of each class, after the labels have been checked."""
    host = np.asarray(labels)
    if n_classes < 2:
        raise ValueError(f"n_classes={n_classes}; a head tells at least 2 classes apart")
    if host.ndim != 1 or not np.issubdtype(host.dtype, np.integer) or host.size == 0:
        raise ValueError(
            f"labels has shape {host.shape} and dtype {host.dtype}; expected (N,) integers, N > 0"
        )
    if host.min() < 0 or host.max() >= n_classes:
        raise ValueError(
            f"labels go from {host.min()} to {host.max()}; with n_classes={n_classes} expected "
            f"0 to {n_classes - 1}"
        )
    return np.bincount(host, minlength=n_classes).tolist()


def _features(features: Array, labels: Array) -> np.ndarray:
    """Features in float64 on the host, after their shape has been checked."""
    z = np.asarray(features, np.float64)
    if z.ndim != 2 or len(z) != len(np.asarray(labels)):
        raise ValueError(
            f"features has shape {z.shape} for {len(np.asarray(labels))} labels; expected (N, D)"
        )
    if not np.isfinite(z).all():
        rows = np.flatnonzero(~np.isfinite(z).all(axis=1))
        raise ValueError(f"features hold NaN or infinity in {len(rows)} row(s), first {rows[0]}")
    return z


def _class_means(z: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    return np.stack([z[labels == c].mean(axis=0) for c in range(n_classes)])

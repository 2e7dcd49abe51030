"""How far fine-tuning leaves the kernel regime: drift, alignment, linearization gap, movement.

The two conditions of kernel behaviour (Malladi et al. 2023, *A kernel-based view of language model
fine-tuning*) are that f stays by its linearization, :func:`linearization_gap`, and
that gradients stay put, :func:`fixed_features`.

A model with batch statistics s has two kernels after fine-tuning, K(θ_t, s_0) and K(θ_t, s_t), and
so two drifts. :func:`linearize.from_linen` and :func:`linearize.from_nnx` keep the statistics they
were given: one ``f`` at θ0 and at θ_t measures the drift of the *parameters*, the one that the
linearization around θ0 is about, and the one that ``linearize.train`` trains (s stays s_0). Where a
loop of one's own moved the statistics, two functions, of s_0 and of s_t, measure what the *model*
did: ``drift(kernel(f_t, params_t, x), kernel(f_0, params_0, x))``. Say which.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.special
from jax.typing import ArrayLike

from linearize import tree
from linearize.ntk.checks import class_labels, widen
from linearize.types import Params


@dataclass(frozen=True)
class LinearizationGap:
    """A model beside its linearization at the same parameters; differences are f − f_lin."""

    output: float
    """‖f − f_lin‖ / ‖f‖ over all examples and outputs."""
    output_of_change: float | None
    """‖f − f_lin‖ / ‖f − f0‖; ``None`` where the outputs at θ0 were not given."""
    loss: float
    """Difference of the mean cross-entropies, nats."""
    accuracy: float
    """Difference of the top-1 accuracies."""
    agreement: float
    """Share of examples on which the two predict the same class."""


@dataclass(frozen=True)
class BlockMovement:
    """How far a block of parameters is from where it began."""

    distance: float
    """‖θ_t − θ0‖."""
    relative: float
    """‖θ_t − θ0‖ / ‖θ0‖; infinite for a block that left zero, 0 for one that stayed there."""
    size: int
    """Parameters."""


@dataclass(frozen=True)
class Movement:
    """How far parameters are from where they began."""

    blocks: dict[str, BlockMovement]
    total: BlockMovement
    """Over all trainable leaves, named by a block or not."""


@dataclass(frozen=True, eq=False)
class FixedFeatures:
    """Relative change of the gradients."""

    mean: float
    per_point: np.ndarray
    """(N,) or (N, C), float64."""


def drift(kernel_t: ArrayLike, kernel_0: ArrayLike) -> float:
    """‖K_t − K_0‖ / ‖K_0‖, Frobenius, over any layout.

    With batch statistics, whether K_t is taken with those of θ0 or of θ_t is the caller's choice,
    and two numbers: see above.

    Raises:
        ValueError: shapes that differ, entries that are not finite, a zero ``kernel_0``.

    >>> drift([[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 0.0]])
    1.4142135623730951
    """
    now, then = _pair("kernel_t", kernel_t, "kernel_0", kernel_0)
    norm = np.linalg.norm(then.ravel())
    if norm == 0:
        raise ValueError("kernel_0 is zero: no drift is relative to it; do its parameters train?")
    return float(np.linalg.norm((now - then).ravel()) / norm)


def alignment(kernel_a: ArrayLike, kernel_b: ArrayLike, centered: bool = True) -> float:
    """⟨A, B⟩ / (‖A‖ ‖B‖), Frobenius: kernel alignment, centred after Cortes et al. 2012, eq. 4.

    Args:
        kernel_a: (N, N), (N, N, C) or (N, N, C, C), the same points on both sides.
        kernel_b: of the same shape.
        centered: subtract the points' mean from the features of each output first,
            K → H K H with H = I − 11ᵀ/N.

    Returns:
        In [0, 1] for positive semi-definite kernels, 1 for proportional ones.

    Raises:
        ValueError: shapes that differ or are not square, entries that are not finite, a kernel
            that is zero (once centred).

    >>> alignment([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [1.0, 1.0]], centered=False)
    0.7071067811865475
    """
    a, b = _pair("kernel_a", kernel_a, "kernel_b", kernel_b)
    if a.ndim not in (2, 3, 4) or a.shape[0] != a.shape[1]:
        raise ValueError(f"kernels have shape {a.shape}; expected the same N points on both sides")
    norms = np.linalg.norm(a.ravel()), np.linalg.norm(b.ravel())
    if centered:
        a, b = _centered(a), _centered(b)
    aligned = np.linalg.norm(a.ravel()), np.linalg.norm(b.ravel())
    for name, norm, before in zip(("kernel_a", "kernel_b"), aligned, norms, strict=True):
        if norm <= 1e-14 * before:
            raise ValueError(
                f"{name} is zero{', once centred' if centered else ''}: it has no direction to "
                "align; are all points or labels the same?"
            )
    return float(np.vdot(a, b) / (aligned[0] * aligned[1]))


def target_alignment(kernel: ArrayLike, labels: ArrayLike, centered: bool = True) -> float:
    """Alignment with the kernel that the labels make (Cristianini et al. 2001; Cortes et al. 2012).

    Args:
        kernel: (N, N) or "full" (N, N, C, C).
        labels: (N,) integer classes, taken as one-hot rows, or targets Y (N, C). They make
            Y Yᵀ beside a trace kernel, and Y_nc Y_n'c' beside a full one, whose trace that is.
        centered: as in :func:`alignment`.

    Raises:
        ValueError: as :func:`alignment`; labels that fit neither form, one class only.

    >>> target_alignment([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    1.0
    """
    k = np.asarray(kernel)
    if k.ndim not in (2, 4):
        raise ValueError(f"kernel has shape {k.shape}; expected (N, N) or (N, N, C, C)")
    classes = k.shape[2] if k.ndim == 4 else None
    targets = _targets(labels, k.shape[0], classes)
    if k.ndim == 2:
        return alignment(k, targets @ targets.T, centered)
    return alignment(k, np.einsum("nc,md->nmcd", targets, targets), centered)


def linearization_gap(
    f_outputs: ArrayLike,
    f_lin_outputs: ArrayLike,
    labels: ArrayLike,
    f0_outputs: ArrayLike | None = None,
) -> LinearizationGap:
    """The first condition of kernel behaviour: f(θ_t) beside f_lin(θ_t) on the same examples.

    Args:
        f_outputs: (N, C) logits of the model at θ_t.
        f_lin_outputs: (N, C) logits of its linearization around θ0, at θ_t.
        labels: (N,) integer classes.
        f0_outputs: (N, C) logits at θ0, for the gap's share of the change.

    Raises:
        ValueError: shapes that differ, entries that are not finite, labels out of range.

    >>> gap = linearization_gap([[3.0, 0.0]], [[0.0, 4.0]], [0], f0_outputs=[[0.0, 0.0]])
    >>> gap.accuracy, gap.agreement, round(gap.output, 3)
    (1.0, 0.0, 1.667)
    """
    f, f_lin = _pair("f_outputs", f_outputs, "f_lin_outputs", f_lin_outputs)
    if f.ndim != 2:
        raise ValueError(f"f_outputs has shape {f.shape}; expected (N, C)")
    classes = class_labels(labels, *f.shape)
    gap = float(np.linalg.norm(f - f_lin))
    change = None
    if f0_outputs is not None:
        _, f0 = _pair("f_outputs", f_outputs, "f0_outputs", f0_outputs)
        change = _ratio(gap, float(np.linalg.norm(f - f0)))
    one, two = f.argmax(1), f_lin.argmax(1)
    return LinearizationGap(
        output=_ratio(gap, float(np.linalg.norm(f))),
        output_of_change=change,
        loss=_cross_entropy(f, classes) - _cross_entropy(f_lin, classes),
        accuracy=float((one == classes).mean() - (two == classes).mean()),
        agreement=float((one == two).mean()),
    )


def movement(
    params_t: Params, params_0: Params, blocks: Mapping[str, tree.Pattern] | int = 1
) -> Movement:
    """‖θ_t − θ0‖ in each block, absolute and relative, in float64.

    Args:
        params_t: the parameters now.
        params_0: those they began from.
        blocks: patterns of names (:func:`linearize.tree.select`) by block, which may overlap; or a
            number: leaves whose names agree in so many leading parts are a block.

    Raises:
        StructureMismatch: the two trees differ in names or shapes.
        ValueError: a pattern that picks nothing, a number below 1.

    >>> old = {"in": {"kernel": np.zeros(2)}, "out": {"kernel": np.array([3.0, 4.0])}}
    >>> new = {"in": {"kernel": np.zeros(2)}, "out": {"kernel": np.array([3.0, 5.0])}}
    >>> movement(new, old).blocks["out"]
    BlockMovement(distance=1.0, relative=0.2, size=2)
    """
    tree.check_match(params_0, params_t, what="params_t")
    now, then, names = tree.flatten(params_t), tree.flatten(params_0), tree.select(params_0)
    if isinstance(blocks, int):
        if blocks < 1:
            raise ValueError(f"blocks={blocks}; expected 1 or more leading parts of the names")
        members: dict[str, tuple[str, ...]] = {}
        for name in names:
            key = "/".join(name.split("/")[:blocks])
            members[key] = (*members.get(key, ()), name)
    else:
        members = {block: tree.select(params_0, pattern) for block, pattern in blocks.items()}

    def moved(picked: tuple[str, ...]) -> BlockMovement:
        old = [_wide(then[n]) for n in picked]
        gaps = [_wide(now[n]) - o for n, o in zip(picked, old, strict=True)]
        distance, norm = (
            float(np.linalg.norm([np.linalg.norm(v) for v in x])) for x in (gaps, old)
        )
        return BlockMovement(distance, _ratio(distance, norm), sum(v.size for v in old))

    return Movement({block: moved(picked) for block, picked in members.items()}, moved(names))


def fixed_features(diagonal_t: ArrayLike, diagonal_0: ArrayLike, cross: ArrayLike) -> FixedFeatures:
    """The second condition: mean over the points of ‖∇f(x; θ_t) − ∇f(x; θ0)‖ / ‖∇f(x; θ0)‖.

    Gradients are met only through kernels: ‖a − b‖² = ⟨a, a⟩ + ⟨b, b⟩ − 2⟨a, b⟩. Float32 entries
    resolve changes down to some 3e-4.

    Args:
        diagonal_t: k_t(x, x) = ‖∇f(x; θ_t)‖², (N,) or (N, C).
        diagonal_0: k_0(x, x), of the same shape.
        cross: ⟨∇f(x; θ_t), ∇f(x; θ0)⟩, of the same shape.

    Raises:
        ValueError: shapes that differ; values that are not finite; a zero in ``diagonal_0``; values
            that no gradients have (negative squares).

    >>> fixed_features([4.0, 1.0], [1.0, 1.0], [2.0, 0.0]).per_point.round(6)
    array([1.      , 1.414214])
    """
    now, then = _pair("diagonal_t", diagonal_t, "diagonal_0", diagonal_0)
    _, both = _pair("diagonal_0", diagonal_0, "cross", cross)
    if then.min() <= 0 or now.min() < 0:
        raise ValueError(
            f"diagonal_0 spans {then.min():.3g} to {then.max():.3g} and "
            f"diagonal_t begins at {now.min():.3g}; squared norms of gradients are "
            "positive at θ0 and not negative later: leave out points without a gradient"
        )
    squares = now + then - 2 * both
    if (squares < -1e-4 * (now + then)).any():
        raise ValueError(
            f"diagonal_t + diagonal_0 − 2 cross reaches {squares.min():.3g}; the three do not "
            "belong to the same gradients"
        )
    per_point = np.sqrt(np.maximum(squares, 0) / then)
    return FixedFeatures(float(per_point.mean()), per_point)


def _pair(name_a: str, a: ArrayLike, name_b: str, b: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    left, right = widen(name_a, a), widen(name_b, b)
    if left.shape != right.shape:
        raise ValueError(f"{name_a} has shape {left.shape} and {name_b} {right.shape}; one layout")
    return left, right


def _centered(kernel: np.ndarray) -> np.ndarray:
    kernel = kernel - kernel.mean(0, keepdims=True)
    return kernel - kernel.mean(1, keepdims=True)


def _targets(labels: ArrayLike, points: int, classes: int | None) -> np.ndarray:
    given = np.asarray(labels)
    if given.ndim == 1 and given.dtype.kind in "iu":
        top = int(given.max(initial=0)) + 1 if classes is None else classes
        return np.eye(top)[class_labels(given, points, top)]
    if given.ndim != 2 or len(given) != points or classes not in (None, given.shape[1]):
        raise ValueError(
            f"labels has shape {given.shape} and dtype {given.dtype}; expected ({points},) "
            f"integers or targets ({points}, {classes or 'C'})"
        )
    return given.astype(np.float64)


def _cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    log_p = scipy.special.log_softmax(logits, axis=1)
    return float(-log_p[np.arange(len(labels)), labels].mean())


def _ratio(top: float, bottom: float) -> float:
    return top / bottom if bottom else (np.inf if top else 0.0)


def _wide(leaf: ArrayLike) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)

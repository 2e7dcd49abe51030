"""What a solver refuses: each error names the argument, the value and the next action."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import scipy.linalg
from jax.typing import ArrayLike

from linearize.fields import number
from linearize.ntk.layout import LAYOUTS, to_blocks

ASYMMETRY = 1e-4
"""Largest |K − Kᵀ| that counts as rounding, relative to the largest |K|."""

NEGATIVE = 1e-5
"""Largest −λ that counts as rounding, relative to the largest eigenvalue: float32's, with room."""

_SHOWN = 5


class NotConvergedError(RuntimeError):
    """An iteration stopped short of its tolerance; ``solution``, where there is one, says where."""

    def __init__(self, message: str, solution: Any = None) -> None:
        """Keep the solution reached beside the message."""
        super().__init__(message)
        self.solution = solution


def widen(argument: str, values: ArrayLike) -> np.ndarray:
    """Finite float64 numbers, from any real dtype.

    Raises:
        ValueError: complex numbers or none, NaN or infinity.

    >>> widen("kernel", np.ones(2, np.float16)).dtype
    dtype('float64')
    """
    array = np.asarray(values)
    if np.iscomplexobj(array) or array.dtype.kind in "OUSMm":
        raise ValueError(f"{argument} has dtype {array.dtype}; expected real numbers")
    if not array.size:
        raise ValueError(
            f"{argument} has shape {array.shape}: it is empty; give one example or more"
        )
    wide = array.astype(np.float64)
    bad = np.argwhere(~np.isfinite(wide))
    if len(bad):
        raise ValueError(
            f"{argument} holds NaN or infinity in {len(bad)} of {wide.size} entries, the first at "
            f"{tuple(bad[0].tolist())}; check the model's outputs and Jacobians on that input"
        )
    return wide


def square_kernel(kernel: ArrayLike, outputs: int | None = None) -> np.ndarray:
    """A kernel of one set of inputs with itself: float64, finite, exactly symmetric.

    Asymmetry up to :data:`ASYMMETRY` is rounding and is averaged away.

    Args:
        kernel: (N, N), (N, N, C) or (N, N, C, C).
        outputs: C, where it is known.

    Raises:
        ValueError: another shape, NaN or infinity, or more asymmetry than that.

    >>> square_kernel(np.array([[2.0, 1.0], [3.0, 2.0]]))
    Traceback (most recent call last):
        ...
    ValueError: kernel is asymmetric: the largest |K - K^T| is 6.7e-01 of the largest |K|, more \
than 1e-04; pass the kernel of the training inputs with themselves, or its symmetric part
    """
    wide = widen("kernel", kernel)
    ends = wide.shape[2:]
    if wide.ndim not in (2, 3, 4) or wide.shape[0] != wide.shape[1] or len(set(ends)) > 1:
        raise ValueError(
            f"kernel has shape {wide.shape}; expected {LAYOUTS} with N1 = N2 and C1 = C2: the "
            "kernel of the training inputs with themselves"
        )
    if outputs is not None and ends and ends[0] != outputs:
        raise ValueError(
            f"kernel has shape {wide.shape}, that is {ends[0]} outputs, but f0 has {outputs}; "
            "give the outputs of the model that the kernel is of"
        )
    mirrored = wide.transpose({2: (1, 0), 3: (1, 0, 2), 4: (1, 0, 3, 2)}[wide.ndim])
    asymmetry, largest = float(np.abs(wide - mirrored).max()), float(np.abs(wide).max())
    if asymmetry > ASYMMETRY * largest:
        raise ValueError(
            f"kernel is asymmetric: the largest |K - K^T| is {asymmetry / largest:.1e} of the "
            f"largest |K|, more than {ASYMMETRY:.0e}; pass the kernel of the training inputs with "
            "themselves, or its symmetric part"
        )
    return wide if asymmetry == 0 else (wide + mirrored) / 2


def outputs_like(
    argument: str, values: ArrayLike, examples: int, outputs: int | None
) -> np.ndarray:
    """Finite float64 outputs or targets (N, C) that fit a kernel of N examples.

    Raises:
        ValueError: another shape, NaN or infinity.

    >>> outputs_like("y", [[0, 1], [1, 0]], examples=2, outputs=2).shape
    (2, 2)
    """
    wide = widen(argument, values)
    if wide.ndim != 2 or wide.shape[0] != examples or outputs not in (None, wide.shape[1]):
        hint = ""
        if wide.shape == (examples,) and np.asarray(values).dtype.kind in "iu" and outputs != 1:
            hint = f"; these integers look like class labels: give np.eye({outputs or 'C'})"
            hint += f"[{argument}], a one-hot row each"
        elif wide.shape == (examples,) and outputs in (1, None):
            hint = f"; reshape it to ({wide.shape[0]}, 1)"
        raise ValueError(
            f"{argument} has shape {wide.shape}; expected ({examples}, {outputs or 'C'}), one row "
            f"for each of the kernel's examples{hint}"
        )
    return wide


def kernel_and_outputs(kernel: ArrayLike, f0: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """A training kernel and the outputs f0 (N, C) that belong to it, both checked.

    Raises:
        ValueError: as :func:`square_kernel` and :func:`outputs_like`.

    >>> [a.shape for a in kernel_and_outputs(np.eye(3), np.zeros((3, 2)))]
    [(3, 3), (3, 2)]
    """
    initial = widen("f0", f0)
    outputs = initial.shape[1] if initial.ndim == 2 else None
    square = square_kernel(kernel, outputs)
    return square, outputs_like("f0", initial, len(square), outputs)


def class_labels(labels: ArrayLike, examples: int, classes: int) -> np.ndarray:
    """Integer class labels (N,) in 0, ..., classes − 1.

    Raises:
        ValueError: another shape or dtype, or a label outside the range.

    >>> class_labels([0, 2], examples=2, classes=2)
    Traceback (most recent call last):
        ...
    ValueError: labels[1] is 2; expected 0 to 1: the outputs give 2 classes
    """
    array = np.asarray(labels)
    if array.shape != (examples,):
        raise ValueError(
            f"labels has shape {array.shape}; expected ({examples},), one class index for each of "
            "the kernel's examples"
        )
    if array.dtype.kind not in "iub":
        raise ValueError(f"labels has dtype {array.dtype}; expected integer class indices")
    outside = np.flatnonzero((array < 0) | (array >= classes))
    if len(outside):
        first = int(outside[0])
        raise ValueError(
            f"labels[{first}] is {array[first]}; expected 0 to {classes - 1}: the outputs give "
            f"{classes} classes"
        )
    return array.astype(np.int64)


def finite(argument: str, value: float) -> float:
    """A finite number.

    >>> finite("f0_scale", 1)
    1.0
    """
    return number(argument, value)


def nonnegative(argument: str, value: float) -> float:
    """A finite number of at least 0.

    >>> nonnegative("ridge", 0.5)
    0.5
    """
    found = number(argument, value)
    if found < 0:
        raise ValueError(f"{argument}={value}; expected a finite number, 0 or more")
    return found


def cholesky(kernel: np.ndarray, ridge: float) -> list[np.ndarray]:
    """Lower Cholesky factors of each block of K + ridge I: the cheap proof that it is definite.

    Eigenvalues are computed only where it fails, for the message.

    Args:
        kernel: what :func:`square_kernel` returned.
        ridge: added to the diagonal.

    Returns:
        One factor for each of :func:`linearize.ntk.layout.to_blocks`.

    Raises:
        ValueError: K + ridge I is indefinite or singular to float64's rounding; with the smallest
            eigenvalue and a ridge that suffices.

    >>> cholesky(np.array([[1.0, 2.0], [2.0, 1.0]]), ridge=0.0)
    Traceback (most recent call last):
        ...
    ValueError: kernel is indefinite: its smallest eigenvalue is -1.0e+00, its largest 3.0e+00; \
ridge=2.1e+00 would make it safe (got ridge=0.0)
    """
    factors = []
    for block in to_blocks(kernel):
        shifted = block + ridge * np.eye(len(block))
        try:
            factor = scipy.linalg.cholesky(shifted, lower=True, overwrite_a=True)
        except np.linalg.LinAlgError:
            raise ValueError(_indefinite(kernel, ridge)) from None
        pivots = np.diagonal(factor) ** 2
        if pivots.min() <= len(block) * np.finfo(np.float64).eps * pivots.max():
            raise ValueError(_indefinite(kernel, ridge))
        factors.append(factor)
    return factors


def check_semidefinite(kernel: np.ndarray, slack: float = np.inf) -> None:
    """Negative eigenvalues are no more than rounding, by one Cholesky factorization.

    Args:
        kernel: what :func:`square_kernel` returned.
        slack: how negative an eigenvalue may be at most, where less than :data:`NEGATIVE` of the
            largest is allowed.

    Raises:
        ValueError: an eigenvalue is more negative; with its value and a jitter that suffices.

    >>> check_semidefinite(np.ones((2, 2)))
    """
    for block in to_blocks(kernel):
        # the largest row sum bounds the largest eigenvalue
        shift = min(slack, NEGATIVE * float(np.abs(block).sum(1).max()))
        try:
            scipy.linalg.cholesky(block + shift * np.eye(len(block)), lower=True, overwrite_a=True)
        except np.linalg.LinAlgError:
            smallest, _, enough = _extremes(kernel)
            if smallest < 0:
                raise ValueError(
                    f"kernel is indefinite: its smallest eigenvalue is {smallest:.1e}; compute it "
                    f"in float64, or add {enough:.1e} to its diagonal"
                ) from None


def check_eigenvalues(values: np.ndarray, ridge: float = 0.0) -> np.ndarray:
    """Eigenvalues of K + ridge I from those of K; what is below 0 by rounding becomes 0.

    Raises:
        ValueError: one is more negative than :data:`NEGATIVE` of the largest.

    >>> check_eigenvalues(np.array([-1e-9, 1.0])).tolist()
    [0.0, 1.0]
    """
    shifted = values + ridge
    if shifted.min() < -NEGATIVE * abs(shifted.max()):
        raise ValueError(_message(float(values.min()), float(values.max()), ridge))
    return np.maximum(shifted, 0.0)


def check_disjoint(train_ids: ArrayLike, test_ids: ArrayLike) -> None:
    """No example is both trained and tested on.

    Args:
        train_ids: (N,) names or numbers of the training examples.
        test_ids: (M,) those of the test examples.

    Raises:
        ValueError: with how many are in both, and the first few.

    >>> check_disjoint(["a", "b"], ["c"])
    """
    shared = np.intersect1d(np.asarray(train_ids), np.asarray(test_ids)).tolist()
    if shared:
        raise ValueError(
            f"train and test ids overlap in {len(shared)}: {shorten(shared)}; accuracy on examples "
            "that were trained on is no test; drop them from one side"
        )


def shorten(values: Iterable[object]) -> str:
    """The first few of many, for a message.

    >>> shorten(range(9))
    '0, 1, 2, 3, 4, ...'
    """
    listed = [repr(v) for v in values]
    return ", ".join(listed[:_SHOWN] + ["..."] * (len(listed) > _SHOWN))


def _extremes(kernel: np.ndarray) -> tuple[float, float, float]:
    """Smallest and largest eigenvalue, and a diagonal shift that makes Cholesky succeed."""
    values = [scipy.linalg.eigvalsh(block) for block in to_blocks(kernel)]
    smallest, largest = min(float(v[0]) for v in values), max(float(v[-1]) for v in values)
    return smallest, largest, _enough(smallest, largest)


def _enough(smallest: float, largest: float) -> float:
    return 2.1 * max(0.0, -smallest) + 1e-8 * max(abs(smallest), abs(largest)) or 1.0


def _indefinite(kernel: np.ndarray, ridge: float) -> str:
    smallest, largest, _ = _extremes(kernel)
    return _message(smallest, largest, ridge)


def _message(smallest: float, largest: float, ridge: float) -> str:
    rounding = 1e-12 * abs(largest)
    kind = "indefinite" if smallest < -rounding else "singular to rounding"
    return (
        f"kernel is {kind}: its smallest eigenvalue is {smallest:.1e}, its largest {largest:.1e}; "
        f"ridge={_enough(smallest, largest):.1e} would make it safe (got ridge={ridge})"
    )

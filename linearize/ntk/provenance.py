"""Which arrays are trace kernels: an array (N, N) does not tell, and solvers should know.

A trace kernel is C times the mean over outputs. To a solver, for which a kernel (N, N) is that of
every output, the same ridge regularises it C times less, and so does the same time of a flow.
"""

import warnings
import weakref
from typing import TypeVar

import numpy as np

A = TypeVar("A", bound=np.ndarray)

_OUTPUTS: dict[int, int] = {}
"""C of each living array that is known to be a trace kernel, by its id."""


class TraceKernelWarning(UserWarning):
    """A trace kernel of several outputs where the kernel of every output is expected."""


def note_trace(kernel: A, outputs: int) -> A:
    """Remember that this array, and views of it, are a trace over so many outputs."""
    _OUTPUTS[id(kernel)] = outputs
    weakref.finalize(kernel, _OUTPUTS.pop, id(kernel), None)
    return kernel


def traced_outputs(kernel: object) -> int | None:
    """C of an array that is known to be a trace kernel; None of any other, sums and copies too."""
    while kernel is not None and id(kernel) not in _OUTPUTS:
        kernel = getattr(kernel, "base", None)
    return _OUTPUTS.get(id(kernel))


def warn_of_trace(kernel: object, argument: str, value: float, depth: int = 2) -> None:
    """Say what regularising a trace kernel means, where the array is one of several outputs.

    Args:
        kernel: as the user gave it.
        argument: of the regularisation.
        value: what it is; nothing is said where it is 0.
        depth: calls between the user's and this one.
    """
    outputs = traced_outputs(kernel)
    if value and outputs is not None and outputs > 1:
        warnings.warn(
            f"kernel is a trace over {outputs} outputs, {outputs} times their mean, so "
            f"{argument}={value:g} regularises {outputs} times less than beside the full kernel; "
            f"give kernel(..., output='mean') or kernel / {outputs}, or, if that is meant, a copy",
            TraceKernelWarning,
            stacklevel=depth + 2,
        )


def warn_of_steps(traced: int | None) -> None:
    """Say that a solution on a trace kernel moves weights too little.

    Args:
        traced: C of the solution's K(X, X), where that is known to have been a trace.
    """
    if traced is not None and traced > 1:
        warnings.warn(
            f"coefficients were solved for on a trace over {traced} outputs, {traced} times the "
            f"kernel of each, so that the weights move {traced} times too little: f0 + Jτ is not "
            "what the solution predicts; solve on kernel(..., output='full'), or on 'mean', whose "
            "scale is that of the model",
            TraceKernelWarning,
            stacklevel=4,
        )


def warn_of_another(kernel: object, traced: int | None) -> None:
    """Say that a trace kernel stands beside a solution that is of none.

    Args:
        kernel: K(x, X), as the user gave it.
        traced: C of the solution's K(X, X), where that is known to have been a trace.
    """
    outputs = traced_outputs(kernel)
    if outputs is not None and outputs > 1 and traced is None:
        warnings.warn(
            f"kernel is a trace over {outputs} outputs, and the solution is not known to be of "
            f"one, so that its predictions move {outputs} times too far; give the layout that the "
            "training kernel has, or, if it was a trace itself, a copy",
            TraceKernelWarning,
            stacklevel=3,
        )

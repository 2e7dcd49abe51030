"""Which arrays are trace kernels: an array (N, N) does not tell, and solvers should know.

A trace kernel is C times the mean over outputs. To a solver, for which a kernel (N, N) is that of
every output, the same ridge regularises it C times less.
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


def warn_of_trace(kernel: object, argument: str, value: float) -> None:
    """Say what regularising a trace kernel means, where the array is one of several outputs.

    Args:
        kernel: as the user gave it.
        argument: of the regularisation.
        value: what it is; nothing is said where it is 0.
    """
    outputs = traced_outputs(kernel)
    if value and outputs is not None and outputs > 1:
        warnings.warn(
            f"kernel is a trace over {outputs} outputs, {outputs} times their mean, so "
            f"{argument}={value:g} regularises {outputs} times less than beside the full kernel; "
            f"give kernel(..., output='mean') or kernel / {outputs}, or, if that is meant, a copy",
            TraceKernelWarning,
            stacklevel=4,
        )

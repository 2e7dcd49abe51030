"""Numbers of a compiled program beside the same numbers computed another way.

What a compiler gets wrong it gets wrong by far: sums over other rows, memory that nobody wrote. So
a few numbers, drawn with a fixed seed, are computed a second time by a program of another
structure, and two that differ by more than rounding stop the work. What counts as rounding follows
from the arithmetic: with ε of the narrowest floating dtype on the way, and a scale that bounds the
sum of the terms' magnitudes (Cauchy–Schwarz: the norms of two Jacobian rows, say),

    |found − expected| ≤ 2 √ε · scale

which leaves a condition number of 1/√ε, 3,000 in float32, to the model. Accelerators round the
factors of float32 products to fewer digits; there ε is bfloat16's at least.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import cost

SEED = 13
"""Of the entries that are drawn."""


class DisagreementError(ArithmeticError):
    """A compiled program gave another number than a second way to it; neither is to be trusted.

    Attributes:
        what: the quantity and how it was computed.
        entry: which of its entries.
        found: the program's number.
        expected: that of the second way.
    """

    def __init__(self, what: str, entry: str, found: float, expected: float, bound: float) -> None:
        """Keep both numbers beside the message."""
        super().__init__(
            f"{what}: entry {entry} is {found:.7g}, and {expected:.7g} by a second way (products "
            f"of single examples); rounding explains {bound:.2g}. The compiler made a wrong "
            f"program (jax {jax.__version__}, {jax.default_backend()}) and no result was returned: "
            "set XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= before Python starts, take "
            "another implementation, dtype or version of jaxlib, and report it with this line"
        )
        self.what, self.entry, self.found, self.expected = what, entry, found, expected


def narrowest(f: Callable[..., Any], *specs: Any) -> np.dtype:
    """The floating dtype of fewest digits among all arrays of a traced function.

    >>> narrowest(lambda x: x.astype(jnp.bfloat16).sum().astype(jnp.float32), jnp.ones(3)).name
    'bfloat16'
    """
    traced = jax.make_jaxpr(f)(*specs)
    avals = [v.aval for e in cost.equations(traced.jaxpr) for v in (*e.invars, *e.outvars)]
    dtypes = [a.dtype for a in (*traced.in_avals, *avals) if hasattr(a, "dtype")]
    wide = [d for d in dtypes if jnp.issubdtype(d, jnp.inexact)]
    return max(wide, key=lambda d: float(jnp.finfo(d).eps), default=np.dtype(np.float32))


def relative(*dtypes: Any) -> float:
    """2 √ε of the narrowest of these dtypes, or of what the device multiplies in.

    >>> relative(np.float64) < relative(np.float32) < relative(jnp.bfloat16)
    True
    """
    if jax.default_backend() != "cpu":
        dtypes = (*dtypes, jnp.bfloat16)
    return float(2 * np.sqrt(max(float(jnp.finfo(d).eps) for d in dtypes)))


def agree(
    found: Any,
    expected: float,
    *,
    scale: float,
    dtypes: tuple[Any, ...],
    terms: int,
    what: str,
    entry: str,
    slack: float = 0.0,
) -> None:
    """One entry, both ways.

    Args:
        found: the compiled program's.
        expected: of the second way, in float64.
        scale: a bound of Σ |terms|.
        dtypes: all through which the number went.
        terms: how many were summed: each may have underflowed.
        what: the quantity and its implementation, for the message.
        entry: its place, for the message.
        slack: what else may lie between the two.

    Raises:
        DisagreementError: they differ by more than rounding, or ``found`` is not finite where
            ``expected`` is one of its dtype's numbers.
    """
    tiny = max(float(jnp.finfo(d).tiny) for d in dtypes)
    largest = min(float(jnp.finfo(d).max) for d in dtypes)
    bound = relative(*dtypes) * scale + terms * tiny + slack
    gap = abs(float(found) - expected)
    if not gap <= bound and abs(expected) + bound < largest:
        raise DisagreementError(what, entry, float(found), expected, bound)

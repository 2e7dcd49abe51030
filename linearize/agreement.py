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

import logging
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import cost, identity
from linearize.types import PyTree

log = logging.getLogger(__name__)

SEED = 13
"""Of the entries that are drawn."""

_REMEMBERED = 256
_SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision")


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
            f"{what}: entry {entry} is {found:.7g}, and {expected:.7g} by a second way; rounding "
            f"explains {bound:.2g}. The compiler made a wrong "
            f"program (jax {jax.__version__}, {jax.default_backend()}) and no result was returned: "
            "set XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= before Python starts, take "
            "another implementation, dtype or version of jaxlib, and report it with this line"
        )
        self.what, self.entry, self.found, self.expected = what, entry, found, expected


@lru_cache(maxsize=_REMEMBERED)
def _met(key: Hashable) -> set[str]:
    return set()


def once(check: Callable[[], None], what: str, *static: Hashable, arrays: PyTree = ()) -> None:
    """Run a check of a program that has not passed it yet: one of these functions and shapes.

    >>> once(lambda: print("checked"), "doubling", abs)
    checked
    >>> once(lambda: print("checked"), "doubling", abs)
    """
    met = _met((*static, specification(arrays), settings()))
    if what not in met:
        check()
        met.add(what)


def settings() -> tuple[Any, ...]:
    """Those of JAX that a traced program depends on."""
    return tuple(jax.config.values[name] for name in _SETTINGS)


def settle(
    check: Callable[[Any], None], *ways: Callable[[], Any], fixed: Callable[[], bool]
) -> None:
    """Let a check pass by one of the second ways, each taken where the one before disagrees.

    The last way decides; where it cannot be taken, nothing does.

    Args:
        check: of what a way gives; raises :class:`DisagreementError`.
        *ways: may fail in the user's function, which need not take one example, or run uncompiled.
        fixed: whether two programs of that function are to agree (:func:`is_fixed`).

    Raises:
        DisagreementError: that of the last way.
    """
    failed = None
    for way in ways:
        failed = None
        try:
            other = way()
        except Exception as error:
            log.debug("a second way cannot be taken: %r", error)
            continue
        try:
            return check(other)
        except DisagreementError as error:
            failed = error
    if failed is not None and fixed():
        raise failed
    return None


def specification(arrays: PyTree) -> Hashable:
    """Structure, shapes and dtypes: equal where one compiled program serves both.

    >>> specification({"a": np.zeros(2)}) == specification({"a": np.ones(2)})
    True
    """
    leaves, structure = jax.tree.flatten(arrays)
    return structure, tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)


def is_fixed(f: Callable[..., Any], *args: PyTree) -> bool:
    """Whether two programs made of ``f`` are to give the same numbers, and may be compared.

    Not where ``f`` draws a random number in Python, counts its calls or calls back to Python: that
    is logged.
    """
    try:
        identity.program(f, *args)
    except identity.UnidentifiedError as error:
        log.warning("a number cannot be checked by a second way: of the function, %s", error)
        return False
    return True


def precision(f: Callable[..., Any], *args: PyTree) -> np.dtype:
    """:func:`narrowest`, traced once for each function and shapes."""
    return _precision(f, specification(args))


@lru_cache(maxsize=_REMEMBERED)
def _precision(f: Callable[..., Any], kind: Any) -> np.dtype:
    structure, specs = kind
    shapes = [jax.ShapeDtypeStruct(*spec) for spec in specs]
    return narrowest(f, *jax.tree.unflatten(structure, shapes))


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

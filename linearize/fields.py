"""Fields of a configuration, checked where it is made or read: kinds and ranges by annotation.

>>> @dataclasses.dataclass(frozen=True)
... class Config:
...     seeds: tuple[Natural, ...] = (0,)
...     def __post_init__(self) -> None:
...         check(self, "run.")
>>> Config(seeds=(0, -1))
Traceback (most recent call last):
ValueError: run.seeds[1]=-1; expected 0 or more
"""

import dataclasses
import functools
import math
import operator
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from linearize import choices

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers that a field may have, as a condition and in words."""

    low: float
    high: float = math.inf
    above: bool = False
    """Whether ``low`` itself is left out."""

    def holds(self, value: float) -> bool:
        """Whether the number is one of them."""
        return (self.low < value if self.above else self.low <= value) and value <= self.high

    def __str__(self) -> str:
        if isinstance(self.high, int):
            return f"an integer from {self.low} to {self.high}"
        if self.high < math.inf:
            return f"a number in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"
        return "a positive number" if self.above else f"{self.low:g} or more"


Count = Annotated[int, Range(1)]
"""1, 2, 3, ..."""
Natural = Annotated[int, Range(0)]
"""0, 1, 2, ..."""
TwoOrMore = Annotated[int, Range(2)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
"""What seeds JAX's generator, which looks at 32 bits of it."""
Share = Annotated[float, Range(0, 1.0)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]

_PLAIN: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool, np.bool_), "True or False"),
    int: ((int, np.integer), "an integer"),
    float: ((int, float, np.integer, np.floating), "a finite number"),
    str: ((str,), "a string"),
    type(None): ((type(None),), "None"),
}


def each(argument: str, given: Any, n: int, of: str = "tasks") -> list[Any]:
    """What is given for each of n things: a sequence of as many, or one for all.

    Raises:
        ValueError: a sequence of another length.
    """
    if not isinstance(given, Sequence):
        return [given] * n
    if len(given) != n:
        raise ValueError(f"{argument} has {len(given)} entries for {n} {of}")
    return list(given)


def integer(argument: str, value: Any, low: int | None = None) -> int:
    """An argument that is an integer of any kind, an array of one too.

    Raises:
        ValueError: it is none (2.0 and True are not), or is below ``low``.

    >>> integer("batch_size", 2.5, low=1)
    Traceback (most recent call last):
    ValueError: batch_size=2.5; expected an integer, 1 or more
    """
    try:
        found = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        found = None
    if found is None or (low is not None and found < low):
        bound = "" if low is None else f", {low} or more"
        raise ValueError(f"{argument}={value!r}; expected an integer{bound}")
    return found


_SEEDS = 2**32


def seed(argument: str, value: Any) -> int:
    """An argument that seeds JAX's generator, which looks at 32 bits of it.

    Raises:
        ValueError: it is no integer from 0 to 2³² − 1: another one of these would draw the same.

    >>> seed("seed", 2**32)
    Traceback (most recent call last):
    ValueError: seed=4294967296; expected an integer from 0 to 4294967295
    """
    found = integer(argument, value, low=0)
    if found >= _SEEDS:
        raise ValueError(f"{argument}={value!r}; expected an integer from 0 to {_SEEDS - 1}")
    return found


def number(argument: str, value: Any) -> float:
    """An argument that is one finite number; an array of one will do.

    Raises:
        ValueError: it is none.

    >>> number("scale", "x")
    Traceback (most recent call last):
    ValueError: scale='x'; expected a finite number
    """
    if np.ndim(value) or np.asarray(value).dtype.kind not in "iufV" or not np.isfinite(value):
        raise ValueError(f"{argument}={value!r}; expected a finite number")
    return float(value)


def near_zero(coefficients: np.ndarray) -> np.ndarray:
    """The same, 0 where only rounding keeps one from it, as on a grid of ``np.linspace``.

    >>> near_zero(np.linspace(-0.3, 1.0, 14))[3].item(), np.linspace(-0.3, 1.0, 14)[3].item()
    (0.0, 5.551115123125783e-17)
    """
    size = np.abs(coefficients)
    return np.where(size <= 1e-12 * size.max(), 0.0, coefficients)


def rising(argument: str, values: ArrayLike, least: int = 1) -> np.ndarray:
    """A grid of coefficients as float64 (A,), with :func:`near_zero`.

    Raises:
        ValueError: it is no axis of ``least`` or more finite numbers (in float32 too), each above
            the one before.

    >>> rising("alphas", [1.0, 0.5])
    Traceback (most recent call last):
    ValueError: alphas=[1.0, 0.5]; expected rising finite numbers on one axis, 1 or more
    """
    try:
        grid = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        grid = np.zeros(())
    finite = (np.abs(grid) <= np.finfo(np.float32).max).all()
    if grid.ndim != 1 or len(grid) < least or not finite or (np.diff(grid) <= 0).any():
        shown = values.tolist() if isinstance(values, np.ndarray) else values
        raise ValueError(
            f"{argument}={shown}; expected rising finite numbers on one axis, {least} or more"
        )
    return near_zero(grid)


def box(argument: str, ends: Sequence[float], grid: np.ndarray) -> tuple[float, float]:
    """The ends of a part of a grid, which need not be on it: the part is the coefficients between.

    Raises:
        ValueError: they are no two numbers, or no coefficient of the grid lies between them.
    """
    if np.shape(ends) == (2,):
        low, high = (number(argument, end) for end in ends)
        if ((grid >= low - 1e-9) & (grid <= high + 1e-9)).any():
            return low, high
    raise ValueError(
        f"{argument}={ends!r}; expected (low, high) with a coefficient of the grid between them, "
        f"which has {len(grid)} from {grid[0]:g} to {grid[-1]:g}"
    )


def check(config: Any, where: str = "", error: type[ValueError] = ValueError) -> None:
    """Every field has a value of its kind and in its range, within tuples and mappings too.

    Args:
        config: an instance of a dataclass.
        where: the way to it, such as ``data.``, for the message.
        error: what to raise.

    Raises:
        ValueError: or ``error``, with the field's path, its value, and what was expected.
    """
    kind: Any = type(config)
    try:
        for name, hint in _hints(kind).items():
            _fitting(hint, getattr(config, name), f"{where}{name}")
    except _MisfitError as misfit:
        raise error(str(misfit)) from None


def read(kind: type[C], values: Any, error: type[ValueError] = ValueError) -> C:
    """The dataclass that decoded JSON tells, dataclasses and tuples within it too.

    Args:
        kind: a dataclass; fields of earlier versions that its ``FORMER`` names are passed over.
        values: a mapping by field; what is left out has its default.
        error: what to raise.

    Raises:
        ValueError: or ``error``, as :func:`check` raises it, or since there is no such field.

    >>> read(Range, {"low": 1, "hihg": 2})
    Traceback (most recent call last):
    ValueError: hihg=2: no such option; did you mean 'high'?
    """
    try:
        return _fitting(kind, values, "", json=True)
    except _MisfitError as misfit:
        raise error(str(misfit)) from None


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


class _MisfitError(Exception):
    def __init__(self, path: str, value: Any, words: str, link: str = "; expected") -> None:
        super().__init__(f"{path or 'configuration'}={value!r}{link} {words}")
        self.path, self.value, self.words, self.link = path, value, words, link


def _fitting(hint: Any, value: Any, path: str, json: bool = False) -> Any:
    """The value if it fits, and of JSON the tuple or dataclass that it stands for."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        found = _fitting(args[0], value, path, json)
        for each in args[1:]:
            if isinstance(each, Range) and not each.holds(found):
                raise _MisfitError(path, value, str(each))
        return found
    if origin in (types.UnionType, typing.Union):
        tried = []
        for arg in args:
            try:
                return _fitting(arg, value, path, json)
            except _MisfitError as misfit:
                tried.append(misfit)
        # the deepest is what was meant: ("seeds[1]", 'x') says more than a whole tuple
        meant = max(tried, key=lambda misfit: len(misfit.path))
        words = dict.fromkeys(misfit.words for misfit in tried if misfit.path == meant.path)
        raise _MisfitError(meant.path, meant.value, " or ".join(words), meant.link)
    if origin is Literal:
        if not any(type(value) is type(arg) and value == arg for arg in args):
            known = ", ".join(map(repr, args))
            raise _MisfitError(path, value, f"one of {known}{choices.hint(value, args)}")
        return value
    if hint in _PLAIN:
        kinds, expected = _PLAIN[hint]
        fits = isinstance(value, kinds) and (isinstance(value, bool | np.bool_) <= (hint is bool))
        if not fits or (hint is float and not math.isfinite(value)):
            raise _MisfitError(path, value, expected)
        return value
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise _MisfitError(path, value, "a tuple")
        hints = (args[0],) * len(value) if args[-1] is Ellipsis else args
        if len(value) != len(hints):
            raise _MisfitError(path, value, f"{len(hints)} entries")
        pairs = enumerate(zip(hints, value, strict=True))
        return tuple(_fitting(each, entry, f"{path}[{i}]", json) for i, (each, entry) in pairs)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _MisfitError(path, value, "a mapping")
        return {k: _fitting(args[1], entry, f"{path}[{k!r}]", json) for k, entry in value.items()}
    if json and dataclasses.is_dataclass(hint):
        return _made(hint, value, path)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise _MisfitError(path, value, f"an instance of {hint.__name__}")
    return value


def _made(kind: Any, values: Any, path: str) -> Any:
    """The dataclass that a mapping tells."""
    if not isinstance(values, Mapping):
        raise _MisfitError(path, values, "a mapping of options")
    hints, found = _hints(kind), {}
    for name, value in values.items():
        if name in getattr(kind, "FORMER", ()):
            continue
        inner = f"{path}.{name}" if path else name
        if name not in hints:
            hint = choices.hint(name, hints, f"known: {', '.join(sorted(hints))}")
            raise _MisfitError(inner, value, f"no such option{hint}", ":")
        found[name] = _fitting(hints[name], value, inner, json=True)
    return kind(**found)

"""Fields of a configuration, checked where it is made: kinds and ranges by their annotations.

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
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np

from linearize import choices


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
        if self.high < math.inf:
            return f"a number in {'(' if self.above else '['}{self.low:g}, {self.high:g}]"
        return "a positive number" if self.above else f"{self.low:g} or more"


Count = Annotated[int, Range(1)]
"""1, 2, 3, ..."""
Natural = Annotated[int, Range(0)]
"""0, 1, 2, ..."""
TwoOrMore = Annotated[int, Range(2)]
Share = Annotated[float, Range(0, 1)]
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
    for name, hint in _hints(kind).items():
        for path, value, expected in _wrong(hint, getattr(config, name)):
            raise error(f"{where}{name}{path}={value!r}; expected {expected}")


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _wrong(hint: Any, value: Any) -> Iterator[tuple[str, Any, str]]:
    """``(path, value, what was expected)`` of all that does not fit."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        found = list(_wrong(args[0], value))
        out = [r for r in args[1:] if isinstance(r, Range) and not found and not r.holds(value)]
        yield from found or [("", value, str(r)) for r in out]
    elif origin in (types.UnionType, typing.Union):
        tried = [list(_wrong(arg, value)) for arg in args]
        if all(tried):
            # the deepest is what was meant: ("seeds[1]", 'x') says more than a whole tuple
            path, inner, _ = max((found[0] for found in tried), key=lambda found: len(found[0]))
            at = [found[0][2] for found in tried if found[0][0] == path]
            yield path, inner, " or ".join(dict.fromkeys(at))
    elif origin is Literal:
        if not any(type(value) is type(arg) and value == arg for arg in args):
            yield "", value, f"one of {', '.join(map(repr, args))}{choices.hint(value, args)}"
    elif hint in _PLAIN:
        kinds, expected = _PLAIN[hint]
        fits = isinstance(value, kinds) and (isinstance(value, bool | np.bool_) <= (hint is bool))
        if not fits or (hint is float and not math.isfinite(value)):
            yield "", value, expected
    elif origin is tuple:
        if not isinstance(value, tuple | list):
            yield "", value, "a tuple"
            return
        hints = (args[0],) * len(value) if args[-1] is Ellipsis else args
        if len(value) != len(hints):
            yield "", value, f"{len(hints)} entries"
            return
        for i, (inner, entry) in enumerate(zip(hints, value, strict=True)):
            for path, part, expected in _wrong(inner, entry):
                yield f"[{i}]{path}", part, expected
    elif origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            yield "", value, "a mapping"
        else:
            for key, entry in value.items():
                for path, part, expected in _wrong(args[1], entry):
                    yield f"[{key!r}]{path}", part, expected
    elif isinstance(hint, type) and not isinstance(value, hint):
        yield "", value, f"an instance of {hint.__name__}"

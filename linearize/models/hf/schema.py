"""What a JSON object of others may say: keys that are understood, keys of no influence, no others.

A key that decides the function and is not understood must not be passed over, so whatever is in
neither table is refused by its name, together with all values that a key cannot have.
"""

import math
import reprlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from linearize.models.backbone import WeightsError

_MOST = 20
"""Faults that one message lists."""
DEEPEST = 1024
"""Blocks; 48 are the most of any published model of these families."""


@dataclass(frozen=True)
class Key:
    """What a key may hold.

    Attributes:
        default: what an absent key means, as its publisher has it.
        holds: whether a value is admitted.
        expected: the admitted values, in words: what the message says after the value.
    """

    default: Any
    holds: Callable[[Any], bool]
    expected: str


def size(default: Any, most: int = 2**16) -> Key:
    """A positive integer."""
    expected = f"expected an integer from 1 to {most}"
    return Key(default, lambda v: type(v) is int and 0 < v <= most, expected)


def token(default: int) -> Key:
    """The number of a word."""
    expected = "expected an integer of 0 or more"
    return Key(default, lambda v: type(v) is int and 0 <= v < 2**24, expected)


def side(default: int, most: int = 2**14) -> Key:
    """A side of a square, or both of them."""
    one = size(default, most)
    return Key(
        default,
        lambda v: one.holds(v) or (_is_pair(v) and one.holds(v[0]) and v[0] == v[1]),
        f"{one.expected}, or two equal ones: only squares are supported",
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2


def number(default: Any, low: float, high: float) -> Key:
    """A finite number between two bounds, both included."""
    return Key(
        default,
        lambda v: type(v) in (int, float) and math.isfinite(v) and low <= v <= high,
        f"expected a number from {low:g} to {high:g}",
    )


def channels(default: tuple[float, ...], low: float, high: float) -> Key:
    """Three numbers, or one for all three."""
    one = number(None, low, high)
    return Key(
        default,
        lambda v: (
            one.holds(v)
            or (isinstance(v, list | tuple) and len(v) == 3 and all(one.holds(x) for x in v))
        ),
        f"{one.expected}, or three of them",
    )


def flag(default: bool) -> Key:
    """True or false."""
    return Key(default, lambda v: type(v) is bool, "expected true or false")


def choice(default: Any, names: Collection[Any]) -> Key:
    """One of these strings or integers."""
    return Key(
        default,
        lambda v: any(type(v) is type(name) and v == name for name in names),
        "there are " + ", ".join(map(repr, names)),
    )


def part() -> Key:
    """An object of its own, empty where absent or null."""
    return Key(None, lambda v: isinstance(v, Mapping), "expected an object")


def only(*values: Any) -> Key:
    """What is supported at its default, the first, and at others that mean the same."""
    return Key(
        values[0],
        lambda v: any(type(v) is type(x) and v == x for x in values),
        f"only {values[0]!r} is supported",
    )


def read(
    given: Any, keys: Mapping[str, Key], ignored: Collection[str] = (), *, where: str
) -> dict[str, Any]:
    """The value of every key, absent ones by default.

    Args:
        given: the JSON object; null, where the default is null, is as good as absent.
        keys: those that are understood.
        ignored: those of no influence on the function, whatever they hold.
        where: the file, and the path to the object in it, for messages.

    Raises:
        WeightsError: with all that is not understood, and all values that are not admitted.
    """
    if not isinstance(given, Mapping):
        raise WeightsError(f"{where} is {said(given)}; expected an object")
    problems = []
    for name, value in given.items():
        key = keys.get(name)
        if key is None:
            if value is not None and name not in ignored:
                problems.append(f"{name}={said(value)} is not understood here")
        elif not key.holds(value) and not (value is None and key.default is None):
            problems.append(f"{name}={said(value)}; {key.expected}")
    if problems:
        raise _refusal(where, problems)
    return {name: given.get(name, key.default) for name, key in keys.items()}


def refuse(where: str, name: str, value: Any, expected: str) -> NoReturn:
    """Refuse a value that other values forbid.

    Raises:
        WeightsError: always.
    """
    raise _refusal(where, [f"{name}={said(value)}; {expected}"])


def _refusal(where: str, problems: list[str]) -> WeightsError:
    more = f"\n  and {len(problems) - _MOST} more" if len(problems) > _MOST else ""
    return WeightsError(
        f"{where}: {len(problems)} value(s) that no model here computes with; nothing was "
        "loaded:\n  " + "\n  ".join(problems[:_MOST]) + more
    )


def squares(image: Any, patch: Any, where: str) -> dict[str, int]:
    """``patch``, ``grid`` and ``image_size`` of two sides that :func:`side` has admitted.

    Raises:
        WeightsError: the patches do not fill the image.
    """
    whole, step = (x if isinstance(x, int) else x[0] for x in (image, patch))
    if whole % step:
        raise WeightsError(
            f"{where}: image_size={whole} is no multiple of patch_size={step}; such a model passes "
            "over the last pixels, which is not supported"
        )
    return {"patch": step, "grid": whole // step, "image_size": whole}


def heads(width: int, count: int, where: str) -> int:
    """The number of heads.

    Raises:
        WeightsError: the width is no multiple of it.
    """
    if count < 1 or width % count:
        raise WeightsError(f"{where}: a width of {width} cannot be split among {count} heads")
    return count


def said(value: Any) -> str:
    """A value in few characters, as JSON has it."""
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    return reprlib.repr(value)

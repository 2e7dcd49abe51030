"""Names out of a fixed set, and what is said of one that is not in it."""

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

T = TypeVar("T")


def hint(name: object, known: Iterable[object], otherwise: str = "", most: int = 1) -> str:
    """The end of a message about an unknown name: the nearest known one.

    Args:
        name: what was given.
        known: the names that there are.
        otherwise: what is said where none of them is near.
        most: near ones to say.

    >>> hint("posthok", ("linear", "posthoc")), hint("x", ("linear", "posthoc"))
    ("; did you mean 'posthoc'?", '')
    """
    near = difflib.get_close_matches(str(name), list(map(str, known)), n=most)
    said = f"did you mean {' or '.join(map(repr, near))}?" if near else otherwise
    return said and f"; {said}"


def one_of(
    argument: str, value: object, options: Iterable[str], error: type[ValueError] = ValueError
) -> str:
    """``value`` if it is one of the options.

    Raises:
        ValueError: or ``error``: it is not; the message lists them and suggests the nearest.

    >>> one_of("regime", "posthoc", ("linear", "posthoc"))
    'posthoc'
    """
    options = tuple(options)
    if isinstance(value, str) and value in options:
        return value
    listed = ", ".join(map(repr, options))
    raise error(f"{argument}={value!r} is not one of {listed}{hint(value, options)}")


def row(noun: str, name: object, table: Mapping[str, T], error: type[Exception] = ValueError) -> T:
    """The row of a table that has this name.

    Raises:
        ValueError: or ``error``: there is none; the message has the nearest, or which there are.

    >>> row("model", "vitt", {"vit": 1})
    Traceback (most recent call last):
    ValueError: no model is named 'vitt'; did you mean 'vit'?
    """
    if isinstance(name, str) and name in table:
        return table[name]
    known = f"there are: {', '.join(table)}"
    raise error(f"no {noun} is named {name!r}{hint(name, table, known)}")

"""Names out of a fixed set."""

import difflib
from collections.abc import Iterable


def one_of(argument: str, value: object, options: Iterable[str]) -> str:
    """``value`` if it is one of the options.

    Raises:
        ValueError: it is not; the message suggests the nearest.

    >>> one_of("regime", "posthoc", ("linear", "posthoc"))
    'posthoc'
    """
    options = tuple(options)
    if value in options:
        return str(value)
    near = difflib.get_close_matches(str(value), options, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument}={value!r} is not one of {', '.join(map(repr, options))}{hint}")

"""A row by its name and other options than its own, as one word: ``lora:rank=8,alpha=16``."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from re import sub
from typing import Any, get_args

from linearize.choices import one_of
from linearize.study import Method


def named(told: str, rows: Mapping[str, Method], argument: str = "methods") -> Method:
    """The row of a name; with options, the same under a name and a label that say them.

    Options are keywords of what trains the vectors (of a post-hoc row: those that it takes) that
    are numbers or words: ``rank``, ``alpha`` and ``pattern`` of an adapter, ``weight`` of a
    penalty, ``sparsity`` of TaLoS, ``trainable``.

    Args:
        told: ``NAME`` or ``NAME:OPTION=VALUE,...``.
        rows: by name.
        argument: where it was told, for messages.

    Raises:
        ValueError: no such row or option (the nearest is suggested), an option twice, or a value of
            another kind.

    >>> from linearize.methods import METHODS
    >>> named("lora:rank=8", METHODS).label
    'LoRA, rank 8'
    """
    name, colon, rest = told.partition(":")
    method = rows[one_of(argument, name, rows)]
    given = (part.partition("=")[::2] for part in rest.split(","))
    return _with(method, tuple(given)) if colon else method


@cache
def _with(method: Method, given: tuple[tuple[str, str], ...]) -> Method:
    """One object each, so that a post-hoc row takes the vectors of the row beside it."""
    said = [option for option, _ in given]
    if twice := sorted({option for option in said if said.count(option) > 1}):
        raise ValueError(
            f"method {method.name!r} has {', '.join(twice)} twice; say each option once"
        )
    words = [f"{option} {value}" for option, value in given]
    name = sub(r"[^\w.-]+", "_", "_".join([method.name, *words]))
    renamed = replace(method, name=name, label=", ".join([method.label, *words]))
    if method.train is None:
        assert method.of is not None
        return replace(renamed, of=_with(method.of, given))
    known = options(method.train)
    if not known:
        raise ValueError(f"method {method.name!r} has no options, so leave out what follows its :")
    read = {
        option: _read(f"{method.name}:{option}", value, known[one_of("option", option, known)])
        for option, value in given
    }
    own = {"method": name}
    if "recipe" in inspect.signature(method.train).parameters:
        own["recipe"] = method.name
    return replace(renamed, train=partial(method.train, **{**own, **read}))


def options(train: Callable[..., Any]) -> dict[str, tuple[type, ...]]:
    """The kinds of value that each option may have, by name."""
    found: dict[str, tuple[type, ...]] = {}
    for option, of in inspect.signature(train).parameters.items():
        kinds = get_args(of.annotation) or (of.annotation,)
        plain = tuple(kind for kind in (int, float, str) if kind in kinds)
        if of.kind is of.KEYWORD_ONLY and plain and option not in ("method", "recipe"):
            found[option] = plain
    return found


def _read(what: str, value: str, kinds: tuple[type, ...]) -> Any:
    for kind in kinds:
        try:
            return kind(value)
        except ValueError:
            continue
    expected = "a whole number" if kinds == (int,) else "a number"
    raise ValueError(f"{what}={value!r}; expected {expected}")

"""What a result file holds, declared once: a frozen dataclass, read and written by annotations.

>>> @dataclass(frozen=True)
... class Results:
...     seeds: Annotated[tuple[int, ...], Axes("S")]
...     tasks: Annotated[tuple[str, ...], Axes("T")]
...     single: Mapping[str, Annotated[Floats, Axes("S", "T", upper=1.0)]]
>>> results = read(Results, {"seeds": [0], "tasks": ["a", "b"], "single": {"linear": [[0.5, 1]]}})
>>> results.single["linear"].shape
(1, 2)
>>> record(results)
{'seeds': [0], 'tasks': ['a', 'b'], 'single': {'linear': [[0.5, 1.0]]}}
>>> read(Results, {"seeds": [0], "tasks": ["a", "b"], "single": {"linear": [[0.5]]}})
Traceback (most recent call last):
linearize.report.node.ResultsError: single/linear has shape (1, 1); expected (1, 2)
"""

import dataclasses
import functools
import reprlib
import types
import typing
from collections import ChainMap
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from linearize.report.node import Floats, Node, ResultsError
from linearize.written import to_json

R = TypeVar("R")

Sizes = MutableMapping[Any, Any]
"""Lengths by axis, and what entries know by their name."""


@dataclass(frozen=True, init=False)
class Axes:
    """An array's or a list's axes by name; one name is one length, ``"?"`` any.

    A name takes the length of the first value that has it, in the order of the fields. What an
    entry of a mapping or a dataclass finds, those of the same name know, and no other; what an
    entry of a list finds, none.
    """

    names: tuple[str, ...]
    upper: float | None
    """Numbers are fractions of this, where it is given."""
    some: bool
    """Whether an empty list is refused."""

    def __init__(self, *names: str, upper: float | None = None, some: bool = False) -> None:
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "upper", upper)
        object.__setattr__(self, "some", some)

    def wanted(self, sizes: Sizes) -> tuple[int | None, ...]:
        """The lengths that are known."""
        return tuple(sizes.get(name) for name in self.names)

    def learn(self, shape: Sequence[int], sizes: Sizes) -> None:
        """Keep the lengths that were not."""
        for name, size in zip(self.names, shape, strict=True):
            if name != "?":
                sizes.setdefault(name, size)


Number = Annotated[float, Axes()]
"""A number that may be null in the file: NaN here."""


def key(name: str, **options: Any) -> Any:
    """A field that the file calls otherwise; slashes lead inwards."""
    return dataclasses.field(metadata={"key": name}, **options)


def entries(of: str) -> Any:
    """A mapping whose entries lie beside it in the file, one for each name in the key ``of``.

    >>> @dataclass(frozen=True)
    ... class Regime:
    ...     single: Annotated[Floats, Axes("S", "X")]
    >>> @dataclass(frozen=True)
    ... class Results:
    ...     along: Mapping[str, Annotated[Floats, Axes("X")]]
    ...     regimes: Mapping[str, Regime] = entries("along")
    >>> values = {"along": {"linear": [1, 2]}, "linear": {"single": [[0.5, 1]]}}
    >>> record(read(Results, values))
    {'along': {'linear': [1.0, 2.0]}, 'linear': {'single': [[0.5, 1.0]]}}
    >>> read(Results, values | {"along": {"linear": [1, 2, 3]}})
    Traceback (most recent call last):
    linearize.report.node.ResultsError: linear/single has shape (1, 2); expected ('any', 3)
    """
    return dataclasses.field(metadata={"entries": of})


def read(kind: type[R], values: Node | Mapping[str, Any], sizes: Sizes | None = None) -> R:
    """The results that :func:`record` wrote; keys that ``kind`` does not declare are passed over.

    Args:
        kind: a dataclass of numbers, strings, words of a ``Literal``, :data:`Floats` with
            :class:`Axes`, mappings by name, tuples, other such dataclasses, and None where
            ``| None`` says so; elsewhere null is the field's default.
        values: decoded JSON.
        sizes: lengths of axes that are known.

    Raises:
        ResultsError: a key is missing, its value has another kind, shape or range, or the
            dataclass refuses it (a ValueError, whose message begins with the field).
    """
    node = values if isinstance(values, Node) else Node(values, "")
    sizes = {} if sizes is None else sizes
    found = {}
    for field, hint in _fields(typing.cast(Hashable, kind)):
        name = field.metadata.get("key", field.name)
        if of := field.metadata.get("entries"):
            inner = typing.get_args(hint)[1]
            found[field.name] = {
                each: _value(inner, node, each, _within(sizes, each)) for each in node.get(of)
            }
        elif _given(node, name, hint) or not _has_default(field):
            found[field.name] = _value(hint, node, name, sizes)
    try:
        return kind(**found)
    except ResultsError:
        raise
    except ValueError as error:
        raise ResultsError(node.name(str(error))) from None


def record(results: Any) -> Any:
    """As JSON's types; what is not finite becomes null."""
    if dataclasses.is_dataclass(results):
        found: dict[str, Any] = {}
        for field, _ in _fields(typing.cast(Hashable, type(results))):
            if "entries" in field.metadata:
                found |= record(getattr(results, field.name))
                continue
            *outer, name = field.metadata.get("key", field.name).split("/")
            inner = functools.reduce(lambda place, part: place.setdefault(part, {}), outer, found)
            inner[name] = record(getattr(results, field.name))
        return found
    if isinstance(results, Mapping):
        return {str(name): record(value) for name, value in results.items()}
    if isinstance(results, list | tuple):
        return [record(value) for value in results]
    return to_json(results)


@functools.cache
def _fields(kind: Any) -> list[tuple[dataclasses.Field[Any], Any]]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return [(field, hints[field.name]) for field in dataclasses.fields(kind)]


def _has_default(field: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


def _given(node: Node, name: str, hint: Any) -> bool:
    """Whether the file has a value; null is one where None is, or anything."""
    null = hint is Any or type(None) in typing.get_args(hint)
    return node.has(name) and (null or node.get(name) is not None)


_PLAIN = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def _value(hint: Any, node: Node, name: str, sizes: Sizes) -> Any:
    """One key's value. A table of kinds would be longer than these cases."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if node.get(name, default=None) is None:
            return None
        (hint,) = (each for each in args if each is not type(None))
        return _value(hint, node, name, sizes)
    if origin is Literal:
        value = node.get(name)
        if value not in args:
            wanted = " or ".join(map(repr, args))
            raise ResultsError(f"{node.name(name)} is {reprlib.repr(value)}; expected {wanted}")
        return value
    if origin is Annotated:
        return _with_axes(args[0], args[1], node, name, sizes)
    if origin is tuple and args[-1] is not Ellipsis:
        values = _listed(node, name)
        if len(values) != len(args):
            raise ResultsError(
                f"{node.name(name)} is {reprlib.repr(values)}; expected {len(args)} entries"
            )
        return tuple(
            _entry(each, value, node.name(f"{name}/{i}"), sizes)
            for i, (each, value) in enumerate(zip(args, values, strict=True))
        )
    if origin is tuple:
        return tuple(
            _entry(args[0], value, node.name(f"{name}/{i}"), dict(sizes))
            for i, value in enumerate(_listed(node, name))
        )
    if origin is not None and issubclass(origin, Mapping):
        return {
            str(each): _entry(args[1], value, node.name(f"{name}/{each}"), _within(sizes, each))
            for each, value in node.child(name).value.items()
        }
    inside = _within(sizes, name) if dataclasses.is_dataclass(hint) else sizes
    return _entry(hint, node.get(name), node.name(name), inside)


def _listed(node: Node, name: str) -> Sequence[Any]:
    if node.get(name) is None:
        raise ResultsError(f"{node.name(name)} is None; expected a list")
    return node.list(name)


def _within(sizes: Sizes, name: str) -> Sizes:
    """What an entry knows: what is known outside, and what entries of its name found."""
    return ChainMap(sizes.setdefault((name,), {}), sizes)


def _entry(hint: Any, value: Any, path: str, sizes: Sizes) -> Any:
    """A value that is already at hand."""
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return read(typing.cast(type, hint), Node(value, path), sizes)
    if hint in _PLAIN:
        known = (int, float) if hint is float else hint
        if not isinstance(value, known) or (isinstance(value, bool) and hint is not bool):
            raise ResultsError(f"{path} is {reprlib.repr(value)}; expected {_PLAIN[hint]}")
        return hint(value)
    outer, _, name = path.rpartition("/")
    return _value(hint, Node({name: value}, outer), name, sizes)


def _with_axes(kind: Any, axes: Axes, node: Node, name: str, sizes: Sizes) -> Any:
    if kind is Floats:
        array = node.numbers(name, axes.wanted(sizes), axes.upper)
        axes.learn(array.shape, sizes)
        return array
    if kind is float:
        return float(node.numbers(name, ()))
    distinct = {str: node.names, int: node.integers}.get(typing.get_args(kind)[0])
    found = _value(kind, node, name, sizes) if distinct is None else distinct(name)
    if axes.some and not found:
        raise ResultsError(f"{node.name(name)} is empty; expected at least one")
    (wanted,) = axes.wanted(sizes)
    if wanted is not None and len(found) != wanted:
        raise ResultsError(f"{node.name(name)} has {len(found)} entries; expected {wanted}")
    axes.learn((len(found),), sizes)
    return found

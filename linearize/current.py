"""A function as it is now, where programs are remembered by the function that they were made of.

This library and JAX take a function object for the same function for ever. What it closes over, an
array, an attribute of its object, a name of its module, may have changed since it was compiled, and
the numbers would be of what it was. So :func:`current` looks at what it holds, and gives another
object where that is another program.
"""

import dataclasses
import functools
import hashlib
import inspect
import types
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import identity
from linearize.types import PyTree

_OBJECTS = 20_000
"""Objects that are looked at, at most."""
_WHOLE = 1 << 22
"""Bytes of an array up to which all of it counts; of a larger one, this many evenly drawn."""
_SETTLED = ("jax", "jaxlib", "flax", "optax", "numpy", "linearize", "builtins")
"""Packages whose functions look at no name of their module that changes."""

_NAMED = ("jax", "jaxlib", "flax", "optax", "numpy")
"""Packages whose functions are known by their names."""

_STATE = "flax.nnx."
"""Where classes are, of those packages, whose objects change: modules and their variables."""

_FROZEN = ("GraphDef", "PyTreeDef", "CodeType")
"""Types whose objects do not change; that of nnx has thousands of parts."""

_records: "weakref.WeakKeyDictionary[Any, dict[Hashable, _Record]]" = weakref.WeakKeyDictionary()


@dataclasses.dataclass
class _Record:
    """What a function held when it was last seen, and the object that stands for it then."""

    held: Hashable
    now: Callable[..., Any] | None = None
    """None for the function itself."""
    program: str | None = None
    """Of ``now``, where it was ever compared."""


def current(f: Callable[..., Any], *args: PyTree) -> Callable[..., Any]:
    """``f`` itself, or another object of the same numbers as ``f`` now, where it has changed.

    What cannot be looked into (a file, a ``deque``, a generator) counts as unchanged. A function
    that changes what it holds as it runs is compiled once more than it need be, and then no more.

    Args:
        f: a function of ``args``.
        *args: arrays, or their shapes, of one call.

    >>> scale = np.ones(1)
    >>> f = functools.partial(lambda by, x: by * x, scale)
    >>> first = current(f, np.ones(1))
    >>> scale[:] = 2
    >>> first is f, current(f, np.ones(1)) is f, current(f, np.ones(1))(3.0).tolist()
    (True, False, [6.0])
    """
    holder = getattr(f, "__self__", f)
    leaves, structure = jax.tree.flatten(identity.shapes(args))
    which = (getattr(f, "__func__", None), structure, *((s.shape, s.dtype) for s in leaves))
    try:
        records = _records.setdefault(holder, {})
    except TypeError:  # without a hash or weak references: remembered by nobody
        return f
    held = tuple(_held(f))
    record = records.setdefault(which, _Record(held))
    if record.held != held:
        record.held = held
        try:
            program = identity.program(_again(f), *args)
        except Exception:  # it says itself what is wrong, when it is called
            program = None
        if program is None or program != record.program:
            record.now, record.program = _again(f), program
    return f if record.now is None else record.now


def written(*functions: Callable[..., Any]) -> str:
    """SHA-256 of how functions are written now: sources, and the values that they are given.

    What a function of one's own closes over or finds in its module counts too: functions of the
    same package, objects of its classes, numbers, texts, arrays, and what is made of these alone.
    Functions of this library count by what they are given; where that is nothing, the hash is
    empty.

    Args:
        *functions: plain ones, objects that can be called, or ``functools.partial`` of them.
    """
    seen: set[int] = set()
    lines = [line for function in functions for line in _lines(function, seen)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def _lines(value: Any, seen: set[int]) -> Iterator[str]:
    """Sources and values, in a fixed order."""
    parts: Any = ()
    if isinstance(value, functools.partial):
        parts = [value.func, *value.args, *sorted(value.keywords.items())]
    elif isinstance(value, Mapping):
        parts = [[key, value[key]] for key in sorted(value, key=str)]
    elif isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, set | frozenset):
        parts = sorted(value, key=repr)
    elif isinstance(value, types.MethodType):
        parts = [value.__func__, value.__self__]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind: Any = type(value)
        if not kind.__dataclass_params__.frozen:  # which may hold itself
            if id(value) in seen:
                return
            seen.add(id(value))
        parts = [kind, *(getattr(value, f.name) for f in dataclasses.fields(value))]
    elif isinstance(value, np.ndarray | np.generic | jax.Array):
        yield str(_bytes(value))
    elif leaves := _leaves(value):
        yield type(value).__qualname__
        parts = leaves
    elif callable(value):
        own = inspect.unwrap(value)
        if _package(own) in _NAMED:
            yield f"{own.__module__}.{getattr(own, '__qualname__', type(own).__qualname__)}"
        elif id(own) not in seen and _package(own) not in _SETTLED:
            seen.add(id(own))
            yield _source(own)
            held = _of_function(own) if isinstance(own, types.FunctionType) else _attributes(own)
            parts = _counted(held, _package(own))
    elif not isinstance(value, types.ModuleType):
        plain = " at 0x" not in repr(value)
        yield repr(value) if plain else type(value).__qualname__
        if not plain and id(value) not in seen:
            seen.add(id(value))
            package = _package(type(value))
            held = [type(value), *_counted(_attributes(value), package)]
            parts = [] if package in _SETTLED else held
    for part in parts:
        yield from _lines(part, seen)


def _leaves(value: Any) -> list[tuple[str, Any]]:
    """What a tree holds that is no function of one's own, such as nnx's variables."""
    if callable(value) and _package(type(value)) not in _NAMED:
        return []
    found = jax.tree_util.tree_flatten_with_path(value)[0]
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in found if path]


def _counted(held: list[Any], package: str) -> list[Any]:
    return [part for part in held if _counts(part, package)]


def _counts(held: Any, package: str) -> bool:
    """Whether what a function holds is part of how it is written: values, and its own package."""
    if isinstance(held, types.FunctionType):
        return _package(held) == package
    if isinstance(held, types.MethodType):
        return _package(held.__func__) == package
    if isinstance(held, list | tuple | set | frozenset):
        return all(_counts(part, package) for part in held)
    if isinstance(held, Mapping):
        return all(_counts(part, package) for part in held.values())
    if isinstance(held, types.ModuleType | type):
        return False
    if dataclasses.is_dataclass(held):
        kind: Any = type(held)
        if kind.__dataclass_params__.frozen:
            of_values = [getattr(held, field.name) for field in dataclasses.fields(held)]
            return kind.__dataclass_params__.eq or all(_counts(v, package) for v in of_values)
    if _package(type(held)) == package:
        return True
    plain = bool | int | float | complex | str | np.ndarray | np.generic | jax.Array
    return isinstance(held, plain | functools.partial)


def _attributes(value: Any) -> list[Any]:
    return [] if isinstance(value, type) else list(getattr(value, "__dict__", {}).values())


def _package(f: Any) -> str:
    return str(getattr(f, "__module__", "")).partition(".")[0]


def _source(f: Any) -> str:
    try:
        return inspect.getsource(f)
    except TypeError:  # an object that can be called
        return _source(type(f))
    except OSError:  # typed into a shell, or piped into Python
        code = getattr(f, "__code__", None)
        return f.__qualname__ if code is None else f"{f.__qualname__} {_bytecode(code)}"


def _bytecode(code: types.CodeType) -> str:
    values = [_bytecode(c) if isinstance(c, types.CodeType) else repr(c) for c in code.co_consts]
    return " ".join((code.co_code.hex(), *code.co_names, *values))


def _again(f: Callable[..., Any]) -> Callable[..., Any]:
    """Another object that calls ``f``."""
    if isinstance(f, jax.tree_util.Partial):
        return jax.tree_util.Partial(_again(f.func), *f.args, **f.keywords)

    def now(*args: Any, **kwargs: Any) -> Any:
        return f(*args, **kwargs)

    if isinstance(f, types.FunctionType):
        return functools.update_wrapper(now, f)
    stated = identity.stated(f)
    if stated is not None:
        now.fingerprint = stated  # type: ignore[attr-defined]
    return now


def _held(f: Any) -> Iterator[Hashable]:
    """What decides a function, beside its code: immutable values, and arrays by their bytes."""
    seen: set[int] = set()
    waiting = [f]
    while waiting and len(seen) < _OBJECTS:
        value = waiting.pop()
        if isinstance(value, np.ndarray | np.generic):
            yield _bytes(value)
        elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
            yield repr(value)
        elif isinstance(value, jax.Array):
            yield _Same(value)
        elif id(value) not in seen:
            seen.add(id(value))
            yield type(value).__qualname__
            waiting += _parts(value)


def _parts(value: Any) -> list[Any]:
    if isinstance(value, types.ModuleType | type) or type(value).__qualname__ in _FROZEN:
        return []
    if isinstance(value, Mapping):
        return [part for item in value.items() for part in item]
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, value.keywords]
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    kind = type(value)
    settled = kind.__module__.partition(".")[0] in _SETTLED
    holds = dataclasses.is_dataclass(value) or kind.__module__.startswith(_STATE)
    if settled and not holds:
        return []
    slots = [s for base in kind.__mro__ for s in getattr(base, "__slots__", ()) if s[:2] != "__"]
    called = [] if settled else [getattr(kind, "__call__", 0)]  # noqa: B004
    return [
        *getattr(value, "__dict__", {}).values(),
        *(getattr(value, s, 0) for s in slots),
        *called,
    ]


def _of_function(f: types.FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in f.__closure__ or () if _filled(cell)]
    found = [*cells, f.__defaults__, f.__kwdefaults__]
    if (f.__module__ or "").partition(".")[0] not in _SETTLED:
        found += [f.__globals__[name] for name in _names(f.__code__) if name in f.__globals__]
    return found


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


@functools.lru_cache(maxsize=4096)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """Names that code, and functions that it makes, may look up in the module."""
    inner = [c for c in code.co_consts if isinstance(c, types.CodeType)]
    return tuple(dict.fromkeys((*code.co_names, *(n for c in inner for n in _names(c)))))


def _bytes(array: Any) -> Hashable:
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return str(array.dtype), np.shape(array), _bytes(jax.random.key_data(array))
    flat = np.asarray(array).reshape(-1)
    if flat.dtype.hasobject:
        return "objects"
    if flat.nbytes > _WHOLE:
        flat = flat[:: -(-flat.nbytes // _WHOLE)]
    raw = hashlib.blake2b(np.ascontiguousarray(flat).view(np.uint8).data, digest_size=16).digest()
    return str(array.dtype), np.shape(array), raw


@dataclasses.dataclass(frozen=True)
class _Same:
    """An array that does not change, by itself."""

    array: jax.Array

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.array is self.array

    def __hash__(self) -> int:
        return id(self.array)

"""What a function computes, as a string: two functions with one string give the same numbers.

A function that states a ``fingerprint``, an attribute or a method that gives a string, is known by
it, on any version of anything. Any other is known by its program: the jaxpr of it and of its
derivative, without the names that Python gave, and the values of all constants in it.
"""

import dataclasses
import enum
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend import core

from linearize import tree
from linearize.types import PyTree

PROGRAM = "program "
"""How the identity of a function begins that is known by its jaxpr, which JAX's version decides."""

_HOW = {
    *("name", "name_and_src_info", "debug_info", "source_info", "call_src_info"),
    *("in_shardings", "out_shardings", "sharding", "out_sharding", "ctx_mesh", "mesh"),
    *("dst_sharding", "src_sharding", "unconstrained_dims"),
    *("in_layouts", "out_layouts", "donated_invars", "keep_unused", "inline"),
    *("compiler_options_kvs", "effects", "prevent_cse", "policy", "unroll", "_split_transpose"),
    # rules of what is not differentiated here; the others are part of the derivative's jaxpr
    *("jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "out_trees"),
}
"""Parameters of primitives that say how, or under which name, and not what is computed."""

_SILENT = {"debug_callback", "debug_print"}
"""Primitives that only watch."""


class UnidentifiedError(ValueError):
    """Nothing says what a function computes."""


def of(function: Callable[..., Any], *args: PyTree, derivative: bool = False) -> str:
    """The identity of a function: the fingerprint that it states, or its program's.

    A ``jax.tree_util.Partial`` of a function with a fingerprint has one too, with a hash of the
    arrays that it holds.

    Args:
        function: of ``args``.
        *args: arrays or ``jax.ShapeDtypeStruct``; a program is one of these shapes.
        derivative: whether the program's derivative in the floating leaves of the first argument
            counts, so that custom rules do.

    Raises:
        UnidentifiedError: the program calls back to Python, changes from trace to trace or holds
            what has no value.

    >>> x = jax.ShapeDtypeStruct((3,), "float32")
    >>> of(lambda x: 2 * x, x) == of(lambda y: 2 * y, x), of(lambda x: 2 * x, x) == of(abs, x)
    (True, False)
    """
    return whole(function) or PROGRAM + program(function, *args, derivative=derivative)


def whole(function: Any) -> str | None:
    """:func:`stated`, and a hash of the arrays that a ``Partial`` holds, where there are any."""
    text = stated(function)
    if text is None or not (arrays := held(function)):
        return text
    return f"{text} of {tree.fingerprint(arrays)}"


def stated(function: Any) -> str | None:
    """The fingerprint that a function states, or that its object does, if it is a method.

    The values of the arrays that a ``jax.tree_util.Partial`` holds are not in it: where they are
    arguments, one program serves all.

    Raises:
        UnidentifiedError: the fingerprint is no string, or an empty one.
    """
    if isinstance(function, jax.tree_util.Partial):
        return _partial(function)
    owner = getattr(function, "__self__", None)
    for holder, suffix in ((function, ""), (owner, f".{getattr(function, '__name__', '')}")):
        found = getattr(holder, "fingerprint", None)
        if found is not None and not isinstance(holder, type):
            text = found() if callable(found) else found
            if not isinstance(text, str) or not text:
                raise UnidentifiedError(
                    f"the fingerprint of {function!r} is {text!r}; expected a string that says all "
                    "that decides what it computes"
                )
            return text + suffix
    return None


def _partial(function: Any) -> str | None:
    """Of the function, and of how its arguments are built, not of what is in them."""
    leaves, treedef = jax.tree.flatten(
        (function.args, function.keywords), is_leaf=lambda x: isinstance(x, jax.tree_util.Partial)
    )
    parts = [stated(function.func), None if " at 0x" in str(treedef) else str(treedef)]
    for leaf in leaves:
        if hasattr(leaf, "dtype") and hasattr(leaf, "shape"):
            parts.append(f"{leaf.dtype}{list(leaf.shape)}")
        else:
            plain = isinstance(leaf, bool | int | float | str)
            parts.append(repr(leaf) if plain else stated(leaf))
    return None if None in parts else " | ".join(map(str, parts))


def held(function: Callable[..., Any]) -> list[Any]:
    """The arrays of a ``jax.tree_util.Partial``, whose values its fingerprint leaves out."""
    leaves = jax.tree.leaves(function)
    return [leaf for leaf in leaves if hasattr(leaf, "dtype") and hasattr(leaf, "shape")]


def program(function: Callable[..., Any], *args: PyTree, derivative: bool = False) -> str:
    """SHA-256 of a function's jaxpr; the arguments are those of :func:`of`."""

    def once() -> str:
        def traced(*args: PyTree) -> PyTree:
            return _with_derivative(function, *args) if derivative else function(*args)

        return _Reader().closed(jax.make_jaxpr(traced)(*shapes(args)))

    first = once()
    if once() != first:
        raise UnidentifiedError(
            "it is another program each time that it is traced (a random number, a counter or a "
            "clock in Python?)"
        )
    return first


def shapes(arrays: PyTree) -> PyTree:
    """Arrays as ``jax.ShapeDtypeStruct``, wherever they lie: their devices decide no program."""

    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        aval = jax.typeof(leaf)
        return jax.ShapeDtypeStruct(aval.shape, aval.dtype, weak_type=aval.weak_type)

    return jax.tree.map(shape, arrays)


def _with_derivative(function: Callable[..., Any], first: PyTree, *rest: PyTree) -> PyTree:
    """Outputs, and the pull-back of all ones."""
    moving, treedef = jax.tree.flatten(first)
    at = [i for i, leaf in enumerate(moving) if tree.is_trainable(leaf)]

    def moved(leaves: list[Any]) -> PyTree:
        whole = list(moving)
        for i, leaf in zip(at, leaves, strict=True):
            whole[i] = leaf
        return function(jax.tree.unflatten(treedef, whole), *rest)

    out, pull = jax.vjp(moved, [moving[i] for i in at])

    def ones(y: Any) -> Any:
        if tree.is_trainable(y):
            return jax.numpy.ones_like(y)
        return np.zeros(np.shape(y), jax.dtypes.float0)

    return out, pull(jax.tree.map(ones, out))


class _Reader:
    """Jaxprs as digests; each is read once, however often it is called."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[Any, str]] = {}

    def closed(self, jaxpr: core.ClosedJaxpr) -> str:
        consts = [self.value(const, "a constant") for const in jaxpr.consts]
        return _digest([self.open(jaxpr.jaxpr), *consts])

    def open(self, jaxpr: core.Jaxpr) -> str:
        if id(jaxpr) not in self._read:
            self._read[id(jaxpr)] = jaxpr, self._lines(jaxpr)
        return self._read[id(jaxpr)][1]

    def _lines(self, jaxpr: core.Jaxpr) -> str:
        names: dict[Any, int] = {}

        def new(variables: Any) -> str:
            for variable in variables:
                names[variable] = len(names)
            return " ".join(map(_aval, (v.aval for v in variables)))

        def atom(x: Any) -> str:
            if isinstance(x, core.Literal):
                return f"{self.value(x.val, 'a constant')}:{_aval(x.aval)}"
            return str(names[x])

        lines = [new(jaxpr.constvars), new(jaxpr.invars)]
        for equation in jaxpr.eqns:
            name = equation.primitive.name
            if name in _SILENT:
                continue
            params = [
                f"{key}={self.value(value, f'{key} of {name}')}"
                for key, value in sorted(equation.params.items())
                if key not in _HOW
            ]
            given = " ".join(atom(x) for x in equation.invars)
            lines.append(f"{name} [{'; '.join(params)}] {given} -> {new(equation.outvars)}")
        lines.append(" ".join(atom(x) for x in jaxpr.outvars))
        return _digest(lines)

    def value(self, value: Any, where: str) -> str:
        """A constant or a parameter, by what it is."""
        if isinstance(value, core.ClosedJaxpr):
            return self.closed(value)
        if isinstance(value, core.Jaxpr):
            return self.open(value)
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, np.dtype | enum.Enum):
            return str(value)
        if isinstance(value, type):
            return f"{value.__module__}.{value.__qualname__}"
        if hasattr(value, "dtype") and hasattr(value, "shape"):
            return tree.fingerprint({"": value}) if hasattr(value, "__array__") else _aval(value)
        if isinstance(value, Mapping):
            items = [f"{self.value(k, where)}: {self.value(v, where)}" for k, v in value.items()]
            return "{" + ", ".join(sorted(items)) + "}"
        if isinstance(value, set | frozenset):
            return "{" + ", ".join(sorted(self.value(v, where) for v in value)) + "}"
        if isinstance(value, tuple | list):
            kind = type(value).__name__
            return f"{kind}({', '.join(self.value(v, where) for v in value)})"
        if isinstance(value, slice):
            return self.value((value.start, value.stop, value.step), where)
        if dataclasses.is_dataclass(value):
            fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
            kept = {name: field for name, field in fields.items() if name not in _HOW}
            return type(value).__name__ + self.value(kept, where)
        module, name = getattr(value, "__module__", ""), getattr(value, "__qualname__", "")
        if callable(value) and f"{module}.".startswith("jax.") and name and "<" not in name:
            return f"{module}.{name}"
        if isinstance(value, jax.tree_util.PyTreeDef) and " at 0x" not in str(value):
            return str(value)
        raise UnidentifiedError(
            f"its program holds a {type(value).__name__} ({where}), of which nothing says what it "
            "computes"
        )


def _aval(aval: Any) -> str:
    if not hasattr(aval, "dtype"):
        return str(aval)
    weak = "~" if getattr(aval, "weak_type", False) else ""
    return f"{weak}{aval.dtype}{list(aval.shape)}"


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()

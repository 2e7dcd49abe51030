"""Parameter trees by name: every leaf is called by its key path joined by ``/``.

A *flat* mapping ``{name: array}`` may hold all leaves of a tree or only some. Trees, flat
mappings and task vectors all answer to :func:`flatten`, so one set of functions serves them.
"""

import hashlib
import re
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import choices
from linearize.lazy import Lazy, eagerly, lazily, now
from linearize.types import Array, Flat, Params, PyTree

Pattern = str | Sequence[str] | None


class StructureMismatch(ValueError):  # noqa: N818
    """Two trees that should have the same names and shapes have not."""


class NonFiniteError(ValueError):
    """A tree holds NaN or infinity where numbers are needed."""


def flatten(tree: PyTree) -> dict[str, Array]:
    """Leaves keyed by name, in the tree's order.

    Raises:
        StructureMismatch: two leaves have one name, as those of ``{"a": {"b": ...}, "a/b": ...}``.

    >>> flatten({"dense": {"kernel": 1.0, "bias": 2.0}})
    {'dense/bias': 2.0, 'dense/kernel': 1.0}
    """
    return dict(_named(tree)[0])


def _named(tree: PyTree) -> tuple[list[tuple[str, Array]], jax.tree_util.PyTreeDef]:
    """``(name, leaf)`` in the tree's order, no name twice; and the tree's structure."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    named = [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves
    ]
    if len({name for name, _ in named}) < len(named):
        paths: dict[str, list[str]] = {}
        for (name, _), (path, _) in zip(named, leaves, strict=True):
            paths.setdefault(name, []).append(jax.tree_util.keystr(path))
        twice = [f"{n}: {' and '.join(p)}" for n, p in paths.items() if len(p) > 1]
        raise StructureMismatch(
            "leaves are called by their keys joined by '/', and some have one name; rename a key "
            "(a '/' inside one is the usual reason):\n  " + "\n  ".join(twice)
        )
    return named, treedef


def names(tree: PyTree) -> tuple[str, ...]:
    """The leaves' names, in the tree's order."""
    return tuple(flatten(tree))


def is_trainable(leaf: ArrayLike | Lazy) -> bool:
    """Whether a leaf can carry a tangent: floating or complex, not an integer, key or flag."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def select(tree: PyTree, pattern: Pattern = None) -> tuple[str, ...]:
    """Names of the trainable leaves that a regular expression finds.

    Args:
        tree: a parameter tree.
        pattern: a regular expression, or several, searched for in each name; ``None`` picks all.

    Raises:
        ValueError: the pattern picks nothing; the message shows names that exist. Or it is no
            regular expression.

    >>> params = {"attn": {"kernel": 1.0}, "mlp": {"kernel": 2.0, "bias": 3.0}, "step": 4}
    >>> select(params)
    ('attn/kernel', 'mlp/bias', 'mlp/kernel')
    >>> select(params, "attn|bias")
    ('attn/kernel', 'mlp/bias')
    """
    trainable = tuple(name for name, leaf in flatten(tree).items() if is_trainable(leaf))
    picked = tuple(filter(finder(pattern), trainable))
    if not picked and pattern is not None:
        shown = ", ".join(trainable[:8]) + (", ..." if len(trainable) > 8 else "")
        raise ValueError(
            f"pattern={pattern!r} picks no trainable leaf; names here look like: {shown}"
        )
    return picked


def exactly(found: Iterable[str]) -> list[str]:
    """A pattern that finds these names and no other."""
    return [f"^{re.escape(name)}$" for name in found]


def finder(pattern: Pattern) -> Callable[[str], bool]:
    """Whether a name is one that a pattern finds, as :func:`select` reads it.

    Raises:
        ValueError: it is no regular expression.
    """
    given = ("",) if pattern is None else (pattern,) if isinstance(pattern, str) else pattern
    try:
        expressions = [re.compile(each) for each in given]
    except re.error as error:
        raise ValueError(f"pattern={pattern!r} is no regular expression: {error}") from error
    return lambda name: any(each.search(name) for each in expressions)


def update(tree: Params, flat: Flat) -> Params:
    """The tree with the named leaves replaced, all others kept as they are."""
    named, treedef = _named(tree)
    return jax.tree_util.tree_unflatten(treedef, [flat.get(name, leaf) for name, leaf in named])


def add(tree: Params, flat: PyTree, scale: float | Array = 1.0) -> Params:
    """``tree + scale * flat`` on the named trainable leaves, summed in at least float32.

    Each result keeps its leaf's dtype, and is lazy where its leaf is; integers, keys and flags stay
    as they are.

    Raises:
        StructureMismatch: ``flat`` names or shapes a leaf that ``tree`` has not.
    """
    flat = flatten(flat)
    check_subset(tree, flat, what="displacement")
    base = flatten(tree)
    plus = partial(_add, scale=scale)
    moved = {
        n: lazily(plus, base[n], d) if isinstance(base[n], Lazy) else plus(base[n], now(d))
        for n, d in flat.items()
        if is_trainable(base[n])
    }
    return update(tree, moved)


def _add(leaf: Array, delta: Array, scale: float | Array) -> Array:
    leaf, wide = jnp.asarray(leaf), _wide(leaf)
    return (wide + jnp.asarray(scale, wide.dtype) * jnp.asarray(delta, wide.dtype)).astype(
        leaf.dtype
    )


def subtract(tree: Params, base: Params, pattern: Pattern = None) -> dict[str, Array]:
    """``tree - base`` on the trainable leaves of ``base``, in at least float32, keyed by name."""
    check_match(base, tree, what="parameters")
    left, right = flatten(tree), flatten(base)
    return {n: lazily(_subtract, left[n], right[n]) for n in select(base, pattern)}


def _subtract(left: Array, right: Array) -> Array:
    wide = _wide(right)
    return jnp.asarray(left, wide.dtype) - wide


def zeros(tree: Params, pattern: Pattern = None) -> dict[str, Array]:
    """A zero displacement of the picked leaves, in at least float32."""
    flat = flatten(tree)
    return {
        n: jnp.zeros(jnp.shape(flat[n]), jnp.promote_types(jnp.result_type(flat[n]), jnp.float32))
        for n in select(tree, pattern)
    }


def dot(a: PyTree, b: PyTree) -> Array:
    """Inner product over all leaves but keys, a real scalar summed in float32 or wider.

    A complex leaf counts as its real and imaginary parts: Re ⟨a, b⟩.

    Raises:
        StructureMismatch: the names or shapes differ.
    """
    check_match(a, b, what="second factor")
    left, right = _numbers(a), _numbers(b)
    shared = (eagerly(_vdot, left[n], right[n]).real for n in left if n in right)
    return sum(shared, start=jnp.zeros(()))


def _vdot(left: Array, right: Array) -> Array:
    return jnp.vdot(left, right, precision=jax.lax.Precision.HIGHEST)


def norm(tree: PyTree) -> Array:
    """Euclidean norm over all leaves but keys, in float32 or wider.

    Its gradient at 0 is 0, not NaN. No square overflows or vanishes: the norm is right wherever
    its dtype has it.
    """
    scaled, unit = _scaled(tree)
    squares = dot(scaled, scaled)
    zero = squares == 0
    return unit * jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, squares)))


def cosine(a: PyTree, b: PyTree) -> Array:
    """Cosine of the angle between two trees, whatever their sizes; 0 where either is zero.

    NaN where either holds NaN or infinity.

    Raises:
        StructureMismatch: the names or shapes differ.

    >>> import numpy as np
    >>> cosine({"w": np.float32([3e-30, 4e-30])}, {"w": np.float32([4e30, 3e30])}).round(6)
    Array(0.96, dtype=float32)
    """
    check_match(a, b, what="second tree")
    (left, _), (right, _) = _scaled(a), _scaled(b)
    scale = norm(left) * norm(right)
    zero = scale == 0
    return jnp.where(zero, 0, dot(left, right) / jnp.where(zero, 1, scale))


def _scaled(tree: PyTree) -> tuple[dict[str, Array], Array]:
    """The leaves divided by a power of two, exactly, to be of size 1; and that power."""
    leaves = _numbers(tree)
    tops = [eagerly(_top, leaf) for leaf in leaves.values()]
    top = jnp.stack(tops).max() if tops else jnp.ones(())
    exponent = jnp.frexp(jnp.where(jnp.isfinite(top) & (top > 0), top, 1))[1] - 1
    unit = jnp.ldexp(jnp.ones((), top.dtype), jnp.maximum(exponent, jnp.finfo(top.dtype).minexp))
    return {n: lazily(lambda x: x / unit, leaf) for n, leaf in leaves.items()}, unit


def _top(leaf: Array) -> Array:
    return jnp.max(jnp.abs(jax.lax.stop_gradient(leaf)), initial=0)


def _numbers(tree: PyTree) -> dict[str, Array]:
    return {n: lazily(_wide, leaf) for n, leaf in flatten(tree).items() if not _is_key(leaf)}


def _is_key(leaf: Array) -> bool:
    """A PRNG key, or the tangent of a leaf that has none."""
    kind = jnp.result_type(leaf)
    return jnp.issubdtype(kind, jax.dtypes.extended) or kind == jax.dtypes.float0


def _is_complex(leaf: Array) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.complexfloating))


def _wide(leaf: Array) -> Array:
    return jnp.asarray(leaf, jnp.promote_types(jnp.result_type(leaf), jnp.float32))


def differences(expected: PyTree, got: PyTree, *, subset: bool = False) -> list[str]:
    """Every missing, extra and mis-shaped name, a line each; empty when the two agree.

    Args:
        expected: the tree whose names and shapes are wanted.
        got: the tree to compare.
        subset: names may be absent from ``got``.

    >>> import numpy as np
    >>> differences({"kernel": np.zeros(2), "bias": np.zeros(2)}, {"kernal": np.zeros(2)})
    ["extra: kernal; did you mean 'kernel'?", 'missing: bias', 'missing: kernel']
    """
    wanted, given = flatten(expected), flatten(got)
    lines = [
        f"mis-shaped: {n} is {np.shape(given[n])}, expected {np.shape(leaf)}"
        for n, leaf in wanted.items()
        if n in given and np.shape(given[n]) != np.shape(leaf)
    ]
    lines += [
        f"complex: {n} is {jnp.result_type(given[n])}, expected {jnp.result_type(leaf)}, whose "
        "imaginary part is nothing: give its real part, or make the other complex"
        for n, leaf in wanted.items()
        if n in given and _is_complex(given[n]) and not _is_complex(leaf)
    ]
    lines += [f"extra: {n}{choices.hint(n, wanted)}" for n in given if n not in wanted]
    return lines if subset else lines + [f"missing: {n}" for n in wanted if n not in given]


def check_match(expected: PyTree, got: PyTree, what: str = "tree") -> None:
    """Names and shapes agree, or one error lists every difference.

    Raises:
        StructureMismatch: with each missing, extra and mis-shaped name.
    """
    raise_if(differences(expected, got), f"{what} has other names or shapes than expected")


def check_subset(expected: PyTree, got: PyTree, what: str = "tree") -> None:
    """As :func:`check_match`, but names may be absent from ``got``."""
    lines = differences(expected, got, subset=True)
    raise_if(lines, f"{what} names or shapes leaves that the tree has not")


def raise_if(problems: list[str], summary: str) -> None:
    """Raise one :class:`StructureMismatch` that lists all problems, if there are any."""
    if problems:
        listed = "\n  ".join(problems)
        raise StructureMismatch(
            f"{summary}; {len(problems)} problem(s), nothing was changed:\n  {listed}"
        )


def check_finite(tree: PyTree, what: str = "tree") -> None:
    """Every floating leaf is finite in the dtype that JAX gives it, or one error names the others.

    A float64 number beyond float32 is infinite there, unless ``jax_enable_x64`` is on. A lazy leaf
    is not made for it: :func:`finite` has it checked whenever it is.

    Raises:
        NonFiniteError: with the name of each such leaf and how many entries are affected.

    >>> import numpy as np
    >>> check_finite({"w": np.array([1.0, 1e39])})
    Traceback (most recent call last):
        ...
    linearize.tree.NonFiniteError: tree holds NaN or infinity in float32:
      w: 1 of 2
    """
    bad, dtypes = [], set()
    for name, leaf in flatten(tree).items():
        if is_trainable(leaf) and not isinstance(leaf, Lazy) and not _finite_there(leaf):
            dtype = jax.dtypes.canonicalize_dtype(jnp.result_type(leaf))
            with np.errstate(over="ignore"):
                finite = np.isfinite(np.asarray(leaf).astype(dtype, copy=False))
            if not finite.all():
                dtypes.add(str(dtype))
                bad.append(f"{name}: {finite.size - np.count_nonzero(finite)} of {finite.size}")
    if bad:
        raise NonFiniteError(
            f"{what} holds NaN or infinity in {', '.join(sorted(dtypes))}:\n  " + "\n  ".join(bad)
        )


def finite(name: str, leaf: Lazy, what: str) -> Any:
    """The lazy leaf, which is checked as :func:`check_finite` does whenever it is made."""

    def made() -> Array:
        value = leaf.make()
        check_finite({name: value}, what)
        return value

    return Lazy(leaf.shape, leaf.dtype, made)


def _finite_there(leaf: Array) -> bool:
    """Known to be finite without being brought to the host."""
    return isinstance(leaf, jax.Array) and bool(jnp.isfinite(leaf).all())


def fingerprint(tree: PyTree, only: Iterable[str] | None = None) -> str:
    """SHA-256 over names, dtypes, shapes and bytes: the same tree on any machine, or not.

    JAX arrays do not change, so each is read once and its digest remembered while it lives.

    Args:
        tree: a parameter tree of concrete arrays.
        only: names to count in; all by default.

    Raises:
        TypeError: a leaf is a tracer: fingerprints are taken outside ``jit``.
    """
    flat = flatten(tree)
    return together({n: leaf_digest(n, flat[n]) for n in (flat if only is None else only)})


def together(digests: Mapping[str, str]) -> str:
    """The fingerprint of a tree whose leaves have these digests."""
    digest = hashlib.sha256()
    for name in sorted(digests):
        digest.update(f"{name}\0{digests[name]}\0".encode())
    return digest.hexdigest()


_DIGESTS: dict[int, str] = {}


def leaf_digest(name: str, leaf: Any) -> str:
    """SHA-256 over a leaf's dtype, shape and bytes; the name is for messages.

    Raises:
        TypeError: the leaf is a tracer.
    """
    if isinstance(leaf, jax.core.Tracer):
        raise TypeError(f"{name} is traced: a fingerprint needs values; take it outside jit")
    if id(leaf) in _DIGESTS:
        return _DIGESTS[id(leaf)]
    values = to_numpy(leaf)
    header = f"{jnp.result_type(leaf)}\0{values.shape}\0".encode()
    digest = hashlib.sha256(header)
    digest.update(values.reshape(-1).view(np.uint8).data)
    if isinstance(leaf, jax.Array):
        _DIGESTS[id(leaf)] = digest.hexdigest()
        weakref.finalize(leaf, _DIGESTS.pop, id(leaf), None)
    return digest.hexdigest()


def to_numpy(leaf: Array) -> np.ndarray:
    """The leaf's values in C order; those of a PRNG key are its words."""
    if jnp.issubdtype(jnp.result_type(leaf), jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf, order="C")

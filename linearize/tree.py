"""Parameter trees by name: every leaf is called by its key path joined by ``/``.

A *flat* mapping ``{name: array}`` may hold all leaves of a tree or only some. Trees, flat
mappings and task vectors all answer to :func:`flatten`, so one set of functions serves them.
"""

import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from linearize.types import Array, Flat, Params, PyTree

Pattern = str | Sequence[str] | None


class StructureMismatch(ValueError):
    """Two trees that should have the same names and shapes have not."""


class NonFiniteError(ValueError):
    """A tree holds NaN or infinity where numbers are needed."""


def flatten(tree: PyTree) -> dict[str, Array]:
    """Leaves keyed by name, in the tree's order.

    >>> flatten({"dense": {"kernel": 1.0, "bias": 2.0}})
    {'dense/bias': 2.0, 'dense/kernel': 1.0}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def names(tree: PyTree) -> tuple[str, ...]:
    """The leaves' names, in the tree's order."""
    return tuple(flatten(tree))


def is_trainable(leaf: Array) -> bool:
    """Whether a leaf can carry a tangent: floating or complex, not an integer, key or flag."""
    return jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)


def select(tree: PyTree, pattern: Pattern = None) -> tuple[str, ...]:
    """Names of the trainable leaves that a regular expression finds.

    Args:
        tree: a parameter tree.
        pattern: a regular expression, or several, searched for in each name; ``None`` picks all.

    Raises:
        ValueError: the pattern picks nothing; the message shows names that exist.

    >>> params = {"attn": {"kernel": 1.0}, "mlp": {"kernel": 2.0, "bias": 3.0}, "step": 4}
    >>> select(params)
    ('attn/kernel', 'mlp/bias', 'mlp/kernel')
    >>> select(params, "attn|bias")
    ('attn/kernel', 'mlp/bias')
    """
    trainable = tuple(name for name, leaf in flatten(tree).items() if is_trainable(leaf))
    if pattern is None:
        return trainable
    patterns = (pattern,) if isinstance(pattern, str) else tuple(pattern)
    picked = tuple(n for n in trainable if any(re.search(p, n) for p in patterns))
    if not picked:
        shown = ", ".join(trainable[:8]) + (", ..." if len(trainable) > 8 else "")
        raise ValueError(
            f"pattern={pattern!r} picks no trainable leaf; names here look like: {shown}"
        )
    return picked


def update(tree: Params, flat: Flat) -> Params:
    """The tree with the named leaves replaced, all others kept as they are."""
    leaves, treedef = jax.tree_util.tree_flatten_with_path(tree)
    new = [
        flat.get(jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in leaves
    ]
    return jax.tree_util.tree_unflatten(treedef, new)


def add(tree: Params, flat: PyTree, scale: float | Array = 1.0) -> Params:
    """``tree + scale * flat`` on the named leaves; the sum is taken in at least float32.

    Each result keeps its leaf's dtype. Names and shapes are checked.
    """
    flat = flatten(flat)
    check_subset(tree, flat, what="displacement")
    base = flatten(tree)
    return update(tree, {n: _add(base[n], d, scale) for n, d in flat.items()})


def _add(leaf: Array, delta: Array, scale: float | Array) -> Array:
    wide = jnp.promote_types(jnp.result_type(leaf), jnp.float32)
    moved = jnp.asarray(leaf, wide) + jnp.asarray(scale, wide) * jnp.asarray(delta, wide)
    return moved.astype(jnp.result_type(leaf))


def subtract(tree: Params, base: Params, pattern: Pattern = None) -> dict[str, Array]:
    """``tree - base`` on the trainable leaves of ``base``, in at least float32, keyed by name."""
    check_match(base, tree, what="parameters")
    left, right = flatten(tree), flatten(base)
    return {n: _subtract(left[n], right[n]) for n in select(base, pattern)}


def _subtract(left: Array, right: Array) -> Array:
    wide = jnp.promote_types(jnp.result_type(right), jnp.float32)
    return jnp.asarray(left, wide) - jnp.asarray(right, wide)


def zeros(tree: Params, pattern: Pattern = None) -> dict[str, Array]:
    """A zero displacement of the picked leaves, in at least float32."""
    flat = flatten(tree)
    return {
        n: jnp.zeros(jnp.shape(flat[n]), jnp.promote_types(jnp.result_type(flat[n]), jnp.float32))
        for n in select(tree, pattern)
    }


def dot(a: PyTree, b: PyTree) -> Array:
    """Inner product over all leaves, summed in float32 or wider."""
    left, right = flatten(a), flatten(b)
    return sum((jnp.vdot(left[n], right[n]) for n in left), start=jnp.zeros(()))


def norm(tree: PyTree) -> Array:
    """Euclidean norm over all leaves."""
    return jnp.sqrt(dot(tree, tree))


def check_match(expected: PyTree, got: PyTree, what: str = "tree") -> None:
    """Names and shapes agree, or one error lists every difference.

    Raises:
        StructureMismatch: with each missing, extra and mis-shaped name.
    """
    _raise_differences(flatten(expected), flatten(got), what, allow_missing=False)


def check_subset(expected: PyTree, got: PyTree, what: str = "tree") -> None:
    """As :func:`check_match`, but names may be absent from ``got``."""
    _raise_differences(flatten(expected), flatten(got), what, allow_missing=True)


def _raise_differences(expected: Flat, got: Flat, what: str, allow_missing: bool) -> None:
    problems = [
        f"mis-shaped: {n} is {jnp.shape(got[n])}, expected {jnp.shape(expected[n])}"
        for n in expected
        if n in got and jnp.shape(got[n]) != jnp.shape(expected[n])
    ]
    for n in got:
        if n not in expected:
            near = difflib.get_close_matches(n, expected, n=1)
            problems.append(f"extra: {n}" + (f" (did you mean {near[0]}?)" if near else ""))
    if not allow_missing:
        problems += [f"missing: {n}" for n in expected if n not in got]
    if problems:
        raise StructureMismatch(
            f"{what} does not fit its {len(expected)} named leaves; {len(problems)} problem(s), "
            "nothing was changed:\n  " + "\n  ".join(problems)
        )


def check_finite(tree: PyTree, what: str = "tree") -> None:
    """Every floating leaf is finite, or one error names those that are not.

    Raises:
        NonFiniteError: with the name of each such leaf and how many entries are affected.
    """
    bad = []
    for name, leaf in flatten(tree).items():
        if is_trainable(leaf):
            count = int(np.size(leaf) - np.isfinite(np.asarray(leaf, np.float64)).sum())
            if count:
                bad.append(f"{name}: {count} of {np.size(leaf)}")
    if bad:
        raise NonFiniteError(f"{what} holds NaN or infinity:\n  " + "\n  ".join(bad))


def fingerprint(tree: PyTree, only: Iterable[str] | None = None) -> str:
    """SHA-256 over names, dtypes, shapes and bytes: the same tree on any machine, or not.

    Args:
        tree: a parameter tree of concrete arrays.
        only: names to count in; all by default.
    """
    digest = hashlib.sha256()
    flat = flatten(tree)
    for name in sorted(flat if only is None else only):
        leaf = np.ascontiguousarray(np.asarray(flat[name]))
        digest.update(f"{name}\0{leaf.dtype}\0{leaf.shape}\0".encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()

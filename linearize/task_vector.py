"""Task vectors: what fine-tuning changed, as a value that can be added, scaled and stored.

τ = θ_finetuned − θ0        (*Editing Models with Task Arithmetic*, §2)
"""

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import io, shards, tree
from linearize.fields import number
from linearize.lazy import lazily
from linearize.types import Array, Params

KIND = "linearize.task_vector"
"""What the notes of a stored task vector say it is."""


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, eq=False, repr=False)
class TaskVector:
    """A displacement of named leaves, and the base model that it displaces.

    A pytree whose children are keyed by name: ``jit``, ``vmap`` and ``grad`` take it as it is, and
    :func:`linearize.tree.flatten` gives its names. The leaves of one that :meth:`open` gives are
    read when they are asked for, so that it may be larger than memory; leaves of its sums,
    multiples and merges are made then, too. Sums and multiples are in float32 at least, whatever
    their vectors are in: rounded to 16 bits after each, they would be others in another order.

    >>> theta0 = {"kernel": jnp.ones(2), "step": jnp.array(7)}
    >>> tau = TaskVector.between(theta0, {"kernel": jnp.array([2.0, 3.0]), "step": jnp.array(9)})
    >>> (0.5 * tau + tau).delta
    {'kernel': Array([1.5, 3. ], dtype=float32)}
    >>> tau.apply_to(theta0, scale=2.0)["kernel"]
    Array([3., 5.], dtype=float32)
    """

    delta: dict[str, Array]
    """``{name: array}``: the displaced leaves only."""
    base: str = ""
    """Fingerprint of θ0 (:func:`linearize.tree.fingerprint`); empty where it is unknown. A sum with
    a vector that does not know its own is of the base that the other knows, and goes to no other.
    """
    meta: dict[str, Any] = field(default_factory=dict)
    """What JSON can hold: regime, task, config, versions. Sums keep what both sides agree on."""

    # numpy scalars would otherwise try to multiply element by element
    __array_ufunc__ = None

    @classmethod
    def between(
        cls,
        params0: Params,
        params: Params,
        *,
        trainable: tree.Pattern = None,
        meta: Mapping[str, Any] | None = None,
    ) -> "TaskVector":
        """``params - params0`` on the trainable leaves, in at least float32.

        Args:
            params0: the base model θ0. Inside ``jit`` its fingerprint stays unknown.
            params: the fine-tuned model, of the same names and shapes.
            trainable: pattern of the leaves to keep (:func:`linearize.tree.select`).
            meta: what to remember of the vector's making.

        Raises:
            StructureMismatch: the two differ in names or shapes.
            NonFiniteError: NaN or infinity in either; not checked inside ``jit``.
        """
        delta = tree.subtract(params, params0, trainable)
        for what, given in (("params0", params0), ("params", params), ("their difference", delta)):
            if not _traced(given):
                tree.check_finite(given, what=what)
        return cls(delta, "" if _traced(params0) else tree.fingerprint(params0), dict(meta or {}))

    def apply_to(
        self, params0: Params, scale: float | Array = 1.0, *, check_base: bool = True
    ) -> Params:
        """``params0 + scale * self``, each leaf in its own dtype; unnamed leaves as they are.

        Args:
            params0: the base model θ0.
            scale: the coefficient α.
            check_base: require θ0's fingerprint to be this vector's. Not checked inside ``jit``,
                nor where the vector does not know its base.

        Raises:
            StructureMismatch: another base, or names and shapes that ``params0`` has not.
            ValueError: ``scale`` is not one finite number; not checked inside ``jit``.
            NonFiniteError: the sum is NaN or infinite somewhere; not checked inside ``jit``.
        """
        self.check(params0, base=check_base)
        if _traced((params0, self, scale)):
            return tree.add(params0, self, scale)
        number("scale", scale)
        tree.check_finite(self, what="the task vector")
        moved = tree.add(params0, self, scale)
        tree.check_finite(moved, what="params0 + scale * τ")
        return moved

    def check(self, params0: Params, *, base: bool = True) -> None:
        """Require that the vector belongs to these parameters.

        Args:
            params0: the base model θ0.
            base: require its fingerprint too; not checked inside ``jit``, nor where the vector does
                not know its base.

        Raises:
            StructureMismatch: another base, or names and shapes that ``params0`` has not.
        """
        problems = tree.differences(params0, self, subset=True)
        if base and self.base and not _traced(params0):
            problems = _base_problems(self.base, tree.fingerprint(params0)) + problems
        tree.raise_if(
            problems,
            "the task vector does not belong to these parameters (check_base=False permits "
            "another base of the same names and shapes)",
        )

    def select(self, pattern: tree.Pattern) -> "TaskVector":
        """The vector restricted to the leaves whose names the pattern finds.

        >>> tau = TaskVector({"attn/kernel": jnp.ones(2), "mlp/kernel": jnp.ones(2)})
        >>> list(tau.select("attn").delta)
        ['attn/kernel']
        """
        return replace(self, delta={n: self.delta[n] for n in tree.select(self.delta, pattern)})

    def dot(self, other: "TaskVector") -> Array:
        """Inner product, a scalar in float32 or wider."""
        self._check(other)
        return tree.dot(self, other)

    def norm(self) -> Array:
        """Euclidean norm over all leaves."""
        return tree.norm(self)

    def norms(self) -> dict[str, Array]:
        """Euclidean norm of each leaf, by name."""
        return {n: tree.norm(d) for n, d in self.delta.items()}

    def cosine(self, other: "TaskVector") -> Array:
        """Cosine of the angle between the two; 0 where either is zero, NaN where not finite."""
        self._check(other)
        return tree.cosine(self, other)

    def __add__(self, other: "TaskVector") -> "TaskVector":
        if not isinstance(other, TaskVector):
            return self if _is_zero(other) else NotImplemented
        self._check(other)
        meta = {k: v for k, v in self.meta.items() if k in other.meta and _same(v, other.meta[k])}
        delta = {n: lazily(_sum, d, other.delta[n]) for n, d in self.delta.items()}
        return TaskVector(delta, self.base or other.base, meta)

    __radd__ = __add__  # sum() starts at 0

    def __neg__(self) -> "TaskVector":
        return self._each(operator.neg)

    def __sub__(self, other: "TaskVector") -> "TaskVector":
        return self + (-other) if isinstance(other, TaskVector) else NotImplemented

    def __mul__(self, scale: float | Array) -> "TaskVector":
        if not _is_scalar(scale):
            return NotImplemented
        return self._each(lambda d: _widened(d) * scale)

    __rmul__ = __mul__

    def __truediv__(self, scale: float | Array) -> "TaskVector":
        if not _is_scalar(scale):
            return NotImplemented
        return self._each(lambda d: _widened(d) / scale)

    def _each(self, op: Callable[[Array], Array]) -> "TaskVector":
        return replace(self, delta={n: lazily(op, d) for n, d in self.delta.items()})

    def __repr__(self) -> str:
        size = sum(np.size(d) for d in self.delta.values())
        known = "".join(f", {k}={self.meta[k]!r}" for k in ("task", "regime") if k in self.meta)
        base = self.base[:8] or "unknown"
        return f"TaskVector({len(self.delta)} leaves, {size:,} numbers, base {base}{known})"

    def save(self, path: str | Path, *, shard_size: int | str | None = None) -> Path:
        """Write a safetensors file, keyed by name; base and meta go into its metadata.

        Args:
            path: the file.
            shard_size: bytes, or ``"2GB"``: several files of so many and their index, leaf after
                leaf, as :func:`linearize.shards.save_tree` does; the whole vector is in memory
                otherwise.

        Returns:
            The file, or the index.

        Raises:
            NonFiniteError: the vector holds NaN or infinity.
            TypeError: ``meta`` has no form in JSON.
            ValueError: ``shard_size`` is none, or the path of shards does not end in .safetensors.
            OSError: the file cannot be written; nothing half-written is left.
        """
        meta = {"versions": io.versions(), **self.meta}
        notes = {"kind": KIND, "base": self.base, "meta": json.dumps(io.to_json(meta))}
        if shard_size is None:
            return io.save_tree(path, self.delta, notes)
        return shards.save_tree(path, self.delta, notes, size=shard_size)

    @classmethod
    def load(cls, path: str | Path) -> "TaskVector":
        """Read what :meth:`save` wrote: a file, or the index of several.

        Raises:
            FileNotFoundError: there is no such file.
            CorruptFileError: the file is truncated or damaged, or holds no task vector; or a shard
                is missing, or of another vector.
            NonFiniteError: it holds NaN or infinity.
        """
        return cls._told(path, *shards.load_tree(path))

    @classmethod
    def open(cls, path: str | Path) -> "TaskVector":
        """As :meth:`load`, with leaves that are read when they are asked for, and kept by nobody.

        The file is read once, leaf by leaf, to verify its hash.

        Raises:
            FileNotFoundError, CorruptFileError, NonFiniteError: as :meth:`load`.
        """
        return cls._told(path, *shards.open_tree(path))

    @classmethod
    def _told(
        cls, path: str | Path, arrays: Mapping[str, Any], notes: Mapping[str, str]
    ) -> "TaskVector":
        if notes.get("kind") != KIND:
            raise io.CorruptFileError(
                f"{path} holds arrays but no task vector; if they are fine-tuned weights, give "
                "them to linearize.models.task_vector(base, path)"
            )
        delta = {n: lazily(jnp.asarray, a) for n, a in arrays.items()}
        try:
            return cls(delta, notes["base"], json.loads(notes["meta"]))
        except (KeyError, ValueError, RecursionError) as error:
            raise io.CorruptFileError(
                f"{path}: the notes of a task vector are damaged ({error!r})"
            ) from error

    def _check(self, other: "TaskVector") -> None:
        problems = tree.differences(self, other)
        if self.base and other.base:
            problems = _base_problems(self.base, other.base) + problems
        tree.raise_if(problems, "these task vectors cannot be combined")

    def tree_flatten_with_keys(self) -> tuple[list[tuple[Any, Array]], tuple[Any, ...]]:
        """For JAX: children keyed by name, in the names' order; base and meta are static."""
        children, static = self.tree_flatten()
        return [
            (jax.tree_util.DictKey(n), d) for n, d in zip(static[0], children, strict=True)
        ], static

    def tree_flatten(self) -> tuple[list[Array], tuple[Any, ...]]:
        """For JAX, where no keys are wanted."""
        names = tuple(sorted(self.delta))
        meta = json.dumps(io.to_json(self.meta), sort_keys=True)
        return [self.delta[n] for n in names], (names, self.base, meta)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], children: list[Array]) -> "TaskVector":
        """For JAX: the inverse."""
        names, base, meta = static
        return cls(dict(zip(names, children, strict=True)), base, json.loads(meta))


def _traced(params: Params) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(params))


def _sum(a: Array, b: Array) -> Array:
    return _widened(a) + _widened(b)


def _widened(leaf: Array) -> Array:
    """In float32, if it is in less."""
    kind = jnp.result_type(leaf)
    narrow = jnp.issubdtype(kind, jnp.floating) and jnp.finfo(kind).bits < 32
    return jnp.asarray(leaf, jnp.float32) if narrow else leaf


def _is_scalar(value: Any) -> bool:
    return bool(getattr(value, "shape", None) == () or isinstance(value, int | float))


def _is_zero(value: Any) -> bool:
    return isinstance(value, int | float) and value == 0


def _same(a: Any, b: Any) -> bool:
    return bool(io.to_json(a) == io.to_json(b))


def _base_problems(expected: str, got: str) -> list[str]:
    if expected == got:
        return []
    return [f"another base model: fingerprint {got[:16]}..., expected {expected[:16]}..."]

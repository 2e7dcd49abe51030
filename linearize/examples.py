"""Examples: what a model sees, and what its outputs are compared with."""

import dataclasses
import re
import warnings
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from linearize import tree
from linearize.types import PyTree


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """N examples: what the model sees, and what the objective compares its outputs with.

    Attributes:
        inputs: arrays (N, ...); a tuple of them for a model of several arguments. In memory, mapped
            from disk, or decoded when indexed (:class:`linearize.data.StoredImages`).
        targets: arrays (N, ...) by role: ``labels`` (class numbers) for classification, and
            whatever an objective asks for: ``weights``, ``mask``, ... A list becomes an array.

    Raises:
        ValueError: arrays that differ in their number of examples (all are listed), no example, a
            role that is called like an input, or text where numbers are expected.
        NonFiniteError: floats that are not finite, with the number of such examples.

    >>> few = Examples(np.eye(3), {"labels": [0, 1, 2]})
    >>> len(few), few.take([2, 0]).labels.tolist(), sorted(few.arrays())
    (3, [2, 0], ['inputs', 'labels'])
    """

    inputs: PyTree
    targets: Mapping[str, ArrayLike] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.targets, Mapping):
            raise ValueError(
                f"targets is a {type(self.targets).__name__}; expected arrays by role, such as "
                "{'labels': labels}"
            )
        object.__setattr__(self, "targets", {n: _array(t) for n, t in self.targets.items()})
        if taken := [role for role in self.targets if _INPUT.fullmatch(role)]:
            raise ValueError(f"targets has the roles {taken}, which name inputs; rename them")
        arrays = self.arrays()
        count(arrays, "examples")
        for role, each in arrays.items():
            check_inputs(each, role)

    @classmethod
    def of(cls, given: Any) -> "Examples":
        """Examples, whichever way they are written.

        Args:
            given: Examples; ``(inputs, labels)`` or ``(inputs, targets)``, a mapping from role to
                array; a mapping with ``inputs`` (or ``inputs_0``, ``inputs_1``, ...) and the
                targets, as of :meth:`arrays`; or an object with ``images`` and ``labels``.

        Raises:
            ValueError: another kind of object, and as :class:`Examples`.
        """
        if isinstance(given, Examples):
            return given
        if isinstance(given, Mapping):
            names = sorted(filter(_INPUT.fullmatch, given), key=lambda n: (len(n), n))
            several = [f"inputs_{i}" for i in range(len(names))]
            if names in (["inputs"], several) and names:
                inputs = tuple(given[n] for n in names) if names == several else given["inputs"]
                return cls(inputs, {n: a for n, a in given.items() if n not in names})
            raise ValueError(
                f"the examples are a mapping with the entries {list(given)}; expected 'inputs', or "
                "'inputs_0', 'inputs_1' and so on, beside the targets"
            )
        if hasattr(given, "images") and hasattr(given, "labels"):
            return cls(given.images, {"labels": given.labels})
        if isinstance(given, tuple | list) and len(given) == 2:
            inputs, second = given
            return cls(inputs, second if isinstance(second, Mapping) else {"labels": second})
        raise ValueError(
            f"the examples are a {type(given).__name__}; expected Examples, (inputs, labels), "
            "(inputs, targets), or a mapping with 'inputs' and the targets' roles"
        )

    def __len__(self) -> int:
        """N."""
        return int(np.shape(jax.tree.leaves(self.inputs)[0])[0])

    def take(self, rows: Any) -> "Examples":
        """The examples at ``rows`` (numbers, a slice or a mask); what is on disk stays there.

        Raises:
            IndexError: a row that is not there, or a mask of another length.
            ValueError: no row.
        """
        if not isinstance(rows, slice):
            rows = np.atleast_1d(np.arange(len(self))[rows])  # JAX clips what NumPy refuses

        def part(leaf: Any) -> Any:
            return getattr(leaf, "subset", leaf.__getitem__)(rows)

        return Examples(
            jax.tree.map(part, self.inputs), {n: part(t) for n, t in self.targets.items()}
        )

    @property
    def labels(self) -> Any:
        """``targets["labels"]``: class numbers, integers (N, ...).

        Raises:
            ValueError: there are none, or they are not integers.
        """
        if "labels" not in self.targets:
            raise ValueError(
                f"these examples have no labels; their targets are {sorted(self.targets)}"
            )
        labels: Any = self.targets["labels"]
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"labels are {labels.dtype}{labels.shape}; expected integers, the numbers of "
                "classes. Give what is not one another role"
            )
        return labels

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names that :meth:`arrays` gives the inputs, in the order of the model's arguments."""
        if not isinstance(self.inputs, tuple) or len(self.inputs) == 1:
            return ("inputs",)
        return tuple(f"inputs_{i}" for i in range(len(self.inputs)))

    def arrays(self) -> dict[str, Any]:
        """Inputs and targets by role, as :func:`linearize.train.fine_tune` takes them.

        The inputs are ``inputs``, or ``inputs_0``, ``inputs_1``, ... where the model has several
        arguments; :attr:`arguments` says which.
        """
        return {**dict(zip(self.arguments, as_arguments(self.inputs), strict=True)), **self.targets}

    @property
    def example(self) -> PyTree:
        """Shape and dtype of one input, without the axis of examples: ``ShapeDtypeStruct``."""

        def shape(leaf: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(np.shape(leaf)[1:], leaf.dtype)

        return jax.tree.map(shape, self.inputs)

    @property
    def alone(self) -> tuple[PyTree, ...]:
        """The model's arguments for a batch of one: ``ShapeDtypeStruct``, (1, ...) each."""

        def batch(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype)

        return as_arguments(jax.tree.map(batch, self.example))

    @property
    def fingerprint(self) -> str:
        """The number of examples and a hash of all their bytes; 1 to 2 s a GB."""
        return fingerprint(self.arrays())

    @property
    def images(self) -> Any:
        """Deprecated: ``inputs``."""
        warnings.warn("Examples.images is now Examples.inputs", DeprecationWarning, stacklevel=2)
        return self.inputs


_INPUT = re.compile(r"inputs(_\d+)?")
_PIECE = 64 * 1024**2
"""Bytes that are looked at in one go."""


def _array(values: Any) -> Any:
    return values if hasattr(values, "shape") and hasattr(values, "dtype") else np.asarray(values)


def as_arguments(inputs: PyTree) -> tuple[PyTree, ...]:
    """``inputs`` as the tuple of a model's arguments: an array is a single one."""
    return inputs if isinstance(inputs, tuple) else (inputs,)


def count(arrays: PyTree, what: str = "inputs") -> int:
    """Number of examples: the length of axis 0 that all arrays share.

    Raises:
        ValueError: there is none, or the arrays disagree; each is named with its own.
    """
    sizes = {
        name or "array": np.shape(leaf)[0] if np.ndim(leaf) else "a scalar"
        for name, leaf in tree.flatten(arrays).items()
    }
    if len(set(sizes.values())) != 1 or "a scalar" in sizes.values():
        shown = [f"{name}: {size}" for name, size in sizes.items()][:9]
        listed = ", ".join(shown + ["..."] * (len(sizes) > 9)) or "there is none"
        raise ValueError(f"{what} differ in number ({listed}); expected arrays that share axis 0")
    n = int(next(iter(sizes.values())))
    if n == 0:
        raise ValueError(f"{what} hold no example; give at least one")
    return n


def check_inputs(inputs: PyTree, what: str = "inputs") -> None:
    """Arrays hold numbers, and floating ones in memory are finite in the dtype JAX gives them.

    Raises:
        ValueError: an array of text or of objects.
        NonFiniteError: with the number of examples that hold NaN or infinity.
    """
    for leaf in jax.tree.leaves(inputs):
        if getattr(getattr(leaf, "dtype", None), "kind", "") in tuple("OUSMm"):
            raise ValueError(f"{what} are {leaf.dtype}; expected numbers")
        if isinstance(leaf, np.ndarray | jax.Array) and tree.is_trainable(leaf):
            bad = ~_finite(np.atleast_1d(np.asarray(leaf)))
            if bad.any():
                raise tree.NonFiniteError(
                    f"{what} hold NaN or infinity in {np.count_nonzero(bad)} of {len(bad)} "
                    f"examples, the first at {int(bad.argmax())}; mend them or leave them out"
                )


def _finite(values: np.ndarray) -> np.ndarray:
    """(N,): whether all of an example's numbers are; in pieces, since an array may be mapped."""
    dtype = jax.dtypes.canonicalize_dtype(values.dtype)
    step = max(1, _PIECE * len(values) // max(1, values.nbytes))
    axes = tuple(range(1, values.ndim))
    found = np.ones(len(values), bool)
    with np.errstate(over="ignore"):
        for start in range(0, len(values), step):
            piece = values[start : start + step].astype(dtype, copy=False)
            found[start : start + step] = np.isfinite(piece).all(axes)
    return found


def fingerprint(arrays: Mapping[str, PyTree]) -> str:
    """The number of examples and a hash of all bytes of arrays by role; 1 to 2 s a GB.

    What is on disk is known by its own ``fingerprint``, for which nothing is read.
    """
    flat = tree.flatten(dict(arrays))
    length = np.shape(next(iter(flat.values())))[0]
    return f"{length} examples, {tree.fingerprint({n: _unread(leaf) for n, leaf in flat.items()})}"


def _unread(leaf: Any) -> Any:
    known = getattr(leaf, "fingerprint", None)
    return leaf if known is None else np.frombuffer(known.encode(), np.uint8)

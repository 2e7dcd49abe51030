"""Penalties: functions of τ that are kept small beside the loss, of any arrays and data.

A penalty is ``value(f, params0, tau, state, key) -> scalar``. It knows no loop and no batch of the
loss; what else it needs is its state: Kronecker factors, a diagonal, a head, or a :class:`Stream`
of examples, in whose place it finds a batch each step. All arrays of a state are arguments of the
compiled step, and part of what identifies a run.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import jax
import numpy as np
from jax.tree_util import Partial

from linearize import fields, identity, tree
from linearize.current import current
from linearize.train import feed
from linearize.types import Apply, Array, Flat, Params, PyTree

Value = Callable[[Apply, Params, Flat, PyTree, Array], Array]
"""``value(f, params0, tau, state, key) -> ()``, real."""


@dataclass(frozen=True, eq=False)
class Stream:
    """Examples of which a penalty sees some each step: a batch takes this one's place in its state.

    The batch is a tuple of arrays (b, ...), an entry a role, so that ``f(params0, *batch)`` is what
    the model says of it. Which examples it holds follows from the run's seed, the penalty's name,
    the stream's place and the step alone.
    """

    data: feed.Data | Sequence[feed.Data]
    """Arrays by role that share axis 0, or a :class:`linearize.train.feed.Loader`; of several sets,
    one each step, in turn."""
    batch_size: fields.Count
    """b: examples each step."""
    roles: Sequence[str] = ("inputs",)
    """The entries of the data that the batch holds, in their order."""

    def __post_init__(self) -> None:
        fields.integer("Stream: batch_size", self.batch_size, low=1)
        if isinstance(self.roles, str):
            raise ValueError(
                f"Stream: roles={self.roles!r}; expected a sequence of names, such as "
                f"[{self.roles!r}]"
            )

    @property
    def sets(self) -> tuple[feed.Data, ...]:
        """The sets, each with the entries that are seen, as far as they can be told apart.

        Raises:
            ValueError: there is none, or one has no such entry.
        """
        data: Any = self.data
        given = tuple(data) if isinstance(data, Sequence) else (data,)
        if not given:
            raise ValueError("Stream: data is an empty sequence; give the examples of one set")
        for each in given:
            feed.check(each)
            feed.check_entries(each, self.roles, "Stream: data")
        loaded = [isinstance(each, feed.Loader) for each in given]
        return tuple(
            each if whole else {role: each[role] for role in self.roles}
            for each, whole in zip(given, loaded, strict=True)
        )

    @property
    def batch(self) -> tuple[PyTree, ...]:
        """Shapes and dtypes of what the penalty is given.

        Raises:
            ValueError: sets that are seen in turn differ in them.
        """
        every = [feed.entries(each, self.batch_size) for each in self.sets]
        first, *others = [tuple(found[role] for role in self.roles) for found in every]
        for other in others:
            if str(other) != str(first):
                raise ValueError(
                    f"Stream: sets that are seen in turn have batches {first} and {other}; give "
                    "each a Stream of its own"
                )
        return first


@dataclass(frozen=True, eq=False)
class Penalty:
    """A term of the objective: ``weight * value(f, params0, tau, state, key)`` beside the loss.

    It is added once a step (not once a micro-batch), and kept small whichever way the loss goes.
    Its own value, without the weight, is the column ``penalty/NAME`` of the history.

    >>> ridge = Penalty("ridge", lambda f, params0, tau, state, key: tree.dot(tau, tau), 0.1)
    >>> ridge.name, ridge.weight
    ('ridge', 0.1)
    """

    name: str
    """Its column in the history; a run has no two of one name."""
    value: Value
    """A scalar of f (``f(params, *inputs)``, as the run was given it), θ0, τ (trained leaves by
    name, float32), the state, and a key that is a function of seed, name and step. Differentiated
    in τ alone; at τ = 0 too, where a norm has no gradient and its square has."""
    weight: float = 1.0
    """λ ≥ 0. Runs that differ in it share their compiled programs."""
    state: PyTree = ()
    """Any tree of arrays, functions (``jax.tree_util.Partial`` with arrays of their own) and
    Streams. Tasks share what is compiled where their states have one structure: lists, rather than
    mappings by task. A mapping by leaf name with arrays of the leaves' shapes lies on a mesh as the
    leaves do; other arrays are whole on every device."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"Penalty: name={self.name!r}; expected a name for its column")
        if not callable(self.value):
            raise ValueError(
                f"penalty {self.name!r}: value is a {type(self.value).__name__}; expected "
                "a function value(f, params0, tau, state, key)"
            )
        weight = fields.number(f"penalty {self.name!r}: weight", self.weight)
        if not 0 <= weight <= float(np.finfo(np.float32).max):
            raise ValueError(
                f"penalty {self.name!r}: weight={weight}; expected 0 or more, in float32"
            )


@dataclass(frozen=True)
class _Place:
    """Stands for a stream's batch: the number of the stream."""

    number: int

    @property
    def fingerprint(self) -> str:
        return f"stream {self.number}"


def _held(state: PyTree) -> PyTree:
    return state


_held.fingerprint = "state"  # type: ignore[attr-defined]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Term:
    """A penalty as a function of arrays: its state with numbers in the streams' places."""

    value: Any
    state: PyTree

    def __call__(
        self,
        tau: Flat,
        params0: Params,
        drawn: Sequence[PyTree],
        key: Array,
        *,
        f: Apply,
    ) -> Array:
        """The value, () real, for the streams' batches of a step."""
        return self.value(f, params0, tau, self.filled(drawn), key)

    def filled(self, drawn: Sequence[PyTree]) -> PyTree:
        """The state with batches in the streams' places."""
        return jax.tree.map(
            lambda leaf: drawn[leaf.number] if isinstance(leaf, _Place) else leaf, self.state
        )

    @property
    def fingerprint(self) -> str | None:
        """What the value states, and how the state is built; None where one of them is silent."""
        parts = identity.stated(self.value), identity.stated(Partial(_held, self.state))
        return None if None in parts else " | ".join(map(str, parts))

    def now(self, f: Apply, tau: Flat, params0: Params, drawn: Sequence[PyTree]) -> "Term":
        """The term as its function is now (:func:`linearize.current.current`)."""
        # f too as an argument: functions are structure, not leaves, also those within
        held = jax.tree.map(lambda leaf: Partial(leaf) if callable(leaf) else leaf, f)
        arguments = (held, params0, tau, self.filled(drawn), jax.random.key(0))
        return replace(self, value=current(self.value, *arguments))


def column(name: str) -> str:
    """A penalty's name among functions and metrics."""
    return f"penalty/{name}"


def take_apart(
    penalties: Sequence[Penalty],
) -> tuple[tuple[Penalty, ...], dict[str, Term], list[tuple[str, Stream]]]:
    """Penalties by name, their terms by column, and the streams by number, each with its place.

    Raises:
        TypeError: one is no Penalty.
        ValueError: two penalties of one name, or a state that holds what is no array, number,
            function or Stream.
        NonFiniteError: a state's array holds NaN or infinity.
    """
    several = isinstance(penalties, Sequence)
    for penalty in penalties if several else [penalties]:
        if not several or not isinstance(penalty, Penalty):
            raise TypeError(
                f"penalties: a {type(penalty).__name__} where a sequence of Penalty is expected: "
                "penalties=[Penalty('ridge', value, 0.1)]"
            )
    names = [penalty.name for penalty in penalties]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"penalties: {twice} are there twice; give each a name of its own")
    terms: dict[str, Term] = {}
    streams: list[tuple[str, Stream]] = []
    ordered = tuple(sorted(penalties, key=lambda penalty: penalty.name))
    for penalty in ordered:
        what = f"penalty {penalty.name!r}: state"
        arrays: dict[str, Any] = {}

        def leaf_of(path: Any, leaf: Any, what: str = what, arrays: dict = arrays) -> Any:
            place = jax.tree_util.keystr(path, simple=True, separator="/")
            if isinstance(leaf, Stream):
                streams.append((f"{what}/{place}", leaf))
                return _Place(len(streams) - 1)
            if isinstance(leaf, bool | int | float | complex):
                leaf = np.asarray(leaf)
            if hasattr(leaf, "dtype") and hasattr(leaf, "shape"):
                arrays[place] = leaf
            elif callable(leaf):
                return Partial(leaf)  # so that it is structure, not a leaf
            else:
                raise ValueError(
                    f"{what} holds a {type(leaf).__name__}{place and f' at {place!r}'}; expected "
                    "arrays, numbers, functions and Streams"
                )
            return leaf

        state = jax.tree_util.tree_map_with_path(leaf_of, penalty.state)
        tree.check_finite(arrays, what)
        terms[column(penalty.name)] = Term(penalty.value, state)
    return ordered, terms, streams


def seed_of(seed: int, place: str) -> int:
    """What a stream's order, or a penalty's key, is drawn from: the run's seed and its place."""
    return int(np.random.SeedSequence([seed, crc32(place.encode())]).generate_state(1)[0])

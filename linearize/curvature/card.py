"""Curvature cards: the factors of a base model on a set of examples, as one file to hand on.

Who has the card of a task, or of a reference set, can train vectors that leave it alone without a
single one of its examples.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from linearize import io, tree
from linearize.choices import hint
from linearize.curvature.blocks import KINDS, Block, Layout, check_known, quadratic
from linearize.fields import number
from linearize.lazy import now
from linearize.types import Array, Flat, Params, PyTree

KIND = "linearize.curvature_card"
"""What the notes of a stored card say it is."""

_SLACK = 1e-4
"""Of a factor's largest diagonal entry: how far below 0 rounding may bring an eigenvalue."""


class NotSemidefiniteError(ValueError):
    """A factor has a negative eigenvalue, or is not symmetric: what it weighs is no curvature."""


@dataclass(frozen=True, eq=False, repr=False)
class Card:
    """A block-diagonal G = E[JᵀJ] of a base model, and what it was measured on."""

    blocks: tuple[Block, ...]
    base: str = ""
    """Fingerprint of θ0 (:func:`linearize.tree.fingerprint`); empty where it is unknown. What is
    merged with a card that does not know its own is of the base that the others know."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold: ``normalized``, ``probes``, ``examples``, ``data``, versions, ..."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the leaves that it is of, sorted."""
        return tuple(sorted({name for block in self.blocks for name in block.leaves}))

    @property
    def normalized(self) -> bool | None:
        """Whether features were taken at length 1; None where the card does not say."""
        return self.meta.get("normalized")

    def value(self, tau: PyTree) -> Array:
        """τᵀGτ, the card's estimate of mean ‖J(x)τ‖²: () real.

        Raises:
            ValueError: a leaf moves that the card is not of.
            StructureMismatch: leaves of other shapes than the card's.
        """
        return quadratic(self.blocks, self._leaves_of(tau))

    @property
    def parts(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Its layers: by label the leaves, each with the index of a scan's step, () where none is.

        As :func:`linearize.disentangle.interference` takes them.
        """
        return {
            label: dict.fromkeys(block.leaves, at)
            for block in self.blocks
            for label, at in _labels(block).items()
        }

    @property
    def factored(self) -> tuple[str, ...]:
        """Labels of the parts that have Kronecker factors."""
        return tuple(n for b in self.blocks if _kind(b) == "kronecker" for n in _labels(b))

    def by_part(self, tau: PyTree) -> np.ndarray:
        """τᵀGτ of each of its :attr:`parts`, (L,) float64; they sum up to :meth:`value`.

        Raises:
            ValueError: as there.
            StructureMismatch: as there.
        """
        flat, found = self._leaves_of(tau), dict.fromkeys(self.parts, 0.0)
        check_known(self.blocks, flat)
        for block in self.blocks:
            if not set(flat).isdisjoint(block.leaves):
                each = np.asarray(block.by_slice(flat), np.float64)
                for label, value in zip(_labels(block), each, strict=True):
                    found[label] += value
        return np.array(list(found.values()))

    def _leaves_of(self, tau: PyTree) -> Flat:
        """In memory, by name; of the shapes that the blocks are of."""
        flat = {name: now(leaf) for name, leaf in tree.flatten(tau).items()}
        problems = [
            f"mis-shaped: {name} is {jnp.shape(flat[name])}, the card is of {shape}"
            for block in self.blocks
            for name, shape in block.shapes.items()
            if name in flat and jnp.shape(flat[name]) != shape
        ]
        tree.raise_if(problems, "tau does not belong to this curvature card; measure another")
        return flat

    def scaled(self, scales: Mapping[str, float], dense: float = 1.0) -> "Card":
        """The card with some blocks times a number.

        Args:
            scales: by pattern of the leaves; a weight that several find has their product, and a
                layer's bias goes with its weight.
            dense: of the blocks of leaves that are no layer's (norms, class tokens).

        Raises:
            ValueError: a pattern that finds no leaf of the card, or biases alone, or a number below
                0.
        """
        for what, by in {
            "dense": dense,
            **{f"scales[{p!r}]": by for p, by in scales.items()},
        }.items():
            if not number(what, by) >= 0:
                raise ValueError(f"{what}={by}; expected 0 or more, or interference is rewarded")
        names = dict.fromkeys(self.leaves, 1.0)
        scaled: list[Block] = []
        found = {pattern: tree.select(names, pattern) for pattern in scales}
        weights = {block.leaves[0] for block in self.blocks}
        for pattern, leaves in found.items():
            if weights.isdisjoint(leaves):
                raise ValueError(
                    f"scales[{pattern!r}] finds {', '.join(leaves)}, which the factors of a layer "
                    "hold together with its weight; name the weight"
                )
        for block in self.blocks:
            hit = (scales[p] for p, leaves in found.items() if block.leaves[0] in leaves)
            by = float(np.prod([*hit, dense if _kind(block) == "dense" else 1.0]))
            scaled.append(block if by == 1 else block.scaled(by))
        return replace(self, blocks=tuple(scaled))

    def check(self, params0: Params, moving: Iterable[str] = ()) -> None:
        """Require that the card belongs to these parameters, and is of all leaves that move.

        Its factors are looked at once a card.

        Args:
            params0: θ0.
            moving: names of leaves that move.

        Raises:
            StructureMismatch: another base, leaves of other names or shapes, or leaves that move
                and are not on the card; each is named.
            NotSemidefiniteError: a factor is no curvature; it is named.
            NonFiniteError: a factor holds NaN or infinity.
        """
        base = tree.flatten(params0)
        problems = []
        if self.base and self.base != (here := tree.fingerprint(params0)):
            problems.append(
                f"another base model: fingerprint {here[:16]}..., the card is of "
                f"{self.base[:16]}..."
            )
        problems += [f"extra: {n}{hint(n, base)}" for n in self.leaves if n not in base]
        problems += [
            f"mis-shaped: {name} is {jnp.shape(base[name])}, the card is of {shape}"
            for block in self.blocks
            for name, shape in block.shapes.items()
            if name in base and jnp.shape(base[name]) != shape
        ]
        problems += [f"missing: {name}" for name in moving if name not in self.leaves]
        tree.raise_if(
            problems, "the curvature card does not belong to these parameters; measure a new one"
        )
        if self._unsound:
            raise NotSemidefiniteError(f"the curvature card's {self._unsound}")

    @cached_property
    def _unsound(self) -> str:
        """What keeps the first factor that is no curvature from being one; empty where all are."""
        each = [(f"{n} of {b.leaves[0]}", a) for b in self.blocks for n, a in b.arrays.items()]
        tree.check_finite({f"{i}, {name}": a for i, (name, a) in enumerate(each)}, "the card")
        return next(filter(None, (_unsound(np.asarray(a), name) for name, a in each)), "")

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={self.meta[k]!r}" for k in ("task", "examples") if k in self.meta)
        return (
            f"Card({len(self.blocks)} blocks, base {self.base[:8] or 'unknown'}"
            f"{shown and ', '}{shown})"
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file with a hash over all of it; base and meta are in its notes.

        Raises:
            NonFiniteError: a factor holds NaN or infinity.
            OSError: the file cannot be written; nothing half-written is left.
        """
        arrays: dict[str, Array] = {}
        blocks = []
        for i, block in enumerate(self.blocks):
            arrays |= {f"{i}/{name}": array for name, array in block.arrays.items()}
            blocks.append({"kind": _kind(block), **_told(block)})
        notes = {"blocks": blocks, "meta": io.to_json(dict(self.meta))}
        texts = {name: json.dumps(value) for name, value in notes.items()}
        return io.save_tree(path, arrays, {"kind": KIND, "base": self.base, **texts})

    @classmethod
    def load(cls, path: str | Path, params0: Params = None) -> "Card":
        """Read what :meth:`save` wrote.

        Args:
            path: the file.
            params0: θ0, where the card is to be of it (:meth:`check`, but for leaves that move).

        Raises:
            FileNotFoundError: there is no such file.
            CorruptFileError: it is truncated or damaged, or holds no curvature card.
            NotSemidefiniteError: a factor is no curvature; it is named.
            NonFiniteError: a factor holds NaN or infinity.
            StructureMismatch: the card is of other parameters than ``params0``.
        """
        arrays, notes = io.load_tree(path)
        if notes.get("kind") != KIND:
            raise io.CorruptFileError(
                f"{path} holds arrays but no curvature card; make one by curvature.measure(f, "
                "params0, inputs).save(path)"
            )
        try:
            blocks = tuple(
                _block(told, {n.split("/", 1)[1]: a for n, a in arrays.items() if _is_of(n, i)})
                for i, told in enumerate(json.loads(notes["blocks"]))
            )
            card = cls(blocks, notes["base"], json.loads(notes["meta"]))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise io.CorruptFileError(
                f"{path}: the notes of a curvature card are damaged ({error!r})"
            ) from error
        if card._unsound:
            raise NotSemidefiniteError(f"{path}: {card._unsound}")
        if params0 is not None:
            card.check(params0)
        return card


def merge(cards: Sequence[Card]) -> Card:
    """One card for a sum of several: (mean A) ⊗ (Σ B) of layers, sums of whole blocks.

    A penalty on it costs what one card's does, however many there are.

    Raises:
        ValueError: no card, or cards of features at length 1 and as they are.
        StructureMismatch: cards of another base, or of other layers; each is named.
    """
    if not cards:
        raise ValueError("cards is empty; give the card of one task at least")
    check_alike(cards)
    base = next((card.base for card in cards if card.base), "")
    each = zip(*(card.blocks for card in cards), strict=True)
    blocks = tuple(type(same[0]).merged(same) for same in each)
    meta = {**_shared(cards), "merged": [dict(card.meta) for card in cards]}
    return Card(blocks, base, meta)


def check_alike(cards: Sequence[Card]) -> None:
    """Cards that may be added: of one base, of the same layers, of features of one kind.

    Raises:
        ValueError: features at length 1 and as they are.
        StructureMismatch: another base, or other layers; each is named.
    """
    first = cards[0]
    base = next((card.base for card in cards if card.base), "")
    for t, card in enumerate(cards):
        if card.normalized != first.normalized:
            raise ValueError(
                f"cards[{t}] is of features with normalized={card.normalized}, cards[0] with "
                f"normalized={first.normalized}; measure both alike"
            )
        problems = []
        if card.base and card.base != base:
            problems.append(
                f"another base model: fingerprint {card.base[:16]}..., expected {base[:16]}..."
            )
        ours, theirs = _described(first), _described(card)
        problems += [f"missing: {name}" for name in ours if name not in theirs]
        problems += [f"extra: {name}" for name in theirs if name not in ours]
        problems += [
            f"another layer: {name} is {theirs[name]}, expected {ours[name]}"
            for name in ours
            if name in theirs and ours[name] != theirs[name]
        ]
        tree.raise_if(problems, f"cards[{t}] cannot be added to cards[0]")


def _labels(block: Block) -> dict[str, tuple[int, ...]]:
    """Of its slices, with the index of each."""
    slices = np.ndindex(block.lead)
    return {f"{block.leaves[0]}{list(at) if at else ''}": at for at in slices}


def _described(card: Card) -> dict[str, str]:
    """Structure and shapes of each block, by its leaves."""
    found = {}
    for i, block in enumerate(card.blocks):
        arrays = {name: jnp.shape(array) for name, array in block.arrays.items()}
        found[f"{i}, {' and '.join(block.leaves)}"] = f"{_kind(block)} {arrays} {_told(block)}"
    return found


def _told(block: Block) -> dict[str, Any]:
    """What is no array, as JSON has it."""
    plain = [each.name for each in fields(block) if each.name not in block.arrays]
    told = {name: getattr(block, name) for name in plain}
    return {n: asdict(v) if isinstance(v, Layout) else v for n, v in told.items()}


def _shared(cards: Sequence[Card]) -> dict[str, Any]:
    """Notes in which all cards agree."""
    first = cards[0].meta
    return {k: v for k, v in first.items() if all(c.meta.get(k) == v for c in cards)}


def _kind(block: Block) -> str:
    return next(name for name, kind in KINDS.items() if type(block) is kind)


def _is_of(name: str, block: int) -> bool:
    return name.startswith(f"{block}/")


def _block(told: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Block:
    kind = KINDS[told.pop("kind")]
    if "layout" in told:
        told["layout"] = Layout(**_frozen(told["layout"]))
    block = kind(**{n: jnp.asarray(a) for n, a in arrays.items()}, **_frozen(told))
    block.check()
    return block


def _frozen(told: Mapping[str, Any]) -> dict[str, Any]:
    """Lists, and those within, as the tuples that they were."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    return {name: tuples(value) for name, value in told.items()}


def _unsound(factor: np.ndarray, what: str) -> str:
    """What is wrong with stacked matrices (..., K, K), or diagonals (S, K); empty if nothing is."""
    wide = factor.astype(np.float64)
    if wide.ndim == 2:
        if (wide < 0).any():
            return f"{what} has a negative entry, {wide.min():.3g}; {_REMEDY}"
        return ""
    for matrix in wide.reshape(-1, *wide.shape[-2:]):
        top = np.abs(matrix).max(initial=0)
        if top == 0:
            continue
        skew = np.abs(matrix - matrix.T).max(initial=0)
        if skew > _SLACK * top:
            return f"{what} is not symmetric: entries differ by {skew:.3g} of {top:.3g}; {_REMEDY}"
        try:
            np.linalg.cholesky(matrix + _SLACK * top * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            low = np.linalg.eigvalsh(matrix)[0]
            return (
                f"{what} is not positive semidefinite: its lowest eigenvalue is {low:.3g} where "
                f"entries reach {top:.3g}; {_REMEDY}"
            )
    return ""


_REMEDY = "measure the card anew: with such factors the penalty would reward interference"

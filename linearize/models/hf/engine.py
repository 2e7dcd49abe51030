"""Foreign tensors to leaves and back, by a table of names; all that is wrong in one error."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.models.backbone import WeightsError
from linearize.models.hf.table import Row, Table, spell, unwrap

T = TypeVar("T")

_READERS = 2
"""Leaves that are made at a time."""
_MOST = 100
"""Problems that one message lists."""


def dialect(
    names: Iterable[str], tables: Sequence[Table], what: str
) -> tuple[Table, dict[str, str]]:
    """The table that explains most names, and each name as it writes it.

    Raises:
        WeightsError: none explains any.
    """
    bare = unwrap(names)
    table = max(tables, key=lambda t: sum(_explains(t, name) for name in bare.values()))
    if not any(_explains(table, name) for name in bare.values()):
        held = ", ".join(list(bare)[:4]) + (", ..." if len(bare) > 4 else "")
        raise WeightsError(
            f"{what}: none of its {len(bare)} tensors has a name of {table.name}; it holds "
            f"{held}. Is it another model's?"
        )
    return table, {theirs: table.canonical(name) for theirs, name in bare.items()}


def import_leaves(
    tensors: Mapping[str, Callable[[], np.ndarray]],
    tables: Sequence[Table],
    shapes: Mapping[str, Any],
    *,
    known: Iterable[str] = (),
    what: str = "weights",
    out: Mapping[str, np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """The leaves that a model wants, float32, out of a file in any of the dialects given.

    A tensor is read when its leaf is made, a few leaves at a time: what the model has no use for is
    never read, nor are there two copies of what it has.

    Args:
        tensors: how to read each tensor, by its foreign name.
        tables: the dialects; the one that explains most names is taken.
        shapes: the wanted leaves by name, with their shapes.
        known: names of leaves that the whole model has and this one does not want (blocks beyond
            its depth, a projection that its output does not need).
        what: the file, for messages.
        out: float32 arrays of the leaves' shapes that the leaves are written into, such as slices
            of stacked ones; new arrays by default.

    Raises:
        WeightsError: with every tensor that belongs to no leaf, every missing one, and every one
            of another shape or of no floating dtype. Nothing is loaded then.
    """
    table, canonical = dialect(tensors, tables, what)
    wanted, others = set(shapes), set(known)
    groups: dict[tuple[int, str], dict[str, str]] = {}
    problems = []
    for theirs, name in canonical.items():
        found = table.find(name)
        if found is not None and not set(_ours(table.rows[found[0]], found[1])) <= others:
            group = groups.setdefault(found, {})
            if name in group:
                problems.append(f"twice: {theirs} and {group[name]}")
            group[name] = theirs
        elif found is None and not table.drops(name):
            problems.append(f"unknown: {theirs}")
    leaves: dict[str, np.ndarray] = {}

    def load(found: tuple[int, str]) -> tuple[dict[str, np.ndarray], list[str]]:
        return _load(table.rows[found[0]], found[1], groups[found], tensors, shapes, out)

    with ThreadPoolExecutor(_READERS) as pool:  # copies and transposes run outside Python's lock
        for got, wrong in pool.map(load, groups):
            leaves |= got
            problems += wrong
    started = {ours for row, block in groups for ours in _ours(table.rows[row], block)}
    for name in sorted(wanted - started):
        problems += [f"missing: {theirs}" for theirs in _theirs_of(table, name)]
    problems = list(dict.fromkeys(problems))
    if problems:
        raise WeightsError(
            f"{what} does not hold this model as {table.name} writes it; {len(problems)} "
            "problem(s), nothing was loaded:\n  " + listed(problems)
        )
    return leaves


def untied(
    tensors: Mapping[str, T],
    tables: Sequence[Table],
    repeated: Mapping[str, str],
    shapes: Collection[str],
    what: str,
    read: Callable[[T], np.ndarray] = lambda tensor: tensor(),  # type: ignore[operator]
) -> dict[str, T]:
    """Tensors, none of which says once more what the model ties.

    Args:
        tensors: by foreign name, as :func:`import_leaves` takes them.
        tables: the dialects.
        repeated: names that repeat another's values, and those others.
        shapes: names of the model's leaves: what has one of its own is not tied.
        what: the file, for messages.
        read: gives a tensor's values.

    Raises:
        WeightsError: two that the model ties have other values.
    """
    table, canonical = dialect(tensors, tables, what)
    theirs = {name: there for there, name in canonical.items()}
    found = dict(tensors)
    for copy, original in repeated.items():
        row = table.find(copy)
        if copy not in theirs or (row and set(_ours(table.rows[row[0]], row[1])) & set(shapes)):
            continue
        tensor = found.pop(theirs[copy])
        if original not in theirs:
            prefix = theirs[copy].removesuffix(copy)
            theirs[original], found[prefix + original] = prefix + original, tensor
        elif not np.array_equal(read(tensor), read(found[theirs[original]]), equal_nan=True):
            raise WeightsError(
                f"{what}: {theirs[copy]} and {theirs[original]} differ, and the configuration ties "
                "them; tie_word_embeddings=false in config.json unties them, where the model was "
                "trained so"
            )
    return found


def export_leaves(leaves: Mapping[str, Any], table: Table) -> dict[str, np.ndarray]:
    """Foreign tensors, float32, of leaves under our names: the inverse of :func:`import_leaves`.

    Raises:
        WeightsError: names that the table does not have, or rows of which only a part is there.
    """
    groups: dict[tuple[int, str], set[str]] = {}
    problems = []
    for ours in leaves:
        found = table.find_ours(ours)
        if found is None:
            problems.append(f"unknown: {ours}")
        else:
            groups.setdefault(found, set()).add(ours)
    out: dict[str, np.ndarray] = {}
    for (row, block), names in groups.items():
        theirs, _, layout = table.rows[row]
        own = _ours(table.rows[row], block)
        problems += [f"missing: {name}" for name in own if name not in names]
        if names == set(own):
            arrays = layout.dump([np.asarray(tree.to_numpy(leaves[n]), np.float32) for n in own])
            out |= {
                name: np.asarray(array, order="C")
                for name, array in zip(spell(theirs, block), arrays, strict=True)
            }
    if problems:
        raise WeightsError(
            f"{table.name} has no place for these parameters; {len(problems)} problem(s), nothing "
            "was written:\n  " + "\n  ".join(problems)
        )
    return out


def listed(problems: Sequence[str]) -> str:
    """A line each, of not too many."""
    more = [f"and {len(problems) - _MOST} more"] if len(problems) > _MOST else []
    return "\n  ".join([*problems[:_MOST], *more])


def _explains(table: Table, name: str) -> bool:
    return table.find(table.canonical(name)) is not None


def _ours(row: Row, block: str) -> list[str]:
    return spell(row[1], block)


def _theirs_of(table: Table, ours: str) -> list[str]:
    found = table.find_ours(ours)
    return [ours] if found is None else spell(table.rows[found[0]][0], found[1])


def _load(
    row: Row,
    block: str,
    group: Mapping[str, str],
    tensors: Mapping[str, Callable[[], np.ndarray]],
    shapes: Mapping[str, Any],
    out: Mapping[str, np.ndarray] | None,
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The leaves of one row in one block, and what is wrong with them."""
    names = spell(row[0], block)
    absent = [f"missing: {name}" for name in names if name not in group]
    if absent:
        return {}, absent
    ours = _ours(row, block)
    extra = [name for name in ours if name not in shapes]
    if extra:
        return {}, [f"beyond this model: {group[name]}" for name in names]
    try:
        arrays = [tensors[group[name]]() for name in names]
    except WeightsError as error:
        return {}, [f"unreadable: {error}"]
    described = ", ".join(
        f"{group[n]} {x.shape} {x.dtype}" for n, x in zip(names, arrays, strict=True)
    )
    if not all(jnp.issubdtype(x.dtype, jnp.floating) for x in arrays):  # NumPy has no bfloat16
        return {}, [f"not floating: {described}"]
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinite, which is refused by name
            made = row[2].load([np.asarray(x, np.float32) for x in arrays])
    except (ValueError, IndexError) as error:
        return {}, [f"mis-shaped: {described} ({error})"]
    wrong = [
        f"mis-shaped: {described} makes {name} {x.shape}, expected {tuple(shapes[name].shape)}"
        for name, x in zip(ours, made, strict=True)
        if x.shape != tuple(shapes[name].shape)
    ]
    if out is None or wrong:
        return dict(zip(ours, (np.asarray(x, order="C") for x in made), strict=True)), wrong
    for name, x in zip(ours, made, strict=True):
        np.copyto(out[name], x)
    return {name: out[name] for name in ours}, wrong

"""The layers of a model as people call them: the leaves of each, by their names."""

import re
from collections.abc import Iterable, Mapping

import numpy as np

from linearize import tree
from linearize.disentangle.interference import Part
from linearize.merge.matrices import SCANNED, layers_of

_NUMBERED = re.compile(r"(.*_)?\d+")
REST = "rest"
"""What the leaves are called that no pattern finds."""


def layers(
    leaves: Mapping[str, tuple[int, ...]], told: Mapping[str, tree.Pattern] | None = None
) -> dict[str, Part]:
    """Leaves, or slices of scanned ones, by layer; each lies in exactly one.

    By default a layer is what a name says up to its first part with a number, ``block_3`` of
    ``block_3/attn/kernel`` and ``layers/0`` of ``layers/0/bias``, or its first part where none has
    one; each step of a scan is one too. Beside numbered layers, leaves that lie in nothing (a class
    token, positions) are one together.

    Args:
        leaves: shapes of what moves, by name.
        told: patterns of the leaves by layer, in the order to show; what none finds is
            :data:`REST`.

    Raises:
        ValueError: no layer, a pattern that finds no leaf, or a leaf that two find.

    >>> shapes = {"blocks/w": (2, 3), "embed/w": (3,), "layers/10/w": (3,), "layers/9/w": (3,)}
    >>> layers(shapes)  # doctest: +NORMALIZE_WHITESPACE
    {'blocks/0': {'blocks/w': (0,)}, 'blocks/1': {'blocks/w': (1,)}, 'embed': {'embed/w': ()},
     'layers/9': {'layers/9/w': ()}, 'layers/10': {'layers/10/w': ()}}
    """
    if told is not None:
        return _told(leaves, told)
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in leaves.items():
        for label, at in _layers(name, shape):
            found.setdefault(label, {})[name] = at
    bare = sorted(label for label in found if label in leaves)
    if 1 < len(bare) < len(found):
        found[", ".join(bare)] = dict.fromkeys(bare, ())
    kept = (label for label in found if label not in bare or len(bare) in (1, len(found)))
    return {label: found[label] for label in sorted(kept, key=_natural)}


def _layers(name: str, shape: tuple[int, ...]) -> Iterable[tuple[str, tuple[int, ...]]]:
    depth = layers_of(name, shape)
    match = re.search(SCANNED, name)
    if depth is not None and match is not None:
        return [(f"{name[: match.end()]}{i}", (i,)) for i in range(depth)]
    parts = name.split("/")
    numbered = (i for i, part in enumerate(parts) if _NUMBERED.fullmatch(part))
    return [("/".join(parts[: next(numbered, 0) + 1]), ())]


def _natural(label: str) -> list[tuple[str, int]]:
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D+)(\d*)|(?!^)$", label)]


def _told(
    leaves: Mapping[str, tuple[int, ...]], told: Mapping[str, tree.Pattern]
) -> dict[str, Part]:
    if not told:
        raise ValueError("layers is empty; give a pattern of leaves for each layer, or None")
    named = {name: np.zeros(()) for name in leaves}
    owner: dict[str, str] = {}
    for label, pattern in told.items():
        try:
            picked = tree.select(named, pattern)
        except ValueError as error:
            raise ValueError(f"layers[{label!r}]: {error}") from None
        for name in picked:
            if name in owner:
                raise ValueError(
                    f"layers: {name} is found by the patterns of {owner[name]!r} and {label!r}; "
                    "each leaf is of one layer"
                )
            owner[name] = label
    found = {label: {n: () for n in leaves if owner.get(n) == label} for label in told}
    rest: dict[str, tuple[int, ...]] = {name: () for name in leaves if name not in owner}
    return {**found, **({REST: rest} if rest else {})}

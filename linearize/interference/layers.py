"""The layers of a model as people call them: the leaves of each, by their names."""

import itertools
import re
from collections.abc import Iterable, Mapping

import jax
import numpy as np
from jax.extend import core

from linearize import cost, tree
from linearize.disentangle.interference import Part
from linearize.merge.matrices import SCANNED, layers_of
from linearize.types import Apply, Params, PyTree

_NUMBERED = re.compile(r"(.*_)?\d+")
REST = "rest"
"""What the leaves are called that no pattern finds."""


def layers(
    leaves: Mapping[str, tuple[int, ...]],
    told: Mapping[str, tree.Pattern] | None = None,
    scanned: tree.Pattern = SCANNED,
) -> Mapping[str, Part]:
    """Leaves, or slices of scanned ones, by layer; each lies in exactly one.

    By default a layer is what a name says up to its first part with a number, ``block_3`` of
    ``block_3/attn/kernel`` and ``layers/0`` of ``layers/0/bias``, or its first part where none has
    one; each step of a scan is one too. Beside numbered layers, leaves that lie in nothing (a class
    token, positions) are one together.

    Args:
        leaves: shapes of what moves, by name, in the order to show (:func:`in_order`).
        told: patterns of the leaves by layer, in the order to show; what none finds is
            :data:`REST`.
        scanned: pattern of the leaves with an axis of layers before the others.

    Raises:
        ValueError: no layer, a pattern that finds no leaf, or a leaf that two find.

    >>> shapes = {"embed/w": (3,), "blocks/w": (2, 3), "layers/9/w": (3,), "layers/9/b": (3,)}
    >>> layers(shapes)  # doctest: +NORMALIZE_WHITESPACE
    {'embed': {'embed/w': ()}, 'blocks/0': {'blocks/w': (0,)}, 'blocks/1': {'blocks/w': (1,)},
     'layers/9': {'layers/9/w': (), 'layers/9/b': ()}}
    """
    if told is not None:
        return _told(leaves, told)
    found: dict[str, dict[str, tuple[int, ...]]] = {}
    depths = {name: layers_of(name, shape, scanned) for name, shape in leaves.items()}
    for name in leaves:
        for label, at in _layers(name, depths):
            found.setdefault(label, {})[name] = at
    bare = [label for label in found if label in leaves]
    together = ", ".join(bare) if 1 < len(bare) < len(found) else ""
    joined: dict[str, dict[str, tuple[int, ...]]] = {}
    for label, part in found.items():
        joined.setdefault(together if together and label in bare else label, {}).update(part)
    return joined


def in_order(f: Apply, params0: Params, names: Iterable[str], *inputs: PyTree) -> list[str]:
    """Leaves' names as the model meets them from input to output, or else by their numbers.

    Args:
        f: ``f(params, *inputs)``, which is traced.
        params0: θ0.
        names: of leaves.
        *inputs: arrays or their shapes.

    >>> f = lambda p, x: (x * p["embed"]) @ p["a"]
    >>> theta0 = {"a": np.eye(2), "embed": np.ones((1, 2))}
    >>> in_order(f, theta0, theta0, np.ones((1, 2)))
    ['embed', 'a']
    """
    closed = jax.make_jaxpr(f)(params0, *inputs)
    met = _met(closed.jaxpr)
    variables = dict(zip(tree.names(params0), closed.jaxpr.invars, strict=False))
    return sorted(names, key=lambda name: (met.get(variables[name], ()), _natural(name)))


def _met(jaxpr: core.Jaxpr) -> dict[core.Var, tuple[int, ...]]:
    """Where each variable is first used: the equation's number, and there within."""
    found: dict[core.Var, tuple[int, ...]] = {}
    for i, equation in enumerate(jaxpr.eqns):
        bodies = cost.inner(equation)
        alike = len(bodies) == 1 and len(bodies[0].invars) == len(equation.invars)
        uses: list[tuple[int, ...]] = [()] * len(equation.invars)
        if alike:
            within = _met(bodies[0])
            uses = [within.get(variable, ()) for variable in bodies[0].invars]
        for variable, inside in zip(equation.invars, uses, strict=True):
            if isinstance(variable, core.Var):
                found.setdefault(variable, (i, *inside))
    return found


def _layers(name: str, depths: Mapping[str, int | None]) -> Iterable[tuple[str, tuple[int, ...]]]:
    if depth := depths[name]:
        return [(f"{_stack(name, depths)}{i}", (i,)) for i in range(depth)]
    parts = name.split("/")
    numbered = (i for i, part in enumerate(parts) if _NUMBERED.fullmatch(part))
    return [("/".join(parts[: next(numbered, 0) + 1]), ())]


def _stack(name: str, depths: Mapping[str, int | None]) -> str:
    """The module that a scanned leaf lies in, all of whose leaves are scanned as often."""
    if match := re.search(SCANNED, name):
        return name[: match.end()]
    places = [f"{place}/" for place in itertools.accumulate(name.split("/"), "{}/{}".format)]

    def alike(place: str) -> bool:
        return {depth for n, depth in depths.items() if n.startswith(place)} == {depths[name]}

    return next(filter(alike, places[:-1]), places[-1])


def _natural(label: str) -> list[tuple[str, int]]:
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D+)(\d*)|(?!^)$", label)]


def _told(
    leaves: Mapping[str, tuple[int, ...]], told: Mapping[str, tree.Pattern]
) -> Mapping[str, Part]:
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
    return {**found, **({REST: {**found.get(REST, {}), **rest}} if rest else {})}

"""A model cut above its frozen blocks, whose outputs can then be computed once for all time.

Where only the last blocks are trained, what the others give for an example never changes: neither
in training, nor at any α of any task vector, nor in a kernel of those blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
from flax import linen
from jax.extend import core
from jax.interpreters import partial_eval

from linearize import identity, tree
from linearize.models.model import Model
from linearize.types import Apply, Array, Params, PyTree

_REMEMBERED = 8
"""Models."""


class Cut(NamedTuple):
    """A model in two parts; together they compute what it did.

    Attributes:
        below: ``below(params, *inputs) -> tuple of arrays (B, ...)``: what the last frozen block
            gives; of several stacks (an encoder's and a decoder's) the last of each.
        above: the model of ``f(params, *inputs, *below)``, with the same parameters; what decides
            ``below`` is :attr:`linearize.models.Model.fixed`.
        block: the last frozen block.
    """

    below: Apply
    above: Model
    block: str


def cut(model: Model, trainable: tree.Pattern, *inputs: PyTree) -> Cut | None:
    """The model cut above the last of its blocks that no trained leaf has a part in.

    Args:
        model: of linen, whose ``blocks`` are called one by one.
        trainable: pattern of the leaves that will move (:func:`linearize.tree.select`).
        *inputs: the model's arguments for a batch, arrays or their shapes.

    Returns:
        None where there is no such block: the first is trained, or the embedding below it, or the
        blocks are scanned, rematerialised, or no modules of linen.

    >>> from linearize.models.language import load_language
    >>> model = load_language("toy_decoder", pretrained=False)
    >>> tokens = jax.numpy.arange(6).reshape(2, 3)
    >>> below, above, block = cut(model, "^block_1/", tokens)
    >>> block, [x.shape for x in below(model.params, tokens)]
    ('block_0', [(2, 3, 16)])
    """
    trained = frozenset(tree.select(model.params, trainable))
    kinds, structure = jax.tree.flatten(identity.shapes((model.params, *inputs)))
    found = _parts(model.f, model.blocks, trained, structure, tuple(kinds))
    if found is None:
        return None
    below, f, block, fixed = found
    above = Model(
        f, model.params, name=model.name, blocks=model.blocks, fixed=fixed, about=model.about
    )
    return Cut(below, above, block)


@lru_cache(maxsize=_REMEMBERED)
def _parts(
    f: Apply, blocks: tuple[str, ...], trained: frozenset[str], structure: Any, kinds: Any
) -> tuple[Apply, Apply, str, frozenset[str]] | None:
    """Below, above, the last frozen block and what decides it; the same functions another time."""
    args = jax.tree.unflatten(structure, kinds)
    for i, block in reversed(list(enumerate(blocks))):
        ends = {_stack(name): name for name in blocks[: i + 1]}  # what is above may read each
        calls = partial(_calls, f, tuple(ends.values()))
        traced, found = jax.make_jaxpr(calls, return_shape=True)(*args)
        used = _used(traced.jaxpr, args[0])  # none: it comes out of a program within
        if all(len(outs) == 1 for outs in found.values()) and used and not used & trained:
            frozen = {name: ends[_stack(name)] for name in blocks[: i + 1]}
            above = _above(f, frozen, jax.tree.structure(found))
            return _below(f, calls, block), above, block, used
    return None


def _stack(block: str) -> str:
    """Where a block stands: ``encoder`` of ``encoder/block_0``."""
    return block.rpartition("/")[0]


def _below(f: Apply, calls: Apply, block: str) -> Apply:
    def below(params: Params, *inputs: PyTree) -> tuple[Array, ...]:
        return tuple(jax.tree.leaves(calls(params, *inputs)))

    return _known(below, f, f"up to {block}")


def _calls(
    f: Apply, blocks: Sequence[str], params: Params, *inputs: PyTree
) -> dict[str, list[PyTree]]:
    """What some blocks give, once for each time that they are called."""
    found: dict[str, list[PyTree]] = {block: [] for block in blocks}

    def watch(called: Callable[..., Any], args: Any, kwargs: Any, at: Any) -> PyTree:
        out = called(*args, **kwargs)
        if (name := _name(at)) in found:
            found[name].append(out)
        return out

    with linen.intercept_methods(watch):
        f(params, *inputs)
    return found


def _above(f: Apply, frozen: Mapping[str, str], structure: Any) -> Apply:
    """It is given what the last frozen blocks gave; the rest of them compute nothing.

    ``frozen`` names of each the last one of its stack.
    """

    def above(params: Params, *both: PyTree) -> PyTree:
        own = len(both) - structure.num_leaves
        given = structure.unflatten(both[own:])

        def skip(called: Callable[..., Any], args: Any, kwargs: Any, at: Any) -> PyTree:
            end = frozen.get(_name(at) or "")
            return called(*args, **kwargs) if end is None else given[end][0]

        with linen.intercept_methods(skip):
            return f(params, *both[:own])

    return _known(above, f, f"above {list(frozen)[-1]}")


def _name(at: Any) -> str | None:
    """The module whose ``__call__`` it is."""
    return "/".join(at.module.path) if at.method_name == "__call__" else None


def _known(part: Apply, f: Apply, what: str) -> Apply:
    if (stated := identity.whole(f)) is not None:
        part.fingerprint = f"{stated} {what}"  # type: ignore[attr-defined]
    return part


def _used(traced: core.Jaxpr, params: Params) -> frozenset[str]:
    """The leaves that decide what comes out."""
    used = partial_eval.dce_jaxpr(traced, [True] * len(traced.outvars))[1]
    names = zip(tree.names(params), used, strict=False)
    return frozenset(name for name, needed in names if needed)

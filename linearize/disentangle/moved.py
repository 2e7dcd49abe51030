"""How far task vectors move a model's outputs on examples, and which parts of the model do that.

J(x)τ is a sum over the parts that τ moves, Σ_l J_l(x)τ_l. What one part does is not what is left of
it: parts may work against each other, so the squares ‖J_lτ_l‖² do not sum to ‖Jτ‖². The inner
products ⟨J_lτ_l, Jτ⟩ do, and divided by ‖Jτ‖² they are the parts' shares.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from linearize import shares, taylor, tree
from linearize.agreement import agree, once, precision
from linearize.compiled import jit
from linearize.current import current
from linearize.disentangle.interference import Part, check_parts, restricted
from linearize.evaluate.affine import affine_step, check_one_array, stack
from linearize.evaluate.batches import output_shapes, split_batches, track
from linearize.evaluate.second_way import check_terms
from linearize.examples import as_arguments, count
from linearize.objectives.distances import aligned
from linearize.single import drawn, wide
from linearize.types import Apply, Array, Flat, Params, PyTree


@dataclass(frozen=True, eq=False)
class Moved:
    """Sums over the positions of N examples that are asked for; T task vectors, L parts; float64.

    An example has one position, unless its outputs have several that are asked for or not.
    """

    squares: np.ndarray
    """(T, N): ‖J(x)τ‖²."""
    layers: np.ndarray
    """(T, L, N): ‖J_l(x)τ_l‖², of each part alone."""
    along: np.ndarray
    """(T, L, N): ⟨J_l(x)τ_l, J(x)τ⟩, which sum over the parts to ``squares``."""
    counts: np.ndarray
    """(N,): positions; 0 of an example of which nothing is asked."""


def moved(
    f: Apply,
    params0: Params,
    taus: Sequence[PyTree],
    inputs: PyTree,
    parts: Mapping[str, Part],
    asked: Any = None,
    *,
    batch_size: int = 64,
    label: str = "outputs moved",
) -> Moved:
    """‖J(x)τ‖² of every task vector and example, exactly, and what each part does of it.

    A pass of all leaves, then one a part that differentiates its leaves alone: at most
    (1 + L)(1 + 2T) forward passes' work, about L (1 + T / 2) of parts that follow each other.

    Args:
        f: ``f(params, *inputs) -> (B, ...)``, one array.
        params0: θ0.
        taus: T ≥ 1 task vectors; a leaf that one lacks counts as zero there.
        inputs: arrays with N examples on axis 0; a tuple for a model of several arguments.
        parts: L parts by label, which hold every entry that moves once.
        asked: flags (N, ...) over the first axes of the outputs, such as an example's tokens, which
            then have a norm each; of all outputs of an example one by default.
        batch_size: examples a pass; T tangents of that many are held at once.
        label: what the log calls it.

    Raises:
        ValueError: no task vector, no example, outputs that are not one array, or parts that θ0 has
            not, or that hold an entry that moves twice or not at all.
        StructureMismatch: a task vector does not fit ``params0``, or stems from another base.
        NonFiniteError: NaN or infinity in ``params0``, a task vector or what comes out.
        DisagreementError: a sampled number is another by a second way, or the parts do not sum up.

    >>> f = lambda params, x: x @ params["a"] + x @ params["b"]
    >>> theta0, tau = {n: jnp.eye(2) for n in "ab"}, {"a": jnp.eye(2), "b": -0.5 * jnp.eye(2)}
    >>> found = moved(f, theta0, [tau], jnp.array([[3.0, 4.0]]), {n: {n: ()} for n in "ab"})
    >>> found.squares.tolist(), found.layers.tolist(), found.along.tolist()
    ([[6.25]], [[[25.0], [6.25]]], [[[12.5], [-6.25]]])
    """
    taylor.check_function(f)
    stacked = stack(params0, taus)
    check_parts(parts, tree.flatten(params0))
    _check_once(parts, stacked)
    args = as_arguments(inputs)
    n = count(args)
    flags = np.ones(n, bool) if asked is None else np.asarray(asked, bool)
    batches = split_batches((*args, flags), batch_size)
    f = current(f, params0, *batches.items[0][:-1])
    plain = batches._replace(items=[batches.items[0][:-1]])
    check_one_array(output_shapes(f, params0, plain))

    def sums(numbers: Sequence[int]) -> Iterator[tuple[np.ndarray, ...]]:
        for b in track(numbers, False, label):
            *given, flagged = batches.items[b]
            yield _batch(f, params0, stacked, parts, tuple(given), flagged)

    found = shares.each(sums, len(batches.items))
    squares, layers, along = (
        np.concatenate(each, -1)[..., :n] for each in zip(*found, strict=True)
    )
    result = Moved(squares, layers, along, flags.reshape(n, -1).sum(1).astype(np.float64))
    tree.check_finite(vars(result), label)
    _check_sum(result, (precision(f, params0, *plain.items[0]), np.dtype(np.float32)))
    return result


def _check_once(parts: Mapping[str, Part], stacked: Flat) -> None:
    """Every entry that moves is in one part."""
    for name, leaf in stacked.items():
        holders = {label: part[name] for label, part in parts.items() if name in part}
        depth = max(map(len, holders.values()), default=0)
        for at in np.ndindex(leaf.shape[1 : 1 + depth]):
            found = [label for label, of in holders.items() if of == at[: len(of)]]
            if len(found) != 1 and jnp.any(leaf[:, *at] != 0):
                where = f"{name}[{', '.join(map(str, at))}]" if at else name
                raise ValueError(
                    f"parts={list(parts)}: {where} moves and is in "
                    f"{' and '.join(map(repr, found)) or 'none'}; put it into one"
                )


def _batch(
    f: Apply,
    params0: Params,
    stacked: Flat,
    parts: Mapping[str, Part],
    args: tuple[PyTree, ...],
    flags: Array,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(T, B), (T, L, B) twice, of one batch."""
    whole = _along(f, params0, stacked, args)
    squares, layers, along = _products(whole, whole, flags)[0], [], []
    for part in parts.values():
        own = jax.vmap(partial(restricted, part=part))(stacked)
        if own:
            square, inner = _products(_along(f, params0, own, args), whole, flags)
        else:
            square, inner = np.zeros_like(squares), np.zeros_like(squares)
        layers.append(square)
        along.append(inner)
    return squares, np.stack(layers, 1), np.stack(along, 1)


def _along(f: Apply, params0: Params, stacked: Flat, args: tuple[PyTree, ...]) -> Array:
    """Jτ of a batch, (T, B, ...)."""
    _, jvps = affine_step(f, "auto", params0, dict(stacked), args)
    check_terms(f, "auto", params0, stacked, args, None, jvps)
    return jvps


def _products(own: Array, whole: Array, flags: Array) -> tuple[np.ndarray, np.ndarray]:
    """Sums of ⟨own, own⟩ and ⟨own, whole⟩ over the outputs that are asked for, (T, B) each."""
    found = [np.asarray(each, np.float64) for each in _sums(own, whole, flags)]
    t, b = drawn(own.shape[0]), drawn(own.shape[1])

    def check() -> None:
        left, right = (wide(np.asarray(each[t, b])) for each in (own, whole))
        left = np.where(np.asarray(aligned(flags, whole[0]))[b], left, 0)
        size = float(np.linalg.norm(left))
        for number, other in zip(found, (left, right), strict=True):
            agree(
                number[t, b],
                float((left * other.conj()).sum().real),
                scale=size * float(np.linalg.norm(other)),
                dtypes=(own.dtype,),
                terms=left.size,
                what="the sum over outputs of J τ",
                entry=f"of example {b}, task vector {t}",
            )

    once(check, "sums over outputs", arrays=(own, whole, flags))
    return found[0], found[1]


@jit
def _sums(own: Array, whole: Array, flags: Array) -> tuple[Array, Array]:
    kept = jnp.where(aligned(flags, own[0])[None], own, 0)

    def inner(other: Array) -> Array:
        return jnp.real(kept * jnp.conj(other)).reshape(*own.shape[:2], -1).sum(-1)

    return inner(kept), inner(whole)


def _check_sum(found: Moved, dtypes: tuple[np.dtype, ...]) -> None:
    """The parts' inner products sum to the whole square, of every vector and example."""
    total = found.along.sum(1)
    scale = np.sqrt(found.layers).sum(1) * np.sqrt(found.squares) + found.squares
    apart = np.abs(total - found.squares) / np.where(scale > 0, scale, 1)
    worst = np.unravel_index(np.argmax(apart), total.shape)
    agree(
        total[worst],
        float(found.squares[worst]),
        scale=float(scale[worst]),
        dtypes=dtypes,
        terms=found.along.shape[1],
        what="the parts of ‖J τ‖² summed, beside the whole",
        entry=f"of task vector {worst[0]}, example {worst[1]}",
    )

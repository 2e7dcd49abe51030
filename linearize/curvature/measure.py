"""Kronecker factors of G = E[JᵀJ] by layer, measured on examples, for any ``f(params, *inputs)``.

Of a layer z_t = a_t W + b the block of G is Σ_{t,u} E[a_t a_uᵀ ⊗ g_t g_uᵀ], g_t = ∂⟨v, f⟩/∂z_t
with a Gaussian probe v, for which E[v vᵀ] = 1 (Hutchinson: no labels). TAK (*merge-and-rebase*,
ICLR 2026; K-FAC's "expand") takes

    A = mean over examples and rows of [a; 1][a; 1]ᵀ,   B = mean over examples of Σ_t g_t g_tᵀ

with one probe an example. A row is any place where the weight meets an input: a token, an image's
patch, a step of a scan that shares it, another call of a shared layer. One from which nothing
reaches an output through any layer of as many rows, such as padding, is none. A scan's own slices
are layers each. Leaves that are no layer's (norms, class tokens, positions) have whole blocks
E[(Jᵀv)(Jᵀv)ᵀ], in which nothing is neglected but other leaves; sides above ``widest`` are diagonal.
"""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from linearize import fields, io, shares, tree
from linearize.agreement import SEED, agree, once
from linearize.compiled import jit
from linearize.curvature.blocks import Block, Dense, Kronecker, Layout
from linearize.curvature.card import Card
from linearize.curvature.features import Asked, Normalized
from linearize.evaluate.batches import split_batches
from linearize.examples import as_arguments, fingerprint
from linearize.ntk.layers import Layer, Traced, trace_uses
from linearize.ntk.pointwise import Inputs, Pointwise, pointwise
from linearize.ntk.programs import remembered
from linearize.ntk.second_way import norm, row, signs
from linearize.taylor import check_function
from linearize.types import Apply, Array, Flat, Params, PyTree

WIDEST = 4096
"""Up to this side a factor is a matrix."""

_HIGHEST = jax.lax.Precision.HIGHEST
Sums = dict[str, dict[str, Array]]
"""By block, and there by field."""


def measure(
    f: Apply,
    params0: Params,
    inputs: PyTree,
    *,
    asked: ArrayLike | None = None,
    trainable: tree.Pattern = None,
    normalized: bool = True,
    probes: int | None = 1,
    seed: int = 0,
    widest: int = WIDEST,
    parts: int | None = 1,
    batch_size: int = 16,
    meta: dict[str, Any] | None = None,
) -> Card:
    """The curvature of ``f`` at ``params0`` on some examples, as a card.

    Args:
        f: ``f(params, *inputs) -> features``, examples on axis 0.
        params0: θ0.
        inputs: arrays (N, ...); a tuple for several arguments. 128 to 256 saturate.
        asked: flags (N, ...) of the outputs' first axes; what is not asked for, such as what
            follows a text's last token, counts for nothing.
        trainable: pattern of the leaves that will move.
        normalized: whether features are taken at length 1, as TAK's code does.
        probes: Gaussian probes an example; one, as in TAK's code, where more do harm. None for each
            output in turn, which is their expectation and costs C backward passes.
        seed: of the probes.
        widest: the largest side of a factor that is a matrix; wider ones are diagonal.
        parts: diagonal blocks of each layer's B that are kept, where M divides into as many; 8 cost
            TAK one point. Layers that lie side by side in one kernel, as queries, keys and values,
            have blocks of their own in any case, as if they were written apart. None for the
            diagonal of B alone, where A is what is wanted.
        batch_size: examples at once.
        meta: what else the card is to remember, such as the task.

    Returns:
        A card of all picked leaves; factors in float32, or wider where θ0 is.

    Raises:
        ValueError: no example; a complex leaf; examples that change each other's outputs, or
            outputs that are no features (:func:`linearize.ntk.pointwise.pointwise`).
        NonFiniteError: a factor is NaN or infinite, as with features of length 0.
        DisagreementError: a layer's derivative, made of its two factors, is another one than
            reverse mode's; the compiler or the recognition of layers is wrong.
    """
    check_function(f)
    if probes is not None:
        fields.integer("probes", probes, low=1)
    fields.integer("widest", widest, low=1)
    seed = fields.seed("seed", seed)
    if parts is not None:
        fields.integer("parts", parts, low=1)
    f, args = Normalized(f) if normalized else f, as_arguments(inputs)
    if asked is not None:
        f, args = Asked(f), (*args, np.asarray(asked, bool))
    base = tree.flatten(params0)
    picked = tree.select(params0, trainable)
    if not_real := [n for n in picked if jnp.iscomplexobj(base[n])]:
        raise ValueError(
            f"{', '.join(not_real)} is complex; Kronecker factors are of real leaves: leave it out "
            "of trainable"
        )
    point = pointwise(f, params0, args, trainable)
    how = probes, widest, parts
    made = remembered(("curvature", point.key, *how), lambda: _Program.of(point, *how))
    batches = split_batches(args, batch_size, balanced=True)
    once(
        partial(made.check, params0, args),
        "layers' factors",
        *(point.key, *how),
        arrays=batches.items[0],
    )
    size = len(jax.tree.leaves(batches.items[0])[0])

    def of(b: int, n: int = batches.n) -> Sums:
        numbers = np.arange(b * size, (b + 1) * size)
        return made.sums(params0, batches.items[b], jax.random.key(seed), numbers, numbers < n)

    def summed(own: range) -> PyTree:
        none = of(0, 0) if not own else None
        found = none or reduce(partial(jax.tree.map, jnp.add), map(of, own))
        return jax.tree.map(lambda x: np.asarray(x, np.float64), found)

    total = shares.total(summed, len(batches.items))
    scaled = jax.tree.map(lambda x: x / batches.n, total)
    blocks = made.blocks(scaled, point.dtype)
    for block in blocks:
        tree.check_finite(block.arrays, f"the curvature of {' and '.join(block.leaves)}")
    known = {
        "examples": batches.n,
        "data": fingerprint({f"inputs_{i}": x for i, x in enumerate(args)}),
        "normalized": normalized,
        "probes": probes,
        "seed": seed,
        "widest": widest,
        "parts": parts,
    }
    about = {**(meta or {}), **known, "versions": io.versions()}
    return Card(blocks, tree.fingerprint(params0), about)


@dataclass(frozen=True, eq=False)
class _Program:
    """What is compiled for a model."""

    point: Pointwise
    traced: Traced
    groups: dict[str, tuple[Layout, tuple[str, ...]]]
    """A layout, and the uses of the weight that have it."""
    sums: Callable[..., Sums]

    @classmethod
    def of(cls, point: Pointwise, *how: Any) -> "_Program":
        traced = trace_uses(point)
        groups = _groups(point, traced)
        sums = jit(partial(_sums, point, traced, groups, *how))
        return cls(point, traced, groups, sums)

    def blocks(self, sums: dict[str, dict[str, np.ndarray]], dtype: np.dtype) -> tuple[Block, ...]:
        """The means as blocks."""
        found: list[Block] = []
        for name, (layout, _) in self.groups.items():
            a = sums[name]["a"] / np.maximum(sums[name]["rows"], np.finfo(np.float64).tiny)
            found.append(Kronecker(_as(a, dtype), _as(sums[name]["b"], dtype), layout))
        named = self.point.named
        found += [
            Dense(_as(sums[name]["g"], dtype), name, named[name].shape) for name in self.traced.rest
        ]
        return tuple(found)

    def check(self, params: Params, args: tuple[PyTree, ...]) -> None:
        """Along a random displacement: layers' factors beside reverse mode, of one example."""
        rng = np.random.default_rng(SEED)
        named = self.point.named
        along = {n: rng.standard_normal(leaf.shape) for n, leaf in named.items()}
        e = signs(self.point.outputs)
        expected = row(self.point, params, args, 0, e)
        first = jax.tree.map(lambda x: jnp.asarray(x[0]), args)
        found = jit(partial(_along, self.point, self.traced, self.groups))(
            params, first, {n: jnp.asarray(d, named[n].dtype) for n, d in along.items()}, e
        )
        leaves = {layout.weight: tuple(layout.shapes) for layout, _ in self.groups.values()}
        for weight, value in found.items():
            names = leaves[weight]
            agree(
                value,
                sum(float(np.vdot(expected[n], along[n])) for n in names),
                scale=sum(norm({n: expected[n]}) * norm({n: along[n]}) for n in names),
                dtypes=(self.point.narrowest, self.point.dtype),
                terms=sum(self.point.sizes[n] for n in names),
                what="derivative of a layer from its two factors",
                entry=" and ".join(names),
            )


def _groups(point: Pointwise, traced: Traced) -> dict[str, tuple[Layout, tuple[str, ...]]]:
    """The uses of each weight by the matrices that they make of it: tied ones have two layouts."""
    found: dict[Hashable, list[str]] = {}
    for use, layer in traced.layers.items():
        key = (layer.weight, layer.steps, len(layer.stacked), layer.looks_up)
        found.setdefault(key, []).append(use)
    groups = {}
    for uses in found.values():
        layer = traced.layers[uses[0]]
        layout = Layout(
            layer.weight,
            point.named[layer.weight].shape,
            len(layer.stacked),
            layer.steps,
            layer.inner,
            layer.outer,
            layer.bias,
            () if layer.bias is None else point.named[layer.bias].shape,
        )
        groups[uses[0]] = layout, tuple(uses)
    return groups


def _derivatives(
    point: Pointwise, traced: Traced, params: Params, example: Inputs, probes: Array
) -> tuple[Flat, Flat, Flat]:
    """Of probes (R, C): Jᵀv of the other leaves, ∂⟨v, f⟩/∂z (R, ...) and inputs of the layers."""
    named = point.pick(params)
    zeros = {
        use: jnp.zeros((*k.repeats, k.positions, k.outer), point.dtype)
        for use, k in traced.layers.items()
    }

    def outputs(rest: Flat, zeros: Flat) -> tuple[Array, Flat]:
        return traced(params, {**named, **rest}, example, zeros)

    rest = {name: named[name] for name in traced.rest}
    out, pull, inputs = jax.vjp(outputs, rest, zeros, has_aux=True)
    slopes, outer = jax.vmap(pull)(probes.astype(out.dtype))
    return slopes, outer, inputs


def _arranged(layer: Layer, x: Array, before: int) -> Array:
    """From (..., *repeats, T, K) to (..., S, rows, K)."""
    scans = range(before, before + len(layer.repeats))
    own = [before + i for i in layer.stacked]
    shared = [i for i in scans if i not in own]
    lead = x.shape[:before]
    S = int(np.prod([x.shape[i] for i in own], dtype=int))
    order = (*range(before), *own, *shared, *range(before + len(layer.repeats), x.ndim))
    tail = x.shape[before + len(layer.repeats) + 1 :]
    return x.transpose(order).reshape(*lead, S, -1, *tail)


def _sums(
    point: Pointwise,
    traced: Traced,
    groups: dict[str, tuple[Layout, tuple[str, ...]]],
    probes: int | None,
    widest: int,
    parts: int | None,
    params: Params,
    batch: Inputs,
    key: Array,
    numbers: Array,
    counts: Array,
) -> Sums:
    """Σ over the examples that count."""
    C, dtype = point.outputs, point.dtype

    def one(example: Inputs, number: Array) -> tuple[Flat, Flat, Flat]:
        if probes is None:
            drawn = jnp.eye(C, dtype=dtype)
        else:
            own = jax.random.fold_in(key, number)
            drawn = jax.random.normal(own, (probes, C), dtype) / np.sqrt(probes)
        return _derivatives(point, traced, params, example, drawn)

    rest, outer, inputs = jax.vmap(one)(batch, numbers)
    weights = counts.astype(dtype)
    slopes = {use: _arranged(traced.layers[use], outer[use], 2) for use in outer}
    reach: dict[int, Array] = {}
    for slope in slopes.values():  # (n, R, S, rows, M)
        reaches = (slope != 0).any((1, 2, 4))
        reach[slope.shape[3]] = reach.get(slope.shape[3], reaches) | reaches
    found: Sums = {}
    for group, (layout, uses) in groups.items():
        layers = [traced.layers[use] for use in uses]
        given = [_arranged(k, inputs[use], 1) for k, use in zip(layers, uses, strict=True)]
        a = jnp.concatenate(given, axis=2)  # (n, S, rows, K), or (n, S, rows) of a look-up
        g = jnp.concatenate([slopes[use] for use in uses], axis=3)  # (n, R, S, rows, M)
        those = [reach[slopes[use].shape[3]] for use in uses]
        each = (jnp.concatenate(those, axis=1) * weights[:, None]).ravel()
        n, R, S, rows, M = g.shape
        g = g.astype(dtype).transpose(2, 0, 1, 3, 4).reshape(S, n * R * rows, M)
        if layers[0].looks_up:
            table = jnp.zeros((S, layout.inner), dtype)
            flat = a.transpose(1, 0, 2).reshape(S, -1)
            A = jax.vmap(lambda counts, at, each=each: counts.at[at].add(each))(table, flat)
        else:
            a = a.astype(dtype).transpose(1, 0, 2, 3).reshape(S, n * rows, layout.inner)
            if layout.bias is not None:
                a = jnp.concatenate([a, jnp.ones((*a.shape[:2], 1), dtype)], axis=2)
            A = _outer(a, each, widest + (layout.bias is not None))
        packed = math.gcd(*(layer.packed for layer in layers))
        cut = packed * (parts or 1)
        cut = cut if M % cut == 0 else packed
        B = _outer(g, jnp.repeat(weights, R * rows), widest if parts else 0, cut)
        found[group] = {"a": A, "b": B, "rows": each.sum()}
    for name, depth in traced.rest.items():
        slope = rest[name].astype(dtype)  # (n, R, *leaf)
        n, R, *shape = slope.shape
        S = int(np.prod(shape[:depth], dtype=int))
        j = slope.reshape(n * R, S, -1).transpose(1, 0, 2)
        found[name] = {"g": _outer(j, jnp.repeat(weights, R), widest)}
    return found


def _outer(rows: Array, weights: Array, widest: int, parts: int = 1) -> Array:
    """Σ_r w_r x_r x_rᵀ of rows (S, r, K): (S, K, K), its diagonal blocks, or (S, K)."""
    S, r, K = rows.shape
    if widest < K // parts:
        return jnp.einsum("srk,r->sk", rows**2, weights, precision=_HIGHEST)
    if parts > 1:
        each = rows.reshape(S, r, parts, K // parts)
        scaled = each * weights[None, :, None, None]
        return jnp.einsum("srpk,srpj->spkj", scaled, each, precision=_HIGHEST)
    return jnp.einsum("srk,srj->skj", rows * weights[None, :, None], rows, precision=_HIGHEST)


def _along(
    point: Pointwise,
    traced: Traced,
    groups: dict[str, tuple[Layout, tuple[str, ...]]],
    params: Params,
    example: Inputs,
    along: Flat,
    e: Array,
) -> dict[str, Array]:
    """⟨Jᵀe, d⟩ of each weight with its bias, as Σ_t ⟨a_t ⊗ g_t, D⟩ over all its uses."""
    _, outer, inputs = _derivatives(point, traced, params, example, jnp.asarray(e)[None])
    found: dict[str, Array] = {}
    for layout, uses in groups.values():
        D = layout.matrix(along)
        for use in uses:
            layer = traced.layers[use]
            a = _arranged(layer, inputs[use], 0)
            g = _arranged(layer, outer[use][0], 0)
            if layer.looks_up:
                moved = jax.vmap(lambda table, at: table[at])(D, a)
            else:
                a = a.astype(g.dtype)
                if layout.bias is not None:
                    a = jnp.concatenate([a, jnp.ones((*a.shape[:2], 1), a.dtype)], axis=2)
                moved = jnp.einsum("srk,skm->srm", a, D, precision=_HIGHEST)
            value = jnp.vdot(moved, g, precision=_HIGHEST)
            found[layout.weight] = found.get(layout.weight, jnp.zeros(())) + value
    return found


def _as(array: np.ndarray, dtype: np.dtype) -> Array:
    return jnp.asarray(array.astype(dtype))

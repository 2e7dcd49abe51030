"""How a kernel is computed: in which parts, in blocks of how many examples, at what cost."""

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from linearize import cost, tree
from linearize.choices import one_of
from linearize.fields import integer
from linearize.ntk import contract
from linearize.ntk.contract import Output
from linearize.ntk.jacobian import RULES, Part, Rule, jacobian_part
from linearize.ntk.layers import Layer, Traced, trace_layers, trace_tables
from linearize.ntk.pointwise import Inputs, Pointwise, pointwise
from linearize.ntk.products import product_part
from linearize.types import Apply, Params

Implementation = Literal["auto", "jacobian", "structured", "products"]
Optimizer = Literal["sgd", "signgd", "asymmetric_signgd"]

BUDGET = 256 * 1024**2
"""Bytes of derivatives that are held at a time, unless the caller allows other."""

_FEW = 32
"""A block of fewer examples is not worth multiplying a layer's factors apart."""

_COTANGENTS = 1024


@dataclass(frozen=True)
class Computation:
    """What is to be computed, before it is decided how.

    Attributes:
        point: the model, one example at a time.
        output: layout.
        rule: what is multiplied.
        dtype: in which it is multiplied and summed.
        n1: examples of the first side.
        n2: examples of the second; the same in a symmetric kernel.
        symmetric: whether both sides are the same examples.
        budget: bytes of derivatives to hold at a time.
    """

    point: Pointwise
    output: Output
    rule: Rule
    dtype: jnp.dtype
    n1: int
    n2: int
    symmetric: bool
    budget: int

    def at_once(self, held: int) -> int:
        """Examples differentiated together, so that cotangents take a third of what is held.

        About three arrays of cotangents are live at a time. More than ``_COTANGENTS`` reverse
        passes together are no faster; fewer leave cores idle, unless they take much memory.
        """
        C = self.point.outputs
        cotangents = 3 * C * self.point.widest * self.dtype.itemsize
        return max(1, min(_COTANGENTS // C, max(held // 3, self.budget // 16) // cotangents))

    @property
    def mirrored(self) -> bool:
        """Whether a pair of blocks is computed once, and gives the block across too."""
        return self.symmetric and self.rule.symmetric

    def result_bytes(self) -> int:
        """Size of the whole kernel."""
        spec = contract.shape(self.output, self.n1, self.n2, self.point.outputs)
        return math.prod(spec) * self.dtype.itemsize


def asked(
    f: Apply,
    params: Params,
    inputs: Inputs,
    n1: int,
    n2: int | None,
    *,
    implementation: str,
    output: Output,
    optimizer: Optimizer,
    trainable: tree.Pattern,
    batch_size: int | None,
    dtype: Any,
    memory: int,
) -> Computation:
    """Check what is asked of a kernel of ``n1`` examples like ``inputs`` with ``n2`` others.

    Raises:
        ValueError: an unknown option; as :func:`pointwise`.
    """
    one_of("implementation", implementation, ("auto", *IMPLEMENTATIONS))
    one_of("output", output, contract.LAYOUTS)
    rule = RULES[one_of("optimizer", optimizer, RULES)]
    if not rule.plain and implementation not in ("auto", "jacobian"):
        raise ValueError(
            f"implementation={implementation!r} never forms the Jacobian whose signs "
            f"optimizer={optimizer!r} needs; use 'jacobian' or 'auto'"
        )
    if batch_size is not None:
        integer("batch_size", batch_size, low=1)
    point = pointwise(f, params, inputs, trainable)
    return Computation(
        point=point,
        output=output,
        rule=rule,
        dtype=point.dtype if dtype is None else _summed(dtype),
        n1=n1,
        n2=n1 if n2 is None else n2,
        symmetric=n2 is None,
        budget=memory,
    )


def _summed(dtype: Any) -> np.dtype:
    """The dtype that is asked for, if numbers are summed in it.

    Raises:
        ValueError: it is not floating, or one that JAX does not compute in.
    """
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = np.dtype(object)
    if not jnp.issubdtype(found, jnp.floating):
        raise ValueError(f"dtype={dtype!r}; expected a floating dtype, such as 'float32'")
    if jax.dtypes.canonicalize_dtype(found) != found:
        raise ValueError(
            f"dtype={dtype!r}: JAX sums in {jax.dtypes.canonicalize_dtype(found)} here; enter "
            "jax.enable_x64(True), or leave dtype out"
        )
    return found


@dataclass(frozen=True)
class Schedule:
    """A decision: which parts add up to a block of the kernel, and how large a block is."""

    implementation: str
    parts: Sequence[Part]
    rows: int
    bytes: int

    def keeps(self, wanted: Computation) -> bool:
        """Whether a row's derivatives are kept while they meet one block after another."""
        one = len(self.parts) == 1 and self.parts[0].derive is not None
        return one and self.rows < wanted.n2

    def flops(self, wanted: Computation) -> int:
        """Operations of one block, counted in its jaxpr."""
        spec = partial(examples_like, wanted.point.inputs)
        x1 = spec(min(self.rows, wanted.n1))
        x2 = None if wanted.symmetric else spec(min(self.rows, wanted.n2))
        return sum(cost.count_flops(part.block, wanted.point.params, x1, x2) for part in self.parts)

    def total_flops(self, wanted: Computation) -> int:
        """Operations of all blocks, as if each were whole and met alone."""
        across, down = (math.ceil(n / self.rows) for n in (wanted.n1, wanted.n2))
        pairs = across * (across + 1) // 2 if wanted.mirrored else across * down
        return self.flops(wanted) * pairs


def examples_like(one: Inputs, n: int) -> Inputs:
    """The specification of n examples."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), one)


def jacobian(wanted: Computation, rows: int | None) -> Schedule:
    """Groups of leaves by ordinary reverse mode; of a table the rows that occur."""
    traced = trace_tables(wanted.point)
    return _planned("jacobian", wanted, rows, traced, traced.weights)


def structured(wanted: Computation, rows: int | None) -> Schedule:
    """Groups of leaves, a recognised layer's derivative from its two factors."""
    traced, fewest = trace_layers(wanted.point), min(rows or _FEW, wanted.n1)
    apart = {
        w: k
        for w, k in traced.weights.items()
        if k.by_rows or (_apart(k, wanted) and _meeting(k, wanted) >= fewest)
    }
    return _planned("structured", wanted, rows, traced, apart)


def _planned(
    implementation: str,
    wanted: Computation,
    rows: int | None,
    traced: Traced,
    factored: Mapping[str, Layer],
) -> Schedule:
    """Groups of leaves, of which the ``factored`` ones hold their factors alone."""
    C = wanted.point.outputs
    widths = {n: size * C for n, size in wanted.point.sizes.items()}
    for name, layer in factored.items():
        read = 1 if layer.looks_up else layer.inner
        widths[name] = layer.positions * (read + C * layer.outer)
    cap = min((max(1, _meeting(k, wanted)) for k in factored.values()), default=None)
    return _grouped(implementation, wanted, rows, widths, traced, list(factored), cap)


def _apart(layer: Layer, wanted: Computation) -> bool:
    """Whether a layer's factors are cheaper multiplied apart than its Jacobians.

    Counted for a pair of examples: T² K + T² M S against K M S, S the pairs of outputs met.
    """
    T, K, M, C = layer.positions, layer.inner, layer.outer, wanted.point.outputs
    met = C * C if wanted.output == "full" else C
    return not layer.looks_up and T * T * (K + M * met) < K * M * met


def _meeting(layer: Layer, wanted: Computation) -> int:
    """Examples a side whose products at T positions take the budget while they are summed."""
    C, T = wanted.point.outputs, layer.positions
    held = {"full": C * C, "diagonal": C}.get(wanted.output, 1) * wanted.dtype.itemsize
    return max(wanted.n1, wanted.n2) if T == 1 else math.isqrt(wanted.budget // (held * T))


def _grouped(
    implementation: str,
    wanted: Computation,
    rows: int | None,
    widths: dict[str, int],
    traced: Traced | None = None,
    factored: Sequence[str] = (),
    cap: int | None = None,
) -> Schedule:
    """Leaves packed into groups that fit the budget for the examples of a block.

    ``widths`` are the numbers that one example's derivative in each leaf takes; a block is of
    ``cap`` examples at most, unless ``rows`` are given.
    """
    largest = max(widths.values())
    if rows is None:
        rows = _rows(wanted, largest, sum(widths.values()))
        rows = rows if cap is None else min(rows, cap)
    sides = 1 if wanted.symmetric and wanted.n1 <= rows else 2
    unit = wanted.dtype.itemsize * sides
    room = max(wanted.budget // (unit * rows), largest)
    total, freed = sum(widths.values()), 1
    together = wanted.at_once(total * rows * unit) >= rows
    if sides == 1 and rows >= wanted.n1 and together and total <= 2 * room:
        # where one pass is no loop over examples, XLA frees a leaf's derivatives once they have
        # met, and holds about half of them; groups would repeat the pass
        room, freed = total, 2
    at_once = wanted.at_once(min(total, room) * rows * unit)
    parts, held = [], 0
    for group in _pack(widths, room):
        held = max(held, sum(widths[n] for n in group))
        parts.append(
            jacobian_part(
                wanted.point,
                group,
                output=wanted.output,
                rule=wanted.rule,
                dtype=wanted.dtype,
                at_once=at_once,
                traced=traced,
                factored=factored,
            )
        )
    return Schedule(implementation, parts, rows, held * rows * unit // freed)


def _rows(wanted: Computation, largest: int, total: int) -> int:
    """Examples of a block: as many as the budget holds in one leaf, or in all leaves together.

    A block's derivatives in all leaves come from one reverse pass and are kept while they meet a
    row of blocks; leaf by leaf, blocks are larger, but each group takes passes of its own for every
    pair of blocks. What takes fewer passes over the examples is chosen.
    """
    most = max(wanted.n1, wanted.n2)

    def fits(width: int, sides: int) -> int:
        return min(most, wanted.budget // (width * wanted.dtype.itemsize * sides))

    if wanted.symmetric and fits(largest, 1) == most:
        return most
    together, apart = fits(total, 2), max(1, fits(largest, 2))
    if not together:
        return apart
    groups = math.ceil(apart * total / (wanted.budget // (2 * wanted.dtype.itemsize)))
    once = 1 + math.ceil(most / together) / (2 if wanted.symmetric else 1)
    again = 2 * groups * math.ceil(most / apart) / (2 if wanted.symmetric else 1)
    return together if once <= again else apart


def _pack(widths: dict[str, int], room: int) -> Iterator[list[str]]:
    """Neighbours together as far as they fit: a group's reverse pass ends at its first layer."""
    group: list[str] = []
    used = 0
    for name, width in widths.items():
        if group and used + width > room:
            yield group
            group, used = [], 0
        group.append(name)
        used += width
    yield group


def products(wanted: Computation, rows: int | None) -> Schedule:
    """NTK-vector products, a column at a time."""
    rows = rows or max(wanted.n1, wanted.n2)
    block = product_part(
        wanted.point, output=wanted.output, dtype=wanted.dtype, at_once=4 * wanted.at_once(0)
    )
    held = sum(wanted.point.sizes.values()) * wanted.dtype.itemsize
    return Schedule("products", [block], rows, held)


IMPLEMENTATIONS: dict[str, Callable[[Computation, int | None], Schedule]] = {
    "jacobian": jacobian,
    "structured": structured,
    "products": products,
}
"""Ways to the same numbers, by name."""


def choose(wanted: Computation, implementation: str, rows: int | None) -> Schedule:
    """The plan of an implementation; for ``"auto"`` the one with the fewest counted operations
    among those that stay in the budget, or the smallest if none does.

    Where ``"structured"`` fits, ``"jacobian"`` is not asked: it does the same products, but takes
    a convolution's weight gradients one by one, which was ten times as slow on CPUs.
    """
    if implementation != "auto":
        return IMPLEMENTATIONS[implementation](wanted, rows)
    names = list(IMPLEMENTATIONS) if wanted.rule.plain else ["jacobian"]
    plans = [IMPLEMENTATIONS[n](wanted, rows) for n in names]
    fitting = [p for p in plans if p.bytes <= wanted.budget]
    if not fitting:
        return min(plans, key=lambda p: p.bytes)
    if any(p.implementation == "structured" for p in fitting):
        fitting = [p for p in fitting if p.implementation != "jacobian"]
    return min(fitting, key=lambda p: p.total_flops(wanted))


def available_bytes(device: jax.Device) -> int | None:
    """Memory that is free for arrays, where the platform tells."""
    stats = device.memory_stats() if device.platform != "cpu" else None
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"]) - int(stats.get("bytes_in_use", 0))
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        try:
            return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        except (ValueError, OSError):
            return None
    return None

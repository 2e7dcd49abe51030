"""How a kernel is computed: in which parts, in blocks of how many examples, at what cost."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from linearize import cost
from linearize.ntk import contract
from linearize.ntk.contract import Output
from linearize.ntk.jacobian import Block, Rule, jacobian_block
from linearize.ntk.layers import Layer, Traced, trace_layers
from linearize.ntk.pointwise import Inputs, Pointwise
from linearize.ntk.products import product_block

Implementation = Literal["auto", "jacobian", "structured", "products"]

BUDGET = 256 * 1024**2
"""Bytes of derivatives that are held at a time, unless the caller allows other."""

_COTANGENTS = 128
"""Reverse passes taken together: enough to fill the cores, small beside the budget."""


@dataclass(frozen=True)
class Task:
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

    @property
    def at_once(self) -> int:
        """Examples differentiated together."""
        return max(1, _COTANGENTS // self.point.outputs)

    def result_bytes(self) -> int:
        """Size of the whole kernel."""
        spec = contract.shape(self.output, self.n1, self.n2, self.point.outputs)
        return math.prod(spec) * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """A decision: which parts add up to a block of the kernel, and how large a block is."""

    implementation: str
    parts: Sequence[Block]
    rows: int
    bytes: int

    def flops(self, task: Task) -> int:
        """Operations of one block, counted in its jaxpr."""
        spec = partial(_specification, task.point.inputs)
        x1 = spec(min(self.rows, task.n1))
        x2 = None if task.symmetric else spec(min(self.rows, task.n2))
        return sum(cost.count_flops(part, task.point.params, x1, x2) for part in self.parts)

    def total_flops(self, task: Task) -> int:
        """Operations of all blocks, as if each were whole."""
        pairs = math.ceil(task.n1 / self.rows) * math.ceil(task.n2 / self.rows)
        return self.flops(task) * pairs


def _specification(one: Inputs, n: int) -> Inputs:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((n, *x.shape), x.dtype), one)


def jacobian(task: Task, rows: int | None) -> Plan:
    """Groups of leaves by ordinary reverse mode."""
    widths = {n: size * task.point.outputs for n, size in task.point.sizes.items()}
    return _grouped("jacobian", task, rows, widths, None, ())


def structured(task: Task, rows: int | None) -> Plan:
    """Groups of leaves, a recognised layer's derivative from its two factors."""
    traced = trace_layers(task.point)
    C = task.point.outputs
    n = min(rows or task.n1, task.n1)
    factored = [w for w, k in traced.layers.items() if _apart(k, task, n)]
    widths = {}
    for name, size in task.point.sizes.items():
        layer = traced.layers.get(name)
        if layer is not None and name in factored:
            read = 1 if layer.looks_up else layer.inner
            widths[name] = layer.positions * (read + C * layer.outer)
        else:
            widths[name] = size * C
    return _grouped("structured", task, rows, widths, traced, factored)


def _apart(layer: Layer, task: Task, n: int) -> bool:
    """Whether a layer's factors are cheaper multiplied apart than its Jacobians.

    Counted for a pair of examples: T² K + T² M S against K M S, S the pairs of outputs met; with
    the room that the T × T products of a block take.
    """
    T, K, M, C = layer.positions, layer.inner, layer.outer, task.point.outputs
    met = {"full": C * C, "diagonal": C, "trace": C}[task.output]
    apart = T * T * ((1 if layer.looks_up else K) + M * met)
    held = {"full": C * C, "diagonal": C, "trace": 1}[task.output] * (n * T) ** 2
    small = T == 1 or held * task.dtype.itemsize <= task.budget
    return apart < K * M * met and small


def _grouped(
    implementation: str,
    task: Task,
    rows: int | None,
    widths: dict[str, int],
    traced: Traced | None,
    factored: Sequence[str],
) -> Plan:
    """Leaves packed into groups that fit the budget for the examples of a block.

    ``widths`` are the numbers that one example's derivative in each leaf takes.
    """
    sides = 1 if task.symmetric and task.n1 <= (rows or task.n1) else 2
    unit = task.dtype.itemsize * sides
    largest = max(widths.values())
    if rows is None:
        rows = max(1, min(max(task.n1, task.n2), task.budget // (largest * unit)))
        if sides == 1 and rows < task.n1:
            rows = max(1, rows // 2)
    room = max(task.budget // (unit * rows), largest)
    parts, held = [], 0
    for group in _pack(widths, room):
        held = max(held, sum(widths[n] for n in group))
        parts.append(
            jacobian_block(
                task.point,
                group,
                output=task.output,
                rule=task.rule,
                dtype=task.dtype,
                at_once=task.at_once,
                traced=traced,
                factored=factored,
            )
        )
    return Plan(implementation, parts, rows, held * rows * unit)


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


def products(task: Task, rows: int | None) -> Plan:
    """NTK-vector products, a column at a time."""
    rows = rows or max(task.n1, task.n2)
    block = product_block(
        task.point, output=task.output, dtype=task.dtype, at_once=max(1, 4 * task.at_once)
    )
    held = sum(task.point.sizes.values()) * task.dtype.itemsize
    return Plan("products", [block], rows, held)


IMPLEMENTATIONS: dict[str, Callable[[Task, int | None], Plan]] = {
    "jacobian": jacobian,
    "structured": structured,
    "products": products,
}
"""Ways to the same numbers, by name."""


def choose(task: Task, implementation: str, rows: int | None) -> Plan:
    """The plan of an implementation; for ``"auto"`` the one with the fewest counted operations
    among those that stay in the budget, or the smallest if none does.

    Where ``"structured"`` fits, ``"jacobian"`` is not asked: it does the same products, but takes
    a convolution's weight gradients one by one, which was ten times as slow on CPUs.
    """
    if implementation != "auto":
        return IMPLEMENTATIONS[implementation](task, rows)
    names = list(IMPLEMENTATIONS) if task.rule.plain else ["jacobian"]
    plans = [IMPLEMENTATIONS[n](task, rows) for n in names]
    fitting = [p for p in plans if p.bytes <= task.budget]
    if not fitting:
        return min(plans, key=lambda p: p.bytes)
    if any(p.implementation == "structured" for p in fitting):
        fitting = [p for p in fitting if p.implementation != "jacobian"]
    return min(fitting, key=lambda p: p.total_flops(task))


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

"""What a compiled program does on each device, read off its text: products, and bytes exchanged.

XLA's own ``cost_analysis`` counts the body of a loop once, and tells nothing of what devices send
one another. Here a loop's body counts as often as XLA knows that it runs.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4,
         "f32": 4, "s64": 8, "u64": 8, "f64": 8}  # fmt: skip
SENT = {
    "all-gather": lambda size, ways: size * (ways - 1) / ways,
    "all-reduce": lambda size, ways: 2 * size * (ways - 1) / ways,
    "reduce-scatter": lambda size, ways: size * (ways - 1),
    "all-to-all": lambda size, ways: size * (ways - 1) / ways,
    "collective-permute": lambda size, ways: size,
}
"""Bytes that a device sends on a ring of so many, of the size of its result."""

_MOVES = {"copy", "transpose", "slice", "dynamic-slice", "concatenate", "pad"}
_FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple"}

_HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) (?:\(.*)?.*\{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([\w\-]+)\((.*)$")
_ARRAY = re.compile(r"\b(\w+)\[([\d,]*)\]")
_NAMES = re.compile(r"%?([\w.\-]+)(?=[,)]|$)")


class Instruction(NamedTuple):
    """A line of a computation."""

    name: str
    shape: str
    kind: str
    rest: str
    """Operands and attributes."""


@dataclass
class Counted:
    """Of one device: operations in matrix products, and bytes sent by kind of collective."""

    flops: float = 0.0
    sent: dict[str, float] = field(default_factory=dict)

    @property
    def exchanged(self) -> float:
        """Bytes sent in all."""
        return sum(self.sent.values())

    def add(self, other: "Counted", times: float = 1.0) -> None:
        """So many times as much more."""
        self.flops += times * other.flops
        for kind, size in other.sent.items():
            self.sent[kind] = self.sent.get(kind, 0.0) + times * size


def count(text: str) -> Counted:
    """Of a compiled program's text (``jax.stages.Compiled.as_text``).

    Raises:
        ValueError: a loop whose length XLA does not know has products or collectives in it, or a
            product is computed by a call whose shapes the text does not tell.
    """
    bodies = dict(computations(text))
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)
    if entry is None:
        raise ValueError("no ENTRY: not the text of a compiled program")
    return _of(entry[1], bodies, {})


def copied(text: str) -> float:
    """Bytes that are written in one pass of the loops whose length XLA does not know, only to move.

    By instructions that copy, cut out, join or transpose, and by fusions of no others. What is
    written in place (``dynamic-update-slice``) does not count.
    """
    bodies = dict(computations(text))
    whole = [each for lines in bodies.values() for each in lines]
    loops = {_named("body", x) for x in whole if x.kind == "while" and _times(x) is None}
    return sum(_copied(name, bodies) for name in loops)


def _copied(name: str, bodies: Mapping[str, list[Instruction]]) -> float:
    total = 0.0
    for each in bodies[name]:
        called = re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", each.rest)
        branches = re.search(r"branch_computations=\{([^}]*)\}", each.rest)
        if each.kind == "while":
            total += (_times(each) or 0) * _copied(_named("body", each), bodies)
        elif branches:
            total += max(_copied(x.strip().lstrip("%"), bodies) for x in branches[1].split(","))
        elif each.kind == "call":
            total += sum(_copied(inner, bodies) for inner in called)
        else:
            fused = each.kind == "fusion"
            kinds = {x.kind for inner in called for x in bodies[inner]} if fused else {each.kind}
            if kinds & _MOVES and kinds <= _MOVES | _FREE:
                total += _bytes(_sizes(each.shape))
    return total


def computations(text: str) -> Iterator[tuple[str, list[Instruction]]]:
    """Each computation's name and instructions, of ``jax.stages.Compiled.as_text``."""
    name, lines = "", []
    for line in text.splitlines():
        if found := _LINE.match(line):
            lines.append(Instruction(*found.groups()))
        elif line.startswith("}"):
            yield name, lines
        elif line and not line[0].isspace() and (found := _HEAD.match(line)):
            name, lines = found[1], []


def _of(name: str, bodies: Mapping[str, list[Instruction]], done: dict[str, Counted]) -> Counted:
    if name in done:
        return done[name]
    total, shapes = Counted(), {each.name: each.shape for each in bodies[name]}
    for each in bodies[name]:
        kind = each.kind.removesuffix("-start")
        if kind == "dot":
            total.flops += _product(each, shapes)
        elif kind in SENT:
            size = SENT[kind](_bytes(_result(each)), _ways(each))
            total.sent[kind] = total.sent.get(kind, 0.0) + size
        elif kind == "custom-call" and "matmul" in each.rest:
            raise ValueError(f"{each.name}: a product by a call: {each.rest[:80]}")
        elif kind == "while":
            inside = _of(_named("body", each), bodies, done)
            times = _times(each)
            if times is None and (inside.flops or inside.sent):
                raise ValueError(f"{each.name}: XLA does not know how often this loop runs")
            total.add(inside, times or 0.0)
        else:
            for inner in re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", each.rest):
                total.add(_of(inner, bodies, done))
            branches = re.search(r"branch_computations=\{([^}]*)\}", each.rest)
            if branches:
                most = [_of(x.strip().lstrip("%"), bodies, done) for x in branches[1].split(",")]
                total.add(max(most, key=lambda x: (x.flops, x.exchanged)))
    done[name] = total
    return total


def _times(each: Instruction) -> float | None:
    """How often a loop runs, where XLA knows it."""
    found = re.search(r'known_trip_count":\{"n":"(\d+)"', each.rest)
    return float(found[1]) if found else None


def _named(what: str, each: Instruction) -> str:
    found = re.search(rf"{what}=%?([\w.\-]+)", each.rest)
    assert found is not None
    return found[1]


def _sizes(shape: str) -> list[tuple[str, list[int]]]:
    arrays = _ARRAY.findall(shape)
    return [(kind, [int(d) for d in dims.split(",") if d]) for kind, dims in arrays]


def _bytes(arrays: Sequence[tuple[str, list[int]]]) -> int:
    return sum(BYTES[kind] * math.prod(dims) for kind, dims in arrays)


def _result(each: Instruction) -> list[tuple[str, list[int]]]:
    """The arrays of its result; what only begins may list its operands before them."""
    arrays = _sizes(each.shape)
    if each.kind == "all-gather-start":
        return arrays[len(arrays) // 2 :]
    return arrays[1:2] if each.kind == "collective-permute-start" else arrays


def _product(each: Instruction, shapes: Mapping[str, str]) -> float:
    operand = each.rest.split(",")[0]
    typed = _sizes(each.rest.split(")")[0])
    left = typed[0] if typed else _sizes(shapes[operand.strip().lstrip("%")])[0]
    found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", each.rest)
    over = [int(d) for d in found[1].split(",") if d] if found else []
    ((_, result),) = _sizes(each.shape)
    return 2.0 * math.prod(result) * math.prod(left[1][d] for d in over)


def _ways(each: Instruction) -> int:
    """How many devices take part in a group."""
    if found := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", each.rest):
        sizes = dict(re.findall(r"('\w+')=(\d+)", found[1]))
        parts = re.findall(r"('\w+')(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    if found := re.search(r"replica_groups=\[(\d+),(\d+)\]", each.rest):
        return int(found[2])
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", each.rest):
        return len(found[1].split(","))
    if each.kind.startswith("collective-permute"):
        return 2
    raise ValueError(f"{each.name}: which devices take part is not told: {each.rest[-300:]}")

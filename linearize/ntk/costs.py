"""What a kernel costs, before it is begun: pairs of blocks, operations, memory and disk."""

from dataclasses import dataclass
from math import ceil, prod
from typing import Any, NamedTuple

import jax
import numpy as np

from linearize import cost, tree
from linearize.examples import as_arguments
from linearize.fields import integer
from linearize.ntk import contract
from linearize.ntk.contract import Output
from linearize.ntk.plan import (
    BUDGET,
    Computation,
    Implementation,
    Optimizer,
    Schedule,
    asked,
    choose,
    examples_like,
)
from linearize.ntk.pointwise import Inputs
from linearize.ntk.programs import remembered
from linearize.ntk.store import CHECKSUM_BYTES
from linearize.shares import share_of
from linearize.types import Apply, Params, PyTree


@dataclass(frozen=True)
class KernelCost:
    """What :func:`linearize.ntk.kernel` does for a kernel, counted before it does it.

    Attributes:
        implementation: what ``"auto"`` chose, or what was given.
        outputs: C, the number of outputs of an example.
        rows: examples per side of a block.
        pairs: pairs of blocks that are computed, each once where the kernel is symmetric.
        pairs_each: those of the process that computes most.
        differentiated: examples whose derivatives are taken, as often as they are, by all
            processes: C reverse passes each; 0 where none are formed (``"products"``).
        flops: operations of all processes, in matrix products and convolutions
            (:mod:`linearize.cost`); a multiply-add counts as two.
        flops_each: those of the process that has most.
        held: bytes of derivatives that a process holds at a time.
        held_blocks: bytes of the block that it computes, and of the one across.
        stored: bytes of the blocks' files; beside them are a line of text for each block and a
            description.
    """

    implementation: str
    outputs: int
    rows: int
    pairs: int
    pairs_each: int
    differentiated: int
    flops: int
    flops_each: int
    held: int
    held_blocks: int
    stored: int


def kernel_cost(
    f: Apply,
    params: Params,
    x: PyTree,
    n1: int,
    n2: int | None = None,
    *,
    processes: int = 1,
    implementation: Implementation = "auto",
    output: Output = "full",
    trainable: tree.Pattern = None,
    optimizer: Optimizer = "sgd",
    batch_size: int | None = None,
    dtype: Any = None,
    memory: int = BUDGET,
) -> KernelCost:
    """What ``kernel(f, params, x1, out=FOLDER)`` of ``n1`` examples costs, before it is begun.

    Nothing is computed but the outputs of ``x``; the model is traced a dozen times, once for all
    ``processes``. Operations are those of the programs that would run, of blocks that are not whole
    as of whole ones. Left out: the few entries that are checked by a second way.

    Args:
        f: as for :func:`linearize.ntk.kernel`.
        params: likewise.
        x: an example or more of the kind that there will be.
        n1: how many examples the first side has.
        n2: how many the second has; by default both are the same examples.
        processes: how many share the blocks and write them to one folder.
        implementation: as for :func:`linearize.ntk.kernel`, as all that follows; give the same.
        output: likewise.
        trainable: likewise.
        optimizer: likewise.
        batch_size: likewise.
        dtype: likewise.
        memory: likewise.

    Raises:
        ValueError: a number below 1; as :func:`linearize.ntk.kernel`.

    >>> f, params = (lambda params, x: x @ params["w"]), {"w": np.ones((3, 2), np.float32)}
    >>> x = np.ones((1, 3), np.float32)
    >>> found = kernel_cost(f, params, x, 100_000, output="trace", batch_size=500, processes=8)
    >>> found.pairs, found.pairs_each, found.stored
    (20100, 2513, 40000160000)
    """
    n1, processes = integer("n1", n1, low=1), integer("processes", processes, low=1)
    wanted = asked(
        f,
        params,
        as_arguments(x),
        n1,
        None if n2 is None else integer("n2", n2, low=1),
        implementation=implementation,
        output=output,
        optimizer=optimizer,
        trainable=trainable,
        batch_size=batch_size,
        dtype=dtype,
        memory=memory,
    )
    asked_for = (output, optimizer, wanted.dtype, n1, n2, memory, implementation, batch_size)
    plan, programs = remembered(
        ("kernel cost", wanted.point.key, *asked_for),
        lambda: _planned(wanted, implementation, batch_size),
    )
    across, down = ceil(n1 / plan.rows), ceil(wanted.n2 / plan.rows)
    lengths = down - np.arange(across) if wanted.mirrored else np.full(across, down)
    pairs = int(lengths.sum())
    shares = [share_of(pairs, process, processes) for process in range(processes)]
    runs = np.array([_runs(wanted, plan, lengths, share) for share in shares])
    flops = runs @ [program.flops for program in programs]
    rows1, rows2 = (min(plan.rows, n) for n in (wanted.n1, wanted.n2))
    shape = contract.shape(output, rows1, rows2, wanted.point.outputs)
    block = prod(shape) * wanted.dtype.itemsize
    return KernelCost(
        implementation=plan.implementation,
        outputs=wanted.point.outputs,
        rows=plan.rows,
        pairs=pairs,
        pairs_each=max(map(len, shares)),
        differentiated=int((runs @ [program.differentiated for program in programs]).sum()),
        flops=int(flops.sum()),
        flops_each=int(flops.max()),
        held=plan.bytes,
        held_blocks=block * (2 if wanted.mirrored else 1),
        stored=across * down * (block + CHECKSUM_BYTES),
    )


class _Program(NamedTuple):
    """What one run of a compiled program takes."""

    flops: int
    differentiated: int


def _planned(
    wanted: Computation, implementation: str, batch_size: int | None
) -> tuple[Schedule, tuple[_Program, _Program, _Program]]:
    plan = choose(wanted, implementation, batch_size)
    return plan, _programs(wanted, plan)


def _programs(wanted: Computation, plan: Schedule) -> tuple[_Program, _Program, _Program]:
    """A row's derivatives, which are kept; a block of the diagonal; and one off it."""
    rows1, rows2 = (min(plan.rows, n) for n in (wanted.n1, wanted.n2))
    params, one = wanted.point.params, wanted.point.inputs
    x1, x2 = examples_like(one, rows1), examples_like(one, rows2)
    if plan.keeps(wanted):
        (part,) = plan.parts
        assert part.derive is not None
        assert part.meet is not None
        left = jax.eval_shape(part.derive, params, x1)
        return (
            _Program(cost.count_flops(part.derive, params, x1), rows1),
            _Program(cost.count_flops(part.meet, params, left, None), 0),
            _Program(cost.count_flops(part.meet, params, left, x2), rows2),
        )
    forming = sum(part.derive is not None for part in plan.parts)

    def block(x2: Inputs | None, differentiated: int) -> _Program:
        flops = sum(cost.count_flops(part.block, params, x1, x2) for part in plan.parts)
        return _Program(flops, forming * differentiated)

    return _Program(0, 0), block(None, rows1), block(x2, rows1 + rows2)


def _runs(
    wanted: Computation, plan: Schedule, lengths: np.ndarray, share: range
) -> tuple[int, int, int]:
    """How often a process runs each of :func:`_programs`, for its share of the pairs.

    Args:
        wanted: what is computed.
        plan: how.
        lengths: how many pairs each row of blocks has.
        share: which pairs are the process's, row after row.
    """
    begins = np.cumsum(lengths) - lengths
    first = np.maximum(begins, share.start)
    last = np.minimum(begins + lengths, share.stop)
    on = begins + (0 if wanted.mirrored else np.arange(len(lengths)))
    diagonal = int(((on >= share.start) & (on < share.stop)).sum()) if wanted.symmetric else 0
    return int((first < last).sum()), diagonal, len(share) - diagonal

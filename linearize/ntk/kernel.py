"""The empirical neural tangent kernel of any model, ``K(x, x') = J_θ f(x) J_θ f(x')ᵀ``."""

import contextlib
import itertools
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import astuple
from functools import partial, reduce
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from linearize import hosts, identity, shares, tree
from linearize.compiled import jit
from linearize.evaluate.batches import track, window
from linearize.examples import as_arguments, count
from linearize.fields import integer
from linearize.ntk import contract
from linearize.ntk.contract import Output
from linearize.ntk.jacobian import Part
from linearize.ntk.plan import (
    BUDGET,
    Computation,
    Implementation,
    Optimizer,
    Schedule,
    asked,
    available_bytes,
    choose,
)
from linearize.ntk.pointwise import Inputs, Pointwise, specification
from linearize.ntk.programs import remembered
from linearize.ntk.provenance import note_trace
from linearize.ntk.second_way import check_block
from linearize.ntk.store import Blocks, BlockStore, Disk, Elsewhere, Memory, Start
from linearize.renamed import renamed
from linearize.types import Apply, Array, Flat, Params, PyTree

log = logging.getLogger(__name__)

_ROUND, _ROUND_BYTES = 16, 2**26
"""Blocks that each of several processes makes at most before all of them have them, and bytes."""

_NOTED = 4
"""Pairs of blocks that each writes before they are noted: what a kill costs."""


@renamed(params_filter="trainable")
def kernel(
    f: Apply,
    params: Params,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    implementation: Implementation = "auto",
    output: Output = "full",
    trainable: tree.Pattern = None,
    optimizer: Optimizer = "sgd",
    batch_size: int | None = None,
    dtype: Any = None,
    memory: int = BUDGET,
    out: str | Path | None = None,
    max_pairs: int | None = None,
    mesh: Mesh | None = None,
    progress: bool = False,
) -> Any:
    """The empirical NTK between two sets of examples, exactly.

    All implementations give the same numbers, up to rounding, on every model; they differ in what
    they cost. Blocks of examples are computed one after another, so that beside the result memory
    does not grow with the number of examples; where both sides are the same, each pair of blocks
    once. Several processes share the blocks (:mod:`linearize.shares`), and all have the kernel.

    Args:
        f: ``f(params, *inputs) -> outputs``: one floating array or a pytree of them, examples on
            axis 0. Outputs are raveled and joined in the order of ``jax.tree.leaves``, cross terms
            included: C is the number of all of them for an example.
        params: the point θ: the pretrained model, or any other (the "after kernel").
        x1: N1 examples: an array, or a tuple of arrays for a model of several arguments.
        x2: N2 examples; by default ``x1``.
        implementation: ``"jacobian"`` contracts Jacobians, some leaves at a time; ``"structured"``
            takes those of dense layers, convolutions and embeddings from their two factors;
            ``"products"`` goes column by column and holds no Jacobian; ``"auto"`` takes the one
            with the fewest counted operations that stays within ``memory``.
        output: ``"full"`` (N1, N2, C, C): every output with every output; ``"diagonal"`` (N1, N2,
            C): each with itself; ``"trace"`` (N1, N2): the sum of these over outputs, divided by
            nothing; ``"mean"`` (N1, N2): trace / C, what neural-tangents gives by default. Solvers
            take a kernel (N, N) for that of every output, which the mean is an average of and the
            trace C times as much; see :func:`linearize.ntk.regression`.
        trainable: which leaves derivatives are taken in (:func:`linearize.tree.select`); the
            last layer's alone give the NNGP-like kernel of features.
        optimizer: ``"sgd"`` for the NTK; ``"signgd"`` ⟨sign ∇f, sign ∇f'⟩ and
            ``"asymmetric_signgd"`` ⟨∇f, sign ∇f'⟩ for the first steps of Adam (*A Kernel-Based
            View of Language Model Fine-Tuning*, Definition 3.1).
        batch_size: examples per side of a block; from ``memory`` by default. Any N will do.
        dtype: floating, of sums and result: float32 by default, float64 where θ or f is.
        memory: bytes of derivatives to hold at a time.
        out: a folder for the result, written block by block as a zarr array; a run that was killed
            goes on from there. Of several processes each writes its blocks, to a folder that all
            see. Host memory by default.
        max_pairs: pairs of blocks to compute at most in this call, with ``out``: the same call
            again goes on from there (:func:`count_blocks` says how far it is). What is returned
            reads NaN in the blocks that are still to come.
        mesh: this process's devices to spread the first side's examples over, all axes together.
        progress: draw a progress bar.

    Returns:
        A NumPy array; with ``out``, the array on disk (:func:`open_kernel`).

    Raises:
        ValueError: an unknown option; sides whose examples differ in shape; a mesh of other
            processes' devices; outputs that are not floating, empty, or depend on other examples;
            NaN or infinity in a Jacobian, with the leaf's name.
        MemoryError: result or blocks do not fit, with what does; nothing was computed.
        FileExistsError: ``out`` holds another kernel: of another model, inputs, layout, ...
        BlockingIOError: another process writes to ``out``.
        UnidentifiedError: ``out`` is given, and nothing says what ``f`` computes.
        DisagreementError: an entry, of three that are drawn for each compiled program, is another
            number by a second way (:mod:`linearize.ntk.second_way`).
        HostError: another process fails, or was called with other arguments.

    >>> f = lambda params, x: x @ params["w"]
    >>> x = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, 1.0]], np.float32)
    >>> kernel(f, {"w": jnp.ones((2, 4))}, x, output="trace").tolist()  # 4 x xᵀ
    [[4.0, 4.0, 0.0], [4.0, 20.0, 8.0], [0.0, 8.0, 4.0]]
    """
    if max_pairs is not None:
        integer("max_pairs", max_pairs, low=0)
        if out is None:
            raise ValueError(
                f"max_pairs={max_pairs} without out: nothing would go on from a part of a kernel "
                "in memory; give out=FOLDER"
            )
    if mesh is not None and {d.process_index for d in mesh.devices.flat} != {jax.process_index()}:
        raise ValueError(
            "mesh holds devices of other processes, with which blocks are shared anyhow; give one "
            "of this process's, jax.local_devices()"
        )
    left = as_arguments(x1)
    right = left if x2 is None else as_arguments(x2)
    wanted = asked(
        f,
        params,
        left,
        count(left),
        None if x2 is None else count(right),
        implementation=implementation,
        output=output,
        optimizer=optimizer,
        trainable=trainable,
        batch_size=batch_size,
        dtype=dtype,
        memory=memory,
    )
    point = wanted.point
    if specification(right) != specification(left):
        raise ValueError(
            f"x2 has examples {specification(right)}; expected those of x1: {specification(left)}"
        )
    programs = ("kernel", point.key, output, optimizer, wanted.dtype, wanted.n1, wanted.n2)
    choice = (wanted.symmetric, memory, implementation, batch_size, mesh)
    plan, compute, seen = remembered((*programs, *choice), lambda: _programs(wanted, *choice[2:]))
    writes, described = hosts.first(), dict[str, Any]()
    if out is not None or hosts.several():
        described = _described(wanted, left, right, params, optimizer, trainable, out)
        asked_of_all = {"plan": [plan.implementation, plan.rows], "max_pairs": max_pairs}
        hosts.check_same({**described, **asked_of_all})
    with shares.alike():
        _check_memory(wanted, plan, on_disk=out is not None)
        store = _open(wanted, plan, out, described) if writes else None
    log.info("%s kernel: %s, blocks of %d examples", output, plan.implementation, plan.rows)
    with contextlib.ExitStack() as stack:
        if store is not None:
            stack.enter_context(closing(store))
        with shares.alike():
            store = store or _open(wanted, plan, out, None)
        if isinstance(store, Blocks):
            hosts.check_same({"out": store.kind})
        _fill(store, wanted, plan, compute, seen, params, left, right, mesh, progress, max_pairs)
        hosts.together("kernel")
        with shares.alike():
            found = store.result(unfinished=max_pairs is not None)
    if output == "trace" and isinstance(found, np.ndarray):
        return note_trace(found, point.outputs)
    return found


def _fill(
    store: Disk | Elsewhere | Memory,
    wanted: Computation,
    plan: Schedule,
    parts: Sequence[Part],
    seen: set[bool],
    params: Params,
    left: Inputs,
    right: Inputs,
    mesh: Mesh | None,
    progress: bool,
    max_pairs: int | None,
) -> None:
    check = partial(
        check_block,
        wanted.point,
        params,
        (left, right),
        output=wanted.output,
        rule=wanted.rule,
        what=f"the {wanted.output} kernel by implementation={plan.implementation!r}",
    )
    starts = _missing(store, wanted, plan)[:max_pairs]
    split = 1 if mesh is None else mesh.size
    kept: dict[int, PyTree] = {}

    def made(start: Start) -> np.ndarray:
        """A block, with the rows and columns that fill it up where it is not whole."""
        i, j = start
        rows1, rows2 = min(plan.rows, wanted.n1 - i), min(plan.rows, wanted.n2 - j)
        # a last block that is not whole keeps the shape of the others, and so their compilation
        x1 = window(left, i, -(-min(plan.rows, wanted.n1) // split) * split)
        same = wanted.symmetric and i == j and mesh is None
        x2 = None if same else window(right, j, min(plan.rows, wanted.n2))
        if plan.keeps(wanted) and parts[0].derive and parts[0].meet:
            if i not in kept:
                kept.clear()  # frees the last row's before this row's are made
                kept[i] = parts[0].derive(params, x1)
            computed = parts[0].meet(params, kept[i], x2)
        else:
            computed = reduce(jnp.add, (part.block(params, x1, x2) for part in parts))
        whole = np.asarray(computed)
        block = whole[:rows1, :rows2]
        bad = np.argwhere(~np.isfinite(block))
        if len(bad):
            _blame(wanted, params, left, i, rows1, right, j, rows2)
            check((i, j), block, places=bad[:1])
            raise ValueError(
                "the kernel overflows though every Jacobian is finite; pass a wider dtype"
            )
        if same not in seen:  # blocks of the diagonal and others are two programs
            check((i, j), block)
            seen.add(same)
        return whole

    def given(start: Start, whole: np.ndarray) -> dict[Start, np.ndarray]:
        """The blocks that a computed one gives: itself, and the one across."""
        i, j = start
        block = whole[: wanted.n1 - i, : wanted.n2 - j]
        across = {(j, i): contract.mirror(block, wanted.output)} if wanted.mirrored else {}
        return {**across, start: block}

    if isinstance(store, Memory):
        _exchange(store, wanted, plan, starts, made, given, progress)
    else:
        _write(store, starts, made, given, progress)


def _missing(store: BlockStore, wanted: Computation, plan: Schedule) -> list[Start]:
    """Which blocks are to be computed; those that are there are read, each by one process."""
    across, down = range(0, wanted.n1, plan.rows), range(0, wanted.n2, plan.rows)
    every = [(i, j) for i, j in itertools.product(across, down) if i <= j or not wanted.mirrored]

    def there(numbers: Iterable[int]) -> Iterator[np.ndarray]:
        for i, j in (every[k] for k in numbers):
            yield np.asarray(store.holds((i, j)) and (not wanted.mirrored or store.holds((j, i))))

    return [s for s, held in zip(every, shares.each(there, len(every)), strict=True) if not held]


def _exchange(
    store: Memory,
    wanted: Computation,
    plan: Schedule,
    starts: Sequence[Start],
    made: Callable[[Start], np.ndarray],
    given: Callable[[Start, np.ndarray], dict[Start, np.ndarray]],
    progress: bool,
) -> None:
    """Blocks into every process's memory."""

    def blocks(numbers: Sequence[int]) -> Iterator[np.ndarray]:
        return map(made, (starts[k] for k in track(numbers, progress, "kernel blocks")))

    size = math.prod(contract.shape(wanted.output, plan.rows, plan.rows, wanted.point.outputs))
    held = max(1, min(_ROUND, _ROUND_BYTES // (size * wanted.dtype.itemsize)))
    found = shares.each(blocks, len(starts), held * jax.process_count())
    for computed, whole in zip(starts, found, strict=True):
        for start, block in given(computed, whole).items():
            store.put(start, block)


def _write(
    store: Disk | Elsewhere,
    starts: Sequence[Start],
    made: Callable[[Start], np.ndarray],
    given: Callable[[Start, np.ndarray], dict[Start, np.ndarray]],
    progress: bool,
) -> None:
    """Blocks to disk, by the process that computes them; the first notes which are there."""

    def one(start: Start) -> str:
        begun = time.perf_counter()
        blocks = given(start, made(start))
        computed = time.perf_counter()
        sums = [[*place, store.write(place, block)] for place, block in blocks.items()]
        seconds = (computed - begun, time.perf_counter() - computed)
        log.debug("block (%d, %d): %.3f s, written in %.3f s", *start, *seconds)
        return json.dumps(sums)

    def blocks(numbers: Sequence[int]) -> Iterator[str]:
        return map(one, (starts[k] for k in track(numbers, progress, "kernel blocks")))

    for said in shares.done(blocks, len(starts), _NOTED if hosts.several() else 1):
        with shares.alike():
            store.note({(i, j): crc for words in said for i, j, crc in json.loads(words)})


def _programs(
    wanted: Computation, implementation: str, batch_size: int | None, mesh: Mesh | None
) -> tuple[Schedule, Sequence[Part], set[bool]]:
    """A plan, its parts compiled, and which of them were checked: blocks (i, i), others."""
    plan = choose(wanted, implementation, batch_size)
    return plan, [_compile(part, mesh) for part in plan.parts], set()


def _compile(part: Part, mesh: Mesh | None) -> Part:
    """The functions of a part, compiled; over a mesh, the first side's examples are spread."""
    if mesh is None:
        return Part(*(function and jit(function) for function in astuple(part)))
    split, whole = PartitionSpec(mesh.axis_names), PartitionSpec()

    def spread(function: Callable[..., Any] | None, *specs: PartitionSpec) -> Any:
        return function and jit(
            jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)
        )

    return Part(
        spread(part.block, whole, split, whole),
        spread(part.derive, whole, split),
        spread(part.meet, whole, split, whole),
    )


def _open(
    wanted: Computation,
    plan: Schedule,
    out: str | Path | None,
    described: dict[str, Any] | None,
) -> Disk | Elsewhere | Memory:
    """Where blocks go; what a kernel on disk is, is said by one process alone."""
    shape = contract.shape(wanted.output, wanted.n1, wanted.n2, wanted.point.outputs)
    if out is None:
        return Memory(shape, wanted.dtype)
    if described is None:
        return Elsewhere(out)
    return Disk(out, shape, wanted.dtype, plan.rows, described)


def _described(
    wanted: Computation,
    left: Inputs,
    right: Inputs,
    params: Params,
    optimizer: str,
    trainable: tree.Pattern,
    out: str | Path | None,
) -> dict[str, Any]:
    """All that decides what is in a kernel; f only where one is to be found again."""
    return {
        **({} if out is None else {"f": _identity_of(wanted.point, out)}),
        "output": wanted.output,
        "optimizer": optimizer,
        "trainable": trainable,
        "params": tree.fingerprint(params),
        **(
            {"arrays": tree.fingerprint(arrays)}
            if (arrays := identity.held(wanted.point.f))
            else {}
        ),
        "x1": tree.fingerprint(left),
        "x2": tree.fingerprint(right),
    }


def _identity_of(point: Pointwise, out: str | Path) -> str:
    """Of one example's outputs and their derivative: a kernel on disk is one model's alone."""

    def outputs(named: Flat, params: Params, example: Inputs) -> Array:
        return point(params, named, example)

    try:
        return identity.stated(point.f) or identity.of(
            outputs, point.named, point.params, point.inputs, derivative=True
        )
    except identity.UnidentifiedError as error:
        raise identity.UnidentifiedError(
            f"f cannot be told from another, so that out={out} could answer for a different model: "
            f"{error}. Give it an attribute `fingerprint`, a string that says all that decides "
            "what it computes, or leave `out` away"
        ) from error


def _check_memory(wanted: Computation, plan: Schedule, *, on_disk: bool) -> None:
    """Before anything is computed: does it fit?"""
    free = available_bytes(jax.local_devices()[0])
    result = wanted.result_bytes()
    host = available_bytes(jax.local_devices(backend="cpu")[0])
    if not on_disk and host is not None and result > host:
        raise MemoryError(
            f"the kernel takes {_gb(result)} and {_gb(host)} are free; pass out=FOLDER to write it "
            "to disk, or output='trace'"
        )
    if free is not None and plan.bytes > free:
        fits = max(1, math.floor(plan.rows * free / plan.bytes / 2))
        raise MemoryError(
            f"blocks of {plan.rows} examples hold {_gb(plan.bytes)} of derivatives and "
            f"{_gb(free)} are free; batch_size={fits} fits"
        )


def _gb(size: int) -> str:
    return f"{size / 1e9:.3g} GB"


def _blame(
    wanted: Computation,
    params: Params,
    left: Inputs,
    i: int,
    rows1: int,
    right: Inputs,
    j: int,
    rows2: int,
) -> None:
    """Raise with the leaf and example that is not finite, if one is."""

    @jit
    def one(params: Params, example: Inputs) -> dict[str, Array]:
        named = wanted.point.pick(params)
        return jax.jacrev(lambda named: wanted.point(params, named, example))(named)

    for side, inputs, start, rows in (("x1", left, i, rows1), ("x2", right, j, rows2)):
        for k in range(start, start + rows):
            found = one(params, jax.tree.map(lambda x, k=k: jnp.asarray(x[k]), inputs))
            bad = [n for n, leaf in found.items() if not np.isfinite(np.asarray(leaf)).all()]
            if bad:
                raise ValueError(
                    f"the Jacobian of example {k} of {side} holds NaN or infinity in "
                    f"{len(bad)} of {len(found)} leaves, first in {', '.join(bad[:5])}; check "
                    "params and this example"
                )

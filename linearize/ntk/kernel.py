"""The empirical neural tangent kernel of any model, ``K(x, x') = J_θ f(x) J_θ f(x')ᵀ``."""

import itertools
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import astuple
from functools import partial, reduce
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from linearize import hosts, identity, shares, tree
from linearize.choices import one_of
from linearize.compiled import jit
from linearize.evaluate.batches import track, window
from linearize.examples import as_arguments, count
from linearize.fields import integer
from linearize.ntk import contract
from linearize.ntk.contract import LAYOUTS, Output
from linearize.ntk.jacobian import RULES, Part
from linearize.ntk.plan import (
    BUDGET,
    IMPLEMENTATIONS,
    Computation,
    Implementation,
    Schedule,
    available_bytes,
    choose,
)
from linearize.ntk.pointwise import Inputs, Pointwise, pointwise, specification
from linearize.ntk.programs import remembered
from linearize.ntk.provenance import note_trace
from linearize.ntk.second_way import check_block
from linearize.ntk.store import BlockStore, Disk, Elsewhere, Memory, Start
from linearize.renamed import renamed
from linearize.types import Apply, Array, Flat, Params, PyTree

log = logging.getLogger(__name__)

Optimizer = Literal["sgd", "signgd", "asymmetric_signgd"]

_ROUND, _ROUND_BYTES = 16, 2**26
"""Blocks that each of several processes makes at most before all of them have them, and bytes."""


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
        dtype: of sums and result: float32 by default, float64 where θ or f is.
        memory: bytes of derivatives to hold at a time.
        out: a folder for the result, written block by block as a zarr array; a run that was killed
            goes on from there. Of several processes the first writes it, and all read it there.
            Host memory by default.
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
    one_of("implementation", implementation, ("auto", *IMPLEMENTATIONS))
    one_of("output", output, LAYOUTS)
    rule = RULES[one_of("optimizer", optimizer, RULES)]
    if not rule.plain and implementation not in ("auto", "jacobian"):
        raise ValueError(
            f"implementation={implementation!r} never forms the Jacobian whose signs "
            f"optimizer={optimizer!r} needs; use 'jacobian' or 'auto'"
        )
    if batch_size is not None:
        batch_size = integer("batch_size", batch_size, low=1)
    if mesh is not None and {d.process_index for d in mesh.devices.flat} != {jax.process_index()}:
        raise ValueError(
            "mesh holds devices of other processes, with which blocks are shared anyhow; give one "
            "of this process's, jax.local_devices()"
        )
    left = as_arguments(x1)
    right = left if x2 is None else as_arguments(x2)
    point = pointwise(f, params, left, trainable)
    if specification(right) != specification(left):
        raise ValueError(
            f"x2 has examples {specification(right)}; expected those of x1: {specification(left)}"
        )
    wanted = Computation(
        point=point,
        output=output,
        rule=rule,
        dtype=jnp.dtype(dtype or point.dtype),
        n1=count(left),
        n2=count(right),
        symmetric=x2 is None,
        budget=memory,
    )
    programs = ("kernel", point.key, output, optimizer, wanted.dtype, wanted.n1, wanted.n2)
    choice = (wanted.symmetric, memory, implementation, batch_size, mesh)
    plan, compute, seen = remembered((*programs, *choice), lambda: _programs(wanted, *choice[2:]))
    writes, described = hosts.first() or not hosts.several(), dict[str, Any]()
    if out is not None or hosts.several():
        described = _described(wanted, left, right, params, optimizer, trainable, out)
        hosts.check_same({**described, "plan": [plan.implementation, plan.rows]})
    with shares.alike():
        _check_memory(wanted, plan, on_disk=out is not None)
        store = _open(wanted, plan, out, described, writes)
    log.info("%s kernel: %s, blocks of %d examples", output, plan.implementation, plan.rows)
    with closing(store):
        _fill(store, wanted, plan, compute, seen, params, left, right, mesh, progress)
        hosts.together("kernel")
        with shares.alike():
            found = store.result()
    if output == "trace" and isinstance(found, np.ndarray):
        return note_trace(found, point.outputs)
    return found


def _fill(
    store: BlockStore,
    wanted: Computation,
    plan: Schedule,
    parts: Sequence[Part],
    seen: set[bool],
    params: Params,
    left: Inputs,
    right: Inputs,
    mesh: Mesh | None,
    progress: bool,
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
    mirrored = wanted.symmetric and wanted.rule.symmetric

    def missing() -> list[Start]:
        return [
            (i, j)
            for i, j in itertools.product(
                range(0, wanted.n1, plan.rows), range(0, wanted.n2, plan.rows)
            )
            if (i <= j or not mirrored)
            and not (store.holds((i, j)) and (not mirrored or store.holds((j, i))))
        ]

    starts = [(i, j) for i, j in hosts.told(missing)]
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

    def blocks(numbers: Sequence[int]) -> Iterator[np.ndarray]:
        return map(made, (starts[k] for k in track(numbers, progress, "kernel blocks")))

    size = math.prod(contract.shape(wanted.output, plan.rows, plan.rows, wanted.point.outputs))
    held = max(1, min(_ROUND, _ROUND_BYTES // (size * wanted.dtype.itemsize)))
    found = shares.each(blocks, len(starts), held * jax.process_count())
    for (i, j), whole in zip(starts, found, strict=True):
        block = whole[: min(plan.rows, wanted.n1 - i), : wanted.n2 - j]
        if mirrored and i != j:
            store.put((j, i), contract.mirror(block, wanted.output))
        store.put((i, j), block)


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
    described: dict[str, Any],
    writes: bool,
) -> BlockStore:
    shape = contract.shape(wanted.output, wanted.n1, wanted.n2, wanted.point.outputs)
    if out is None:
        return Memory(shape, wanted.dtype)
    return Disk(out, shape, wanted.dtype, plan.rows, described) if writes else Elsewhere(out)


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

"""The kernel times a vector, without the kernel: K v = J (Jᵀ v), one reverse and one forward pass.

(*Fast Finite Width Neural Tangent Kernel*, §3.2: NTK-vector products.) Memory does not grow with
the number of parameters times that of outputs: large models and iterative solvers live on it.
"""

from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from linearize import hosts, shares, tree
from linearize.agreement import agree
from linearize.compiled import jit
from linearize.evaluate.batches import window
from linearize.examples import as_arguments, count
from linearize.fields import integer
from linearize.ntk.contract import Output
from linearize.ntk.jacobian import Part, over_examples
from linearize.ntk.pointwise import Inputs, Pointwise, pointwise
from linearize.ntk.second_way import dot, draw, norm, row, signs
from linearize.renamed import renamed
from linearize.taylor import affine_terms
from linearize.types import Apply, Array, Params, PyTree


@renamed(params_filter="trainable")
def vector_product(
    f: Apply,
    params: Params,
    x1: PyTree,
    x2: PyTree | None = None,
    *,
    trainable: tree.Pattern = None,
    batch_size: int | None = None,
) -> Callable[[Array], Array]:
    """The empirical NTK as a linear map, ``product(v) = K(x1, x2) v``, never formed.

    Of several processes each takes its share of both sides' examples, and adds up Jᵀ v with the
    others (:func:`linearize.shares.total`); within a compiled function each does all.

    Args:
        f: ``f(params, *inputs) -> outputs``, floating, with examples on axis 0.
        params: the point θ of the kernel.
        x1: N1 examples: an array, or a tuple for a model of several arguments.
        x2: N2 examples; by default ``x1``, and the map is symmetric and positive semi-definite.
        trainable: which leaves derivatives are taken in (:func:`linearize.tree.select`).
        batch_size: examples per pass; all by default.

    Returns:
        ``product``, jitted: from ``v`` (N2, C), in the order of ``jax.tree.leaves`` of the outputs,
        to (N1, C) in float32 or wider. It costs about 3 forward passes of each set and the memory
        of one training step.

    Raises:
        ValueError: as :func:`linearize.ntk.kernel`; in ``product``, ``v`` of another shape.
        DisagreementError: in the first ``product``, which costs three: a sampled entry of the map
            is another by a second way, or the product depends on the examples' order.

    >>> f = lambda params, x: x @ params["w"]
    >>> x = jnp.array([[1.0, 0.0], [1.0, 2.0]])
    >>> product = vector_product(f, {"w": jnp.ones((2, 1))}, x)
    >>> product(jnp.array([[1.0], [1.0]])).tolist()  # x xᵀ v
    [[2.0], [6.0]]
    """
    left = as_arguments(x1)
    right = left if x2 is None else as_arguments(x2)
    point = pointwise(f, params, left, trainable)
    n2 = count(right)
    whole = max(n2, count(left))
    at_once = whole if batch_size is None else integer("batch_size", batch_size, low=1)

    @jit
    def run(params: Params, left: Inputs, right: Inputs, v: Array) -> Array:
        return push(point, params, left, pull(point, params, right, v, at_once), at_once)

    pulled = jit(lambda params, inputs, v: pull(point, params, inputs, v, at_once))
    pushed = jit(lambda params, inputs, tau: push(point, params, inputs, tau, at_once))

    def shared(v: Array) -> Array:
        processes = jax.process_count()
        size = -(-count(left) // processes)

        def back(own: range) -> dict[str, Array]:
            if not own:
                return {n: jnp.zeros(x.shape, point.dtype) for n, x in point.named.items()}
            return pulled(params, *(jax.tree.map(lambda x: x[own.start : own.stop], (right, v))))

        tau = shares.total(back, n2)

        def forth(numbers: Sequence[int]) -> Iterator[Array]:
            return (pushed(params, window(left, k * size, size), tau) for k in numbers)

        return jnp.concatenate(list(shares.each(forth, processes)))[: count(left)]

    def check() -> float:
        """One example's random signs, seen at another; how large an entry may be."""
        (i, j) = (int(k) for k in draw(count(left), n2, many=1)[0])
        c = int(draw(point.outputs, many=1)[0, 0])
        probe = np.zeros((n2, point.outputs), np.float32)
        probe[j] = signs(point.outputs)
        rows = row(point, params, left, i, np.eye(point.outputs)[c])
        columns = row(point, params, right, j, probe[j])
        agree(
            run(params, left, right, jnp.asarray(probe))[i, c],
            dot(rows, columns),
            scale=norm(rows) * norm(columns),
            dtypes=(point.narrowest, point.dtype),
            terms=sum(point.sizes.values()),
            what="the kernel's product with a vector that is random signs at one example",
            entry=f"{(i, c)} for example {j}",
        )
        return norm(rows) * norm(columns)

    def check_sum(v: Array, found: Array, most: float) -> None:
        """The examples that are summed over begin in the middle: wrong rows are others then."""
        if not bool(jnp.isfinite(v).all()):
            return
        rolled = jax.tree.map(lambda x: jnp.roll(jnp.asarray(x), n2 // 2, axis=0), (right, v))
        expected = np.asarray(run(params, left, *rolled), np.float64)
        size = float(np.linalg.norm(expected))
        largest = most * float(np.linalg.norm(np.asarray(v, np.float64))) * count(left) ** 0.5
        agree(
            size + float(np.linalg.norm(np.asarray(found, np.float64) - expected)),
            size,
            scale=size + largest,
            dtypes=(point.narrowest, point.dtype),
            terms=n2 * sum(point.sizes.values()),
            what="the norm of the kernel's product with v, with its error",
            entry="of the same product over examples in another order",
        )
        seen.append(True)

    seen: list[bool] = []

    def product(v: Array) -> Array:
        if jnp.shape(v) != (n2, point.outputs):
            raise ValueError(
                f"v has shape {jnp.shape(v)}; expected ({n2}, {point.outputs}): a row per example "
                "and a column per output"
            )
        v = jnp.asarray(v)
        if isinstance(v, jax.core.Tracer):
            return run(params, left, right, v)
        most = None if seen else check()
        found = shared(v) if hosts.several() else run(params, left, right, v)
        if most is not None:
            check_sum(v, found, most)
        return found

    return product


def pull(
    point: Pointwise, params: Params, inputs: Inputs, v: Array, at_once: int
) -> dict[str, Array]:
    """``Jᵀ v`` summed over all examples: a displacement of the picked leaves, from ``v`` (N, C)."""
    named = point.pick(params)

    def part(inputs: Inputs, v: Array) -> dict[str, Array]:
        def outputs(named: dict[str, Array]) -> Array:
            return jax.vmap(lambda example: point(params, named, example))(inputs)

        out, pullback = jax.vjp(outputs, named)
        return jax.tree.map(lambda t: t.astype(point.dtype), pullback(v.astype(out.dtype))[0])

    n = v.shape[0]
    whole = n - n % at_once
    if whole <= at_once and whole == n:
        return part(inputs, v)
    start = {n: jnp.zeros(leaf.shape, point.dtype) for n, leaf in named.items()}
    chunks = jax.tree.map(lambda x: x[:whole].reshape(-1, at_once, *x.shape[1:]), (inputs, v))

    def step(total: dict[str, Array], chunk: tuple[Inputs, Array]) -> tuple[dict[str, Array], None]:
        return jax.tree.map(jnp.add, total, part(*chunk)), None

    total, _ = lax.scan(step, start, chunks)
    if whole == n:
        return total
    rest = jax.tree.map(lambda x: x[whole:], (inputs, v))
    return jax.tree.map(jnp.add, total, part(*rest))


def push(
    point: Pointwise, params: Params, inputs: Inputs, tau: dict[str, Array], at_once: int
) -> Array:
    """``J τ`` for each example: (N, C)."""

    def f(params: Params, *example: PyTree) -> Array:
        return point(params, {}, example)

    def one(example: Inputs) -> Array:
        moved = affine_terms(f, params, [point.join(tau)], *example)[1][0]
        return moved.astype(point.dtype)

    return over_examples(one, inputs, at_once)


def product_part(point: Pointwise, *, output: Output, dtype: jnp.dtype, at_once: int) -> Part:
    """The kernel by its columns: J (Jᵀ e) for every example and output of the second side."""

    def block(params: Params, x1: Inputs, x2: Inputs | None) -> Array:
        def columns(example: Inputs) -> Array:
            one = jax.tree.map(lambda x: x[None], example)

            def column(e: Array) -> Array:
                moved = pull(point, params, one, e[None], 1)
                return push(point, params, x1, moved, at_once).astype(dtype)

            found = lax.map(column, jnp.eye(point.outputs, dtype=point.dtype))  # (C2, N1, C1)
            if output == "full":
                return found
            own = jnp.diagonal(found, axis1=0, axis2=2)  # (N1, C)
            return {"trace": own.sum(-1), "mean": own.mean(-1), "diagonal": own}[output]

        found = lax.map(columns, x1 if x2 is None else x2)  # (N2, ...)
        return found.transpose(2, 0, 3, 1) if output == "full" else found.swapaxes(0, 1)

    return Part(block)

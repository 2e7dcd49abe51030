"""A sampled example of an affine pass, by reverse mode and alone: ⟨w, J(x) τ⟩ = ⟨J(x)ᵀ w, τ⟩."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.agreement import SEED, agree, is_fixed, once, precision, settle
from linearize.compiled import jit
from linearize.single import SHAKEN, example, shaken, wide
from linearize.types import Apply, Array, Flat, Params, PyTree

_SUMMED = "summed with random signs over outputs"


class Along(NamedTuple):
    """What a program says of one example along a cotangent w."""

    example: int
    w: np.ndarray
    """Of the example's outputs' shape."""
    base: float | None
    """⟨w, f(x)⟩; None where it is not looked at."""
    moved: Sequence[float | None]
    """⟨w, J(x) τ_t⟩ for each task vector; None likewise."""
    dtype: np.dtype
    total: float | None = None
    """⟨w, f(x) + J(x) τ⟩ of the last task vector; None likewise."""


class _Expected(NamedTuple):
    value: float
    scale: float


def check_terms(
    f: Apply,
    method: str,
    params0: Params,
    stacked: Flat,
    args: tuple[PyTree, ...],
    f0: Array | np.ndarray | None,
    jvps: Array | np.ndarray,
) -> None:
    """One example of a batch along a random sign of each output, once for each program.

    Where a single example has other numbers (examples that change each other), or the model knows
    no reverse mode, the batch itself decides, operation by operation in forward mode.

    Args:
        f: the model.
        method: how the derivative was taken.
        params0: θ0.
        stacked: task vectors (T, ...), by name.
        args: the batch.
        f0: (B, ...) as the program gave it; not looked at where None.
        jvps: (T, B, ...).

    Raises:
        DisagreementError: the program's numbers are others.
    """
    rng = np.random.default_rng(SEED)
    n = int(rng.integers(jvps.shape[1]))
    w = rng.choice([-1.0, 1.0], jvps.shape[2:])
    found = Along(
        n,
        w,
        None if f0 is None else float((w * wide(f0[n])).sum().real),
        [float((w * wide(jvp[n])).sum().real) for jvp in jvps],
        np.dtype(jvps.dtype),
    )
    once(
        lambda: check_along(f, params0, stacked, args, found, f"the affine pass, {{}} {_SUMMED}"),
        f"affine {method} {f0 is None}",
        f,
        arrays=(params0, dict(stacked), args),
    )


def check_along(
    f: Apply,
    params0: Params,
    stacked: Flat,
    args: tuple[PyTree, ...],
    found: Along,
    what: str,
) -> None:
    """Hold numbers of one example to reverse mode of it alone, or forward mode of its batch.

    Args:
        f: the model.
        params0: θ0.
        stacked: task vectors (T, ...), by name.
        args: the batch.
        found: the program's.
        what: for the message; ``{}`` in it is the quantity.

    Raises:
        DisagreementError: the program's numbers are others.
    """

    def check(expected: Sequence[_Expected]) -> None:
        dtypes = (precision(f, params0, *args), found.dtype)
        names = [f"J τ of task vector {t}" for t in range(len(found.moved))]
        ends = zip(expected[0], expected[-1], strict=True)
        numbers = zip(
            ["f0 + J τ", "f0", *names],
            [found.total, found.base, *found.moved],
            [_Expected(*map(sum, ends)), *expected],
            strict=True,
        )
        for of, number, (value, scale) in numbers:
            if number is not None:
                agree(
                    number,
                    value,
                    scale=scale,
                    dtypes=dtypes,
                    terms=1,
                    what=what.format(of),
                    entry=f"of example {found.example}",
                )

    given = (f, params0, stacked, args, found)
    settle(
        check,
        partial(_alone, *given),
        partial(_together, *given),
        partial(_together, *given, times=SHAKEN),
        fixed=partial(is_fixed, f, params0, *args),
    )


def _alone(
    f: Apply, params0: Params, stacked: Flat, args: tuple[PyTree, ...], found: Along
) -> list[_Expected]:
    one = example(args, found.example)
    w = jnp.asarray(found.w[None], found.dtype)
    alone, row = _pull(f, tree.select(params0), params0, one, w)
    # leaf by leaf: in float64, all of a large model's would be a multiple of it
    size = {k: float(np.linalg.norm(wide(leaf))) for k, leaf in row.items()}
    base = tree.flatten(params0)
    terms = found.w * wide(alone[0])
    # what weights that are each off by ε change
    level = sum(size[k] * float(np.linalg.norm(wide(base[k]))) for k in row)
    expected = [_Expected(float(terms.sum().real), level + float(np.abs(terms).sum()))]
    sums = np.zeros((len(found.moved), 2))
    for k in filter(row.__contains__, stacked):
        gradient = wide(row[k])
        for t, along in enumerate(np.asarray(stacked[k])[: len(sums)]):
            tau = wide(along)
            # JAX's gradients g of complex leaves are such that the change is Re Σ g τ
            sums[t] += float(np.sum(gradient * tau).real), size[k] * float(np.linalg.norm(tau))
    expected += [_Expected(float(value), float(scale)) for value, scale in sums]
    return expected


@partial(jit, static_argnums=(0, 1))
def _pull(
    f: Apply, picked: tuple[str, ...], params0: Params, one: tuple[PyTree, ...], w: Array
) -> tuple[Array, dict[str, Array]]:
    flat = tree.flatten(params0)
    named = {name: jnp.asarray(flat[name]) for name in picked}
    out, pull = jax.vjp(lambda named: f(tree.update(params0, named), *one), named)
    return out, pull(w.astype(out.dtype))[0]


def _together(
    f: Apply,
    params0: Params,
    stacked: Flat,
    args: tuple[PyTree, ...],
    found: Along,
    times: int = 0,
) -> list[_Expected]:
    def numbers(params0: Params, args: tuple[PyTree, ...]) -> list[_Expected]:
        flat, expected = tree.flatten(params0), []
        named = {k: jnp.asarray(flat[k]) for k in stacked}
        for t in range(len(found.moved)):
            along = {k: jnp.asarray(leaf[t], named[k].dtype) for k, leaf in stacked.items()}
            out = jax.jvp(lambda p: f(tree.update(params0, p), *args), (named,), (along,))
            for outputs in map(wide, out[min(t, 1) :]):  # f0 once
                value = float((found.w * outputs[found.example]).sum().real)
                # everything that a batch holds may have been added up
                expected.append(_Expected(value, float(np.abs(outputs).sum())))
        return expected

    with jax.disable_jit(), np.errstate(invalid="ignore"):
        expected = numbers(params0, args)
        for arrays, eps in shaken((params0, args), precision(f, params0, *args), times):
            expected = [
                _Expected(here.value, max(here.scale, abs(there.value - here.value) / eps))
                for here, there in zip(expected, numbers(*arrays), strict=True)
            ]
    return expected

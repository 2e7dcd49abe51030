"""A sampled example of an affine pass, by reverse mode and alone: ⟨w, J(x) τ⟩ = ⟨J(x)ᵀ w, τ⟩."""

from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.agreement import SEED, DisagreementError, agree, narrowest
from linearize.compiled import jit
from linearize.types import Apply, Array, Flat, Params, PyTree


class _Number(NamedTuple):
    found: float
    expected: float
    scale: float
    vector: int | None
    """The task vector, or None for f0."""


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

    A model of which an example cannot be taken alone, or that knows no reverse mode, is not
    checked. Where examples of a batch change each other, the batch itself decides, operation by
    operation.

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
    leaves, structure = jax.tree.flatten((params0, dict(stacked), args))
    specs = tuple((jnp.shape(leaf), jnp.result_type(leaf)) for leaf in leaves)
    checked = _checked(f, method, structure, specs, f0 is None)
    if checked:
        return
    rng = np.random.default_rng(SEED)
    n = int(rng.integers(jvps.shape[1]))
    w = rng.choice([-1.0, 1.0], jvps.shape[2:])
    one = jax.tree.map(lambda x: jnp.asarray(x[n : n + 1]), args)
    try:
        alone, row = _pull(f, tree.select(params0), params0, one, jnp.asarray(w[None], jvps.dtype))
    except (ValueError, TypeError):
        return
    f0 = None if f0 is None else f0[n]
    numbers = _numbers(params0, stacked, w, alone[0], row, f0, jvps[:, n])
    dtypes = (narrowest(f, params0, *one), jvps.dtype)
    _compare(numbers, dtypes, partial(_again, f, params0, stacked, args, n, w), n)
    checked.append(True)


@lru_cache(maxsize=64)
def _checked(f: Apply, method: str, structure: object, specs: tuple, moved_only: bool) -> list:
    """Empty until this program was checked."""
    return []


@partial(jit, static_argnums=(0, 1))
def _pull(
    f: Apply, picked: tuple[str, ...], params0: Params, one: tuple[PyTree, ...], w: Array
) -> tuple[Array, dict[str, Array]]:
    flat = tree.flatten(params0)
    named = {name: jnp.asarray(flat[name]) for name in picked}
    out, pull = jax.vjp(lambda named: f(tree.update(params0, named), *one), named)
    return out, pull(w.astype(out.dtype))[0]


def _numbers(
    params0: Params,
    stacked: Flat,
    w: np.ndarray,
    alone: Array,
    row: Flat,
    f0: Array | np.ndarray | None,
    jvps: Array | np.ndarray,
) -> Iterator[_Number]:
    pulled = {k: _wide(leaf) for k, leaf in row.items()}
    size = {k: float(np.linalg.norm(leaf)) for k, leaf in pulled.items()}
    moved = {k: _wide(leaf) for k, leaf in stacked.items() if k in pulled}
    for t, jvp in enumerate(jvps):
        # JAX's gradients g of complex leaves are such that the change is Re Σ g τ
        expected = sum(float(np.sum(pulled[k] * leaf[t]).real) for k, leaf in moved.items())
        scale = sum(size[k] * float(np.linalg.norm(leaf[t])) for k, leaf in moved.items())
        yield _Number(float((w * _wide(jvp)).sum().real), expected, scale, t)
    if f0 is not None:
        base, value = tree.flatten(params0), float((w * _wide(alone)).sum().real)
        # what weights that are each off by ε change
        scale = sum(size[k] * float(np.linalg.norm(_wide(base[k]))) for k in pulled)
        total = float(np.abs(_wide(alone)).sum())
        yield _Number(float((w * _wide(f0)).sum().real), value, scale + total, None)


def _compare(
    numbers: Iterator[_Number], dtypes: tuple, again: partial[tuple[float, float]], example: int
) -> None:
    for number in numbers:
        of = "f0" if number.vector is None else f"J τ of task vector {number.vector}"

        def same(expected: float, level: float, number: _Number = number, of: str = of) -> None:
            agree(
                number.found,
                expected,
                scale=number.scale + level,
                dtypes=dtypes,
                terms=1,
                what=f"the affine pass, {of} summed with random signs over outputs",
                entry=f"of example {example}",
            )

        try:
            same(number.expected, level=0.0)
        except DisagreementError:
            same(*again(number.vector))


def _again(
    f: Apply,
    params0: Params,
    stacked: Flat,
    args: Sequence[PyTree],
    n: int,
    w: np.ndarray,
    vector: int | None,
) -> tuple[float, float]:
    """The number, of the whole batch and operation by operation, and Σ |outputs| of the batch."""
    flat = tree.flatten(params0)
    named = {k: jnp.asarray(flat[k]) for k in stacked}
    along = {k: jnp.asarray(leaf[vector or 0], named[k].dtype) for k, leaf in stacked.items()}
    with jax.disable_jit():
        f0, jvp = jax.jvp(lambda named: f(tree.update(params0, named), *args), (named,), (along,))
    outputs = _wide(f0 if vector is None else jvp)
    return float((w * outputs[n]).sum().real), float(np.abs(outputs).sum())


def _wide(leaf: Array | np.ndarray) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)

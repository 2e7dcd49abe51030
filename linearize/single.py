"""A sampled example's outputs by a second way: the example alone, or its batch uncompiled.

What the compiled pass over a batch gave one example is held to the program of a batch of one. An
example that is another alone (batch norm in training mode, a mask drawn for the batch), or cannot
be taken alone, is held to the whole batch, operation by operation; last with the level of rounding
measured, by what changes of a few ε in parameters and inputs do.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from linearize import tree
from linearize.agreement import SEED, agree, is_fixed, once, precision, relative, settle
from linearize.compiled import jit
from linearize.types import Apply, Array, Params, PyTree

SHAKEN = 3
"""How often the level of rounding is tried."""

_FEW = 8


class Sample(NamedTuple):
    """An example's outputs by a second way, and how far rounding may move each of their numbers."""

    row: PyTree
    """Without the batch axis; NumPy, float64 or complex128 where inexact."""
    scale: PyTree
    """Of each leaf, the sum of the magnitudes that were added up, at least."""
    dtypes: tuple[np.dtype, ...]


@partial(jit, static_argnums=0)
def forward(f: Apply, params: Params, args: tuple[PyTree, ...]) -> PyTree:
    """``f(params, *args)``, compiled once per function and shapes."""
    return f(params, *args)


def drawn(n: int) -> int:
    """The example of a batch of n that is looked at."""
    return int(np.random.default_rng((SEED, n)).integers(n))


def hold(
    check: Callable[[Sample], None],
    f: Apply,
    params: Params,
    args: tuple[PyTree, ...],
    n: int,
    read: Callable[[PyTree], PyTree] = lambda y: y,
) -> None:
    """Let ``check`` pass by one of the second ways to the outputs of example ``n``.

    Args:
        check: raises a :class:`DisagreementError` where the compiled program's numbers are others.
        f: the model.
        params: its parameters.
        args: the batch.
        n: the example.
        read: what follows the model, example by example; called operation by operation.

    Raises:
        DisagreementError: no second way agrees, and ``f`` is one and the same function each time.
    """
    settle(
        check,
        partial(_alone, f, params, args, n, read),
        partial(_together, f, params, args, n, read),
        partial(_together, f, params, args, n, read, times=SHAKEN),
        fixed=partial(is_fixed, f, params, *args),
    )


def check_outputs(
    f: Apply, params: Params, args: tuple[PyTree, ...], found: PyTree, n_real: int
) -> None:
    """One example of a batch, once for each program.

    Args:
        f: the model.
        params: its parameters.
        args: the batch.
        found: its outputs as the program gave them, examples on axis 0.
        n_real: how many of the batch are no padding.

    Raises:
        DisagreementError: the program's numbers are others.
    """
    n = drawn(n_real)
    row = jax.tree.map(lambda y: np.asarray(y)[n], found)
    check = partial(same_row, row, what="a pass of the model", entry=f"of example {n}")
    once(lambda: hold(check, f, params, args, n), "outputs", f, arrays=(params, args))


def same_row(found: PyTree, sample: Sample, what: str, entry: str) -> None:
    """All outputs of one example that are floating.

    Raises:
        DisagreementError: with the one that is farthest off.
    """
    named = tree.flatten(sample.row)
    scales = tree.flatten(sample.scale)
    for name, leaf in tree.flatten(found).items():
        if not tree.is_trainable(leaf):
            continue
        ours, theirs = _reals(leaf), _reals(named[name])
        with np.errstate(invalid="ignore"):
            gap = np.where((ours == theirs) | ~np.isfinite(theirs), 0.0, np.abs(ours - theirs))
        if gap.size:
            worst = int(gap.argmax())
            agree(
                ours[worst],
                float(theirs[worst]),
                scale=float(np.max(scales[name])),
                dtypes=(*sample.dtypes, np.asarray(leaf).dtype),
                terms=1,
                what=what if not name else f"{what}, output {name!r}",
                entry=f"{worst} {entry}",
            )


def check_class(found: int, sample: Sample, what: str, entry: str) -> None:
    """The class that was chosen has the largest logit, as far as rounding tells.

    Raises:
        DisagreementError: another class has a larger one; or none was chosen, of finite logits.
    """
    logits = np.asarray(sample.row)
    if not np.isfinite(logits.max()):
        return
    agree(
        logits[found] if found >= 0 else np.nan,
        float(logits.max()),
        scale=float(sample.scale),
        dtypes=sample.dtypes,
        terms=1,
        what=f"{what}: the logit of the class that it chose, beside the largest",
        entry=entry,
    )


def example(args: tuple[PyTree, ...], n: int) -> tuple[PyTree, ...]:
    """A batch of the one example, cut on the host: no program is compiled for it."""

    def cut(x: Array | np.ndarray) -> Array | np.ndarray:
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return x[n : n + 1] if is_key else np.asarray(x)[n : n + 1]

    return jax.tree.map(cut, args)


def roundings(logits: np.ndarray, sample: Sample) -> Iterator[np.ndarray]:
    """Logits (..., C) as rounding may leave them: of any two that tie, either is larger once."""
    level = relative(*sample.dtypes) * np.nan_to_num(sample.scale, posinf=0.0)
    classes = np.arange(logits.shape[-1])
    for bit in range(max(1, (len(classes) - 1).bit_length())):
        up = level * (1.0 - 2 * (classes >> bit & 1))
        yield narrowed(logits + up)
        yield narrowed(logits - up)


def narrowed(numbers: np.ndarray) -> np.ndarray:
    """In float32; what is beyond it is infinite."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)


def _alone(
    f: Apply, params: Params, args: tuple[PyTree, ...], n: int, read: Callable[[PyTree], PyTree]
) -> Sample:
    if len(jax.tree.leaves(args)[0]) == 1:
        raise ValueError("a batch of one is the program itself")
    one = example(args, n)
    row = jax.tree.map(lambda y: wide(np.asarray(y)[0]), read(forward(f, params, one)))
    return Sample(row, jax.tree.map(_size, row), (precision(f, params, *one),))


def _together(
    f: Apply,
    params: Params,
    args: tuple[PyTree, ...],
    n: int,
    read: Callable[[PyTree], PyTree],
    times: int = 0,
) -> Sample:
    def row(params: Params, args: tuple[PyTree, ...]) -> PyTree:
        return jax.tree.map(lambda y: wide(np.asarray(y)[n]), read(f(params, *args)))

    narrow = precision(f, params, *args)
    with jax.disable_jit(), np.errstate(invalid="ignore"):
        found = row(params, args)
        scale = jax.tree.map(_size, found)
        for arrays, eps in shaken((params, args), narrow, times):
            change = jax.tree.map(lambda y, z, eps=eps: _size(y - z) / eps, row(*arrays), found)
            scale = jax.tree.map(max, scale, change)
    return Sample(found, scale, (narrow,))


def shaken(arrays: PyTree, dtype: np.dtype, times: int) -> Iterator[tuple[PyTree, float]]:
    """Floating arrays times 1 ± a few ε of ``dtype``, the signs at random; and those few ε.

    What changes, divided by them, is the size of the terms that a number is made of, however
    little is left of their sum.
    """
    eps = _FEW * float(jnp.finfo(dtype).eps)
    for seed in range(times):
        rng = np.random.default_rng((SEED, seed))

        def move(leaf: Array, rng: np.random.Generator = rng) -> Array:
            if not tree.is_trainable(leaf):
                return leaf
            factor = 1 + eps * rng.choice([-1.0, 1.0], np.shape(leaf))
            return jnp.asarray(wide(leaf) * factor, jnp.result_type(leaf))

        yield jax.tree.map(move, arrays), eps


def _size(leaf: np.ndarray) -> float:
    return float(np.linalg.norm(np.where(np.isfinite(leaf), leaf, 0).ravel()))


def _reals(leaf: Array | np.ndarray) -> np.ndarray:
    """All numbers of an array, flat, float64; of complex ones both parts."""
    flat = wide(leaf).ravel()
    return np.concatenate([flat.real, flat.imag]) if np.iscomplexobj(flat) else flat


def wide(leaf: Array | np.ndarray) -> np.ndarray:
    """On the host, float64 or complex128."""
    array = np.asarray(leaf)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)

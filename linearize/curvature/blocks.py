"""Blocks of a Gauss-Newton matrix G = E[JᵀJ]: what τᵀGτ is of one layer, or of one leaf.

A block knows its leaves and is a quadratic form of their displacement. Its arrays are leaves of a
pytree and all else is structure, so that blocks of equal layers share what is compiled.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from linearize.ntk.layers import Steps
from linearize.types import Array, Flat

_B = TypeVar("_B", bound="Block")


def _static() -> Any:
    return field(metadata={"static": True})


@dataclass(frozen=True)
class Layout:
    """How a layer's leaves make its matrices: (S, K, M), or (S, K + 1, M) with its bias below.

    Attributes:
        weight: name of the leaf.
        shape: of the leaf.
        stacked: how many of its first axes go along the S steps of a scan.
        steps: from a slice to its matrix.
        inner: K.
        outer: M.
        bias: name of the leaf that is the last row.
        bias_shape: of that leaf.
    """

    weight: str
    shape: tuple[int, ...]
    stacked: int
    steps: Steps
    inner: int
    outer: int
    bias: str | None = None
    bias_shape: tuple[int, ...] = ()

    @property
    def slices(self) -> int:
        """S."""
        return math.prod(self.shape[: self.stacked])

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the leaves, by name."""
        last = {} if self.bias is None else {self.bias: self.bias_shape}
        return {self.weight: self.shape, **last}

    def matrix(self, tau: Flat) -> Array:
        """A displacement as matrices; a leaf that ``tau`` lacks counts as zero."""
        S = self.slices
        there = next(tau[name] for name in self.shapes if name in tau)
        rows = jnp.zeros((S, self.inner, self.outer), there.dtype)
        if self.weight in tau:
            rows = jax.vmap(self._of_slice)(
                tau[self.weight].reshape(S, *self.shape[self.stacked :])
            )
        if self.bias is None:
            return rows
        last = tau[self.bias] if self.bias in tau else jnp.zeros((S, self.outer), there.dtype)
        return jnp.concatenate([rows, last.reshape(S, 1, self.outer)], axis=1)

    def _of_slice(self, leaf: Array) -> Array:
        for kind, how in self.steps:
            leaf = leaf.reshape(how) if kind == "reshape" else leaf.transpose(how)
        return leaf


@dataclass(frozen=True, eq=False)
class Block:
    """A positive semidefinite matrix over the entries of some leaves."""

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the leaves."""
        return tuple(self.shapes)

    @property
    def arrays(self) -> dict[str, Array]:
        """The factors by the names of their fields."""
        plain = (each.name for each in fields(self) if not each.metadata.get("static"))
        return {name: getattr(self, name) for name in plain}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the leaves."""
        raise NotImplementedError

    def check(self) -> None:
        """Require that the arrays are of the leaves' sizes.

        Raises:
            ValueError: with both.
        """
        raise NotImplementedError

    @property
    def lead(self) -> tuple[int, ...]:
        """First axes of the leaves along which there are S slices, each a layer of its own."""
        raise NotImplementedError

    def displacement(self, tau: Flat) -> Array:
        """What of ``tau`` the block weighs, (S, ...); a leaf that it lacks counts as zero."""
        raise NotImplementedError

    def times(self, x: Array) -> Array:
        """G x, (S, ...)."""
        raise NotImplementedError

    def value(self, tau: Flat) -> Array:
        """τᵀGτ of the block, (); its gradient comes with it at no other cost."""
        return _quadratic(self.times, self.displacement(tau))

    def by_slice(self, tau: Flat) -> Array:
        """τᵀGτ of each slice, (S,)."""
        x = self.displacement(tau)
        return (x * self.times(x)).reshape(len(x), -1).sum(-1)

    def scaled(self: _B, by: float) -> _B:
        """The block times a number."""
        raise NotImplementedError

    @classmethod
    def merged(cls, blocks: "Sequence[Any]") -> "Block":
        """One block for a sum of several, which are of the same leaves."""
        raise NotImplementedError


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Kronecker(Block):
    """A ⊗ B of a layer: Σ_s tr(B_s ΔW_sᵀ A_s ΔW_s), ΔW_s its matrices (K, M)."""

    a: Array
    """(S, K, K), of the inputs, one more row and column with a bias; (S, K) where diagonal."""
    b: Array
    """(S, M, M), of the outputs' derivatives; (S, M) where diagonal, (S, P, M/P, M/P) in parts."""
    layout: Layout = _static()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of weight and bias."""
        return self.layout.shapes

    def check(self) -> None:
        """A is of the rows and B of the columns."""
        S, rows, M = (k := self.layout).slices, k.inner + (k.bias is not None), k.outer
        _check_side("A", self.a, S, rows, k.weight)
        _check_side("B", self.b, S, M, k.weight)

    @property
    def lead(self) -> tuple[int, ...]:
        """Of the scans."""
        return self.layout.shape[: self.layout.stacked]

    def displacement(self, tau: Flat) -> Array:
        """ΔW, (S, K, M)."""
        return self.layout.matrix(tau)

    def times(self, x: Array) -> Array:
        """Two products, (K² M + K M²) S multiply-adds."""
        return _times(self.b, _times(self.a, x).swapaxes(1, 2)).swapaxes(1, 2)

    def scaled(self, by: float) -> "Kronecker":
        """B times a number."""
        return replace(self, b=self.b * by)

    @classmethod
    def merged(cls, blocks: Sequence["Kronecker"]) -> "Kronecker":
        """(mean A) ⊗ (Σ B): the sum's cost is one block's."""
        a, b = (jnp.stack([getattr(each, name) for each in blocks]) for name in ("a", "b"))
        return replace(blocks[0], a=a.mean(0), b=b.sum(0))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Dense(Block):
    """A leaf's whole block, or one for each slice of its first axes."""

    g: Array
    """(S, P, P); (S, P) where diagonal."""
    leaf: str = _static()
    shape: tuple[int, ...] = _static()

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the one leaf."""
        return {self.leaf: self.shape}

    def check(self) -> None:
        """G is of the leaf."""
        S = self.g.shape[0]
        _check_side("G", self.g, S, math.prod(self.shape) // max(S, 1), self.leaf)

    @property
    def lead(self) -> tuple[int, ...]:
        """As many first axes as there are slices."""
        sizes = [math.prod(self.shape[:d]) for d in range(len(self.shape) + 1)]
        return self.shape[: sizes.index(self.g.shape[0])]

    def displacement(self, tau: Flat) -> Array:
        """(S, P)."""
        return tau[self.leaf].reshape(self.g.shape[:2])

    def times(self, x: Array) -> Array:
        """S P² multiply-adds."""
        return _times(self.g, x[..., None])[..., 0]

    def scaled(self, by: float) -> "Dense":
        """G times a number."""
        return replace(self, g=self.g * by)

    @classmethod
    def merged(cls, blocks: Sequence["Dense"]) -> "Dense":
        """The sum."""
        return replace(blocks[0], g=jnp.stack([each.g for each in blocks]).sum(0))


KINDS: dict[str, type[Block]] = {"kronecker": Kronecker, "dense": Dense}
"""By the names that cards call them."""


def quadratic(blocks: Sequence[Block], tau: Flat) -> Array:
    """τᵀGτ of a block-diagonal G, () float32 or wider; blocks of leaves that do not move are 0.

    Raises:
        ValueError: a leaf moves that no block is of.
    """
    check_known(blocks, tau)
    values = [block.value(tau) for block in blocks if not set(tau).isdisjoint(block.leaves)]
    return jnp.stack(values).sum() if values else jnp.zeros(())


def check_known(blocks: Sequence[Block], tau: Iterable[str]) -> None:
    """Require that some block is of each leaf that moves.

    Raises:
        ValueError: none is; each is named.
    """
    known = {name for block in blocks for name in block.leaves}
    if strange := sorted(set(tau) - known):
        raise ValueError(
            f"the curvature says nothing of {', '.join(strange)}, which would move unhindered; "
            "measure it with these leaves among trainable, or train others"
        )


def _check_side(what: str, factor: Array, slices: int, side: int, leaf: str) -> None:
    shape = factor.shape
    parts = shape[1] if len(shape) == 4 else 1
    inner = side // max(parts, 1)
    if shape not in {(slices, side, side), (slices, side), (slices, parts, inner, inner)}:
        raise ValueError(
            f"{what} of {leaf} has shape {shape}; expected {(slices, side, side)}, its diagonal or "
            "its diagonal blocks"
        )


def _times(factor: Array, x: Array) -> Array:
    """Along axis 1 of (S, K, M): by (S, K, K), diagonals (S, K), or blocks (S, P, K/P, K/P)."""
    factor = factor.astype(jnp.promote_types(factor.dtype, x.dtype))
    if factor.ndim == 2:
        return factor[:, :, None] * x
    if factor.ndim == 4:
        apart = x.reshape(*factor.shape[:3], x.shape[-1])
        return jnp.einsum(
            "spkj,spjm->spkm", factor, apart, precision=jax.lax.Precision.HIGHEST
        ).reshape(x.shape)
    return jnp.einsum("skj,sjm->skm", factor, x, precision=jax.lax.Precision.HIGHEST)


def _quadratic(times: Callable[[Array], Array], x: Array) -> Array:
    """⟨x, Gx⟩ of a symmetric G, whose derivative 2Gx is what the value took already."""

    @jax.custom_jvp
    def value(x: Array) -> Array:
        return jnp.vdot(x, times(x), precision=jax.lax.Precision.HIGHEST)

    @value.defjvp
    def _(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        (x,), (dx,) = primals, tangents
        moved = times(x)
        along = jnp.vdot(moved, dx, precision=jax.lax.Precision.HIGHEST)
        return jnp.vdot(x, moved, precision=jax.lax.Precision.HIGHEST), 2 * along

    return value(x)

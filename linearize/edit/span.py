"""What directions do to outputs, in coordinates of their own: none is lost, none counts twice.

The outputs of all examples, ``Σ α_k Jτ_k``, are a matrix A of K columns. Its columns may differ
by many powers of ten, be 0, or repeat each other; in the orthonormal coordinates y of their span
a problem is as well posed as its data, and the α of least norm is a linear function of y.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr, solve_triangular

_COLLINEAR = 16
"""Roundings of a unit column, times √K, below which a combination of columns is nothing."""
_BESIDE_OTHERS, _BESIDE_OUTPUTS = 16, 4
"""Roundings of the largest column *and* of the outputs at θ0, below both of which a column is
noise: what is left where terms cancel, as for a shift before a LayerNorm."""


@dataclass(frozen=True, eq=False)
class Span:
    """Coordinates y (r,) of K coefficients α, r being the rank of what they do."""

    reads: np.ndarray
    """(r, K): y = reads @ α; ‖y‖ is the root mean square of the change, in its unit."""
    gives: np.ndarray
    """(K, r): α = gives @ y, the coefficients of least norm; reads @ gives = 1."""

    @classmethod
    def of(cls, changes: Sequence[np.ndarray], unit: float, size: float, dtype: np.dtype) -> "Span":
        """The span of K directions over several data sets, each of which counts the same.

        Args:
            changes: each data set's (K, N, ...), float64: what the directions do to its outputs.
            unit: what a change of 1 is, in outputs.
            size: root mean square of the outputs that they change.
            dtype: whose rounding the changes carry.
        """
        eps, K = float(np.finfo(dtype).eps), len(changes[0])
        columns, lengths = _columns(changes)
        nothing = eps * min(_BESIDE_OTHERS * lengths.max(), _BESIDE_OUTPUTS * size)
        kept = np.flatnonzero(lengths > nothing)
        _, s, v = np.linalg.svd(columns[:, kept], full_matrices=False)
        rank = int((s > _COLLINEAR * eps * np.sqrt(K) * s.max(initial=0.0)).sum())
        rows, s = v[:rank] * lengths[kept], s[:rank]
        gives, reads = np.zeros((K, rank)), np.zeros((rank, K))
        gives[kept] = _least_norm(rows) / s * unit
        reads[:, kept] = s[:, None] * rows / unit
        return cls(reads, gives)

    @classmethod
    def scaled(cls, changes: Sequence[np.ndarray], unit: float) -> "Span":
        """All K directions, each divided by its own length; one of length 0 as it is."""
        _, lengths = _columns(changes)
        scales = np.where(lengths > 0, lengths, 1.0) / unit
        return cls(np.diag(scales), np.diag(1 / scales))


def _columns(changes: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The K columns, of length 1 (or 0) and up to a rotation of the rows; and their lengths (K,).

    By QR of each data set, then of all: no square is taken that could lose a small column.
    """
    rows = [c.reshape(len(c), -1).T / np.sqrt(c.shape[1] * len(changes)) for c in changes]
    peak = np.max([np.abs(r).max(0, initial=0.0) for r in rows], axis=0)
    peak = np.where(peak > 0, peak, 1.0)
    parts = [np.linalg.qr(r / peak, mode="r") for r in rows]
    triangle = np.linalg.qr(np.concatenate(parts), mode="r")
    lengths = np.linalg.norm(triangle, axis=0)
    return triangle / np.where(lengths > 0, lengths, 1.0), lengths * peak


def _least_norm(rows: np.ndarray) -> np.ndarray:
    """The pseudo-inverse (K, r) of independent rows (r, K), whose columns may be of any sizes.

    Largest columns first, rows = Q T [1, G] with a moderate G, so that no column is too small to
    count beside another.
    """
    rank, K = rows.shape
    if not rank:
        return np.zeros((K, 0))
    q, triangle, order = qr(rows, mode="economic", pivoting=True)
    solved = solve_triangular(triangle[:, :rank], np.concatenate([triangle[:, rank:], q.T], 1))
    rest, heads = solved[:, : K - rank], solved[:, K - rank :]
    both = np.concatenate([np.eye(rank), rest], 1)
    found = np.empty((K, rank))
    found[order] = both.T @ np.linalg.solve(both @ both.T, heads)
    return found

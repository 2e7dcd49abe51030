"""Eigenfunctions of the kernel and where they live (*Task Arithmetic in the Tangent Space*, §5).

On N points, a mix of a task's and a control task's inputs, the eigenfunctions of the kernel under
the empirical measure are

    λ_ρ φ_ρ(x) = (1/N) Σ_n k(x, x_n) φ_ρ(x_n)        (1/N) Σ_n φ_ρ(x_n)² = 1

and the local energy of one on a region is E_{x ∈ region}[φ_ρ(x)²]: 1 everywhere for one that lives
everywhere, 1/p in its region and 0 elsewhere for one that lives in a share p of the points. Weighed
by the shares the energies of an eigenfunction sum to 1.

A trace kernel (N, N) has scalar eigenfunctions, shared by the outputs; a mean kernel has the same
ones, and eigenvalues C times smaller, on the scale of a full kernel's. A full kernel (N, N, C, C)
has vector ones, (N, C); their squares, energies and inner products sum over the outputs.

Within a repeated eigenvalue the basis is arbitrary, and with it each energy and coefficient; the
sum of energies over the whole eigenspace is not, and neither is the sum of squared coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike

from linearize.fields import integer
from linearize.ntk.checks import widen
from linearize.ntk.layout import as_matrix
from linearize.ntk.spectrum import Eigenpairs, eigenpairs


@dataclass(frozen=True, eq=False)
class Eigenfunctions:
    """Leading eigenfunctions on N points."""

    values: np.ndarray
    """(k,), float64: eigenvalues of K/N, descending."""
    functions: np.ndarray
    """(N, k), or (N, C, k) of a full kernel: mean square over the points 1 (summed over C)."""


@dataclass(frozen=True, eq=False)
class LocalEnergy:
    """Energies of eigenfunctions on regions."""

    regions: tuple[object, ...]
    """(R,): the labels, sorted; the masks' numbers where masks were given."""
    shares: np.ndarray
    """(R,), float64: of the points."""
    energy: np.ndarray
    """(R, k), float64: mean of φ² over the region's points."""


@dataclass(frozen=True, eq=False)
class Localization:
    """Where the eigenfunctions that carry a target live."""

    values: np.ndarray
    """(k,): eigenvalues of K/N, descending."""
    weights: np.ndarray
    """(k,): squared coefficients of the target, summed over outputs, divided by their sum."""
    captured: float
    """The sum of the squared coefficients ÷ the target's mean square: 1 if the k eigenfunctions
    represent it wholly."""
    local: LocalEnergy
    """Of each eigenfunction."""
    energy: np.ndarray
    """(R,): Σ_ρ weights_ρ · local energy_ρ."""


def eigenfunctions(kernel: ArrayLike | Eigenpairs, k: int | None = None) -> Eigenfunctions:
    """The k leading eigenfunctions under the empirical measure of the kernel's points.

    Args:
        kernel: (N, N) or "full" (N, N, C, C), symmetric; or eigenpairs of it, from
            :func:`linearize.ntk.matrix_free.lanczos` say.
        k: how many; all by default.

    Raises:
        ValueError: as :func:`linearize.ntk.spectrum.eigenpairs`.

    >>> found = eigenfunctions([[1.0, 1.0], [1.0, 1.0]], k=1)
    >>> found.values.round(12), found.functions[:, 0].round(12)
    (array([1.]), array([1., 1.]))
    """
    if not isinstance(kernel, Eigenpairs):
        kernel = eigenpairs(kernel, k)
    k = _leading(k, len(kernel.values), "eigenpairs")
    points = len(kernel.vectors)
    return Eigenfunctions(kernel.values[:k] / points, kernel.vectors[..., :k] * np.sqrt(points))


def _leading(k: int | None, given: int, what: str) -> int:
    if k is None:
        return given
    if not 1 <= integer("k", k) <= given:
        raise ValueError(f"k={k}; {given} {what} are given: choose from 1 to that")
    return integer("k", k)


def extend(found: Eigenfunctions, cross_kernel: ArrayLike) -> np.ndarray:
    """Eigenfunctions at new points, by Nyström: φ_ρ(x) = (1/(N λ_ρ)) Σ_n k(x, x_n) φ_ρ(x_n).

    Args:
        found: eigenfunctions on N points.
        cross_kernel: new points against those, (M, N), or (M, N, C, C) of a full kernel.

    Returns:
        (M, k) or (M, C, k), float64; at the N points themselves, ``found.functions``.

    Raises:
        ValueError: another number of points or another layout; an eigenvalue that is not positive
            beyond rounding (below 1e-10 of the largest), by which nothing can be divided.

    >>> extend(eigenfunctions([[1.0, 1.0], [1.0, 1.0]], k=1), [[3.0, 3.0]]).round(12)
    array([[3.]])
    """
    cross = widen("cross_kernel", cross_kernel)
    points = found.functions.shape[:-1]
    if cross.ndim != 2 * len(points) or cross.shape[1::2] != points:
        raise ValueError(
            f"cross_kernel has shape {cross.shape}; these eigenfunctions live on {points}: "
            + ("expected (M, N)" if len(points) == 1 else "expected (M, N, C, C)")
        )
    bad = np.flatnonzero(found.values <= 1e-10 * found.values.max())
    if len(bad):
        raise ValueError(
            f"eigenvalue {bad[0]} is {found.values[bad[0]]:.3g}, zero beside the largest, "
            f"{found.values[0]:.3g}: extend the first k={bad[0]} eigenfunctions only"
        )
    flat = found.functions.reshape(-1, len(found.values))
    sums = as_matrix(cross) @ flat
    return (sums / (points[0] * found.values)).reshape(*cross.shape[::2], -1)


def local_energy(
    functions: Eigenfunctions | ArrayLike, regions: ArrayLike | Sequence[object]
) -> LocalEnergy:
    """The mean of φ_ρ² over the points of each region.

    Args:
        functions: eigenfunctions, or their values (N, k) or (N, C, k), at new points say.
        regions: a label for each point, (N,): numbers, strings, or a mask, whose regions are then
            False and True; or masks (R, N), bool, which may overlap.

    Raises:
        ValueError: another number of points, a region without points, masks that are not bool, a
            label that is NaN.

    >>> found = eigenfunctions(np.diag([2.0, 1.0]))
    >>> local_energy(found, ["task", "control"])
    LocalEnergy(regions=('control', 'task'), shares=array([0.5, 0.5]), energy=array([[0., 2.],
           [2., 0.]]))
    """
    values = functions.functions if isinstance(functions, Eigenfunctions) else functions
    values = widen("functions", values)
    if values.ndim not in (2, 3):
        raise ValueError(f"functions has shape {values.shape}; expected (N, k) or (N, C, k)")
    squares = values**2 if values.ndim == 2 else (values**2).sum(1)
    names, masks = _masks(regions, len(values))
    sizes = masks.sum(1)
    energy = (masks.astype(np.float64) @ squares) / sizes[:, None]
    return LocalEnergy(names, sizes / len(values), energy)


def target_coefficients(found: Eigenfunctions, target: ArrayLike) -> np.ndarray:
    """⟨target, φ_ρ⟩ = (1/N) Σ_n target(x_n) φ_ρ(x_n), summed over outputs where φ has them.

    Args:
        found: eigenfunctions on N points.
        target: (N,) or (N, C): labels as ±1, one-hot rows, residuals, ...

    Returns:
        (k,), float64; (k, C) for a target (N, C) along scalar eigenfunctions.

    Raises:
        ValueError: a target of another shape or not finite.

    >>> target_coefficients(eigenfunctions(np.eye(2)[::-1] + 2, k=1), [3.0, 1.0]).round(12)
    array([2.])
    """
    wanted = widen("target", target)
    points = found.functions.shape[:-1]
    fits = wanted.shape == points or (wanted.ndim == 2 and wanted.shape[:1] == points)
    if not fits:
        raise ValueError(
            f"target has shape {wanted.shape}; expected a number on each of the eigenfunctions' "
            f"points, {points}" + (f" or {(*points, 'C')}" if len(points) == 1 else "")
        )
    axes = len(points)
    return np.tensordot(found.functions, wanted, (range(axes), range(axes))) / points[0]


def localization(
    kernel: ArrayLike | Eigenfunctions,
    target: ArrayLike,
    regions: ArrayLike | Sequence[object],
    k: int | None = None,
) -> Localization:
    """The local energy of the eigenfunctions that carry the target, on each region.

    Args:
        kernel: as in :func:`eigenfunctions`, or its answer.
        target: as in :func:`target_coefficients`; zero on the control's points, in the paper's use.
        regions: as in :func:`local_energy`.
        k: leading eigenfunctions to use; all by default. Where k cuts through a repeated
            eigenvalue, the answer depends on the basis that was found.

    Raises:
        ValueError: as those functions; ``k`` out of range; a target that is orthogonal to all k
            eigenfunctions.

    >>> found = localization(np.diag([2.0, 1.0]), [1.0, 0.0], ["task", "control"])
    >>> dict(zip(found.local.regions, found.energy.round(12).tolist(), strict=True))
    {'control': 0.0, 'task': 2.0}
    """
    if isinstance(kernel, Eigenfunctions):
        k = _leading(k, len(kernel.values), "eigenfunctions")
        found = Eigenfunctions(kernel.values[:k], kernel.functions[..., :k])
    else:
        found = eigenfunctions(kernel, k)
    squares = target_coefficients(found, target) ** 2
    squares = squares if squares.ndim == 1 else squares.sum(1)
    total = squares.sum()
    power = (np.asarray(target, np.float64) ** 2).sum() / len(found.functions)
    if not total > 1e-20 * power:
        raise ValueError(
            f"target is orthogonal to the {len(squares)} leading eigenfunctions, or zero: nothing "
            "to weigh them by; raise k or check the labels"
        )
    local = local_energy(found, regions)
    weights = squares / total
    return Localization(found.values, weights, float(total / power), local, local.energy @ weights)


def _masks(
    regions: ArrayLike | Sequence[object], points: int
) -> tuple[tuple[object, ...], np.ndarray]:
    given = np.asarray(regions)
    if given.ndim == 1 and len(given) == points:
        unequal = np.flatnonzero(given != given)  # NaN, which is no region
        if len(unequal):
            raise ValueError(
                f"regions[{unequal[0]}] is {given[unequal[0]]}, as are {len(unequal)} of {points} "
                "labels; give each point a region, or masks that leave it out"
            )
        labels = np.unique(given)
        return tuple(labels.tolist()), given == labels[:, None]
    if given.ndim == 2 and given.shape[1] == points and given.dtype == bool:
        empty = np.flatnonzero(~given.any(1))
        if len(empty):
            raise ValueError(f"regions[{empty[0]}] holds no point; leave it out")
        return tuple(range(len(given))), given
    raise ValueError(
        f"regions has shape {given.shape} and dtype {given.dtype}; expected a label for each of "
        f"the {points} points, or masks (R, {points}) of bool"
    )

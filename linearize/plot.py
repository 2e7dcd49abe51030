"""Figures of what one has in hand: matplotlib axes in, axes out.

    ax = lz.plot.cosines(taus)                 # a figure of its own ...
    error.plot(ax=axes[0, 1])                  # ... or a place in one's own
    ax.figure.savefig("cosines.png")

What is drawn is labelled and nothing is shown; colours read well in print and for every eye.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

LOW_IS_LIGHT = ListedColormap(
    colormaps["YlGnBu"](np.linspace(0, 0.8, 256)), "low_is_light"
).with_extremes(bad="#a0a0a0")
"""Of errors: light where they are low, as in the papers, and nowhere so dark that lines drown."""
SIGNED = "RdBu_r"
"""Of cosines and differences, white at 0."""

_MOST_WRITTEN = 12


def axes(ax: Axes | None = None, side: float = 4.0) -> Axes:
    """The axes that are given, or those of a new figure."""
    if ax is not None:
        return ax
    return Figure(figsize=(1.25 * side, side), layout="constrained").subplots()


def error_map(
    alphas: Sequence[ArrayLike],
    total: ArrayLike,
    ax: Axes | None = None,
    *,
    names: Sequence[str] = ("1", "2"),
    upper: float | None = None,
    search_box: tuple[float, float] | None = (-1.0, 1.0),
) -> Axes:
    """A disentanglement error map of two tasks (*Task Arithmetic in the Tangent Space*, fig. 3).

    Args:
        alphas: the two axes' coefficients, (G_1,) and (G_2,), rising.
        total: (G_1, G_2).
        ax: where to draw.
        names: the tasks', for the axes.
        upper: error of the darkest colour; the largest that is finite by default.
        search_box: coefficients between which a red box is drawn; None for no box.

    Raises:
        ValueError: a map of another number of tasks than two, or shapes that do not fit.
    """
    values = np.asarray(total, np.float64)
    if len(alphas) != 2 or values.ndim != 2:
        raise ValueError(
            f"the map has {len(alphas)} axes; a plot shows two tasks: fix the others' coefficients "
            "by indexing total"
        )
    x, y = (np.asarray(each, np.float64) for each in alphas)
    if x.ndim != 1 or y.ndim != 1 or values.shape != (len(x), len(y)) or len(names) != 2:
        raise ValueError(
            f"alphas {x.shape} and {y.shape}, total {values.shape} and {len(names)} names do not "
            "fit; expected (G_1,), (G_2,), (G_1, G_2) and two names"
        )
    ax = axes(ax)
    top = values[np.isfinite(values)].max(initial=0.0) if upper is None else upper
    mesh = ax.pcolormesh(
        x, y, values.T, cmap=LOW_IS_LIGHT, vmin=0, vmax=top or 1.0, shading="nearest"
    )
    if search_box is not None:
        low, high = search_box
        corner, side = (low, low), high - low
        ax.add_patch(Rectangle(corner, side, side, fill=False, ec="#d62728", lw=1.5))
    ax.set(xlabel=f"α of {names[0]}", ylabel=f"α of {names[1]}", aspect="equal")
    ax.figure.colorbar(mesh, ax=ax, label="Disentanglement error ξ")
    return ax


def cosines(taus: Mapping[str, Any], ax: Axes | None = None) -> Axes:
    """Cosine similarity of every two task vectors (*Editing Models with Task Arithmetic*, fig. 5).

    Args:
        taus: task vectors by name, or anything else with a ``cosine``.
        ax: where to draw.

    Raises:
        ValueError: there is none, or something else among them.
    """
    if not taus:
        raise ValueError("taus is empty; give at least one task vector")
    for name, tau in taus.items():
        if not hasattr(tau, "cosine"):
            raise ValueError(
                f"taus[{name!r}] is a {type(tau).__name__}; expected a task vector: "
                "lz.TaskVector.between(params0, params), or what else has a cosine"
            )
    ax, names = axes(ax), list(taus)
    values = np.array([[float(a.cosine(b)) for b in taus.values()] for a in taus.values()])
    image = ax.imshow(values, cmap=SIGNED, vmin=-1, vmax=1)
    if len(names) <= _MOST_WRITTEN:
        for i, j in np.ndindex(values.shape):
            ink = "white" if abs(values[i, j]) > 0.6 else "black"
            ax.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", color=ink, fontsize=8)
    ax.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.figure.colorbar(image, ax=ax, label="Cosine similarity")
    return ax


def sweep(
    alphas: ArrayLike,
    values: ArrayLike,
    ax: Axes | None = None,
    *,
    names: Sequence[str] = (),
    chosen: float | None = None,
    metric: str = "accuracy",
) -> Axes:
    """A metric along the scaling coefficient, a line a task and their mean.

    ``sweep(found.alphas, found.values, chosen=found.alpha)`` draws a
    :class:`linearize.edit.ScaleSearch`.

    Args:
        alphas: (A,).
        values: (A,), or (A, T) of T tasks.
        ax: where to draw.
        names: the tasks'.
        chosen: the coefficient that was chosen; a dashed line.
        metric: what ``values`` are.

    Raises:
        ValueError: shapes that do not fit.
    """
    x, table = np.asarray(alphas, np.float64), np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if x.ndim != 1 or table.shape[:1] != x.shape or (names and len(names) != table.shape[1]):
        raise ValueError(
            f"alphas {x.shape}, values {table.shape} and {len(names)} names do not fit; expected "
            "(A,), (A, T) and T names or none"
        )
    ax, several = axes(ax), table.shape[1] > 1
    for t, column in enumerate(table.T):
        label = names[t] if names else None
        ax.plot(x, column, lw=1.0 if several else 2.0, alpha=0.6 if several else 1.0, label=label)
    if several:
        ax.plot(x, table.mean(1), color="black", lw=2.0, label="mean")
    if chosen is not None:
        ax.axvline(chosen, color="black", lw=1.0, ls="--")
    ax.set(xlabel="Scaling coefficient α", ylabel=metric.capitalize())
    if names or several:
        for text in ax.legend(frameon=False).get_texts():
            text.set_parse_math(False)
    return ax


def spectrum(values: ArrayLike, ax: Axes | None = None, *, label: str | None = None) -> Axes:
    """Eigenvalues of a kernel, the largest first, on logarithmic axes.

    Args:
        values: (K,), in any order; what is not positive is left out.
        ax: where to draw.
        label: of the line.

    Raises:
        ValueError: none is positive.
    """
    found = np.sort(np.asarray(values, np.float64).ravel())[::-1]
    positive = found[found > 0]
    if not len(positive):
        raise ValueError(f"values holds {len(found)} numbers, none positive: no spectrum to draw")
    ax = axes(ax)
    ax.loglog(np.arange(1, len(positive) + 1), positive, marker=".", ms=3, lw=1.0, label=label)
    ax.set(xlabel="Rank", ylabel="Eigenvalue")
    return ax


def drift(
    steps: ArrayLike, values: ArrayLike, ax: Axes | None = None, *, label: str | None = None
) -> Axes:
    """How far a kernel moved from its start along training, ``‖K_t − K_0‖ / ‖K_0‖``.

    Args:
        steps: (S,), rising.
        values: (S,).
        ax: where to draw.
        label: of the line.

    Raises:
        ValueError: shapes that do not fit.
    """
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"steps has shape {x.shape} and values {y.shape}; expected (S,) both")
    ax = axes(ax)
    ax.plot(x, y, marker=".", label=label)
    ax.set(xlabel="Step", ylabel="Relative change of the kernel")
    ax.set_ylim(bottom=0)
    return ax

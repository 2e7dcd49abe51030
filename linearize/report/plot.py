"""A figure in the layouts of a desktop and of a phone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter
from numpy.typing import ArrayLike

from linearize.report.node import Floats
from linearize.report.stats import Bounds, Summary, over_seeds
from linearize.report.style import PAPER, PLAIN_LOOK, Look, colour, marker

WIDE, NARROW = 9.0, 3.7
"""Widths in inches: for a desktop and paper, and for a phone."""


@dataclass(frozen=True)
class Plot:
    """A figure to draw: ``draw(narrow)`` gives the desktop's or the phone's layout.

    Call it inside ``matplotlib.rc_context(style.PLAIN)``.
    """

    name: str
    title: str
    caption: str
    alt: str
    draw: Callable[[bool], Figure]


def figure(narrow: bool, height: float) -> Figure:
    """An empty figure of the right width; height in inches."""
    return Figure(figsize=(NARROW if narrow else WIDE, height), layout="constrained")


def legend(fig: Figure, handles: Sequence[Line2D], narrow: bool, ncols: int = 8) -> None:
    """A legend above the axes, of two columns on a phone."""
    fig.legend(
        handles=list(handles),
        loc="outside upper left",
        ncols=min(2 if narrow else 8, ncols, len(handles)),
        handletextpad=0.5,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def whiskers(found: Summary, bounds: Bounds) -> Floats | None:
    """Lengths below and above the means for ``errorbar``, (2, ...), of intervals within bounds.

    None, which draws none, where there is no interval.
    """
    if np.isnan(found.half).all():
        return None
    low, high = found.ends(bounds)
    return np.maximum([found.mean - low, high - found.mean], 0)


def errorbars(
    ax: Axes, x: ArrayLike, values: ArrayLike, method: str, bounds: Bounds, **look: Any
) -> None:
    """A method's line: means over seeds and their intervals.

    Args:
        x: shape (n,).
        values: shape (S, n).
        bounds: of the values; no interval is drawn beyond.
        look: what differs from the others, as ``Axes.errorbar`` names it.
    """
    found = over_seeds(values)
    usual: dict[str, Any] = {
        "color": colour(method), "marker": marker(method), "ms": 5, "mec": PAPER, "mew": 0.5,
        "elinewidth": 1.2, "lw": 1.2,
    }  # fmt: skip
    ax.errorbar(x, found.mean, yerr=whiskers(found, bounds), **usual | look)


def dots(
    ax: Axes, x: ArrayLike, values: ArrayLike, method: str, bounds: Bounds, **look: Any
) -> None:
    """The same as separate marks, without a line."""
    errorbars(ax, x, values, method, bounds, **{"ls": "none", "ms": 6} | look)


def band(ax: Axes, x: ArrayLike, values: ArrayLike, bounds: Bounds, **look: Any) -> None:
    """A line of means over seeds (S, n), and their intervals within bounds as a band."""
    found = over_seeds(values)
    (line,) = ax.plot(x, found.mean, **look)
    if np.isfinite(found.half).any():
        ax.fill_between(x, *found.ends(bounds), color=line.get_color(), alpha=0.16, lw=0)


def categories(ax: Axes, names: Sequence[str], rotation: float) -> None:
    """Names at 0, 1, ... of the x-axis, slanted by this many degrees."""
    ax.set_xticks(range(len(names)), names, rotation=rotation, ha="right", rotation_mode="anchor")


def powers_of_ten(*axes: Axis) -> None:
    """Labels of logarithmic axes without mathtext, which :data:`style.PLAIN` turns off.

    Numbers between powers are labelled where matplotlib would.
    """
    for axis in axes:
        axis.set_major_formatter(_PowersOfTen())
        axis.set_minor_formatter(_PowersOfTen())


class _PowersOfTen(LogFormatter):
    """Powers as 10⁻³, numbers between as 3 × 10⁻³."""

    def _num_to_string(self, x: float, vmin: float, vmax: float) -> str:
        exponent = int(np.floor(np.log10(x) + 1e-9))
        power = f"10{str(exponent).translate(_RAISED)}"
        times = x / 10.0**exponent
        return power if np.isclose(times, 1) else f"{times:.3g} × {power}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def matrix_axes(ax: Axes, columns: Sequence[str], rows: Sequence[str], rotation: float) -> None:
    """Names beside the columns and rows of a drawn matrix, without ticks or a frame."""
    categories(ax, columns, rotation)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0, labelsize=7.5)
    ax.spines[:].set_visible(False)


def in_cell(ax: Axes, column: int, row: int, text: str, size: float, *, dark: bool) -> None:
    """A text in a cell of a drawn matrix, light where the cell is dark."""
    ax.text(
        column, row, text, ha="center", va="center", fontsize=size,
        color="#fffffe" if dark else "#1c2129",  # no INK, no PAPER: those follow the page's theme
    )  # fmt: skip


def handle(method: str, text: str | None = None, look: Look = PLAIN_LOOK) -> Line2D:
    """The mark of a method for a legend."""
    return Line2D(
        [], [], color=look.colour(method), marker=look.marker(method), ls="none", ms=6,
        mec=PAPER, mew=0.5, label=text or look.label(method),
    )  # fmt: skip

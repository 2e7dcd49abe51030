"""Figures of matrices: disentanglement error maps and cosines between task vectors."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from linearize.plot import LOW_IS_LIGHT, SIGNED
from linearize.report.compare.measures import capital, error
from linearize.report.compare.phrases import span
from linearize.report.compare.results import PairMap, Results
from linearize.report.node import Floats
from linearize.report.plot import Plot, figure, in_cell, matrix_axes
from linearize.report.stats import mean_phrase
from linearize.report.style import INK, MUTED, Look, shorten
from linearize.report.table import fixed

BOX = "#c8102e"
CROSS = "Cross: the pre-trained model."
"""What a figure's caption says, and no map whose cross moves."""


class Mapped(Protocol):
    """Results with error maps; of the main job, or of another."""

    @property
    def maps(self) -> Sequence[PairMap]:
        """A pair each."""

    @property
    def seeds(self) -> Sequence[int]:
        """Whose mean is drawn."""

    @property
    def look(self) -> Look:
        """How methods are called."""


def edges(centres: Floats) -> Floats:
    """Borders of cells around rising centres: shape (G,) to (G + 1,).

    >>> edges(np.array([0.0, 1.0, 2.0])).tolist()
    [-0.5, 0.5, 1.5, 2.5]
    """
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def upper_limit(results: Mapped, pair: PairMap) -> float:
    """The colour scale's top: the largest mean of all maps of such an error, rounded up."""
    alike = [each for each in results.maps if each.kind == pair.kind]
    means = np.concatenate(
        [total.mean(0).ravel() for each in alike for total in each.total.values()]
    )
    largest = float(means[np.isfinite(means)].max(initial=0.0))
    if pair.most is None:
        return float(f"{1.05 * largest:.1e}") or 1.0
    return max(0.1, float(np.ceil(largest * 10 - 1e-9)) / 10)


def error_colours(values: Floats, upper: float) -> NDArray[np.uint8]:
    """RGB bytes, shape (..., 3), of errors between 0 and ``upper``."""
    scaled = np.clip(values / upper, 0, 1)
    return LOW_IS_LIGHT(scaled, bytes=True)[..., :3]


def levels(upper: float) -> Floats:
    """Errors at which contours are drawn, with a step that is a round number."""
    return np.asarray(MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(0, upper)[1:])


def error_label(pair: PairMap) -> str:
    """What the colour bar shows, with its range where the distance has one."""
    both = "sum" if pair.reduction == "sum" else "mean"
    limits = "" if pair.most is None else f", range 0–{pair.most:g}"
    return f"disentanglement error ξ ({both} over both tasks{limits})"


def _draw_map(ax: Axes, pair: PairMap, total: Floats, upper: float) -> QuadMesh:
    borders, mean = edges(pair.alphas), total.mean(0).T
    mesh = ax.pcolormesh(
        borders, borders, mean, cmap=LOW_IS_LIGHT, vmin=0, vmax=upper, rasterized=True
    )
    seen = mean[np.isfinite(mean)]
    lines = [
        level for level in levels(upper) if seen.min(initial=upper) < level < seen.max(initial=0)
    ]
    if lines:
        drawn = ax.contour(
            pair.alphas, pair.alphas, np.ma.masked_invalid(mean), lines, colors=INK, linewidths=0.5
        )
        ax.clabel(drawn, fontsize=6, fmt=lambda level: f"{level:g}")
    if pair.search_box is not None:
        low, high = pair.search_box
        for line, width in (("#fffffe", 3.2), (BOX, 1.6)):
            ax.add_patch(
                Rectangle(
                    (low, low), high - low, high - low, fill=False, ec=line, lw=width, zorder=3
                )
            )
    ax.plot(0, 0, "+", color=INK, ms=6, mew=1.2, zorder=4)
    ax.set_aspect("equal")
    ax.spines[:].set_visible(False)
    return mesh


def layout(count: int, widest: int, narrow: bool) -> tuple[int, int]:
    """Rows and columns of so many panels; below one another on a phone."""
    across = 1 if narrow else min(widest, count)
    return -(-count // across), across


def hide(axes: NDArray[Any], count: int) -> None:
    """Leaves the panels after the first ``count`` empty."""
    for ax in axes.flat[count:]:
        ax.set_visible(False)


def name(results: Mapped, index: int) -> str:
    """What a pair's figure is called."""
    a, b = map(_slug, results.maps[index].tasks)
    return f"error_map_{index + 1}_{a}_{b}"


def error_map(results: Mapped, index: int) -> Plot:
    """One pair's error maps, a panel a regime, on one colour scale, the search box on top."""
    pair = results.maps[index]
    a, b = pair.tasks
    regimes = results.look.ordered(pair.total)
    upper = upper_limit(results, pair)

    def draw(narrow: bool) -> Figure:
        down, across = layout(len(regimes), 4, narrow)
        tall = min(3.3, 7.2 / across + 0.85)  # square panels, and what is written at them
        fig = figure(narrow, 3.0 * down + 0.7 if narrow else tall * down)
        axes = fig.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        meshes = []
        hide(axes, len(regimes))
        for i, (ax, regime) in enumerate(zip(axes.flat, regimes, strict=False)):
            meshes.append(_draw_map(ax, pair, pair.total[regime], upper))
            ax.set_title(results.look.label(regime))
            if i + across >= len(regimes):
                ax.tick_params(labelbottom=True)
                ax.set_xlabel(f"α of {shorten(a)}")
            if i % across == 0:
                ax.set_ylabel(f"α of {shorten(b)}")
        bar = fig.colorbar(
            meshes[0],
            ax=axes,
            location="bottom" if narrow else "right",
            shrink=0.95 if narrow else 0.9,
            aspect=30 if narrow else 22,
            pad=0.03,
        )
        text = error_label(pair)
        bar.set_label(text.replace(" (", "\n(", 1), fontsize=8)
        bar.outline.set_visible(False)
        return fig

    box = ""
    if pair.search_box is not None:
        low, high = (f"{x:g}".replace("-", "−") for x in pair.search_box)
        box = f" Red box: the search space of α, [{low}, {high}]²."
    known = pair.examples or ([] if pair.n_eval is None else [pair.n_eval])
    n = f" n = {span(known)} examples a task." if known else ""
    many = len(results.seeds)
    mean = "" if many == 1 else f"Mean over {many} seeds. "
    return Plot(
        name(results, index),
        f"Disentanglement error: {a} and {b}",
        f"{mean}{capital(pair.measured)}, {pair.reduction} over both tasks; "
        f"light is disentangled, lines are contours. {CROSS}{box}{n}",
        f"{len(regimes)} heat maps over the coefficients of {a} and {b}, one a regime: "
        f"{_in_words(results, pair)}.",
        draw,
    )


def _in_words(results: Mapped, pair: PairMap) -> str:
    """The maps' mean errors in the search box, for who does not see them."""
    means = (
        f"{results.look.inline(m)} {error(pair.boxed(m).mean((1, 2)), pair.farthest).text}"
        for m in results.look.ordered(pair.total)
    )
    return f"mean error in the search box {', '.join(means)}"


def cosine(results: Results) -> Plot:
    """Cosine matrices between the task vectors, one a regime."""
    regimes = results.look.ordered(results.cosine)
    T = len(results.tasks)
    means = {r: results.cosine[r].mean(0) for r in regimes}
    off = ~np.eye(T, dtype=bool)
    rest = np.abs(np.concatenate([m[off] for m in means.values()]))
    largest = float(rest[np.isfinite(rest)].max(initial=0.0))
    upper = max(0.05, float(np.ceil(largest * 20)) / 20)
    names = [shorten(t, 15) for t in results.tasks]

    def draw(narrow: bool) -> Figure:
        down, across = layout(len(regimes), 3, narrow)
        fig = figure(narrow, 3.7 * down if narrow else 4.3 * down)
        axes = fig.subplots(down, across, squeeze=False)
        images = []
        size = 7.5 if T <= 6 else (5.5 if narrow else 6.5)
        hide(axes, len(regimes))
        for ax, regime in zip(axes.flat, regimes, strict=False):
            shown = np.where(off, means[regime], np.nan)
            images.append(ax.imshow(shown, cmap=SIGNED, vmin=-upper, vmax=upper))
            for i in range(T):
                ax.text(i, i, "1", ha="center", va="center", fontsize=7, color=MUTED)
                for j in range(T):
                    if off[i, j] and np.isfinite(shown[i, j]):
                        text, dark = fixed(shown[i, j], 2), abs(shown[i, j]) > 0.6 * upper
                        in_cell(ax, j, i, text, size, dark=dark)
            matrix_axes(ax, names, names, 40)
            ax.set_title(results.look.label(regime))
        bar = fig.colorbar(
            images[0],
            ax=axes,
            location="bottom" if narrow else "right",
            shrink=0.8,
            aspect=30 if narrow else 22,
            pad=0.02,
            ticks=MaxNLocator(4, symmetric=True),
        )
        bar.set_label("cosine similarity", fontsize=8)
        bar.outline.set_visible(False)
        return fig

    return Plot(
        "cosine",
        "Cosines between task vectors",
        "Cosine of the angle between the task vectors of two tasks; the diagonal, 1, is left out "
        f"so that the scale shows the rest.{mean_phrase(results.seeds)}",
        "Matrices of cosine similarities between the tasks' vectors, one a regime.",
        draw,
    )


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:40]

"""Error maps that answer the pointer: where the page's script draws them, and their numbers."""

import base64
import html
import json
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import Colormap
from numpy.typing import NDArray

from linearize.plot import LOW_IS_LIGHT, SIGNED
from linearize.report.compare import maps
from linearize.report.compare.results import PairMap, Results
from linearize.report.node import Floats
from linearize.report.plot import Plot
from linearize.report.style import shorten

SIZE = 200
"""The side of a drawn map, in the units of its SVG."""


def script(name: str, data: object) -> str:
    """JSON that the page's script reads."""
    text = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{name}">{text}</script>'


def packed(array: NDArray[Any], dtype: str) -> str:
    """An array as base64 of little-endian numbers."""
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()


def payload(results: Results) -> dict[str, Any]:
    """What the script knows of all maps: means over seeds as float32, (rows, parts, G, G)."""
    shown = [(i, pair) for i, pair in enumerate(results.maps) if pair.total]
    return {
        "size": SIZE,
        "colours": _bytes(LOW_IS_LIGHT),
        "signed": _bytes(colormaps[SIGNED]),
        "maps": [
            {
                "figure": maps.name(results, i),
                "tasks": list(pair.tasks),
                "alphas": pair.alphas.tolist(),
                "upper": maps.upper_limit(results, pair),
                "levels": maps.levels(maps.upper_limit(results, pair)).tolist(),
                "rows": rows(results, pair),
                "labels": [results.look.label(m) for m in rows(results, pair)],
                "parts": len(_parts(pair, rows(results, pair)[0])),
                "values": packed(np.stack([_parts(pair, m) for m in rows(results, pair)]), "<f4"),
            }
            for i, pair in shown
        ],
    }


def rows(results: Results, pair: PairMap) -> list[str]:
    """The methods that a pair's map has, in the order in which they are shown."""
    return results.look.ordered(pair.total)


def _parts(pair: PairMap, method: str) -> Floats:
    """The error, and what each task adds to it where all methods' maps know that."""
    total = pair.total[method].mean(0)[None]
    if pair.total.keys() != pair.per_task.keys():
        return total
    return np.concatenate([total, pair.per_task[method].mean(0)])


def _bytes(colours: Colormap) -> str:
    return packed(colours(np.arange(colours.N), bytes=True)[:, :3], "u1")


def section(results: Results, plots: list[Plot], moves: bool) -> str:
    """All maps, each hidden until the script draws it in the place of its figure.

    Args:
        results: the run's results.
        plots: of the maps, for their titles and captions.
        moves: whether there are sliders for a click to move.
    """
    shown = [pair for pair in results.maps if pair.total]
    found = "".join(
        _live(results, k, pair, plot, moves)
        for k, (pair, plot) in enumerate(zip(shown, plots, strict=True))
    )
    return found + script("maps-data", payload(results))


def _live(results: Results, k: int, pair: PairMap, plot: Plot, moves: bool) -> str:
    methods = rows(results, pair)
    labels = [html.escape(results.look.label(m)) for m in methods]
    names = [html.escape(task) for task in pair.tasks]
    parts = ["both tasks", *names][: len(_parts(pair, methods[0]))]
    upper = f"{maps.upper_limit(results, pair):g}"
    panels = "".join(
        f"<figure><figcaption>{label}</figcaption>{panel(pair, f'{label}: error map')}</figure>"
        for label in labels
    )
    error = _select("part", "Error on", list(enumerate(parts))) if len(parts) > 1 else ""
    sliders = "".join(
        f'<label>α of {name} <input type="range" min="0" max="{len(pair.alphas) - 1}" step="1">'
        "</label>"
        for name in names
    )
    head = "".join(f'<th scope="col" class="number">ξ, {part}</th>' for part in parts)
    body = "".join(
        f'<tr><th scope="row">{label}</th>'
        + "".join(
            f'<td class="number" data-row="{row}" data-part="{p}"></td>' for p in range(len(parts))
        )
        + "</tr>"
        for row, label in enumerate(labels)
    )
    caption = plot.caption.replace(f"{maps.CROSS} ", "")
    click = " A click moves the explorer’s sliders there." * moves
    return (
        f'<div class="live-map" data-map="{k}" hidden><h3>{html.escape(plot.title)}</h3>'
        f'<div class="choices">{error}'
        f"{_select('less', 'less that of', [('', 'none'), *enumerate(labels)])}"
        f'<span class="bar-scale"><span class="low">0</span><i class="scale"></i><span>{upper}'
        f'</span></span></div><div class="panel-grid">{panels}</div>'
        f'<div class="choices">{sliders}</div><div class="scroll" role="region" tabindex="0" '
        f'aria-label="Error at the marked point"><table><caption>At <span class="here"></span>'
        f'</caption><thead><tr><th scope="col">Method</th>{head}</tr></thead><tbody>{body}</tbody>'
        f'</table></div><p class="caption">{html.escape(caption)} Point at a map to read '
        f"it, click to keep the point.{click} "
        f'<button type="button" class="csv get">CSV</button> '
        f'<button type="button" class="get" data-figure="{plot.name}" hidden>SVG</button></p></div>'
    )


def _select(kind: str, text: str, options: list[tuple[Any, str]]) -> str:
    listed = "".join(f'<option value="{value}">{name}</option>' for value, name in options)
    return f'<label>{text} <select class="{kind}">{listed}</select></label>'


def panel(pair: PairMap, described: str) -> str:
    """A map's axes, search box and cross-hair; the script fills the field and its contours."""
    a, b = (html.escape(shorten(t, 20)) for t in pair.tasks)
    borders = maps.edges(pair.alphas)
    low, high = float(borders[0]), float(borders[-1])
    size = SIZE

    def at(alpha: float) -> float:
        return round(size * (alpha - low) / (high - low), 2)

    whole = range(int(np.ceil(low)), int(np.floor(high)) + 1)
    ticks = [v for v in whole if len(whole) <= 7 or v % 2 == 0]
    marks = "".join(
        f'<text x="{at(v)}" y="{size + 15}" text-anchor="middle">{_minus(v)}</text>'
        f'<text x="-5" y="{size - at(v) + 4.5}" text-anchor="end">{_minus(v)}</text>'
        for v in ticks
    )
    box = ""
    if pair.search_box is not None:
        first, last = (min(high, max(low, x)) for x in pair.search_box)
        place = (
            f'x="{at(first)}" y="{size - at(last)}" width="{at(last) - at(first):.2f}" '
            f'height="{at(last) - at(first):.2f}"'
        )
        box = f'<rect class="box halo" {place}/><rect class="box" {place}/>'
    return (
        f'<svg viewBox="-42 -6 {size + 50} {size + 44}" role="img" aria-label="{described} of {a} '
        f'and {b} with the present point"><image class="field" width="{size}" height="{size}" '
        f'preserveAspectRatio="none"/><path class="contour"/>{box}{marks}'
        f'<text x="{size / 2}" y="{size + 33}" text-anchor="middle">α of {a}</text>'
        f'<text transform="translate(-30 {size / 2}) rotate(-90)" text-anchor="middle">α of {b}'
        '</text><g class="cross"><path class="halo" d="M-9 0H9M0 -9V9"/><path d="M-9 0H9M0 -9V9"/>'
        '<circle r="4.5"/></g></svg>'
    )


def _minus(value: float) -> str:
    return f"{value:g}".replace("-", "−")

"""The live explorer's part of the page: its controls, and its arrays as text."""

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from linearize.report.compare import maps
from linearize.report.compare.logits import TaskLogits
from linearize.report.compare.results import PairMap, Results
from linearize.report.node import Floats
from linearize.report.style import shorten

STEP = 0.05
MAP_SIZE = 200


def slider_range(results: Results) -> tuple[float, float]:
    """The sliders' range: that of the error maps, [−1, 2] where there is none."""
    if not results.maps:
        return -1.0, 2.0
    low = min(float(m.alphas[0]) for m in results.maps)
    high = max(float(m.alphas[-1]) for m in results.maps)
    return min(low, 0.0), max(high, 1.0)


def payload(results: Results, tasks: Sequence[TaskLogits]) -> dict[str, Any]:
    """What the page's script reads; arrays are base64 of little-endian float32 and uint16."""
    low, high = slider_range(results)
    return {
        "tasks": [
            {
                "name": task.name,
                "examples": task.logits0.shape[0],
                "classes": task.logits0.shape[1],
                "logits0": _base64(task.logits0, "<f4"),
                "dlogits": _base64(task.dlogits, "<f4"),
                "labels": _base64(task.labels, "<u2"),
            }
            for task in tasks
        ],
        "range": [low, high],
        "step": STEP,
        "best": [best_alpha(results)] * len(tasks),
        "maps": [
            {
                "a": results.tasks.index(m.tasks[0]),
                "b": results.tasks.index(m.tasks[1]),
                "alphas": m.alphas.tolist(),
                "low": float(maps.edges(m.alphas)[0]),
                "high": float(maps.edges(m.alphas)[-1]),
                "size": MAP_SIZE,
                "values": _base64(m.total[results.shown][0], "<f4"),
            }
            for m in _explored_maps(results)
        ],
    }


def best_alpha(results: Results) -> float:
    """The first seed's α of the addition, chosen on validation data; 0 if unknown."""
    added = results.addition.get(results.shown)
    if added is None or added.alpha is None or not np.isfinite(added.alpha[0]):
        return 0.0
    return float(added.alpha[0])


def _negation_alpha(results: Results, t: int) -> float:
    """The coefficient that subtracts task t's vector, within the sliders' range."""
    negated = results.negation.get(results.shown)
    alpha = -1.0
    if negated is not None and negated.alpha is not None and np.isfinite(negated.alpha[0, t]):
        alpha = -abs(float(negated.alpha[0, t]))
    return max(slider_range(results)[0], alpha)


def section(results: Results, tasks: Sequence[TaskLogits]) -> str:
    """The explorer's HTML, its data included; the script is added by the page."""
    low, high = slider_range(results)
    best = best_alpha(results)
    T = len(tasks)
    regime, named = (
        html.escape(call(results.shown)) for call in (results.look.inline, results.look.label)
    )
    data = json.dumps(payload(results, tasks), separators=(",", ":")).replace("<", "\\u003c")
    sizes = sorted({task.logits0.shape[0] for task in tasks})
    n = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}"
    rows = "".join(_row(results, t, low, high) for t in range(T))
    shown = _explored_maps(results)
    figures = "".join(_map(i, m, results.shown) for i, m in enumerate(shown))
    beside = ""
    if shown:
        beside = (
            '<div class="maps"><h3>Where this point lies on the error maps</h3>'
            f'<div class="map-grid">{figures}</div>'
            f'<p class="caption">{named} regime, first seed; light is disentangled. A '
            "map holds the other tasks’ coefficients at 0; ξ is read at the nearest grid point. "
            "Red box: the search space. Click or drag on a map to move two sliders.</p></div>"
        )
    return f"""
<div id="explorer" style="--zero: {-low / (high - low):.4f}" hidden>
<div class="totals">
<div><b id="explorer-mean"></b><span>mean accuracy</span></div>
<div><b id="explorer-gain"></b><span>points over pre-trained</span></div>
<div><b id="explorer-normalized"></b><span>normalized</span></div>
</div>
<div class="buttons" role="group" aria-label="Settings">
{_button("Pre-trained (all 0)", [0.0] * T)}
{_button(f"Best α = {best:.2f}", [best] * T) if best else ""}
{_button("α = 1", [1.0] * T)}
</div>
<div class="columns">
<div class="sliders">
<div class="task all"><label for="alpha-all">All tasks</label>
<input id="alpha-all" type="range" min="{low:g}" max="{high:g}" step="{STEP}">
<output id="alpha-all-value" for="alpha-all"></output></div>
{rows}
<p class="key"><span><i class="mark before"></i> pre-trained</span>
<span><i class="mark alone"></i> single task, {regime} (its own α = 1, the others 0)</span></p>
<p id="explorer-note" class="caption" role="status"></p>
</div>
{beside}
</div>
<p id="explorer-live" class="unseen" aria-live="polite"></p>
</div>
<noscript><p>The explorer needs JavaScript; all else on this page does not.</p></noscript>
<p class="caption">Every accuracy is recomputed from the cached logits of {n} test examples a task
(seed {results.seeds[0]}): the linearized model is affine in α, so nothing is approximated. The
address keeps the state: copy it to share a setting.</p>
<script type="application/json" id="explorer-data">{data}</script>
"""


def _row(results: Results, t: int, low: float, high: float) -> str:
    name = html.escape(results.tasks[t])
    T = len(results.tasks)
    alone = [float(k == t) for k in range(T)]
    negated = [_negation_alpha(results, t) if k == t else 0.0 for k in range(T)]
    return (
        f'<div class="task" data-task-index="{t}"><label for="alpha-{t}" title="{name}">{name}'
        f'</label><input id="alpha-{t}" type="range" min="{low:g}" max="{high:g}" step="{STEP}">'
        f'<output for="alpha-{t}"></output><div class="meter"><div class="bar" role="meter" '
        f'aria-label="accuracy on {name} in percent" aria-valuemin="0" aria-valuemax="100">'
        '<div class="fill"></div><i class="mark before"></i><i class="mark alone"></i></div>'
        f'<span class="accuracy"></span></div><div class="small buttons">'
        f"{_button('only', alone, f'only {name}: its α = 1, the others 0')}"
        f"{_button('negate', negated, f'negate {name}: its α = {min(negated):.2f}, the others 0')}"
        "</div></div>"
    )


def _button(text: str, alphas: list[float], described: str = "") -> str:
    label = f' aria-label="{described}" title="{described}"' if described else ""
    return f"<button type=\"button\" data-set='{json.dumps(alphas)}'{label}>{text}</button>"


def _explored_maps(results: Results) -> list[PairMap]:
    return [m for m in results.maps if results.shown in m.total]


def _map(index: int, pair: PairMap, method: str) -> str:
    a, b = (html.escape(shorten(t, 20)) for t in pair.tasks)
    borders = maps.edges(pair.alphas)
    low, high = float(borders[0]), float(borders[-1])
    total = pair.total[method][0]
    upper = maps.upper_limit(pair)
    size = MAP_SIZE

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
        f'<figure data-map-index="{index}">'
        f'<svg viewBox="-42 -6 {size + 50} {size + 44}" role="img" '
        f'aria-label="Error map of {a} and {b} with the present point">'
        f'<image class="field" width="{size}" height="{size}" preserveAspectRatio="none" '
        f'href="{_map_image(total, borders, upper)}"/>{box}{marks}'
        f'<text x="{size / 2}" y="{size + 33}" text-anchor="middle">α of {a}</text>'
        f'<text transform="translate(-30 {size / 2}) rotate(-90)" text-anchor="middle">α of {b}'
        '</text><g class="cross"><path class="halo" d="M-9 0H9M0 -9V9"/><path d="M-9 0H9M0 -9V9"/>'
        '<circle r="4.5"/></g></svg>'
        f'<figcaption>ξ ≈ <b class="error"></b>{_most(pair)}</figcaption></figure>'
    )


def _most(pair: PairMap) -> str:
    return "" if pair.most is None else f" <span>of at most {pair.most:g}</span>"


def map_pixels(total: Floats, borders: Floats, upper: float) -> NDArray[np.uint8]:
    """RGB rows of a map: α of a to the right, α of b upwards, cells sized by their borders.

    Args:
        total: errors of shape (G, G), axes (α of a, α of b).
        borders: of the cells, shape (G + 1,).
        upper: the colour scale's top.
    """
    points = np.linspace(borders[0], borders[-1], 2 * MAP_SIZE + 1)
    cell = np.searchsorted(borders, (points[1:] + points[:-1]) / 2, side="right") - 1
    return np.ascontiguousarray(maps.error_colours(total[np.ix_(cell, cell)].T[::-1], upper))


def _map_image(total: Floats, borders: Floats, upper: float) -> str:
    """The map as a PNG in a data address."""
    out = io.BytesIO()
    Image.fromarray(map_pixels(total, borders, upper)).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _minus(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _base64(array: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes()).decode()

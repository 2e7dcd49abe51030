"""The live explorer's part of the page: its controls, and its arrays as text."""

import base64
import html
import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from linearize.report.compare import live
from linearize.report.compare.logits import TaskLogits
from linearize.report.compare.results import PairMap, Results
from linearize.report.stats import mean_phrase
from linearize.report.style import CSS_NAMES

STEP = 0.05


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
                "logits0": live.packed(task.logits0, "<f4"),
                "dlogits": [live.packed(along, "<f4") for along in task.dlogits.values()],
                "labels": live.packed(task.labels, "<u2"),
                "shown": task.shown.tolist(),
                "classNames": _class_names(results, task),
            }
            for task in tasks
        ],
        "regimes": [_regime(results, m, list(tasks[0].dlogits)) for m in regimes(results)],
        "range": [low, high],
        "step": STEP,
        "best": [best_alpha(results)] * len(tasks),
    }


def regimes(results: Results) -> list[str]:
    """The methods that are shown at the same coefficients."""
    found = {results.shown, *filter(results.regime, results.single)}
    return results.look.ordered(found)


def _regime(results: Results, method: str, computed: list[str]) -> dict[str, Any]:
    """How the script knows a method at a point: by its class scores, or where it was measured."""
    colour = results.look.colour(method)
    at_hand = method in computed
    return {
        "key": method,
        "label": results.look.label(method),
        "colour": f"var(--{CSS_NAMES[colour]})" if colour in CSS_NAMES else colour,
        "live": computed.index(method) if at_hand else None,
        "points": [] if at_hand else measured_points(results, method),
        "single": None if at_hand else results.single[method][0].tolist(),
    }


def measured_points(results: Results, method: str) -> list[dict[str, Any]]:
    """The first seed's test metrics with all vectors at one α, by α: (T,) each."""
    found = {0.0: results.pretrained[0]}
    added = results.addition.get(method)
    if added is not None:
        if added.sweep_test is not None:
            found |= dict(zip(results.alphas.tolist(), added.sweep_test[0], strict=True))
        if added.full is not None:
            found[1.0] = added.full[0]
        if added.alpha is not None and np.isfinite(added.alpha[0]):
            found[float(added.alpha[0])] = added.accuracy[0]
    return [{"alpha": alpha, "values": found[alpha].tolist()} for alpha in sorted(found)]


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
    sizes = sorted({task.logits0.shape[0] for task in tasks})
    n = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}"
    rows = "".join(_row(results, t, task, low, high) for t, task in enumerate(tasks))
    shown = [pair for pair in results.maps if pair.total]
    figures = "".join(_map(i, pair) for i, pair in enumerate(shown))
    beside = ""
    if shown:
        beside = (
            '<div class="maps"><h3>Where this point lies on the error maps</h3>'
            f'<div class="map-grid">{figures}</div>'
            '<p class="caption">Of the method that is chosen above; light is disentangled.'
            f"{mean_phrase(results.seeds)} A "
            "map holds the other tasks’ coefficients at 0; ξ is read at the nearest grid point. "
            "Red box: the search space. Click or drag on a map to move two sliders.</p></div>"
        )
    few = _few(results, tasks)
    samples = (
        " Below each slider: test images, four that the task’s own vector at α = 1 sets right "
        "where there are, and what the edited model takes them for."
    ) * any(len(task.shown) for task in tasks)
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
{_every(results, tasks)}
<div class="columns">
<div class="sliders">
<div class="task all"><label for="alpha-all">All tasks</label>
<input id="alpha-all" type="range" min="{low:g}" max="{high:g}" step="{STEP}">
<output id="alpha-all-value" for="alpha-all"></output></div>
{rows}
<p class="key"><span><i class="mark before"></i> pre-trained</span>
<span><i class="mark alone"></i> single task (its own α = 1, the others 0)</span></p>
<p id="explorer-note" class="caption" role="status"></p>
</div>
{beside}
</div>
<p id="explorer-live" class="unseen" aria-live="polite"></p>
</div>
<noscript><p>The explorer needs JavaScript; all else on this page does not.</p></noscript>
<p class="caption">Where a method can be chosen, every accuracy is recomputed from the cached logits
of {n} test examples a task (seed {results.seeds[0]}): its model is affine in α, so nothing is
approximated. The others are shown where the run measured them, on all test examples{few}.{samples}
The address keeps the coefficients, and so do this page’s links: copy one to share a setting.</p>
{live.script("explorer-data", payload(results, tasks))}
"""


def _few(results: Results, tasks: Sequence[TaskLogits]) -> str:
    """At which α they are known, where the run measured no sweep of test data."""
    told = []
    for m in regimes(results):
        added = results.addition.get(m)
        if m in tasks[0].dlogits or (added is not None and added.sweep_test is not None):
            continue
        *first, last = (f"{point['alpha']:.2f}" for point in measured_points(results, m))
        known = f"{', '.join(first)} and {last}".removeprefix(" and ").replace("-", "−")
        told.append(f"{html.escape(results.look.label(m))} at α = {known} alone")
    return f": {'; '.join(told)}, of which the row shows the nearest" * bool(told)


def _every(results: Results, tasks: Sequence[TaskLogits]) -> str:
    """A row a method at the sliders' coefficients; those that are computed may be chosen."""
    heads = ("Mean", *results.tasks, "Normalized")
    columns = "".join(f'<th scope="col" class="number">{html.escape(h)}</th>' for h in heads)
    body = "".join(
        f'<tr data-regime="{i}"><th scope="row">{_chosen(results, i, m, tasks[0])}</th>'
        f'{len(heads) * "<td class=number></td>"}<td class="how"></td></tr>'
        for i, m in enumerate(regimes(results))
    )
    return (
        '<div class="scroll" role="region" tabindex="0" aria-label="Every method at these α">'
        '<table class="regimes"><caption>Test accuracy of every method at these α, in %</caption>'
        f'<thead><tr><th scope="col">Method</th>{columns}<th scope="col">How</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _chosen(results: Results, i: int, method: str, task: TaskLogits) -> str:
    label = html.escape(results.look.label(method))
    if method not in task.dlogits:
        return label
    checked = " checked" * (method == next(iter(task.dlogits)))
    return (
        f'<label for="regime-{i}"><input type="radio" id="regime-{i}" name="regime" value="{i}"'
        f"{checked}> {label}</label>"
    )


def _row(results: Results, t: int, task: TaskLogits, low: float, high: float) -> str:
    name = html.escape(results.tasks[t])
    T = len(results.tasks)
    alone = [float(k == t) for k in range(T)]
    negated = [_negation_alpha(results, t) if k == t else 0.0 for k in range(T)]
    samples = "".join(
        f'<figure><img src="{_image(pixels)}" alt="{html.escape(label)}" '
        f'title="{html.escape(label)}"><figcaption><span data-sample="{k}"></span></figcaption>'
        "</figure>"
        for k, (pixels, label) in enumerate(zip(task.images, _labels(results, task), strict=True))
    )
    return (
        f'<div class="task" data-task-index="{t}"><label for="alpha-{t}" title="{name}">{name}'
        f'</label><input id="alpha-{t}" type="range" min="{low:g}" max="{high:g}" step="{STEP}">'
        f'<output for="alpha-{t}"></output><div class="meter"><div class="bar" role="meter" '
        f'aria-label="accuracy on {name} in percent" aria-valuemin="0" aria-valuemax="100">'
        '<div class="fill"></div><i class="mark before"></i><i class="mark alone"></i></div>'
        f'<span class="accuracy"></span></div><div class="small buttons">'
        f"{_button('only', alone, f'only {name}: its α = 1, the others 0')}"
        f"{_button('negate', negated, f'negate {name}: its α = {min(negated):.2f}, the others 0')}"
        f"</div>{samples and f'<div class=samples>{samples}</div>'}</div>"
    )


def _class_names(results: Results, task: TaskLogits) -> list[str]:
    """What the classes of shown examples are called."""
    if not len(task.shown):
        return []
    return list(results.classes.get(task.name) or map(str, range(task.logits0.shape[1])))


def _labels(results: Results, task: TaskLogits) -> list[str]:
    names = _class_names(results, task)
    return [f"{task.name}: {names[task.labels[e]]}" for e in task.shown]


def _image(pixels: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()


def _button(text: str, alphas: list[float], described: str = "") -> str:
    label = f' aria-label="{described}" title="{described}"' if described else ""
    return f"<button type=\"button\" data-set='{json.dumps(alphas)}'{label}>{text}</button>"


def _map(index: int, pair: PairMap) -> str:
    return (
        f'<figure data-map-index="{index}">{live.panel(pair, "Error map")}'
        f'<figcaption>ξ ≈ <b class="error"></b>{_most(pair)}</figcaption></figure>'
    )


def _most(pair: PairMap) -> str:
    return "" if pair.most is None else f" <span>of at most {pair.most:g}</span>"

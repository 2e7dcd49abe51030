"""One self-contained page: figures, tables and the live explorer, without a network."""

import html
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from linearize.report import explorer, tables
from linearize.report.plots import Plot
from linearize.report.results import Results, TaskLogits
from linearize.report.stats import over_seeds
from linearize.report.style import CSS_NAMES, REGIMES, label, ordered

HERE = Path(__file__).parent


def render(
    results: Results,
    plots: Sequence[Plot],
    svgs: dict[str, tuple[str, str]],
    task_logits: Sequence[TaskLogits] | None,
) -> str:
    """The page's HTML.

    Args:
        results: the run's results.
        plots: its figures, in reading order.
        svgs: by figure name, the desktop's and the phone's SVG.
        task_logits: the explorer's arrays; None leaves the explorer out, and says so.
    """
    figures = {p.name: _figure(p, *svgs[p.name]) for p in plots}
    shown = {t.name: t.html() for t in tables.all_tables(results)}
    both = {name: [figures.get(name, ""), shown.get(name, "")] for name in ("addition", "negation")}
    sections = [
        ("summary", "In short", [_sentence(results), shown["summary"]]),
        ("explore", "Live explorer", [_explorer(results, task_logits)]),
        ("maps", "Error maps", _starting(figures, "error_map") + _starting(shown, "error_maps")),
        ("addition", "Addition", both["addition"]),
        ("sweeps", "Accuracy along α", _starting(figures, "alpha_sweeps")),
        ("negation", "Negation", both["negation"]),
        ("scatter", "Linearized against non-linear", _starting(figures, "single_task_scatter")),
        (
            "tasks",
            "Task by task",
            [
                shown["tasks"],
                figures.get("single_task", ""),
                shown.get("single", ""),
                figures.get("addition_by_task", ""),
                *_starting(shown, "addition_by_task"),
                figures.get("negation_by_task", ""),
                *_starting(shown, "negation_"),
            ],
        ),
        ("claims", "Claims of the papers", _starting(shown, "claims")),
        (
            "cosine",
            "Angles between task vectors",
            _starting(figures, "cosine") + _starting(shown, "cosine_"),
        ),
        ("configuration", "Configuration and versions", [_configuration(results)]),
    ]
    kept = [(key, title, parts) for key, title, parts in sections if any(parts)]
    links = "".join(f'<li><a href="#{key}">{html.escape(title)}</a></li>' for key, title, _ in kept)
    body = "".join(
        f'<section aria-labelledby="{key}"><h2 id="{key}">{html.escape(title)}</h2>'
        f"{''.join(parts)}</section>"
        for key, title, parts in kept
    )
    script = ""
    if task_logits is not None:
        code = "".join(
            (HERE / name).read_text("utf-8") for name in ("arithmetic.js", "explorer.js")
        )
        script = f"<script>{code}</script>"
    title = f"Task arithmetic in three regimes: {html.escape(results.preset)}"
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{(HERE / "page.css").read_text("utf-8")}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="lead">{_lead(results)}</p>
{_facts(results)}
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>{body}</main>
<footer>After Ilharco et al., <cite>Editing Models with Task Arithmetic</cite> (ICLR 2023,
arXiv 2212.04089), and Ortiz-Jimenez et al., <cite>Task Arithmetic in the Tangent Space</cite>
(NeurIPS 2023, arXiv 2305.12827). Made by linearize from results.json; figures and tables lie beside
this page as PNG, SVG, Markdown and CSV.</footer>
{script}
</body>
</html>
"""


def _starting(parts: dict[str, str], prefix: str) -> list[str]:
    return [part for name, part in parts.items() if name.startswith(prefix)]


def _figure(plot: Plot, wide: str, narrow: str) -> str:
    drawings = _inline(plot, wide, "wide") + _inline(plot, narrow, "narrow")
    return (
        f'<figure id="figure-{plot.name}"><h3>{html.escape(plot.title)}</h3>{drawings}'
        f"<figcaption>{html.escape(plot.caption)}</figcaption></figure>"
    )


def _inline(plot: Plot, svg: str, layout: str) -> str:
    """An SVG to stand in HTML: own ids, the page's colours, a label instead of metadata."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    own = f"{plot.name}-{layout}-"
    svg = re.sub(r'\bid="', f'id="{own}', svg)
    svg = re.sub(r'href="#', f'href="#{own}', svg)
    svg = svg.replace("url(#", f"url(#{own}")
    svg = re.sub(
        r"#[0-9a-f]{6}\b",
        lambda m: f"var(--{CSS_NAMES[m[0]]})" if m[0] in CSS_NAMES else m[0],
        svg,
    )
    head = f'<svg class="plot {layout}" role="img" aria-label="{html.escape(plot.alt)}"'
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    return re.sub(r"\s*\n\s*", " ", svg.replace("<svg", head, 1))


def _lead(results: Results) -> str:
    tasks, seeds = len(results.tasks), len(results.seeds)
    model = html.escape(str(results.model.get("name", "One model")))
    many = "one seed" if seeds == 1 else f"{seeds} seeds"
    return (
        f"{model}, fine-tuned on {tasks} task{'s' * (tasks > 1)} with {many}; its task vectors "
        "added, negated and mapped in three regimes: the model itself, its linearization after "
        "the fact, and its linearization from the start."
    )


def _facts(results: Results) -> str:
    model = results.model
    facts = [("Preset", results.preset), ("Model", model.get("name"))]
    if model.get("parameters") is not None:
        facts.append(("Parameters", f"{int(model['parameters']):,}"))
    if model.get("image_size") is not None:
        facts.append(("Image size", f"{model['image_size']} px"))
    facts.append(("Tasks", ", ".join(results.tasks)))
    facts.append(("Seeds", ", ".join(map(str, results.seeds))))
    if results.seconds is not None:
        facts.append(("Time", duration(results.seconds)))
    items = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in facts
        if value is not None
    )
    return f'<dl class="run">{items}</dl>'


def duration(seconds: float) -> str:
    """A span of time in its two largest units.

    >>> duration(251.3), duration(7384), duration(8.4)
    ('4 min 11 s', '2 h 3 min', '8 s')
    """
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _sentence(results: Results) -> str:
    """What the run shows, in one or two sentences, from its numbers alone."""
    regimes = [m for m in ordered(dict(results.addition)) if m in REGIMES]
    before = f"the pre-trained model’s {_percent(results.pretrained)}"
    if not regimes:
        return f"<p>Compared with {before}.</p>"
    level = {m: _percent(results.addition[m].accuracy) for m in regimes}
    text = (
        f"All {len(results.tasks)} task vectors added, the mean test accuracy is "
        f"{_join(f'<b>{level[m]}</b> ({label(m).lower()})' for m in regimes)}, against {before}."
    )
    negated = [m for m in regimes if m in results.negation]
    if negated:
        level = {m: _percent(results.negation[m].target) for m in negated}
        text += (
            " Subtracted one at a time, they leave their own task at "
            f"{_join(f'<b>{level[m]}</b> ({label(m).lower()})' for m in negated)}."
        )
    return f'<p class="lead">{text}</p>'


def _percent(values: np.ndarray) -> str:
    mean, half = (100 * float(x) for x in over_seeds(values.mean(-1)))
    text = f"{mean:.1f} %" if not np.isfinite(half) else f"{mean:.1f} ± {half:.1f} %"
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _join(parts: Iterable[str]) -> str:
    items = list(parts)
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _explorer(results: Results, task_logits: Sequence[TaskLogits] | None) -> str:
    if task_logits is None:
        return (
            '<p class="notice">This run has no explorer.npz, so the live explorer is left out. '
            "Run the experiment again to get it.</p>"
        )
    what = (
        "<p>Move the sliders: each task vector of the linear regime enters with its own "
        "coefficient α, and every task’s true accuracy is recomputed here, in the page.</p>"
    )
    return what + explorer.section(results, task_logits)


def _configuration(results: Results) -> str:
    def block(title: str, value: object) -> str:
        text = html.escape(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        return f"<details><summary>{title}</summary><pre>{text}</pre></details>"

    classes = {task: list(names) for task, names in results.classes.items()}
    return (
        block("Configuration", results.config)
        + block("Versions", results.versions)
        + block("Model", results.model)
        + (block("Class names", classes) if classes else "")
    )

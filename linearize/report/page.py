"""One self-contained page: figures, tables and what an experiment adds, without a network."""

import html
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from linearize.report import terminal
from linearize.report.node import Node
from linearize.report.plot import Plot
from linearize.report.style import CSS_NAMES
from linearize.report.table import Table

HERE = Path(__file__).parent

TASK_ARITHMETIC = """After Ilharco et al., <cite>Editing Models with Task Arithmetic</cite> (ICLR
2023, arXiv 2212.04089), and Ortiz-Jimenez et al., <cite>Task Arithmetic in the Tangent Space</cite>
(NeurIPS 2023, arXiv 2305.12827)."""


@dataclass(frozen=True)
class Section:
    """A part of a page; one without parts is left out."""

    key: str
    title: str
    parts: tuple[Plot | Table | str, ...]
    """Figures, tables, and HTML."""


@dataclass(frozen=True)
class Page:
    """What a run shows; its figures and tables are files too."""

    title: str
    lead: str
    facts: tuple[tuple[str, str], ...]
    """Names and values below the lead."""
    sections: tuple[Section, ...]
    headlines: tuple[str, ...] | None = None
    """Names of the tables to print in a terminal; all where None."""
    script: str = ""
    sources: str = TASK_ARITHMETIC
    """The papers, as HTML, for the page's foot."""

    @property
    def plots(self) -> list[Plot]:
        """The figures in reading order."""
        return [part for part in self._parts() if isinstance(part, Plot)]

    @property
    def tables(self) -> list[Table]:
        """The tables in reading order."""
        return [part for part in self._parts() if isinstance(part, Table)]

    def print(self, console: Console | None = None) -> None:
        """Print the main tables to a terminal; the others are in the files and on the page."""
        console = console or terminal.console()
        for table in self.tables:
            if self.headlines is None or table.name in self.headlines:
                table.print(console)

    def _parts(self) -> Iterator[Plot | Table | str]:
        for section in self.sections:
            yield from section.parts


Reader = Callable[[Node, Path], Page]
"""Of checked results and their run directory, the page."""


def render(page: Page, svgs: Mapping[str, tuple[str, str]]) -> str:
    """The page's HTML.

    Args:
        page: its parts.
        svgs: by figure name, the desktop's and the phone's SVG; a figure without is left out.
    """
    shown = {
        section: [html_ for part in section.parts if (html_ := _part(part, svgs))]
        for section in page.sections
    }
    kept = {section: parts for section, parts in shown.items() if parts}
    links = "".join(f'<li><a href="#{s.key}">{html.escape(s.title)}</a></li>' for s in kept)
    body = "".join(
        f'<section aria-labelledby="{s.key}"><h2 id="{s.key}">{html.escape(s.title)}</h2>'
        f"{''.join(parts)}</section>"
        for s, parts in kept.items()
    )
    items = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in page.facts
    )
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
<title>{html.escape(page.title)}</title>
<style>{(HERE / "page.css").read_text("utf-8")}</style>
</head>
<body>
<header>
<h1>{html.escape(page.title)}</h1>
<p class="lead">{html.escape(page.lead)}</p>
<dl class="run">{items}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>{body}</main>
<footer>{page.sources} Made by linearize from results.json; figures and tables lie beside this page
as PNG, SVG, Markdown and CSV.</footer>
{f"<script>{page.script}</script>" if page.script else ""}
</body>
</html>
"""


def _part(part: Plot | Table | str, svgs: Mapping[str, tuple[str, str]]) -> str:
    if isinstance(part, Table):
        return part.html()
    if isinstance(part, Plot):
        return _figure(part, *svgs[part.name]) if part.name in svgs else ""
    return part


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


def facts(
    preset: str,
    model: Mapping[str, Any],
    tasks: Sequence[str],
    seeds: Sequence[int],
    seconds: float | None,
) -> tuple[tuple[str, str], ...]:
    """What every run says of itself below the lead; what is not known is left out."""
    known = [("Preset", preset), ("Model", model.get("name"))]
    if model.get("parameters") is not None:
        known.append(("Parameters", f"{int(model['parameters']):,}"))
    if model.get("image_size") is not None:
        known.append(("Image size", f"{model['image_size']} px"))
    known += [("Tasks", ", ".join(tasks) or None), ("Seeds", ", ".join(map(str, seeds)))]
    if seconds is not None:
        known.append(("Time", duration(seconds)))
    return tuple((name, str(value)) for name, value in known if value is not None)


def facts_of(node: Node, tasks: Sequence[str], seeds: Sequence[int]) -> tuple[tuple[str, str], ...]:
    """The same, of a run's result file."""
    seconds = node.optional("seconds", ())
    time = None if seconds is None else float(seconds)
    return facts(str(node.get("preset")), node.mapping("model"), tasks, seeds, time)


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


def configuration(blocks: Mapping[str, object]) -> str:
    """Folded blocks of JSON, by title; empty ones are left out."""

    def block(title: str, value: object) -> str:
        text = html.escape(json.dumps(value, indent=2, ensure_ascii=False, default=str))
        return f"<details><summary>{title}</summary><pre>{text}</pre></details>"

    return "".join(block(title, value) for title, value in blocks.items() if value)


def configuration_of(node: Node) -> Section:
    """The last section of a page: configuration, versions and model of a run."""
    blocks = {
        "Configuration": node.mapping("config"),
        "Versions": node.mapping("versions"),
        "Model": node.mapping("model"),
    }
    return Section("configuration", "Configuration and versions", (configuration(blocks),))

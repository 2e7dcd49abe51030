"""One self-contained page: figures, tables and what an experiment adds, without a network."""

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TypeVar

from rich.console import Console

from linearize.report import schema, terminal
from linearize.report.node import Node
from linearize.report.plot import Plot
from linearize.report.section import Section as Section
from linearize.report.style import CSS_NAMES
from linearize.report.table import Table

R = TypeVar("R")

HERE = Path(__file__).parent

TASK_ARITHMETIC = """After Ilharco et al., <cite>Editing Models with Task Arithmetic</cite> (ICLR
2023, arXiv 2212.04089), and Ortiz-Jimenez et al., <cite>Task Arithmetic in the Tangent Space</cite>
(NeurIPS 2023, arXiv 2305.12827)."""


@dataclass(frozen=True)
class Page:
    """What a run shows; its figures and tables are files too."""

    title: str
    lead: str
    """Paragraphs, a line each: what the run shows, where a sentence says it, and of what."""
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

    @property
    def paragraphs(self) -> list[str]:
        """The lead's."""
        return self.lead.splitlines()

    def _parts(self) -> Iterator[Plot | Table | str]:
        for section in self.sections:
            yield from section.parts


Reader = Callable[[Node, Path], Page]
"""Of checked results and their run directory, the page."""


def shows(kind: type[R]) -> Callable[[Callable[[R], Page]], Reader]:
    """Of a page of results of such a kind, what reads a run directory's and makes it.

    That raises a ResultsError where the results do not fit the kind.
    """

    def reader(page: Callable[[R], Page]) -> Reader:
        @wraps(page)
        def read(results: Node, run_dir: Path) -> Page:
            return page(schema.read(kind, results))

        return read

    return reader


def render(page: Page, svgs: Mapping[str, tuple[str, str]]) -> str:
    """The page's HTML.

    Args:
        page: its parts.
        svgs: by figure name, the desktop's and the phone's SVG; a figure without is left out.
    """
    glyphs: dict[str, str] = {}
    shown = {
        section: [html_ for part in section.parts if (html_ := _part(part, svgs, glyphs))]
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
    lead = "".join(f'<p class="lead">{html.escape(each)}</p>' for each in page.paragraphs)
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
{lead}
<dl class="run">{items}</dl>
<nav aria-label="Sections"><ul>{links}</ul></nav>
</header>
<main>{body}</main>
<footer>{page.sources} Made by linearize from results.json; figures and tables lie beside this page
as PNG, SVG, Markdown and CSV.</footer>
<svg class="glyphs" aria-hidden="true"><defs>{"".join(glyphs.values())}</defs></svg>
<script>{(HERE / "page.js").read_text("utf-8")}{page.script}</script>
</body>
</html>
"""


def _part(
    part: Plot | Table | str, svgs: Mapping[str, tuple[str, str]], glyphs: dict[str, str]
) -> str:
    if isinstance(part, Table):
        return part.html()
    if isinstance(part, Plot):
        return _figure(part, *svgs[part.name], glyphs) if part.name in svgs else ""
    return part


def _figure(plot: Plot, wide: str, narrow: str, glyphs: dict[str, str]) -> str:
    drawings = _inline(plot, wide, "wide", glyphs) + _inline(plot, narrow, "narrow", glyphs)
    return (
        f'<figure id="figure-{plot.name}"><h3>{html.escape(plot.title)}</h3>{drawings}'
        f"<figcaption>{html.escape(plot.caption)} "
        f'<button type="button" class="get" data-figure="{plot.name}" hidden>SVG</button>'
        "</figcaption></figure>"
    )


_GLYPH = re.compile(r'<path id="(DejaVuSans[\w-]*)"[^>]*/>')
_PLACES = re.compile(r' d="[^"]*"|translate\([^)]*\)')
_LONG = re.compile(r"-?\d+\.\d{3,}")


def _inline(plot: Plot, svg: str, layout: str, glyphs: dict[str, str]) -> str:
    """An SVG to stand in HTML: own ids, the page's colours, a label instead of metadata.

    Letters are drawn once a page: they move to ``glyphs``, by id, where figures refer to them.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    glyphs |= {found[1]: found[0] for found in _GLYPH.finditer(svg)}
    svg = _GLYPH.sub("", svg)
    svg = _PLACES.sub(lambda places: _LONG.sub(_shorter, places[0]), svg)
    named = set(re.findall(r'(?:href="|url\()#([^")]*)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in named else "", svg)
    own = f"{plot.name}-{layout}-"
    svg = re.sub(r'\bid="', f'id="{own}', svg)
    svg = re.sub(r'href="#(?!DejaVuSans)', f'href="#{own}', svg)
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


def _shorter(number: re.Match[str]) -> str:
    """A coordinate to a hundredth of a point."""
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")

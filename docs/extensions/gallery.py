"""``.. figures::``: every figure of the results, with the page that tells of it.

A figure that no page of results shows is warned of.
"""

import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

FIGURE = re.compile(r"!\[(.*?)\]\(([^)]+\.png)\)")
HEADING = re.compile(r"^# (.+)$", re.MULTILINE)

log = getLogger(__name__)


class Figures(SphinxDirective):
    """The directive; its argument is a folder, as seen from its page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """One section a page, its figures small and in a row."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        folder = here / self.arguments[0]
        drawn = {path.name for path in folder.glob("*.png")}
        text: list[str] = []
        for page in sorted(folder.glob("*.md")):
            source = page.read_text("utf-8")
            self.env.note_dependency(str(page))
            figures = {name: alt for alt, name in FIGURE.findall(source) if name in drawn}
            if page.name == "README.md" or not figures:
                continue
            heading = HEADING.search(source)
            to = os.path.relpath(page, here)
            text += [
                f"## [{heading[1] if heading else page.stem}]({to})",
                "",
                "::::{container} figures",
            ]
            for name, alt in figures.items():
                to_figure = os.path.relpath(folder / name, here)
                text += [
                    f":::{{figure}} {to_figure}",
                    f":target: {to}",
                    f":alt: {alt}",
                    "",
                    alt,
                    ":::",
                ]
            text += ["::::", ""]
            drawn -= figures.keys()
        for name in sorted(drawn):
            log.warning("no page of results shows the figure %s", name)
        return self.parse_text_to_nodes("\n".join(text), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx asks for it."""
    app.add_directive("figures", Figures)
    return {"parallel_read_safe": True}

"""``.. figures:: FOLDER``: every figure of the results, under the page that tells of it.

Pages come in the order of the table in the folder's ``README.md``, which says what each is. A
figure that no page shows is warned of.
"""

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.logging import getLogger

ROW = re.compile(r"^\| \[\w+\]\((\w+\.md)\) \| (.+?) \|", re.MULTILINE)
FIGURE = re.compile(r"!\[(.*?)\]\(([^)]+\.png)\)")

log = getLogger(__name__)


class Figures(SphinxDirective):
    """The directive; its argument is a folder beside its page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """One section a page, its figures small and in a row."""
        name = self.arguments[0]
        folder = Path(self.env.doc2path(self.env.docname)).parent / name
        left = {path.name for path in folder.glob("*.png")}
        text = []
        for page, what in ROW.findall((folder / "README.md").read_text("utf-8")):
            self.env.note_dependency(str(folder / page))
            shown = {
                figure: alt for alt, figure in FIGURE.findall((folder / page).read_text("utf-8"))
            }
            left -= shown.keys()
            if shown:
                text.append(_section(f"{name}/{page}", what, shown))
        for figure in sorted(left):
            log.warning("no page of the table in %s/README.md shows %s", name, figure)
        return self.parse_text_to_nodes("\n".join(text), allow_section_headings=True)


def _section(page: str, what: str, figures: Mapping[str, str]) -> str:
    folder = Path(page).parent
    lines = [f"## [{Path(page).stem}]({page})", what[0].upper() + what[1:] + ".", ""]
    lines.append("::::{container} figures")
    for figure, alt in figures.items():
        caption = textwrap.shorten(alt, 140, placeholder=" …")
        to = Path(page).with_suffix(".html")
        lines += [f":::{{figure}} {folder / figure}", f":target: {to}", f":alt: {alt}"]
        lines += ["", caption, ":::"]
    return "\n".join([*lines, "::::", ""])


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx asks for it."""
    app.add_directive("figures", Figures)
    return {"parallel_read_safe": True}

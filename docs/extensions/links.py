"""Links of pages to files of the repository, which the site does not hold, lead to the repository.

They are written as GitHub wants them, ``[vision.py](../linearize/data/vision.py)``; one to a file
that is not there is warned of.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")

log = getLogger(__name__)


def lead_out(app: Sphinx, page: str, source: list[str]) -> None:
    """Rewrite a page's links to what is no page and no figure."""
    folder = Path(app.env.doc2path(page)).parent
    shown = Path(app.srcdir)

    def led(match: re.Match[str]) -> str:
        place = (folder / match[1]).resolve()
        if not place.exists():
            log.warning("no such file: %s", match[1], location=page)
        if place.is_relative_to(shown) and (
            place.suffix in (".png", ".svg") or app.env.path2doc(place) in app.env.found_docs
        ):
            return match[0]
        kind = "tree" if place.is_dir() else "blob"
        to = f"{app.config.html_theme_options['source_repository']}{kind}/main"
        return f"]({to}/{place.relative_to(ROOT).as_posix()}{match[2] or ''})"

    source[0] = LINK.sub(led, source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx asks for it."""
    app.connect("source-read", lead_out)
    return {"parallel_read_safe": True}

"""The site builds without a warning and without a network, and works from disk."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built once, in a process of its own; a warning is an error."""
    pytest.importorskip("sphinx")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q"]
    command += ["-d", str(out / "doctrees"), str(ROOT / "docs"), str(out / "html")]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr[-4000:]
    return out / "html"


class Page(HTMLParser):
    """What a page loads, where it leads, and the places on it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads: set[str] = set()
        self.links: set[str] = set()
        self.places: set[str] = set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        if "src" in given:
            self.loads.add(given["src"])
        if tag == "link" and given.get("rel") in ("stylesheet", "preload", "icon"):
            self.loads.add(given["href"])
        elif "href" in given:
            self.links.add(given["href"])


def read(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_link_within_the_site_leads_to_a_place_that_is_there(site: Path) -> None:
    pages = read(site)
    lost = []
    for path, page in pages.items():
        for link in page.links | page.loads:
            to = urlsplit(link)
            if to.scheme in ("http", "https", "data", "mailto"):
                continue
            place = (path.parent / unquote(to.path)).resolve() if to.path else path
            known = place in pages and (
                not to.fragment or unquote(to.fragment) in pages[place].places
            )
            if not (known or (place not in pages and place.is_file())):
                lost.append(f"{path.relative_to(site)}: {link}")
    assert len(pages) > 40
    assert lost == []


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    outside = [
        f"{path.relative_to(site)}: {link}"
        for path, page in read(site).items()
        for link in page.loads
        if urlsplit(link).scheme not in ("", "data") or link.startswith("//")
    ]
    for path in site.rglob("*.css"):
        for link in re.findall(
            r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\")]+)", path.read_text()
        ):
            outside.append(f"{path.relative_to(site)}: {link}")
    assert outside == []


def test_docstrings_became_pages(site: Path) -> None:
    core, ntk = (Page(site / "reference" / f"{name}.html").places for name in ("core", "ntk"))
    assert {"linearize.linearize", "linearize.TaskVector.apply_to"} <= core
    assert "linearize.ntk.fine_tune_exactly" in ntk
    text = (site / "reference" / "core.html").read_text("utf-8")
    assert re.search(r"params0.*?Params", text[text.index('id="linearize.linearize"') :], re.DOTALL)

"""Scripts as pages and as notebooks.

A script begins with a docstring: its first line is the title, the rest an introduction.
``# %% NAME`` begins a part; the comment that follows it is its text. Nothing is run: what the
script printed lies beside it, in a file of its name and the suffix ``.txt``, its figure in one
with ``.png``.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

PART = re.compile(r"^# %% (.+)\n((?:#.*\n)*)", re.MULTILINE)


def parts(script: str) -> Iterator[tuple[str, str]]:
    """Text in Markdown and the code that follows it, from top to bottom."""
    module = ast.parse(script)
    title, _, introduction = (ast.get_docstring(module) or "").partition("\n")
    rest = "\n".join(script.split("\n")[module.body[0].end_lineno :])
    first, *others = PART.split(rest)
    yield f"# {title.removesuffix('.')}\n{introduction}", first.strip()
    for name, comment, code in zip(others[::3], others[1::3], others[2::3], strict=True):
        yield f"## {name}\n\n" + re.sub(r"^# ?", "", comment, flags=re.MULTILINE), code.strip()


def as_page(path: Path) -> str:
    """A script in Markdown."""
    text = []
    for said, code in parts(path.read_text("utf-8")):
        text += [said, f"```python\n{code}\n```" if code else ""]
    if (printed := path.with_suffix(".txt")).exists():
        text += ["## What it prints", f"```text\n{printed.read_text('utf-8')}```"]
    name = path.stem
    text.append(
        f"This page is a script, `python docs/tutorials/{name}.py`, and "
        f'<a href="{name}.ipynb" download>a notebook</a>.'
    )
    return "\n\n".join(text)


def as_notebook(path: Path) -> str:
    """A script as a notebook that was not run yet."""
    cells = []
    for said, code in parts(path.read_text("utf-8")):
        cells.append({"cell_type": "markdown", "metadata": {}, "source": said})
        if code:
            cells.append(
                {"cell_type": "code", "metadata": {}, "source": code}
                | {"outputs": [], "execution_count": None}
            )
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, ensure_ascii=False, indent=1)


class Parser(MystParser):
    """Of Python sources."""

    supported = ("tutorial",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """As the Markdown that the script stands for."""
        super().parse(as_page(Path(document.current_source)), document)


def write_notebooks(app: Sphinx, error: Exception | None) -> None:
    """Beside the pages."""
    for path in sorted(Path(app.srcdir, "tutorials").glob("*.py")) if error is None else ():
        place = Path(app.outdir, "tutorials", f"{path.stem}.ipynb")
        place.write_text(as_notebook(path), "utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx asks for it."""
    app.add_source_suffix(".py", "tutorial")
    app.add_source_parser(Parser)
    app.connect("build-finished", write_notebooks)
    return {"parallel_read_safe": True}

"""Everything that a run directory gets: figures, tables and the page."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path

from matplotlib import rc_context, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from linearize import narration
from linearize.choices import row
from linearize.report import audit, compare
from linearize.report.node import ANEW, ResultsError, read
from linearize.report.page import Page, Reader, render
from linearize.report.style import PAPER, PLAIN
from linearize.written import atomic_write

OWN: Mapping[str, Reader] = {"audit": audit.read, "compare": compare.read}
"""By experiment, what makes a page of its results: the library's."""


def read_page(run_dir: Path | str, pages: Mapping[str, Reader] = OWN) -> Page:
    """The page of a finished run, by the experiment that its results name.

    Args:
        run_dir: of the run.
        pages: by experiment, what makes a page of its results.

    Raises:
        ResultsError: a result file is missing, damaged, or does not fit the schema.
    """
    node, path = read(run_dir), Path(run_dir) / "results.json"
    experiment = str(node.get("experiment", default="compare"))
    if experiment not in pages and pages is OWN:
        raise ResultsError(
            f"{path}: experiment is {experiment!r}, whose page is drawn in a checkout: "
            f"python -m experiments.report {run_dir}"
        )
    try:
        page = row("page", experiment, pages, ResultsError)
    except ResultsError as error:
        raise ResultsError(f"{path}: {error}") from None
    try:
        return page(node, Path(run_dir))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        known = isinstance(error, ResultsError)
        if known and str(error).startswith(str(path.with_name("explorer.npz"))):
            raise
        said = str(error) if known else f"{type(error).__name__}: {error}"
        raise ResultsError(
            f"{path}: {said}; damaged, or not of experiment {experiment!r}: {ANEW}"
        ) from (None if known else error)


def write_all(run_dir: Path | str, pages: Mapping[str, Reader] = OWN) -> Path:
    """Writes figures, tables and the page of a finished run.

    Reads ``results.json`` and, where there is one, ``explorer.npz``; writes ``figures/*.png`` and
    ``*.svg``, ``tables/*.md`` and ``*.csv``, and ``report.html``. Each file is whole or untouched;
    everything is made before the first one is written. Arguments as of :func:`read_page`.

    Returns:
        The path of ``report.html``.

    Raises:
        ResultsError: a result file is missing, damaged, or does not fit the schema.
        OSError: the directory cannot be written.
    """
    run_dir = Path(run_dir)
    page = read_page(run_dir, pages)
    files: dict[Path, bytes | str] = {}
    svgs: dict[str, tuple[str, str]] = {}
    with rc_context(PLAIN), warnings.catch_warnings():
        # a sign that the font lacks is drawn as a box: no reason to lose a run's page
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        for plot in narration.paced(page.plots, "figures"):
            wide, narrow = (_placed(plot.draw(which)) for which in (False, True))
            svg, path = _svg(wide), run_dir / "figures" / plot.name
            files[path.with_name(f"{plot.name}.svg")] = svg
            files[path.with_name(f"{plot.name}.png")] = _png(wide)
            svgs[plot.name] = (svg, _svg(narrow))
    for table in page.tables:
        files[run_dir / "tables" / f"{table.name}.md"] = table.markdown()
        files[run_dir / "tables" / f"{table.name}.csv"] = table.csv()
    report = run_dir / "report.html"
    files[report] = render(page, svgs)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    return report


def _placed(figure: Figure) -> Figure:
    """The figure, its layout solved once for all formats; ``savefig`` would draw it to do so."""
    figure.set_facecolor(PAPER)
    figure.set_dpi(rcParams["savefig.dpi"])
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine("none")
    return figure


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    figure.set_dpi(rcParams["savefig.dpi"])
    FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    return out.getvalue()


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.set_dpi(rcParams["savefig.dpi"])  # writing SVG leaves another
    FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()

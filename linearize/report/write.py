"""Everything that a run directory gets: figures, tables and the page."""

import io
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from linearize.io import atomic_write
from linearize.report import maps, page, plots, tables
from linearize.report.results import Results, load, load_explorer
from linearize.report.style import PAPER, PLAIN


def write_all(run_dir: Path | str) -> Path:
    """Writes figures, tables and the page of a finished run.

    Reads ``results.json`` and, where there is one, ``explorer.npz``; writes ``figures/*.png`` and
    ``*.svg``, ``tables/*.md`` and ``*.csv``, and ``report.html``. Each file is whole or untouched;
    everything is made before the first one is written.

    Returns:
        The path of ``report.html``.

    Raises:
        ResultsError: a result file is missing, damaged, or does not fit the schema.
        OSError: the directory cannot be written.
    """
    run_dir = Path(run_dir)
    results = load(run_dir)
    task_logits = load_explorer(run_dir, results)
    drawings = all_plots(results)
    files: dict[Path, bytes | str] = {}
    svgs: dict[str, tuple[str, str]] = {}
    with rc_context(PLAIN):
        for plot in drawings:
            wide = plot.draw(False)
            svg = files[run_dir / "figures" / f"{plot.name}.svg"] = _save(wide, "svg")
            files[run_dir / "figures" / f"{plot.name}.png"] = _save(wide, "png")
            svgs[plot.name] = (svg.decode(), _save(plot.draw(True), "svg").decode())
    for table in tables.all_tables(results):
        files[run_dir / "tables" / f"{table.name}.md"] = table.markdown()
        files[run_dir / "tables" / f"{table.name}.csv"] = table.csv()
    report = run_dir / "report.html"
    files[report] = page.render(results, drawings, svgs, task_logits)
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
    return report


def all_plots(results: Results) -> list[plots.Plot]:
    """Every figure that the results can fill, in reading order."""
    drawings = []
    if results.single:
        drawings.append(plots.single_task(results))
    if results.addition:
        drawings += [plots.addition(results), plots.addition_tasks(results)]
    if plots.swept(results)[1]:
        drawings += [plots.sweeps(results), plots.sweeps_by_task(results)]
    if results.negation:
        drawings += [plots.negation(results), plots.negation_tasks(results)]
    if "nonlinear" in results.single and {"posthoc", "linear"} & set(results.single):
        drawings.append(plots.scatter(results))
    drawings += [maps.error_map(results, i) for i, m in enumerate(results.maps) if m.total]
    if results.cosine and len(results.tasks) > 1:
        drawings.append(maps.cosine(results))
    return drawings


def _save(figure: Figure, kind: str) -> bytes:
    out = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(out, format=kind, facecolor=PAPER, metadata=metadata)
    figure.set_layout_engine("none")  # placed once: a second format need not solve it again
    return out.getvalue()

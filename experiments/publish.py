"""A finished run's lead, tables and chosen figures as one page under ``docs/results``.

    python -m experiments.publish runs/compare/demo demo --figures error_map_1 alpha_sweeps

Every number on the page is copied from the run's own files; nothing is computed here.
"""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from experiments import report
from experiments.seeds import records_of
from linearize import cli, io
from linearize.config import ConfigError
from linearize.report import node, schema
from linearize.report.run import Run

TABLES = (
    *("summary", "generations", "training", "final", "solutions", "slopes", "by_width", "learning"),
    *("sizes", "coefficients", "certificates", "merges", "numbers", "seeds", "subpopulations"),
    *("sentiment", "perplexity", "kings", "along", "energies", "relation", "pairs"),
    *("single", "addition", "negation", "error_map", "claims", "cosine"),
)
RESULTS = Path("docs/results")


@dataclass(frozen=True)
class Publish:
    """What to copy, and to where."""

    run_dir: tyro.conf.Positional[Path]
    name: tyro.conf.Positional[str]
    figures: tuple[str, ...] = ("alpha_sweeps", "error_map_1")
    """Beginnings of the names of the figures to show."""
    into: Annotated[Path, tyro.conf.arg(name="into")] = RESULTS
    records: bool = False
    """Copy each seed's numbers too, which ``experiments.gather`` lays beside other seeds'."""


def publish(job: Publish) -> Path:
    """Write the page and copy its figures; the page's path is returned.

    Raises:
        ResultsError: the run is not finished, or its results were changed.
        FileNotFoundError: it has no such figure.
        ConfigError: the name is a path.
    """
    if Path(job.name).name != job.name:
        raise ConfigError(f"name is {job.name!r}; expected a page's name, and into= for its folder")
    results = schema.read(Run, node.read(job.run_dir))
    figures = [_one(job.run_dir / "figures", start) for start in job.figures]
    time = ""
    if results.seconds is not None:
        time = f", {results.seconds / 60:.0f} minutes of measuring"
    page = report.read_page(job.run_dir)
    lines = [
        f"# {job.name}",
        "",
        *(line for each in page.paragraphs for line in (_escaped(each), "")),
        f"`python -m experiments.{results.experiment} {results.preset}`, seeds "
        f"{', '.join(map(str, results.seeds))}{time}. Versions: "
        + ", ".join(f"{k} {v}" for k, v in results.versions.items())
        + f". Configuration: [{job.name}.json]({job.name}.json).",
        "",
    ]
    plots = {plot.name: plot for plot in page.plots}
    for figure in figures:
        if figure.stem not in plots:
            raise FileNotFoundError(
                f"{figure} is no figure of this version’s page; draw them anew: "
                f"python -m experiments.report {job.run_dir}"
            )
        plot = plots[figure.stem]
        alt = plot.alt.replace("[", r"\[").replace("]", r"\]")
        lines += [f"![{alt}]({job.name}_{figure.name})", "", f"*{plot.title}.* {plot.caption}", ""]
    shown = {table.name for table in page.tables}  # and no table that another version left
    for table in filter(lambda path: path.stem in shown, _tables(job.run_dir / "tables")):
        lines += [table.read_text().strip(), ""]
    job.into.mkdir(parents=True, exist_ok=True)
    for figure in figures:
        shutil.copyfile(figure, job.into / f"{job.name}_{figure.name}")
    shutil.copyfile(job.run_dir / "config.json", job.into / f"{job.name}.json")
    if job.records:
        _copy_records(job.run_dir, job.into / f"{job.name}_records")
    return io.atomic_write(job.into / f"{job.name}.md", "\n".join(lines))


def _escaped(text: str) -> str:
    """Plain text as Markdown shows it."""
    return re.sub(r"([\\`*\[\]<])", r"\\\1", text)


def _copy_records(run_dir: Path, into: Path) -> None:
    if into.exists():
        shutil.rmtree(into)
    for place, data in records_of(run_dir).items():
        path = into / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(json.loads(data), separators=(",", ":")) + "\n")
    for name in ("config.json", "versions.json"):
        shutil.copyfile(run_dir / name, into / name)


def _tables(folder: Path) -> list[Path]:
    order = {start: i for i, start in enumerate(TABLES)}
    found = sorted(folder.glob("*.md"))
    return sorted(
        found,
        key=lambda p: min(
            (i for s, i in order.items() if p.stem.startswith(s)), default=len(order)
        ),
    )


def _one(folder: Path, start: str) -> Path:
    figures = sorted(folder.glob("*.png"))
    found = [path for path in figures if path.stem.startswith(start)]
    if not found:
        known = ", ".join(path.stem for path in figures)
        raise FileNotFoundError(f"no figure {start}*.png in {folder}; there are: {known}")
    # whole words first: error_map_1 is not error_map_10
    return min(found, key=lambda path: f"{path.stem}_"[len(start)] != "_")


def main() -> None:
    """Parse, copy, say where."""
    with cli.reporting():
        print(publish(tyro.cli(Publish, prog="python -m experiments.publish")))


if __name__ == "__main__":
    main()

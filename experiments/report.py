"""``python -m experiments.report RUN_DIR``: any run's figures, tables and page, made anew."""

import importlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from experiments import listed
from linearize import report
from linearize.report.node import Node

if TYPE_CHECKING:  # pages bring matplotlib, which a run's beginning should not wait for
    from linearize.report.page import Page, Reader


def pages() -> "dict[str, Reader]":
    """By experiment, what makes a page of its results; its module is imported by then."""
    return {name: partial(_page, name) for name in listed()}


def _page(experiment: str, results: Node, run_dir: Path) -> "Page":
    return importlib.import_module(f"experiments.{experiment}.page").read(results, run_dir)


def read_page(run_dir: Path | str) -> "Page":
    """As :func:`linearize.report.read_page`, of any experiment."""
    return report.read_page(run_dir, pages())


def write_all(run_dir: Path | str) -> Path:
    """As :func:`linearize.report.write_all`, of any experiment."""
    return report.write_all(run_dir, pages())


def main(run_dir: tyro.conf.Positional[Path]) -> None:
    """Make a finished run's tables, figures and page anew, and print the tables."""
    from linearize import cli  # of all frameworks, which a page does without

    with cli.reporting():
        page = write_all(run_dir)
        read_page(run_dir).print()
        print(f"report: {page}")


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.report")

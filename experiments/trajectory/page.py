"""The page of ``experiments.trajectory``."""

from pathlib import Path

from experiments import curves
from experiments.trajectory.results import Results
from linearize.report import schema
from linearize.report.node import Node
from linearize.report.page import Page


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory.

    Raises:
        ResultsError: a result file does not fit the schema.
    """
    results = schema.read(Results, node)
    lead = (
        f"Task vectors of {len(results.tasks)} tasks along fine-tuning, "
        f"{results.model_name}: their direction, the accuracy of each task's model, and that "
        "of all vectors of the same step added with the α that validation data choose."
    )
    return curves.page(results, "Task vectors along training", lead, "Steps", log=False)

"""The page of ``experiments.trajectory``."""

from pathlib import Path

from experiments import curves
from linearize.report.node import Node
from linearize.report.page import Page


def read(node: Node, run_dir: Path) -> Page:
    """The page of a run directory.

    Raises:
        ResultsError: a result file does not fit the schema.
    """
    lead = (
        f"Task vectors of {len(node.names('tasks'))} tasks along fine-tuning, "
        f"{node.get('model/name')}: their direction, the accuracy of each task's model, and that "
        "of all vectors of the same step added with the α that validation data choose."
    )
    return curves.page(node, "Task vectors along training", lead, "Steps", log=False)

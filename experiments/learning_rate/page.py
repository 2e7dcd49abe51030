"""The page of ``experiments.learning_rate``."""

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
        f"{len(node.names('tasks'))} tasks fine-tuned at several learning rates, "
        f"{node.get('model/name')}: accuracy of each task's own model, and of all task vectors "
        "added with the α that validation data choose."
    )
    return curves.page(node, "Effect of the learning rate", lead, "Learning rate", log=True)

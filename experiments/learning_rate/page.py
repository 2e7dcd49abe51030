"""The page of ``experiments.learning_rate``."""

from pathlib import Path

from experiments import curves
from experiments.learning_rate.results import Results
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
        f"{len(results.tasks)} tasks fine-tuned at several learning rates, "
        f"{results.model_name}: accuracy of each task's own model, and of all task vectors "
        "added with the α that validation data choose."
    )
    return curves.page(results, "Effect of the learning rate", lead, "Learning rate", log=True)

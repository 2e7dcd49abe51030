"""The page of ``experiments.trajectory``."""

from experiments import curves
from experiments.trajectory.results import Results
from linearize.report.page import Page, shows


@shows(Results)
def read(results: Results) -> Page:
    """The page."""
    lead = (
        f"Task vectors of {len(results.tasks)} tasks along fine-tuning, "
        f"{results.model_name}: their direction, the accuracy of each task's model, and that "
        "of all vectors of the same step added with the α that validation data choose."
    )
    return curves.page(results, "Task vectors along training", lead, "Steps", log=False)
